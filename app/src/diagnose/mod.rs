//! The page `/diagnose`: what the path between this browser and the server does to a stream, and what mends it.
//! What is found is judged by [`waterclock_diagnose`], as in a terminal.
//!
//! # Layout
//!
//! | module | what is there |
//! |---|---|
//! | `run` | a run: asks for the probe as each check needs it |

mod run;

use leptos::{prelude::*, task::spawn_local};
use waterclock_diagnose::{Check, Fault, Finding, Report};

use self::run::{Phase, Run};
use crate::{browser, reactive::text};

/// For how long a silence can be tried: in seconds, and in words.
const SILENCES: [(&str, &str); 5] =
    [("5", "5 s"), ("20", "20 s"), ("65", "65 s"), ("130", "130 s"), ("305", "305 s")];

/// The page.
#[component]
pub(crate) fn Diagnose() -> impl IntoView {
    let run = Run::new();
    let rows = Check::ALL.map(|check| view! { <Row run check /> });
    let path = text(move || {
        run.report.with(|report| {
            let path = report.as_ref().map(|report| report.path.words());
            path.map_or(String::new(), |path| format!("On the way: {path}."))
        })
    });
    view! {
        <header>
            <h1>"Diagnose"</h1>
            <p>
                "What is between this page and the server, and what it does to a stream: whether events arrive as \
                 they are sent, what a silence survives, what gets through. "
                <a href="/">"The live stream"</a>
            </p>
        </header>
        <main class="diagnose">
            <Buttons run />
            <p class="path">{move || with_code(&path.read())}</p>
            <ol class="checks">{rows.collect_view()}</ol>
            <Share run />
        </main>
        <footer>
            <noscript>
                <p>"The checks are made by a script, and there is none without JavaScript."</p>
            </noscript>
            <p>"The same in a terminal: " <code>"waterclock diagnose " <Origin /></code></p>
        </footer>
    }
}

/// The address of this server, once the browser is there to tell it.
#[component]
fn Origin() -> impl IntoView {
    let origin = RwSignal::new("URL".to_owned());
    crate::reactive::effect(move || origin.set(browser::origin()));
    view! { {origin} }
}

/// Start, stop, and how long a silence is tried.
#[component]
fn Buttons(run: Run) -> impl IntoView {
    let is_running = Signal::derive(move || run.phase.get() == Phase::Running);
    let start = text(move || if is_running.get() { "Stop" } else { "Start" }.to_owned());
    let status = text(move || {
        let report = run.report.read();
        let done = report.as_ref().map_or(0, |report| report.findings.len());
        if is_running.get() {
            format!("{done} of {} checks are done", Check::ALL.len())
        } else {
            run.status.get()
        }
    });
    let options = SILENCES.map(|(seconds, words)| {
        view! {
            <option value=seconds selected=seconds == "20">
                {words}
            </option>
        }
    });
    view! {
        <div class="buttons">
            <button
                type="button"
                disabled=move || run.phase.get() == Phase::Idle
                on:click=move |_| run.toggle()
            >
                {start}
            </button>
            <label>
                "Longest silence tried "
                <select
                    disabled=is_running
                    on:change=move |event| run.silence.set(event_target_value(&event))
                >
                    {options.collect_view()}
                </select>
            </label>
            <p role="status">{status}</p>
        </div>
    }
}

/// A check: what it found, and what mends that.
#[component]
fn Row(run: Run, check: Check) -> impl IntoView {
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
        Some(Finding { verdict, .. }) => verdict.title().to_owned(),
        None if is_running() => "looking…".to_owned(),
        None => String::new(),
    });
    let measured = text(move || match &*found.read() {
        Some(finding) => sentence(&finding.measured),
        None => check.question().to_owned(),
    });
    let mends = move || {
        let report = run.report.read();
        let faults = found.read().as_ref().map(|finding| finding.faults.clone());
        let faults = faults.unwrap_or_default().into_iter();
        let of_faults = faults.map(|fault| {
            let mends = report.as_ref().filter(|report| is_first(report, fault, check));
            let mends = mends.map(|report| report.mends(fault));
            let mends = mends.unwrap_or_default().into_iter().map(|mend| {
                let of = mend.intermediary.map(|one| format!("{}: ", one.title()));
                view! { <p>{of} {with_code(&mend.text)}</p> }
            });
            view! {
                <h3>{with_code(&sentence(fault.title()))}</h3>
                {mends.collect_view()}
            }
        });
        of_faults.collect_view()
    };
    view! {
        <li data-check=check.as_str() data-verdict=key>
            <h2>{check.title()}</h2>
            <span class="verdict">{verdict}</span>
            <p class="measured">{move || with_code(&measured.read())}</p>
            <div class="mends">{mends}</div>
        </li>
    }
}

/// Whether no check above that one has found that fault: what mends it is said once.
fn is_first(report: &Report, fault: Fault, check: Check) -> bool {
    let has_it = |finding: &&Finding| finding.faults.contains(&fault);
    report.findings.iter().find(has_it).is_none_or(|finding| finding.check == check)
}

/// With a capital letter, unless it begins with code.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// What stands in backticks as code.
fn with_code(text: &str) -> impl IntoView + use<> {
    let pieces = text.split('`').map(str::to_owned).enumerate();
    pieces
        .map(
            |(i, piece)| {
                if i % 2 == 1 {
                    view! { <code>{piece}</code> }.into_any()
                } else {
                    piece.into_any()
                }
            },
        )
        .collect_view()
}

/// What can be done with a report.
#[component]
fn Share(run: Run) -> impl IntoView {
    let has_none = move || !run.is_complete.get();
    let said = RwSignal::new(String::new());
    let copy = move |write: fn(&Report) -> String| {
        let written = run.report.with_untracked(|report| report.as_ref().map(write));
        spawn_local(async move {
            let Some(written) = written else { return };
            let words = if browser::copy(&written).await {
                "Copied."
            } else {
                // Only HTTPS and this machine have a clipboard.
                browser::download("waterclock-diagnose.txt", &written);
                "Saved: the browser lets this page copy nothing."
            };
            let _ = said.try_set(words.to_owned());
        });
    };
    let json = |report: &Report| serde_json::to_string_pretty(report).unwrap_or_default();
    view! {
        <div class="buttons share" hidden=has_none>
            <button type="button" class="quiet" on:click=move |_| copy(Report::to_string)>
                "Copy as text"
            </button>
            <button type="button" class="quiet" on:click=move |_| copy(json)>
                "Copy as JSON"
            </button>
            <p role="status">{said}</p>
        </div>
    }
}
