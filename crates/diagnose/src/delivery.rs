//! Whether events arrive as they are sent, and if not, what holds them back: a number of bytes, a time, or all of
//! them until the end.
//!
//! A buffer has events that were sent one after the other arrive together. Which kind it is, is told from two
//! streams: one of few bytes, and one of many. What has the same bytes in both is a buffer of bytes, what has the
//! same time is one of time. A hiccup of the network or of a busy machine has some events arrive together, too,
//! but not most of them; a slow line has them late, but not together.

use std::time::Duration;

use crate::{Check, Fault, Finding, Verdict, bytes, time};

/// How an event of the probe came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrival {
    /// When it was sent, by the server's clock: milliseconds since 1970.
    pub sent: f64,
    /// When it arrived, by the client's clock: milliseconds since 1970.
    pub arrived: f64,
    /// How many bytes it has on the wire.
    pub bytes: u64,
}

/// What the probe is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How many events.
    pub events: u32,
    /// How long from one to the next.
    pub every: Duration,
    /// How many bytes of padding in each.
    pub bytes: u32,
}

impl Pace {
    /// One event, at once.
    pub const ONE: Self = Self { events: 1, every: Duration::ZERO, bytes: 0 };

    /// How long the stream lasts.
    pub fn lasts(self) -> Duration {
        self.every * self.events.saturating_sub(1)
    }
}

/// Those of the streams that are measured: [`Delivery::slow`], [`Delivery::burst`] and [`Delivery::long`].
pub const PACES: [Pace; 3] = [
    Pace { events: 20, every: Duration::from_millis(100), bytes: 0 },
    // With what is around the padding, a kB each.
    Pace { events: 128, every: Duration::from_millis(15), bytes: 910 },
    Pace { events: 13, every: Duration::from_secs(1), bytes: 0 },
];

/// When most events wait so long for others, they are held back: longer than a hiccup.
const HELD: f64 = 300.0;
/// When nearly all wait so long, it is no accident either.
const COALESCED: f64 = 60.0;
/// What part of the time between two events is too short for them not to have come together.
const TOGETHER: f64 = 0.3;
/// Who waits so long of two seconds may have waited for their end.
const LONG_WAIT: f64 = 1200.0;
/// What was let go together arrives no further apart.
const HICCUP: f64 = 50.0;
/// When a burst takes so much longer than it was sent in, the line is slow.
const SLOW_LINE: f64 = 500.0;

/// What arrived of the streams that are measured. An empty one was not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delivery {
    /// Few bytes, for two seconds.
    pub slow: Vec<Arrival>,
    /// Many, for two seconds.
    pub burst: Vec<Arrival>,
    /// Few, for some more seconds; only if [`needs_long`](Self::needs_long).
    pub long: Vec<Arrival>,
}

/// What holds events back.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Buffer {
    /// Until it has so many.
    Bytes(u64),
    /// For so many milliseconds.
    Time(f64),
    /// Whichever comes first.
    Either(u64, f64),
    /// Until the stream ends.
    All,
}

impl Delivery {
    /// Whether the first two streams were held back nearly as a whole, so that only a longer one can tell for how
    /// long.
    pub fn needs_long(&self) -> bool {
        let longest = |flow: &Flow| flow.groups.iter().map(|group| group.wait).fold(0.0, f64::max);
        let [slow, burst, _] = self.flows();
        slow.is_held() && slow.typical().is_none() && longest(&burst) >= LONG_WAIT
    }

    /// Whether events are held back. Quicker than [`judge`](Self::judge), and of one stream only.
    pub fn is_held(arrivals: &[Arrival]) -> bool {
        Flow::of(arrivals, quickest(arrivals)).is_held()
    }

    fn flows(&self) -> [Flow; 3] {
        let streams = [&self.slow, &self.burst, &self.long];
        let quickest =
            streams.iter().map(|arrivals| quickest(arrivals)).fold(f64::INFINITY, f64::min);
        streams.map(|arrivals| Flow::of(arrivals, quickest))
    }

