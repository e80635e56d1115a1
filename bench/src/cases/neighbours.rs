//! The costs that one client causes for others.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use super::{
    delivery::RateLoad,
    growth::{lines, topic},
    setup::{EVENTS, RUNS, Setup, median_of, repeated},
};
use crate::{
    load::{DEADLINE, data},
    table::{BenchTable, Target},
};

/// Measures whether subscribers that do not read slow down those that do.
pub fn stalled(setup: &Setup, table: &mut BenchTable) {
    let [without, with] = [0, 50].map(|stalled| {
        let runs = (0..RUNS).map(|_| {
            let server = setup.waterclock(&[]);
            let address = server.site.subscribe.address;
            let idle: Vec<_> = (0..stalled)
                .map(|_| {
                    let mut stream = TcpStream::connect(address).unwrap();
                    let request = format!("GET {EVENTS} HTTP/1.1\r\nHost: localhost\r\n\r\n");
                    stream.write_all(request.as_bytes()).unwrap();
                    stream
                })
                .collect();
            let before = server.memory();
            let mut clients = server.subscribers();
            clients.connect(200);
            let load = RateLoad { per_second: 50.0, size: 8192, seconds: 8.0 };
            let result = load.run(&server, &mut clients);
            drop(idle);
            [result.latency[1], (server.memory() - before) / 1e3]
        });
        runs.collect::<Vec<_>>()
    });
    let medians = |at: usize| [&without, &with].map(|runs| median_of(runs, |run| run[at]));
    let ([base, value], of) = (medians(0), "that without stalled readers");
    let target = Target::TimesAtMost { factor: 1.5, base, of };
    table.own("200 readers, 50 stalled, 50 events/s of 8 KiB: p99", "ms", value, target);
    let [base, value] = medians(1);
    let target = Target::Compared { base, of };
    table.own("  memory growth in these 8 s", "MB", value, target);
}

/// Measures replays and polls with many patterns.
pub fn reading(setup: &Setup, table: &mut BenchTable) {
    replays(setup, table);
    polls(setup, table);
}

/// Measures the publishes of one client while others read the whole log again and again, with as
/// many patterns as a stream may have.
fn replays(setup: &Setup, table: &mut BenchTable) {
    const FOR: Duration = Duration::from_secs(2);
    let server = setup.waterclock(&[]);
    let address = server.site.subscribe.address;
    let lines: Vec<_> = (0..100_000).map(|number| data(number, 100)).collect();
    server.publisher().publish_to("site.area.d?split=lines", &lines.join("\n"));
    let unmatched: Vec<_> = (0..63).map(|number| format!("topic=*.*.x{number}")).collect();
    let request = format!(
        "GET /events?{}&topic=site.*.*&last_event_id=earliest HTTP/1.1\r\nHost: localhost\r\n\r\n",
        unmatched.join("&")
    );
    let publishes = |others: usize| {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..others {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        let mut reader = TcpStream::connect(address).unwrap();
                        reader.set_read_timeout(Some(DEADLINE)).unwrap();
                        reader.write_all(request.as_bytes()).unwrap();
                        // About half of the log.
                        io::copy(&mut reader.take(10_000_000), &mut io::sink()).unwrap();
                    }
                });
            }
            let mut publisher = server.publisher();
            let (start, mut count) = (Instant::now(), 0);
            while start.elapsed() < FOR {
                publisher.publish("", &data(count, 100));
                count += 1;
            }
            is_over.store(true, Ordering::Relaxed);
            count as f64 / start.elapsed().as_secs_f64()
        })
    };
    let base = repeated(|| publishes(0));
    for others in [4, 8] {
        let rate = repeated(|| publishes(others));
        let target = Target::TimesAtLeast { factor: 0.5, base, of: "those alone" };
        table.own(&format!("publishes of one client, {others} others replay"), "/s", rate, target);
    }
}

/// Measures polls with many patterns in a log of many topics, next to a poll of one topic.
fn polls(setup: &Setup, table: &mut BenchTable) {
    const POLLS: usize = 3000;
    const TOPICS: usize = 9900;
    let server = setup.waterclock(&[]);
    let mut client = server.publisher();
    client.publish_json(&lines(TOPICS, topic));
    let (after_first, one_behind) = (server.event_id(1), server.event_id(TOPICS - 1));
    let narrow: Vec<_> = (0..64).map(|n| format!("topic=*.area{n}.*.x")).collect();
    let broad: Vec<_> = (0..64).map(|n| format!("topic=*.*.*.x{n}")).collect();
    let mut of_poll = |topics: &str, cursor: &str| {
        let path = format!("/poll?{topics}&last_event_id={cursor}");
        repeated(|| {
            server.cost(POLLS, |_| {
                client.get(&path);
            })
        })
    };
    let base = of_poll("topic=t", &after_first);
    for (name, topics, cursor) in [
        ("64 narrow patterns", &narrow, &after_first),
        ("64 broad patterns", &broad, &after_first),
        ("the same, one event behind", &broad, &one_behind),
    ] {
        let value = of_poll(&topics.join("&"), cursor);
        let target = Target::TimesAtMost { factor: 10.0, base, of: "a poll of one topic" };
        table.own(&format!("CPU per poll, 9,900 topics: {name}"), "us", value, target);
    }
}
