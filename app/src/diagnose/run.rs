//! A run: asks for the probe as each check needs it, one after the other, the silence beside the rest.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use futures_util::{
    StreamExt as _,
    future::{AbortHandle, abortable, join, select},
    stream::FuturesUnordered,
};
use gloo_net::http::Method;
use gloo_timers::future::sleep;
use leptos::{prelude::*, task::spawn_local};
use send_wrapper::SendWrapper;
use waterclock::diagnose::{
    Check, Delivery, Fault, Finding, PACES, Pace, Path, Protocol, Reader, Report, Verdict,
    judge::{self, AT_ONCE, COMPRESSIBLE},
    recognise,
};

use crate::{
    browser::{self, Answer, Lifecycle, read_probe},
    reactive::effect,
};

/// How long an answer is waited for, besides what it is meant to last.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many streams at once are tried.
const STREAMS: usize = 30;
/// How often it is looked how many have begun.
const LOOK: Duration = Duration::from_millis(50);
/// Said when there is no answer.
const NO_ANSWER: &str = "there was no answer";

/// What there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The page is not awake.
    Idle,
    /// A run can be started.
    Ready,
    Running,
}

/// The run, and what is shown of it.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    /// How long a silence is tried, in seconds.
    pub(crate) silence: RwSignal<String>,
    pub(crate) phase: RwSignal<Phase>,
    /// What was found so far.
    pub(crate) report: RwSignal<Option<Report>>,
    /// What is being looked at.
    pub(crate) running: RwSignal<Vec<Check>>,
    /// How it has ended, or why it could not begin.
    pub(crate) status: RwSignal<String>,
    /// Whether all checks were made.
    pub(crate) is_complete: RwSignal<bool>,
    handle: StoredValue<Option<SendWrapper<AbortHandle>>>,
}

impl Run {
    pub(crate) fn new() -> Self {
        let run = Self {
            silence: RwSignal::new("20".to_owned()),
            phase: RwSignal::new(Phase::Idle),
            report: RwSignal::default(),
            running: RwSignal::default(),
            status: RwSignal::default(),
            is_complete: RwSignal::default(),
            handle: StoredValue::default(),
        };
        effect(move || {
            run.phase.set(Phase::Ready);
            browser::on_lifecycle(move |happened| {
                if happened == Lifecycle::Hidden && run.phase.get_untracked() == Phase::Running {
                    run.stop();
                }
            });
            on_cleanup(move || run.abort());
        });
        run
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
        self.phase.set(Phase::Running);
        self.report.set(None);
        self.is_complete.set(false);
        self.status.set(String::new());
        let (measured, handle) = abortable(self.measure());
        self.handle.set_value(Some(SendWrapper::new(handle)));
        spawn_local(async move {
            let Ok(result) = measured.await else { return };
            // The page may be gone.
            let _ = self.phase.try_set(Phase::Ready);
            let _ = self.running.try_set(Vec::new());
            let _ = self.is_complete.try_set(result.is_ok());
            let summary = self.report.try_with(|report| report.as_ref().map(Report::summary));
            let _ = self.status.try_set(match result {
                Ok(()) => summary.flatten().unwrap_or_default(),
                Err(problem) => problem,
            });
        });
    }

    fn stop(self) {
        self.abort();
        self.phase.set(Phase::Ready);
        self.running.set(Vec::new());
        self.status.set("Stopped before all was looked at.".to_owned());
    }

    /// Closes all that is open.
    fn abort(self) {
        if let Some(Some(handle)) = self.handle.try_get_value() {
            handle.abort();
        }
    }

