//! The statistics of a comparison, by transport. Pure: times are passed in, in milliseconds since
//! 1970 by the server's clock.

use serde::{Deserialize, Serialize};
use waterclock::{id::EventId, transport::Transport};

use super::{
    latency::{LatencySummary, LatencyWindow},
    seen_ids::{SeenIds, TRANSPORTS},
};
use crate::browser::ClientEvent;

/// Time without events after which a transport has caught up, in milliseconds.
const QUIET: f64 = 500.0;

/// The statistics of all transports.
#[derive(Debug)]
pub(crate) struct ComparisonStats {
    ids: SeenIds,
    transports: [TransportStats; TRANSPORTS],
}

#[derive(Debug, Default)]
struct TransportStats {
    latencies: LatencyWindow,
    counters: Counters,
    /// `true` from the loss of the connection until it is open again.
    is_lost: bool,
    recovery: Option<Recovery>,
}

/// The state of a transport's connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Health {
    /// Not open yet.
    #[default]
    Connecting,
    Open,
    /// Lost; the client is reconnecting.
    Lost,
    /// Refused, because the server has as many streams as it permits; the client tries again.
    Full,
}

/// The counters of a transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counters {
    pub(crate) health: Health,
    /// Events, without duplicates.
    pub(crate) events: u64,
    pub(crate) missing: u64,
    #[serde(rename = "doubled")]
    pub(crate) duplicates: u64,
    /// Gaps reported by the server.
    pub(crate) gaps: u64,
    pub(crate) requests: u64,
    /// Responses without events.
    #[serde(rename = "empty")]
    pub(crate) empty_responses: u64,
    pub(crate) reconnects: u64,
}

/// The progress of a transport's recovery from a cut.
#[derive(Clone, Copy, Debug)]
struct Recovery {
    /// Time of the cut.
    cut: f64,
    /// Number of events missing at the time of the cut.
    missing: u64,
    /// `true` if the transport has noticed the cut. A cut between two polls goes unnoticed.
    was_lost: bool,
    /// Time at which the connection was open again.
    opened: Option<f64>,
    /// Arrival of the last event from before `opened`.
    last: f64,
    /// Number of events from between the cut and `opened`.
    replayed: u64,
    is_complete: bool,
}

/// The result of a transport's recovery from a cut.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RecoveryResult {
    /// Time until the connection was open again, in milliseconds.
    pub(crate) opened: f64,
    /// Time until the transport had all events that it had missed, in milliseconds.
    pub(crate) caught_up: f64,
    /// Number of these events.
    pub(crate) replayed: u64,
    /// Number of events missing since the cut.
    pub(crate) lost: u64,
}

/// The outcome of the last cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CutOutcome {
    /// There was no cut.
    #[default]
    None,
    /// The transport has not recovered yet.
    Waiting,
    /// The transport has recovered.
    #[serde(rename = "over")]
    Recovered(RecoveryResult),
}

impl ComparisonStats {
    pub(crate) fn new() -> Self {
        Self { ids: SeenIds::default(), transports: Default::default() }
    }

    /// Records an event of a transport's client.
    pub(crate) fn record(&mut self, transport: Transport, event: ClientEvent, now: f64) {
        let stats = &mut self.transports[transport as usize];
        let counters = &mut stats.counters;
        match event {
            ClientEvent::Requested => counters.requests += 1,
            ClientEvent::Opened => {
                counters.reconnects += u64::from(std::mem::take(&mut stats.is_lost));
                counters.health = Health::Open;
                if let Some(recovery) = &mut stats.recovery
                    && recovery.opened.is_none()
                {
                    recovery.opened = Some(now);
                    recovery.last = now;
                }
            }
            ClientEvent::Event(id, time) => {
                // The server rounds down to whole milliseconds.
                #[expect(clippy::cast_precision_loss, reason = "exact for the next 285,000 years")]
                let sent = time.as_millis() as f64 + 0.5;
                if !self.ids.deliver(transport, id) {
                    return;
                }
                counters.events += 1;
                // An event that is late because of a cut counts in the figures of the cut instead.
                if !stats.recovery.as_mut().is_some_and(|of| of.delays(sent, now)) {
                    stats.latencies.add(now - sent);
                }
            }
            ClientEvent::Empty => counters.empty_responses += 1,
            ClientEvent::Gap => counters.gaps += 1,
            ClientEvent::Full => counters.health = Health::Full,
            ClientEvent::Lost => {
                if counters.health == Health::Open {
                    counters.health = Health::Lost;
                    stats.is_lost = true;
                }
                if let Some(recovery) = &mut stats.recovery {
                    recovery.was_lost |= recovery.opened.is_none();
                }
            }
        }
    }

