//! The delivery check: it finds buffers on the path by the arrival times of events.
//!
//! A buffer makes events arrive together that were sent one after the other. Two streams show its
//! kind: one with few bytes, and one with many. If the groups of events that arrive together have
//! the same size in both, the buffer is limited by bytes. If they span the same time, it is limited
//! by time. A hiccup of the network or a busy machine also makes some events arrive together, but
//! not most of them. A slow connection delays events, but does not group them.

use crate::{
    check::Check,
    fault::Fault,
    finding::{Finding, Verdict},
    format::{format_bytes, format_millis},
    stream_reader::Arrival,
};

/// Minimum median wait of held-back events, in milliseconds. It is longer than a hiccup.
const HELD_BACK: f64 = 300.0;
/// Minimum wait of coalesced events, in milliseconds. At least 80 % of the events must wait that
/// long, which rules out a coincidence.
const COALESCED: f64 = 60.0;
/// Maximum time between the arrivals of events in one group, as a part of the send interval.
const TOGETHER: f64 = 0.3;
/// Minimum wait, in milliseconds, of an event that may have waited for the end of a stream of two
/// seconds.
const LONG_WAIT: f64 = 1200.0;
/// Maximum time between the arrivals of events that were released together, in milliseconds.
const HICCUP: f64 = 50.0;
/// Minimum delay of the end of a burst over a slow connection, in milliseconds.
const SLOW_CONNECTION: f64 = 500.0;
/// Minimum number of events from which delivery can be assessed.
const MIN_EVENTS: usize = 5;

/// The arrivals on the streams of the delivery check. A stream that was not requested is empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeliveryTrace {
    /// Arrivals of [`Schedule::SLOW`](crate::Schedule::SLOW).
    pub slow: Vec<Arrival>,
    /// Arrivals of [`Schedule::BURST`](crate::Schedule::BURST).
    pub burst: Vec<Arrival>,
    /// Arrivals of [`Schedule::LONG`](crate::Schedule::LONG); only if
    /// [`needs_long`](Self::needs_long).
    pub long: Vec<Arrival>,
}

/// The limit at which a buffer passes events on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Buffer {
    /// A size in bytes.
    Bytes(u64),
    /// A time in milliseconds.
    Time(f64),
    /// A size in bytes or a time in milliseconds, whichever comes first.
    Either(u64, f64),
    /// The end of the stream.
    All,
}

impl DeliveryTrace {
    /// Returns `true` if most of the first two streams was held back, so that only the long stream
    /// can show the time limit of the buffer.
    pub fn needs_long(&self) -> bool {
        let longest = |flow: &Flow| flow.groups.iter().map(|group| group.wait).fold(0.0, f64::max);
        let [slow, burst, _] = self.flows();
        slow.is_held_back() && slow.typical().is_none() && longest(&burst) >= LONG_WAIT
    }

    /// Returns `true` if the events of one stream were held back. See [`assess`](Self::assess) for
    /// the full assessment.
    pub fn is_held_back(arrivals: &[Arrival]) -> bool {
        Flow::of(arrivals, min_latency(arrivals)).is_held_back()
    }

    fn flows(&self) -> [Flow; 3] {
        let streams = [&self.slow, &self.burst, &self.long];
        let min_latency =
            streams.iter().map(|arrivals| min_latency(arrivals)).fold(f64::INFINITY, f64::min);
        streams.map(|arrivals| Flow::of(arrivals, min_latency))
    }

    /// Assesses how events arrived, compared with how they were sent.
    pub fn assess(&self) -> Finding {
        let check = Check::Delivery;
        if self.slow.len() < MIN_EVENTS {
            return Finding::unknown(check, "too few events arrived to tell");
        }
        let flows = self.flows();
        let [slow, burst, _] = &flows;
        if slow.is_held_back() {
            let measured = match buffer(&flows) {
                Buffer::Bytes(size) => format!("a buffer holds back about {}", format_bytes(size)),
                Buffer::Time(time) => {
                    format!("a buffer holds events back for about {}", format_millis(time))
                }
                Buffer::Either(size, time) => format!(
                    "a buffer holds back about {}, for at most about {}",
                    format_bytes(size),
                    format_millis(time)
                ),
                Buffer::All => {
                    let duration = |stream: &[Arrival]| {
                        let (first, last) = bounds(stream.iter().map(|arrival| arrival.sent));
                        last - first
                    };
                    let longest = duration(&self.slow).max(duration(&self.long));
                    let size: u64 = self.burst.iter().map(|arrival| arrival.bytes).sum();
                    format!(
                        "everything is held back until the stream ends (tested with {} and {})",
                        format_bytes(size),
                        format_millis(longest)
                    )
                }
            };
            return Finding::new(check, Verdict::Bad, measured, [Fault::Buffering]);
        }
        if slow.wait_quantile(0.2) >= COALESCED {
            let wait = format_millis(slow.wait_quantile(0.5));
            let measured = format!("events wait to be sent together, typically for up to {wait}");
            return Finding::new(check, Verdict::Warning, measured, [Fault::Coalescing]);
        }
        let delay = quantile(slow.delays.iter().copied(), 0.9);
        let mut measured = format!("as they are sent, p90 jitter {}", format_millis(delay));
        let burst_delay = burst.delays.last().copied().unwrap_or_default();
        if burst_delay > SLOW_CONNECTION {
            let size: u64 = self.burst.iter().map(|arrival| arrival.bytes).sum();
            let (first, last) = bounds(self.burst.iter().map(|arrival| arrival.arrived));
            let (size, took) = (format_bytes(size), format_millis(last - first));
            measured = format!("{measured}; a burst of {size} took {took}: the connection is slow");
        }
        Finding::good(check, measured)
    }
}

