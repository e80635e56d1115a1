//! A cluster next to a single process: publishes, delivery, idling, and the way from a publish on
//! one node to a reader of another.

use std::{slice::from_ref, thread::sleep, time::Duration};

use super::{
    delivery::{LoadResult, PERCENTILES, RateLoad},
    setup::{Setup, Subject, median_of},
};
use crate::{
    bare,
    cluster::{BenchCluster, COUNT, NatsProcess},
    load::{Endpoint, PublishRun, publish_at_once},
    process::{self, ServerProcess},
    table::{BenchTable, Target, percentile, separated},
};

/// The option for logs that drop nothing in any case: a full log has more work.
const ROOM: &str = "--retain-count=10000000";
/// The name of the single process in comparisons.
const SINGLE: &str = "a single process";
/// The bound for CPU time on a node, compared with a single process.
const FACTOR: f64 = 1.15;

/// The servers of the cases, and the extent of the measurements.
pub struct ClusterSetup {
    pub setup: Setup,
    pub extent: Extent,
}

/// The number and length of the measurements. Lengths are in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Extent {
    pub runs: usize,
    pub subscribers: usize,
    pub publishing: f64,
    pub delivery: f64,
    pub idling: f64,
    pub arrivals: f64,
    /// Failures of each kind.
    pub failures: usize,
}

impl Extent {
    pub const FULL: Self = Self {
        runs: 3,
        subscribers: 1000,
        publishing: 2.0,
        delivery: 4.0,
        idling: 10.0,
        arrivals: 7.0,
        failures: 5,
    };
    /// The smallest one that runs all parts of a case. Its figures mean nothing.
    pub const SHORT: Self = Self {
        runs: 1,
        subscribers: 100,
        publishing: 0.3,
        delivery: 0.5,
        idling: 1.0,
        arrivals: 1.0,
        failures: 1,
    };
}

impl ClusterSetup {
    /// Starts a cluster with empty logs.
    pub fn cluster(&self, options: &[&str]) -> BenchCluster {
        BenchCluster::start(&self.setup.program, options)
    }
}

/// The use of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct ProcessUse {
    /// CPU time in microseconds.
    cpu: f64,
    /// Bytes that it has made the system write to disks.
    written: f64,
}

/// The use of all processes.
#[derive(Clone, Debug, PartialEq)]
struct UseByRole {
    /// The process or node that the measurement is about.
    node: ProcessUse,
    /// The mean of the other nodes.
    other_node: ProcessUse,
    /// The mean of the servers of NATS.
    nats: ProcessUse,
}

impl ProcessUse {
    fn so_far(pid: u32) -> Self {
        Self { cpu: process::cpu_time(pid).as_secs_f64() * 1e6, written: process::written(pid) }
    }

    /// Returns the mean use for each of `count` things since an earlier time.
    fn since(now: &[Self], before: &[Self], count: f64) -> Self {
        let parts = now.len() as f64 * count;
        let mean = |figure: fn(&Self) -> f64| {
            let sum = |all: &[Self]| all.iter().map(figure).sum::<f64>();
            (sum(now) - sum(before)) / parts
        };
        Self { cpu: mean(|each| each.cpu), written: mean(|each| each.written) }
    }
}

/// Runs a step in a cluster. Returns its result, and the use by role for each of the things that
/// `count` returns for the result. The first node is the one that the measurement is about.
fn used<T>(
    cluster: &BenchCluster,
    step: impl FnOnce() -> T,
    count: impl Fn(&T) -> f64,
) -> (T, UseByRole) {
    let look = || {
        let nodes = cluster.nodes.iter().map(|node| ProcessUse::so_far(node.id()));
        let nats = cluster.nats.iter().map(|server| ProcessUse::so_far(server.id()));
        nodes.chain(nats).collect::<Vec<_>>()
    };
    let before = look();
    let result = step();
    let now = look();
    let count = count(&result);
    let role = |from, to| ProcessUse::since(&now[from..to], &before[from..to], count);
    let (node, other_node, nats) = (role(0, 1), role(1, COUNT), role(COUNT, 2 * COUNT));
    (result, UseByRole { node, other_node, nats })
}

/// The name and unit of a figure of some result, and the figure.
type Figure<'a, T> = (&'a str, &'a str, &'a dyn Fn(&T) -> f64);

