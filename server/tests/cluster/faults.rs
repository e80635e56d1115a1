//! A cluster under faults. Publishers and readers work meanwhile, and then all histories are
//! checked.
//!
//! `FAULTS` sets the number of faults, and `FAULT_SEED` the seed, which the test prints. The seed
//! decides on the faults, but not on the scheduling of the processes.

use std::{
    collections::{BTreeMap, HashSet},
    env,
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use futures_util::future::join_all;
use parking_lot::Mutex;
use rustix::process::Signal;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use waterclock::{
    event::Event,
    pattern::{Pattern, Patterns},
    transport::Transport,
};

use crate::{
    clients::{ReadAttempt, ReaderStart, Reading, publish, whole_log},
    histories::{Attempt, AttemptOutcome, ClusterHistory, ReaderTrail, Receipt, Visit},
    links::Passage,
    nodes::{COUNT, DEADLINE, NodeCluster, has_nats, until},
};

const PUBLISHERS: usize = 16;
const READERS: usize = 50;
const TOPICS: [&str; 6] = ["a.1", "a.2", "a.3", "b.1", "b.2", "b.3"];
/// The pause of a publisher, in milliseconds.
const PUBLISH_PAUSE: Range<u64> = 20..200;
/// The time of a reader at a node, in milliseconds.
const VISIT: Range<u64> = 300..5000;
/// Pause after an attempt that has failed.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// The data of the last event of each topic.
const LAST: &str = "the last event";

/// A process that fails.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Server(usize),
    Node(usize),
}

/// A kind of failure.
#[derive(Clone, Copy, Debug)]
enum FaultKind {
    /// It is killed, and starts again.
    Kill,
    /// It is asked to end, and starts again.
    Restart,
    /// It is suspended, and continues.
    Suspension,
    /// It is cut off from the servers: its links are held or closed.
    CutOff(Passage),
    /// A server is cut off from nodes, too.
    Isolation(Passage),
}

/// A failure of a process for some time.
#[derive(Clone, Copy, Debug)]
struct PlannedFault {
    victim: Victim,
    kind: FaultKind,
    /// The time before it.
    pause: Duration,
    lasts: Duration,
}

impl PlannedFault {
    fn random(rng: &mut Rng) -> Self {
        let index = rng.usize(..COUNT);
        let victim = if rng.bool() { Victim::Server(index) } else { Victim::Node(index) };
        let passage = if rng.bool() { Passage::Held } else { Passage::Closed };
        let kind = match rng.u8(..5) {
            0 => FaultKind::Kill,
            4 => FaultKind::Restart,
            1 => FaultKind::Suspension,
            2 => FaultKind::CutOff(passage),
            _ => FaultKind::Isolation(passage),
        };
        let longest = if matches!(kind, FaultKind::Kill) { 3000 } else { 6000 };
        let lasts = Duration::from_millis(rng.u64(200..longest));
        let pause = Duration::from_millis(rng.u64(100..1500));
        Self { victim, kind, pause, lasts }
    }

    /// Lets the process fail, and waits until it works again.
    async fn happen(self, cluster: &NodeCluster) {
        sleep(self.pause).await;
        println!("{self:?}");
        match self.victim {
            Victim::Server(index) => self.of_server(cluster, index).await,
            Victim::Node(index) => self.of_node(cluster, index).await,
        }
    }

    async fn of_server(self, cluster: &NodeCluster, index: usize) {
        let server = &cluster.servers[index];
        match self.kind {
            FaultKind::Kill => {
                server.lock().kill();
                sleep(self.lasts).await;
                server.lock().restart();
            }
            FaultKind::Restart => {
                server.lock().terminate();
                server.lock().restart();
            }
            FaultKind::Suspension => {
                server.lock().suspend();
                sleep(self.lasts).await;
                server.lock().resume();
            }
            FaultKind::CutOff(passage) => {
                cluster.set_server(index, passage);
                sleep(self.lasts).await;
                cluster.set_server(index, Passage::Open);
            }
            FaultKind::Isolation(passage) => {
                cluster.set_server(index, passage);
                cluster.set_clients(index, passage);
                sleep(self.lasts).await;
                cluster.set_server(index, Passage::Open);
                cluster.set_clients(index, Passage::Open);
            }
        }
        // Otherwise the next server would be the second one that is away.
        cluster.healthy(index).await;
    }

    async fn of_node(self, cluster: &NodeCluster, index: usize) {
        let node = &cluster.nodes[index];
        match self.kind {
            FaultKind::Kill => {
                node.kill();
                sleep(self.lasts).await;
                node.restart();
                until("address of a node", async || node.address()).await;
            }
            FaultKind::Restart => {
                node.terminate().await;
                node.restart();
                node.can_publish().await;
            }
            FaultKind::Suspension => {
                node.signal(Signal::STOP);
                sleep(self.lasts).await;
                node.signal(Signal::CONT);
            }
            FaultKind::CutOff(passage) | FaultKind::Isolation(passage) => {
                cluster.set_node(index, passage);
                sleep(self.lasts).await;
                cluster.set_node(index, Passage::Open);
            }
        }
    }
}