    async fn measure(self) -> Result<(), String> {
        let first = self.looking_at(&[Check::Protocol], paced(Method::GET, COMPRESSIBLE)).await;
        let first = usable(first)?;
        let seen = first.reader.seen.clone().unwrap_or_default();
        let path = Path {
            client: Protocol::parse(&browser::protocol()),
            server: Protocol::parse(&seen.version),
            intermediaries: recognise(first.headers(), seen.headers()),
        };
        let (client, origin) = (path.client, browser::origin());
        let heartbeat = Duration::from_millis(seen.heartbeat_ms);
        self.report.set(Some(Report {
            url: format!("{origin}/"),
            stream: format!("{origin}{}", browser::PROBE),
            time: browser::time(),
            is_probe: true,
            findings: vec![judge::protocol(path.client, path.server)],
            path,
        }));

        self.headers(&first).await;
        self.times().await;
        // Before the silence, which would be one of them.
        let at_once = self.looking_at(&[Check::StreamsAtOnce], streams_at_once()).await;
        self.tell(judge::streams_at_once(at_once, STREAMS, client, true));
        let silence = self.silence.with_untracked(|seconds| seconds.parse().unwrap_or(20));
        let silence = Duration::from_secs(silence);
        let idle = async {
            let found = self.looking_at(&[Check::Idle], idle(silence, heartbeat)).await;
            self.tell(found);
        };
        let rest = async {
            self.delivery().await;
            let again = self.looking_at(&[Check::Resume], browser::probe_again(PATIENCE)).await;
            self.tell(judge::resume("probe-1", again.as_ref()));
            let (controls, answered) = browser::service_worker();
            self.tell(judge::service_worker(controls, answered));
        };
        join(idle, rest).await;
        Ok(())
    }

    /// Does that, and shows meanwhile what it is for.
    async fn looking_at<T>(self, checks: &'static [Check], work: impl Future<Output = T>) -> T {
        let _ = self.running.try_update(|running| running.extend(checks));
        let done = work.await;
        let _ = self.running.try_update(|running| running.retain(|one| !checks.contains(one)));
        done
    }

    fn tell(self, finding: Finding) {
        let _ = self.report.try_update(|report| {
            if let Some(Report { findings, .. }) = report {
                findings.push(finding);
                findings.sort_by_key(|finding| finding.check);
            }
        });
    }

    async fn headers(self, first: &Answer) {
        // The same once more: an answer that is given out twice was written at one time.
        let again = self.looking_at(&[Check::Headers], paced(Method::GET, COMPRESSIBLE)).await;
        let time = |answer: &Answer| answer.reader.arrivals.first().map(|one| one.sent.to_bits());
        let is_cached = again.is_some_and(|again| time(&again) == time(first));
        self.tell(judge::headers(first.headers(), is_cached, true));
    }

    async fn times(self) {
        let offset = self.looking_at(&[Check::Clock, Check::RoundTrip], browser::offset()).await;
        self.tell(judge::clock(offset));
        let round_trip = offset.map(|offset| millis(offset.round_trip()));
        self.tell(judge::round_trip(round_trip.flatten()));
    }

    /// Delivery, and what is told by the same streams: the first event, the fields, GET and POST.
    async fn delivery(self) {
        let [slow, burst, long] = PACES;
        let together = &[Check::FirstEvent, Check::Fields, Check::Post, Check::Delivery];
        let both = join(paced(Method::GET, slow), paced(Method::POST, slow));
        let (get, post) = self.looking_at(together, both).await;
        let get = get.ok_or_else(|| NO_ANSWER.to_owned()).and_then(told);
        let get = match get {
            Ok(get) => get,
            Err(why) => {
                for check in together {
                    self.tell(Finding::unknown(*check, &*why));
                }
                return;
            }
        };
        let is_held = Delivery::is_held(&get.reader.arrivals);
        let took = get.reader.arrivals.first().and_then(|first| millis(first.arrived - get.asked));
        self.tell(judge::first_event(took.ok_or(PATIENCE + slow.lasts()), is_held));
        self.tell(judge::fields(&get.reader));
        self.tell(match post {
            Some(post) if post.reader.goodbye().is_some() => {
                Finding::unknown(Check::Post, "the server has ended the stream")
            }
            Some(post) if post.status == 200 => {
                judge::post(Ok(Delivery::is_held(&post.reader.arrivals)), is_held)
            }
            Some(post) => judge::post(Err(post.status), is_held),
            None => Finding::unknown(Check::Post, "there was no answer to a POST"),
        });
        if !get.reader.is_complete(slow.events) {
            let words = format!(
                "{} of {} events arrived, or in another order",
                get.reader.numbers.len(),
                slow.events
            );
            let lost = [Fault::EventsLost];
            return self.tell(Finding::wrong(Check::Delivery, Verdict::Bad, words, lost));
        }
        let mut delivery = Delivery { slow: get.reader.arrivals, ..Delivery::default() };
        let more = async {
            let arrivals = |answer: Option<Answer>| answer.map(|of| of.reader.arrivals);
            delivery.burst = arrivals(paced(Method::GET, burst).await).unwrap_or_default();
            if delivery.needs_long() {
                delivery.long = arrivals(paced(Method::GET, long).await).unwrap_or_default();
            }
            delivery.judge()
        };
        let found = self.looking_at(&[Check::Delivery], more).await;
        self.tell(found);
    }
}

