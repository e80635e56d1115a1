//! Texts for states, reasons and gaps.

use std::time::Duration;

use waterclock::notice::{Gap, GapReason, GoodbyeReason, Outcome, TopicEnd};
use waterclock_leptos::{ConnectionState, DisconnectReason, Role};

use crate::{code::without_code, ring::Outage, visible::visible_line};

/// Returns a text with its first letter in upper case.
pub(crate) fn capitalized(text: &str) -> String {
    let mut text = text.to_owned();
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}

/// Writes a number in groups of three digits.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Writes a number of things, whose plural ends with `s`.
pub(crate) fn count(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", grouped(number))
}

/// Describes the state of the connection.
pub(crate) fn state_label(state: &ConnectionState) -> &'static str {
    match state {
        ConnectionState::Idle => "Not connected",
        ConnectionState::Connecting => "Connecting",
        ConnectionState::Live => "Live",
        ConnectionState::Reconnecting => "Connection lost, reconnecting",
        ConnectionState::Stale => "No heartbeat, reconnecting",
        ConnectionState::Waiting { .. } => "No connection",
        ConnectionState::Stopped => "Stopped",
        ConnectionState::Refused => "Refused",
    }
}

/// Describes the time from `now` until the next attempt. It is not announced, because it changes
/// every second.
pub(crate) fn countdown_label(state: &ConnectionState, now: Duration) -> String {
    let ConnectionState::Waiting { until } = *state else { return String::new() };
    format!(". Retrying in {} s", until.saturating_sub(now).as_secs() + 1)
}

/// Describes a time without a stream in the list.
pub(crate) fn outage_label(outage: Outage) -> String {
    let seconds = outage.length.as_secs();
    let length = match (seconds / 3600, seconds / 60, seconds) {
        (0, 0, 0) => "less than a second".to_owned(),
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, _) => format!("{minutes} min {} s", seconds % 60),
        (hours, minutes, _) => format!("{hours} h {} min", minutes % 60),
    };
    let what = if outage.was_stopped { "Stopped for " } else { "No connection for " };
    [what, &length].concat()
}

/// Describes a gap in the list.
pub(crate) fn gap_label(gap: &Gap) -> &'static str {
    match gap.reason {
        GapReason::Expired => "Events missing: no longer in the log",
        GapReason::Damaged => "Events missing: damaged in the log",
        GapReason::OtherEpoch => "New log: events may be missing",
        GapReason::Future | GapReason::Malformed => "Events may be missing here",
    }
}

/// Describes the end of a topic in the list.
pub(crate) fn end_label(end: &TopicEnd) -> String {
    let topic = end.topic.as_str();
    match (end.outcome, &end.message) {
        (Outcome::Done, _) => ["Topic ended: ", topic].concat(),
        (Outcome::Failed, None) => ["Topic failed: ", topic].concat(),
        (Outcome::Failed, Some(message)) => {
            ["Topic failed: ", topic, ": ", &visible_line(message)].concat()
        }
    }
}

/// Returns the class of the row that shows the end of a topic. A failure looks like a gap.
pub(crate) fn end_class(end: &TopicEnd) -> &'static str {
    match end.outcome {
        Outcome::Done => "mark",
        Outcome::Failed => "mark gap",
    }
}

/// The content of a stream, which decides what to do about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requested {
    /// The events of the topics in the page's address.
    Events,
    /// The list of topics.
    Topics,
}

/// Describes the reason of a disconnect.
pub(crate) fn reason_label(reason: &DisconnectReason, requested: Requested) -> String {
    match reason {
        DisconnectReason::Goodbye(GoodbyeReason::Draining) => {
            "The server is shutting down".to_owned()
        }
        DisconnectReason::Goodbye(GoodbyeReason::Expired) => {
            "The access token has expired".to_owned()
        }
        DisconnectReason::Goodbye(GoodbyeReason::Limit) => {
            "The server has reached its limit of streams".to_owned()
        }
        DisconnectReason::Goodbye(GoodbyeReason::Behind) => {
            "The server is behind its cluster".to_owned()
        }
        DisconnectReason::Unreachable => "The server cannot be reached".to_owned(),
        DisconnectReason::Offline => "The browser is offline".to_owned(),
        DisconnectReason::Status { status: 204, .. } => "The stream has ended".to_owned(),
        DisconnectReason::Status { status, detail } => {
            let detail = &*without_code(detail.as_deref().unwrap_or_default());
            let (before, after) = match (status, requested) {
                (400, Requested::Events) if !detail.is_empty() => {
                    ("The server refused these topics: ", " Correct them, and press Show.")
                }
                (401, _) => ("This page needs an access token. ", ""),
                (403, Requested::Events) => ("You may not read these events. ", ""),
                (403, Requested::Topics) => ("You may not list topics. ", ""),
                (406, _) => ("Something on the way has changed this page's request. ", ""),
                (414 | 431, Requested::Events) => (
                    "The request is too long. Choose fewer topics, or delete this site's cookies. ",
                    "",
                ),
                (414 | 431, Requested::Topics) => {
                    ("The request is too long. Delete this site's cookies. ", "")
                }
                _ => {
                    let text = format!("The server answered with status {status}: {detail}");
                    return text.trim_end_matches(['.', ' ', ':']).to_owned();
                }
            };
            [before, detail, after].concat().trim_end().to_owned()
        }
        DisconnectReason::ContentType(content_type) if content_type.is_empty() => {
            "The server's response is not a stream".to_owned()
        }
        DisconnectReason::ContentType(content_type) => {
            format!("The server answered with {content_type}, which is not a stream")
        }
        DisconnectReason::Recovered => "The server answers again".to_owned(),
    }
}

