//! The other nodes, as far as their readers are concerned. Nodes ask each other when they need
//! numbers, by messages beside the order, which may get lost.
//!
//! Each node says once a second that it is there. So a question knows whose answers to wait for: a
//! node that did not answer is not waited for until it is heard again. A node also hears its own
//! messages. If it does not, it cannot ask anybody.

mod message;
mod round;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    convert::Infallible,
    mem,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::Semaphore,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout_at},
};

use super::sequencer::{Messenger, SequencerError};
use crate::{
    event::Topic,
    event_log::{OtherNodes, OtherNodesFuture, OwnReaders, Readers, TopicWatch},
    id::Epoch,
};
use message::{MAX_TOPICS, PeerAnswer, PeerContent, PeerMessage, PeerQuestion};
use round::{Answers, Rounds};

/// Interval at which a node says that it is there.
const HERE_INTERVAL: Duration = Duration::from_secs(1);
/// Time in which nodes must answer.
const ANSWER_TIME: Duration = Duration::from_millis(300);
/// Maximum number of questions that wait for answers. Further ones wait for their turn.
const MAX_QUESTIONS: usize = 32;
/// Number of topics that are counted before other tasks get a turn.
const TOPICS_AT_ONCE: usize = 100;
/// Maximum number of messages about changed readers, in one interval.
const CHANGES_AT_ONCE: usize = 5;
/// Number of intervals of changes that are kept until the others want to know them.
const KEPT_INTERVALS: usize = 2;
/// Pause after a failure to receive messages.
const PAUSE: Duration = Duration::from_secs(1);
/// Pause after the engine has denied them.
const DENIED_PAUSE: Duration = Duration::from_secs(60);

/// The other nodes of a cluster.
pub(super) struct Peers {
    messenger: Box<dyn Messenger>,
    me: Epoch,
    name: String,
    /// The readers of this node, once its hub has told.
    own: Mutex<Option<Weak<dyn OwnReaders>>>,
    rounds: Mutex<Rounds>,
    /// The questions that may be asked now.
    asking: Semaphore,
}

/// The topics whose readers at this node have changed.
#[derive(Default)]
struct OwnChanges {
    watch: Option<TopicWatch>,
    /// Those of the last intervals that the others were not told; `None` if any topic may have
    /// changed. A node may have counted before them although its wish to know them comes only
    /// now: it says so once a second, and messages need time.
    untold: VecDeque<Option<Vec<Topic>>>,
}

impl OwnChanges {
    /// Takes those of one interval.
    fn take(&mut self, own: &dyn OwnReaders) -> Option<Vec<Topic>> {
        let watch = self.watch.get_or_insert_with(|| own.watch_changes());
        let mut topics = Vec::new();
        for _ in 0..CHANGES_AT_ONCE {
            let taken = watch.take(MAX_TOPICS)?;
            if taken.is_empty() {
                break;
            }
            topics.extend(taken.into_iter().map(Arc::unwrap_or_clone));
        }
        Some(topics)
    }
}

impl Peers {
    pub fn new(messenger: Box<dyn Messenger>) -> Self {
        let me = Epoch::random();
        Self {
            messenger,
            me,
            name: me.to_string(),
            own: Mutex::default(),
            rounds: Mutex::new(Rounds::new(me)),
            asking: Semaphore::new(MAX_QUESTIONS),
        }
    }

    /// Receives and answers messages. Never returns.
    pub async fn run(&self) -> Infallible {
        let mut is_warned = false;
        loop {
            let Err(error) = self.listen().await;
            if matches!(error, SequencerError::Denied(_)) {
                if !mem::replace(&mut is_warned, true) {
                    tracing::warn!(
                        "the numbers of readers and `while=read` count this node alone: {error}"
                    );
                }
                self.rounds.lock().deny();
                self.note_any();
                sleep(DENIED_PAUSE).await;
            } else {
                tracing::debug!("the node does not hear the others: {error}");
                self.note_any();
                sleep(PAUSE).await;
            }
        }
    }

