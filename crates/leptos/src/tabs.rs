//! What the tabs of a browser say to each other, as text: a kind, then its fields, a line each; the last
//! one may have several.

use std::{fmt::Display, str::FromStr, sync::Arc, time::Duration};

use waterclock::{
    event::Event,
    id::EventId,
    notice::{Gap, GapReason, GoodbyeReason},
};

use crate::{
    connection::{Reason, Said, State},
    message::Arrived,
    tab::{Message, Post, Status},
};

/// A text for [`decode`].
pub(crate) fn encode(post: &Post<Arrived>) -> String {
    match post {
        Post::Ask => "ask".to_owned(),
        Post::Status(Status { state, reason, cursor, heartbeat }) => {
            let (state, left) = match state {
                State::Waiting { until } => ("waiting", whole_millis(*until)),
                State::Live => ("live", 0),
                State::Reconnecting => ("reconnecting", 0),
                State::Stale => ("stale", 0),
                State::Stopped => ("stopped", 0),
                State::Idle | State::Connecting => ("connecting", 0),
            };
            let (cursor, heartbeat) = (or_none(cursor.as_ref()), whole_millis(*heartbeat));
            let reason = reason.as_ref().map(encode_reason).unwrap_or_default();
            format!("status\n{state}\n{left}\n{cursor}\n{heartbeat}\n{reason}")
        }
        Post::Passed { after, message: Message { said, content } } => {
            let after = or_none(after.as_ref());
            let (kind, id, rest) = match (said, content) {
                (Said::Event { id }, Arrived::Event(event)) => {
                    let Event { id: own, topic, name, data, time } = &**event;
                    let name = name.as_str();
                    ("event", id, format!("{own}\n{topic}\n{name}\n{time}\n{data}"))
                }
                (Said::Gap { cursor }, Arrived::Gap(gap)) => {
                    ("gap", cursor, format!("{}\n{}", gap.reason.as_str(), gap.cursor))
                }
                (Said::Goodbye { reason, retry }, _) => {
                    let retry = whole_millis(*retry);
                    ("goodbye", &None, format!("{}\n{retry}", reason.as_str()))
                }
                (Said::Hello { id, .. }, _) => ("hello", id, String::new()),
                (Said::Event { id } | Said::Heartbeat { id } | Said::Gap { cursor: id }, _) => {
                    ("heartbeat", id, String::new())
                }
            };
            format!("passed\n{after}\n{kind}\n{}\n{rest}", or_none(id.as_ref()))
        }
    }
}

/// What [`encode`] has made; none if it is something else.
pub(crate) fn decode(text: &str) -> Option<Post<Arrived>> {
    let (kind, rest) = text.split_once('\n').unwrap_or((text, ""));
    match kind {
        "ask" => Some(Post::Ask),
        "status" => {
            let [state, left, cursor, heartbeat, reason] = fields(rest)?;
            let state = match state {
                "waiting" => State::Waiting { until: millis(left)? },
                "live" => State::Live,
                "reconnecting" => State::Reconnecting,
                "stale" => State::Stale,
                "stopped" => State::Stopped,
                "connecting" => State::Connecting,
                _ => return None,
            };
            let reason = if reason.is_empty() { None } else { Some(decode_reason(reason)?) };
            let (cursor, heartbeat) = (optional(cursor).ok()?, millis(heartbeat)?);
            Some(Post::Status(Status { state, reason, cursor, heartbeat }))
        }
        "passed" => {
            let [after, kind, id, rest] = fields(rest)?;
            let id: Option<EventId> = optional(id).ok()?;
            let (said, content) = match kind {
                "event" => {
                    let [own, topic, name, time, data] = fields(rest)?;
                    let event = Event {
                        id: own.parse().ok()?,
                        topic: topic.parse().ok()?,
                        name: name.parse().ok()?,
                        data: data.to_owned(),
                        time: time.parse().ok()?,
                    };
                    (Said::Event { id }, Arrived::Event(Arc::new(event)))
                }
                "gap" => {
                    let [reason, cursor] = fields(rest)?;
                    let reason = GapReason::ALL.into_iter().find(|one| one.as_str() == reason)?;
                    let gap = Gap { reason, cursor: cursor.to_owned() };
                    (Said::Gap { cursor: id }, Arrived::Gap(gap))
                }
                "goodbye" => {
                    let [reason, retry] = fields(rest)?;
                    let reason = goodbye(reason)?;
                    (Said::Goodbye { reason, retry: millis(retry)? }, Arrived::Notice)
                }
                "hello" => (Said::Hello { id, intervals: None }, Arrived::Opened),
                "heartbeat" => (Said::Heartbeat { id }, Arrived::Notice),
                _ => return None,
            };
            Some(Post::Passed { after: optional(after).ok()?, message: Message { said, content } })
        }
        _ => None,
    }
}