/// Estimates the limit of a buffer from its effect on the slow, the burst and the long stream.
fn buffer([slow, burst, long]: &[Flow; 3]) -> Buffer {
    match (slow.typical(), burst.typical()) {
        (Some(few), Some(many)) => {
            let is_similar = |a: f64, b: f64| a.max(b) <= 2.0 * a.min(b);
            #[expect(clippy::cast_precision_loss, reason = "the comparison is rough")]
            if is_similar(few.bytes as f64, many.bytes as f64) {
                Buffer::Bytes(many.bytes)
            } else if is_similar(few.held, many.held) {
                Buffer::Time(few.held)
            } else {
                Buffer::Either(many.bytes, few.held)
            }
        }
        (Some(few), None) if burst.groups.len() == 1 => Buffer::Time(few.held),
        // Each event of the burst exceeds the limit, so the limit is below 1 kB.
        (Some(few), None) => Buffer::Bytes(few.bytes),
        (None, many) => match (long.typical(), many) {
            (Some(long), _) => Buffer::Time(long.held),
            (None, Some(many)) => Buffer::Bytes(many.bytes),
            (None, None) => Buffer::All,
        },
    }
}

/// Returns the shortest time from sending to arrival, in milliseconds, plus the clock offset.
fn min_latency(arrivals: &[Arrival]) -> f64 {
    let latencies = arrivals.iter().map(|arrival| arrival.arrived - arrival.sent);
    latencies.fold(f64::INFINITY, f64::min)
}

/// The events of a stream, grouped by arrival.
struct Flow {
    groups: Vec<Group>,
    /// The delay of each event beyond the minimum latency, in milliseconds.
    delays: Vec<f64>,
}

/// Events that arrived together.
#[derive(Clone, Copy, Debug)]
struct Group {
    events: usize,
    /// Size in bytes, less half an event: a buffer of bytes need not be full exactly at the end of
    /// the last event.
    bytes: u64,
    /// Time for which the first event waited for the last, in milliseconds.
    wait: f64,
    /// The wait plus one send interval, in milliseconds: an estimate of a buffer's time limit.
    held: f64,
}

impl Flow {
    /// Groups arrivals. `min_latency` is the shortest time from sending to arrival on this path, in
    /// milliseconds, plus the clock offset.
    fn of(arrivals: &[Arrival], min_latency: f64) -> Self {
        let gaps = arrivals.windows(2).map(|pair| pair[1].sent - pair[0].sent);
        let interval = quantile(gaps, 0.5);
        // A buffer may have released the rest because the stream ended. That is one group, even if
        // a busy machine read it in several pieces.
        let end = arrivals.last().map_or(0.0, |last| last.sent) + min_latency - interval / 2.0;
        let together = |one: &Arrival, next: &Arrival| {
            let gap = next.arrived - one.arrived;
            // It was released with the event before, and a hiccup delayed it.
            let was_due = next.sent + min_latency + interval / 2.0 <= one.arrived;
            let hiccup = (3.0 * interval).min(HICCUP);
            one.arrived >= end || gap <= (TOGETHER * interval).max(1.0) || was_due && gap <= hiccup
        };
        let groups = arrivals.chunk_by(together).map(|group| {
            let (first, last) = bounds(group.iter().map(|arrival| arrival.sent));
            let bytes: u64 = group.iter().map(|arrival| arrival.bytes).sum();
            Group {
                events: group.len(),
                bytes: bytes - bytes / (2 * group.len() as u64),
                wait: last - first,
                held: last - first + interval,
            }
        });
        let delays = arrivals.iter().map(|arrival| arrival.arrived - arrival.sent - min_latency);
        Self { groups: groups.collect(), delays: delays.collect() }
    }

    /// Returns a quantile of the time for which events waited, in milliseconds.
    fn wait_quantile(&self, part: f64) -> f64 {
        let each = |group: &Group| std::iter::repeat_n(group.wait, group.events);
        quantile(self.groups.iter().flat_map(each), part)
    }

