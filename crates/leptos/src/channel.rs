//! The messages between the tabs of a browser: lists of strings, posted on a `BroadcastChannel`.
//!
//! | kind | further fields |
//! |---|---|
//! | `ask` | |
//! | `status` | state, wait in ms, cursor, heartbeat interval in ms, reason (up to three fields) |
//! | `node` | the name of the node that serves the leader's stream |
//! | `message` | the leader's cursor before the message, its name, its last event id, its data |
//!
//! An id or a node that is not known is an empty field. The node comes with each status. The name
//! of the channel contains [`VERSION`], so that tabs with two versions of this format do not share
//! one.

use std::time::Duration;

use waterclock::{id::EventId, notice::GoodbyeReason};

use crate::{
    browser::RawMessage,
    connection::{ConnectionState, DisconnectReason},
    message::{self, StreamUpdate},
    tab::{LeaderStatus, TabInput},
};

/// Version of the format. It must change with the format.
const VERSION: &str = "5";

/// Returns the name of a group's lock and channel.
pub(crate) fn name(group: &str) -> String {
    format!("waterclock-{VERSION}-{group}")
}

/// Writes [`TabEffect::Ask`](crate::tab::TabEffect::Ask).
pub(crate) fn ask() -> Vec<String> {
    owned(&["ask"])
}

/// Writes [`TabEffect::Announce`](crate::tab::TabEffect::Announce).
pub(crate) fn announce(status: &LeaderStatus) -> Vec<String> {
    let LeaderStatus { state, reason, cursor, heartbeat } = status;
    let wait = if let ConnectionState::Waiting { until } = *state { until } else { Duration::ZERO };
    let (wait, heartbeat) = (whole_millis(wait), whole_millis(*heartbeat));
    let cursor = id_or_empty(*cursor);
    let mut fields = owned(&["status", state.as_str(), &wait, &cursor, &heartbeat]);
    fields.extend(match reason {
        None => Vec::new(),
        Some(DisconnectReason::Goodbye(reason)) => owned(&["goodbye", reason.as_str()]),
        Some(DisconnectReason::Unreachable) => owned(&["unreachable"]),
        Some(DisconnectReason::Offline) => owned(&["offline"]),
        Some(DisconnectReason::Recovered) => owned(&["recovered"]),
        Some(DisconnectReason::Status { status, detail: None }) => {
            owned(&["status", &status.to_string()])
        }
        Some(DisconnectReason::Status { status, detail: Some(detail) }) => {
            owned(&["status", &status.to_string(), detail])
        }
        Some(DisconnectReason::ContentType(content_type)) => owned(&["content-type", content_type]),
    });
    fields
}

/// Writes the name of the node that serves the leader's stream.
pub(crate) fn node(name: &str) -> Vec<String> {
    owned(&["node", name])
}

/// Writes [`TabEffect::Relay`](crate::tab::TabEffect::Relay) of a message.
pub(crate) fn relay(after: Option<EventId>, message: &RawMessage) -> Vec<String> {
    let RawMessage { name, last_event_id, data } = message;
    owned(&["message", &id_or_empty(after), name, last_event_id, data])
}

/// Reads the post of another tab. Returns `None` if any part of it is malformed or unknown.
pub(crate) fn parse(fields: &[&str]) -> Option<TabInput<StreamUpdate>> {
    match *fields {
        ["ask"] => Some(TabInput::Asked),
        ["status", state, wait, cursor, heartbeat, ref reason @ ..] => {
            let millis = |field: &str| field.parse().ok().map(Duration::from_millis);
            let state = match state {
                "idle" => ConnectionState::Idle,
                "connecting" => ConnectionState::Connecting,
                "waiting" => ConnectionState::Waiting { until: millis(wait)? },
                "live" => ConnectionState::Live,
                "reconnecting" => ConnectionState::Reconnecting,
                "stale" => ConnectionState::Stale,
                "stopped" => ConnectionState::Stopped,
                "refused" => ConnectionState::Refused,
                _ => return None,
            };
            Some(TabInput::Announced(LeaderStatus {
                state,
                reason: if reason.is_empty() { None } else { Some(parse_reason(reason)?) },
                cursor: if cursor.is_empty() { None } else { Some(cursor.parse().ok()?) },
                heartbeat: millis(heartbeat)?,
            }))
        }
        ["message", after, name, last_event_id, data] if message::NAMES.contains(&name) => {
            Some(TabInput::Relayed {
                after: if after.is_empty() { None } else { Some(after.parse().ok()?) },
                message: message::parse(name, last_event_id, data),
            })
        }
        _ => None,
    }
}

