//! Subscribers that are behind, and events that arrive all at once.

use std::time::Instant;

use super::{
    ServerKind,
    delivery::RAW,
    setup::{EVENTS, RUNS, Setup, repeated},
};
use crate::{
    load::data,
    table::{BenchTable, Target, median, separated},
};

/// Measures how fast a subscriber that is far behind catches up.
pub fn replay(setup: &Setup, table: &mut BenchTable) {
    const COUNT: usize = 300_000;
    let server = setup.waterclock(&["--retain-count=1000000"]);
    let lines: Vec<_> = (0..COUNT).map(|number| data(number, 50)).collect();
    server.publisher().publish("?split=lines", &lines.join("\n"));
    let rate = repeated(|| {
        let path = format!("{EVENTS}&last_event_id=earliest");
        let mut client = server.subscribers_to(&path);
        let start = Instant::now();
        client.connect(1);
        client.wait_for_events(COUNT);
        let took = start.elapsed().as_secs_f64();
        client.assert_exact(COUNT);
        COUNT as f64 / took
    });
    let name = format!("replay of {} events to one subscriber", separated(COUNT));
    table.own(&name, "/s", rate, Target::AtLeast(2e6));
}

/// Measures the time until all subscribers that reconnect at once have caught up.
pub fn storm(setup: &Setup, table: &mut BenchTable) {
    const SUBSCRIBERS: usize = 5000;
    const BEHIND: usize = 100;
    let storm = |kind: ServerKind| {
        let server = setup.start(kind, &[]);
        let mut publisher = server.publisher();
        for number in 0..2 * BEHIND {
            // Those who are behind count the second half from 0.
            publisher.publish("", &data(number % BEHIND, 100));
        }
        let path = match kind {
            ServerKind::Raw => format!("/events?behind={BEHIND}"),
            _ => format!("{EVENTS}&last_event_id={}", server.event_id(BEHIND)),
        };
        let mut clients = server.subscribers_to(&path);
        let start = Instant::now();
        clients.connect_at_once(SUBSCRIBERS);
        clients.wait_for_events(BEHIND);
        let took = start.elapsed().as_secs_f64();
        clients.assert_exact(BEHIND);
        took
    };
    let (mut raw, mut own) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        raw.push(storm(ServerKind::Raw));
        own.push(storm(ServerKind::Waterclock));
    }
    let [base, value] = [raw, own].map(median);
    let target = Target::TimesAtMost { factor: 1.3, base, of: RAW };
    let name = "5,000 reconnects, each 100 events behind: all caught up";
    table.line(name, "s", &[base, f64::NAN, value], target);
}

/// Counts the writes in which a subscriber receives 100 events that were published at once.
pub fn burst(setup: &Setup, table: &mut BenchTable) {
    let chunks = repeated(|| {
        let server = setup.waterclock(&[]);
        let mut clients = server.subscribers();
        clients.connect(1000);
        clients.reset();
        let lines: Vec<_> = (0..100).map(|number| data(number, 100)).collect();
        server.publisher().publish("?split=lines", &lines.join("\n"));
        clients.wait_for_events(100);
        clients.assert_exact(100);
        clients.chunks()
    });
    let name = "burst of 100 events to 1,000 subscribers: writes for each";
    table.own(name, "", chunks, Target::AtMost(2.0));
}