    /// What it means.
    pub fn judge(&self) -> Finding {
        let check = Check::Delivery;
        if self.slow.len() < 5 {
            return Finding::unknown(check, "there were too few events to tell");
        }
        let flows = self.flows();
        let [slow, burst, _] = &flows;
        if slow.is_held() {
            let measured = match buffer(&flows) {
                Buffer::Bytes(held) => format!("something holds back about {}", bytes(held)),
                Buffer::Time(held) => {
                    format!("something holds events back for about {}", millis(held))
                }
                Buffer::Either(held, for_) => format!(
                    "something holds back about {}, but no longer than about {}",
                    bytes(held),
                    millis(for_)
                ),
                Buffer::All => {
                    let lasted = |stream: &[Arrival]| {
                        let (first, last) = ends(stream.iter().map(|arrival| arrival.sent));
                        last - first
                    };
                    let longest = lasted(&self.slow).max(lasted(&self.long));
                    let most: u64 = self.burst.iter().map(|arrival| arrival.bytes).sum();
                    format!(
                        "something holds back everything until the stream ends (it was tried with {} and {})",
                        bytes(most),
                        millis(longest)
                    )
                }
            };
            return Finding::wrong(check, Verdict::Bad, measured, [Fault::Buffering]);
        }
        let coalesced = slow.waits(0.2);
        if coalesced >= COALESCED {
            let measured =
                format!("events wait for each other, mostly up to {}", millis(slow.waits(0.5)));
            return Finding::wrong(check, Verdict::Warning, measured, [Fault::Coalescing]);
        }
        let late = quantile(slow.late.iter().copied(), 0.9);
        let mut measured = format!("as they are sent, give or take {}", millis(late));
        let burst_late = burst.late.last().copied().unwrap_or_default();
        if burst_late > SLOW_LINE {
            let total: u64 = self.burst.iter().map(|arrival| arrival.bytes).sum();
            let (first, last) = ends(self.burst.iter().map(|arrival| arrival.arrived));
            let took = millis(last - first);
            let total = bytes(total);
            measured = format!("{measured}; {total} of a burst took {took}: the line is slow");
        }
        Finding::good(check, measured)
    }
}

/// What holds events back, if something does: told from how they came slowly, in a burst, and for long.
fn buffer([slow, burst, long]: &[Flow; 3]) -> Buffer {
    match (slow.typical(), burst.typical()) {
        (Some(few), Some(many)) => {
            let is_like = |a: f64, b: f64| a.max(b) <= 2.0 * a.min(b);
            #[expect(clippy::cast_precision_loss, reason = "it is compared roughly")]
            if is_like(few.bytes as f64, many.bytes as f64) {
                Buffer::Bytes(many.bytes)
            } else if is_like(few.held, many.held) {
                Buffer::Time(few.held)
            } else {
                Buffer::Either(many.bytes, few.held)
            }
        }
        (Some(few), None) if burst.groups.len() == 1 => Buffer::Time(few.held),
        // A kB is enough for it to pass on.
        (Some(few), None) => Buffer::Bytes(few.bytes),
        (None, many) => match (long.typical(), many) {
            (Some(long), _) => Buffer::Time(long.held),
            (None, Some(many)) => Buffer::Bytes(many.bytes),
            (None, None) => Buffer::All,
        },
    }
}

/// The time that the quickest took, in milliseconds, give or take the clocks' difference.
fn quickest(arrivals: &[Arrival]) -> f64 {
    let delays = arrivals.iter().map(|arrival| arrival.arrived - arrival.sent);
    delays.fold(f64::INFINITY, f64::min)
}

/// How the events of a stream came.
struct Flow {
    /// Those that came together.
    groups: Vec<Group>,
    /// How much later each came than the one that was quickest, in milliseconds.
    late: Vec<f64>,
}

/// Events that came together.
#[derive(Clone, Copy, Debug)]
struct Group {
    events: usize,
    /// Without half an event: the last of them may have been more than was needed.
    bytes: u64,
    /// How long the first has waited for the last, in milliseconds.
    wait: f64,
    /// That, and the time to the next one's sending: how long a buffer of time would have held them.
    held: f64,
}

