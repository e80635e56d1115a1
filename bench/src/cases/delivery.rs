//! Events at a fixed rate to many subscribers.

use std::time::{Duration, Instant};

use super::setup::{EVENTS, RUNS, Setup, Subject, median_of};
use crate::{
    load::{Faults, HttpVersion, MAX_STREAMS, SubscriberPool},
    table::{BenchTable, Target, percentile},
};

/// The name of the raw loop in targets.
pub const RAW: &str = "the raw loop";
/// The percentiles of latency, by name.
pub const PERCENTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];
/// The bound for CPU time and p99, compared with the raw loop.
const FACTOR: f64 = 1.15;
/// The bound for CPU time with `max_delay`, compared with that without.
const GATHERED: f64 = 0.33;
/// Time that another server has between its response to a subscriber and the first event.
const SETTLING: Duration = Duration::from_secs(1);

/// Events that are published at a fixed rate while subscribers read them.
#[derive(Clone, Copy)]
pub struct RateLoad {
    pub per_second: f64,
    /// Size of an event, in bytes.
    pub size: usize,
    pub seconds: f64,
}

/// The results of one run.
pub struct LoadResult {
    /// CPU time of the server per delivered event, in microseconds. NaN if its processes are not
    /// known.
    pub cost: f64,
    /// The [`PERCENTILES`] of the latency, in milliseconds.
    pub latency: [f64; 3],
    /// Delivered events per second.
    rate: f64,
    faults: Faults,
}

impl RateLoad {
    /// Runs the load with connected subscribers.
    pub fn run(self, server: &Subject, clients: &mut SubscriberPool) -> LoadResult {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small number"
        )]
        let count = (self.per_second * self.seconds).round() as usize;
        clients.reset();
        let publisher = server.publisher();
        let (start, before) = (Instant::now(), server.cpu_time());
        let form = server.site.form.clone();
        let publisher = publisher.run(form, count, self.per_second, self.size);
        clients.wait_for_events(count);
        publisher.join().unwrap();
        let (took, used) = (start.elapsed(), server.cpu_time() - before);
        let faults = clients.faults(count);
        assert!(!server.is_own || faults == Faults::default(), "{faults:?}");
        let delivered = clients.delivered() as f64;
        let mut latencies = std::mem::take(&mut clients.latencies);
        latencies.sort_unstable();
        let latency = PERCENTILES.map(|(_, part)| percentile(&latencies, part) as f64 / 1e6);
        let (cost, rate) = (used / delivered, delivered / took.as_secs_f64());
        LoadResult { cost, latency, rate, faults }
    }
}

/// Measures CPU time, throughput and latency at a publishing rate.
pub fn measure(
    setup: &Setup,
    table: &mut BenchTable,
    name: &str,
    subscribers: usize,
    per_second: f64,
    size: usize,
) {
    let runs = setup.results(|server| {
        let mut clients = server.subscribers();
        clients.connect(subscribers);
        if !server.is_own {
            clients.read_for(SETTLING);
        }
        RateLoad { per_second, size, seconds: 4.0 }.run(server, &mut clients)
    });
    let medians = |figure: &dyn Fn(&LoadResult) -> f64| -> Vec<f64> {
        runs.iter().map(|runs| median_of(runs, figure)).collect()
    };
    let of_raw = |values: &[f64]| Target::TimesAtMost { factor: FACTOR, base: values[0], of: RAW };
    let cost = medians(&|run| run.cost);
    // The CPU time of another server is not known without the ids of its processes.
    let is_known = setup.other.as_ref().is_none_or(|site| !site.pids.is_empty());
    let target = if is_known { of_raw(&cost) } else { Target::None };
    table.line(&format!("{name}: CPU per delivered event"), "us", &cost, target);
    table.line("  delivered events", "/s", &medians(&|run| run.rate), Target::None);
    for (at, (part, _)) in PERCENTILES.into_iter().enumerate() {
        let latency = medians(&|run| run.latency[at]);
        let target = if part == "p99" { of_raw(&latency) } else { Target::None };
        table.line(&format!("  {name}: latency {part}"), "ms", &latency, target);
    }
    let faults = runs.iter().flatten().map(|run| run.faults).fold(Faults::default(), Faults::and);
    let Faults { missing, duplicates, disordered } = faults;
    for (fault, count) in
        [("missing", missing), ("doubled", duplicates), ("out of order", disordered)]
    {
        if count > 0 {
            let name = format!("  {name}: events {fault}");
            table.own(&name, "", count as f64, Target::AtMost(0.0));
        }
    }
}

