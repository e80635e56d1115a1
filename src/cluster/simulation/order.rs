//! A simulated sequencer: it answers late, in vain or not at all, and is cut off from nodes.

use std::{collections::HashSet, future::pending, path::Path, sync::Arc};

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::task::yield_now;

use crate::{
    cluster::{
        Entries, EntryKind, OrderBounds, RawEntry, Sequencer, SequencerError, SequencerFuture,
    },
    event_log::{
        Appended, EventLog as _, ReadLimit, SqliteLog,
        entry::{Entry, EntryOutcome, Sequenced},
    },
    hub::simulation::checker::Stored,
    pattern::{Pattern, Patterns},
    timestamp::Timestamp,
};

/// The engine that all nodes share.
pub struct Order {
    state: Mutex<OrderState>,
    /// A mirror that applies each entry at once, to know the outcome. `None` while it is opened.
    reference: tokio::sync::Mutex<Option<SqliteLog>>,
    folder: TempDir,
}

struct OrderState {
    /// The number of the stream, which is another one after a replacement.
    stream: usize,
    /// All entries, with their kinds.
    entries: Vec<(RawEntry, EntryKind)>,
    /// The position up to which entries were removed.
    trimmed: u64,
    /// Entries that are still on their way although their senders have been told nothing.
    late: Vec<(Vec<u8>, EntryKind)>,
    stored: Vec<Stored>,
    random: fastrand::Rng,
    clock: u64,
    is_faulty: bool,
    are_cut: Vec<bool>,
}

impl Order {
    pub async fn new(seed: u64, nodes: usize) -> Self {
        let folder = super::folder();
        let state = OrderState {
            stream: 0,
            entries: Vec::new(),
            trimmed: 0,
            late: Vec::new(),
            stored: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
            clock: 1_000_000,
            is_faulty: true,
            are_cut: vec![false; nodes],
        };
        let reference = SqliteLog::open_mirror(folder.path()).unwrap();
        let reference = tokio::sync::Mutex::new(Some(reference));
        let order = Self { state: Mutex::new(state), reference, folder };
        order.apply_again().await;
        order
    }

    /// Loses the last entries, or all with their stream.
    pub async fn lose(&self) {
        {
            let state = &mut *self.state.lock();
            if state.random.usize(..4) == 0 {
                state.stream += 1;
                (state.entries, state.trimmed) = (Vec::new(), 0);
            } else {
                let lost = state.random.usize(..8).min(state.entries.len());
                state.entries.truncate(state.entries.len() - lost);
            }
        }
        self.apply_again().await;
    }

    /// Makes the reference anew from all entries.
    async fn apply_again(&self) {
        let (stream, entries) = {
            let state = &mut *self.state.lock();
            state.stored.clear();
            (state.stream(), state.entries.clone())
        };
        {
            let reference = &mut *self.reference.lock().await;
            let empty = reference.take().unwrap().empty_mirror().unwrap();
            empty.join(stream).await.unwrap();
            *reference = Some(empty);
        }
        for (raw, _) in &entries {
            self.apply(raw).await;
        }
    }

    pub fn change_clock(&self, millis: i64) {
        let clock = &mut self.state.lock().clock;
        *clock = clock.saturating_add_signed(millis);
    }

    /// Cuts a node off, or connects it again.
    pub fn cut(&self, node: usize, is_cut: bool) {
        self.state.lock().are_cut[node] = is_cut;
    }

    /// Ends the faults, delays and cuts.
    pub async fn calm_down(&self) {
        {
            let state = &mut *self.state.lock();
            state.is_faulty = false;
            state.are_cut.fill(false);
        }
        while self.deliver_late().await {}
    }

    /// Adds an entry that was on its way. Returns `false` if there is none.
    pub async fn deliver_late(&self) -> bool {
        let late = {
            let state = &mut *self.state.lock();
            let number = state.random.usize(..=state.late.len());
            if state.late.is_empty() {
                return false;
            }
            state.late.swap_remove(number % state.late.len())
        };
        self.add(late.0, late.1).await;
        true
    }

    pub fn stored(&self) -> Vec<Stored> {
        self.state.lock().stored.clone()
    }

    pub fn last(&self) -> u64 {
        self.state.lock().entries.last().map_or(0, |(last, _)| last.position)
    }

    /// Returns the position of the entry after another one.
    pub fn next(&self, after: u64) -> Option<u64> {
        self.state.lock().kept_after(after).next().map(|entry| entry.position)
    }

    async fn add(&self, bytes: Vec<u8>, kind: EntryKind) -> u64 {
        let raw = {
            let state = &mut *self.state.lock();
            let last = state.entries.last().map_or(0, |(last, _)| last.position);
            let position = last + state.random.u64(1..3);
            let time = Timestamp::from_millis(state.clock);
            let raw = RawEntry { position, time, bytes };
            state.entries.push((raw.clone(), kind));
            raw
        };
        self.apply(&raw).await;
        raw.position
    }

