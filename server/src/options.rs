//! The program's options: each is a flag and an environment variable.

use std::{
    collections::BTreeSet,
    env,
    ffi::{OsStr, OsString},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::{
    CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum, error::ErrorKind,
};
use waterclock::{event_log::Retention, pattern::Pattern};

use crate::{
    access::{Access, AllowedHost, CorsOrigin},
    client::TrustedProxy,
    diagnose::Diagnose,
    publish::PublishRate,
    streams::StreamLimits,
    tls::{Tls, TlsError},
    token::Tokens,
};

const AFTER_HELP: &str = "\
Examples:
  waterclock                                 serve http://127.0.0.1:3000 to this machine
  waterclock --interval 100ms --listen 127.0.0.1:0
                                             ten ticks a second, on a port that is free
  waterclock --listen 0.0.0.0:80 --public-topic clock
                                             serve the clock to everybody
  waterclock --cors-origin http://localhost:5173
                                             let a page of that origin read, too
  waterclock diagnose https://clock.example/ say what is between here and that server

Then read the stream: curl -N http://127.0.0.1:3000/events

What is logged, on standard error, says RUST_LOG: info (the default), debug, server=debug, ...
Exit codes: 0 stopped when asked; 1 failed while running; 2 could not start as asked.";

/// A live-event server. It streams a clock, one timestamp a second, over Server-Sent Events, and
/// serves a page that shows it.
///
/// It serves this machine only, unless options say otherwise. Each option is an environment variable
/// too; where an option can be given several times, commas separate its values there.
#[derive(Debug, Parser)]
#[command(name = "waterclock", version, max_term_width = 100, after_help = AFTER_HELP)]
pub struct Options {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Address and port to serve on; port 0 picks a free one. Can be given several times
    /// [default: 127.0.0.1:3000]
    #[arg(long, env = "WATERCLOCK_LISTEN", value_name = "ADDRESS", value_delimiter = ',', value_parser = address)]
    listen: Vec<SocketAddr>,

    /// Time between two ticks of the clock, such as 100ms, 2s or 1m
    #[arg(long, env = "WATERCLOCK_INTERVAL", value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub interval: Duration,

    /// Time without an event after which a stream sends a heartbeat
    #[arg(long, env = "WATERCLOCK_HEARTBEAT", value_name = "TIME", default_value = "15s", value_parser = duration)]
    pub heartbeat: Duration,

    /// How long clients are told to wait before they connect again
    #[arg(long, env = "WATERCLOCK_RETRY", value_name = "TIME", default_value = "2s", value_parser = duration)]
    pub retry: Duration,

    /// Where events are kept: in a file, where they outlive the program, or in memory
    #[arg(long, env = "WATERCLOCK_STORE", value_name = "STORE", default_value = "file")]
    pub store: Store,

    /// The folder of the file; it is made if it is missing
    #[arg(long, env = "WATERCLOCK_DATA_DIR", value_name = "FOLDER", default_value = "data")]
    pub data_dir: PathBuf,

    /// How many events of a topic are kept; of the clock's, at most 3,600
    #[arg(long, env = "WATERCLOCK_RETAIN_COUNT", value_name = "COUNT", default_value_t = 100_000)]
    retain_count: usize,

    /// How long events are kept
    #[arg(long, env = "WATERCLOCK_RETAIN_AGE", value_name = "TIME", default_value = "24h", value_parser = age)]
    retain_age: Duration,

    /// About how many bytes of events are kept in all, such as 64MiB or 1GiB
    #[arg(long, env = "WATERCLOCK_RETAIN_BYTES", value_name = "BYTES", default_value = "1GiB", value_parser = bytes)]
    retain_bytes: usize,

    /// How many topics may have events at a time; events of further ones are refused
    #[arg(long, env = "WATERCLOCK_MAX_TOPICS", value_name = "COUNT", default_value_t = 10_000)]
    max_topics: usize,

    /// How many events a second others than this machine may publish, each address; those beyond are
    /// answered with 429, lines of `split=lines` wait
    #[arg(long, env = "WATERCLOCK_MAX_PUBLISHES", value_name = "COUNT", default_value = "1000")]
    max_publishes: NonZeroU32,

    /// How many streams may be open; those beyond are told to come back later
    #[arg(long, env = "WATERCLOCK_MAX_STREAMS", value_name = "COUNT", default_value_t = 10_000)]
    max_streams: usize,

    /// How many of them from one address (of IPv6, from one /64). Behind a proxy that is not trusted all
    /// come from its own
    #[arg(
        long,
        env = "WATERCLOCK_MAX_STREAMS_PER_ADDRESS",
        value_name = "COUNT",
        default_value_t = 1000
    )]
    max_streams_per_address: usize,

    /// A topic that anyone may read, not only this machine, or a pattern of topics: `*` stands for one
    /// token, a last `>` for all the rest. Can be given several times
    #[arg(long, env = "WATERCLOCK_PUBLIC_TOPIC", value_name = "PATTERN", value_delimiter = ',')]
    public_topic: Vec<Pattern>,

    /// An origin whose pages may read as the server's own may, such as `https://example.org`; `*` for
    /// all. Can be given several times
    #[arg(long, env = "WATERCLOCK_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    cors_origin: Vec<CorsOrigin>,

    /// A name besides localhost by which this machine may call the server. Can be given several times
    #[arg(long, env = "WATERCLOCK_ALLOWED_HOST", value_name = "NAME", value_delimiter = ',')]
    allowed_host: Vec<AllowedHost>,

    /// A proxy, or a network of them, such as 10.0.0.0/8, whose `Forwarded` or `X-Forwarded-For` is
    /// believed when clients are counted. Can be given several times
    #[arg(long, env = "WATERCLOCK_TRUSTED_PROXY", value_name = "ADDRESS", value_delimiter = ',')]
    trusted_proxy: Vec<TrustedProxy>,

    /// A file with the secret that tokens (JSON Web Tokens) are signed with, by HS256
    #[arg(long, env = "WATERCLOCK_JWT_SECRET_FILE", value_name = "FILE")]
    jwt_secret_file: Option<PathBuf>,

    /// A file with the public key, in PEM, of who signs tokens, by RS256, EdDSA or ES256
    #[arg(
        long,
        env = "WATERCLOCK_JWT_PUBLIC_KEY_FILE",
        value_name = "FILE",
        conflicts_with = "jwt_secret_file"
    )]
    jwt_public_key_file: Option<PathBuf>,

    /// Whom tokens must be for, by their `aud`; without it, tokens that have an `aud` are refused
    #[arg(long, env = "WATERCLOCK_JWT_AUDIENCE", value_name = "AUDIENCE")]
    jwt_audience: Option<String>,

    /// Ask this machine, too, for a token
    #[arg(long, env = "WATERCLOCK_REQUIRE_TOKEN")]
    require_token: bool,

    /// A file with the server's certificate and those between it and a known authority, in PEM: serve
    /// https, with HTTP/2. Read again when it changes
    #[arg(long, env = "WATERCLOCK_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// A file with the certificate's private key, in PEM
    #[arg(long, env = "WATERCLOCK_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Serve https with a certificate that is made for this machine's names and those of `--allowed-host`, and
    /// kept in the data folder. Browsers warn of it
    #[arg(long, env = "WATERCLOCK_TLS_SELF_SIGNED", conflicts_with_all = ["tls_cert", "tls_key"])]
    pub tls_self_signed: bool,

    /// How long a stop may take. Streams are told to come back, spread over that time if there are
    /// many; a second signal stops at once
    #[arg(long, env = "WATERCLOCK_DRAIN", value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub drain: Duration,

    /// How the log is written
    #[arg(long, env = "WATERCLOCK_LOG", value_name = "FORMAT", default_value = "text")]
    pub log: LogFormat,
}