impl Flow {
    /// `quickest` is the time that the way takes, give or take the clocks' difference, in milliseconds.
    fn of(arrivals: &[Arrival], quickest: f64) -> Self {
        let gaps = arrivals.windows(2).map(|pair| pair[1].sent - pair[0].sent);
        let every = quantile(gaps, 0.5);
        // From then on what was held back may have come because the stream has ended, all at once even if a busy
        // machine took it in in several pieces.
        let end = arrivals.last().map_or(0.0, |last| last.sent) + quickest - every / 2.0;
        let together = |one: &Arrival, next: &Arrival| {
            let between = next.arrived - one.arrived;
            // It was let go with the one before, and has met a hiccup.
            let was_due = next.sent + quickest + every / 2.0 <= one.arrived;
            let hiccup = (3.0 * every).min(HICCUP);
            one.arrived >= end
                || between <= (TOGETHER * every).max(1.0)
                || was_due && between <= hiccup
        };
        let groups = arrivals.chunk_by(together).map(|group| {
            let (first, last) = ends(group.iter().map(|arrival| arrival.sent));
            let bytes: u64 = group.iter().map(|arrival| arrival.bytes).sum();
            Group {
                events: group.len(),
                bytes: bytes - bytes / (2 * group.len() as u64),
                wait: last - first,
                held: last - first + every,
            }
        });
        let late = arrivals.iter().map(|arrival| arrival.arrived - arrival.sent - quickest);
        Self { groups: groups.collect(), late: late.collect() }
    }

    /// How long that part of the events waits at most.
    fn waits(&self, part: f64) -> f64 {
        let each = |group: &Group| std::iter::repeat_n(group.wait, group.events);
        quantile(self.groups.iter().flat_map(each), part)
    }

    fn is_held(&self) -> bool {
        self.waits(0.5) >= HELD
    }

    /// The group that most events are in, of those that did not come because the stream has ended; none if there
    /// is none, or events come one by one.
    fn typical(&self) -> Option<Group> {
        let (_, complete) = self.groups.split_last()?;
        let mut groups: Vec<_> = complete.to_vec();
        groups.sort_by(|a, b| a.wait.total_cmp(&b.wait));
        let half = groups.iter().map(|group| group.events).sum::<usize>().div_ceil(2);
        let mut events = 0;
        let typical = groups.into_iter().find(|group| {
            events += group.events;
            events >= half
        });
        typical.filter(|group| group.events > 1)
    }
}

/// The value that this part of them does not exceed; 0 of none.
fn quantile(values: impl Iterator<Item = f64>, part: f64) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part of a small number"
    )]
    let at = (values.len() as f64 * part) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| {
        (least.min(value), most.max(value))
    })
}