    /// Applies an entry to the reference.
    async fn apply(&self, raw: &RawEntry) {
        let reference = &mut *self.reference.lock().await;
        let entry = Sequenced::decode(raw.position, raw.time, &raw.bytes).unwrap();
        let change = entry.proposal.entry.clone();
        let log = reference.take().unwrap();
        let outcome = log.apply(Arc::new(entry)).await.unwrap();
        let log = if matches!(outcome, EntryOutcome::NewEpoch(_)) {
            drop(log);
            SqliteLog::open_mirror(self.folder.path()).unwrap()
        } else {
            log
        };
        let all = Patterns::from(">".parse::<Pattern>().unwrap());
        let limit = ReadLimit { count: usize::MAX, bytes: usize::MAX };
        let kept = log.read(&all, 0, limit).await.unwrap();
        *reference = Some(log);
        let kept: HashSet<_> = kept.iter().map(|event| event.id.sequence).collect();
        let stored = &mut self.state.lock().stored;
        if let EntryOutcome::Appended(appended) = outcome {
            let new = appended.into_iter().flatten().filter(|appended| !appended.is_duplicate);
            stored.extend(new.map(|Appended { event, .. }| Stored {
                event,
                step: raw.position,
                dropped: None,
                is_deleted: false,
            }));
        }
        for Stored { event, dropped, is_deleted, .. } in stored {
            if dropped.is_none() && !kept.contains(&event.id.sequence) {
                *dropped = Some(raw.position);
                *is_deleted = matches!(&change, Entry::Delete(topic) if *topic == event.topic);
            }
        }
    }

    /// Closes the reference, and returns its folder.
    pub async fn close(&self) -> &Path {
        self.reference.lock().await.take();
        self.folder.path()
    }
}

impl OrderState {
    fn stream(&self) -> String {
        format!("simulated {}", self.stream)
    }

    /// Returns the entries after a position that were not removed.
    fn kept_after(&self, after: u64) -> impl Iterator<Item = &RawEntry> {
        let after = after.max(self.trimmed);
        let next = self.entries.partition_point(|(entry, _)| entry.position <= after);
        self.entries[next..].iter().map(|(entry, _)| entry)
    }
}

/// A node's connection to the engine.
pub struct SimulatedSequencer {
    pub order: Arc<Order>,
    pub node: usize,
}

impl SimulatedSequencer {
    /// Lets others take their turn, for a while. Fails if the node is cut off.
    async fn delay(&self) -> Result<(), SequencerError> {
        let turns = {
            let state = &mut *self.order.state.lock();
            if state.is_faulty { state.random.usize(..4) } else { 0 }
        };
        for _ in 0..turns {
            yield_now().await;
        }
        let is_cut = self.order.state.lock().are_cut[self.node];
        if is_cut { Err(SequencerError::unavailable("cut off")) } else { Ok(()) }
    }

    /// Returns `true` once in `times` calls, on average.
    fn fails(&self, times: usize) -> bool {
        let state = &mut *self.order.state.lock();
        state.is_faulty && state.random.usize(..times) == 0
    }
}

impl Sequencer for SimulatedSequencer {
    fn bounds(&self) -> SequencerFuture<'_, OrderBounds> {
        Box::pin(async move {
            self.delay().await?;
            let last = self.order.last();
            let state = self.order.state.lock();
            Ok(OrderBounds { stream: state.stream(), first: state.trimmed + 1, last })
        })
    }

    fn propose(&self, bytes: Vec<u8>, kind: EntryKind) -> SequencerFuture<'_, u64> {
        Box::pin(async move {
            self.delay().await?;
            if self.fails(15) {
                self.order.state.lock().late.push((bytes, kind));
                return Err(SequencerError::unconfirmed("on its way"));
            }
            if kind == EntryKind::First && self.order.last() > 0 {
                return Err(SequencerError::Begun);
            }
            let position = self.order.add(bytes, kind).await;
            if self.fails(30) {
                return pending().await;
            }
            let answered = self.delay().await;
            answered.map_err(|_| SequencerError::unconfirmed("the answer is lost"))?;
            Ok(position)
        })
    }

    fn follow(&self, after: u64) -> SequencerFuture<'_, Box<dyn Entries>> {
        let sequencer = Self { order: Arc::clone(&self.order), node: self.node };
        Box::pin(async move {
            self.delay().await?;
            Ok(Box::new(SimulatedEntries { sequencer, after }) as Box<dyn Entries>)
        })
    }

    fn entry(&self, position: u64) -> SequencerFuture<'_, Option<Vec<u8>>> {
        Box::pin(async move {
            self.delay().await?;
            let state = &*self.order.state.lock();
            let mut kept = state.kept_after(position - 1);
            let entry = kept.next().filter(|entry| entry.position == position);
            Ok(entry.map(|entry| entry.bytes.clone()))
        })
    }

    fn snapshots(&self) -> SequencerFuture<'_, Vec<RawEntry>> {
        Box::pin(async move {
            self.delay().await?;
            let state = &*self.order.state.lock();
            let is_kept = |(entry, kind): &&(RawEntry, EntryKind)| {
                *kind == EntryKind::Snapshot && entry.position > state.trimmed
            };
            Ok(state.entries.iter().filter(is_kept).map(|(entry, _)| entry.clone()).collect())
        })
    }

    fn trim(&self, up_to: u64) -> SequencerFuture<'_, ()> {
        Box::pin(async move {
            self.delay().await?;
            let trimmed = &mut self.order.state.lock().trimmed;
            *trimmed = up_to.max(*trimmed);
            Ok(())
        })
    }

    fn max_entry(&self) -> usize {
        1 << 20
    }
}

struct SimulatedEntries {
    sequencer: SimulatedSequencer,
    after: u64,
}

impl Entries for SimulatedEntries {
    fn next(&mut self) -> SequencerFuture<'_, RawEntry> {
        Box::pin(async move {
            loop {
                self.sequencer.delay().await?;
                if self.sequencer.fails(100) {
                    return pending().await;
                }
                if self.sequencer.fails(100) {
                    return Err(SequencerError::unavailable("no longer sent"));
                }
                let next = self.sequencer.order.state.lock().kept_after(self.after).next().cloned();
                if let Some(next) = next {
                    self.after = next.position;
                    return Ok(next);
                }
                yield_now().await;
            }
        })
    }
}
