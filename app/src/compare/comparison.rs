//! A run of the comparison: starts the clients at the current position of the log, collects their
//! statistics, and reads the server's meter.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use leptos::{prelude::*, task::spawn_local};
use send_wrapper::SendWrapper;
use waterclock::{id::EventId, offset::Offset, timestamp::Timestamp, transport::Transport};
use waterclock_leptos::PageTime;

use super::{
    conclusion::progress,
    results::{Results, TransportResult},
    seen_ids::TRANSPORTS,
    setup::{EventSelection, Setup},
    stats::ComparisonStats,
};
use crate::{
    browser::{self, ClientOptions, Lifecycle, MeterCounts, MeterReading, TransportClient},
    reactive::effect,
};

/// Interval between two measurements of the clock offset.
const OFFSET_EVERY: Duration = Duration::from_mins(1);
/// Time that the load continues without a request from this page, in seconds.
const LOAD_SECONDS: u32 = 30;
/// Interval between two requests for the load.
const LOAD_EVERY: Duration = Duration::from_secs(10);
/// Difference between the browser's clocks that shows that the machine has slept, in seconds.
const SLEEP: f64 = 2.0;
/// Message if the server does not answer at all.
const NO_ANSWER: &str = "The server does not answer. It cannot be reached, or other tabs use all \
                         of the browser's connections to it.";
/// Message if the results could not be checked.
const NOT_CHECKED: &str = "The results could not be checked: the event log cannot be read, or no \
                           longer has all of the events.";

/// The phase of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ComparisonPhase {
    /// The page does not run in a browser yet.
    NotMounted,
    /// A run can be started.
    Ready,
    Starting,
    Running,
}

/// The status of results that nothing here has measured.
pub(crate) const FROM_LINK: &str = "Results from a link";

/// The comparison, and the signals that show it.
#[derive(Clone, Copy)]
pub(crate) struct Comparison {
    setup: Setup,
    pub(crate) phase: RwSignal<ComparisonPhase>,
    pub(crate) results: RwSignal<Option<Results>>,
    /// Message about the progress.
    pub(crate) status: RwSignal<String>,
    /// Message about a problem.
    pub(crate) problem: RwSignal<String>,
    measurement: StoredValue<Option<SendWrapper<Measurement>>>,
    /// The running clients. Dropping them closes their connections.
    clients: StoredValue<Option<SendWrapper<Vec<TransportClient>>>>,
    last: StoredValue<LastTimes>,
    /// Number of starts and stops, by which late results of an earlier run are recognized.
    generation: StoredValue<u64>,
}

/// The times of the last periodic actions, by [`browser::now`].
#[derive(Clone, Copy, Debug, Default)]
struct LastTimes {
    offset: PageTime,
    load: PageTime,
    /// The last tick, also by the clock that may stand still while the machine sleeps.
    tick: (PageTime, f64),
    /// `true` while a request is in flight. One is sent at a time.
    is_requesting: bool,
}

/// The state of a run, which outlives the run until its results are checked.
#[derive(Clone)]
struct Measurement {
    meter: String,
    query: String,
    /// Position of the log at the start.
    cursor: EventId,
    began: Timestamp,
    began_at: PageTime,
    ended_at: Option<PageTime>,
    topics: String,
    poll_interval: u64,
    transports: Vec<Transport>,
    is_load: bool,
    stats: Rc<RefCell<ComparisonStats>>,
    offset: Rc<RefCell<Offset>>,
    server: Rc<RefCell<ServerMeter>>,
    browser: Rc<RefCell<[f64; TRANSPORTS]>>,
    in_log: Option<u64>,
    /// `true` if the page was hidden for a time.
    was_hidden: Rc<Cell<bool>>,
}

