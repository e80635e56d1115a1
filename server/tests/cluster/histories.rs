//! The checker of a cluster's histories. It compares the answers to publishers and the events of
//! readers with the logs of all nodes.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use waterclock::{
    event::{Event, Topic},
    id::EventId,
    pattern::Patterns,
};

/// One request to publish.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub topic: Topic,
    pub key: Option<String>,
    /// The data. No two events have the same, except for attempts with the same key.
    pub data: String,
    /// The time at which it was sent, since the start of the test.
    pub started: Duration,
    /// The time at which its outcome was known.
    pub ended: Duration,
    pub outcome: AttemptOutcome,
}

/// The answer to a request to publish.
#[derive(Clone, Debug)]
pub enum AttemptOutcome {
    /// The event is stored.
    Acknowledged(Event),
    /// The server said that this request has stored no event, or it was never sent: the reason.
    Refused(String),
    /// The server said that it does not know, or gave no answer.
    Unknown,
}

/// A reader, which goes from node to node and resumes with its last id.
#[derive(Debug)]
pub struct ReaderTrail {
    pub name: String,
    pub topics: Patterns,
    pub visits: Vec<Visit>,
}

/// The time of a reader at one node.
#[derive(Clone, Debug)]
pub struct Visit {
    /// The name of the node and the transport.
    pub place: String,
    /// The cursor with which it began; `None` for the oldest event.
    pub cursor: Option<EventId>,
    pub receipts: Vec<Receipt>,
}

/// A message that a reader received.
#[derive(Clone, Debug)]
pub enum Receipt {
    Event(Event),
    /// The cursor of a message that is not an event.
    Position(EventId),
    /// A gap, in JSON.
    Gap(String),
}

/// Everything that publishers and readers were told, and the logs at the end.
#[derive(Debug, Default)]
pub struct ClusterHistory {
    pub attempts: Vec<Attempt>,
    pub readers: Vec<ReaderTrail>,
    /// The name of each node and all events of its log.
    pub logs: Vec<(String, Vec<Event>)>,
}

/// The attempts to publish one event: all with the same key, or one without a key.
#[derive(Debug, Default)]
struct Effort<'a> {
    attempts: Vec<&'a Attempt>,
    /// The topic and the data of each.
    drafts: HashSet<(&'a Topic, &'a str)>,
}

impl<'a> Effort<'a> {
    fn acknowledged(&self) -> impl Iterator<Item = (&'a Attempt, &'a Event)> {
        self.attempts.iter().filter_map(|attempt| match &attempt.outcome {
            AttemptOutcome::Acknowledged(event) => Some((*attempt, event)),
            _ => None,
        })
    }

    /// Returns the time of its first attempt, that of its first acknowledgement, and its event.
    fn span(&self) -> Option<(Duration, Duration, &'a Event)> {
        let started = self.attempts.iter().map(|attempt| attempt.started).min()?;
        let first = self.acknowledged().min_by_key(|(attempt, _)| attempt.ended);
        first.map(|(attempt, event)| (started, attempt.ended, event))
    }

    /// Returns the reason of the first refusal, if all attempts were refused.
    fn refusal(&self) -> Option<&'a str> {
        let mut refusals = self.attempts.iter().map(|attempt| match &attempt.outcome {
            AttemptOutcome::Refused(reason) => Some(reason.as_str()),
            _ => None,
        });
        let first = refusals.next()??;
        refusals.all(|refusal| refusal.is_some()).then_some(first)
    }
}

impl ClusterHistory {
    /// Checks the history of a cluster that has come to rest.
    ///
    /// # Errors
    ///
    /// The first broken promise.
    pub fn check(&self) -> Result<(), String> {
        let log = self.check_logs()?;
        self.check_attempts(log)?;
        self.readers.iter().try_for_each(|reader| check_reader(reader, log))
    }

    /// Checks that all nodes have the same log. Returns it.
    fn check_logs(&self) -> Result<&[Event], String> {
        let Some(((first, log), others)) = self.logs.split_first() else {
            return Err("no node has a log".to_owned());
        };
        for pair in log.windows(2) {
            let [before, after] = pair else { continue };
            if before.id.epoch != after.id.epoch || before.id.sequence >= after.id.sequence {
                return Err(format!("{first}: {after:?} follows on {before:?}"));
            }
        }
        for (name, other) in others {
            let place = log.iter().zip(other).position(|(one, other)| one != other);
            let place =
                place.or_else(|| (log.len() != other.len()).then_some(log.len().min(other.len())));
            if let Some(place) = place {
                let (one, other) = (log.get(place), other.get(place));
                return Err(format!("{first} has {one:?}, but {name} has {other:?}"));
            }
        }
        Ok(log)
    }

