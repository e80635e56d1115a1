//! The readers of this node, for which other nodes ask, and the questions to these.

use std::{future::pending, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    channel::Audience,
    state::{Fanout, HubState},
};
use crate::{
    event::Topic,
    event_log::{OwnReaders, Readers, TopicWatch},
};

/// Number of channels and patterns that are looked at before the lock on them is released.
const LOOKS: usize = 4096;
/// Interval at which the other nodes are asked for the topics that are watched.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

impl OwnReaders for HubState {
    fn count(&self, topics: &[Topic]) -> Vec<Readers> {
        let mut readers = Vec::with_capacity(topics.len());
        let mut rest = topics.iter();
        while !rest.as_slice().is_empty() {
            let (mut audiences, mut looked_at) = (Vec::new(), 0);
            {
                let channels = &self.fanout.lock().channels;
                while looked_at < LOOKS
                    && let Some(topic) = rest.next()
                {
                    let audience = channels.audience(topic);
                    looked_at += audience.looked_at;
                    audiences.push(audience);
                }
            }
            readers.extend(audiences.into_iter().map(Audience::count));
        }
        readers
    }

    fn absences(&self, topics: &[Topic]) -> Vec<Option<Duration>> {
        let now = Instant::now();
        let absences = {
            let Fanout { channels, watched, .. } = &mut *self.fanout.lock();
            let absence = |topic| watched.lease(topic, channels.exact(topic), now);
            topics.iter().map(absence).collect()
        };
        self.watching.notify_one();
        absences
    }

    fn are_viewed(&self) -> bool {
        self.changed.is_watched()
    }

    fn watch_changes(&self) -> TopicWatch {
        self.own_readers_changed.watch()
    }

    fn note_changes(&self, topics: &[Topic]) {
        self.changed.note(topics);
    }

    fn note_any(&self) {
        self.changed.note_any();
    }
}

impl HubState {
    /// Asks the other nodes for the readers of the topics that are watched, until the future is
    /// dropped. Never returns.
    pub async fn ask_others(&self) {
        let Some(others) = &self.others else { return pending().await };
        loop {
            let asked = Instant::now();
            let (is_watching, topics) = {
                let watched = &mut self.fanout.lock().watched;
                watched.end_leases(asked);
                (!watched.is_empty(), watched.own())
            };
            if !is_watching {
                self.watching.notified().await;
                continue;
            }
            if !topics.is_empty() {
                let absences = others.absences(&topics).await;
                self.note_absences(&topics, absences.as_deref());
                self.others_asked.send_replace(Some(asked));
            }
            sleep_until(asked + ASK_INTERVAL).await;
        }
    }

    /// Notes the answers of the other nodes. Without answers, each of the topics may have a reader.
    fn note_absences(&self, topics: &[Topic], absences: Option<&[Option<Duration>]>) {
        let (now, fanout) = (Instant::now(), self.fanout.lock());
        for (number, topic) in topics.iter().enumerate() {
            let absence = match absences {
                Some(absences) => absences.get(number).copied().flatten(),
                None => Some(Duration::ZERO),
            };
            if let Some(last) = absence.and_then(|absence| now.checked_sub(absence)) {
                fanout.watched.note_elsewhere(topic, last);
            }
        }
    }
}
