//! A run: opens the lanes where the log is now, counts what they bring, and asks the server what it counts.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use leptos::{prelude::*, task::spawn_local};
use send_wrapper::SendWrapper;
use waterclock::{id::EventId, offset::Offset, timestamp::Timestamp, transport::Transport};
use waterclock_leptos::connection::Instant;

use super::{
    LANES,
    results::{LaneResult, Results, millis},
    setup::{Setup, Source},
    stats::{Health, Stats},
};
use crate::{
    browser::{self, Address, Counted, Lane, Lifecycle, MeterReading},
    reactive::effect,
};

/// How often the clocks are compared.
const COMPARE_EVERY: Duration = Duration::from_mins(1);
/// The load goes on for so many seconds without this page.
const LOAD_SECONDS: u32 = 30;
/// How often it is asked for.
const LOAD_EVERY: Duration = Duration::from_secs(10);
/// By so many seconds the browser's clocks go apart while the machine sleeps.
const SLEEP: f64 = 2.0;
/// How long a lane may take to open, in seconds, before something is said.
const PATIENCE: u64 = 5;
/// Said when the server does not answer at all.
const NO_ANSWER: &str = "The server does not answer: it cannot be reached, or other tabs have all the \
                         connections that the browser opens to it.";

/// What there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The page is not awake.
    Idle,
    /// A run can be started.
    Ready,
    Starting,
    Running,
}

/// The run, and what is shown of it.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    setup: Setup,
    pub(crate) phase: RwSignal<Phase>,
    pub(crate) results: RwSignal<Option<Results>>,
    /// How it is going.
    pub(crate) status: RwSignal<String>,
    /// What went wrong.
    pub(crate) problem: RwSignal<String>,
    running: StoredValue<Option<SendWrapper<Running>>>,
    /// Closed when they are dropped: nobody else has them.
    lanes: StoredValue<Option<SendWrapper<Vec<Lane>>>>,
    done: StoredValue<Done>,
    /// Counts the starts, so that what belongs to an earlier one is known.
    number: StoredValue<u64>,
}

/// When things were done last, by [`browser::now`].
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    compared: Instant,
    asked_for_load: Instant,
    /// The last tick, also by the clock that may stand still while the machine sleeps.
    ticked: (Instant, f64),
    /// Whether the server is being asked: once at a time.
    is_asking: bool,
}

/// What a run holds while it goes on, and a little longer.
#[derive(Clone)]
struct Running {
    meter: String,
    query: String,
    /// Where the log was.
    cursor: EventId,
    began: Timestamp,
    began_at: Instant,
    ended_at: Option<Instant>,
    topics: String,
    every: u64,
    transports: Vec<Transport>,
    is_load: bool,
    stats: Rc<RefCell<Stats>>,
    offset: Rc<RefCell<Offset>>,
    server: Rc<RefCell<Meter>>,
    browser: Rc<RefCell<[f64; LANES]>>,
    in_log: Option<u64>,
    /// Whether the page was hidden meanwhile.
    was_hidden: Rc<Cell<bool>>,
}

impl Run {
    pub(crate) fn new(setup: Setup) -> Self {
        let run = Self {
            setup,
            phase: RwSignal::new(Phase::Idle),
            results: RwSignal::default(),
            status: RwSignal::default(),
            problem: RwSignal::default(),
            running: StoredValue::default(),
            lanes: StoredValue::default(),
            done: StoredValue::default(),
            number: StoredValue::default(),
        };
        effect(move || {
            run.phase.set(Phase::Ready);
            browser::every_second(move || run.tick());
            browser::on_lifecycle(move |happened| match happened {
                Lifecycle::Hidden => run.stop(),
                Lifecycle::Shown | Lifecycle::Visible => run.compare_clocks(),
                Lifecycle::Online => {}
            });
        });
        run
    }

    /// Shows what another run has found.
    pub(crate) fn show(self, results: Results) {
        if matches!(self.phase.get_untracked(), Phase::Starting | Phase::Running) {
            return;
        }
        self.status.set("Results of a run, from a link".to_owned());
        self.results.set(Some(results));
    }

    /// Starts, or stops.
    pub(crate) fn toggle(self) {
        if self.phase.get_untracked() == Phase::Ready {
            self.start();
        } else {
            self.stop();
        }
    }

    fn start(self) {
        if self.setup.lanes().is_empty() {
            return self.problem.set("Choose a lane.".to_owned());
        }
        self.setup.keep();
        browser::clear_fragment();
        self.problem.set(String::new());
        self.results.set(None);
        self.phase.set(Phase::Starting);
        self.number.update_value(|number| *number += 1);
        let number = self.number.get_value();
        let meter = browser::draw_meter();
        spawn_local(async move {
            let prepared = self.prepare(meter.clone()).await;
            // It may have been stopped meanwhile, or the page be gone.
            let is_wanted = self.number.try_get_value() == Some(number);
            match prepared {
                Ok(running) if is_wanted => return self.open(running),
                Err(problem) if is_wanted => {
                    self.problem.set(problem);
                    self.status.set(String::new());
                    self.phase.set(Phase::Ready);
                }
                _ => {}
            }
            if self.setup.source.try_get_untracked() == Some(Source::Load) {
                // It may have been asked for.
                let _ = browser::end_load(&meter).await;
            }
        });
    }

