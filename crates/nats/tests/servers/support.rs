//! Connections to servers of NATS, and waiting.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use waterclock::cluster::{EntryKind, RawEntry, Sequencer as _};
use waterclock_nats::{NatsSequencer, NatsSettings};

pub use crate::server::{Configuration, NatsServer, free_ports};

/// Time in which everything must happen that a test waits for.
pub const DEADLINE: Duration = Duration::from_secs(20);

impl NatsServer {
    /// Returns settings for this server alone.
    pub fn settings(&self) -> NatsSettings {
        NatsSettings {
            servers: vec![self.url()],
            monitoring: vec![self.monitoring()],
            replicas: 1,
            timeout: DEADLINE,
            ..NatsSettings::default()
        }
    }

    pub async fn sequencer(&self) -> NatsSequencer {
        NatsSequencer::connect(self.settings()).await.unwrap()
    }

    /// Connects as another program would.
    pub async fn client(&self) -> async_nats::Client {
        until("a connection", async || async_nats::connect(self.url()).await.ok()).await
    }
}

/// Repeats an attempt until it returns something.
pub async fn until<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = attempt().await {
            return value;
        }
        assert!(Instant::now() < deadline, "no {what} within {DEADLINE:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for a future that must end soon.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("it takes too long")
}

/// Proposes until an entry is accepted.
pub async fn propose(sequencer: &NatsSequencer, entry: &str) -> u64 {
    until("acknowledgement", async || sequencer.propose(entry.into(), EntryKind::Other).await.ok())
        .await
}

/// Reads a number of entries.
pub async fn read(sequencer: &NatsSequencer, after: u64, count: usize) -> Vec<RawEntry> {
    soon(read_until(sequencer, after, |read| read.len() == count)).await
}

/// Reads entries until they are enough. Follows again from the last one after each failure, as
/// nodes do.
pub async fn read_until(
    sequencer: &NatsSequencer,
    after: u64,
    is_enough: impl Fn(&[RawEntry]) -> bool,
) -> Vec<RawEntry> {
    let mut read = Vec::<RawEntry>::new();
    while !is_enough(&read) {
        let last = read.last().map_or(after, |entry| entry.position);
        let Ok(mut entries) = sequencer.follow(last).await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        while !is_enough(&read)
            && let Ok(entry) = entries.next().await
        {
            read.push(entry);
        }
    }
    let positions: BTreeSet<_> = read.iter().map(|entry| entry.position).collect();
    assert_eq!(positions.len(), read.len(), "an entry was repeated");
    assert!(read.is_sorted_by_key(|entry| entry.position));
    read
}

/// Returns the texts of entries.
pub fn texts(entries: &[RawEntry]) -> Vec<&str> {
    entries.iter().map(|entry| std::str::from_utf8(&entry.bytes).unwrap()).collect()
}
