//! The course of a diagnosis: it requests the probe for one check after the other. The idle period
//! runs in parallel to the later checks.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    future::poll_fn,
    pin::pin,
    task::Poll,
    time::Duration,
};

use futures_util::{
    StreamExt as _,
    future::{join, select},
    stream::FuturesUnordered,
};
use waterclock::{
    notice::GoodbyeReason,
    offset::{Offset, Sample},
    timestamp::Timestamp,
};

use crate::{
    assess::{self, MAX_START_GAP, MIN_IDLE, NO_RESPONSE},
    check::Check,
    client::{
        FetchError, ProbeClient, ProbeMethod, ProbeRequest, RESPONSE_TIMEOUT, Schedule, StreamEnd,
        StreamResponse,
    },
    delivery::DeliveryTrace,
    event_source,
    finding::Finding,
    format::duration_from_millis,
    probe::ProbeEvent,
    protocol::Protocol,
    stream_reader::{Arrival, StreamReader},
};

/// Number of requests for the server's time.
const CLOCK_SAMPLES: usize = 5;
/// Tolerance for the end of a stream.
const MARGIN: Duration = Duration::from_millis(500);
/// Maximum number of attempts to reach the server again before it counts as gone.
const LIVENESS_ATTEMPTS: usize = 3;
/// Time from one such attempt to the next.
const LIVENESS_INTERVAL: Duration = Duration::from_secs(1);

/// The settings of a diagnosis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiagnosisOptions {
    /// The version of HTTP of the first response, if known.
    pub protocol: Option<Protocol>,
    /// Length of the idle period to test.
    pub idle: Duration,
    /// Number of concurrent streams to try.
    pub streams: usize,
}

/// The reason why a diagnosis could not finish: the server went away. Some of its checks are
/// therefore inconclusive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerLost {
    /// The server no longer responds as it should, with the reason.
    #[error("the server is gone: {0}")]
    Gone(String),
    /// The server was restarted after the first response.
    #[error("the server was restarted during the diagnosis")]
    Restarted,
}

/// Makes all checks that need no more than the probe, and passes the findings to the client.
/// `first` is a response of the probe, by which the client has found the server.
///
/// A fault is reported only if the server still responds afterwards, because a server that goes
/// away looks like a path that cuts streams.
///
/// # Errors
///
/// Returns an error if the server was not there until the end. Checks that it was not there for
/// have the verdict [`Unknown`](crate::Verdict::Unknown).
pub async fn diagnose<C: ProbeClient>(
    client: &C,
    first: &StreamResponse,
    options: DiagnosisOptions,
) -> Result<(), ServerLost> {
    let echo = first.reader.echo.clone().unwrap_or_default();
    let heartbeat = Duration::from_millis(echo.heartbeat_ms);
    let diagnosis = Diagnosis { client, options, heartbeat, first, pings: Cell::default() };
    client.on_finding(assess::protocol(options.protocol, Protocol::parse(&echo.version)));
    client.on_finding(event_source::assess(first));
    diagnosis.single_events().await;
    // Before the idle period, whose stream would be one of the concurrent ones.
    diagnosis.concurrent_streams().await;
    let others = async {
        diagnosis.delivery().await;
        diagnosis.resume().await;
    };
    join(diagnosis.idle(), others).await;
    diagnosis.check_liveness().await
}

/// A diagnosis in progress.
struct Diagnosis<'a, C> {
    client: &'a C,
    options: DiagnosisOptions,
    /// The server's heartbeat interval.
    heartbeat: Duration,
    /// The response by which the client has found the server.
    first: &'a StreamResponse,
    /// Number of requests that tested whether the server still responds.
    pings: Cell<u32>,
}