    fn is_held_back(&self) -> bool {
        self.wait_quantile(0.5) >= HELD_BACK
    }

    /// Returns the median group, weighted by events. The last group is left out, because the end of
    /// the stream may have released it. Returns `None` if no group is left, or if events arrived
    /// one by one.
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

/// Returns the quantile of some values, or 0 if they are empty.
fn quantile(values: impl Iterator<Item = f64>, part: f64) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the index is small and not negative"
    )]
    let index = (values.len() as f64 * part) as usize;
    values.get(index.min(values.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// Returns the least and the greatest of some values.
fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, greatest), value| {
        (least.min(value), greatest.max(value))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::client::Schedule;

    /// A simulated path.
    #[derive(Clone, Debug, Default)]
    struct SimulatedPath {
        /// Size limit of a buffer, in bytes.
        bytes: Option<u64>,
        /// Time limit of a buffer, in milliseconds.
        time: Option<f64>,
        is_held_to_end: bool,
        /// Latency in milliseconds.
        latency: f64,
        /// Extra latency of each event, in milliseconds.
        jitter: Vec<f64>,
        /// Pauses in which nothing arrives: start and duration, in milliseconds.
        stalls: Vec<(f64, f64)>,
        /// Bandwidth in bytes per millisecond.
        rate: Option<f64>,
        /// Clock offset in milliseconds.
        clock: f64,
    }

    impl SimulatedPath {
        #[expect(clippy::cast_precision_loss)]
        fn arrivals(&self, schedule: Schedule) -> Vec<Arrival> {
            let interval = schedule.interval.as_secs_f64() * 1000.0;
            let size = 113 + u64::from(schedule.padding);
            let sent: Vec<f64> =
                (0..schedule.events).map(|number| f64::from(number) * interval).collect();
            // The time at which the buffer releases each event.
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
                // Events stay in order.
                last = last.max(arrived);
                Arrival { sent: sent + self.clock, arrived: last, bytes: size }
            });
            each.collect()
        }

        fn trace(&self) -> DeliveryTrace {
            let [slow, mut burst, mut long] =
                [Schedule::SLOW, Schedule::BURST, Schedule::LONG].map(|one| self.arrivals(one));
            // The streams follow each other.
            for (stream, begins) in [(&mut burst, 3000.0), (&mut long, 6000.0)] {
                for arrival in stream {
                    arrival.sent += begins;
                    arrival.arrived += begins;
                }
            }
            let mut trace = DeliveryTrace { slow, burst, long: Vec::new() };
            if trace.needs_long() {
                trace.long = long;
            }
            trace
        }

        fn assess(&self) -> Finding {
            self.trace().assess()
        }

        fn buffer(&self) -> Buffer {
            buffer(&self.trace().flows())
        }
    }

    fn some_jitter(most: f64) -> impl Strategy<Value = Vec<f64>> {
        proptest::collection::vec(0.0..most, 20)
    }

    #[test]
    fn a_clean_path_delivers_events_as_they_are_sent() {
        let finding =
            SimulatedPath { latency: 40.0, clock: 7e6, ..SimulatedPath::default() }.assess();
        assert_eq!(finding.verdict, Verdict::Good);
        assert_eq!(finding.measured, "as they are sent, p90 jitter 0.0 ms");
    }

    #[test]
    fn each_kind_of_buffer_is_described_with_its_limit() {
        let held = |path: SimulatedPath| {
            let finding = path.assess();
            assert_eq!(
                (finding.verdict, &finding.faults[..]),
                (Verdict::Bad, &[Fault::Buffering][..])
            );
            finding.measured
        };
        assert_eq!(
            held(SimulatedPath { bytes: Some(16 * 1024), ..SimulatedPath::default() }),
            "a buffer holds back about 16 kB"
        );
        assert_eq!(
            held(SimulatedPath { time: Some(4050.0), ..SimulatedPath::default() }),
            "a buffer holds events back for about 5 s"
        );
        assert_eq!(
            held(SimulatedPath {
                time: Some(550.0),
                bytes: Some(4096),
                ..SimulatedPath::default()
            }),
            "a buffer holds back about 4.5 kB, for at most about 600 ms"
        );
        assert_eq!(
            held(SimulatedPath { is_held_to_end: true, ..SimulatedPath::default() }),
            "everything is held back until the stream ends (tested with 128 kB and 12 s)"
        );
    }

    /// Without `option http-no-delay`, `HAProxy` lets the system wait 200 ms for more data to send.
    #[test]
    fn coalescing_is_a_warning() {
        let finding = SimulatedPath { time: Some(205.0), ..SimulatedPath::default() }.assess();
        assert_eq!(finding.verdict, Verdict::Warning);
        assert_eq!(finding.faults, [Fault::Coalescing]);
        assert_eq!(finding.measured, "events wait to be sent together, typically for up to 200 ms");
    }

    #[test]
    fn a_slow_connection_is_not_a_buffer() {
        let finding = SimulatedPath { rate: Some(20.0), ..SimulatedPath::default() }.assess();
        assert_eq!(finding.verdict, Verdict::Good);
        let expected = "took 6.5 s: the connection is slow";
        assert!(finding.measured.ends_with(expected), "{}", finding.measured);
    }

    #[test]
    fn a_stream_that_arrives_at_its_end_in_two_pieces_was_held_back_as_a_whole() {
        let mut trace = SimulatedPath { is_held_to_end: true, ..SimulatedPath::default() }.trace();
        trace.burst[80..].iter_mut().for_each(|arrival| arrival.arrived += 40.0);
        assert!(trace.needs_long());
        let measured = trace.assess().measured;
        assert!(measured.starts_with("everything is held back"), "{measured}");
    }

    #[test]
    fn too_few_events_are_inconclusive() {
        assert_eq!(DeliveryTrace::default().assess().verdict, Verdict::Unknown);
        let slow = SimulatedPath::default().arrivals(Schedule { events: 4, ..Schedule::SLOW });
        assert_eq!(
            DeliveryTrace { slow, ..DeliveryTrace::default() }.assess().verdict,
            Verdict::Unknown
        );
    }

    proptest! {
        #[test]
        fn a_busy_machine_is_not_a_buffer(
            latency in 0.0..500.0,
            clock in -1e6..1e6,
            jitter in some_jitter(25.0),
            stalls in proptest::collection::vec((0.0..2500.0, 0.0..250.0), 0..4),
            rate in proptest::option::of(5.0..1000.0),
        ) {
            let base = SimulatedPath::default();
            let path = SimulatedPath { latency, jitter, stalls, rate, clock, ..base };
            prop_assert_eq!(path.assess().verdict, Verdict::Good);
        }

        #[test]
        fn a_network_with_jitter_is_not_a_buffer(jitter in some_jitter(200.0)) {
            let finding = SimulatedPath { jitter, ..SimulatedPath::default() }.assess();
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
            let (bytes_limit, stalls, base) = (Some(bytes), vec![stall], SimulatedPath::default());
            let path = SimulatedPath { bytes: bytes_limit, latency, jitter, stalls, ..base };
            prop_assert_eq!(path.assess().verdict, Verdict::Bad);
            let stalled = SimulatedPath { stalls: vec![stall, long_stall], ..path.clone() };
            prop_assert_eq!(stalled.assess().verdict, Verdict::Bad);
            let Buffer::Bytes(found) = path.buffer() else {
                return Err(TestCaseError::fail(format!("{:?}", path.buffer())));
            };
            // The event that fills the buffer releases it. A hiccup may have joined two groups.
            prop_assert!((bytes * 7 / 10..=bytes * 21 / 10 + 1100).contains(&found), "{}", found);
        }

        #[test]
        fn a_buffer_of_time_is_found_and_measured(
            time in 450.0..8000.0,
            latency in 0.0..500.0,
            jitter in some_jitter(3.0),
        ) {
            let base = SimulatedPath::default();
            let path = SimulatedPath { time: Some(time), latency, jitter, ..base };
            prop_assert_eq!(path.assess().verdict, Verdict::Bad);
            let Buffer::Time(found) = path.buffer() else {
                return Err(TestCaseError::fail(format!("{:?}", path.buffer())));
            };
            // To within one event.
            let interval = if time < 1900.0 { 100.0 } else { 1000.0 };
            let expected = time * 0.9 - interval..=time * 1.1 + interval;
            prop_assert!(expected.contains(&found), "{}", found);
        }

        #[test]
        fn a_buffer_of_bytes_and_time_is_found(bytes in 2000_u64..20_000, time in 450.0..1500.0) {
            let base = SimulatedPath::default();
            let path = SimulatedPath { bytes: Some(bytes), time: Some(time), ..base };
            prop_assert_eq!(path.assess().verdict, Verdict::Bad);
            prop_assert!(!matches!(path.buffer(), Buffer::All), "{:?}", path.buffer());
        }

        #[test]
        fn a_buffer_of_everything_is_found(
            latency in 0.0..500.0,
            jitter in some_jitter(3.0),
            // The end is read piece by piece.
            rate in proptest::option::of(400.0..2000.0),
        ) {
            let base = SimulatedPath::default();
            let path = SimulatedPath { is_held_to_end: true, latency, jitter, rate, ..base };
            prop_assert_eq!(path.assess().verdict, Verdict::Bad);
            prop_assert_eq!(path.buffer(), Buffer::All);
        }
    }
}