    async fn listen(&self) -> Result<Infallible, SequencerError> {
        let mut messages = self.messenger.listen(&self.name).await?;
        let mut here = interval(HERE_INTERVAL);
        here.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changes = OwnChanges::default();
        loop {
            tokio::select! {
                message = messages.next() => self.receive(&message?).await?,
                _ = here.tick() => self.announce(&mut changes).await?,
            }
        }
    }

    /// Tells the views of this node if they must start again to have the right numbers.
    fn note_any(&self) {
        if self.rounds.lock().take_any(Instant::now())
            && let Some(own) = self.own()
        {
            own.note_any();
        }
    }

    /// Says that the node is there, and which of its readers have changed.
    async fn announce(&self, changes: &mut OwnChanges) -> Result<(), SequencerError> {
        self.note_any();
        let own = self.own();
        // The others must not wait for a node that hears nobody.
        let to = if self.rounds.lock().answers(self.me, Instant::now()) {
            None
        } else {
            Some(&*self.name)
        };
        let views = own.as_ref().is_some_and(|own| own.are_viewed());
        self.tell(to, PeerContent::Here { views }).await?;
        let Some(own) = own else { return Ok(()) };
        let taken = changes.take(&*own);
        changes.untold.push_back(taken);
        if !self.rounds.lock().have_views() {
            if changes.untold.len() > KEPT_INTERVALS {
                changes.untold.pop_front();
            }
            return Ok(());
        }
        let untold: Option<Vec<_>> = mem::take(&mut changes.untold).into_iter().collect();
        let Some(untold) = untold else { return self.tell(None, PeerContent::AnyChanged).await };
        for topics in untold.concat().chunks(MAX_TOPICS) {
            self.tell(None, PeerContent::Changed { topics: topics.to_vec() }).await?;
        }
        Ok(())
    }

    /// Sends a message. It may get lost, so only a denial is an error.
    async fn tell(&self, to: Option<&str>, content: PeerContent) -> Result<(), SequencerError> {
        let message = PeerMessage::new(self.me, content).encode();
        match self.messenger.tell(to, message).await {
            Err(error @ SequencerError::Denied(_)) => Err(error),
            Err(error) => {
                tracing::debug!("a message to other nodes was not sent: {error}");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    async fn receive(&self, bytes: &[u8]) -> Result<(), SequencerError> {
        let Some(PeerMessage { from, content, .. }) = PeerMessage::decode(bytes) else {
            tracing::debug!("a message of another node cannot be read");
            return Ok(());
        };
        let is_mine = from == self.me;
        self.rounds.lock().hear(from, Instant::now());
        match content {
            PeerContent::Here { views } => self.rounds.lock().note_views(from, views),
            PeerContent::Question { number, .. } if is_mine => {
                self.rounds.lock().answer(number, from, None);
            }
            PeerContent::Question { number, question, topics } => {
                let answer = self.answer(question, &topics).await;
                self.tell(Some(&from.to_string()), PeerContent::Answer { number, answer }).await?;
            }
            PeerContent::Answer { number, answer } => {
                self.rounds.lock().answer(number, from, Some(answer));
            }
            PeerContent::Changed { topics } => {
                if let Some(own) = self.own().filter(|_| !is_mine) {
                    own.note_changes(&topics);
                }
            }
            PeerContent::AnyChanged if is_mine => {}
            PeerContent::AnyChanged => self.rounds.lock().note_any(),
        }
        Ok(())
    }

    /// Answers a question of another node.
    async fn answer(&self, question: PeerQuestion, topics: &[Topic]) -> PeerAnswer {
        let own = self.own();
        let (mut readers, mut absences) = (Vec::new(), Vec::new());
        for topics in topics.chunks(TOPICS_AT_ONCE) {
            match (question, &own) {
                (PeerQuestion::Readers, Some(own)) => readers.extend(own.count(topics)),
                (PeerQuestion::Absences, Some(own)) => absences.extend(own.absences(topics)),
                (PeerQuestion::Readers, None) => {
                    readers.resize(readers.len() + topics.len(), Readers::default());
                }
                (PeerQuestion::Absences, None) => {
                    absences.resize(absences.len() + topics.len(), None);
                }
            }
            tokio::task::yield_now().await;
        }
        match question {
            PeerQuestion::Readers => PeerAnswer::readers(&readers),
            PeerQuestion::Absences => PeerAnswer::absences(&absences),
        }
    }

    fn own(&self) -> Option<Arc<dyn OwnReaders>> {
        self.own.lock().as_ref()?.upgrade()
    }

    /// Asks all nodes. Returns the answers that came in time, or `None` if nobody could be asked,
    /// also because it was not the question's turn until `turn_until`.
    async fn ask(
        &self,
        question: PeerQuestion,
        topics: &[Topic],
        turn_until: Instant,
    ) -> Option<Answers> {
        let _permit = timeout_at(turn_until, self.asking.acquire()).await.ok()?.ok()?;
        // Nodes that do not answer are taken to be silent, so they have all of their time.
        let began = Instant::now();
        let deadline = began + ANSWER_TIME;
        let (number, all) = self.rounds.lock().begin(question, topics.len(), began);
        let round = OpenRound { rounds: &self.rounds, number };
        let content = PeerContent::Question { number, question, topics: topics.to_vec() };
        let message = PeerMessage::new(self.me, content).encode();
        timeout_at(deadline, self.messenger.tell(None, message)).await.ok()?.ok()?;
        // The answers that have come count, too.
        let _ = timeout_at(deadline, all).await;
        round.finish()
    }
}

/// A question that waits for answers. It is forgotten once this is dropped.
struct OpenRound<'a> {
    rounds: &'a Mutex<Rounds>,
    number: u64,
}

impl OpenRound<'_> {
    fn finish(self) -> Option<Answers> {
        self.rounds.lock().finish(self.number, Instant::now())
    }
}

impl Drop for OpenRound<'_> {
    fn drop(&mut self) {
        self.rounds.lock().forget(self.number);
    }
}

