//! What a run of the comparison knows: of each lane, what it has brought and how. Pure: times are given, in
//! milliseconds since 1970 by the server's clock.

use serde::{Deserialize, Serialize};
use waterclock::{id::EventId, timestamp::Timestamp, transport::Transport};

use super::{
    LANES,
    ids::Ids,
    latency::{Latencies, Summary},
};

/// When nothing has come for so many milliseconds, what was missed has come.
const QUIET: f64 = 500.0;

/// What a lane tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum News {
    /// A request was sent, or a connection begun.
    Asked,
    /// The connection is open, or the request was answered.
    Opened,
    /// An event has come.
    Event(EventId, Timestamp),
    /// A poll's answer had nothing in it.
    Empty,
    /// The server says that events are missing.
    Gap,
    /// The connection was lost, or the request failed.
    Lost,
}

/// A run's lanes.
#[derive(Debug)]
pub(crate) struct Stats {
    ids: Ids,
    lanes: [Lane; LANES],
}

#[derive(Debug, Default)]
struct Lane {
    latencies: Latencies,
    figures: Figures,
    recovery: Option<Recovery>,
}

/// How a lane is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Health {
    /// It has not been open yet.
    #[default]
    Connecting,
    /// It is open.
    Open,
    /// It was, and tries again.
    Lost,
}

/// What is counted of a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) health: Health,
    /// Events, each once.
    pub(crate) events: u64,
    pub(crate) missing: u64,
    pub(crate) doubled: u64,
    /// How often the server said that events are missing.
    pub(crate) gaps: u64,
    pub(crate) requests: u64,
    /// How many of them were answered with nothing.
    pub(crate) empty: u64,
    pub(crate) reconnects: u64,
}

/// How a lane gets over a cut.
#[derive(Clone, Copy, Debug)]
struct Recovery {
    /// When its connection was cut.
    cut: f64,
    /// How many events were missing then.
    missing: u64,
    /// Whether the lane has noticed it at all: polls may fall between.
    was_lost: bool,
    /// When it was open again.
    opened: Option<f64>,
    /// When the last event came that is from before that.
    last: f64,
    /// How many those were.
    replayed: u64,
    is_over: bool,
}

/// How a lane got over a cut.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Recovered {
    /// After how many milliseconds it was open again.
    pub(crate) opened: f64,
    /// After how many it had all that it had missed.
    pub(crate) caught_up: f64,
    /// How many events that was.
    pub(crate) replayed: u64,
    /// How many events are missing since.
    pub(crate) lost: u64,
}

/// What there is to say of a cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Cut {
    /// There was none.
    #[default]
    None,
    /// The lane is not over it yet.
    Waiting,
    /// It is.
    Over(Recovered),
}

impl Stats {
    pub(crate) fn new() -> Self {
        Self { ids: Ids::default(), lanes: Default::default() }
    }

    /// A lane has told something.
    pub(crate) fn note(&mut self, transport: Transport, news: News, now: f64) {
        let i = index(transport);
        let lane = &mut self.lanes[i];
        let figures = &mut lane.figures;
        match news {
            News::Asked => figures.requests += 1,
            News::Opened => {
                figures.reconnects += u64::from(figures.health == Health::Lost);
                figures.health = Health::Open;
                if let Some(recovery) = &mut lane.recovery
                    && recovery.opened.is_none()
                {
                    recovery.opened = Some(now);
                    recovery.last = now;
                }
            }
            News::Event(id, time) => {
                // The server rounds down to whole milliseconds.
                #[expect(clippy::cast_precision_loss, reason = "exact for the next 285,000 years")]
                let sent = time.as_millis() as f64 + 0.5;
                if !self.ids.bring(i, id) {
                    return;
                }
                figures.events += 1;
                // What the cut has made late, the figures of the cut tell.
                if !lane.recovery.as_mut().is_some_and(|of| of.arrived(sent, now)) {
                    lane.latencies.add(now - sent);
                }
            }
            News::Empty => figures.empty += 1,
            News::Gap => figures.gaps += 1,
            News::Lost => {
                if figures.health == Health::Open {
                    figures.health = Health::Lost;
                }
                if let Some(recovery) = &mut lane.recovery {
                    recovery.was_lost |= recovery.opened.is_none();
                }
            }
        }
    }

    /// The lanes' connections are cut now.
    pub(crate) fn cut(&mut self, now: f64) {
        for (i, lane) in self.lanes.iter_mut().enumerate() {
            lane.recovery = Some(Recovery {
                cut: now,
                missing: self.ids.missing(i),
                was_lost: lane.figures.health == Health::Lost,
                opened: None,
                last: now,
                replayed: 0,
                is_over: false,
            });
        }
    }

    /// The log has that event.
    pub(crate) fn is_in_log(&mut self, id: EventId) {
        self.ids.is_in_log(id);
    }

    /// The furthest event that any lane has brought.
    pub(crate) fn furthest(&self) -> Option<EventId> {
        self.ids.furthest()
    }

    /// What is known of a lane by now.
    pub(crate) fn of(&mut self, transport: Transport, now: f64) -> (Figures, Option<Summary>, Cut) {
        let i = index(transport);
        let lane = &mut self.lanes[i];
        let missing = self.ids.missing(i);
        let figures = Figures { missing, doubled: self.ids.doubled(i), ..lane.figures };
        let cut = match &mut lane.recovery {
            None => Cut::None,
            Some(recovery) => recovery.by_now(missing, now),
        };
        (figures, lane.latencies.summary(), cut)
    }
}