fn millis(millis: f64) -> String {
    time(Duration::try_from_secs_f64(millis / 1000.0).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A way that events take.
    #[derive(Clone, Debug, Default)]
    struct Way {
        /// What is held back until it is so many bytes.
        bytes: Option<u64>,
        /// For how many milliseconds something is held back.
        time: Option<f64>,
        is_held_to_end: bool,
        latency: f64,
        /// How much later each event may come, in milliseconds.
        jitter: Vec<f64>,
        /// From when on nothing comes for how long, in milliseconds.
        stalls: Vec<(f64, f64)>,
        /// How many bytes a millisecond pass.
        rate: Option<f64>,
        clock: f64,
    }

    impl Way {
        #[expect(clippy::cast_precision_loss)]
        fn arrivals(&self, pace: Pace) -> Vec<Arrival> {
            let every = pace.every.as_secs_f64() * 1000.0;
            let size = 113 + u64::from(pace.bytes);
            let sent: Vec<f64> = (0..pace.events).map(|number| f64::from(number) * every).collect();
            // When the buffer lets go of each.
            let mut passed = vec![0.0; sent.len()];
            let mut first = 0;
            let mut held = 0;
            for (at, time) in sent.iter().enumerate() {
                if let Some(most) = self.time
                    && at > first
                    && *time > sent[first] + most
                {
                    passed[first..at].fill(sent[first] + most);
                    (first, held) = (at, 0);
                }
                held += size;
                let is_held = self.is_held_to_end
                    || self.bytes.is_some_and(|most| held < most)
                    || self.bytes.is_none() && self.time.is_some();
                if !is_held {
                    passed[first..=at].fill(*time);
                    (first, held) = (at + 1, 0);
                }
            }
            passed[first..].fill(sent[sent.len() - 1]);
            let mut line_free = 0.0_f64;
            let mut last = 0.0_f64;
            let each = sent.iter().zip(passed).enumerate().map(|(at, (sent, passed))| {
                let jitter =
                    if self.jitter.is_empty() { 0.0 } else { self.jitter[at % self.jitter.len()] };
                let mut arrived = passed;
                if let Some(rate) = self.rate {
                    line_free = line_free.max(arrived) + size as f64 / rate;
                    arrived = line_free;
                }
                arrived += self.latency + jitter;
                for (from, lasts) in &self.stalls {
                    if (*from..from + lasts).contains(&arrived) {
                        arrived = from + lasts;
                    }
                }
                // They keep their order.
                last = last.max(arrived);
                Arrival { sent: sent + self.clock, arrived: last, bytes: size }
            });
            each.collect()
        }

        fn delivery(&self) -> Delivery {
            let [slow, mut burst, mut long] = PACES.map(|pace| self.arrivals(pace));
            // One after the other.
            for (stream, begins) in [(&mut burst, 3000.0), (&mut long, 6000.0)] {
                for arrival in stream {
                    arrival.sent += begins;
                    arrival.arrived += begins;
                }
            }
            let mut delivery = Delivery { slow, burst, long: Vec::new() };
            if delivery.needs_long() {
                delivery.long = long;
            }
            delivery
        }

        fn judge(&self) -> Finding {
            self.delivery().judge()
        }

        fn buffer(&self) -> Buffer {
            buffer(&self.delivery().flows())
        }
    }

    fn some_jitter(most: f64) -> impl Strategy<Value = Vec<f64>> {
        proptest::collection::vec(0.0..most, 20)
    }

    #[test]
    fn a_straight_way() {
        let finding = Way { latency: 40.0, clock: 7e6, ..Way::default() }.judge();
        assert_eq!(finding.verdict, Verdict::Good);
        assert_eq!(finding.measured, "as they are sent, give or take 0.0 ms");
    }

    #[test]
    fn what_a_buffer_is_called() {
        let held = |way: Way| {
            let finding = way.judge();
            assert_eq!(
                (finding.verdict, &finding.faults[..]),
                (Verdict::Bad, &[Fault::Buffering][..])
            );
            finding.measured
        };
        assert_eq!(
            held(Way { bytes: Some(16 * 1024), ..Way::default() }),
            "something holds back about 16 kB"
        );
        assert_eq!(
            held(Way { time: Some(4050.0), ..Way::default() }),
            "something holds events back for about 5 s"
        );
        assert_eq!(
            held(Way { time: Some(550.0), bytes: Some(4096), ..Way::default() }),
            "something holds back about 4.5 kB, but no longer than about 600 ms"
        );
        assert_eq!(
            held(Way { is_held_to_end: true, ..Way::default() }),
            "something holds back everything until the stream ends (it was tried with 128 kB and 12 s)"
        );
    }

    /// `HAProxy` leaves it to the system to wait for more to send, which is 200 ms.
    #[test]
    fn a_fifth_of_a_second_each_time_is_a_warning() {
        let finding = Way { time: Some(205.0), ..Way::default() }.judge();
        assert_eq!(finding.verdict, Verdict::Warning);
        assert_eq!(finding.faults, [Fault::Coalescing]);
        assert_eq!(finding.measured, "events wait for each other, mostly up to 200 ms");
    }

    #[test]
    fn a_slow_line_is_no_buffer() {
        let finding = Way { rate: Some(20.0), ..Way::default() }.judge();
        assert_eq!(finding.verdict, Verdict::Good);
        assert!(finding.measured.ends_with("took 6.5 s: the line is slow"), "{}", finding.measured);
    }

    #[test]
    fn what_comes_at_the_end_in_two_pieces_was_held_until_the_end() {
        let mut delivery = Way { is_held_to_end: true, ..Way::default() }.delivery();
        delivery.burst[80..].iter_mut().for_each(|arrival| arrival.arrived += 40.0);
        assert!(delivery.needs_long());
        let measured = delivery.judge().measured;
        assert!(measured.starts_with("something holds back everything"), "{measured}");
    }

    #[test]
    fn too_few_to_tell() {
        assert_eq!(Delivery::default().judge().verdict, Verdict::Unknown);
        let slow = Way::default().arrivals(Pace { events: 4, ..PACES[0] });
        assert_eq!(Delivery { slow, ..Delivery::default() }.judge().verdict, Verdict::Unknown);
    }

    proptest! {
        #[test]
        fn a_busy_machine_is_not_called_a_buffer(
            latency in 0.0..500.0,
            clock in -1e6..1e6,
            jitter in some_jitter(25.0),
            stalls in proptest::collection::vec((0.0..2500.0, 0.0..250.0), 0..4),
            rate in proptest::option::of(5.0..1000.0),
        ) {
            let way = Way { latency, jitter, stalls, rate, clock, ..Way::default() };
            prop_assert_eq!(way.judge().verdict, Verdict::Good);
        }

        #[test]
        fn a_wild_network_is_not_called_a_buffer(jitter in some_jitter(200.0)) {
            let finding = Way { jitter, ..Way::default() }.judge();
            prop_assert_ne!(finding.verdict, Verdict::Bad);
        }

        #[test]
        fn a_buffer_of_bytes_is_found_and_measured(
            bytes in 600_u64..100_000,
            latency in 0.0..500.0,
            jitter in some_jitter(3.0),
            stall in (0.0..2500.0, 0.0..40.0),
            long_stall in (0.0..2500.0, 0.0..200.0),
        ) {
            let way = Way { bytes: Some(bytes), latency, jitter, stalls: vec![stall], ..Way::default() };
            prop_assert_eq!(way.judge().verdict, Verdict::Bad);
            let stalled = Way { stalls: vec![stall, long_stall], ..way.clone() };
            prop_assert_eq!(stalled.judge().verdict, Verdict::Bad);
            let Buffer::Bytes(found) = way.buffer() else {
                return Err(TestCaseError::fail(format!("{:?}", way.buffer())));
            };
            // It lets go with the event that fills it; a hiccup may have joined two.
            prop_assert!((bytes * 7 / 10..=bytes * 21 / 10 + 1100).contains(&found), "{}", found);
        }

        #[test]
        fn a_buffer_of_time_is_found_and_measured(
            time in 450.0..8000.0,
            latency in 0.0..500.0,
            jitter in some_jitter(3.0),
        ) {
            let way = Way { time: Some(time), latency, jitter, ..Way::default() };
            prop_assert_eq!(way.judge().verdict, Verdict::Bad);
            let Buffer::Time(found) = way.buffer() else {
                return Err(TestCaseError::fail(format!("{:?}", way.buffer())));
            };
            // To the next event.
            let every = if time < 1900.0 { 100.0 } else { 1000.0 };
            prop_assert!((time * 0.9 - every..=time * 1.1 + every).contains(&found), "{}", found);
        }

        #[test]
        fn one_of_both_is_found(bytes in 2000_u64..20_000, time in 450.0..1500.0) {
            let way = Way { bytes: Some(bytes), time: Some(time), ..Way::default() };
            prop_assert_eq!(way.judge().verdict, Verdict::Bad);
            prop_assert!(!matches!(way.buffer(), Buffer::All), "{:?}", way.buffer());
        }

        #[test]
        fn what_holds_all_is_found(
            latency in 0.0..500.0,
            jitter in some_jitter(3.0),
            // What comes at the end is taken in piece by piece.
            rate in proptest::option::of(400.0..2000.0),
        ) {
            let way = Way { is_held_to_end: true, latency, jitter, rate, ..Way::default() };
            prop_assert_eq!(way.judge().verdict, Verdict::Bad);
            prop_assert_eq!(way.buffer(), Buffer::All);
        }
    }
}
