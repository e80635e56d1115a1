//! The messages between the tabs of a browser: lists of strings, posted on a `BroadcastChannel`.
//!
//! | kind | further fields |
//! |---|---|
//! | `ask` | |
//! | `status` | state, remaining wait in ms, cursor, heartbeat interval in ms, reason (0 to 3) |
//! | `message` | the leader's cursor before the message, its name, its last event id, its data |
//!
//! The server puts the version of this format into the name of the channel, so that tabs of two
//! versions do not share one.

use std::time::Duration;

use waterclock::{id::EventId, notice::GoodbyeReason};

use crate::{
    browser::RawMessage,
    connection::{ConnectionState, DisconnectReason},
    message::{self, StreamUpdate},
    tab::{LeaderStatus, TabInput},
};

/// Writes [`TabEffect::Ask`](crate::tab::TabEffect::Ask).
pub(crate) fn ask() -> Vec<String> {
    vec!["ask".to_owned()]
}

/// Writes [`TabEffect::Announce`](crate::tab::TabEffect::Announce).
pub(crate) fn announce(status: &LeaderStatus) -> Vec<String> {
    let LeaderStatus { state, reason, cursor, heartbeat } = status;
    let wait = if let ConnectionState::Waiting { until } = *state { until } else { Duration::ZERO };
    let mut fields = vec![
        "status".to_owned(),
        state.as_str().to_owned(),
        whole_millis(wait),
        id_or_empty(*cursor),
        whole_millis(*heartbeat),
    ];
    fields.extend(match reason {
        None => vec![],
        Some(DisconnectReason::Goodbye(reason)) => {
            vec!["goodbye".to_owned(), reason.as_str().to_owned()]
        }
        Some(DisconnectReason::Unreachable) => vec!["unreachable".to_owned()],
        Some(DisconnectReason::Offline) => vec!["offline".to_owned()],
        Some(DisconnectReason::Recovered) => vec!["recovered".to_owned()],
        Some(DisconnectReason::Status { status, detail }) => {
            ["status".to_owned(), status.to_string()].into_iter().chain(detail.clone()).collect()
        }
        Some(DisconnectReason::ContentType(content_type)) => {
            vec!["content-type".to_owned(), content_type.clone()]
        }
    });
    fields
}

/// Writes [`TabEffect::Relay`](crate::tab::TabEffect::Relay) of a message.
pub(crate) fn relay(after: Option<EventId>, message: &RawMessage) -> Vec<String> {
    let RawMessage { name, last_event_id, data } = message;
    let [name, last_event_id] = [(*name).to_owned(), last_event_id.clone()];
    vec!["message".to_owned(), id_or_empty(after), name, last_event_id, data.clone()]
}

/// Reads the post of another tab. Returns `None` if it is malformed.
pub(crate) fn parse(fields: &[&str]) -> Option<TabInput<StreamUpdate>> {
    match *fields {
        ["ask"] => Some(TabInput::Asked),
        ["status", state, wait, cursor, heartbeat, ref reason @ ..] => {
            let millis = |field: &str| field.parse().ok().map(Duration::from_millis);
            let state = match state {
                "waiting" => ConnectionState::Waiting { until: millis(wait)? },
                "live" => ConnectionState::Live,
                "reconnecting" => ConnectionState::Reconnecting,
                "stale" => ConnectionState::Stale,
                "stopped" => ConnectionState::Stopped,
                _ => ConnectionState::Connecting,
            };
            Some(TabInput::Announced(LeaderStatus {
                state,
                reason: parse_reason(reason),
                cursor: cursor.parse().ok(),
                heartbeat: millis(heartbeat)?,
            }))
        }
        ["message", after, name, last_event_id, data] => Some(TabInput::Relayed {
            after: after.parse().ok(),
            message: message::parse(name, last_event_id, data),
        }),
        _ => None,
    }
}

fn parse_reason(fields: &[&str]) -> Option<DisconnectReason> {
    Some(match *fields {
        ["goodbye", reason] => DisconnectReason::Goodbye(
            GoodbyeReason::ALL.into_iter().find(|other| other.as_str() == reason)?,
        ),
        ["unreachable"] => DisconnectReason::Unreachable,
        ["offline"] => DisconnectReason::Offline,
        ["recovered"] => DisconnectReason::Recovered,
        ["status", status, ref detail @ ..] => DisconnectReason::Status {
            status: status.parse().ok()?,
            detail: detail.first().map(ToString::to_string),
        },
        ["content-type", content_type] => DisconnectReason::ContentType(content_type.to_owned()),
        _ => return None,
    })
}

/// Writes whole milliseconds. Formatting the `u128` of `Duration::as_millis` would add 1 kB to the
/// page.
fn whole_millis(duration: Duration) -> String {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).to_string()
}

fn id_or_empty(id: Option<EventId>) -> String {
    id.map(String::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use waterclock::id::Epoch;

    use super::*;
    use crate::{connection::ReceivedMessage, tab::StreamMessage};

    fn id(sequence: u64) -> EventId {
        EventId { epoch: Epoch::new(0xff), sequence }
    }

    fn round_trip(fields: &[String]) -> Option<TabInput<StreamUpdate>> {
        parse(&fields.iter().map(String::as_str).collect::<Vec<_>>())
    }

    #[test]
    fn every_status_survives_a_round_trip() {
        let reasons = [
            DisconnectReason::Goodbye(GoodbyeReason::Draining),
            DisconnectReason::Unreachable,
            DisconnectReason::Offline,
            DisconnectReason::Recovered,
            DisconnectReason::Status { status: 503, detail: None },
            DisconnectReason::Status { status: 403, detail: Some("not\n\npublic".to_owned()) },
            DisconnectReason::ContentType("text/html; charset=utf-8".to_owned()),
        ];
        let all_states = [
            ConnectionState::Waiting { until: Duration::from_millis(5300) },
            ConnectionState::Live,
            ConnectionState::Connecting,
            ConnectionState::Reconnecting,
            ConnectionState::Stale,
            ConnectionState::Stopped,
        ];
        for reason in reasons.into_iter().map(Some).chain([None]) {
            for state in all_states.clone() {
                let cursor = reason.as_ref().map(|_| id(7));
                let heartbeat = Duration::from_secs(15);
                let status = LeaderStatus { state, reason: reason.clone(), cursor, heartbeat };
                let fields = announce(&status);
                assert_eq!(round_trip(&fields), Some(TabInput::Announced(status)), "{fields:?}");
            }
        }
        assert_eq!(round_trip(&ask()), Some(TabInput::Asked));
    }

    #[test]
    fn a_relayed_message_is_parsed_like_the_leader_parses_it() {
        let (name, data) = ("heartbeat", "several\nlines".to_owned());
        let message = RawMessage { name, last_event_id: id(4).to_string(), data };
        for after in [None, Some(id(2))] {
            let received = ReceivedMessage::Heartbeat { id: Some(id(4)) };
            let message_read = StreamMessage { received, content: StreamUpdate::Notice };
            let expected = TabInput::Relayed { after, message: message_read };
            assert_eq!(round_trip(&relay(after, &message)), Some(expected));
        }
    }

    #[test]
    fn malformed_posts_are_ignored() {
        for fields in
            [&[][..], &["hello"], &["status"], &["status", "live", "0", "", ""], &["message", ""]]
        {
            assert_eq!(parse(fields), None, "{fields:?}");
        }
    }
}
