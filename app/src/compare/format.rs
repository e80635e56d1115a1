//! Texts for times, numbers and transports.

use waterclock::transport::Transport;

use crate::labels::grouped;

/// Returns the name of a transport in a sentence.
pub(crate) fn transport_name(transport: Transport) -> &'static str {
    match transport {
        Transport::Sse => "SSE",
        Transport::WebSocket => "WebSocket",
        Transport::LongPoll => "long polling",
        Transport::Poll => "polling",
    }
}

/// Returns the name of a transport at the start of a sentence, and by itself.
pub(crate) fn transport_label(transport: Transport) -> &'static str {
    match transport {
        Transport::LongPoll => "Long polling",
        Transport::Poll => "Polling",
        other => transport_name(other),
    }
}

/// Joins the items of a list: "SSE, WebSocket and polling".
pub(crate) fn joined(items: &[impl AsRef<str>]) -> String {
    let mut text = String::new();
    for (i, item) in items.iter().enumerate() {
        text += match items.len() - i {
            _ if i == 0 => "",
            1 => " and ",
            _ => ", ",
        };
        text += item.as_ref();
    }
    text
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

/// Writes a duration in milliseconds for a sentence, where its order of magnitude matters.
pub(crate) fn rough_millis(millis: f64) -> String {
    if millis < 1.0 {
        "less than 1 ms".to_owned()
    } else if millis < 999.5 {
        format!("{millis:.0} ms")
    } else {
        format!("{:.1} s", millis / 1000.0)
    }
}

/// Writes a duration in whole milliseconds.
pub(crate) fn whole_millis(millis: u64) -> String {
    if millis < 1000 { format!("{millis} ms") } else { format!("{} s", millis / 1000) }
}

/// Writes an interval in milliseconds: "every second".
pub(crate) fn every(millis: u64) -> String {
    match millis {
        1000 => "every second".to_owned(),
        millis if millis < 1000 => format!("every {millis} ms"),
        millis => format!("every {} seconds", millis / 1000),
    }
}

/// Writes how often one number contains another one: "twice", or "1,100 times".
pub(crate) fn times(number: u64, of: u64) -> String {
    let times = (number + of / 2) / of.max(1);
    // More digits would change all the time while a comparison runs.
    let unit = match times {
        2 => return "twice".to_owned(),
        0..100 => 1,
        100..1000 => 10,
        _ => 100,
    };
    format!("{} times", grouped((times + unit / 2) / unit * unit))
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

    #[test]
    fn durations_in_sentences_are_whole_milliseconds() {
        for (time, expected) in [
            (-0.26, "less than 1 ms"),
            (0.99, "less than 1 ms"),
            (1.0, "1 ms"),
            (3.6, "4 ms"),
            (999.4, "999 ms"),
            (999.6, "1.0 s"),
            (1519.0, "1.5 s"),
        ] {
            assert_eq!(rough_millis(time), expected);
        }
    }

    #[test]
    fn numbers_are_written_as_in_a_text() {
        for (number, of, expected) in [
            (60, 1, "60 times"),
            (60, 30, "twice"),
            (70, 30, "twice"),
            (99, 1, "99 times"),
            (1131, 2, "570 times"),
            (1131, 1, "1,100 times"),
            (995, 1, "1,000 times"),
        ] {
            assert_eq!(times(number, of), expected);
        }
        assert_eq!(joined(&["SSE"]), "SSE");
        assert_eq!(joined(&["SSE", "WebSocket"]), "SSE and WebSocket");
        assert_eq!(joined(&["SSE", "WebSocket", "polling"]), "SSE, WebSocket and polling");
    }
}