/// Returns the title of the document: the state of the connection, with the mark that the style
/// sheet has for it, and the page's own title.
pub(crate) fn document_title(state: &ConnectionState, title: &str) -> String {
    let mark = match state {
        ConnectionState::Idle => return title.to_owned(),
        ConnectionState::Live => "●",
        ConnectionState::Waiting { .. } => "△",
        ConnectionState::Stopped => "■",
        ConnectionState::Refused => "⊘",
        // Opening a connection.
        _ => "◌",
    };
    format!("{mark} {} · {title}", state_label(state))
}

/// Describes a failed publish of the form. `wait` is the number of seconds in `Retry-After`.
pub(crate) fn publish_failure_label(
    status: u16,
    detail: Option<&str>,
    wait: Option<u32>,
) -> String {
    let Some(detail) = detail else {
        return ["The server answered with status ", &status.to_string(), "."].concat();
    };
    let Some(wait) = wait else { return without_code(detail) };
    // The form shows no headers, and sends no keys. A search in the text would add 4 kB to the
    // page.
    let advice = " With an `Idempotency-Key`, a retry stores it only once.";
    let detail = detail.strip_suffix(advice).unwrap_or(detail);
    let detail = detail.strip_suffix(" `Retry-After` says when to retry.").unwrap_or(detail);
    without_code(&[detail, " Try again in ", &wait.to_string(), " s."].concat())
}

/// Describes the sharing of the connection among tabs.
pub(crate) fn sharing_label(role: Role, state: &ConnectionState, tabs: Option<usize>) -> String {
    let tabs = match (role, tabs) {
        (Role::Inactive | Role::Suspended, _) => return String::new(),
        (Role::Standalone, _) if *state != ConnectionState::Live => return String::new(),
        (Role::Standalone, _) => {
            return "This tab has its own connection (no HTTPS)".to_owned();
        }
        (_, None | Some(0 | 1)) => "1 tab".to_owned(),
        (_, Some(tabs)) => format!("{tabs} tabs"),
    };
    if *state == ConnectionState::Live { tabs + ", 1 connection" } else { tabs }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_gets_a_capital_letter() {
        for (text, expected) in [("long polling", "Long polling"), ("", ""), ("ä", "ä")] {
            assert_eq!(capitalized(text), expected);
        }
    }

    #[test]
    fn numbers_are_in_groups_of_three_digits() {
        assert_eq!([count(0, "event"), count(1, "event")], ["0 events", "1 event"]);
        assert_eq!(count(1_234_567, "event"), "1,234,567 events");
        assert_eq!(grouped(100), "100");
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let label = |status, detail: &str, requested| {
            let detail = Some(detail.to_owned()).filter(|detail| !detail.is_empty());
            reason_label(&DisconnectReason::Status { status, detail }, requested)
        };
        for (status, detail, expected) in [
            (
                400,
                "One is none.",
                "The server refused these topics: One is none. Correct them, and press Show.",
            ),
            (401, "It has `exp`.", "This page needs an access token. It has exp."),
            (401, "It has expired.", "This page needs an access token. It has expired."),
            (401, "", "This page needs an access token."),
            (403, "It is not public.", "You may not read these events. It is not public."),
            (403, "", "You may not read these events."),
            (400, "", "The server answered with status 400"),
            (
                406,
                "It is no stream.",
                "Something on the way has changed this page's request. It is no stream.",
            ),
            (
                414,
                "",
                "The request is too long. Choose fewer topics, or delete this site's cookies.",
            ),
            (503, "Come back.", "The server answered with status 503: Come back"),
        ] {
            assert_eq!(label(status, detail, Requested::Events), expected);
        }
        for (status, detail, expected) in [
            (400, "No.", "The server answered with status 400: No"),
            (401, "It has expired.", "This page needs an access token. It has expired."),
            (403, "", "You may not list topics."),
            (431, "", "The request is too long. Delete this site's cookies."),
        ] {
            assert_eq!(label(status, detail, Requested::Topics), expected);
        }
    }

    #[test]
    fn a_failed_publish_says_when_to_try_again() {
        for (status, detail, wait, expected) in [
            (502, None, None, "The server answered with status 502."),
            (400, Some("`a..b` is no topic."), None, "a..b is no topic."),
            (
                503,
                Some("It was not stored. `Retry-After` says when to retry."),
                Some(5),
                "It was not stored. Try again in 5 s.",
            ),
            (
                503,
                Some(
                    "It is unknown. `Retry-After` says when to retry. With an `Idempotency-Key`, a \
                     retry stores it only once.",
                ),
                Some(5),
                "It is unknown. Try again in 5 s.",
            ),
            (409, Some("It is in flight."), Some(1), "It is in flight. Try again in 1 s."),
        ] {
            assert_eq!(publish_failure_label(status, detail, wait), expected);
        }
    }

    #[test]
    fn an_outage_has_its_length_in_two_units_at_most() {
        for (seconds, length) in [
            (0, "less than a second"),
            (59, "59 s"),
            (60, "1 min 0 s"),
            (3599, "59 min 59 s"),
            (90_000, "25 h 0 min"),
        ] {
            let outage = Outage { length: Duration::from_secs(seconds), was_stopped: false };
            assert_eq!(outage_label(outage), format!("No connection for {length}"));
        }
        let stopped = Outage { length: Duration::from_millis(1999), was_stopped: true };
        assert_eq!(outage_label(stopped), "Stopped for 1 s");
    }
}