/// Reads what [`node`] has written. Returns `None` for any other post.
pub(crate) fn parse_node(fields: &[&str]) -> Option<String> {
    let ["node", name] = *fields else { return None };
    Some(name.to_owned())
}

/// Reads the reason in a status. Returns `None` if it is malformed.
fn parse_reason(fields: &[&str]) -> Option<DisconnectReason> {
    Some(match *fields {
        ["goodbye", reason] => DisconnectReason::Goodbye(
            GoodbyeReason::ALL.into_iter().find(|other| other.as_str() == reason)?,
        ),
        ["unreachable"] => DisconnectReason::Unreachable,
        ["offline"] => DisconnectReason::Offline,
        ["recovered"] => DisconnectReason::Recovered,
        ["status", status] => {
            DisconnectReason::Status { status: status.parse().ok()?, detail: None }
        }
        ["status", status, detail] => DisconnectReason::Status {
            status: status.parse().ok()?,
            detail: Some(detail.to_owned()),
        },
        ["content-type", content_type] => DisconnectReason::ContentType(content_type.to_owned()),
        _ => return None,
    })
}

fn owned(fields: &[&str]) -> Vec<String> {
    fields.iter().map(ToString::to_string).collect()
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
    use std::sync::Arc;

    use waterclock::{
        event::Event,
        id::Epoch,
        notice::{Gap, GapReason, TopicEnd},
        timestamp::Timestamp,
    };

    use super::*;
    use crate::{
        connection::{Intervals, ReceivedMessage},
        tab::StreamMessage,
    };

    const ID_2: &str = "00000000000000ff-2";
    const ID_4: &str = "00000000000000ff-4";

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
            ConnectionState::Idle,
            ConnectionState::Waiting { until: Duration::from_millis(5300) },
            ConnectionState::Live,
            ConnectionState::Connecting,
            ConnectionState::Reconnecting,
            ConnectionState::Stale,
            ConnectionState::Stopped,
            ConnectionState::Refused,
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
        let event = Event {
            id: id(4),
            topic: "orders.eu".parse().unwrap(),
            name: "created".parse().unwrap(),
            data: "two\nlines".to_owned(),
            time: Timestamp::from_millis(1_795_388_401_000),
        };
        let event_json = event.to_json();
        let intervals =
            Intervals { heartbeat: Duration::from_secs(15), retry: Duration::from_secs(2) };
        let gap = Gap { reason: GapReason::Expired, cursor: "ff-2".to_owned() };
        let goodbye = GoodbyeReason::Draining;
        let messages = [
            (
                ("message", &*event_json),
                ReceivedMessage::Event { id: Some(id(4)) },
                StreamUpdate::Event(Arc::new(event)),
            ),
            // The lines of a message's data are joined by line feeds.
            (
                ("hello", "{\"heartbeat_ms\":15000,\n\"retry_ms\":2000}"),
                ReceivedMessage::Hello { id: Some(id(4)), intervals: Some(intervals) },
                StreamUpdate::Opened,
            ),
            (
                ("gap", r#"{"reason":"expired","cursor":"ff-2"}"#),
                ReceivedMessage::Gap { cursor: Some(id(4)) },
                StreamUpdate::Gap(gap),
            ),
            (
                ("end", r#"{"topic":"t","outcome":"failed","message":"why","last":true}"#),
                ReceivedMessage::Gap { cursor: Some(id(4)) },
                StreamUpdate::End(TopicEnd {
                    last: true,
                    ..TopicEnd::failed("t".parse().unwrap(), "why".to_owned())
                }),
            ),
            (
                ("end", r#"{"topic":"t","outcome":"done"}"#),
                ReceivedMessage::Gap { cursor: Some(id(4)) },
                StreamUpdate::End(TopicEnd::done("t".parse().unwrap())),
            ),
            (
                ("goodbye", r#"{"reason":"draining","retry_ms":9000}"#),
                ReceivedMessage::Goodbye { reason: goodbye, retry: Duration::from_secs(9) },
                StreamUpdate::Notice,
            ),
            (
                ("heartbeat", "several\nlines"),
                ReceivedMessage::Heartbeat { id: Some(id(4)) },
                StreamUpdate::Notice,
            ),
        ];
        for ((name, data), received, content) in messages {
            let raw = RawMessage { name, last_event_id: id(4).to_string(), data: data.to_owned() };
            for after in [None, Some(id(2))] {
                let message =
                    StreamMessage { received: received.clone(), content: content.clone() };
                let expected = TabInput::Relayed { after, message };
                assert_eq!(round_trip(&relay(after, &raw)), Some(expected), "{name}");
            }
        }
    }

    #[test]
    fn a_relayed_message_with_malformed_data_counts_as_a_heartbeat() {
        for name in ["message", "gap", "end", "goodbye"] {
            for data in ["", "{", "[]", "{}", r#"{"reason":"other"}"#] {
                let message = StreamMessage {
                    received: ReceivedMessage::Heartbeat { id: Some(id(4)) },
                    content: StreamUpdate::Notice,
                };
                let expected = TabInput::Relayed { after: Some(id(2)), message };
                let fields = ["message", ID_2, name, ID_4, data];
                assert_eq!(parse(&fields), Some(expected), "{fields:?}");
            }
        }
        let received = ReceivedMessage::Hello { id: Some(id(4)), intervals: None };
        let message = StreamMessage { received, content: StreamUpdate::Opened };
        let expected = TabInput::Relayed { after: None, message };
        assert_eq!(parse(&["message", "", "hello", ID_4, "{}"]), Some(expected));
    }

    #[test]
    fn the_name_of_a_node_survives_a_round_trip() {
        for name in ["", "node-1", "10.0.1.1:3000"] {
            let fields = node(name);
            let fields: Vec<_> = fields.iter().map(String::as_str).collect();
            assert_eq!(parse_node(&fields), Some(name.to_owned()));
            assert_eq!(parse(&fields), None, "no input of the rules");
        }
        assert_eq!(parse_node(&["ask"]), None);
    }

    #[test]
    fn malformed_posts_are_ignored() {
        for fields in [
            &[][..],
            &["hello"],
            &["ask", ""],
            &["status"],
            &["status", "live", "0", "", ""],
            &["status", "other", "0", "", "15000"],
            &["status", "waiting", "soon", "", "15000"],
            &["status", "live", "0", "other", "15000"],
            &["status", "live", "0", "", "15000", "other"],
            &["status", "live", "0", "", "15000", "goodbye", "other"],
            &["status", "live", "0", "", "15000", "offline", ""],
            &["status", "live", "0", "", "15000", "status", "many"],
            &["status", "live", "0", "", "15000", "status", "503", "", ""],
            &["message", ""],
            &["message", "", "heartbeat", ID_4, "", ""],
            &["message", "other", "heartbeat", ID_4, ""],
            &["message", "", "other", ID_4, ""],
        ] {
            assert_eq!(parse(fields), None, "{fields:?}");
        }
    }

    #[test]
    fn the_name_has_the_version() {
        assert_eq!(name("orders"), "waterclock-5-orders");
    }
}
