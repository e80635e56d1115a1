//! Imports of logs of a single process, on a sequencer that answers late, in vain or not at all, by
//! nodes that are killed again and again.

use std::{path::PathBuf, sync::Arc, time::Duration};

use rusqlite::types::Value;
use tempfile::TempDir;
use tokio::{
    runtime::Runtime,
    task::{JoinHandle, unconstrained, yield_now},
};

use super::{
    Hint, folder,
    order::{Order, SimulatedSequencer},
};
use crate::{
    cluster::{
        ClusterLog, Entries, EntryKind, JoinError, NodeSettings, OrderBounds, RawEntry, Sequencer,
        SequencerFuture, log::MAX_REST,
    },
    event_log::{
        ImportSource, Retention, SqliteLog, dump, dump_content, random_log, wait_in_place,
    },
    hub::simulation::seeds,
};

/// A sequencer whose entries are so small that a log has many parts.
struct SmallEntries(SimulatedSequencer);

impl Sequencer for SmallEntries {
    fn bounds(&self) -> SequencerFuture<'_, OrderBounds> {
        self.0.bounds()
    }

    fn propose(&self, entry: Vec<u8>, kind: EntryKind) -> SequencerFuture<'_, u64> {
        self.0.propose(entry, kind)
    }

    fn follow(&self, after: u64) -> SequencerFuture<'_, Box<dyn Entries>> {
        self.0.follow(after)
    }

    fn entry(&self, position: u64) -> SequencerFuture<'_, Option<Vec<u8>>> {
        self.0.entry(position)
    }

    fn snapshots(&self) -> SequencerFuture<'_, Vec<RawEntry>> {
        self.0.snapshots()
    }

    fn trim(&self, up_to: u64) -> SequencerFuture<'_, ()> {
        self.0.trim(up_to)
    }

    fn max_entry(&self) -> usize {
        MAX_REST + 500
    }
}

/// The way in which the start of a node has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StartEnd {
    /// It was killed, or could not go on.
    Unfinished,
    Joined,
    /// The cluster has begun with another log.
    Refused,
}

/// A node that is started again and again.
struct Starter {
    number: usize,
    folder: TempDir,
    has_option: bool,
    /// One life of its process.
    life: Option<(Runtime, JoinHandle<StartEnd>)>,
    end: StartEnd,
}

impl Starter {
    fn new(number: usize, has_option: bool) -> Self {
        let (folder, end) = (folder(), StartEnd::Unfinished);
        Self { number, folder, has_option, life: None, end }
    }

    /// Gives the node some turns. Starts its process if there is none.
    fn live(&mut self, order: &Arc<Order>, turns: usize) {
        let (runtime, started) = self.life.get_or_insert_with(|| {
            let (path, runtime) = (self.folder.path().to_owned(), runtime());
            let start = start(Arc::clone(order), self.number, path, self.has_option);
            let started = runtime.spawn(start);
            (runtime, started)
        });
        runtime.block_on(async {
            for _ in 0..turns {
                yield_now().await;
            }
            tokio::time::advance(Duration::from_millis(100)).await;
        });
        if started.is_finished() {
            self.end = runtime.block_on(started).unwrap();
            self.life = None;
        }
    }
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap()
}

/// Starts a node as the program does.
async fn start(order: Arc<Order>, node: usize, folder: PathBuf, has_option: bool) -> StartEnd {
    let sequencer = || SmallEntries(SimulatedSequencer { order: Arc::clone(&order), node });
    let settings = NodeSettings {
        name: node.to_string(),
        retention: Retention::default(),
        timeout: Duration::from_secs(5),
        may_begin: !has_option,
    };
    if has_option && let Some(source) = ImportSource::open(&folder).await.unwrap() {
        match ClusterLog::import(source, sequencer(), settings.clone()).await {
            Ok(_) => {}
            Err(JoinError::HasBegun | JoinError::OtherImport) => return StartEnd::Refused,
            Err(JoinError::Import(_) | JoinError::StartAgain(_) | JoinError::Unreachable(_)) => {
                return StartEnd::Unfinished;
            }
            Err(error) => panic!("node {node}: {error:?}"),
        }
    }
    let mirror = SqliteLog::open_mirror(&folder).unwrap();
    match ClusterLog::join(mirror, sequencer(), settings).await {
        Ok(log) => {
            let mut status = log.status();
            while log.node().mirrored().place.position < order.last() {
                if status.borrow_and_update().failure.is_some() {
                    return StartEnd::Unfinished;
                }
                yield_now().await;
            }
            StartEnd::Joined
        }
        Err(
            JoinError::Unreachable(_)
            | JoinError::StartAgain(_)
            | JoinError::Importing
            | JoinError::NothingToImport,
        ) => StartEnd::Unfinished,
        Err(error) => panic!("node {node}: {error:?}"),
    }
}

