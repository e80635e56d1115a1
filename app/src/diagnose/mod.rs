//! The page `/diagnose`: the faults of the path between this browser and the server, with their
//! remedies. The rules are those of the crate [`waterclock_diagnose`], as in the terminal.
//!
//! # Layout
//!
//! | module | content |
//! |---|---|
//! | `run` | one run of the diagnosis, and the signals that show it |

mod run;

use leptos::{prelude::*, task::spawn_local};
use waterclock_diagnose::{Check, Fault, Finding, Report, remedies};

use self::run::{DEFAULT_IDLE, DiagnosisPhase, DiagnosisRun};
use crate::{
    browser,
    code::with_code,
    labels::capitalized,
    reactive::{first_text, text},
};

/// The idle periods to choose from, in seconds.
const IDLE_PERIODS: [u64; 5] = [5, DEFAULT_IDLE, 65, 130, 305];

/// The page `/diagnose`.
#[component]
pub(crate) fn Diagnose() -> impl IntoView {
    let run = DiagnosisRun::new();
    let rows = Check::ALL.iter().map(|check| view! { <Row run check=*check /> });
    let path = text(move || {
        run.report.with(|report| {
            let path = report.as_ref().map(|report| report.path.describe());
            path.map_or(String::new(), |path| format!("Path: {path}."))
        })
    });
    view! {
        <main class="diagnose">
            <div class="head">
                <h1>"Diagnose"</h1>
                <p>
                    "Measures the path between this browser and the server: whether events arrive \
                     as they are sent, how long a stream can stay idle, and which headers and SSE \
                     fields get through."
                </p>
            </div>
            <Buttons run />
            <Changing class="path" text=path />
            <ol class="checks">{rows.collect_view()}</ol>
            <Share run />
        </main>
        <footer>
            <p>"In a terminal: " <code>"waterclock diagnose " <Origin /></code></p>
        </footer>
    }
}

/// The origin of this server, which only the browser knows.
#[component]
fn Origin() -> impl IntoView {
    let origin = RwSignal::new("URL".to_owned());
    crate::reactive::effect(move || origin.set(browser::origin()));
    view! { {origin} }
}

/// The controls of a run, and its status.
#[component]
fn Buttons(run: DiagnosisRun) -> impl IntoView {
    let is_running = Signal::derive(move || run.phase.get() == DiagnosisPhase::Running);
    let start = text(move || if is_running.get() { "Stop" } else { "Start" }.to_owned());
    let status = text(move || {
        let report = run.report.read();
        let done = report.as_ref().map_or(0, |report| report.findings.len());
        if is_running.get() {
            format!("{done} of {} checks done", Check::ALL.len())
        } else {
            run.status.get()
        }
    });
    let options = IDLE_PERIODS.map(|seconds| {
        view! {
            <option value=seconds selected=seconds == DEFAULT_IDLE>
                {format!("{seconds} s")}
            </option>
        }
    });
    view! {
        <div class="buttons">
            <button
                type="button"
                disabled=move || run.phase.get() == DiagnosisPhase::NotMounted
                prop:textContent=start
                on:click=move |_| run.toggle()
            >
                {first_text(start)}
            </button>
            <label>
                "Idle period to test "
                <select
                    disabled=is_running
                    on:change=move |event| run.idle.set(event_target_value(&event))
                >
                    {options.collect_view()}
                </select>
            </label>
            <p role="status" prop:textContent=status></p>
        </div>
    }
}

/// One check: its finding, and the remedies for its faults.
#[component]
fn Row(run: DiagnosisRun, check: Check) -> impl IntoView {
    let found = Memo::new(move |_| {
        run.report.with(|report| {
            let report = report.as_ref()?;
            report.findings.iter().find(|finding| finding.check == check).cloned()
        })
    });
    let is_running = move || run.running.read().contains(&check);
    let key = text(move || match &*found.read() {
        Some(Finding { verdict, .. }) => verdict.as_str().to_owned(),
        None if is_running() => "running".to_owned(),
        None => String::new(),
    });
    let verdict = text(move || match &*found.read() {
        Some(Finding { verdict, .. }) => verdict.to_string(),
        None if is_running() => "running…".to_owned(),
        None => String::new(),
    });
    let measured = text(move || match &*found.read() {
        Some(finding) => capitalized(&finding.measured),
        None => check.question().to_owned(),
    });
    let faults = move || {
        let report = run.report.read();
        let faults = found.read().as_ref().map(|finding| finding.faults.clone());
        let faults = faults.unwrap_or_default().into_iter().map(|fault| {
            // A fault of several findings has its remedies only once.
            let report = report.as_ref().filter(|report| is_first(report, fault, check));
            let remedies = report.map(|report| remedies(fault, &report.path.intermediaries));
            let remedies = remedies.unwrap_or_default().into_iter().map(|remedy| {
                let place = remedy.intermediary.map(|one| format!("{}: ", one.title()));
                place.unwrap_or_default() + &remedy.text
            });
            (capitalized(fault.title()), remedies.collect::<Vec<_>>())
        });
        faults.collect::<Vec<_>>()
    };
    view! {
        <li data-check=check.as_str() data-verdict=key>
            <h2>{check.title()}</h2>
            <span class="verdict" prop:textContent=verdict></span>
            <Changing class="measured" text=measured />
            <div class="remedies">
                <For each=faults key=Clone::clone let((fault, remedies))>
                    <h3>{with_code(&fault)}</h3>
                    {remedies
                        .iter()
                        .map(|remedy| view! { <p>{with_code(remedy)}</p> })
                        .collect_view()}
                </For>
            </div>
        </li>
    }
}

/// A paragraph whose text changes. Each text gets an element of its own: a translator may have
/// replaced the text nodes in the one before.
#[component]
fn Changing(class: &'static str, text: Signal<String>) -> impl IntoView {
    view! {
        <For each=move || [text.get()] key=Clone::clone let:text>
            <p class=class>{with_code(&text)}</p>
        </For>
    }
}

/// Returns `true` if `check` is the first one with this fault.
fn is_first(report: &Report, fault: Fault, check: Check) -> bool {
    let has_it = |finding: &&Finding| finding.faults.contains(&fault);
    report.findings.iter().find(has_it).is_none_or(|finding| finding.check == check)
}

/// The buttons that copy the report.
#[component]
fn Share(run: DiagnosisRun) -> impl IntoView {
    let is_hidden = move || !run.is_complete.get();
    let status = RwSignal::new(String::new());
    let copy = move |format: fn(&Report) -> String| {
        let formatted = run.report.with_untracked(|report| report.as_ref().map(format));
        spawn_local(async move {
            let Some(formatted) = formatted else { return };
            let message = if browser::copy(&formatted).await {
                "Copied."
            } else {
                // Browsers allow the clipboard only in secure contexts (HTTPS or localhost).
                browser::download("waterclock-diagnose.txt", &formatted);
                "Saved as a file, because the browser does not let this page copy."
            };
            let _ = status.try_set(message.to_owned());
        });
    };
    let json = |report: &Report| serde_json::to_string_pretty(report).unwrap_or_default();
    view! {
        <div class="buttons share" hidden=is_hidden>
            <button type="button" class="quiet" on:click=move |_| copy(Report::to_string)>
                "Copy as text"
            </button>
            <button type="button" class="quiet" on:click=move |_| copy(json)>
                "Copy as JSON"
            </button>
            <p role="status" prop:textContent=status></p>
        </div>
    }
}