    fn check_attempts(&self, log: &[Event]) -> Result<(), String> {
        let mut stored: HashMap<_, Vec<&Event>> = HashMap::new();
        for event in log {
            stored.entry((&event.topic, event.data.as_str())).or_default().push(event);
        }
        let mut efforts: HashMap<_, Effort> = HashMap::new();
        for attempt in &self.attempts {
            let Attempt { topic, key, data, .. } = attempt;
            let name = (topic, key, if key.is_none() { data.as_str() } else { "" });
            let effort = efforts.entry(name).or_default();
            effort.attempts.push(attempt);
            effort.drafts.insert((topic, data.as_str()));
        }
        let drafts: HashSet<_> = efforts.values().flat_map(|effort| &effort.drafts).collect();
        let is_foreign = |event: &&Event| {
            event.topic.as_str() != Topic::CLOCK
                && !drafts.contains(&(&event.topic, event.data.as_str()))
        };
        if let Some(event) = log.iter().find(is_foreign) {
            return Err(format!("nobody has published {event:?}"));
        }
        for effort in efforts.values() {
            let events = effort.drafts.iter().filter_map(|draft| stored.get(draft));
            let events: Vec<_> = events.flatten().copied().collect();
            let mut ids = effort.acknowledged().map(|(_, event)| event.id);
            if let Some(first) = ids.next()
                && let Some(other) = ids.find(|id| *id != first)
            {
                return Err(format!("acknowledged as {first} and as {other}: {effort:?}"));
            }
            if events.len() > 1 {
                return Err(format!("stored more than once: {events:?} of {effort:?}"));
            }
            if let Some((attempt, _)) =
                effort.acknowledged().find(|(_, event)| !events.contains(event))
            {
                return Err(format!("the acknowledged event is lost: {attempt:?}"));
            }
            if let Some(reason) = effort.refusal().filter(|_| !events.is_empty()) {
                return Err(format!("refused ({reason}), but stored: {effort:?}"));
            }
        }
        check_times(efforts.values().filter_map(Effort::span).collect())
    }
}

/// Checks that an event that was sent after another one was acknowledged comes after it.
fn check_times(mut started: Vec<(Duration, Duration, &Event)>) -> Result<(), String> {
    let mut ended = started.clone();
    started.sort_by_key(|(started, ..)| *started);
    ended.sort_by_key(|(_, ended, _)| *ended);
    let mut ended = ended.into_iter().peekable();
    let mut newest: Option<&Event> = None;
    for (started, _, event) in started {
        while let Some((.., before)) = ended.next_if(|(_, ended, _)| *ended < started) {
            if newest.is_none_or(|newest| newest.id.sequence < before.id.sequence) {
                newest = Some(before);
            }
        }
        if let Some(newest) = newest.filter(|newest| newest.id.sequence > event.id.sequence) {
            return Err(format!("{event:?} was sent later than {newest:?}, but is before it"));
        }
    }
    Ok(())
}

