//! Texts for times and transports.

use waterclock::transport::Transport;

/// Returns the name of a transport in a sentence.
pub(crate) fn transport_label(transport: Transport) -> &'static str {
    match transport {
        Transport::Sse => "SSE",
        Transport::WebSocket => "WebSocket",
        Transport::LongPoll => "Long polling",
        Transport::Poll => "Polling",
    }
}

/// Writes a duration in milliseconds, with at most three significant digits.
pub(crate) fn millis(millis: f64) -> String {
    let size = millis.abs();
    if size < 10.0 {
        format!("{millis:.1} ms")
    } else if size < 1000.0 {
        format!("{millis:.0} ms")
    } else {
        format!("{:.2} s", millis / 1000.0)
    }
}

/// Writes a duration in whole milliseconds.
pub(crate) fn whole_millis(millis: u64) -> String {
    if millis < 1000 { format!("{millis} ms") } else { format!("{} s", millis / 1000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_at_most_three_digits() {
        for (time, expected) in [
            (-0.26, "-0.3 ms"),
            (9.94, "9.9 ms"),
            (12.5, "12 ms"),
            (502.0, "502 ms"),
            (1234.0, "1.23 s"),
        ] {
            assert_eq!(millis(time), expected);
        }
    }
}