/// Copies a log of a single process.
fn copy_log(from: &TempDir, to: &TempDir) {
    std::fs::copy(from.path().join("log.db"), to.path().join("log.db")).unwrap();
}

/// Returns the folders in which a node has set logs aside.
fn aside(folder: &TempDir) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder.path()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.to_string_lossy().contains("-set-aside-")).collect()
}

/// Runs two nodes with a log each and one without, which may begin the order if it has no option.
fn import(seed: u64, may_others_begin: bool) {
    let mut random = fastrand::Rng::with_seed(seed);
    let runtime = runtime();
    let order = Arc::new(runtime.block_on(Order::new(seed, 3)));
    let mut nodes = [0, 1, 2].map(|number| Starter::new(number, number < 2 || !may_others_begin));
    let logs = [0, 1].map(|number| {
        let (node, log) = (&nodes[number], folder());
        // One that waits in place must not be made to yield.
        runtime.block_on(unconstrained(random_log(log.path(), 2 * seed + number as u64)));
        copy_log(&log, &node.folder);
        // A copy has a new epoch.
        drop(runtime.block_on(ImportSource::open(node.folder.path())).unwrap().unwrap());
        dump_content(node.folder.path())
    });
    for turn in 0.. {
        let unfinished: Vec<_> =
            (0..3).filter(|number| nodes[*number].end == StartEnd::Unfinished).collect();
        if unfinished.is_empty() {
            break;
        }
        assert!(turn < 20_000, "{:?}", nodes.map(|node| node.end));
        let node = &mut nodes[unfinished[random.usize(..unfinished.len())]];
        match random.usize(..30) {
            _ if turn == 1000 => runtime.block_on(order.calm_down()),
            0..3 if turn < 1000 => node.life = None,
            3 => drop(runtime.block_on(order.deliver_late())),
            _ => node.live(&order, random.usize(1..10)),
        }
    }
    runtime.block_on(order.calm_down());
    for node in nodes.iter_mut().filter(|node| node.end == StartEnd::Joined) {
        // The option does nothing now.
        node.end = StartEnd::Unfinished;
        for _ in 0..1000 {
            if node.end == StartEnd::Unfinished {
                node.live(&order, 20);
            }
        }
        assert_eq!(node.end, StartEnd::Joined, "node {}", node.number);
    }
    let reference = runtime.block_on(order.close());
    let (expected, begun) = (dump(reference), dump_content(reference));
    // The first row has the epoch.
    let is_begun_with = |content: &[Vec<Value>]| content[0][0] == begun[0][0];
    assert!(may_others_begin || logs.iter().any(|content| is_begun_with(content)));
    for node in nodes.iter().filter(|node| node.end == StartEnd::Joined) {
        assert_eq!(dump(node.folder.path()), expected, "node {}", node.number);
    }
    for (node, content) in nodes.iter().zip(logs) {
        let folder = &node.folder;
        if is_begun_with(&content) {
            assert_eq!(node.end, StartEnd::Joined, "node {}", node.number);
            let [aside] = &aside(folder)[..] else { panic!("{:?}", aside(folder)) };
            assert_eq!(dump_content(aside), content, "the log is as it was");
            assert_eq!(begun, content, "nothing is lost or doubled");
        } else {
            assert_eq!(node.end, StartEnd::Refused, "node {}", node.number);
            assert_eq!(dump_content(folder.path()), content, "the log is as it was");
        }
    }
}

#[test]
fn a_log_is_imported_once_whatever_fails() {
    wait_in_place();
    // Each takes as long as several of the others.
    for seed in seeds().step_by(4) {
        fastrand::seed(seed);
        let _hint = Hint(seed);
        import(seed, seed / 4 % 2 == 0);
    }
}