fn index(transport: Transport) -> usize {
    Transport::ALL.iter().position(|other| *other == transport).unwrap_or_default()
}

impl Recovery {
    /// An event has come that was sent then; whether it is late for the cut.
    fn arrived(&mut self, sent: f64, now: f64) -> bool {
        match self.opened {
            Some(opened) if sent < opened && !self.is_over => {
                self.last = now;
                self.replayed += u64::from(sent >= self.cut);
                self.was_lost
            }
            // It is a new one: what was missed came before it.
            Some(_) => {
                self.is_over = true;
                false
            }
            None => false,
        }
    }

    fn by_now(&mut self, missing: u64, now: f64) -> Cut {
        let Some(opened) = self.opened else { return Cut::Waiting };
        self.is_over |= now > self.last + QUIET;
        if !self.is_over {
            return Cut::Waiting;
        }
        Cut::Over(Recovered {
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
    use waterclock::id::Epoch;

    use super::*;

    const SSE: Transport = Transport::Sse;
    const POLL: Transport = Transport::Poll;

    fn event(sequence: u64, millis: u64) -> News {
        let id = EventId { epoch: Epoch::new(1), sequence };
        News::Event(id, Timestamp::from_millis(millis))
    }

    #[test]
    fn what_is_counted() {
        let mut stats = Stats::new();
        stats.note(SSE, News::Asked, 0.0);
        stats.note(SSE, News::Opened, 1.0);
        stats.note(SSE, event(1, 1000), 1010.5);
        stats.note(SSE, event(1, 1000), 5000.0);
        for empty in 0..3 {
            stats.note(POLL, News::Asked, f64::from(empty));
            stats.note(POLL, News::Opened, f64::from(empty));
            stats.note(POLL, News::Empty, f64::from(empty));
        }
        stats.note(POLL, News::Lost, 3.0);
        stats.note(POLL, News::Lost, 4.0);
        let (figures, summary, cut) = stats.of(SSE, 6000.0);
        let expected = Figures {
            health: Health::Open,
            events: 1,
            doubled: 1,
            requests: 1,
            ..Figures::default()
        };
        assert_eq!(figures, expected);
        assert_eq!(summary.unwrap().longest, 10.0, "that it came again does not count");
        assert_eq!(cut, Cut::None);
        let (figures, summary, _) = stats.of(POLL, 6000.0);
        let expected =
            Figures { health: Health::Lost, requests: 3, empty: 3, ..Figures::default() };
        assert_eq!((figures, summary), (expected, None));
        stats.note(POLL, News::Opened, 7000.0);
        assert_eq!(stats.of(POLL, 7000.0).0.reconnects, 1);
    }

    #[test]
    fn how_a_lane_gets_over_a_cut() {
        let mut stats = Stats::new();
        stats.note(SSE, News::Opened, 0.0);
        stats.note(SSE, event(1, 900), 901.0);
        stats.cut(1000.0);
        stats.note(SSE, News::Lost, 1001.0);
        assert_eq!(stats.of(SSE, 2000.0).2, Cut::Waiting);
        stats.note(SSE, News::Opened, 3000.0);
        stats.note(SSE, event(2, 1500), 3005.0);
        stats.note(SSE, event(3, 2500), 3010.0);
        assert_eq!(stats.of(SSE, 3010.0).2, Cut::Waiting, "more may come");
        stats.note(SSE, event(4, 3020), 3021.0);
        let recovered = Recovered { opened: 2000.0, caught_up: 2010.0, replayed: 2, lost: 0 };
        assert_eq!(stats.of(SSE, 3021.0).2, Cut::Over(recovered));
        stats.note(SSE, event(6, 9000), 9001.0);
        let (_, summary, cut) = stats.of(SSE, 9500.0);
        assert_eq!(cut, Cut::Over(recovered), "that was later");
        assert_eq!(summary.unwrap().longest, 0.5, "what was late for the cut does not count");
    }

    #[test]
    fn after_a_cut_silence_tells_that_nothing_more_comes() {
        let mut stats = Stats::new();
        stats.note(POLL, News::Opened, 0.0);
        stats.cut(1000.0);
        stats.note(POLL, News::Opened, 1250.0);
        stats.note(POLL, event(1, 1100), 1250.0);
        assert_eq!(
            stats.of(POLL, 1250.0).1.unwrap().longest,
            149.5,
            "polling takes as long anyway"
        );
        assert_eq!(stats.of(POLL, 1300.0).2, Cut::Waiting);
        let recovered = Recovered { opened: 250.0, caught_up: 250.0, replayed: 1, lost: 0 };
        assert_eq!(stats.of(POLL, 2000.0).2, Cut::Over(recovered));
    }

    #[test]
    fn what_a_cut_has_lost() {
        let mut stats = Stats::new();
        for (transport, has_all) in [(SSE, true), (POLL, false)] {
            stats.note(transport, News::Opened, 0.0);
            stats.note(transport, event(1, 100), 101.0);
            if transport == SSE {
                stats.cut(200.0);
            }
            stats.note(transport, News::Opened, 500.0);
            if has_all {
                stats.note(transport, event(2, 300), 501.0);
            }
            stats.note(transport, event(3, 600), 601.0);
        }
        let lost = |stats: &mut Stats, transport| match stats.of(transport, 5000.0).2 {
            Cut::Over(recovered) => recovered.lost,
            other => panic!("{other:?}"),
        };
        assert_eq!((lost(&mut stats, SSE), lost(&mut stats, POLL)), (0, 1));
    }
}