    /// Records that all connections are cut.
    pub(crate) fn record_cut(&mut self, now: f64) {
        for (transport, stats) in Transport::ALL.into_iter().zip(&mut self.transports) {
            stats.recovery = Some(Recovery {
                cut: now,
                missing: self.ids.missing(transport),
                was_lost: stats.is_lost,
                opened: None,
                last: now,
                replayed: 0,
                is_complete: false,
            });
        }
    }

    /// Records that the log has an event.
    pub(crate) fn record_in_log(&mut self, id: EventId) {
        self.ids.record_in_log(id);
    }

    /// Returns the last event that any transport has delivered.
    pub(crate) fn last_event(&self) -> Option<EventId> {
        self.ids.last()
    }

    /// Returns the statistics of a transport at time `now`.
    pub(crate) fn of(
        &mut self,
        transport: Transport,
        now: f64,
    ) -> (Counters, Option<LatencySummary>, CutOutcome) {
        let stats = &mut self.transports[transport as usize];
        let missing = self.ids.missing(transport);
        let duplicates = self.ids.duplicates(transport);
        let counters = Counters { missing, duplicates, ..stats.counters };
        let cut = match &mut stats.recovery {
            None => CutOutcome::None,
            Some(recovery) => recovery.outcome(missing, now),
        };
        (counters, stats.latencies.summary(), cut)
    }
}

impl Recovery {
    /// Records an event by the time it was sent. Returns `true` if the cut has delayed it.
    fn delays(&mut self, sent: f64, now: f64) -> bool {
        match self.opened {
            Some(opened) if sent < opened && !self.is_complete => {
                self.last = now;
                self.replayed += u64::from(sent >= self.cut);
                self.was_lost
            }
            // The event is new, so all missed events have come before it.
            Some(_) => {
                self.is_complete = true;
                false
            }
            None => false,
        }
    }

