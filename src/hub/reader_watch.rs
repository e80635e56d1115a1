//! Watching the subscribers that name a topic: a producer learns that its last reader has left.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

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
        Self { state: Arc::clone(state), topic, attendance }
    }

    /// Waits until no subscriber has named the topic for that long. One that comes and goes in the
    /// meantime, such as a poll, starts the time again.
    pub async fn absent(&mut self, patience: Duration) {
        loop {
            // The waits cannot fail: the sender is kept while there is a watch.
            let alone = self.attendance.wait_for(|attendance| attendance.readers == 0).await;
            let Ok(arrivals) = alone.map(|attendance| attendance.arrivals) else { return };
            let arrival = self.attendance.wait_for(|now| now.arrivals > arrivals);
            if tokio::time::timeout(patience, arrival).await.is_err() {
                return;
            }
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
        assert!(hub.state.fanout.lock().watched.0.is_empty());
        // Nobody comes at all.
        hub.watch_readers(a()).absent(patience).await;
        assert_eq!(began.elapsed(), Duration::from_secs(80));
    }
}
