//! One run of the diagnosis in the page. The rules are those of the crate [`waterclock_diagnose`].

use std::time::Duration;

use futures_util::future::abortable;
use gloo_timers::future::sleep;
use leptos::{prelude::*, task::spawn_local};
use send_wrapper::SendWrapper;
use waterclock_diagnose::{
    Check, DiagnosisOptions, FetchError, Finding, PathInfo, ProbeClient, ProbeRequest, Protocol,
    Report, RequestEcho, Schedule, StreamReader, StreamResponse, assess, detect_intermediaries,
    diagnose,
};

use crate::{
    browser::{self, Held, Lifecycle},
    reactive::effect,
};

/// Number of concurrent streams to try.
const STREAMS: usize = 30;
/// Default length of the idle period to test, in seconds.
pub(super) const DEFAULT_IDLE: u64 = 20;

/// The state of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DiagnosisPhase {
    /// The page does not run in a browser yet.
    NotMounted,
    /// A run can be started.
    Ready,
    Running,
}

/// A run, and the signals that show it.
#[derive(Clone, Copy)]
pub(super) struct DiagnosisRun {
    /// Length of the idle period to test, in seconds.
    pub(super) idle: RwSignal<String>,
    pub(super) phase: RwSignal<DiagnosisPhase>,
    /// The report, with the findings so far.
    pub(super) report: RwSignal<Option<Report>>,
    /// The checks that are in progress.
    pub(super) running: RwSignal<Vec<Check>>,
    /// The summary, or the reason why the run could not start or finish.
    pub(super) status: RwSignal<String>,
    /// `true` if all checks were made.
    pub(super) is_complete: RwSignal<bool>,
    /// The current run. Dropping it aborts the run.
    current: StoredValue<Option<SendWrapper<Held>>>,
}

impl DiagnosisRun {
    pub(super) fn new() -> Self {
        let run = Self {
            idle: RwSignal::new(DEFAULT_IDLE.to_string()),
            phase: RwSignal::new(DiagnosisPhase::NotMounted),
            report: RwSignal::default(),
            running: RwSignal::default(),
            status: RwSignal::default(),
            is_complete: RwSignal::default(),
            current: StoredValue::default(),
        };
        effect(move || {
            run.phase.set(DiagnosisPhase::Ready);
            browser::on_lifecycle(move |event| {
                let is_running = run.phase.get_untracked() == DiagnosisPhase::Running;
                if event == Lifecycle::PageHide && is_running {
                    run.stop();
                }
            });
            on_cleanup(move || run.abort());
        });
        run
    }

    /// Starts a run, or stops the current one.
    pub(super) fn toggle(self) {
        if self.phase.get_untracked() == DiagnosisPhase::Ready {
            self.start();
        } else {
            self.stop();
        }
    }

    fn start(self) {
        self.phase.set(DiagnosisPhase::Running);
        self.report.set(None);
        self.is_complete.set(false);
        self.status.set(String::new());
        let (measurement, handle) = abortable(self.measure());
        self.current.set_value(Some(SendWrapper::new(Held::new(move || handle.abort()))));
        spawn_local(async move {
            let Ok(result) = measurement.await else { return };
            // The signals may be gone, together with the page.
            let _ = self.phase.try_set(DiagnosisPhase::Ready);
            let _ = self.running.try_set(Vec::new());
            let _ = self.is_complete.try_set(result.is_ok());
            let summary =
                self.report.try_with_untracked(|report| report.as_ref().map(Report::summary));
            let _ = self.status.try_set(match result {
                Ok(()) => summary.flatten().unwrap_or_default(),
                Err(problem) => problem,
            });
        });
    }

    fn stop(self) {
        self.abort();
        self.phase.set(DiagnosisPhase::Ready);
        self.running.set(Vec::new());
        self.status.set("Stopped before all checks were done.".to_owned());
    }

    /// Closes all streams.
    fn abort(self) {
        let _ = self.current.try_set_value(None);
    }

    /// Makes all checks. Returns the reason if the run could not start or finish.
    async fn measure(self) -> Result<(), String> {
        browser::clear_resource_timings();
        self.on_start(&[Check::Protocol]);
        let first = usable(self.fetch(ProbeRequest::get(Schedule::SINGLE), |_| ()).await)?;
        let echo = first.reader.echo.clone().unwrap_or_default();
        let path = PathInfo {
            client: Protocol::parse(&browser::protocol()),
            server: Protocol::parse(&echo.version),
            intermediaries: detect_intermediaries(first.headers(), echo.headers()),
        };
        let idle = self.idle.with_untracked(|seconds| seconds.parse().unwrap_or(DEFAULT_IDLE));
        let options = DiagnosisOptions {
            protocol: path.client,
            idle: Duration::from_secs(idle),
            streams: STREAMS,
        };
        let origin = browser::origin();
        self.report.set(Some(Report {
            url: format!("{origin}/"),
            stream: format!("{origin}{}", browser::PROBE),
            time: browser::time(),
            is_probe: true,
            findings: Vec::new(),
            path,
        }));
        let result = diagnose(&self, &first, options).await;
        let (is_controlled, is_intercepted) = browser::service_worker();
        self.on_finding(assess::service_worker(is_controlled, is_intercepted));
        result.map_err(|lost| format!("Not all checks could be completed: {lost}."))
    }
}

impl ProbeClient for DiagnosisRun {
    const IS_BROWSER: bool = true;

    async fn fetch(
        &self,
        request: ProbeRequest,
        on_read: impl Fn(&StreamReader),
    ) -> Result<StreamResponse, FetchError> {
        browser::fetch_probe(&request, on_read).await
    }

    async fn resume(&self) -> Option<RequestEcho> {
        browser::resume_probe().await
    }

    async fn sleep(&self, duration: Duration) {
        sleep(duration).await;
    }

    fn on_start(&self, checks: &[Check]) {
        let _ = self.running.try_update(|running| running.extend(checks));
    }

    fn on_finding(&self, finding: Finding) {
        let _ = self.running.try_update(|running| running.retain(|one| *one != finding.check));
        let _ = self.report.try_update(|report| {
            if let Some(Report { findings, .. }) = report {
                findings.push(finding);
                findings.sort_by_key(|finding| finding.check);
            }
        });
    }
}

/// Returns the first response if it is one of the probe, or else the reason in words.
fn usable(first: Result<StreamResponse, FetchError>) -> Result<StreamResponse, String> {
    let first = first.map_err(|_| {
        "The server does not respond: it cannot be reached, or other tabs use all connections that \
         the browser opens to it."
    })?;
    if first.reader.goodbye().is_some() {
        return Err("The server accepts no more streams at the moment. Try again later.".to_owned());
    }
    if first.reader.echo.is_none() {
        let status = first.status;
        return Err(format!(
            "The response does not come from the server's probe (status {status})."
        ));
    }
    Ok(first)
}