impl<C: ProbeClient> Diagnosis<'_, C> {
    /// Requests the probe. Returns the reason if there is no response, or none that can be
    /// assessed.
    async fn fetch(&self, request: ProbeRequest) -> Result<StreamResponse, String> {
        let response = self.client.fetch(request, |_| ()).await;
        let response = response.map_err(|_| NO_RESPONSE.to_owned())?;
        assess::refusal(&response).map_or(Ok(response), Err)
    }

    /// Reports a finding. If it has faults, first tests whether the server still responds.
    async fn report(&self, finding: Finding) {
        if finding.faults.is_empty() {
            self.client.on_finding(finding);
        } else {
            self.report_if_alive(finding).await;
        }
    }

    /// Reports a finding that a server that is gone would also explain.
    async fn report_if_alive(&self, finding: Finding) {
        self.client.on_finding(match self.check_liveness().await {
            Ok(()) => finding,
            Err(lost) => Finding::unknown(finding.check, lost.to_string()),
        });
    }

    /// Tests whether the server has been there since the first response.
    async fn check_liveness(&self) -> Result<(), ServerLost> {
        let mut result = self.ping().await;
        // The server may still count a stream that was closed just now, and a browser may still use
        // a dead HTTP/2 connection.
        for _ in 1..LIVENESS_ATTEMPTS {
            if !matches!(result, Err(ServerLost::Gone(_))) {
                break;
            }
            self.client.sleep(LIVENESS_INTERVAL).await;
            result = self.ping().await;
        }
        result
    }

    async fn ping(&self) -> Result<(), ServerLost> {
        self.pings.set(self.pings.get() + 1);
        // The nonce bypasses caches.
        let nonce = Some(format!("{}-{}", self.first.requested_at, self.pings.get()));
        let request = ProbeRequest { nonce, ..ProbeRequest::get(Schedule::SINGLE) };
        let response = self.client.fetch(request, |_| ()).await;
        let response = response.map_err(|_| ServerLost::Gone(NO_RESPONSE.to_owned()))?;
        // A server at its limit is alive.
        if response.reader.goodbye() == Some(GoodbyeReason::Limit) {
            return Ok(());
        }
        if let Some(reason) = assess::refusal(&response) {
            return Err(ServerLost::Gone(reason));
        }
        let Some(echo) = &response.reader.echo else {
            return Err(ServerLost::Gone("something else responds".to_owned()));
        };
        let sent = |response: &StreamResponse| response.reader.arrivals.first().map(|one| one.sent);
        let is_cached = sent(&response) <= sent(self.first);
        let elapsed = response.requested_at - self.first.requested_at;
        let elapsed = duration_from_millis(elapsed).unwrap_or_default();
        match echo.uptime_ms.map(Duration::from_millis) {
            Some(uptime) if uptime < elapsed && !is_cached => Err(ServerLost::Restarted),
            _ => Ok(()),
        }
    }

    /// Makes the checks that need only single events: headers, clock offset and round-trip time.
    async fn single_events(&self) {
        self.client.on_start(&[Check::Headers, Check::Clock, Check::RoundTrip]);
        let mut samples = Vec::new();
        let mut times = BTreeSet::new();
        for _ in 0..CLOCK_SAMPLES {
            let Ok(response) = self.fetch(ProbeRequest::get(Schedule::SINGLE)).await else {
                continue;
            };
            let Some(arrival) = response.reader.arrivals.first() else { continue };
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time")]
            let server = Timestamp::from_millis(arrival.sent as u64);
            let sent = response.requested_at;
            samples.push(Sample { sent, server, received: arrival.arrived });
            times.insert(arrival.sent.to_bits());
        }
        // Two responses of the same time are one response from a cache.
        let is_cached = times.len() < samples.len();
        let request =
            ProbeRequest { accepts_compression: true, ..ProbeRequest::get(Schedule::COMPRESSIBLE) };
        self.report(match self.fetch(request).await {
            Ok(response) => assess::headers(response.headers(), is_cached, true),
            Err(reason) => Finding::unknown(Check::Headers, reason),
        })
        .await;
        // A cached response has an old time.
        let offset = Offset::of(&samples).filter(|_| !is_cached);
        self.report(assess::clock(offset)).await;
        let round_trip = offset.and_then(|offset| duration_from_millis(offset.round_trip()));
        self.report(assess::round_trip(round_trip)).await;
    }

    /// Counts the streams that can be open at the same time, and closes them.
    async fn concurrent_streams(&self) {
        self.client.on_start(&[Check::ConcurrentStreams]);
        let DiagnosisOptions { streams: tried, protocol, .. } = self.options;
        let started = RefCell::new(Vec::new());
        let refusal = Cell::new(None);
        let mut streams: FuturesUnordered<_> = (0..tried)
            .map(async |number| {
                if let Some(reason) = self.open_stream(number, &started).await {
                    refusal.set(Some(reason));
                }
            })
            .collect();
        let mut wait_for = async |count: usize, timeout| {
            let have_started = poll_fn(|context| {
                while let Poll::Ready(Some(())) = streams.poll_next_unpin(context) {}
                let is_over = started.borrow().len() >= count || streams.is_empty();
                if is_over { Poll::Ready(()) } else { Poll::Pending }
            });
            select(have_started, pin!(self.client.sleep(timeout))).await;
        };
        wait_for(1, RESPONSE_TIMEOUT).await;
        // A stream that starts later may have waited for the end of another one.
        wait_for(tried, MAX_START_GAP).await;
        // Closes the streams, which frees their connections for the next checks.
        drop(streams);
        let open = assess::count_concurrent(&started.borrow());
        if open < tried {
            // Waiting streams may have started just as the first ones were closed. Chromium reads
            // the rest of a short response, even if it was cancelled, to reuse the connection.
            self.client.sleep(Schedule::CONCURRENT.duration() + MARGIN).await;
        }
        let finding = if let Some(reason) = refusal.get() {
            assess::refused_streams(open, tried, reason)
        } else {
            assess::concurrent_streams(open, tried, protocol, C::IS_BROWSER)
        };
        self.report(finding).await;
    }

    /// Reads a stream and records the server's time of its first event. Returns the reason if the
    /// server refuses the stream.
    async fn open_stream(
        &self,
        number: usize,
        started: &RefCell<Vec<f64>>,
    ) -> Option<GoodbyeReason> {
        let is_first = Cell::new(true);
        let on_read = |reader: &StreamReader| {
            if let Some(first) = reader.arrivals.first()
                && is_first.replace(false)
            {
                started.borrow_mut().push(first.sent);
            }
        };
        // A browser sends a second request to the same URL only after the response to the first,
        // which it might cache.
        let nonce = Some(number.to_string());
        let request = ProbeRequest { nonce, ..ProbeRequest::get(Schedule::CONCURRENT) };
        self.client.fetch(request, on_read).await.ok()?.reader.goodbye()
    }

    /// Makes the delivery check, and the checks that use the same streams: first event, fields, GET
    /// and POST.
    async fn delivery(&self) {
        const CHECKS: [Check; 4] = [Check::FirstEvent, Check::Fields, Check::Post, Check::Delivery];
        self.client.on_start(&CHECKS);
        let get = ProbeRequest::get(Schedule::SLOW);
        let post = ProbeRequest { method: ProbeMethod::Post, ..get.clone() };
        let post = self.client.fetch(post, |_| ());
        let (response, post) = join(self.fetch(get.clone()), post).await;
        let mut response = match response {
            Ok(response) => response,
            Err(reason) => {
                for check in CHECKS {
                    self.client.on_finding(Finding::unknown(check, &*reason));
                }
                return;
            }
        };
        // A busy machine may hold up one stream, and so may a proxy that still works on streams
        // which were closed before. A fault of the path holds up the next one, too.
        if (assess::is_late(&response) || DeliveryTrace::is_held_back(&response.reader.arrivals))
            && let Ok(again) = self.fetch(get).await
            && again.reader.is_complete(Schedule::SLOW.events)
            && !assess::is_late(&again)
            && !DeliveryTrace::is_held_back(&again.reader.arrivals)
        {
            response = again;
        }
        let is_held_back = DeliveryTrace::is_held_back(&response.reader.arrivals);
        self.report(assess::first_event(&response, is_held_back)).await;
        self.report(assess::fields(&response.reader)).await;
        self.report(assess::post(post.as_ref().ok(), Schedule::SLOW, is_held_back)).await;
        let finding = match assess::lost_events(&response, Schedule::SLOW) {
            Some(lost) => lost,
            None => self
                .burst_and_long(response.reader.arrivals)
                .await
                .unwrap_or_else(|reason| Finding::unknown(Check::Delivery, reason)),
        };
        self.report(finding).await;
    }

    /// Completes the delivery check, given the arrivals of the slow stream. Returns the reason if
    /// there is no response.
    async fn burst_and_long(&self, slow: Vec<Arrival>) -> Result<Finding, String> {
        let mut trace = DeliveryTrace { slow, ..DeliveryTrace::default() };
        let response = self.fetch(ProbeRequest::get(Schedule::BURST)).await?;
        // A slow connection may exceed the timeout.
        if response.end != StreamEnd::TimedOut
            && let Some(lost) = assess::lost_events(&response, Schedule::BURST)
        {
            return Ok(lost);
        }
        trace.burst = response.reader.arrivals;
        if trace.needs_long() {
            trace.long = self.fetch(ProbeRequest::get(Schedule::LONG)).await?.reader.arrivals;
        }
        Ok(trace.assess())
    }

    async fn resume(&self) {
        self.client.on_start(&[Check::Resume]);
        let echo = self.client.resume().await;
        self.report(assess::resume(&ProbeEvent::id(1), echo.as_ref())).await;
    }

    /// Tests an idle period between two events. A buffer may hold back the first one.
    async fn idle(&self) {
        self.client.on_start(&[Check::Idle]);
        let tried = self.options.idle;
        let schedule = Schedule { events: 2, interval: tried, padding: 0 };
        let finding = match self.client.fetch(ProbeRequest::get(schedule), |_| ()).await {
            Ok(response) => assess::idle_stream(&response, self.heartbeat, tried),
            // A buffer held back even the head of the response.
            Err(FetchError::Cut(after)) if after > MIN_IDLE => {
                assess::idle(Some(after.min(tried)), Some(self.heartbeat), tried)
            }
            Err(_) => Finding::unknown(Check::Idle, NO_RESPONSE),
        };
        // If heartbeats come in time, a cut is not a fault, but it needs the server all the same.
        self.report_if_alive(finding).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        sync::Semaphore,
        time::{Instant, sleep, timeout_at},
    };

    use waterclock::sse::Block;

    use super::*;
    use crate::{
        assess::MAX_FIRST_EVENT,
        client::{CutKind, Redirects},
        fault::Fault,
        finding::Verdict,
        probe::RequestEcho,
    };

    /// A client with a simulated server and path.
    struct Simulation {
        began: Instant,
        /// Time at which the server disappears.
        goes_down: Option<Duration>,
        /// Time at which the server is started again.
        comes_up: Option<Duration>,
        /// Idle time after which the path cuts a stream.
        cuts_after: Option<Duration>,
        /// Start and end of a pause in which nothing arrives.
        stall: Option<(Duration, Duration)>,
        /// Number of the next requests for a slow stream that wait in a queue of the path.
        queued: Cell<u32>,
        /// Streams that the path allows at the same time. Others wait.
        connections: Semaphore,
        /// `true` if the path caches the response to a request for one event.
        is_caching: bool,
        cached: RefCell<Option<ProbeEvent>>,
        running: RefCell<BTreeSet<Check>>,
        findings: RefCell<Vec<Finding>>,
    }

    impl Default for Simulation {
        fn default() -> Self {
            Self {
                began: Instant::now(),
                goes_down: None,
                comes_up: None,
                cuts_after: None,
                stall: None,
                queued: Cell::new(0),
                connections: Semaphore::new(100),
                is_caching: false,
                cached: RefCell::default(),
                running: RefCell::default(),
                findings: RefCell::default(),
            }
        }
    }

    impl Simulation {
        fn now(&self) -> f64 {
            self.began.elapsed().as_secs_f64() * 1000.0
        }

        fn uptime(&self) -> Option<Duration> {
            let now = self.began.elapsed();
            let since_restart = self.comes_up.and_then(|time| now.checked_sub(time));
            let is_down = self.goes_down.is_some_and(|time| now >= time);
            since_restart.or((!is_down).then_some(Duration::from_secs(3600) + now))
        }

        /// Returns a request as the server received it, or `None` if the server is down.
        fn echo(&self) -> Option<RequestEcho> {
            Some(RequestEcho {
                version: "HTTP/1.1".to_owned(),
                last_event_id: Some(ProbeEvent::id(1)),
                heartbeat_ms: 1000,
                uptime_ms: Some(u64::try_from(self.uptime()?.as_millis()).unwrap()),
                ..RequestEcho::default()
            })
        }

        /// Reads a stream until its end, or until it is cut.
        async fn read(
            &self,
            schedule: Schedule,
            reader: &mut StreamReader,
            on_read: impl Fn(&StreamReader),
        ) -> StreamEnd {
            let began = Instant::now();
            for number in 1..=schedule.events {
                if number > 1 && self.cuts_after.is_some_and(|after| after < schedule.interval) {
                    sleep(self.cuts_after.unwrap_or_default()).await;
                    return StreamEnd::Cut(CutKind::Unknown);
                }
                let due = began + schedule.interval * (number - 1);
                if let Some(time) = self.goes_down.filter(|time| began < self.began + *time)
                    && due >= self.began + time
                {
                    tokio::time::sleep_until(self.began + time).await;
                    return StreamEnd::Cut(CutKind::Unknown);
                }
                tokio::time::sleep_until(due).await;
                let time = match self.stall {
                    // The event is sent in time, and waits on the path.
                    Some(_) => (due - self.began).as_secs_f64() * 1000.0,
                    None => self.now(),
                };
                let request = if number == 1 { self.echo() } else { None };
                let padding = "x".repeat(schedule.padding as usize);
                let mut event = ProbeEvent { number, time, padding, request };
                if self.is_caching && schedule.events == 1 {
                    event = self.cached.borrow_mut().get_or_insert(event).clone();
                }
                let mut bytes = b": x\n".to_vec();
                let block = Block {
                    id: Some(&ProbeEvent::id(number)),
                    name: Some(ProbeEvent::NAME),
                    retry: Some(Duration::from_secs(1)),
                    data: Some(&serde_json::to_string(&event).unwrap()),
                };
                block.encode(&mut bytes).unwrap();
                if let Some((from, until)) = self.stall
                    && (from..until).contains(&self.began.elapsed())
                {
                    tokio::time::sleep_until(self.began + until).await;
                }
                reader.feed(&bytes, self.now());
                on_read(reader);
            }
            StreamEnd::Complete
        }
    }

    impl ProbeClient for Simulation {
        const IS_BROWSER: bool = false;

        async fn fetch(
            &self,
            request: ProbeRequest,
            on_read: impl Fn(&StreamReader),
        ) -> Result<StreamResponse, FetchError> {
            let requested_at = self.now();
            let until = Instant::now() + request.timeout();
            let permit = timeout_at(until, self.connections.acquire()).await;
            let _permit = permit.map_err(|_| FetchError::TimedOut)?;
            let queued = self.queued.get();
            if request.schedule == Schedule::SLOW && queued > 0 {
                self.queued.set(queued - 1);
                sleep(MAX_FIRST_EVENT).await;
            }
            // The latency of the path.
            sleep(Duration::from_millis(1)).await;
            self.uptime().ok_or(FetchError::Unreachable)?;
            let responded_at = self.now();
            let headers = [
                ("content-type", "text/event-stream"),
                ("cache-control", "no-cache, no-transform"),
            ];
            let mut reader = StreamReader::default();
            let end = timeout_at(until, self.read(request.schedule, &mut reader, on_read)).await;
            Ok(StreamResponse {
                status: 200,
                headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
                redirects: Redirects::default(),
                requested_at,
                responded_at,
                ended_at: self.now(),
                end: end.unwrap_or(StreamEnd::TimedOut),
                reader,
            })
        }

        async fn resume(&self) -> Option<RequestEcho> {
            self.echo()
        }

        async fn sleep(&self, duration: Duration) {
            sleep(duration).await;
        }

        fn on_start(&self, checks: &[Check]) {
            self.running.borrow_mut().extend(checks);
        }

        fn on_finding(&self, finding: Finding) {
            self.running.borrow_mut().remove(&finding.check);
            self.findings.borrow_mut().push(finding);
        }
    }

    /// Runs a diagnosis, and returns one finding for each check, and how the diagnosis ended.
    async fn run(simulation: Simulation) -> (Vec<Finding>, Result<(), ServerLost>) {
        let request = ProbeRequest::get(Schedule::SINGLE);
        let first = simulation.fetch(request, |_| ()).await.unwrap();
        let options = DiagnosisOptions {
            protocol: Some(Protocol::Http11),
            idle: Duration::from_secs(20),
            streams: 8,
        };
        let result = diagnose(&simulation, &first, options).await;
        assert!(simulation.running.borrow().is_empty(), "each check that starts has a finding");
        let findings = simulation.findings.into_inner();
        let mut checks: Vec<_> = findings.iter().map(|finding| finding.check).collect();
        checks.sort();
        let all = Check::ALL.iter().copied().filter(|check| *check != Check::ServiceWorker);
        assert!(checks.into_iter().eq(all));
        (findings, result)
    }

    /// Returns times during each of the checks.
    fn times_during_checks() -> impl Iterator<Item = Duration> {
        let single_events = (2..50).map(Duration::from_millis);
        single_events.chain((1..=46).map(|step| Duration::from_millis(430) * step))
    }

    #[tokio::test(start_paused = true)]
    async fn a_clean_path_has_no_faults() {
        let (findings, result) = run(Simulation::default()).await;
        assert_eq!(result, Ok(()));
        for finding in findings {
            assert_eq!(finding.verdict, Verdict::Good, "{finding}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_held_up_once_is_not_buffered() {
        let stall = Some((Duration::from_millis(300), Duration::from_millis(1600)));
        let (findings, result) = run(Simulation { stall, ..Simulation::default() }).await;
        assert_eq!(result, Ok(()));
        for finding in findings {
            assert_eq!(finding.verdict, Verdict::Good, "{finding}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_first_event_that_is_late_again_is_a_fault() {
        // The GET and the POST are sent together, and the next one after them.
        for (queued, expected) in [(2, &[][..]), (3, &[Fault::LateFirstEvent])] {
            let queued = Cell::new(queued);
            let (findings, result) = run(Simulation { queued, ..Simulation::default() }).await;
            assert_eq!(result, Ok(()));
            let faults: Vec<_> =
                findings.iter().flat_map(|finding| finding.faults.clone()).collect();
            assert_eq!(faults, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_path_that_cuts_idle_streams_has_a_fault() {
        let cuts_after = Some(Duration::from_millis(900));
        let (findings, result) = run(Simulation { cuts_after, ..Simulation::default() }).await;
        assert_eq!(result, Ok(()));
        let faults: Vec<_> = findings.iter().flat_map(|finding| &finding.faults).collect();
        assert_eq!(faults, [&Fault::IdleTimeout]);
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_streams_do_not_disturb_the_checks_after_them() {
        let connections = Semaphore::new(4);
        let (findings, result) = run(Simulation { connections, ..Simulation::default() }).await;
        assert_eq!(result, Ok(()));
        for finding in findings {
            let expected: &[_] = match finding.check {
                Check::ConcurrentStreams => &[Fault::ConnectionLimit],
                _ => &[],
            };
            assert_eq!(finding.faults, expected, "{finding}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cached_response_of_a_young_server_is_not_taken_for_a_restart() {
        let comes_up = Some(Duration::ZERO);
        let simulation = Simulation { is_caching: true, comes_up, ..Simulation::default() };
        let (findings, result) = run(simulation).await;
        assert_eq!(result, Ok(()));
        let faults: Vec<_> = findings.iter().flat_map(|finding| &finding.faults).collect();
        assert_eq!(faults, [&Fault::Cached]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_goes_down_is_not_a_fault_of_the_path() {
        for time in times_during_checks() {
            let simulation = Simulation { goes_down: Some(time), ..Simulation::default() };
            let (findings, result) = run(simulation).await;
            for finding in &findings {
                assert_eq!(finding.faults, [], "{time:?}: {finding}");
            }
            let are_good = findings.iter().all(|finding| finding.verdict == Verdict::Good);
            assert_eq!(result.is_ok(), are_good, "{time:?}: {result:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_of_the_server_is_not_a_fault_of_the_path() {
        for time in times_during_checks() {
            let (goes_down, comes_up) = (Some(time), Some(time));
            let simulation = Simulation { goes_down, comes_up, ..Simulation::default() };
            let (findings, result) = run(simulation).await;
            for finding in &findings {
                assert_eq!(finding.faults, [], "{time:?}: {finding}");
            }
            assert_eq!(result, Err(ServerLost::Restarted), "{time:?}");
        }
    }
}
