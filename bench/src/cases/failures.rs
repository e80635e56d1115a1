//! Failures as a browser sees them: the time until the next event is in the list of a page.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::nodes::ClusterSetup;
use crate::{
    cluster::{BalancerProcess, BenchCluster, COUNT, until},
    load::{Endpoint, LoadPublisher, data, nanos, try_get},
    page::{PageProcess, ShownEvent, has_browser},
    table::{BenchTable, Target, median},
};

/// Time between two publishes. The result of each failure is that much too long at most.
const PAUSE: Duration = Duration::from_millis(20);
/// Events that the page shows between two failures. Meanwhile, HAProxy finds out that all nodes are
/// there again.
const EVENTS_BETWEEN: usize = 100;
/// The page, with the events of the publisher alone.
const PAGE: &str = "/?topic=t";

/// Publishes events until it is dropped.
struct SteadyPublisher {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SteadyPublisher {
    /// Starts to publish with the numbers from `next` on.
    fn start(endpoint: &Endpoint, next: &Arc<AtomicUsize>) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (until, next) = (Arc::clone(&is_over), Arc::clone(next));
        let mut publisher = LoadPublisher::new(endpoint);
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                let due = Instant::now() + PAUSE;
                let number = next.fetch_add(1, Ordering::Relaxed);
                publisher.publish("", &data(number, 100));
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        });
        Self { is_over, thread: Some(thread) }
    }
}

impl Drop for SteadyPublisher {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))), "a publish failed");
    }
}

/// A page that shows the events of a publisher.
struct Scene {
    page: PageProcess,
    next: Arc<AtomicUsize>,
    /// The times from publishes to the list without a failure, in milliseconds.
    ordinary: Vec<f64>,
}

/// Returns the time from `since` until an event was in the list, in milliseconds.
fn milliseconds(since: u64, event: ShownEvent) -> f64 {
    event.shown.saturating_sub(since) as f64 / 1e6
}

impl Scene {
    /// Waits until the page shows new events, lets something fail, and returns the time until the
    /// page shows an event that was published after that, in milliseconds.
    fn fail(&mut self, publish: &Endpoint, fail: impl FnOnce()) -> f64 {
        let publisher = SteadyPublisher::start(publish, &self.next);
        let first = self.next.load(Ordering::Relaxed);
        let mut before = Vec::new();
        while before.len() < EVENTS_BETWEEN {
            let event = self.page.wait_for(|event| event.number >= first);
            before.push(milliseconds(event.sent, event));
        }
        // The first ones may have waited for the page or a connection.
        self.ordinary.extend(&before[EVENTS_BETWEEN / 2..]);
        let failed = nanos();
        fail();
        let next = self.page.wait_for(|event| event.sent > failed);
        drop(publisher);
        milliseconds(failed, next)
    }
}

/// Returns the index of the first node that has streams.
fn serving(cluster: &BenchCluster) -> usize {
    until("stream of the page", || {
        (0..COUNT).find(|node| {
            let metrics = try_get(&cluster.nodes[*node].endpoint, "/metrics");
            metrics.is_ok_and(|response| has_stream(&String::from_utf8_lossy(&response.body)))
        })
    })
}

/// Returns `true` if a server has an open stream, by its metrics.
fn has_stream(metrics: &str) -> bool {
    let count = metrics.lines().find_map(|line| line.strip_prefix("waterclock_streams_open "));
    count.is_some_and(|count| count != "0")
}

/// Kills the node that serves the page, and the leader of NATS.
pub fn page(bench: &ClusterSetup, table: &mut BenchTable) {
    if !has_browser() {
        println!("\nNot measured, since `node end2end/chromium.js` finds no Chromium: failures.\n");
        return;
    }
    let mut cluster = bench.cluster(&[]);
    let balancer = BalancerProcess::start(&cluster.nodes);
    let front = balancer.as_ref().map_or(&cluster.nodes[0].endpoint, |balancer| &balancer.endpoint);
    let page = PageProcess::open(front, PAGE);
    let mut scene = Scene { page, next: Arc::default(), ordinary: Vec::new() };
    let (mut nodes, mut leaders) = (Vec::new(), Vec::new());
    if balancer.is_none() {
        println!("\nNot measured, since HAProxy is missing: kill -9 of the page's node.\n");
    } else {
        for _ in 0..bench.extent.failures {
            let victim = serving(&cluster);
            let publish = cluster.nodes[(victim + 1) % COUNT].endpoint.clone();
            nodes.push(scene.fail(&publish, || cluster.nodes[victim].kill()));
            cluster.nodes[victim].restart();
            cluster.wait_until_ready(victim);
        }
    }
    for _ in 0..bench.extent.failures {
        let leader = cluster.wait_until_healthy();
        let publish = cluster.nodes[0].endpoint.clone();
        leaders.push(scene.fail(&publish, || cluster.nats[leader].kill()));
        cluster.nats[leader].restart();
    }
    let name = "from a publish to the list of a page: p50";
    table.own(name, "ms", median(scene.ordinary), Target::None);
    for (name, times) in [("the page's node", nodes), ("the leader of NATS", leaders)] {
        if times.is_empty() {
            continue;
        }
        let name = format!("kill -9 of {name}: until the next event");
        let largest = times.iter().copied().fold(0.0, f64::max);
        let count = times.len();
        table.own(&format!("{name}, median of {count}"), "ms", median(times), Target::None);
        table.own(&format!("  {name}, maximum"), "ms", largest, Target::None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_with_a_stream_is_known_by_its_metrics() {
        assert!(has_stream("a 0\nwaterclock_streams_open 1\nb 0"));
        assert!(!has_stream("waterclock_streams_open 0\nwaterclock_streams_open_total 1"));
        assert!(!has_stream(""));
    }
}