impl Comparison {
    pub(crate) fn new(setup: Setup) -> Self {
        let comparison = Self {
            setup,
            phase: RwSignal::new(ComparisonPhase::NotMounted),
            results: RwSignal::default(),
            status: RwSignal::default(),
            problem: RwSignal::default(),
            measurement: StoredValue::default(),
            clients: StoredValue::default(),
            last: StoredValue::default(),
            generation: StoredValue::default(),
        };
        effect(move || {
            comparison.phase.set(ComparisonPhase::Ready);
            browser::every_second(move || comparison.tick());
            browser::on_lifecycle(move |event| match event {
                Lifecycle::PageHide => comparison.stop(),
                Lifecycle::PageShow | Lifecycle::Visible => comparison.measure_offset(),
                Lifecycle::Online => {}
            });
        });
        comparison
    }

    /// Shows the results of another run.
    pub(crate) fn show(self, results: Results) {
        let phase = self.phase.get_untracked();
        if matches!(phase, ComparisonPhase::Starting | ComparisonPhase::Running) {
            return;
        }
        self.status.set(FROM_LINK.to_owned());
        self.results.set(Some(results));
    }

    /// Starts a run, or stops it.
    pub(crate) fn toggle(self) {
        if self.phase.get_untracked() == ComparisonPhase::Ready {
            self.start();
        } else {
            self.stop();
        }
    }

    fn start(self) {
        if self.setup.transports().is_empty() {
            return self.problem.set("Choose at least one transport.".to_owned());
        }
        self.setup.save();
        browser::clear_fragment();
        self.problem.set(String::new());
        // The page has its whole height at once, and keeps it when the figures arrive.
        self.results.set(Some(Results::starting(
            browser::time(),
            &self.setup.transports(),
            self.setup.poll_interval.get_untracked(),
            self.setup.description(),
        )));
        self.phase.set(ComparisonPhase::Starting);
        self.generation.update_value(|generation| *generation += 1);
        let generation = self.generation.get_value();
        let meter = browser::random_name();
        spawn_local(async move {
            let prepared = self.prepare(meter.clone()).await;
            // The run may have been stopped meanwhile, or the page may be gone.
            let is_current = self.generation.try_get_value() == Some(generation);
            match prepared {
                Ok(measurement) if is_current => return self.run(measurement),
                Err(problem) if is_current => {
                    self.problem.set(problem);
                    self.end(None);
                }
                _ => {}
            }
            if self.setup.selection.try_get_untracked() == Some(EventSelection::Load) {
                // The load may have been started.
                let _ = browser::end_load(&meter).await;
            }
        });
    }

    /// Collects everything that the clients need.
    async fn prepare(self, meter: String) -> Result<Measurement, String> {
        self.status.set("Starting: measuring the clock offset…".to_owned());
        let offset = browser::measure_offset().await.ok_or(NO_ANSWER)?;
        self.last.update_value(|last| last.offset = browser::now());
        let is_load = self.setup.selection.get_untracked() == EventSelection::Load;
        if is_load {
            self.request_load(&meter).await?;
        }
        let query = self.setup.query();
        let cursor = browser::newest_position(&query).await?;
        Ok(Measurement {
            meter,
            query,
            cursor,
            began: browser::time(),
            began_at: browser::now(),
            ended_at: None,
            topics: self.setup.description(),
            poll_interval: self.setup.poll_interval.get_untracked(),
            transports: self.setup.transports(),
            is_load,
            stats: Rc::new(RefCell::new(ComparisonStats::new())),
            offset: Rc::new(RefCell::new(offset)),
            server: Rc::default(),
            browser: Rc::default(),
            in_log: None,
            was_hidden: Rc::default(),
        })
    }

    async fn request_load(self, meter: &str) -> Result<(), String> {
        self.last.update_value(|last| last.load = browser::now());
        let (rate, size) = (self.setup.rate.get_untracked(), self.setup.size.get_untracked());
        browser::load(meter, &rate, &size, LOAD_SECONDS).await
    }

