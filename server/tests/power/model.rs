//! The events that publishers and readers know of, and the check that the event log agrees.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use waterclock::{event::Event, id::EventId};

/// The events that were sent, by their data, each of which is sent once.
pub struct Model {
    /// Number of events of each topic that are kept.
    retained: usize,
    sent: HashMap<String, Sent>,
    /// The events of which a response said that they were not stored.
    refused: HashSet<String>,
    /// The events that somebody knows by their ids.
    known: HashMap<EventId, Known>,
}

/// An event that was sent.
pub struct Sent {
    pub topic: String,
    pub key: Option<String>,
    /// The number of the request among those of several events, and the place in it.
    pub line: Option<(u64, u64)>,
    /// `true` once it may not be lost any more.
    pub is_acknowledged: bool,
}

#[derive(PartialEq, Eq, Debug, Clone)]
struct Known {
    topic: String,
    data: String,
}

/// The response of `GET /poll`.
#[derive(Deserialize)]
pub struct Polled {
    pub events: Vec<Event>,
    pub cursor: EventId,
    pub gap: Option<serde_json::Value>,
    pub more: bool,
}

type Check = Result<(), String>;

impl Model {
    pub fn new(retained: usize) -> Self {
        Self { retained, sent: HashMap::new(), refused: HashSet::new(), known: HashMap::new() }
    }

    pub fn send(&mut self, data: &str, sent: Sent) {
        self.refused.remove(data);
        self.sent.insert(data.to_owned(), sent);
    }

    /// Notes an event that a publisher or a reader was told.
    pub fn learn(&mut self, event: &Event) -> Check {
        let known = Known { topic: event.topic.to_string(), data: event.data.clone() };
        if let Some(before) = self.known.insert(event.id, known.clone())
            && before != known
        {
            return Err(format!("{} was {before:?}, and is {known:?}", event.id));
        }
        if event.topic.as_str() == "clock" {
            return Ok(());
        }
        match self.sent.get_mut(&event.data) {
            Some(sent) if sent.topic == event.topic.as_str() => {
                sent.is_acknowledged = true;
                Ok(())
            }
            _ => Err(format!("nobody has sent {event:?}")),
        }
    }

    /// Notes that the events of a request were acknowledged without their ids.
    pub fn acknowledge(&mut self, data: &[String]) {
        for data in data {
            if let Some(sent) = self.sent.get_mut(data) {
                sent.is_acknowledged = true;
            }
        }
    }

    /// Notes that the response to a request said that these events were not stored.
    pub fn refuse(&mut self, data: &[String]) {
        self.refused.extend(data.iter().cloned());
    }

    /// Returns the events with a key that were not acknowledged, with their keys.
    pub fn to_retry(&self) -> Vec<(String, String)> {
        let unknown = self.sent.iter().filter(|(_, sent)| !sent.is_acknowledged);
        unknown.filter_map(|(data, sent)| Some((data.clone(), sent.key.clone()?))).collect()
    }

    /// Returns the newest event that anybody knows.
    pub fn newest(&self) -> Option<EventId> {
        self.known.keys().copied().max_by_key(|id| id.sequence)
    }

