//! The benchmarks, and the table that they print.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use crate::{
    load::{HttpVersion, LoadPublisher, SubscriberPool, data},
    process::{ServerKind, ServerProcess},
};

/// Runs of each benchmark. The table has their medians.
const RUNS: usize = 3;
/// The path that subscribers read.
const EVENTS: &str = "/events?topic=t";

/// Runs all benchmarks whose name begins with `prefix`, and prints the table. `waterclock` is the
/// path of the program.
pub fn run(waterclock: &str, prefix: &str) {
    println!("The server has one core, the load generator another. Medians of {RUNS} runs.\n");
    println!("{:<58} {:>11} {:>11} {:>11}   target", "", "raw loop", "axum", "waterclock");
    for case in CASES.iter().filter(|case| case.name.starts_with(prefix)) {
        (case.measure)(&Benchmark { waterclock: waterclock.to_owned(), name: case.name });
    }
}

/// A benchmark by name.
struct Case {
    name: &'static str,
    measure: fn(&Benchmark),
}

const CASES: [Case; 13] = [
    Case { name: "5,000 subscribers, 10 events/s", measure: |b| b.rate(5000, 10.0, 100, 1.3) },
    Case { name: "1,000 subscribers, 100 events/s", measure: |b| b.rate(1000, 100.0, 100, 1.3) },
    Case {
        name: "1,000 subscribers, 10 events/s of 8 KiB",
        measure: |b| b.rate(1000, 10.0, 8192, 1.5),
    },
    Case { name: "HTTP/2", measure: Benchmark::http2 },
    Case { name: "memory", measure: Benchmark::memory },
    Case { name: "stalled readers", measure: Benchmark::stalled },
    Case { name: "burst", measure: Benchmark::burst },
    Case { name: "durable publishes", measure: Benchmark::publishes },
    Case { name: "replay", measure: Benchmark::replay },
    Case { name: "reconnect", measure: Benchmark::reconnect },
    Case { name: "replays of others", measure: Benchmark::replays_of_others },
    Case { name: "patterns of others", measure: Benchmark::patterns_of_others },
    Case { name: "many topics", measure: Benchmark::many_topics },
];

/// A benchmark while it runs.
struct Benchmark {
    /// The path of the program.
    waterclock: String,
    name: &'static str,
}

/// The results of one run at a fixed publishing rate.
#[derive(Clone)]
struct RunResult {
    /// CPU time of the server per delivered event, in microseconds.
    cost: f64,
    /// p50, p99 and p99.9 of the latency, in milliseconds.
    latency: [f64; 3],
    /// Delivered events per second.
    rate: f64,
}

impl Benchmark {
    fn start(&self, kind: ServerKind) -> ServerProcess {
        ServerProcess::start(kind, &self.waterclock)
    }

    /// Measures each kind of server [`RUNS`] times, in turn, and returns the medians.
    fn medians<const N: usize>(
        kinds: [ServerKind; N],
        measure: impl Fn(ServerKind) -> f64,
    ) -> [f64; N] {
        let mut values = [const { Vec::new() }; N];
        for _ in 0..RUNS {
            for (kind, values) in kinds.iter().zip(&mut values) {
                values.push(measure(*kind));
            }
        }
        values.map(median)
    }

    fn medians_of<const N: usize>(
        runs: &[Vec<RunResult>; N],
        figure: &dyn Fn(&RunResult) -> f64,
    ) -> [f64; N] {
        runs.each_ref().map(|runs| median(runs.iter().map(figure).collect()))
    }

    /// Measures CPU time, throughput and latency at a publishing rate.
    fn rate(&self, subscribers: usize, per_second: f64, size: usize, target: f64) {
        let kinds = [ServerKind::Raw, ServerKind::Rival, ServerKind::Waterclock];
        let mut runs = [const { Vec::new() }; 3];
        for _ in 0..RUNS {
            for (kind, runs) in kinds.iter().zip(&mut runs) {
                let server = self.start(*kind);
                let load = Load { subscribers, per_second, size, seconds: 5.0 };
                runs.push(load.run(&server, HttpVersion::Http1));
            }
        }
        let medians = |figure: &dyn Fn(&RunResult) -> f64| Self::medians_of(&runs, figure);
        let cost = medians(&|run| run.cost);
        self.ratios("CPU per delivered event", "us", cost, target);
        Self::line("  delivered events", "/s", medians(&|run| run.rate), "");
        for (name, at) in [("p50", 0), ("p99", 1), ("p99.9", 2)] {
            Self::line(&format!("  latency {name}"), "ms", medians(&|run| run.latency[at]), "");
        }
    }