/// The parts that all clients share.
struct Scene {
    cluster: Arc<NodeCluster>,
    began: Instant,
    attempts: Mutex<Vec<Attempt>>,
    /// `true` once publishers must finish.
    is_over: AtomicBool,
}

impl Scene {
    /// Publishes at a random node. Returns `true` if it was acknowledged.
    async fn attempt(&self, rng: &mut Rng, topic: &str, data: &str, key: Option<&str>) -> bool {
        let Some((_, address)) = self.cluster.any_address(rng) else {
            sleep(RETRY_PAUSE).await;
            return false;
        };
        let started = self.began.elapsed();
        let outcome = publish(address, topic, data, key).await.outcome;
        let is_acknowledged = matches!(outcome, AttemptOutcome::Acknowledged(_));
        self.attempts.lock().push(Attempt {
            topic: topic.parse().unwrap(),
            key: key.map(str::to_owned),
            data: data.to_owned(),
            started,
            ended: self.began.elapsed(),
            outcome,
        });
        is_acknowledged
    }

    /// Publishes at random nodes until it is acknowledged.
    async fn insist(&self, rng: &mut Rng, topic: &str, data: &str, key: &str) {
        while !self.attempt(rng, topic, data, Some(key)).await {
            sleep(RETRY_PAUSE).await;
        }
    }

    /// Publishes events, with keys or without, until the end.
    async fn publisher(self: Arc<Self>, number: usize, mut rng: Rng) {
        for event in 0.. {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let (topic, data) = (*rng.choice(&TOPICS).unwrap(), format!("{number}.{event}"));
            if number.is_multiple_of(2) {
                self.insist(&mut rng, topic, &data, &data).await;
                // A client that has lost the answer publishes again.
                if rng.u8(..4) == 0 {
                    self.attempt(&mut rng, topic, &data, Some(&data)).await;
                }
            } else {
                self.attempt(&mut rng, topic, &data, None).await;
            }
            sleep(Duration::from_millis(rng.u64(PUBLISH_PAUSE))).await;
        }
    }

    /// Reads at one node after the other, until it has the last event of all its topics.
    async fn reader(self: Arc<Self>, number: usize, mut rng: Rng) -> ReaderTrail {
        let patterns = match number % 5 {
            0 => vec![">"],
            1 => vec!["a.*", "b.1"],
            2 => vec!["b.>"],
            _ => vec![TOPICS[number % TOPICS.len()], *rng.choice(&TOPICS).unwrap()],
        };
        let parameters: Vec<_> = patterns
            .iter()
            .map(|pattern| format!("topic={}", pattern.replace('>', "%3E")))
            .collect();
        let parameters = parameters.join("&");
        let patterns: Vec<Pattern> =
            patterns.iter().map(|pattern| pattern.parse().unwrap()).collect();
        let topics = Patterns::new(patterns).unwrap();
        let mut missing: HashSet<_> = TOPICS.iter().map(|topic| topic.parse().unwrap()).collect();
        missing.retain(|topic| topics.matches(topic));
        let mut start = if rng.bool() { ReaderStart::Now } else { ReaderStart::Oldest };
        let mut visits: Vec<Visit> = Vec::new();
        while !missing.is_empty() {
            let transport = rng.choice(Transport::ALL).unwrap();
            let time = Duration::from_millis(rng.u64(VISIT));
            let Some((node, address)) = self.cluster.any_address(&mut rng) else {
                sleep(RETRY_PAUSE).await;
                continue;
            };
            let until = Instant::now() + time;
            let attempt = ReadAttempt { address, transport, topics: &parameters, start, until };
            let mut receipts = Vec::new();
            attempt
                .run(|reading| {
                    match reading {
                        Reading::Receipt(receipt) => {
                            if let Receipt::Event(Event { topic, data, .. }) = &receipt
                                && data.starts_with(LAST)
                            {
                                missing.remove(topic);
                            }
                            receipts.push(receipt);
                        }
                        Reading::Hello(name) => assert_eq!(name.as_deref(), Some(node)),
                        Reading::Goodbye => {}
                    }
                    !missing.is_empty()
                })
                .await;
            let cursor = match start {
                ReaderStart::Oldest => None,
                ReaderStart::After(id) => Some(id),
                ReaderStart::Now => match receipts.first() {
                    Some(Receipt::Position(id)) => Some(*id),
                    Some(other) => panic!("{transport:?} begins with {other:?}"),
                    None => None,
                },
            };
            let position = |receipt: &Receipt| match receipt {
                Receipt::Event(event) => Some(event.id),
                Receipt::Position(id) => Some(*id),
                Receipt::Gap(_) => None,
            };
            let last = receipts.iter().rev().find_map(position);
            if let Some(last) = last {
                start = ReaderStart::After(last);
            } else {
                sleep(RETRY_PAUSE).await;
            }
            if !receipts.is_empty() {
                let place = format!("{node} by {transport:?}");
                visits.push(Visit { place, cursor, receipts });
            }
        }
        ReaderTrail { name: format!("reader {number}"), topics, visits }
    }