    /// Finds out all that has to be known before lanes can be opened.
    async fn prepare(self, meter: String) -> Result<Running, String> {
        self.status.set("Comparing the clocks…".to_owned());
        let offset = browser::offset().await.ok_or(NO_ANSWER)?;
        self.done.update_value(|done| done.compared = browser::now());
        let is_load = self.setup.source.get_untracked() == Source::Load;
        if is_load {
            self.ask_for_load(&meter).await?;
        }
        let query = self.setup.query();
        let cursor = browser::position(&query).await?;
        Ok(Running {
            meter,
            query,
            cursor,
            began: browser::time(),
            began_at: browser::now(),
            ended_at: None,
            topics: self.setup.in_words(),
            every: self.setup.every.get_untracked(),
            transports: self.setup.lanes(),
            is_load,
            stats: Rc::new(RefCell::new(Stats::new())),
            offset: Rc::new(RefCell::new(offset)),
            server: Rc::default(),
            browser: Rc::default(),
            in_log: None,
            was_hidden: Rc::default(),
        })
    }

    async fn ask_for_load(self, meter: &str) -> Result<(), String> {
        self.done.update_value(|done| done.asked_for_load = browser::now());
        let (rate, size) = (self.setup.rate.get_untracked(), self.setup.size.get_untracked());
        browser::load(meter, &rate, &size, LOAD_SECONDS).await
    }

    fn open(self, running: Running) {
        browser::remember_transfers();
        let lanes = running.transports.iter().map(|&transport| {
            let address = Address {
                query: format!("{}&meter={}", running.query, running.meter),
                cursor: running.cursor,
                every: Duration::from_millis(running.every),
            };
            let (stats, offset) = (Rc::clone(&running.stats), Rc::clone(&running.offset));
            browser::open_lane(transport, address, move |news| {
                let now = browser::precise_time() + offset.borrow().millis;
                stats.borrow_mut().note(transport, news, now);
            })
        });
        self.lanes.set_value(Some(SendWrapper::new(lanes.collect())));
        self.running.set_value(Some(SendWrapper::new(running)));
        self.phase.set(Phase::Running);
        self.update();
    }

    /// Closes the lanes, and has a last look at what the server and the log say.
    fn stop(self) {
        self.number.update_value(|number| *number += 1);
        self.lanes.set_value(None);
        let running = self.running();
        self.running.set_value(None);
        self.phase.set(Phase::Ready);
        self.status.set(String::new());
        let Some(mut running) = running else { return };
        running.ended_at = Some(browser::now());
        self.results.set(Some(running.results()));
        self.status.set("Stopped. Looking into the log…".to_owned());
        let number = self.number.get_value();
        spawn_local(async move {
            if running.is_load {
                // It ends by itself, soon.
                let _ = browser::end_load(&running.meter).await;
            }
            running.read_meters().await;
            running.in_log = running.check().await;
            if self.number.try_get_value() == Some(number) {
                self.results.set(Some(running.results()));
                let checked = match running.in_log {
                    Some(_) => "Stopped, and checked against the log",
                    None => {
                        "Stopped, and not checked: the log cannot be read, or no longer has all of it"
                    }
                };
                self.status.set(checked.to_owned());
            }
        });
    }

    /// Has the server cut the lanes' connections.
    pub(crate) fn cut(self) {
        let Some(running) = self.running() else { return };
        spawn_local(async move {
            match browser::cut(&running.meter).await {
                Ok(()) => running.stats.borrow_mut().cut(running.now()),
                Err(problem) => {
                    let _ = self.problem.try_set(problem);
                }
            }
            self.update();
        });
    }

    fn tick(self) {
        let (now, precise) = (browser::now(), browser::precise_time());
        let Done { compared, asked_for_load, ticked: (last, last_precise), is_asking } =
            self.done.get_value();
        self.done.update_value(|done| done.ticked = (now, precise));
        let Some(running) = self.running() else { return };
        if !browser::is_visible() {
            running.was_hidden.set(true);
        }
        let has_slept =
            now.saturating_sub(last).as_secs_f64() > (precise - last_precise) / 1000.0 + SLEEP;
        if has_slept || now >= compared + COMPARE_EVERY {
            self.compare_clocks();
        }
        if is_asking {
            return self.update();
        }
        self.done.update_value(|done| done.is_asking = true);
        let is_due = now >= asked_for_load + LOAD_EVERY;
        spawn_local(async move {
            if running.is_load && is_due {
                let asked = self.ask_for_load(&running.meter).await;
                // Also that there is none any more.
                let _ = self.problem.try_set(asked.err().unwrap_or_default());
            }
            running.read_meters().await;
            let _ = self.done.try_update_value(|done| done.is_asking = false);
            self.update();
        });
    }