/// Compares subscribers whose events may wait for others with those who get each event at once.
pub fn gathered(setup: &Setup, table: &mut BenchTable) {
    const SUBSCRIBERS: usize = 1000;
    let load = RateLoad { per_second: 1000.0, size: 100, seconds: 4.0 };
    let paths = [EVENTS.to_owned(), format!("{EVENTS}&max_delay=20")];
    let mut runs = [const { Vec::new() }; 2];
    for _ in 0..RUNS {
        for (path, runs) in paths.iter().zip(&mut runs) {
            let server = setup.waterclock(&[]);
            let mut clients = server.subscribers_to(path);
            clients.connect(SUBSCRIBERS);
            let result = load.run(&server, &mut clients);
            runs.push((result, clients.chunks() / load.per_second / load.seconds));
        }
    }
    let medians = |figure: &dyn Fn(&(LoadResult, f64)) -> f64| {
        runs.each_ref().map(|runs| median_of(runs, figure))
    };
    let [base, value] = medians(&|(run, _)| run.cost);
    let name = "1,000 subscribers, 1,000 events/s, max_delay=20: CPU";
    let of = "that without";
    table.own(name, "us", value, Target::TimesAtMost { factor: GATHERED, base, of });
    let mut line = |name: &str, unit: &str, [base, value]: [f64; 2]| {
        table.own(name, unit, value, Target::Compared { base, of });
    };
    line("  delivered events", "/s", medians(&|(run, _)| run.rate));
    line("  writes per event", "", medians(&|(_, writes)| *writes));
    for (at, (part, _)) in PERCENTILES.into_iter().enumerate() {
        line(&format!("  latency {part}"), "ms", medians(&|(run, _)| run.latency[at]));
    }
}

/// Compares HTTP/2, with many subscribers on a connection, with HTTP/1.1, with one on each.
pub fn http2(setup: &Setup, table: &mut BenchTable) {
    let versions = [HttpVersion::Http1, HttpVersion::Http2 { streams: MAX_STREAMS }];
    let (mut runs, mut memory) = ([const { Vec::new() }; 2], [const { Vec::new() }; 2]);
    for _ in 0..RUNS {
        for (at, version) in versions.into_iter().enumerate() {
            let connected = || {
                let server = setup.waterclock(&[]);
                let mut clients = server.subscribers_over(version);
                clients.connect(1000);
                (server, clients)
            };
            let (server, mut clients) = connected();
            let before = server.memory();
            clients.connect(4000);
            memory[at].push((server.memory() - before) / 4000.0);
            drop((clients, server));
            let (server, mut clients) = connected();
            let load = RateLoad { per_second: 100.0, size: 100, seconds: 3.0 };
            runs[at].push(load.run(&server, &mut clients));
        }
    }
    let mut line = |name: &str, unit: &str, [base, value]: [f64; 2]| {
        table.own(name, unit, value, Target::Compared { base, of: "HTTP/1.1" });
    };
    let medians =
        |figure: &dyn Fn(&LoadResult) -> f64| runs.each_ref().map(|runs| median_of(runs, figure));
    let name = "HTTP/2, 10 connections of 100, 100 events/s: CPU";
    line(name, "us", medians(&|run| run.cost));
    for (at, (part, _)) in PERCENTILES.into_iter().enumerate() {
        line(&format!("  latency {part}"), "ms", medians(&|run| run.latency[at]));
    }
    let memory = memory.each_ref().map(|runs| median_of(runs, |kilobytes| *kilobytes));
    line("  memory per idle subscriber (PSS), 100 a connection", "kB", memory);
}