fn encode_reason(reason: &Reason) -> String {
    match reason {
        Reason::Goodbye(reason) => format!("goodbye {}", reason.as_str()),
        Reason::Unreachable => "unreachable".to_owned(),
        Reason::Offline => "offline".to_owned(),
        Reason::Recovered => "recovered".to_owned(),
        Reason::Status { status, detail: None } => format!("status {status}"),
        Reason::Status { status, detail: Some(detail) } => format!("status {status} {detail}"),
        Reason::ContentType(kind) => format!("content-type {kind}"),
    }
}

fn decode_reason(text: &str) -> Option<Reason> {
    let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
    Some(match kind {
        "goodbye" => Reason::Goodbye(goodbye(rest)?),
        "unreachable" => Reason::Unreachable,
        "offline" => Reason::Offline,
        "recovered" => Reason::Recovered,
        "content-type" => Reason::ContentType(rest.to_owned()),
        "status" => match rest.split_once(' ') {
            None => Reason::Status { status: rest.parse().ok()?, detail: None },
            Some((status, detail)) => {
                Reason::Status { status: status.parse().ok()?, detail: Some(detail.to_owned()) }
            }
        },
        _ => return None,
    })
}

fn goodbye(text: &str) -> Option<GoodbyeReason> {
    GoodbyeReason::ALL.into_iter().find(|reason| reason.as_str() == text)
}

/// So many fields; the last has all that is left.
fn fields<const N: usize>(text: &str) -> Option<[&str; N]> {
    let mut parts = text.splitn(N, '\n');
    let mut fields = [""; N];
    for field in &mut fields {
        *field = parts.next()?;
    }
    Some(fields)
}

fn or_none(value: Option<&impl Display>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

/// A field that may be empty; an error if it is something else.
fn optional<T: FromStr>(field: &str) -> Result<Option<T>, T::Err> {
    if field.is_empty() { Ok(None) } else { field.parse().map(Some) }
}

fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn millis(field: &str) -> Option<Duration> {
    field.parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use waterclock::{id::Epoch, timestamp::Timestamp};

    use super::*;

    fn id(sequence: u64) -> EventId {
        EventId { epoch: Epoch::new(0xff), sequence }
    }

    #[test]
    fn what_is_said_is_understood() {
        let event = Event {
            id: id(3),
            topic: "orders.eu".parse().unwrap(),
            name: "made up".parse().unwrap(),
            data: "several\nlines\n\nof data\n".to_owned(),
            time: Timestamp::from_millis(1_000_000_000_123),
        };
        let gap = Gap { reason: GapReason::OtherEpoch, cursor: "nonsense\nof 2 lines".to_owned() };
        let retry = Duration::from_millis(2345);
        let reason = GoodbyeReason::Limit;
        let messages = [
            (Said::Event { id: Some(id(3)) }, Arrived::Event(Arc::new(event))),
            (Said::Hello { id: None, intervals: None }, Arrived::Opened),
            (Said::Heartbeat { id: Some(id(4)) }, Arrived::Notice),
            (Said::Gap { cursor: Some(id(0)) }, Arrived::Gap(gap)),
            (Said::Goodbye { reason, retry }, Arrived::Notice),
        ];
        let mut posts = vec![Post::Ask];
        for (said, content) in messages {
            let message = Message { said, content };
            posts.push(Post::Passed { after: None, message: message.clone() });
            posts.push(Post::Passed { after: Some(id(2)), message });
        }
        let reasons = [
            Reason::Goodbye(GoodbyeReason::Draining),
            Reason::Unreachable,
            Reason::Offline,
            Reason::Recovered,
            Reason::Status { status: 503, detail: None },
            Reason::Status { status: 403, detail: Some("not\n\npublic".to_owned()) },
            Reason::ContentType("text/html; charset=utf-8".to_owned()),
        ];
        let states = [
            State::Waiting { until: Duration::from_millis(5300) },
            State::Live,
            State::Connecting,
            State::Reconnecting,
            State::Stale,
            State::Stopped,
        ];
        let heartbeat = Duration::from_secs(15);
        for reason in reasons.into_iter().map(Some).chain([None]) {
            for state in states.clone() {
                let cursor = reason.as_ref().map(|_| id(7));
                posts.push(Post::Status(Status {
                    state,
                    reason: reason.clone(),
                    cursor,
                    heartbeat,
                }));
            }
        }
        for post in posts {
            let text = encode(&post);
            assert_eq!(decode(&text), Some(post), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_nothing() {
        for text in [
            "",
            "hello",
            "status",
            "status\nlive\n0\n\n",
            "passed\n\nevent\n\n1\n2\n3",
            "passed\nx\nhello\n\n",
        ] {
            assert_eq!(decode(text), None, "{text:?}");
        }
    }
}
