//! What is measured.

use std::{
    fs::File,
    io::{Read as _, Seek as _, Write as _},
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use crate::{
    load::{Publisher, Subscribers, Version, data},
    process::{Kind, Process},
};

/// How often each is measured; the table has the medians.
const RUNS: usize = 3;
const EVENTS: &str = "/events?topic=t";

/// Measures all cases whose name begins so.
pub fn all(waterclock: &str, only: &str) {
    println!("server on one core, load on another; medians of {RUNS} runs\n");
    println!("{:<58} {:>11} {:>11} {:>11}   target", "", "raw loop", "axum", "waterclock");
    for case in CASES.iter().filter(|case| case.name.starts_with(only)) {
        (case.measure)(&Bench { waterclock: waterclock.to_owned(), name: case.name });
    }
}

struct Case {
    name: &'static str,
    measure: fn(&Bench),
}

const CASES: [Case; 10] = [
    Case { name: "5,000 subscribers, 10 events/s", measure: |b| b.rate(5000, 10.0, 100, 1.3) },
    Case { name: "1,000 subscribers, 100 events/s", measure: |b| b.rate(1000, 100.0, 100, 1.3) },
    Case {
        name: "1,000 subscribers, 10 events/s of 8 KiB",
        measure: |b| b.rate(1000, 10.0, 8192, 1.5),
    },
    Case { name: "HTTP/2", measure: Bench::http2 },
    Case { name: "memory", measure: Bench::memory },
    Case { name: "stalled readers", measure: Bench::stalled },
    Case { name: "burst", measure: Bench::burst },
    Case { name: "durable publishes", measure: Bench::publishes },
    Case { name: "replay", measure: Bench::replay },
    Case { name: "reconnect", measure: Bench::reconnect },
];

struct Bench {
    waterclock: String,
    name: &'static str,
}

/// What a run at a rate has shown.
#[derive(Clone)]
struct Run {
    /// Microseconds of the server's processor time for each event delivered.
    cost: f64,
    /// Milliseconds: half, 99% and 99.9% of the events arrive within.
    latency: [f64; 3],
    /// Delivered a second.
    rate: f64,
}

impl Bench {
    fn start(&self, kind: Kind) -> Process {
        Process::start(kind, &self.waterclock)
    }

    /// The median of some runs of each kind, one kind after the other.
    fn medians<const N: usize>(kinds: [Kind; N], measure: impl Fn(Kind) -> f64) -> [f64; N] {
        let mut found = [const { Vec::new() }; N];
        for _ in 0..RUNS {
            for (kind, found) in kinds.iter().zip(&mut found) {
                found.push(measure(*kind));
            }
        }
        found.map(median)
    }

    fn medians_of<const N: usize>(runs: &[Vec<Run>; N], what: &dyn Fn(&Run) -> f64) -> [f64; N] {
        runs.each_ref().map(|runs| median(runs.iter().map(what).collect()))
    }

    /// What delivering costs at that rate.
    fn rate(&self, subscribers: usize, per_second: f64, size: usize, target: f64) {
        let kinds = [Kind::Raw, Kind::Rival, Kind::Waterclock];
        let mut runs = [const { Vec::new() }; 3];
        for _ in 0..RUNS {
            for (kind, runs) in kinds.iter().zip(&mut runs) {
                let server = self.start(*kind);
                let version = Version::Http1;
                runs.push(run(&server, version, subscribers, per_second, size, 5.0));
            }
        }
        let of = |what: &dyn Fn(&Run) -> f64| Self::medians_of(&runs, what);
        let cost = of(&|run| run.cost);
        self.ratios("server's CPU per event delivered", "us", cost, Some(target));
        Self::line("  delivered", "/s", of(&|run| run.rate), "");
        for (name, at) in [("p50", 0), ("p99", 1), ("p99.9", 2)] {
            Self::line(&format!("  latency {name}"), "ms", of(&|run| run.latency[at]), "");
        }
    }

    /// What HTTP/2 costs where 100 subscribers share a connection, beside HTTP/1.1 where each has its own.
    fn http2(&self) {
        let versions = [Version::Http1, Version::Http2];
        let (mut runs, mut memory) = ([const { Vec::new() }; 2], [const { Vec::new() }; 2]);
        for _ in 0..RUNS {
            for (at, version) in versions.into_iter().enumerate() {
                runs[at].push(run(&self.start(Kind::Waterclock), version, 1000, 100.0, 100, 5.0));
                memory[at].push(self.idle(Kind::Waterclock, version));
            }
        }
        let line = |what: &str, unit: &str, [http1, http2]: [f64; 2]| {
            println!(
                "{what:<58} {:>11} {:>11} {:>11}   over HTTP/1.1: {}, so {:.2} times that",
                "",
                "",
                figure(http2, unit),
                figure(http1, unit),
                http2 / http1
            );
        };
        let of = |what: &dyn Fn(&Run) -> f64| Self::medians_of(&runs, what);
        let name = "HTTP/2, 10 connections of 100 subscribers, 100 events/s";
        line(&format!("{name}: server's CPU per event delivered"), "us", of(&|run| run.cost));
        line("  delivered", "/s", of(&|run| run.rate));
        for (name, at) in [("p50", 0), ("p99", 1), ("p99.9", 2)] {
            line(&format!("  latency {name}"), "ms", of(&|run| run.latency[at]));
        }
        line("  PSS per idle subscriber", "kB", memory.map(median));
    }

    /// What a subscriber takes that has nothing to do.
    fn memory(&self) {
        let kinds = [Kind::Raw, Kind::Rival, Kind::Waterclock];
        let memory = Self::medians(kinds, |kind| self.idle(kind, Version::Http1));
        Self::line("PSS per idle subscriber", "kB", memory, "at most 10 kB");
    }

    /// How much memory a server takes for each subscriber that has nothing to do, in kB.
    fn idle(&self, kind: Kind, version: Version) -> f64 {
        let subscribers = 5000;
        let server = self.start(kind);
        let mut clients = Subscribers::new(server.address, version, EVENTS);
        // What is there anyway, once it has been used.
        clients.connect(100);
        let before = server.memory();
        clients.connect(subscribers);
        (server.memory() - before) / subscribers as f64
    }

    /// Whether those that do not read hold up those that do.
    fn stalled(&self) {
        let [alone, beside] = [0, 50].map(|stalled| {
            let latencies = (0..RUNS).map(|_| {
                let server = self.start(Kind::Waterclock);
                let idle: Vec<_> = (0..stalled)
                    .map(|_| {
                        let mut stream = TcpStream::connect(server.address).unwrap();
                        let request = format!("GET {EVENTS} HTTP/1.1\r\nHost: localhost\r\n\r\n");
                        stream.write_all(request.as_bytes()).unwrap();
                        stream
                    })
                    .collect();
                let before = server.memory();
                let run = run(&server, Version::Http1, 200, 50.0, 8192, 20.0);
                drop(idle);
                (run.latency[1], server.memory() - before)
            });
            latencies.collect::<Vec<_>>()
        });
        let p99 = |runs: &[(f64, f64)]| median(runs.iter().map(|run| run.0).collect());
        let grown = |runs: &[(f64, f64)]| median(runs.iter().map(|run| run.1).collect());
        let (without, with) = (p99(&alone), p99(&beside));
        println!(
            "{:<58} {:>11} {:>11} {:>8.2} ms   at most 1.5 times {without:.2} ms, which it is \
             without: {:.2}",
            "200 readers, 50 stalled, 50 events/s of 8 KiB: p99",
            "",
            "",
            with,
            with / without
        );
        println!(
            "{:<58} {:>11} {:>11} {:>8.0} kB   without: {:.0} kB",
            "  memory grown in 20 s",
            "",
            "",
            grown(&beside),
            grown(&alone)
        );
    }

    /// In how many pieces 100 events arrive that were published at once.
    fn burst(&self) {
        let [chunks] = Self::medians([Kind::Waterclock], |kind| {
            let server = self.start(kind);
            let mut clients = Subscribers::new(server.address, Version::Http1, EVENTS);
            clients.connect(1000);
            clients.forget();
            let lines: Vec<_> = (0..100).map(|number| data(number, 100)).collect();
            Publisher::new(server.address).publish("?split=lines", &lines.join("\n"));
            clients.until_events(100);
            assert_eq!(clients.missing_and_doubled(100), (0, 0));
            clients.chunks()
        });
        println!(
            "{:<58} {:>11} {:>11} {chunks:>11.2}   at most 2",
            "burst of 100 events to 1,000: writes a subscriber", "", ""
        );
    }

    /// How many publishes are made durable, beside writing as many bytes and waiting for the disk.
    fn publishes(&self) {
        const FOR: Duration = Duration::from_secs(3);
        let [bare, waterclock] = Self::medians([Kind::Raw, Kind::Waterclock], |kind| {
            let server = self.start(kind);
            if kind == Kind::Raw {
                let mut file = File::create(server.data.path().join("bare")).unwrap();
                let events = data(0, 200).repeat(64);
                let (begun, mut written) = (Instant::now(), 0);
                while begun.elapsed() < FOR {
                    // Over the same place again, as a journal is written.
                    if written % 640_000 == 0 {
                        file.rewind().unwrap();
                    }
                    file.write_all(events.as_bytes()).unwrap();
                    file.sync_data().unwrap();
                    written += 64;
                }
                return f64::from(written) / begun.elapsed().as_secs_f64();
            }
            let (is_over, published) = (AtomicBool::new(false), AtomicUsize::new(0));
            let begun = Instant::now();
            std::thread::scope(|scope| {
                for _ in 0..64 {
                    scope.spawn(|| {
                        let mut one = Publisher::new(server.address);
                        while !is_over.load(Ordering::Relaxed) {
                            one.publish("", &data(0, 100));
                            published.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
                std::thread::sleep(FOR);
                is_over.store(true, Ordering::Relaxed);
            });
            published.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64()
        });
        println!(
            "{:<58} {bare:>9.0}/s {:>11} {waterclock:>9.0}/s   at least 0.5 times: {:.2}",
            "durable publishes of 64 connections",
            "",
            waterclock / bare
        );
    }

    /// How fast one that is far behind catches up.
    fn replay(&self) {
        const MANY: usize = 100_000;
        let server = self.start(Kind::Waterclock);
        let lines: Vec<_> = (0..MANY).map(|number| data(number, 50)).collect();
        Publisher::new(server.address).publish("?split=lines", &lines.join("\n"));
        let [rate] = Self::medians([Kind::Waterclock], |_| {
            let path = format!("{EVENTS}&last_event_id=earliest");
            let mut client = Subscribers::new(server.address, Version::Http1, &path);
            let begun = Instant::now();
            client.connect(1);
            client.until_events(MANY);
            assert_eq!(client.missing_and_doubled(MANY), (0, 0));
            MANY as f64 / begun.elapsed().as_secs_f64()
        });
        println!(
            "{:<58} {:>11} {:>11} {rate:>9.0}/s   at least 500,000/s",
            "replay of 100,000 events to one", "", ""
        );
    }

    /// How long it takes until all have what they lack who come back at once.
    fn reconnect(&self) {
        let subscribers = 5000;
        let kinds = [Kind::Raw, Kind::Waterclock];
        let [raw, waterclock] = Self::medians(kinds, |kind| {
            let server = self.start(kind);
            let mut publisher = Publisher::new(server.address);
            for number in 0..200 {
                publisher.publish("", &data(number, 100));
            }
            let path = match kind {
                Kind::Raw => "/events?behind=100".to_owned(),
                _ => format!("{EVENTS}&last_event_id={}", id(&server, 100)),
            };
            let mut clients = Subscribers::new(server.address, Version::Http1, &path);
            let begun = Instant::now();
            clients.connect_at_once(subscribers);
            clients.until_events(100);
            let took = begun.elapsed().as_secs_f64();
            assert_eq!(clients.missing_and_doubled(100), (0, 0));
            took
        });
        println!(
            "{:<58} {raw:>9.2} s {:>11} {waterclock:>9.2} s   at most 3 times: {:.2}",
            "5,000 reconnect, each 100 events behind: all caught up",
            "",
            waterclock / raw
        );
    }

    fn ratios(&self, what: &str, unit: &str, [raw, rival, own]: [f64; 3], target: Option<f64>) {
        let times = |value: f64| format!("{value:.1} {unit}");
        let target = target.map_or(String::new(), |target| {
            format!(
                "at most {target} times the raw loop: {:.2} (axum: {:.2})",
                own / raw,
                rival / raw
            )
        });
        println!(
            "{:<58} {:>11} {:>11} {:>11}   {target}",
            format!("{}: {what}", self.name),
            times(raw),
            times(rival),
            times(own)
        );
    }

    fn line(what: &str, unit: &str, values: [f64; 3], target: &str) {
        let [raw, rival, own] = values.map(|value| figure(value, unit));
        println!("{what:<58} {raw:>11} {rival:>11} {own:>11}   {target}");
    }
}

/// Has that many subscribers read for that long.
fn run(
    server: &Process,
    version: Version,
    subscribers: usize,
    per_second: f64,
    size: usize,
    seconds: f64,
) -> Run {
    let mut clients = Subscribers::new(server.address, version, EVENTS);
    clients.connect(subscribers);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number")]
    let count = (per_second * seconds) as usize;
    let (begun, before) = (Instant::now(), server.processor_time());
    let publisher = Publisher::new(server.address).run(count, per_second, size);
    clients.until_events(count);
    publisher.join().unwrap();
    let (took, cost) = (begun.elapsed(), server.processor_time().saturating_sub(before));
    let (missing, doubled) = clients.missing_and_doubled(count);
    assert_eq!((missing, doubled), (0, 0), "missing and doubled");
    let delivered = clients.delivered() as f64;
    let mut latencies = std::mem::take(&mut clients.latencies);
    latencies.sort_unstable();
    let latency = [0.5, 0.99, 0.999].map(|part| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
        let at = (latencies.len() as f64 * part) as usize;
        latencies[at] as f64 / 1e6
    });
    let cost = cost.as_secs_f64() * 1e6 / delivered;
    Run { cost, latency, rate: delivered / took.as_secs_f64() }
}

/// The id of the event of that sequence number.
fn id(server: &Process, sequence: usize) -> String {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(b"GET /poll HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let cursor = answer.split_once("\"cursor\":\"").unwrap().1;
    format!("{}-{sequence}", cursor.split_once('-').unwrap().0)
}

fn figure(value: f64, unit: &str) -> String {
    if value < 100.0 { format!("{value:.2} {unit}") } else { format!("{value:.0} {unit}") }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
