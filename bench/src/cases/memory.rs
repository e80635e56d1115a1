//! Memory of idle subscribers.

use super::{
    delivery::{PERCENTILES, RateLoad},
    setup::{RUNS, Setup, Subject, median_of},
};
use crate::{
    load::{HttpVersion, SubscriberPool},
    process,
    table::{BenchTable, Target},
};

/// Subscribers that connect before the measurement. A server allocates some of its memory only once
/// it is in use.
const FIRST: usize = 100;
/// The ends of a connection, both of which the kernel of this machine holds.
const ENDS: f64 = 2.0;
/// The name of the line with the kernel's share.
const KERNEL: &str = "  the kernel's in addition: half of the growth of Slab";

/// Memory per subscriber, in kB.
struct MemoryGrowth {
    /// The memory of the server (PSS).
    server: f64,
    /// The memory of the kernel, for both ends of a connection.
    kernel: f64,
}

/// Measures the memory of a subscriber that receives nothing.
pub fn idle(setup: &Setup, table: &mut BenchTable) {
    let runs = setup.results(|server| connect(server, &mut server.subscribers(), 10_000));
    let mut memory: Vec<_> = runs.iter().map(|runs| median_of(runs, |run| run.server)).collect();
    if let (Some(memory), Some(runs), true) =
        (memory.last_mut(), runs.last(), setup.other.is_some())
    {
        // A server that was already running keeps some of the memory of the first run.
        *memory = largest(runs, |run| run.server);
    }
    let name = "memory (PSS) per idle subscriber of 10,000";
    table.line(name, "kB", &memory, Target::AtMost(1.0));
    let kernel: Vec<_> = runs.iter().map(|runs| kernel_share(runs)).collect();
    table.line(KERNEL, "kB", &kernel, Target::None);
}

/// Connects subscribers, and measures the memory of each after the first ones.
fn connect(server: &Subject, clients: &mut SubscriberPool, subscribers: usize) -> MemoryGrowth {
    clients.connect(FIRST);
    let added = subscribers - FIRST;
    let (server_before, kernel_before) = (server.memory(), process::kernel_memory());
    clients.connect(added);
    MemoryGrowth {
        server: (server.memory() - server_before) / added as f64,
        kernel: (process::kernel_memory() - kernel_before) / added as f64,
    }
}

/// Returns the kernel's memory for one end of a connection.
fn kernel_share(runs: &[MemoryGrowth]) -> f64 {
    // The kernel keeps some of its memory for the next connections, so a run after another one
    // shows less growth.
    largest(runs, |run| run.kernel) / ENDS
}

fn largest(runs: &[MemoryGrowth], figure: impl Fn(&MemoryGrowth) -> f64) -> f64 {
    runs.iter().map(figure).fold(f64::NEG_INFINITY, f64::max)
}

/// Measures HTTP/1.1 with TLS.
pub fn tls_http1(setup: &Setup, table: &mut BenchTable) {
    tls(setup, table, "HTTP/1.1", HttpVersion::Http1, 16.0);
}

/// Measures HTTP/2 with TLS and one stream per connection, as a browser with one tab has it.
pub fn tls_http2(setup: &Setup, table: &mut BenchTable) {
    tls(setup, table, "HTTP/2", HttpVersion::Http2 { streams: 1 }, 20.0);
}

fn tls(setup: &Setup, table: &mut BenchTable, name: &str, version: HttpVersion, limit: f64) {
    let (mut growths, mut loads) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let server = setup.waterclock(&["--tls-self-signed"]);
        let mut clients = server.subscribers_over(version);
        growths.push(connect(&server, &mut clients, 2000));
        let load = RateLoad { per_second: 10.0, size: 100, seconds: 2.0 };
        loads.push(load.run(&server, &mut clients));
    }
    let name = format!("TLS, {name}, one stream per connection, 2,000: memory (PSS)");
    let memory = median_of(&growths, |run| run.server);
    table.own(&name, "kB", memory, Target::AtMost(limit));
    table.own(KERNEL, "kB", kernel_share(&growths), Target::None);
    let cost = median_of(&loads, |load| load.cost);
    table.own("  CPU per delivered event, 10 events/s", "us", cost, Target::None);
    for (at, (part, _)) in PERCENTILES.iter().enumerate() {
        let latency = median_of(&loads, |load| load.latency[at]);
        table.own(&format!("  latency {part}"), "ms", latency, Target::None);
    }
}