    /// Starts the clients.
    fn run(self, measurement: Measurement) {
        browser::reset_transferred();
        let clients = measurement.transports.iter().map(|&transport| {
            let options = ClientOptions {
                query: format!("{}&meter={}", measurement.query, measurement.meter),
                cursor: measurement.cursor,
                poll_interval: Duration::from_millis(measurement.poll_interval),
            };
            let stats = Rc::clone(&measurement.stats);
            let offset = Rc::clone(&measurement.offset);
            TransportClient::start(transport, options, move |event| {
                let now = browser::unix_millis() + offset.borrow().millis;
                stats.borrow_mut().record(transport, event, now);
            })
        });
        self.clients.set_value(Some(SendWrapper::new(clients.collect())));
        self.measurement.set_value(Some(SendWrapper::new(measurement)));
        self.phase.set(ComparisonPhase::Running);
        self.refresh();
    }

    /// Stops the clients, and checks the results against the server's meter and the log.
    fn stop(self) {
        self.generation.update_value(|generation| *generation += 1);
        self.clients.set_value(None);
        let measurement = self.measurement();
        self.measurement.set_value(None);
        let Some(mut measurement) = measurement else { return self.end(None) };
        measurement.ended_at = Some(browser::now());
        self.end(Some(measurement.results()));
        self.status.set("Stopped. Checking against the log…".to_owned());
        let generation = self.generation.get_value();
        spawn_local(async move {
            if measurement.is_load {
                // Without this request, the load ends by itself soon.
                let _ = browser::end_load(&measurement.meter).await;
            }
            measurement.read_meters().await;
            measurement.in_log = measurement.check().await;
            if self.generation.try_get_value() == Some(generation) {
                self.results.set(Some(measurement.results()));
                let status = if measurement.in_log.is_some() {
                    "Stopped, and checked against the log"
                } else {
                    self.problem.set(NOT_CHECKED.to_owned());
                    "Stopped, and not checked"
                };
                self.status.set(status.to_owned());
            }
        });
    }

    /// Shows the results of a run that is over, if it has any.
    fn end(self, results: Option<Results>) {
        self.results.set(results);
        self.status.set(String::new());
        self.phase.set(ComparisonPhase::Ready);
    }

    /// Makes the server cut the clients' connections.
    pub(crate) fn cut(self) {
        let Some(measurement) = self.measurement() else { return };
        spawn_local(async move {
            match browser::cut(&measurement.meter).await {
                Ok(()) => measurement.stats.borrow_mut().record_cut(measurement.server_time()),
                Err(problem) => {
                    let _ = self.problem.try_set(problem);
                }
            }
            self.refresh();
        });
    }

    fn tick(self) {
        let (now, unix_millis) = (browser::now(), browser::unix_millis());
        let LastTimes { offset, load, tick: (last, last_millis), is_requesting } =
            self.last.get_value();
        self.last.update_value(|last| last.tick = (now, unix_millis));
        let Some(measurement) = self.measurement() else { return };
        if !browser::is_visible() {
            measurement.was_hidden.set(true);
        }
        let has_slept =
            now.saturating_sub(last).as_secs_f64() > (unix_millis - last_millis) / 1000.0 + SLEEP;
        if has_slept || now >= offset + OFFSET_EVERY {
            self.measure_offset();
        }
        if is_requesting {
            return self.refresh();
        }
        self.last.update_value(|last| last.is_requesting = true);
        let is_load_due = now >= load + LOAD_EVERY;
        spawn_local(async move {
            if measurement.is_load && is_load_due {
                let requested = self.request_load(&measurement.meter).await;
                // Success removes the message about an earlier failure.
                let _ = self.problem.try_set(requested.err().unwrap_or_default());
            }
            measurement.read_meters().await;
            let _ = self.last.try_update_value(|last| last.is_requesting = false);
            self.refresh();
        });
    }

    fn measure_offset(self) {
        let Some(measurement) = self.measurement() else { return };
        if browser::is_visible() {
            self.last.update_value(|last| last.offset = browser::now());
            spawn_local(async move {
                if let Some(offset) = browser::measure_offset().await {
                    measurement.offset.replace(offset);
                }
            });
        }
    }

