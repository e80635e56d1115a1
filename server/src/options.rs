//! The program's options: each is a flag and an environment variable.

use std::{net::SocketAddr, time::Duration};

use clap::Parser;

/// A live-event server. It streams a clock, one timestamp a second, over Server-Sent Events, and
/// serves a page that shows it.
#[derive(Debug, Parser)]
#[command(name = "waterclock", version)]
pub struct Options {
    /// Address and port to serve on; port 0 picks a free one.
    #[arg(long, env = "WATERCLOCK_LISTEN", value_name = "ADDRESS")]
    listen: Option<SocketAddr>,

    /// Time between two ticks of the clock, such as 100ms, 2s or 1m.
    #[arg(long, env = "WATERCLOCK_INTERVAL", value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub interval: Duration,

    /// Time without an event after which a stream sends a heartbeat.
    #[arg(long, env = "WATERCLOCK_HEARTBEAT", value_name = "TIME", default_value = "15s", value_parser = duration)]
    pub heartbeat: Duration,

    /// How long clients are told to wait before they connect again.
    #[arg(long, env = "WATERCLOCK_RETRY", value_name = "TIME", default_value = "2s", value_parser = duration)]
    pub retry: Duration,
}

impl Options {
    /// Where to listen: what the options say, or else `default`.
    pub fn listen(&self, default: SocketAddr) -> SocketAddr {
        self.listen.unwrap_or(default)
    }
}

/// Reads a time from 5 milliseconds, which timers can keep, to a day.
fn duration(text: &str) -> Result<Duration, &'static str> {
    humantime::parse_duration(text)
        .ok()
        .filter(|time| (Duration::from_millis(5)..=Duration::from_hours(24)).contains(time))
        .ok_or("a time from 5ms to 24h is needed, such as 500ms, 2s or 1m 30s")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, clap::Error> {
        Options::try_parse_from([&["waterclock"], arguments].concat())
    }

    #[test]
    fn defaults() {
        let options = parse(&[]).unwrap();
        let default = "127.0.0.1:3000".parse().unwrap();
        assert_eq!(options.listen(default), default);
        assert_eq!(options.interval, Duration::from_secs(1));
        assert_eq!(options.heartbeat, Duration::from_secs(15));
        assert_eq!(options.retry, Duration::from_secs(2));
    }

    #[test]
    fn flags() {
        let options = parse(&["--listen", "[::1]:0", "--interval", "100ms"]).unwrap();
        let listen: SocketAddr = "[::1]:0".parse().unwrap();
        assert_eq!(options.listen("127.0.0.1:3000".parse().unwrap()), listen);
        assert_eq!(options.interval, Duration::from_millis(100));
    }

    #[test]
    fn a_time_that_is_none_is_refused_with_an_example() {
        for time in ["", "1", "s", "0s", "4ms", "-1s", "25h", "soon"] {
            let error = parse(&[&format!("--interval={time}")]).unwrap_err().to_string();
            assert!(error.contains("500ms, 2s or 1m 30s"), "{time}: {error}");
        }
    }
}
