//! Histories of a simulation, and the checker that holds them to what the documents promise.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::{
    event::{Event, IdempotencyKey},
    pattern::Patterns,
};

/// An event that was stored, whether anybody knows of it or not.
#[derive(Clone, Debug)]
pub struct Stored {
    pub event: Event,
    /// The step at which it was stored.
    pub step: u64,
    /// The step at which the log no longer had it.
    pub dropped: Option<u64>,
    /// `true` if its topic was deleted then.
    pub is_deleted: bool,
}

/// An acknowledged publish.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    pub event: Event,
    pub key: Option<IdempotencyKey>,
}

/// A client that reads, and resumes from its cursor after each cut.
#[derive(Debug)]
pub struct ReaderHistory {
    pub topics: Patterns,
    pub sessions: Vec<Session>,
}

/// One subscription of a reader.
#[derive(Debug)]
pub struct Session {
    /// All events up to here are out of the reader's interest, or it has had them.
    pub start: u64,
    /// The step at which it began.
    pub step: u64,
    /// The newest event of the log when the hub was started.
    pub hub_start: u64,
    /// `true` if the reader wants the events that were kept then, and later ones.
    pub is_from_oldest: bool,
    pub messages: Vec<Message>,
}

#[derive(Clone, Debug)]
pub enum Message {
    Event(Event),
    /// Events that no log has any more.
    Expired {
        step: u64,
        /// The cursor behind it.
        cursor: u64,
        /// The newest event that the hub had shown. It may deliver later ones that the log has
        /// dropped in the meantime.
        shown: u64,
    },
}

/// Everything that has happened.
#[derive(Debug, Default)]
pub struct History {
    pub stored: Vec<Stored>,
    pub acknowledged: Vec<Acknowledged>,
    pub readers: Vec<ReaderHistory>,
    /// `true` if a log that was restarted does not know of which topics the events were that it had
    /// dropped and forgotten before.
    pub restarts_forget_topics: bool,
}

impl History {
    /// Checks the history of a world that has come to rest.
    ///
    /// # Errors
    ///
    /// The first broken promise.
    pub fn check(&self) -> Result<(), String> {
        let mut of_drafts: HashMap<_, &Stored> = HashMap::new();
        for (stored, sequence) in self.stored.iter().zip(1..) {
            let Event { id, topic, data, .. } = &stored.event;
            if id.sequence != sequence {
                return Err(format!("{:?} is not event {sequence} of the log", stored.event));
            }
            // No two drafts have the same data, and a key is kept as long as its event.
            if let Some(first) = of_drafts.insert((topic, data), stored)
                && first.dropped.is_none_or(|dropped| dropped > stored.step)
            {
                return Err(format!("a draft is stored twice: {first:?} and {stored:?}"));
            }
        }
        self.check_publishes()?;
        self.readers.iter().try_for_each(|reader| self.check_reader(reader))
    }

    fn check_publishes(&self) -> Result<(), String> {
        let (mut ids, mut of_keys) = (HashSet::new(), HashMap::<_, BTreeSet<_>>::new());
        for Acknowledged { event, key } in &self.acknowledged {
            let sequence = event.id.sequence;
            if self.at(sequence).is_none_or(|stored| stored.event != *event) {
                return Err(format!("the acknowledged event is lost: {event:?}"));
            }
            if let Some(key) = key {
                of_keys.entry((&event.topic, key)).or_default().insert(sequence);
            } else if !ids.insert(sequence) {
                return Err(format!("two publishes are one event: {event:?}"));
            }
        }
        for (key, sequences) in of_keys {
            let events: Vec<_> =
                sequences.iter().filter_map(|&sequence| self.at(sequence)).collect();
            for pair in events.windows(2) {
                let [first, second] = pair else { continue };
                // A key is kept as long as its event.
                if first.dropped.is_none_or(|dropped| dropped > second.step) {
                    return Err(format!("{key:?} has two events: {first:?} and {second:?}"));
                }
            }
        }
        Ok(())
    }