    /// Compares HTTP/2, with 100 subscribers on a connection, with HTTP/1.1, with one on each.
    fn http2(&self) {
        let versions = [HttpVersion::Http1, HttpVersion::Http2];
        let (mut runs, mut memory) = ([const { Vec::new() }; 2], [const { Vec::new() }; 2]);
        for _ in 0..RUNS {
            for (at, version) in versions.into_iter().enumerate() {
                let load = Load { subscribers: 1000, per_second: 100.0, size: 100, seconds: 5.0 };
                runs[at].push(load.run(&self.start(ServerKind::Waterclock), version));
                memory[at].push(self.idle(ServerKind::Waterclock, version));
            }
        }
        let line = |name: &str, unit: &str, [http1, http2]: [f64; 2]| {
            println!(
                "{name:<58} {:>11} {:>11} {:>11}   HTTP/1.1: {}; ratio {:.2}",
                "",
                "",
                figure(http2, unit),
                figure(http1, unit),
                http2 / http1
            );
        };
        let medians = |figure: &dyn Fn(&RunResult) -> f64| Self::medians_of(&runs, figure);
        let name = "HTTP/2, 10 connections of 100 subscribers, 100 events/s";
        println!("{name}");
        line("  CPU per delivered event", "us", medians(&|run| run.cost));
        line("  delivered events", "/s", medians(&|run| run.rate));
        for (name, at) in [("p50", 0), ("p99", 1), ("p99.9", 2)] {
            line(&format!("  latency {name}"), "ms", medians(&|run| run.latency[at]));
        }
        line("  memory per idle subscriber (PSS)", "kB", memory.map(median));
    }

    /// Measures the memory of a subscriber that receives nothing.
    fn memory(&self) {
        let kinds = [ServerKind::Raw, ServerKind::Rival, ServerKind::Waterclock];
        let memory = Self::medians(kinds, |kind| self.idle(kind, HttpVersion::Http1));
        Self::line("memory per idle subscriber (PSS)", "kB", memory, "at most 10 kB");
    }

    /// Returns the memory that a server uses for each idle subscriber, in kB.
    fn idle(&self, kind: ServerKind, version: HttpVersion) -> f64 {
        let subscribers = 5000;
        let server = self.start(kind);
        let mut clients = SubscriberPool::new(server.address, version, EVENTS);
        // The server allocates some of its memory only once it is in use.
        clients.connect(100);
        let before = server.memory();
        clients.connect(subscribers);
        (server.memory() - before) / subscribers as f64
    }

    /// Measures whether subscribers that do not read slow down those that do.
    fn stalled(&self) {
        let [without, with] = [0, 50].map(|stalled| {
            let runs = (0..RUNS).map(|_| {
                let server = self.start(ServerKind::Waterclock);
                let idle: Vec<_> = (0..stalled)
                    .map(|_| {
                        let mut stream = TcpStream::connect(server.address).unwrap();
                        let request = format!("GET {EVENTS} HTTP/1.1\r\nHost: localhost\r\n\r\n");
                        stream.write_all(request.as_bytes()).unwrap();
                        stream
                    })
                    .collect();
                let before = server.memory();
                let load = Load { subscribers: 200, per_second: 50.0, size: 8192, seconds: 20.0 };
                let run = load.run(&server, HttpVersion::Http1);
                drop(idle);
                (run.latency[1], server.memory() - before)
            });
            runs.collect::<Vec<_>>()
        });
        let p99 = |runs: &[(f64, f64)]| median(runs.iter().map(|run| run.0).collect());
        let growth = |runs: &[(f64, f64)]| median(runs.iter().map(|run| run.1).collect());
        println!(
            "{:<58} {:>11} {:>11} {:>8.2} ms   at most 1.5 times that without stalled readers, \
             {:.2} ms; ratio {:.2}",
            "200 readers, 50 stalled, 50 events/s of 8 KiB: p99",
            "",
            "",
            p99(&with),
            p99(&without),
            p99(&with) / p99(&without)
        );
        println!(
            "{:<58} {:>11} {:>11} {:>8.0} kB   without stalled readers: {:.0} kB",
            "  memory growth in 20 s",
            "",
            "",
            growth(&with),
            growth(&without)
        );
    }