/// The first answer, if something can be measured by it.
fn usable(first: Option<Answer>) -> Result<Answer, String> {
    let first = first.ok_or(
        "The server does not answer: it cannot be reached, or other tabs have all the connections that \
         the browser opens to it.",
    )?;
    if first.reader.goodbye().is_some() {
        return Err("The server takes no more streams now. Try again later.".to_owned());
    }
    if first.reader.seen.is_none() {
        let status = first.status;
        return Err(format!(
            "Something else than the server answers: status {status}, and no probe."
        ));
    }
    Ok(first)
}

/// Reads a stream of that pace whole.
async fn paced(method: Method, pace: Pace) -> Option<Answer> {
    read_probe(method, &pace.query(), pace.lasts() + PATIENCE, |_| ()).await
}

/// How many streams could be open together. All are closed then.
async fn streams_at_once() -> usize {
    let begun = &RefCell::new(Vec::new());
    let mut streams: FuturesUnordered<_> = (0..STREAMS)
        .map(|number| async move {
            let is_first = Cell::new(true);
            let note = |reader: &Reader| {
                if let Some(first) = reader.arrivals.first()
                    && is_first.replace(false)
                {
                    begun.borrow_mut().push(first.sent);
                }
            };
            let patience = AT_ONCE.lasts() + PATIENCE;
            // Of one that is asked for twice, browsers wait for the first answer's head: it might be kept.
            let query = format!("{}&number={number}", AT_ONCE.query());
            read_probe(Method::GET, &query, patience, note).await;
        })
        .collect();
    // They are closed when they are dropped.
    let all = async { while streams.next().await.is_some() {} };
    // Those that begin when the first have ended were not open with them.
    let together = async {
        let looks = |time: Duration| 0..time.as_millis() / LOOK.as_millis();
        for _ in looks(PATIENCE) {
            if !begun.borrow().is_empty() {
                break;
            }
            sleep(LOOK).await;
        }
        for _ in looks(AT_ONCE.lasts()) {
            if begun.borrow().len() == STREAMS {
                break;
            }
            sleep(LOOK).await;
        }
    };
    select(Box::pin(all), Box::pin(together)).await;
    judge::open_together(&begun.borrow())
}

/// A silence between two events, the first of which may be held back meanwhile.
async fn idle(tried: Duration, heartbeat: Duration) -> Finding {
    let query = format!("events=2&every={}", tried.as_millis());
    let answer = read_probe(Method::GET, &query, tried + PATIENCE, |_| ()).await;
    match answer.ok_or_else(|| NO_ANSWER.to_owned()).and_then(told) {
        Ok(Answer { reader, asked, ended, has_ended, .. }) => {
            judge::silence(&reader, (asked, ended), has_ended, heartbeat, tried)
        }
        Err(why) => Finding::unknown(Check::Idle, why),
    }
}

/// The answer, unless it tells nothing of the path; then why.
fn told(answer: Answer) -> Result<Answer, String> {
    match judge::refused(answer.status, &answer.reader) {
        Some(why) => Err(why),
        None => Ok(answer),
    }
}

fn millis(millis: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(millis / 1000.0).ok()
}