    /// Shows the current results.
    fn refresh(self) {
        let Some(measurement) = self.measurement() else { return };
        let results = measurement.results();
        self.status.set(progress(&results).1);
        self.results.set(Some(results));
    }

    fn measurement(self) -> Option<Measurement> {
        self.measurement.try_with_value(|measurement| measurement.as_deref().cloned()).flatten()
    }
}

/// The counts of each transport, and of shared connections.
type ServerCounts = [MeterCounts; TRANSPORTS + 1];

/// The readings of the server's meter. The meter restarts at zero if the server restarts.
#[derive(Debug, Default)]
struct ServerMeter {
    /// Sum of the counts before each restart.
    before: ServerCounts,
    last: Option<ServerCounts>,
}

impl ServerMeter {
    fn record(&mut self, counts: ServerCounts) {
        let last = self.last.replace(counts).unwrap_or_default();
        if counts.iter().zip(last).any(|(now, last)| now.requests < last.requests) {
            for (before, last) in self.before.iter_mut().zip(last) {
                *before = before.plus(last);
            }
        }
    }

    fn sum(&self, index: usize) -> Option<MeterCounts> {
        self.last.map(|last| last[index].plus(self.before[index]))
    }

    /// Returns the counts of shared connections, if there are any.
    fn shared(&self) -> Option<MeterCounts> {
        self.sum(TRANSPORTS).filter(|shared| shared.connections > 0)
    }
}

impl Measurement {
    fn seconds(&self) -> u64 {
        let ended_at = self.ended_at.unwrap_or_else(browser::now);
        ended_at.saturating_sub(self.began_at).as_secs()
    }

    /// Returns the time by the server's clock, in milliseconds since 1970.
    fn server_time(&self) -> f64 {
        browser::unix_millis() + self.offset.borrow().millis
    }

    /// Reads the server's meter and the browser's own counts.
    async fn read_meters(&self) {
        let more = browser::transferred(&self.meter);
        for (sum, more) in self.browser.borrow_mut().iter_mut().zip(more) {
            *sum += more;
        }
        if let Some(MeterReading(counts)) = browser::read_meter(&self.meter).await {
            self.server.borrow_mut().record(counts);
        }
    }

    /// Reads the events of the run from the log. Returns their number, or `None` if the log no
    /// longer has all of them.
    async fn check(&self) -> Option<u64> {
        // Later events were not to be delivered.
        let Some(last) = self.stats.borrow().last_event() else { return Some(0) };
        let mut after = self.cursor;
        let mut events = 0;
        loop {
            let url = format!("/poll?{}&last_event_id={after}", self.query);
            let response = browser::poll(url).await.ok()?;
            if response.gap.is_some() || response.events.is_empty() {
                return None;
            }
            for event in &response.events {
                self.stats.borrow_mut().record_in_log(event.id);
                events += 1;
                if event.id == last {
                    return Some(events);
                }
            }
            after = response.cursor;
        }
    }

    fn results(&self) -> Results {
        let Offset { millis: offset, uncertainty } = *self.offset.borrow();
        let now = self.server_time();
        let transports = self.transports.iter().map(|&transport| {
            let (counters, latency, cut) = self.stats.borrow_mut().of(transport, now);
            let is_poll = matches!(transport, Transport::Poll | Transport::LongPoll);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a number of bytes"
            )]
            let browser = is_poll.then(|| self.browser.borrow()[transport as usize] as u64);
            let server = self.server.borrow().sum(transport as usize);
            TransportResult { transport, counters, latency, cut, server, browser }
        });
        Results {
            began: self.began,
            seconds: self.seconds(),
            topics: self.topics.clone(),
            poll_interval: self.poll_interval,
            protocol: browser::protocol(),
            offset,
            uncertainty,
            in_log: self.in_log,
            is_running: self.ended_at.is_none(),
            was_hidden: self.was_hidden.get(),
            transports: transports.collect(),
            shared: self.server.borrow().shared(),
        }
    }
}