    fn outcome(&mut self, missing: u64, now: f64) -> CutOutcome {
        let Some(opened) = self.opened else { return CutOutcome::Waiting };
        self.is_complete |= now > self.last + QUIET;
        if !self.is_complete {
            return CutOutcome::Waiting;
        }
        CutOutcome::Recovered(RecoveryResult {
            opened: opened - self.cut,
            caught_up: self.last - self.cut,
            replayed: self.replayed,
            lost: missing.saturating_sub(self.missing),
        })
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these are exact")]
mod tests {
    use waterclock::{id::Epoch, timestamp::Timestamp};

    use super::*;

    const SSE: Transport = Transport::Sse;
    const POLL: Transport = Transport::Poll;

    fn event(sequence: u64, millis: u64) -> ClientEvent {
        let id = EventId { epoch: Epoch::new(1), sequence };
        ClientEvent::Event(id, Timestamp::from_millis(millis))
    }

    #[test]
    fn counters_follow_the_clients() {
        let mut stats = ComparisonStats::new();
        stats.record(SSE, ClientEvent::Requested, 0.0);
        stats.record(SSE, ClientEvent::Opened, 1.0);
        stats.record(SSE, event(1, 1000), 1010.5);
        stats.record(SSE, event(1, 1000), 5000.0);
        for empty in 0..3 {
            stats.record(POLL, ClientEvent::Requested, f64::from(empty));
            stats.record(POLL, ClientEvent::Opened, f64::from(empty));
            stats.record(POLL, ClientEvent::Empty, f64::from(empty));
        }
        stats.record(POLL, ClientEvent::Lost, 3.0);
        stats.record(POLL, ClientEvent::Lost, 4.0);
        let (counters, summary, cut) = stats.of(SSE, 6000.0);
        let expected = Counters {
            health: Health::Open,
            events: 1,
            duplicates: 1,
            requests: 1,
            ..Counters::default()
        };
        assert_eq!(counters, expected);
        assert_eq!(summary.unwrap().maximum, 10.0, "a duplicate has no latency");
        assert_eq!(cut, CutOutcome::None);
        let (counters, summary, _) = stats.of(POLL, 6000.0);
        let expected = Counters {
            health: Health::Lost,
            requests: 3,
            empty_responses: 3,
            ..Counters::default()
        };
        assert_eq!((counters, summary), (expected, None));
        stats.record(POLL, ClientEvent::Opened, 7000.0);
        assert_eq!(stats.of(POLL, 7000.0).0.reconnects, 1);
    }

    #[test]
    fn a_full_server_is_neither_a_lost_connection_nor_an_open_one() {
        let mut stats = ComparisonStats::new();
        let health = |stats: &mut ComparisonStats| {
            let counters = stats.of(SSE, 9.0).0;
            (counters.health, counters.reconnects)
        };
        for event in [ClientEvent::Full, ClientEvent::Lost] {
            stats.record(SSE, event, 1.0);
        }
        assert_eq!(health(&mut stats), (Health::Full, 0));
        stats.record(SSE, ClientEvent::Opened, 2.0);
        assert_eq!(health(&mut stats), (Health::Open, 0), "it is the first connection");
        for event in [ClientEvent::Lost, ClientEvent::Full, ClientEvent::Lost] {
            stats.record(SSE, event, 3.0);
        }
        assert_eq!(health(&mut stats), (Health::Full, 0));
        stats.record(SSE, ClientEvent::Opened, 4.0);
        assert_eq!(health(&mut stats), (Health::Open, 1));
    }

    #[test]
    fn a_transport_recovers_from_a_cut() {
        let mut stats = ComparisonStats::new();
        stats.record(SSE, ClientEvent::Opened, 0.0);
        stats.record(SSE, event(1, 900), 901.0);
        stats.record_cut(1000.0);
        stats.record(SSE, ClientEvent::Lost, 1001.0);
        assert_eq!(stats.of(SSE, 2000.0).2, CutOutcome::Waiting);
        stats.record(SSE, ClientEvent::Opened, 3000.0);
        stats.record(SSE, event(2, 1500), 3005.0);
        stats.record(SSE, event(3, 2500), 3010.0);
        assert_eq!(stats.of(SSE, 3010.0).2, CutOutcome::Waiting, "more may come");
        stats.record(SSE, event(4, 3020), 3021.0);
        let result = RecoveryResult { opened: 2000.0, caught_up: 2010.0, replayed: 2, lost: 0 };
        assert_eq!(stats.of(SSE, 3021.0).2, CutOutcome::Recovered(result));
        stats.record(SSE, event(6, 9000), 9001.0);
        let (_, summary, cut) = stats.of(SSE, 9500.0);
        assert_eq!(cut, CutOutcome::Recovered(result), "the missing event is a later one");
        assert_eq!(summary.unwrap().maximum, 0.5, "the cut does not count as latency");
    }

    #[test]
    fn silence_after_a_cut_completes_the_recovery() {
        let mut stats = ComparisonStats::new();
        stats.record(POLL, ClientEvent::Opened, 0.0);
        stats.record_cut(1000.0);
        stats.record(POLL, ClientEvent::Opened, 1250.0);
        stats.record(POLL, event(1, 1100), 1250.0);
        assert_eq!(
            stats.of(POLL, 1250.0).1.unwrap().maximum,
            149.5,
            "polling takes as long without a cut"
        );
        assert_eq!(stats.of(POLL, 1300.0).2, CutOutcome::Waiting);
        let result = RecoveryResult { opened: 250.0, caught_up: 250.0, replayed: 1, lost: 0 };
        assert_eq!(stats.of(POLL, 2000.0).2, CutOutcome::Recovered(result));
    }

    #[test]
    fn events_missing_since_a_cut_are_lost() {
        let mut stats = ComparisonStats::new();
        for (transport, has_all) in [(SSE, true), (POLL, false)] {
            stats.record(transport, ClientEvent::Opened, 0.0);
            stats.record(transport, event(1, 100), 101.0);
            if transport == SSE {
                stats.record_cut(200.0);
            }
            stats.record(transport, ClientEvent::Opened, 500.0);
            if has_all {
                stats.record(transport, event(2, 300), 501.0);
            }
            stats.record(transport, event(3, 600), 601.0);
        }
        let lost = |stats: &mut ComparisonStats, transport| match stats.of(transport, 5000.0).2 {
            CutOutcome::Recovered(result) => result.lost,
            other => panic!("{other:?}"),
        };
        assert_eq!((lost(&mut stats, SSE), lost(&mut stats, POLL)), (0, 1));
    }
}