    fn check_reader(&self, reader: &ReaderHistory) -> Result<(), String> {
        let topics = &reader.topics;
        let (mut delivered, mut announced) = (HashSet::new(), HashSet::new());
        let mut read = reader.sessions.first().map_or(u64::MAX, |first| first.start);
        for session in &reader.sessions {
            // A cursor may be after events of other topics.
            if session.start < read {
                return Err(format!("{topics:?}: resumed at {}, not {read}", session.start));
            }
            self.check_passed(reader, read, session.start, &announced)?;
            read = session.start;
            // A server does not know what earlier sessions were told.
            announced.clear();
            if session.is_from_oldest {
                let is_gone =
                    |stored: &&Stored| stored.dropped.is_some_and(|at| at <= session.step);
                let gone = self.of(reader).filter(is_gone);
                announced.extend(gone.map(|stored| stored.event.id.sequence));
            }
            let mut gaps = Vec::new();
            for message in &session.messages {
                match message {
                    Message::Event(event) => {
                        let sequence = event.id.sequence;
                        let stored = self.at(sequence).filter(|stored| stored.event == *event);
                        let is_gone =
                            |stored: &Stored| stored.is_deleted && announced.contains(&sequence);
                        if sequence <= read
                            || stored.is_none_or(is_gone)
                            || !topics.matches(&event.topic)
                        {
                            return Err(format!("{topics:?}: {event:?} after {read}"));
                        }
                        self.check_passed(reader, read, sequence - 1, &announced)?;
                        delivered.insert(sequence);
                        read = sequence;
                    }
                    Message::Expired { step, cursor, shown } => {
                        let is_lost = |stored: &&Stored| {
                            let Stored { event, dropped: Some(dropped), .. } = stored else {
                                return false;
                            };
                            // A gap that the subscription has found may be told later.
                            let is_new =
                                *dropped >= session.step || !announced.contains(&event.id.sequence);
                            event.id.sequence > read && dropped <= step && is_new
                        };
                        let lost = self.of(reader).filter(is_lost);
                        let lost: Vec<_> = lost.map(|stored| stored.event.id.sequence).collect();
                        announced.extend(lost.iter().copied());
                        self.check_passed(reader, read, *cursor, &announced)?;
                        gaps.push((read, *step, *shown, lost));
                        read = read.max(*cursor);
                    }
                }
            }
            for (place, step, shown, lost) in gaps {
                // A hub does not know which of the events from before its start it could deliver.
                let is_from_before =
                    place < session.hub_start && (!lost.is_empty() || self.restarts_forget_topics);
                let may_be_none = is_from_before || lost.iter().any(|sequence| *sequence > shown);
                if !may_be_none && lost.iter().all(|sequence| delivered.contains(sequence)) {
                    return Err(format!(
                        "{topics:?}: the gap after {place}, in step {step}, is none: {lost:?}"
                    ));
                }
            }
        }
        // The world is at rest, so the reader has had everything.
        self.check_passed(reader, read, u64::MAX, &announced)
    }

    /// Checks that the reader's events after `after` and up to `up_to`, none of which was
    /// delivered, were announced as lost.
    fn check_passed(
        &self,
        reader: &ReaderHistory,
        after: u64,
        up_to: u64,
        announced: &HashSet<u64>,
    ) -> Result<(), String> {
        let is_missing = |stored: &&Stored| {
            let sequence = stored.event.id.sequence;
            after < sequence && sequence <= up_to && !announced.contains(&sequence)
        };
        match self.of(reader).find(is_missing) {
            Some(missing) => Err(format!("{:?}: missed {missing:?} without a gap", reader.topics)),
            None => Ok(()),
        }
    }

    fn of(&self, reader: &ReaderHistory) -> impl Iterator<Item = &Stored> {
        self.stored.iter().filter(|stored| reader.topics.matches(&stored.event.topic))
    }