/// What to do instead of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure the path to a server of events, and say what is wrong with it and what mends that
    Diagnose(Diagnose),
}

/// Where events are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Store {
    /// In a file of `--data-dir`.
    File,
    /// Nowhere else; they are gone when the program ends.
    Memory,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object a line.
    Json,
}

impl Options {
    /// Reads the program's arguments, the first of which is its name, and the environment.
    ///
    /// # Errors
    ///
    /// What is wrong with them, or the help that was asked for.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let arguments: Vec<_> = arguments.into_iter().collect();
        let mut command = Self::command();
        let is_serving =
            arguments.get(1).is_none_or(|name| command.find_subcommand(name).is_none());
        // The environment is the server's. What is empty there counts as not set, as with other programs.
        let is_heeded =
            |name: &OsStr| is_serving && env::var_os(name).is_none_or(|value| !value.is_empty());
        command = command.mut_args(|arg| match arg.get_env() {
            Some(name) if !is_heeded(name) => arg.env(None),
            _ => arg,
        });
        let matches = command.try_get_matches_from_mut(arguments)?;
        if let Some(name) = matches.subcommand_name().filter(|_| matches.args_present()) {
            let message = format!(
                "options of the server cannot be used with '{name}'; its own come after it, see \
                 'waterclock {name} --help'"
            );
            return Err(command.error(ErrorKind::ArgumentConflict, message));
        }
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }

    /// Where to listen: what the options say, or else `default`.
    pub fn listen(&self, default: SocketAddr) -> Vec<SocketAddr> {
        if self.listen.is_empty() { vec![default] } else { self.listen.clone() }
    }

    /// How much is kept.
    pub fn retention(&self) -> Retention {
        let clock_count = Retention::default().clock_count.min(self.retain_count);
        Retention {
            count: self.retain_count,
            clock_count,
            age: self.retain_age,
            bytes: self.retain_bytes,
            // One for the clock, which always has its own.
            topics: self.max_topics.saturating_add(1),
        }
    }

    /// With what TLS is spoken, if it is.
    ///
    /// # Errors
    ///
    /// If a file of it cannot be used.
    pub fn tls(&self) -> Result<Option<Tls>, TlsError> {
        if let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) {
            return Tls::from_files(certificate, key).map(Some);
        }
        if !self.tls_self_signed {
            return Ok(None);
        }
        let addresses = self.listen.iter().map(SocketAddr::ip);
        let addresses = addresses.filter(|address| !address.is_unspecified());
        let local = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let addresses: BTreeSet<IpAddr> = addresses.chain(local).collect();
        let hosts = self.allowed_host.iter().map(ToString::to_string);
        // As in a URL, an address of IPv6 has brackets around it.
        let hosts = hosts.map(|host| host.trim_matches(['[', ']']).to_owned());
        let addresses = addresses.iter().map(ToString::to_string);
        let mut names = vec!["localhost".to_owned()];
        for name in hosts.chain(addresses) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Tls::self_signed(&self.data_dir, &names).map(Some)
    }

    /// How many streams there may be.
    pub fn stream_limits(&self) -> StreamLimits {
        StreamLimits { in_all: self.max_streams, per_address: self.max_streams_per_address }
    }

    /// How many events a second a client may publish.
    pub fn publish_rate(&self) -> PublishRate {
        PublishRate::new(self.max_publishes)
    }

    /// Whose word on where a request comes from is taken.
    pub fn trusted_proxies(&self) -> Arc<[TrustedProxy]> {
        self.trusted_proxy.clone().into()
    }

    /// Who may read and publish.
    ///
    /// # Errors
    ///
    /// If the key for tokens cannot be read, or there is none where it is needed.
    pub fn access(&self) -> Result<Access, String> {
        Ok(Access {
            public_topics: self.public_topic.clone().into(),
            allowed_hosts: self.allowed_host.clone().into(),
            cors_origins: self.cors_origin.clone().into(),
            tokens: self.tokens()?.map(Arc::new),
            is_token_required: self.require_token,
        })
    }

    fn tokens(&self) -> Result<Option<Tokens>, String> {
        let audience = self.jwt_audience.as_deref();
        let (file, tokens) = match (&self.jwt_secret_file, &self.jwt_public_key_file) {
            (Some(file), _) => (file, Tokens::from_secret(&read(file)?, audience)),
            (None, Some(file)) => (file, Tokens::from_public_key(&read(file)?, audience)),
            (None, None) if self.require_token || audience.is_some() => {
                let needed = "--jwt-secret-file or --jwt-public-key-file";
                return Err(format!("there are no tokens without {needed}"));
            }
            (None, None) => return Ok(None),
        };
        tokens.map(Some).map_err(|why| format!("{} cannot be used: {why}", file.display()))
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|why| format!("{} cannot be read: {why}", file.display()))
}

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse()
        .map_err(|_| "an address and a port are needed, such as 127.0.0.1:3000 or [::1]:3000")
}

