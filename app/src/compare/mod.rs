//! The page `/compare`: SSE, WebSocket, long polling and polling on the same stream, measured.
//!
//! # Layout
//!
//! | module | what is there |
//! |---|---|
//! | `run` | a run: opens the lanes, counts, and asks the server what it counts |
//! | `stats` | what is known of each lane; pure |
//! | `ids`, `latency` | which events are missing or doubled, and how long they took; pure |
//! | `results` | what a run has found, as it is shown, linked to, and pasted |
//! | `setup` | the form: what is compared |
//! | `table`, `plot` | the results |

mod ids;
mod latency;
mod plot;
mod results;
mod run;
mod setup;
pub(crate) mod stats;
mod table;

use leptos::{prelude::*, task::spawn_local};
use serde::Serialize;
use waterclock_leptos::browser::{FromJson, Json};

use self::{
    results::Results,
    run::{Phase, Run},
    setup::{Setup, SetupForm},
    table::Table,
};
use crate::{
    browser,
    reactive::{effect, text},
};

/// How many lanes there are.
const LANES: usize = 4;

/// What stands before the results in the fragment of an address.
const FRAGMENT: &str = "results=";

/// What the page knows when it arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Given {
    /// Whether the reader may have the server make a load.
    pub may_load: bool,
}

impl FromJson for Given {
    fn from_json(json: &Json) -> Option<Self> {
        Some(Self { may_load: json.is_true("may_load") })
    }
}

/// The page.
#[component]
pub(crate) fn Compare(given: Given) -> impl IntoView {
    let setup = Setup::new(given);
    let run = Run::new(setup);
    let protocol = RwSignal::new(String::new());
    effect(move || {
        protocol.set(browser::protocol());
        show_linked(run);
        browser::on_fragment(move || show_linked(run));
    });
    let is_fixed = Signal::derive(move || run.phase.get() != Phase::Ready);
    view! {
        <header>
            <h1>"Compare"</h1>
            <p>
                "The same events by Server-Sent Events, WebSocket, long polling and polling, at the same time, \
                 measured on the way to you. "
                <a href="/">"The live stream"</a>
            </p>
        </header>
        <main class="compare">
            <SetupForm setup given is_fixed protocol />
            <Buttons run />
            <p class="bad" role="alert">{run.problem}</p>
            <Table results=run.results />
            <Share run />
            <Explanation />
        </main>
        <footer>
            <noscript>
                <p>"The lanes are run by a script, and there is none without JavaScript."</p>
            </noscript>
        </footer>
    }
}

/// Shows the results that the address has, if it has any.
fn show_linked(run: Run) {
    let results = browser::fragment();
    let results = results.strip_prefix(FRAGMENT).and_then(browser::from_base64url);
    if let Some(results) = results.and_then(|json| Results::from_json(&json)) {
        run.show(results);
    }
}

/// Start, stop, cut.
#[component]
fn Buttons(run: Run) -> impl IntoView {
    let start = text(move || {
        match run.phase.get() {
            Phase::Idle | Phase::Ready => "Start",
            Phase::Starting | Phase::Running => "Stop",
        }
        .to_owned()
    });
    // What is seen changes each second, which nobody wants to hear.
    let spoken = text(move || {
        match run.phase.get() {
            Phase::Starting => "Starting",
            Phase::Running => "Running",
            Phase::Ready if run.results.with(Option::is_some) => "Stopped",
            Phase::Idle | Phase::Ready => "",
        }
        .to_owned()
    });
    let is_idle = move || run.phase.get() == Phase::Idle;
    let is_not_running = move || run.phase.get() != Phase::Running;
    view! {
        <div class="buttons">
            <button type="button" disabled=is_idle on:click=move |_| run.toggle()>
                {start}
            </button>
            <button type="button" class="quiet" disabled=is_not_running on:click=move |_| run.cut()>
                "Cut the connections"
            </button>
            <p>{run.status}</p>
            <p class="hidden" role="status">{spoken}</p>
        </div>
    }
}

/// What can be done with results.
#[component]
fn Share(run: Run) -> impl IntoView {
    let has_none = move || run.results.with(Option::is_none);
    let said = RwSignal::new(String::new());
    let copy = move |what: &'static str, write: fn(&Results) -> String| {
        let written = run.results.with_untracked(|results| results.as_ref().map(write));
        spawn_local(async move {
            let Some(written) = written else { return };
            let words = if browser::copy(&written).await {
                format!("{what} copied.")
            } else {
                // Only HTTPS and this machine have a clipboard.
                browser::download("waterclock-compare.txt", &written);
                format!("{what} saved: the browser lets this page copy nothing.")
            };
            let _ = said.try_set(words);
        });
    };
    let link = |results: &Results| {
        let results = browser::to_base64url(&results.to_json()).unwrap_or_default();
        browser::address_with_fragment(&format!("{FRAGMENT}{results}"))
    };
    view! {
        <div class="buttons share" hidden=has_none>
            <button type="button" class="quiet" on:click=move |_| copy("Link", link)>
                "Copy a link to this"
            </button>
            <button type="button" class="quiet" on:click=move |_| copy("Table", Results::to_markdown)>
                "Copy as a table"
            </button>
            <button type="button" class="quiet" on:click=move |_| copy("JSON", Results::to_json)>
                "Copy as JSON"
            </button>
            <p role="status">{said}</p>
        </div>
    }
}

/// What the figures mean.
#[component]
fn Explanation() -> impl IntoView {
    view! {
        <section class="explanation">
            <h2>"What the figures mean"</h2>
            <dl>
                <dt>"Latency"</dt>
                <dd>
                    "From when the server took an event to when this page had it, for the latest 10,000; \
                     those do not count that came late for the button's cut. The server's clock is compared with this machine's by twelve questions, of which the \
                     quickest counts, again each minute and after waking. That is right to half of its round \
                     trip: if one way takes longer than the other, nobody can tell from here."
                </dd>
                <dt>"Plot"</dt>
                <dd>
                    "How many events took how long. Each tick is ten times the one before. Lines: half, \
                     95% and 99% of the events; dashed: the mean that polling has in theory, half its \
                     interval and a round trip."
                </dd>
                <dt>"Missing, doubled"</dt>
                <dd>
                    "By the events' ids: what another lane has brought or the log has, and this lane has \
                     passed without bringing; and what it has brought again."
                </dd>
                <dt>"Bytes"</dt>
                <dd>
                    "What the server has seen cross the socket for the lane, with headers and framing, \
                     without TCP and IP; with TLS, where it is spoken. Over HTTP/2 lanes share a connection: \
                     what crosses it is told below the table. The browser knows less: of polls the content, and 300 bytes for \
                     the head whatever that has; of open streams and WebSockets nothing."
                </dd>
                <dt>"Cut"</dt>
                <dd>
                    "The server closes all connections of the lanes as a network would that fails. \
                     EventSource then waits by itself, as long as the server has told it, and a WebSocket \
                     for 2 s, as this page does. Polling asks again when it would have anyway. A long poll \
                     that fails waits for 2 s, too; but browsers ask again by themselves, at once, if a \
                     connection that was used before fails before the answer begins."
                </dd>
            </dl>
        </section>
    }
}