    fn at(&self, sequence: u64) -> Option<&Stored> {
        self.stored.get(usize::try_from(sequence).ok()?.checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Name,
        id::{Epoch, EventId},
        timestamp::Timestamp,
    };

    fn event(sequence: u64, topic: &str) -> Event {
        Event {
            id: EventId { epoch: Epoch::new(1), sequence },
            topic: topic.parse().unwrap(),
            name: Name::default(),
            data: sequence.to_string(),
            time: Timestamp::from_millis(0),
        }
    }

    /// A history in which the events `a` to `d` of two topics were stored in the steps 1 to 4, and
    /// the first one was dropped in step 5.
    fn history(sessions: Vec<(u64, Vec<Message>)>) -> History {
        let stored = (1..).zip(["a", "b", "a", "a"]).map(|(sequence, topic)| Stored {
            event: event(sequence, topic),
            step: sequence,
            dropped: (sequence == 1).then_some(5),
            is_deleted: false,
        });
        let session = |(start, messages)| Session {
            start,
            step: 6,
            hub_start: 0,
            is_from_oldest: false,
            messages,
        };
        let sessions = sessions.into_iter().map(session).collect();
        let topics = "a".parse::<crate::pattern::Pattern>().unwrap().into();
        let readers = vec![ReaderHistory { topics, sessions }];
        let (acknowledged, restarts_forget_topics) = (Vec::new(), false);
        History { stored: stored.collect(), acknowledged, readers, restarts_forget_topics }
    }

    fn delivered(sequence: u64) -> Message {
        Message::Event(event(sequence, "a"))
    }

    fn expired(step: u64, cursor: u64) -> Message {
        Message::Expired { step, cursor, shown: u64::MAX }
    }

    fn acknowledged(sequence: u64, topic: &str, key: Option<&str>) -> Acknowledged {
        let key = key.map(|key| IdempotencyKey { publisher: "p".to_owned(), key: key.to_owned() });
        Acknowledged { event: event(sequence, topic), key }
    }

    #[test]
    fn readers_that_miss_nothing_pass() {
        for sessions in [
            vec![(0, vec![delivered(1), delivered(3), delivered(4)])],
            vec![(0, vec![delivered(1)]), (1, vec![delivered(3)]), (3, vec![delivered(4)])],
            vec![(0, vec![expired(5, 2), delivered(3), delivered(4)])],
            vec![(0, vec![expired(5, 0)]), (0, vec![expired(6, 2), delivered(3), delivered(4)])],
            vec![(4, vec![])],
        ] {
            assert_eq!(history(sessions).check(), Ok(()));
        }
    }

    #[test]
    fn a_hub_that_has_restarted_may_tell_of_a_gap_that_is_none() {
        let sessions = vec![(0, vec![expired(5, 0), delivered(1), delivered(3), delivered(4)])];
        let mut history = history(sessions);
        history.readers[0].sessions[0].hub_start = 1;
        assert_eq!(history.check(), Ok(()));
        history.stored[0].dropped = None;
        assert!(history.check().unwrap_err().contains("is none"));
    }

    #[test]
    fn readers_that_miss_something_are_found() {
        for (sessions, expected) in [
            (vec![(0, vec![delivered(3), delivered(4)])], "without a gap"),
            (vec![(0, vec![delivered(1), delivered(4)])], "without a gap"),
            (vec![(0, vec![delivered(1), delivered(3)])], "without a gap"),
            (vec![(0, vec![expired(5, 3), delivered(4)])], "without a gap"),
            (vec![(0, vec![delivered(1), delivered(1)])], "after 1"),
            (vec![(0, vec![delivered(1), delivered(4), delivered(3)])], "without a gap"),
            (vec![(1, vec![delivered(3), delivered(4), delivered(4)])], "after 4"),
            (vec![(0, vec![delivered(1)]), (3, vec![delivered(4)])], "without a gap"),
            (vec![(0, vec![delivered(1), delivered(3)]), (2, vec![delivered(4)])], "resumed at 2"),
            (vec![(0, vec![expired(4, 2), delivered(3), delivered(4)])], "without a gap"),
            (vec![(1, vec![expired(6, 2), delivered(3), delivered(4)])], "is none"),
            (vec![(0, vec![expired(5, 0), delivered(1), delivered(3), delivered(4)])], "is none"),
            (vec![(0, vec![expired(5, 0), expired(5, 2), delivered(3), delivered(4)])], "is none"),
        ] {
            let error = history(sessions).check().unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_deleted_event_after_its_gap_is_found() {
        let sessions = vec![(0, vec![expired(5, 0), delivered(1), delivered(3), delivered(4)])];
        let mut history = history(sessions);
        history.stored[0].is_deleted = true;
        assert!(history.check().unwrap_err().contains("after 0"));
    }

    #[test]
    fn a_draft_that_is_stored_twice_is_found() {
        let mut history = history(vec![(4, vec![])]);
        history.stored[3].event.data = "3".to_owned();
        assert!(history.check().unwrap_err().contains("stored twice"));
        history.stored[3].event.data = "1".to_owned();
        history.stored[0].dropped = Some(4);
        assert_eq!(history.check(), Ok(()));
    }

    #[test]
    fn lost_and_repeated_publishes_are_found() {
        let check = |all: Vec<Acknowledged>| {
            let history = history(vec![(4, vec![])]);
            History { acknowledged: all, ..history }.check()
        };
        assert_eq!(
            check(vec![acknowledged(1, "a", None), acknowledged(3, "a", Some("k"))]),
            Ok(())
        );
        let twice = |first, second| {
            check(vec![acknowledged(first, "a", Some("k")), acknowledged(second, "a", Some("k"))])
        };
        assert_eq!(twice(3, 3), Ok(()));
        for (checked, expected) in [
            (check(vec![acknowledged(5, "a", None)]), "is lost"),
            (check(vec![acknowledged(2, "a", None)]), "is lost"),
            (check(vec![acknowledged(1, "a", None), acknowledged(1, "a", None)]), "are one event"),
            (twice(4, 3), "has two events"),
            (twice(1, 3), "has two events"),
        ] {
            let error = checked.unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