/// Reads a time from 5 milliseconds, which timers can keep, to a day.
fn duration(text: &str) -> Result<Duration, &'static str> {
    humantime::parse_duration(text)
        .ok()
        .filter(|time| (Duration::from_millis(5)..=Duration::from_hours(24)).contains(time))
        .ok_or("a time from 5ms to 24h is needed, such as 500ms, 2s or 1m 30s")
}

/// Reads a time from a second on.
fn age(text: &str) -> Result<Duration, &'static str> {
    humantime::parse_duration(text)
        .ok()
        .filter(|age| *age >= Duration::from_secs(1))
        .ok_or("a time of at least a second is needed, such as 90s, 24h or 30days")
}

/// Reads a number of bytes, with or without a unit of 1024.
fn bytes(text: &str) -> Result<usize, &'static str> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("B", 0), ("", 0)];
    units
        .into_iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?.trim_end(), shift)))
        .and_then(|(number, shift)| number.parse::<usize>().ok()?.checked_mul(1 << shift))
        .ok_or("a number of bytes is needed, such as 65536, 64MiB or 1GiB")
}

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls::{
        client::verify_server_name,
        pki_types::{CertificateDer, pem::PemObject as _},
        server::ParsedCertificate,
    };

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, clap::Error> {
        Options::read([&["waterclock"], arguments].concat().into_iter().map(OsString::from))
    }

    #[test]
    fn defaults() {
        let options = parse(&[]).unwrap();
        let default = "127.0.0.1:3000".parse().unwrap();
        assert_eq!(options.listen(default), [default]);
        assert_eq!(options.interval, Duration::from_secs(1));
        assert_eq!(options.heartbeat, Duration::from_secs(15));
        assert_eq!(options.retry, Duration::from_secs(2));
    }

    #[test]
    fn flags() {
        let options = parse(&["--listen", "[::1]:0", "--interval", "100ms"]).unwrap();
        let listen: SocketAddr = "[::1]:0".parse().unwrap();
        assert_eq!(options.listen("127.0.0.1:3000".parse().unwrap()), [listen]);
        assert_eq!(options.interval, Duration::from_millis(100));
    }

    #[test]
    fn what_is_the_servers_is_not_given_to_a_command() {
        for option in ["--listen=127.0.0.1:1", "--store=memory", "--require-token"] {
            let error = parse(&[option, "diagnose", "http://127.0.0.1/"]).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            let expected = "error: options of the server cannot be used with 'diagnose'";
            assert!(error.to_string().starts_with(expected), "{option}: {error}");
        }
        let options = parse(&["diagnose", "http://127.0.0.1/", "--idle=1s"]).unwrap();
        assert!(matches!(options.command, Some(Command::Diagnose(_))));
    }

    #[test]
    fn what_does_not_go_together_for_tls_is_refused() {
        for (arguments, expected) in [
            (&["--tls-cert=chain.pem"][..], "required arguments were not provided:\n  --tls-key"),
            (&["--tls-key=key.pem"], "required arguments were not provided:\n  --tls-cert"),
            (&["--tls-cert="], "a value is required for '--tls-cert <FILE>'"),
            (
                &["--tls-cert=chain.pem", "--tls-self-signed"],
                "'--tls-cert <FILE>' cannot be used with",
            ),
            (&["--tls-key=key.pem", "--tls-self-signed"], "'--tls-key <FILE>' cannot be used with"),
            (
                &["--tls-cert=chain.pem", "--tls-key=key.pem", "--tls-self-signed"],
                "cannot be used with '--tls-self-signed'",
            ),
        ] {
            let error = parse(arguments).unwrap_err().to_string();
            assert!(error.contains(expected), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn a_self_signed_certificate_is_for_each_name_of_this_machine() {
        let folder = tempfile::tempdir().unwrap();
        let data = format!("--data-dir={}", folder.path().display());
        let hosts = "--allowed-host=[::1],[fd00::1],clock.test";
        let options =
            parse(&["--tls-self-signed", &data, hosts, "--listen=127.0.0.2:0,[fd00::2]:0"]);
        let tls = options.unwrap().tls().unwrap().unwrap();
        let certificate = CertificateDer::from_pem_file(tls.file()).unwrap();
        let certificate = ParsedCertificate::try_from(&certificate).unwrap();
        let is_for =
            |name: &str| verify_server_name(&certificate, &name.try_into().unwrap()).is_ok();
        for name in
            ["localhost", "127.0.0.1", "::1", "fd00::1", "clock.test", "127.0.0.2", "fd00::2"]
        {
            assert!(is_for(name), "{name}");
        }
        assert!(!is_for("other.test") && !is_for("fd00::3"));
    }

    #[test]
    fn bytes_have_units() {
        for (text, expected) in [("0", 0), ("7B", 7), ("2KiB", 2048), ("3 MiB", 3 << 20)] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_can_be_given_several_times() {
        let options = parse(&[
            "--listen=127.0.0.1:1,127.0.0.1:2",
            "--listen=[::1]:3",
            "--cors-origin=https://example.org",
            "--cors-origin=HTTP://localhost:5173,https://Example.net:443,*",
            "--allowed-host=Clock.test.",
        ])
        .unwrap();
        let listen = options.listen("127.0.0.1:3000".parse().unwrap());
        assert_eq!(listen.iter().map(SocketAddr::port).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(
            *options.access().unwrap().cors_origins,
            ["https://example.org", "http://localhost:5173", "https://example.net", "*"]
                .map(|text| text.parse().unwrap())
        );
        assert_eq!(*options.access().unwrap().allowed_hosts, ["clock.test".parse().unwrap()]);
    }

    #[test]
    fn what_is_none_is_refused_with_an_example() {
        for (argument, example) in [
            ("--listen=localhost:3000", "127.0.0.1:3000"),
            ("--listen=3000", "127.0.0.1:3000"),
            ("--listen=127.0.0.1:65536", "127.0.0.1:3000"),
            ("--public-topic=a..b", "orders.>"),
            ("--cors-origin=example.org", "https://example.org"),
            ("--cors-origin=https://example.org/", "https://example.org"),
            ("--cors-origin=https://example.org/path", "https://example.org"),
            ("--cors-origin=null", "https://example.org"),
            ("--cors-origin=https://user@example.org", "https://example.org"),
            ("--allowed-host=clock.test:3000", "clock.test"),
            ("--allowed-host=a b", "clock.test"),
            ("--allowed-host=", "clock.test"),
            ("--max-streams=-1", "--max-streams"),
            ("--retain-age=0s", "30days"),
            ("--retain-bytes=1GB", "64MiB"),
            ("--retain-bytes=-1", "64MiB"),
            ("--retain-bytes=99999999TiB", "64MiB"),
            ("--log=xml", "text, json"),
        ] {
            let error = parse(&[argument]).unwrap_err().to_string();
            assert!(error.contains(example), "{argument}: {error}");
        }
    }

    #[test]
    fn a_time_that_is_none_is_refused_with_an_example() {
        for time in ["", "1", "s", "0s", "4ms", "-1s", "25h", "soon"] {
            let error = parse(&[&format!("--interval={time}")]).unwrap_err().to_string();
            assert!(error.contains("500ms, 2s or 1m 30s"), "{time}: {error}");
        }
    }
}
