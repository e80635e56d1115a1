//! Durable publishes.

use std::time::{Duration, Instant};

use super::{
    growth::lines,
    setup::{RUNS, Setup, median_of, repeated},
};
use crate::{
    bare,
    load::{data, paced, publish_at_once},
    table::{BenchTable, Target, percentile},
};

/// The name of the bare writes in targets.
const BARE: &str = "a bare write with fdatasync";

/// Measures requests with one event each, over several connections.
pub fn single(setup: &Setup, table: &mut BenchTable) {
    const CONNECTIONS: usize = 64;
    let bare = repeated(|| bare::measure(0.0, 200 * CONNECTIONS, 1.0).rate * CONNECTIONS as f64);
    let rate = repeated(|| {
        let server = setup.waterclock(&[]);
        publish_at_once(&[server.site.publish], CONNECTIONS, Duration::from_secs(3)).rate
    });
    let name = "durable publishes, one event per request, 64 connections";
    table.own(name, "/s", rate, Target::AtLeast(45_000.0));
    let name = "  bare writes of 64 events with fdatasync: events";
    table.line(name, "/s", &[bare, f64::NAN, f64::NAN], Target::None);
}

/// Measures requests with many events each, over one connection. Each body is sent once the
/// response to the one before has arrived.
pub fn batches(setup: &Setup, table: &mut BenchTable) {
    const EVENTS: usize = 10_000;
    const TIME: Duration = Duration::from_secs(2);
    let text: Vec<_> = (0..EVENTS).map(|number| data(number, 100)).collect();
    let (text, json) = (text.join("\n"), lines(EVENTS, |_| "t".to_owned()));
    for format in ["split=lines", "NDJSON"] {
        let rate = repeated(|| {
            let server = setup.waterclock(&[]);
            let mut publisher = server.publisher();
            let (start, mut events) = (Instant::now(), 0);
            while start.elapsed() < TIME {
                if format == "NDJSON" {
                    publisher.publish_json(&json);
                } else {
                    publisher.publish("?split=lines", &text);
                }
                events += EVENTS;
            }
            events as f64 / start.elapsed().as_secs_f64()
        });
        let name = format!("durable publishes, 10,000 events per request, {format}");
        table.own(&name, "/s", rate, Target::AtLeast(300_000.0));
    }
}

/// Measures a single publisher at low rates, next to bare writes at the same rates.
pub fn alone(setup: &Setup, table: &mut BenchTable) {
    const SIZE: usize = 200;
    for (per_second, seconds) in [(20.0, 3.0), (200.0, 2.0), (1000.0, 2.0)] {
        let (mut writes, mut publishes) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            let bare = bare::measure(per_second, SIZE, seconds);
            writes.push([bare.latency, bare.cost]);
            publishes.push(publish(setup, per_second, SIZE, seconds));
        }
        let [base, value] = [&writes, &publishes].map(|runs| median_of(runs, |run| run[0]));
        let values = [base, f64::NAN, value];
        let target = Target::PlusAtMost { extra: 0.2, base, of: BARE };
        let name = format!("a lone publisher, {per_second} events/s");
        table.line(&format!("{name}: p50"), "ms", &values, target);
        let [base, value] = [&writes, &publishes].map(|runs| median_of(runs, |run| run[1]));
        let values = [base, f64::NAN, value];
        let target = Target::TimesAtMost { factor: 1.6, base, of: BARE };
        table.line(&format!("  {name}: CPU per publish"), "us", &values, target);
    }
}

/// Publishes at a rate. Returns p50 of the time until the response in milliseconds, and the CPU
/// time of the server per publish in microseconds.
fn publish(setup: &Setup, per_second: f64, size: usize, seconds: f64) -> [f64; 2] {
    let server = setup.waterclock(&[]);
    let mut publisher = server.publisher();
    publisher.publish("", &data(0, size));
    let before = server.cpu_time();
    let times = paced(per_second, seconds, |number| publisher.publish("", &data(number, size)));
    let cost = (server.cpu_time() - before) / times.len() as f64;
    [percentile(&times, 0.5) as f64 / 1e6, cost]
}