fn check_reader(reader: &ReaderTrail, log: &[Event]) -> Result<(), String> {
    let own: Vec<_> = log.iter().filter(|event| reader.topics.matches(&event.topic)).collect();
    let sequence = |id: Option<EventId>| id.map_or(0, |id| id.sequence);
    // The first of the reader's events after a position.
    let next = |position: u64| own.get(own.partition_point(|event| event.id.sequence <= position));
    let mut position = reader.visits.first().map_or(0, |first| sequence(first.cursor));
    for (number, visit) in reader.visits.iter().enumerate() {
        let failed = |text: String| {
            let Visit { place, cursor, .. } = visit;
            let cursor = sequence(*cursor);
            Err(format!("{}, visit {number}, {place}, from {cursor}: {text}", reader.name))
        };
        if sequence(visit.cursor) != position {
            return failed(format!("it should have resumed after {position}"));
        }
        for receipt in &visit.receipts {
            let (id, is_event) = match receipt {
                Receipt::Event(event) => (event.id, true),
                Receipt::Position(id) => (*id, false),
                Receipt::Gap(gap) => return failed(format!("a gap after {position}: {gap}")),
            };
            if id.sequence < position || is_event && id.sequence == position {
                return failed(format!("{receipt:?} after {position}"));
            }
            if log.first().is_some_and(|first| first.id.epoch != id.epoch) {
                return failed(format!("{receipt:?} has another epoch"));
            }
            let last = if is_event { id.sequence - 1 } else { id.sequence };
            if let Some(missing) = next(position).filter(|next| next.id.sequence <= last) {
                return failed(format!("{receipt:?} after {position}, without {missing:?}"));
            }
            if let Receipt::Event(event) = receipt
                && next(position) != Some(&event)
            {
                return failed(format!("{event:?} is not the event of the log"));
            }
            position = id.sequence;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use waterclock::{event::Name, id::Epoch, pattern::Pattern, timestamp::Timestamp};

    use super::*;

    fn id(sequence: u64) -> EventId {
        EventId { epoch: Epoch::new(1), sequence }
    }

    /// An event whose data is its sequence number.
    fn event(sequence: u64) -> Event {
        Event {
            id: id(sequence),
            topic: if sequence == 2 { "b" } else { "a" }.parse().unwrap(),
            name: Name::default(),
            data: sequence.to_string(),
            time: Timestamp::from_millis(0),
        }
    }

    /// An attempt to publish an event, from `started` for half a second.
    fn attempt(draft: u64, key: Option<&str>, started: u64, outcome: AttemptOutcome) -> Attempt {
        let started = Duration::from_secs(started);
        Attempt {
            topic: event(draft).topic,
            key: key.map(str::to_owned),
            data: draft.to_string(),
            started,
            ended: started + Duration::from_millis(500),
            outcome,
        }
    }

    fn acknowledged(draft: u64, key: Option<&str>, as_event: u64) -> Attempt {
        let event = Event { data: draft.to_string(), ..event(as_event) };
        attempt(draft, key, draft, AttemptOutcome::Acknowledged(event))
    }

    fn visit(cursor: Option<u64>, receipts: Vec<Receipt>) -> Visit {
        Visit { place: "n1".to_owned(), cursor: cursor.map(id), receipts }
    }

    fn received(sequence: u64) -> Receipt {
        Receipt::Event(event(sequence))
    }

    fn at(sequence: u64) -> Receipt {
        Receipt::Position(id(sequence))
    }

    /// A history of five events. The first one was acknowledged twice, and nothing is known of the
    /// last one. One reader reads the topic `a`, which has all events but the second.
    fn history() -> ClusterHistory {
        let log: Vec<_> = (1..=5).map(event).collect();
        let attempts = vec![
            attempt(1, Some("k"), 1, AttemptOutcome::Unknown),
            attempt(1, Some("k"), 1, AttemptOutcome::Refused("no".to_owned())),
            acknowledged(1, Some("k"), 1),
            attempt(1, Some("k"), 6, AttemptOutcome::Acknowledged(event(1))),
            acknowledged(2, None, 2),
            acknowledged(3, None, 3),
            acknowledged(4, Some("l"), 4),
            attempt(5, None, 5, AttemptOutcome::Unknown),
            attempt(6, None, 6, AttemptOutcome::Unknown),
            attempt(7, Some("m"), 7, AttemptOutcome::Refused("no".to_owned())),
        ];
        let readers = vec![ReaderTrail {
            name: "reader".to_owned(),
            topics: "a".parse::<Pattern>().unwrap().into(),
            visits: vec![
                visit(None, vec![at(0), received(1), at(2)]),
                visit(Some(2), vec![at(2), received(3), received(4)]),
                visit(Some(4), vec![]),
                visit(Some(4), vec![received(5), at(5)]),
            ],
        }];
        let logs = ["n1", "n2", "n3"].map(|name| (name.to_owned(), log.clone()));
        ClusterHistory { attempts, readers, logs: logs.into() }
    }

    /// Checks that a change of the right history is found.
    fn assert_wrong(expected: &str, change: impl FnOnce(&mut ClusterHistory)) {
        let mut history = history();
        change(&mut history);
        let error = history.check().unwrap_err();
        assert!(error.contains(expected), "{error} instead of {expected}");
    }

    /// Changes the logs of all nodes.
    fn change_logs(history: &mut ClusterHistory, change: impl Fn(&mut Vec<Event>)) {
        history.logs.iter_mut().for_each(|(_, log)| change(log));
    }

    #[test]
    fn right_histories_pass() {
        assert_eq!(history().check(), Ok(()));
        let mut without_the_unknown = history();
        change_logs(&mut without_the_unknown, |log| drop(log.pop()));
        without_the_unknown.readers[0].visits.pop();
        assert_eq!(without_the_unknown.check(), Ok(()));
    }

    #[test]
    fn a_lost_event_is_found() {
        assert_wrong("is lost", |history| {
            change_logs(history, |log| drop(log.remove(1)));
        });
        assert_wrong("is lost", |history| {
            change_logs(history, |log| log[1].time = Timestamp::from_millis(1));
        });
        assert_wrong("is lost", |history| history.attempts.push(acknowledged(8, None, 8)));
    }

    #[test]
    fn a_doubled_event_is_found() {
        // With a key, without one, and without an acknowledgement.
        for sequence in [1, 2, 5] {
            assert_wrong("more than once", |history| {
                change_logs(history, |log| log.push(Event { id: id(6), ..event(sequence) }));
            });
        }
    }

    #[test]
    fn an_event_that_nobody_has_published_is_found() {
        assert_wrong("nobody has published", |history| {
            change_logs(history, |log| log.push(event(8)));
        });
    }

    #[test]
    fn a_refused_event_that_is_stored_is_found() {
        assert_wrong("refused (no), but stored", |history| {
            change_logs(history, |log| log.push(event(7)));
        });
    }

    #[test]
    fn two_events_for_a_key_are_found() {
        assert_wrong("more than once", |history| {
            history.attempts.push(attempt(8, Some("k"), 7, AttemptOutcome::Unknown));
            change_logs(history, |log| log.push(event(8)));
        });
    }

    #[test]
    fn two_ids_for_a_key_are_found() {
        assert_wrong("acknowledged as", |history| {
            let again = AttemptOutcome::Acknowledged(Event { id: id(3), ..event(1) });
            history.attempts.push(attempt(1, Some("k"), 7, again));
        });
    }

    #[test]
    fn an_order_against_time_is_found() {
        assert_wrong("was sent later", |history| {
            history.attempts[5].started = Duration::from_secs(9);
        });
        assert_wrong("was sent later", |history| {
            history.attempts[6].ended = Duration::from_millis(900);
        });
    }

    #[test]
    fn different_logs_are_found() {
        assert_wrong("but n3 has None", |history| drop(history.logs[2].1.pop()));
        assert_wrong("but n2 has Some", |history| history.logs[1].1.push(event(6)));
        assert_wrong("but n2 has Some", |history| history.logs[1].1[2].data.push('x'));
        assert_wrong("follows on", |history| change_logs(history, |log| log.swap(1, 2)));
        assert_wrong("follows on", |history| {
            change_logs(history, |log| log[4].id.epoch = Epoch::new(2));
        });
        assert_wrong("no node", |history| history.logs.clear());
    }

    #[test]
    fn wrong_readers_are_found() {
        let other_epoch = EventId { epoch: Epoch::new(2), sequence: 5 };
        let changed = |change: fn(&mut Event)| {
            let mut event = event(1);
            change(&mut event);
            Receipt::Event(event)
        };
        for (expected, visits) in [
            // Holes: in a visit, between two, and hidden by a cursor.
            ("without", vec![visit(None, vec![received(3)])]),
            ("without", vec![visit(None, vec![received(1), received(4)])]),
            ("without", vec![visit(None, vec![received(1)]), visit(Some(1), vec![received(4)])]),
            ("without", vec![visit(None, vec![received(1), at(3)])]),
            ("without", vec![visit(None, vec![at(1)])]),
            ("resumed after 1", vec![visit(None, vec![received(1)]), visit(Some(3), vec![])]),
            // Repeated and reordered events.
            ("after 1", vec![visit(None, vec![received(1), received(1)])]),
            ("after 1", vec![visit(None, vec![received(1)]), visit(Some(1), vec![received(1)])]),
            ("after 4", vec![visit(Some(3), vec![received(4), received(3)])]),
            ("after 4", vec![visit(Some(3), vec![received(4), at(3)])]),
            // Events that the log does not have, or has differently.
            ("is not the event", vec![visit(Some(5), vec![received(6)])]),
            ("is not the event", vec![visit(Some(1), vec![received(2)])]),
            ("is not the event", vec![visit(None, vec![changed(|event| event.data.push('x'))])]),
            (
                "is not the event",
                vec![visit(None, vec![changed(|event| event.topic = Topic::clock())])],
            ),
            ("another epoch", vec![visit(Some(4), vec![Receipt::Position(other_epoch)])]),
            ("a gap after 1", vec![visit(Some(1), vec![Receipt::Gap("{}".to_owned())])]),
        ] {
            assert_wrong(expected, |history| history.readers[0].visits = visits);
        }
    }
}