/// Prints lines that compare the medians of a cluster with those of a single process.
fn compare<T>(table: &mut BenchTable, single: &[T], cluster: &[T], figures: &[Figure<'_, T>]) {
    for (name, unit, figure) in figures {
        let [base, value] = [single, cluster].map(|runs| median_of(runs, figure));
        table.line(name, unit, &[base, value], Target::Compared { base, of: SINGLE });
    }
}

/// Publishes that were measured together with the use of the processes.
struct MeteredPublishes {
    run: PublishRun,
    usage: UseByRole,
    /// The bytes by which the stream of NATS has grown for each event.
    stored: f64,
}

impl MeteredPublishes {
    /// Returns a percentile of the time until the response, in milliseconds.
    fn latency(&self, part: f64) -> f64 {
        percentile(&self.run.times, part) as f64 / 1e6
    }
}

/// Measures durable publishes, over one connection and over several at once.
pub fn publishing(bench: &ClusterSetup, table: &mut BenchTable) {
    let ClusterSetup { setup, extent } = bench;
    let time = Duration::from_secs_f64(extent.publishing);
    let writes = bare::measure(0.0, 200, extent.publishing).latency;
    let cluster = bench.cluster(&[ROOM]);
    let endpoints: Vec<_> = cluster.nodes.iter().map(|node| node.endpoint.clone()).collect();
    let publish = |servers: &[Endpoint], connections: usize| {
        let before = cluster.stored();
        let step = || publish_at_once(servers, connections, time);
        let (run, usage) = used(&cluster, step, |run| run.times.len() as f64);
        let stored = (cluster.stored() - before) / run.times.len() as f64;
        MeteredPublishes { run, usage, stored }
    };
    let name = "a bare write with fdatasync: p50";
    table.line(name, "ms", &[writes, f64::NAN], Target::None);
    for connections in [1, 16, 64] {
        let places = if connections == 1 { 1 } else { 2 };
        let mut runs = [const { Vec::new() }; 3];
        for _ in 0..extent.runs {
            let server = setup.waterclock(&[ROOM]);
            let before = ProcessUse::so_far(server.site.pids[0]);
            let mut single = publish(from_ref(&server.site.publish), connections);
            let now = ProcessUse::so_far(server.site.pids[0]);
            let count = single.run.times.len() as f64;
            single.usage.node = ProcessUse::since(&[now], &[before], count);
            runs[0].push(single);
            for (place, runs) in runs[1..].iter_mut().enumerate().take(places) {
                let servers = if place == 0 { &endpoints[..1] } else { &endpoints };
                runs.push(publish(servers, connections));
            }
        }
        let [single, one, all] = runs;
        let publishers = match connections {
            1 => "1 publisher".to_owned(),
            _ => format!("{connections} publishers"),
        };
        for (place, runs) in [("one node", &one), ("three nodes", &all)].into_iter().take(places) {
            let name = |figure: &str| format!("{publishers}, {place}: {figure}");
            compare(
                table,
                &single,
                runs,
                &[
                    (&name("durable publishes"), "/s", &|run| run.run.rate),
                    (&format!("  {}", name("p50")), "ms", &|run| run.latency(0.5)),
                    (&format!("  {}", name("p99")), "ms", &|run| run.latency(0.99)),
                ],
            );
        }
        let name = |figure: &str| format!("  {publishers}, one node: {figure}");
        compare(
            table,
            &single,
            &one,
            &[
                (&name("CPU per event, of that node"), "us", &|run| run.usage.node.cpu),
                (&name("written per event, by that node"), "kB", &|run| {
                    run.usage.node.written / 1e3
                }),
            ],
        );
        let mut own = |figure_name: &str, unit: &str, figure: fn(&MeteredPublishes) -> f64| {
            table.own(&name(figure_name), unit, median_of(&one, figure), Target::None);
        };
        own("CPU per event, of each other node", "us", |run| run.usage.other_node.cpu);
        own("CPU per event, of each server of NATS", "us", |run| run.usage.nats.cpu);
        let written = "written per event, by each server of NATS";
        own(written, "kB", |run| run.usage.nats.written / 1e3);
        own("kept per event, by each server of NATS", "kB", |run| run.stored / 1e3);
    }
}

/// Measures the CPU time and latency of events for many subscribers of one node.
pub fn delivery(bench: &ClusterSetup, table: &mut BenchTable) {
    let ClusterSetup { setup, extent } = bench;
    for per_second in [10.0, 100.0] {
        let cluster = bench.cluster(&[ROOM]);
        let load = RateLoad { per_second, size: 100, seconds: extent.delivery };
        let deliver = |server: &Subject| {
            let mut clients = server.subscribers();
            clients.connect(extent.subscribers);
            used(&cluster, || load.run(server, &mut clients), |_| per_second * extent.delivery)
        };
        let (mut single, mut node) = (Vec::new(), Vec::new());
        for _ in 0..extent.runs {
            single.push(deliver(&setup.waterclock(&[ROOM])));
            node.push(deliver(&Subject::running(&cluster.nodes[0])));
        }
        let subscribers = separated(extent.subscribers);
        let name = format!("{subscribers} subscribers, {per_second} events/s");
        let medians = |figure: &dyn Fn(&LoadResult) -> f64| {
            [&single, &node].map(|runs| median_of(runs, |(load, _)| figure(load)))
        };
        let values = medians(&|load| load.cost);
        let target = Target::TimesAtMost { factor: FACTOR, base: values[0], of: SINGLE };
        table.line(&format!("{name}: CPU per delivered event"), "us", &values, target);
        for (at, (part, _)) in PERCENTILES.into_iter().enumerate().take(2) {
            let values = medians(&|load| load.latency[at]);
            let target = Target::Compared { base: values[0], of: SINGLE };
            table.line(&format!("  {name}: latency {part}"), "ms", &values, target);
        }
        let mut own = |role: &str, figure: fn(&UseByRole) -> f64| {
            let name = format!("  {name}: CPU per event, of each {role}");
            table.own(&name, "us", median_of(&node, |(_, usage)| figure(usage)), Target::None);
        };
        own("other node", |usage| usage.other_node.cpu);
        own("server of NATS", |usage| usage.nats.cpu);
    }
}

/// Measures nodes and servers that have nothing to do but the clock.
pub fn idling(bench: &ClusterSetup, table: &mut BenchTable) {
    let ClusterSetup { setup, extent } = bench;
    let options = ["--interval=1s"];
    let (cluster, single) = (bench.cluster(&options), setup.waterclock(&options));
    let before = ProcessUse::so_far(single.site.pids[0]);
    let idle = || sleep(Duration::from_secs_f64(extent.idling));
    let ((), usage) = used(&cluster, idle, |()| extent.idling);
    let now = ProcessUse::so_far(single.site.pids[0]);
    let base = ProcessUse::since(&[now], &[before], extent.idling);
    // The first node is an ordinary one here.
    let other_nodes = COUNT as f64 - 1.0;
    let node = |figure: fn(&ProcessUse) -> f64| {
        (figure(&usage.node) + other_nodes * figure(&usage.other_node)) / COUNT as f64
    };
    // The figures are a thousandth of the unit: microseconds, bytes and kB.
    let mut line = |name: &str, unit: &str, figures: [f64; 3]| {
        let [base, node, nats] = figures.map(|figure| figure / 1e3);
        let target = Target::Compared { base, of: SINGLE };
        table.line(&format!("only the clock: {name}"), unit, &[base, node], target);
        table.own(&format!("  of a server of NATS: {name}"), unit, nats, Target::None);
    };
    let memory =
        |pids: Vec<u32>| pids.iter().map(|pid| process::memory(*pid)).sum::<f64>() / COUNT as f64;
    let nodes = memory(cluster.nodes.iter().map(ServerProcess::id).collect());
    let nats = memory(cluster.nats.iter().map(NatsProcess::id).collect());
    line("CPU per second", "ms", [base.cpu, node(|each| each.cpu), usage.nats.cpu]);
    line("written per second", "kB", [base.written, node(|each| each.written), usage.nats.written]);
    line("memory (PSS)", "MB", [single.memory(), nodes, nats]);
}

/// Measures the time from a publish on one node to the arrival at a reader of the same node and of
/// another one.
pub fn arrival(bench: &ClusterSetup, table: &mut BenchTable) {
    let ClusterSetup { setup, extent } = bench;
    let cluster = bench.cluster(&[ROOM]);
    let load = RateLoad { per_second: 20.0, size: 100, seconds: extent.arrivals };
    let arrive = |from: &Subject, to: &Subject| {
        let mut reader = to.subscribers();
        reader.connect(1);
        load.run(from, &mut reader)
    };
    let nodes: Vec<_> = cluster.nodes.iter().map(Subject::running).collect();
    let mut runs = [const { Vec::new() }; 3];
    for _ in 0..extent.runs {
        let single = setup.waterclock(&[ROOM]);
        runs[0].push(arrive(&single, &single));
        runs[1].push(arrive(&nodes[0], &nodes[0]));
        runs[2].push(arrive(&nodes[0], &nodes[1]));
    }
    let name = "20 events/s, from a publish to a reader";
    for (at, (part, _)) in PERCENTILES.into_iter().enumerate().take(2) {
        let [single, same, other] =
            runs.each_ref().map(|runs| median_of(runs, |run| run.latency[at]));
        let target = Target::Compared { base: single, of: SINGLE };
        table.line(&format!("{name} of the same node: {part}"), "ms", &[single, same], target);
        let target = Target::Compared { base: same, of: "the same node" };
        table.line(&format!("{name} of another node: {part}"), "ms", &[single, other], target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_use_since_a_time_is_the_mean_of_the_processes_for_each_thing() {
        let of = |cpu, written| ProcessUse { cpu, written };
        let (before, now) = ([of(1.0, 0.0), of(2.0, 10.0)], [of(21.0, 40.0), of(22.0, 50.0)]);
        assert_eq!(ProcessUse::since(&now, &before, 10.0), of(2.0, 4.0));
    }
}