    /// Checks all events that the log has after a loss of power, oldest first.
    pub fn check(&mut self, kept: &[Event]) -> Check {
        let mut places = HashMap::new();
        let mut of_topic: HashMap<&str, Vec<u64>> = HashMap::new();
        let mut lines: HashMap<u64, Vec<u64>> = HashMap::new();
        for (place, event) in kept.iter().enumerate() {
            if let Some(newest) = self.newest()
                && newest.epoch != event.id.epoch
            {
                return Err(format!("after {newest} the epoch changed: {}", event.id));
            }
            if place > 0 && kept[place - 1].id.sequence >= event.id.sequence {
                return Err(format!("{} is out of order", event.id));
            }
            of_topic.entry(event.topic.as_str()).or_default().push(event.id.sequence);
            if event.topic.as_str() == "clock" {
                continue;
            }
            if places.insert(event.data.as_str(), place).is_some() {
                return Err(format!("{event:?} is there twice"));
            }
            if self.refused.contains(&event.data) {
                return Err(format!("{event:?} is there, but a response said that it is not"));
            }
            if let Some((request, line)) = self.sent.get(&event.data).and_then(|sent| sent.line) {
                lines.entry(request).or_default().push(line);
            }
        }
        // One publisher sends all lines, one request after the other.
        let lines_of =
            lines.iter().flat_map(|(request, of)| of.iter().map(|line| (*request, *line)));
        let oldest_line = lines_of.min();
        for (data, sent) in &self.sent {
            let kept_of_topic = of_topic.get(sent.topic.as_str()).map_or(0, Vec::len);
            let may_be_dropped = kept_of_topic >= self.retained
                && sent.line.is_none_or(|line| oldest_line.is_none_or(|oldest| line < oldest));
            if sent.is_acknowledged && !places.contains_key(data.as_str()) && !may_be_dropped {
                let topic = &sent.topic;
                return Err(format!("{data:.60} of {topic} is lost: {kept_of_topic} are kept"));
            }
        }
        // Of each topic, the oldest are dropped first.
        let ids: HashSet<_> = kept.iter().map(|event| event.id).collect();
        for (id, known) in self.known.iter().filter(|(id, _)| !ids.contains(id)) {
            let kept = of_topic.get(known.topic.as_str()).and_then(|sequences| sequences.first());
            if kept.is_none_or(|oldest| *oldest < id.sequence) && self.retained > 0 {
                return Err(format!("{id} of {} is lost, and an older one is kept", known.topic));
            }
        }
        // Of each request, the first lines are kept, unless they are dropped.
        for (request, lines) in lines {
            let is_run = lines.windows(2).all(|pair| pair[0] + 1 == pair[1]);
            if !is_run || (lines[0] != 0 && self.retained == usize::MAX) {
                return Err(format!("of request {request}, only these lines are kept: {lines:?}"));
            }
        }
        kept.iter().try_for_each(|event| self.learn(event))
    }
}

#[cfg(test)]
mod tests {
    use waterclock::timestamp::Timestamp;

    use super::*;

    #[test]
    fn a_lost_line_is_noticed_though_enough_others_are_kept() {
        let text = |line: u64| format!("line {line}");
        for (kept, is_right) in [(0..3, true), (1..3, true), (0..2, false), (1..2, false)] {
            let mut model = Model::new(1);
            for line in 0..3 {
                let topic = "lines".to_owned();
                let line_of = Some((7, line));
                let sent = Sent { topic, key: None, line: line_of, is_acknowledged: false };
                model.send(&text(line), sent);
            }
            model.acknowledge(&[0, 1, 2].map(text));
            let event = |line| Event {
                id: format!("00000000c10cca11-{}", line + 1).parse().unwrap(),
                topic: "lines".parse().unwrap(),
                name: "message".parse().unwrap(),
                data: text(line),
                time: Timestamp::now(),
            };
            let events: Vec<_> = kept.clone().map(event).collect();
            assert_eq!(model.check(&events).is_ok(), is_right, "{kept:?}");
        }
    }

    #[test]
    fn an_event_that_is_kept_though_it_was_refused_is_noticed() {
        let mut model = Model::new(usize::MAX);
        let topic = "single".to_owned();
        model.send("x", Sent { topic, key: None, line: None, is_acknowledged: false });
        let event = Event {
            id: "00000000c10cca11-1".parse().unwrap(),
            topic: "single".parse().unwrap(),
            name: "message".parse().unwrap(),
            data: "x".to_owned(),
            time: Timestamp::now(),
        };
        model.refuse(&["x".to_owned()]);
        assert!(model.check(std::slice::from_ref(&event)).is_err());
    }
}