    /// Notes the ends of nodes that no fault has caused, until the test is over.
    async fn watch(self: Arc<Self>, ends: Arc<Mutex<Vec<String>>>) {
        loop {
            ends.lock().extend(self.cluster.unexpected_ends());
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Reads a number from the environment.
fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().filter(|text| !text.is_empty())?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_keeps_what_it_acknowledged() {
    if !has_nats() {
        return;
    }
    let seed = number("FAULT_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("FAULT_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    // The servers fail one after the other, and so do the failures of each node.
    let mut lanes = BTreeMap::<_, Vec<_>>::new();
    for _ in 0..number("FAULTS").unwrap_or(10) {
        let fault = PlannedFault::random(&mut rng);
        let lane = match fault.victim {
            Victim::Server(_) => COUNT,
            Victim::Node(index) => index,
        };
        lanes.entry(lane).or_default().push(fault);
    }

    let cluster = Arc::new(NodeCluster::start(&["--interval=24h", "--cluster-timeout=5s"]).await);
    let scene = Arc::new(Scene {
        cluster: Arc::clone(&cluster),
        began: Instant::now(),
        attempts: Mutex::default(),
        is_over: AtomicBool::new(false),
    });
    let ends = Arc::default();
    let watch = tokio::spawn(Arc::clone(&scene).watch(Arc::clone(&ends)));
    let (mut publishers, mut readers) = (JoinSet::new(), JoinSet::new());
    for number in 0..READERS {
        readers.spawn(Arc::clone(&scene).reader(number, rng.fork()));
    }
    for number in 0..PUBLISHERS {
        publishers.spawn(Arc::clone(&scene).publisher(number, rng.fork()));
    }
    join_all(lanes.into_values().map(|faults| {
        let cluster = &cluster;
        async move {
            for fault in faults {
                fault.happen(cluster).await;
            }
        }
    }))
    .await;
    for index in 0..COUNT {
        let (kind, pause) = (FaultKind::Restart, Duration::ZERO);
        let of = |victim| PlannedFault { victim, kind, pause, lasts: pause };
        of(Victim::Node(index)).happen(&cluster).await;
        of(Victim::Server(index)).happen(&cluster).await;
    }
    println!("healed after {:?}", scene.began.elapsed());

    scene.is_over.store(true, Ordering::Relaxed);
    timeout(DEADLINE, publishers.join_all()).await.expect("publishers finish");
    for topic in TOPICS {
        let (data, last) = (format!("{LAST} of {topic}"), format!("last of {topic}"));
        let last = scene.insist(&mut rng, topic, &data, &last);
        timeout(DEADLINE, last).await.expect("the last event is published");
    }
    println!("published after {:?}", scene.began.elapsed());
    let readers = timeout(DEADLINE, readers.join_all()).await.expect("readers have all events");
    println!("read after {:?}", scene.began.elapsed());
    let attempts = std::mem::take(&mut *scene.attempts.lock());
    let mut logs = Vec::new();
    for node in &cluster.nodes {
        logs.push((node.name.clone(), log_with_all(node.listens().await, &attempts).await));
    }
    watch.abort();

    let count = |is: fn(&AttemptOutcome) -> bool| {
        attempts.iter().filter(|attempt| is(&attempt.outcome)).count()
    };
    let acknowledged = count(|outcome| matches!(outcome, AttemptOutcome::Acknowledged(_)));
    println!(
        "{} events, {acknowledged} acknowledgements, {} refusals, {} unknown outcomes, \
         {} visits of readers with {} messages",
        logs[0].1.len(),
        count(|outcome| matches!(outcome, AttemptOutcome::Refused(_))),
        count(|outcome| matches!(outcome, AttemptOutcome::Unknown)),
        readers.iter().map(|reader| reader.visits.len()).sum::<usize>(),
        readers
            .iter()
            .flat_map(|reader| &reader.visits)
            .map(|visit| visit.receipts.len())
            .sum::<usize>(),
    );
    let mut rates = BTreeMap::<_, usize>::new();
    for attempt in &attempts {
        if matches!(attempt.outcome, AttemptOutcome::Acknowledged(_)) {
            *rates.entry(attempt.ended.as_secs()).or_default() += 1;
        }
    }
    println!("acknowledgements of each second: {rates:?}");
    let history = ClusterHistory { attempts, readers, logs };
    assert_eq!(history.check(), Ok(()));
    assert_eq!(*ends.lock(), [""; 0], "a node has ended by itself");
    cluster.assert_no_loss();
    assert!(acknowledged > 4 * PUBLISHERS, "too few events to test anything");
}

/// Reads the log of a node, once it has all acknowledged events.
async fn log_with_all(address: SocketAddr, attempts: &[Attempt]) -> Vec<Event> {
    let acknowledged = attempts.iter().filter_map(|attempt| match &attempt.outcome {
        AttemptOutcome::Acknowledged(event) => Some(event.id.sequence),
        _ => None,
    });
    let newest = acknowledged.max().unwrap_or_default();
    let has_all =
        |log: &Vec<Event>| log.last().map_or(0, |last: &Event| last.id.sequence) >= newest;
    until("log with all events", async || whole_log(address).await.filter(has_all)).await
}