    /// Counts the writes in which a subscriber receives 100 events that were published at once.
    fn burst(&self) {
        let [chunks] = Self::medians([ServerKind::Waterclock], |kind| {
            let server = self.start(kind);
            let mut clients = SubscriberPool::new(server.address, HttpVersion::Http1, EVENTS);
            clients.connect(1000);
            clients.reset();
            let lines: Vec<_> = (0..100).map(|number| data(number, 100)).collect();
            LoadPublisher::new(server.address).publish("?split=lines", &lines.join("\n"));
            clients.wait_for_events(100);
            assert_eq!(clients.missing_and_duplicates(100), (0, 0));
            clients.chunks()
        });
        println!(
            "{:<58} {:>11} {:>11} {chunks:>11.2}   at most 2",
            "burst of 100 events to 1,000 subscribers: writes for each", "", ""
        );
    }

    /// Measures durable publishes, next to writing the same bytes to a file and syncing it.
    fn publishes(&self) {
        const FOR: Duration = Duration::from_secs(3);
        let [bare, waterclock] = Self::medians([ServerKind::Raw, ServerKind::Waterclock], |kind| {
            let server = self.start(kind);
            if kind == ServerKind::Raw {
                let mut file = File::create(server.data.path().join("bare")).unwrap();
                let events = data(0, 200).repeat(64);
                let (start, mut written) = (Instant::now(), 0);
                while start.elapsed() < FOR {
                    // Overwrites the same part of the file again, like a journal.
                    if written % 640_000 == 0 {
                        file.rewind().unwrap();
                    }
                    file.write_all(events.as_bytes()).unwrap();
                    file.sync_data().unwrap();
                    written += 64;
                }
                return f64::from(written) / start.elapsed().as_secs_f64();
            }
            let (is_over, published) = (AtomicBool::new(false), AtomicUsize::new(0));
            let start = Instant::now();
            std::thread::scope(|scope| {
                for _ in 0..64 {
                    scope.spawn(|| {
                        let mut connection = LoadPublisher::new(server.address);
                        while !is_over.load(Ordering::Relaxed) {
                            connection.publish("", &data(0, 100));
                            published.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
                std::thread::sleep(FOR);
                is_over.store(true, Ordering::Relaxed);
            });
            published.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
        });
        println!(
            "{:<58} {bare:>9.0}/s {:>11} {waterclock:>9.0}/s   at least half of the raw loop; ratio {:.2}",
            "durable publishes over 64 connections",
            "",
            waterclock / bare
        );
    }

    /// Measures how fast a subscriber that is far behind catches up.
    fn replay(&self) {
        const COUNT: usize = 100_000;
        let server = self.start(ServerKind::Waterclock);
        let lines: Vec<_> = (0..COUNT).map(|number| data(number, 50)).collect();
        LoadPublisher::new(server.address).publish("?split=lines", &lines.join("\n"));
        let [rate] = Self::medians([ServerKind::Waterclock], |_| {
            let path = format!("{EVENTS}&last_event_id=earliest");
            let mut client = SubscriberPool::new(server.address, HttpVersion::Http1, &path);
            let start = Instant::now();
            client.connect(1);
            client.wait_for_events(COUNT);
            assert_eq!(client.missing_and_duplicates(COUNT), (0, 0));
            COUNT as f64 / start.elapsed().as_secs_f64()
        });
        println!(
            "{:<58} {:>11} {:>11} {rate:>9.0}/s   at least 500,000/s",
            "replay of 100,000 events to one subscriber", "", ""
        );
    }

    /// Measures the time until all subscribers that reconnect at once have caught up.
    fn reconnect(&self) {
        let subscribers = 5000;
        let kinds = [ServerKind::Raw, ServerKind::Waterclock];
        let [raw, waterclock] = Self::medians(kinds, |kind| {
            let server = self.start(kind);
            let mut publisher = LoadPublisher::new(server.address);
            for number in 0..200 {
                publisher.publish("", &data(number, 100));
            }
            let path = match kind {
                ServerKind::Raw => "/events?behind=100".to_owned(),
                _ => format!("{EVENTS}&last_event_id={}", id(&server, 100)),
            };
            let mut clients = SubscriberPool::new(server.address, HttpVersion::Http1, &path);
            let start = Instant::now();
            clients.connect_at_once(subscribers);
            clients.wait_for_events(100);
            let took = start.elapsed().as_secs_f64();
            assert_eq!(clients.missing_and_duplicates(100), (0, 0));
            took
        });
        println!(
            "{:<58} {raw:>9.2} s {:>11} {waterclock:>9.2} s   at most 3 times the raw loop; ratio {:.2}",
            "5,000 reconnects, each 100 events behind: all caught up",
            "",
            waterclock / raw
        );
    }

    /// Measures the publishes of one client while others read the whole log again and again, with
    /// as many patterns as a stream may have.
    fn replays_of_others(&self) {
        const FOR: Duration = Duration::from_secs(3);
        let server = self.start(ServerKind::Waterclock);
        let lines: Vec<_> = (0..100_000).map(|number| data(number, 100)).collect();
        LoadPublisher::new(server.address).publish_to("site.area.d?split=lines", &lines.join("\n"));
        let unmatched: Vec<_> = (0..63).map(|number| format!("topic=*.*.x{number}")).collect();
        let request = format!(
            "GET /events?{}&topic=site.*.*&last_event_id=earliest HTTP/1.1\r\nHost: localhost\r\n\r\n",
            unmatched.join("&")
        );
        let mut alone = None;
        for others in [0, 4, 8] {
            let [rate] = Self::medians([ServerKind::Waterclock], |_| {
                let is_over = AtomicBool::new(false);
                std::thread::scope(|scope| {
                    for _ in 0..others {
                        scope.spawn(|| {
                            while !is_over.load(Ordering::Relaxed) {
                                let mut reader = TcpStream::connect(server.address).unwrap();
                                reader.write_all(request.as_bytes()).unwrap();
                                // About half of the log.
                                io::copy(&mut reader.take(10_000_000), &mut io::sink()).unwrap();
                            }
                        });
                    }
                    let mut publisher = LoadPublisher::new(server.address);
                    let (start, mut count) = (Instant::now(), 0);
                    while start.elapsed() < FOR {
                        publisher.publish("", &data(count, 100));
                        count += 1;
                    }
                    is_over.store(true, Ordering::Relaxed);
                    count as f64 / start.elapsed().as_secs_f64()
                })
            });
            let alone = *alone.get_or_insert(rate);
            println!(
                "{:<58} {:>11} {:>11} {rate:>9.0}/s   at least half of those alone; ratio {:.2}",
                format!("publishes of one client, {others} others replay"),
                "",
                "",
                rate / alone
            );
        }
    }

    /// Measures publishes while other clients hold wildcard patterns, none of which matches.
    fn patterns_of_others(&self) {
        const TOPIC: &str = "orders.eu.created";
        const PUBLISHES: usize = 3000;
        // The requests that are as many as one HTTP/2 connection may have open, and the patterns
        // of each.
        let held = [(0, 0), (16, 64), (1000, 64)];
        let costs = held.map(|(streams, patterns)| {
            let runs = (0..RUNS).map(|_| {
                let server = self.start(ServerKind::Waterclock);
                let mut clients = SubscriberPool::new(server.address, HttpVersion::Http1, EVENTS);
                for stream in 0..streams {
                    let topics = (0..patterns).map(|number| match number % 3 {
                        0 => format!("topic=*.eu.{stream}-{number}"),
                        1 => format!("topic=orders.*.{stream}-{number}"),
                        _ => format!("topic=*.*.{stream}-{number}.*"),
                    });
                    let topics: Vec<_> = topics.collect();
                    clients.connect_to(&format!("/events?{}", topics.join("&")));
                }
                let mut publisher = LoadPublisher::new(server.address);
                publisher.publish_to(TOPIC, "x");
                let before = server.cpu_time();
                for number in 0..PUBLISHES {
                    publisher.publish_to(TOPIC, &data(number, 100));
                }
                server.cpu_time().saturating_sub(before).as_secs_f64() * 1e6 / PUBLISHES as f64
            });
            median(runs.collect())
        });
        for ((streams, patterns), cost) in held.into_iter().zip(costs) {
            let name = format!("CPU per publish, others hold {} wildcards", streams * patterns);
            println!(
                "{name:<58} {:>11} {:>11} {:>11}   at most 1.2 times that without; ratio {:.2}",
                "",
                "",
                figure(cost, "us"),
                cost / costs[0]
            );
        }
    }

    /// Measures polls with many patterns in a log of many topics, next to a poll of one topic.
    fn many_topics(&self) {
        const POLLS: usize = 3000;
        let server = self.start(ServerKind::Waterclock);
        let mut publisher = LoadPublisher::new(server.address);
        for number in 0..9900 {
            let topic = format!("site{}.area{}.d{number}", number % 10, number % 100);
            publisher.publish_to(&topic, "x");
        }
        let (after_first, one_behind) = (id(&server, 1), id(&server, 9899));
        let narrow: Vec<_> = (0..64).map(|n| format!("topic=*.area{n}.*.x")).collect();
        let broad: Vec<_> = (0..64).map(|n| format!("topic=*.*.*.x{n}")).collect();
        let mut one_topic = None;
        for (name, topics, cursor) in [
            ("one topic", "topic=t".to_owned(), &after_first),
            ("64 narrow patterns", narrow.join("&"), &after_first),
            ("64 broad patterns", broad.join("&"), &after_first),
            ("the same, one event behind", broad.join("&"), &one_behind),
        ] {
            let path = format!("/poll?{topics}&last_event_id={cursor}");
            let [cost] = Self::medians([ServerKind::Waterclock], |_| {
                let mut client = LoadPublisher::new(server.address);
                let before = server.cpu_time();
                for _ in 0..POLLS {
                    client.get(&path);
                }
                server.cpu_time().saturating_sub(before).as_secs_f64() * 1e6 / POLLS as f64
            });
            let one_topic = *one_topic.get_or_insert(cost);
            println!(
                "{:<58} {:>11} {:>11} {:>11}   at most 10 times that of one topic; ratio {:.2}",
                format!("CPU per poll, 9,900 topics: {name}"),
                "",
                "",
                figure(cost, "us"),
                cost / one_topic
            );
        }
    }

    /// Prints a line with the ratio to the raw loop, which must be at most `target`.
    fn ratios(&self, name: &str, unit: &str, [raw, rival, own]: [f64; 3], target: f64) {
        println!(
            "{:<58} {:>11} {:>11} {:>11}   at most {target} times the raw loop; ratio {:.2}, axum {:.2}",
            format!("{}: {name}", self.name),
            format!("{raw:.1} {unit}"),
            format!("{rival:.1} {unit}"),
            format!("{own:.1} {unit}"),
            own / raw,
            rival / raw
        );
    }

    /// Prints a line of the table.
    fn line(name: &str, unit: &str, values: [f64; 3], target: &str) {
        let [raw, rival, own] = values.map(|value| figure(value, unit));
        println!("{name:<58} {raw:>11} {rival:>11} {own:>11}   {target}");
    }
}

/// Events that are published at a fixed rate while subscribers read them.
struct Load {
    subscribers: usize,
    per_second: f64,
    /// Size of an event, in bytes.
    size: usize,
    seconds: f64,
}

impl Load {
    /// Runs the load against a server.
    fn run(&self, server: &ServerProcess, version: HttpVersion) -> RunResult {
        let mut clients = SubscriberPool::new(server.address, version, EVENTS);
        clients.connect(self.subscribers);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small number"
        )]
        let count = (self.per_second * self.seconds) as usize;
        let (start, before) = (Instant::now(), server.cpu_time());
        let publisher = LoadPublisher::new(server.address).run(count, self.per_second, self.size);
        clients.wait_for_events(count);
        publisher.join().unwrap();
        let (took, cost) = (start.elapsed(), server.cpu_time().saturating_sub(before));
        let (missing, duplicates) = clients.missing_and_duplicates(count);
        assert_eq!((missing, duplicates), (0, 0), "missing events and duplicates");
        let delivered = clients.delivered() as f64;
        let mut latencies = std::mem::take(&mut clients.latencies);
        latencies.sort_unstable();
        let latency = [0.5, 0.99, 0.999].map(|part| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
            let at = (latencies.len() as f64 * part) as usize;
            latencies[at] as f64 / 1e6
        });
        let cost = cost.as_secs_f64() * 1e6 / delivered;
        RunResult { cost, latency, rate: delivered / took.as_secs_f64() }
    }
}

/// Returns the id of the event with that sequence number.
fn id(server: &ServerProcess, sequence: usize) -> String {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(b"GET /poll HTTP/1.0\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let cursor = response.split_once("\"cursor\":\"").unwrap().1;
    format!("{}-{sequence}", cursor.split_once('-').unwrap().0)
}

/// Returns a figure of the table, with its unit.
fn figure(value: f64, unit: &str) -> String {
    if value < 100.0 { format!("{value:.2} {unit}") } else { format!("{value:.0} {unit}") }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
