//! Watching the subscribers that name a topic: a producer learns that its last reader has left.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{attendance::Attendance, state::HubState};
use crate::event::Topic;

/// A watch over the subscribers that name a topic.
pub struct ReaderWatch {
    state: Arc<HubState>,
    topic: Topic,
    attendance: watch::Receiver<Attendance>,
}

impl ReaderWatch {
    pub(super) fn new(state: &Arc<HubState>, topic: Topic) -> Self {
        let attendance = {
            let fanout = &mut *state.fanout.lock();
            let readers = fanout.channels.exact(&topic);
            fanout.watched.watch(&topic, readers)
        };
        state.watching.notify_one();
        Self { state: Arc::clone(state), topic, attendance }
    }

    /// Waits until no subscriber of any node has named the topic for that long. One that comes and
    /// goes in the meantime, such as a poll, starts the time again. With other nodes, it may take a
    /// second longer, and the time starts again while they cannot be asked.
    pub async fn absent(&mut self, patience: Duration) {
        let began = Instant::now();
        // The waits for changes cannot fail: the sender is kept while there is a watch.
        loop {
            let Attendance { readers, changed, elsewhere } = *self.attendance.borrow_and_update();
            if readers > 0 {
                if self.attendance.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let last = changed.max(elsewhere).map_or(began, |last| last.max(began));
            let end = last + patience;
            match timeout_at(end, self.attendance.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) if self.is_absent_elsewhere(end).await => return,
                Err(_) => {}
            }
        }
    }

    /// Waits until the other nodes have been asked at `end` or later. Returns `false` if a
    /// subscriber has come, or was there.
    async fn is_absent_elsewhere(&mut self, end: Instant) -> bool {
        if self.state.others.is_none() {
            return true;
        }
        let mut asked = self.state.others_asked.subscribe();
        tokio::select! {
            // The answers were noted before.
            _ = asked.wait_for(|asked| asked.is_some_and(|asked| asked >= end)) => {
                !self.attendance.has_changed().unwrap_or_default()
            }
            _ = self.attendance.changed() => false,
        }
    }
}

impl Drop for ReaderWatch {
    fn drop(&mut self) {
        self.state.fanout.lock().watched.unwatch(&self.topic);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::{hub::Hub, id::Cursor, pattern::Patterns};

    fn patterns(text: &str) -> Patterns {
        Patterns::new(text.split(' ').map(|text| text.parse().unwrap())).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_producer_is_alone_once_nobody_has_named_its_topic_for_a_while() {
        let (hub, began) = (Hub::in_memory(), Instant::now());
        let (a, patience) = (|| "a".parse::<Topic>().unwrap(), Duration::from_secs(10));
        let after = |seconds| tokio::time::sleep_until(began + Duration::from_secs(seconds));
        // A pattern that matches does not name it.
        let _pattern = hub.subscribe(patterns("* b"), Cursor::Now);
        let stream = hub.subscribe(patterns("a b.*"), Cursor::Now);
        let (mut first, mut second) = (hub.watch_readers(a()), hub.watch_readers(a()));
        let readers = async {
            after(30).await;
            drop(stream);
            // A poll that is answered at once.
            after(35).await;
            drop(hub.subscribe(patterns("a"), Cursor::Now));
            after(44).await;
            let reconnected = hub.subscribe(patterns("a"), Cursor::Now);
            after(60).await;
            drop(reconnected);
        };
        tokio::join!(readers, first.absent(patience), second.absent(patience));
        assert_eq!(began.elapsed(), Duration::from_secs(70));
        drop((first, second));
        assert!(hub.state.fanout.lock().watched.is_empty());
        // Nobody comes at all.
        hub.watch_readers(a()).absent(patience).await;
        assert_eq!(began.elapsed(), Duration::from_secs(80));
    }
}
