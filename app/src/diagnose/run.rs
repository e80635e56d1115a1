//! A run of the checks in the page. What is asked for, and what it means, is [`waterclock_diagnose`]'s.

use std::time::Duration;

use futures_util::future::{AbortHandle, abortable};
use gloo_timers::future::sleep;
use leptos::{prelude::*, task::spawn_local};
use send_wrapper::SendWrapper;
use waterclock_diagnose::{
    Answer, Check, Client, Finding, NoAnswer, Pace, Path, Plan, Protocol, Question, Reader, Report,
    Seen, judge, recognise,
};

use crate::{
    browser::{self, Lifecycle, read_probe},
    reactive::effect,
};

/// How many streams at once are tried.
const STREAMS: usize = 30;

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

    /// How it has ended, or why it could not begin.
    async fn measure(self) -> Result<(), String> {
        browser::forget_requests();
        self.begin(&[Check::Protocol]);
        let first = usable(self.ask(Question::get(Pace::ONE), |_| ()).await)?;
        let seen = first.reader.seen.clone().unwrap_or_default();
        let path = Path {
            client: Protocol::parse(&browser::protocol()),
            server: Protocol::parse(&seen.version),
            intermediaries: recognise(first.headers(), seen.headers()),
        };
        let silence = self.silence.with_untracked(|seconds| seconds.parse().unwrap_or(20));
        let plan =
            Plan { protocol: path.client, silence: Duration::from_secs(silence), streams: STREAMS };
        let origin = browser::origin();
        self.report.set(Some(Report {
            url: format!("{origin}/"),
            stream: format!("{origin}{}", browser::PROBE),
            time: browser::time(),
            is_probe: true,
            findings: Vec::new(),
            path,
        }));
        let was_there = waterclock_diagnose::run(&self, &first, plan).await;
        let (controls, answered) = browser::service_worker();
        self.tell(judge::service_worker(controls, answered));
        was_there.map_err(|why| format!("Not all could be looked at: {why}."))
    }
}

impl Client for Run {
    const IS_BROWSER: bool = true;

    async fn ask(&self, question: Question, note: impl Fn(&Reader)) -> Result<Answer, NoAnswer> {
        read_probe(&question, note).await
    }

    async fn resume(&self) -> Option<Seen> {
        browser::probe_again().await
    }

    async fn sleep(&self, time: Duration) {
        sleep(time).await;
    }

    fn begin(&self, checks: &[Check]) {
        let _ = self.running.try_update(|running| running.extend(checks));
    }

    fn tell(&self, finding: Finding) {
        let _ = self.running.try_update(|running| running.retain(|one| *one != finding.check));
        let _ = self.report.try_update(|report| {
            if let Some(Report { findings, .. }) = report {
                findings.push(finding);
                findings.sort_by_key(|finding| finding.check);
            }
        });
    }
}

/// The first answer, if something can be measured by it.
fn usable(first: Result<Answer, NoAnswer>) -> Result<Answer, String> {
    let first = first.map_err(|_| {
        "The server does not answer: it cannot be reached, or other tabs have all the connections that \
         the browser opens to it."
    })?;
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