    fn compare_clocks(self) {
        let Some(running) = self.running() else { return };
        if browser::is_visible() {
            self.done.update_value(|done| done.compared = browser::now());
            spawn_local(async move {
                if let Some(offset) = browser::offset().await {
                    running.offset.replace(offset);
                }
            });
        }
    }

    /// Shows how it is now.
    fn update(self) {
        let Some(running) = self.running() else { return };
        let results = running.results();
        let is_waiting = |lane: &&LaneResult| lane.figures.health == Health::Connecting;
        let waiting = results.lanes.iter().find(is_waiting);
        self.status.set(match waiting {
            Some(lane) if results.seconds >= PATIENCE => format!(
                "{} has been waiting for its connection for {} s. Other tabs may have them all.",
                super::results::name(lane.transport),
                results.seconds,
            ),
            _ => format!(
                "Running for {} s. The server's clock is {} {} this one, ± {}",
                results.seconds,
                millis(results.offset.abs()),
                if results.offset < 0.0 { "behind" } else { "ahead of" },
                millis(results.uncertainty),
            ),
        });
        self.results.set(Some(results));
    }

    fn running(self) -> Option<Running> {
        self.running.try_with_value(|running| running.as_deref().cloned()).flatten()
    }
}

/// Of each lane, and of what they share.
type Reading = [Counted; LANES + 1];

/// What the server's meter says, which begins anew if the server does.
#[derive(Debug, Default)]
struct Meter {
    /// What it said before it began anew.
    before: Reading,
    last: Option<Reading>,
}

impl Meter {
    fn read(&mut self, counted: Reading) {
        let last = self.last.replace(counted).unwrap_or_default();
        if counted.iter().zip(last).any(|(now, last)| now.requests < last.requests) {
            for (before, last) in self.before.iter_mut().zip(last) {
                *before = before.plus(last);
            }
        }
    }

    fn sum(&self, lane: usize) -> Option<Counted> {
        self.last.map(|last| last[lane].plus(self.before[lane]))
    }

    /// What has crossed connections that lanes share, if they do.
    fn shared(&self) -> Option<Counted> {
        self.sum(LANES).filter(|shared| shared.connections > 0)
    }
}

impl Running {
    fn seconds(&self) -> u64 {
        let ended_at = self.ended_at.unwrap_or_else(browser::now);
        ended_at.saturating_sub(self.began_at).as_secs()
    }

    /// The time, by the server's clock.
    fn now(&self) -> f64 {
        browser::precise_time() + self.offset.borrow().millis
    }

    /// Asks the server and the browser what they have counted.
    async fn read_meters(&self) {
        let more = browser::transferred(&self.meter);
        for (sum, more) in self.browser.borrow_mut().iter_mut().zip(more) {
            *sum += more;
        }
        if let Some(MeterReading(counted)) = browser::read_meter(&self.meter).await {
            self.server.borrow_mut().read(counted);
        }
    }

    /// Reads in the log what the lanes have read; how many events that are, if it has all of them.
    async fn check(&self) -> Option<u64> {
        // What comes after that, no lane was to bring.
        let Some(furthest) = self.stats.borrow().furthest() else { return Some(0) };
        let mut after = self.cursor;
        let mut events = 0;
        loop {
            let url = format!("/poll?{}&last_event_id={after}", self.query);
            let polled = browser::poll(&url).await?;
            if polled.gap.is_some() || polled.events.is_empty() {
                return None;
            }
            for event in &polled.events {
                self.stats.borrow_mut().is_in_log(event.id);
                events += 1;
                if event.id == furthest {
                    return Some(events);
                }
            }
            after = polled.cursor;
        }
    }

    fn results(&self) -> Results {
        let Offset { millis: offset, uncertainty } = *self.offset.borrow();
        let now = self.now();
        let lanes = self.transports.iter().map(|&transport| {
            let (figures, latency, cut) = self.stats.borrow_mut().of(transport, now);
            let i = Transport::ALL.iter().position(|other| *other == transport);
            let i = i.unwrap_or_default();
            let is_poll = matches!(transport, Transport::Poll | Transport::LongPoll);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a number of bytes"
            )]
            let browser = is_poll.then(|| self.browser.borrow()[i] as u64);
            let server = self.server.borrow().sum(i);
            LaneResult { transport, figures, latency, cut, server, browser }
        });
        Results {
            began: self.began,
            seconds: self.seconds(),
            topics: self.topics.clone(),
            every: self.every,
            protocol: browser::protocol(),
            offset,
            uncertainty,
            in_log: self.in_log,
            is_running: self.ended_at.is_none(),
            was_hidden: self.was_hidden.get(),
            lanes: lanes.collect(),
            shared: self.server.borrow().shared(),
        }
    }
}
