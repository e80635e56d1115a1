//! Costs by the number of subscribers, patterns and topics.

use super::{
    ServerKind,
    delivery::RateLoad,
    setup::{RUNS, Setup, median_of, repeated},
};
use crate::{
    load::data,
    table::{BenchTable, Growth},
};

/// Publishes for each figure.
const PUBLISHES: usize = 3000;

/// Measures the cost of a delivered event by the number of subscribers. The number of events that
/// are delivered in a second is the same for all of them.
pub fn subscribers(setup: &Setup, table: &mut BenchTable) {
    const DELIVERIES: f64 = 30_000.0;
    let rows = [100, 1000, 5000, 10_000, 15_000].map(|subscribers| {
        let kinds = [ServerKind::Waterclock, ServerKind::Raw];
        let mut runs = [const { Vec::new() }; 2];
        for _ in 0..RUNS {
            for (kind, runs) in kinds.iter().zip(&mut runs) {
                let server = setup.start(*kind, &[]);
                let mut clients = server.subscribers();
                clients.connect(subscribers);
                let per_second = DELIVERIES / subscribers as f64;
                let load = RateLoad { per_second, size: 100, seconds: 2.0 };
                runs.push(load.run(&server, &mut clients));
            }
        }
        let [own, raw] = runs.each_ref().map(|runs| median_of(runs, |run| run.cost));
        (subscribers, vec![own, median_of(&runs[0], |run| run.latency[1]), raw])
    });
    let columns = vec![("CPU", "us"), ("p99", "ms"), ("raw loop", "us")];
    let title = "CPU per delivered event at 30,000 deliveries/s";
    table.growth(&Growth { title, of: "subscribers", columns, rows: rows.to_vec() }, None);
}

/// Measures the cost of a publish by the number of distinct wildcard patterns that others hold,
/// none of which matches.
pub fn patterns(setup: &Setup, table: &mut BenchTable) {
    const TOPIC: &str = "orders.eu.created";
    /// Patterns of one stream.
    const MOST: usize = 64;
    let rows = [1, 64, 1024, 16_000, 64_000].map(|patterns| {
        let cost = repeated(|| {
            let server = setup.waterclock(&[]);
            let mut clients = server.subscribers();
            let numbers: Vec<_> = (0..patterns).collect();
            for numbers in numbers.chunks(MOST) {
                let topics = numbers.iter().map(|number| match number % 3 {
                    0 => format!("topic=*.eu.{number}"),
                    1 => format!("topic=orders.*.{number}"),
                    _ => format!("topic=*.*.{number}.*"),
                });
                let topics: Vec<_> = topics.collect();
                clients.connect_to(&format!("/events?{}", topics.join("&")));
            }
            let mut publisher = server.publisher();
            publisher.publish_to(TOPIC, "x");
            server.cost(PUBLISHES, |number| publisher.publish_to(TOPIC, &data(number, 100)))
        });
        (patterns, vec![cost])
    });
    let (columns, title) = (vec![("CPU", "us")], "CPU per publish, wildcard patterns of others");
    let of = "distinct wildcard patterns";
    table.growth(&Growth { title, of, columns, rows: rows.to_vec() }, Some(2.0));
}

/// Measures the cost of a publish by the number of topics that have events. The publishes take
/// turns among all topics.
pub fn topics(setup: &Setup, table: &mut BenchTable) {
    let rows = [1, 100, 1000, 10_000].map(|topics| {
        let cost = repeated(|| {
            let server = setup.waterclock(&["--max-topics=20000"]);
            let mut publisher = server.publisher();
            publisher.publish_json(&lines(topics, topic));
            server.cost(PUBLISHES, |number| {
                // A step that has no common divisor with the number of topics.
                let topic = topic(number * 7919 % topics);
                publisher.publish_to(&topic, &data(number, 100));
            })
        });
        (topics, vec![cost])
    });
    let (columns, title) = (vec![("CPU", "us")], "CPU per publish, topics with events");
    table.growth(&Growth { title, of: "topics", columns, rows: rows.to_vec() }, None);
}

/// Returns one of many topics, by number.
pub fn topic(number: usize) -> String {
    format!("site{}.area{}.d{number}", number % 10, number % 100)
}

/// Returns a line of JSON for each of `count` events, which publishes it to its topic.
pub fn lines(count: usize, topic: impl Fn(usize) -> String) -> Vec<String> {
    let line =
        |number| format!("{{\"topic\":\"{}\",\"data\":\"{}\"}}", topic(number), data(number, 100));
    (0..count).map(line).collect()
}