impl OtherNodes for Peers {
    fn answer_for(&self, own: Weak<dyn OwnReaders>) {
        *self.own.lock() = Some(own);
    }

    fn readers<'a>(&'a self, topics: &'a [Topic]) -> OtherNodesFuture<'a, Vec<Readers>> {
        Box::pin(async move {
            let turn_until = Instant::now() + ANSWER_TIME;
            let mut sums = vec![Readers::default(); topics.len()];
            let chunks = sums.chunks_mut(MAX_TOPICS).zip(topics.chunks(MAX_TOPICS));
            for (sums, topics) in chunks {
                if !self.rounds.lock().are_there_others(Instant::now()) {
                    break;
                }
                let answers = if Instant::now() < turn_until {
                    self.ask(PeerQuestion::Readers, topics, turn_until).await
                } else {
                    None
                };
                let Some(answers) = answers else {
                    // Readers may be missing although no node is silent.
                    self.rounds.lock().note_any();
                    break;
                };
                for answer in answers.of_others {
                    let PeerAnswer::Readers(readers) = answer else { continue };
                    for (sum, (exact, by_pattern)) in sums.iter_mut().zip(readers) {
                        *sum += Readers { exact, by_pattern };
                    }
                }
            }
            sums
        })
    }

    fn absences<'a>(
        &'a self,
        topics: &'a [Topic],
    ) -> OtherNodesFuture<'a, Option<Vec<Option<Duration>>>> {
        Box::pin(async move {
            let mut shortest: Vec<Option<Duration>> = vec![None; topics.len()];
            let chunks = shortest.chunks_mut(MAX_TOPICS).zip(topics.chunks(MAX_TOPICS));
            for (shortest, topics) in chunks {
                if self.rounds.lock().is_denied() {
                    break;
                }
                let turn_until = Instant::now() + ANSWER_TIME;
                let answers = self.ask(PeerQuestion::Absences, topics, turn_until).await?;
                if !answers.are_all {
                    return None;
                }
                for answer in answers.of_others {
                    let PeerAnswer::Absences(absences) = answer else { continue };
                    for (shortest, absence) in shortest.iter_mut().zip(absences) {
                        let absence = absence.map(Duration::from_millis);
                        *shortest = match (*shortest, absence) {
                            (Some(known), Some(absence)) => Some(known.min(absence)),
                            (known, absence) => known.or(absence),
                        };
                    }
                }
            }
            Some(shortest)
        })
    }
}
