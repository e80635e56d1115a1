//! The page `/compare`: Server-Sent Events, WebSocket, long polling and polling, measured on the
//! same stream.
//!
//! # Layout
//!
//! | module | contents |
//! |---|---|
//! | `comparison` | a run: the clients, their statistics, and the server's meter |
//! | `stats` | the statistics by transport; pure |
//! | `seen_ids`, `latency` | missing and duplicate events, and latencies; pure |
//! | `results` | the results of a run, as they are shown, linked to, and copied |
//! | `setup` | the form |
//! | `table`, `column`, `plot`, `format` | the table of results |

mod column;
mod comparison;
mod format;
mod latency;
mod plot;
mod results;
mod seen_ids;
mod setup;
mod stats;
mod table;

use leptos::{prelude::*, task::spawn_local};

pub use setup::CompareData;

use self::{
    comparison::{Comparison, ComparisonPhase},
    results::Results,
    setup::{Setup, SetupForm},
    table::Table,
};
use crate::{
    browser,
    reactive::{effect, first_text, text},
};

/// Start of a fragment with results.
const FRAGMENT: &str = "results=";

/// The page.
#[component]
pub(crate) fn Compare(data: CompareData) -> impl IntoView {
    let setup = Setup::new(data);
    let comparison = Comparison::new(setup);
    let protocol = RwSignal::new(String::new());
    effect(move || {
        protocol.set(browser::protocol());
        show_linked(comparison);
        browser::on_fragment(move || show_linked(comparison));
    });
    let is_fixed = Signal::derive(move || comparison.phase.get() != ComparisonPhase::Ready);
    view! {
        <main class="compare">
            <div class="head">
                <h1>"Compare"</h1>
                <p>
                    "The same events over Server-Sent Events, WebSocket, long polling and polling, \
                     at the same time, measured in this browser."
                </p>
            </div>
            <SetupForm setup data is_fixed protocol />
            <Buttons comparison />
            <p class="bad" role="alert" prop:textContent=comparison.problem></p>
            <Table results=comparison.results />
            <Share comparison />
            <Explanation />
        </main>
    }
}

/// Shows the results in the page's address, if it has any.
fn show_linked(comparison: Comparison) {
    let fragment = browser::fragment();
    let json = fragment.strip_prefix(FRAGMENT).and_then(browser::from_base64url);
    if let Some(results) = json.and_then(|json| Results::from_json(&json)) {
        comparison.show(results);
    }
}

/// The buttons that start, stop and cut, and the status.
#[component]
fn Buttons(comparison: Comparison) -> impl IntoView {
    let start = text(move || {
        match comparison.phase.get() {
            ComparisonPhase::NotMounted | ComparisonPhase::Ready => "Start",
            ComparisonPhase::Starting | ComparisonPhase::Running => "Stop",
        }
        .to_owned()
    });
    // The visible status changes each second, too often for a screen reader.
    let announced = text(move || {
        match comparison.phase.get() {
            ComparisonPhase::Starting => "Starting",
            ComparisonPhase::Running => "Running",
            ComparisonPhase::Ready if comparison.results.with(Option::is_some) => "Stopped",
            ComparisonPhase::NotMounted | ComparisonPhase::Ready => "",
        }
        .to_owned()
    });
    let is_not_mounted = move || comparison.phase.get() == ComparisonPhase::NotMounted;
    let is_not_running = move || comparison.phase.get() != ComparisonPhase::Running;
    view! {
        <div class="buttons">
            <button
                type="button"
                disabled=is_not_mounted
                prop:textContent=start
                on:click=move |_| comparison.toggle()
            >
                {first_text(start)}
            </button>
            <button
                type="button"
                class="quiet"
                disabled=is_not_running
                on:click=move |_| comparison.cut()
            >
                "Cut the connections"
            </button>
            <p prop:textContent=comparison.status></p>
            <p class="hidden" role="status" prop:textContent=announced></p>
        </div>
    }
}

/// The buttons that copy the results.
#[component]
fn Share(comparison: Comparison) -> impl IntoView {
    let is_empty = move || comparison.results.with(Option::is_none);
    let message = RwSignal::new(String::new());
    let copy = move |what: &'static str, write: fn(&Results) -> String| {
        let written = comparison.results.with_untracked(|results| results.as_ref().map(write));
        spawn_local(async move {
            let Some(written) = written else { return };
            let text = if browser::copy(&written).await {
                format!("{what} copied.")
            } else {
                browser::download("waterclock-compare.txt", &written);
                format!("{what} saved as a file: the browser does not let this page copy.")
            };
            let _ = message.try_set(text);
        });
    };
    let link = |results: &Results| {
        let results = browser::to_base64url(&results.to_json()).unwrap_or_default();
        browser::address_with_fragment(&format!("{FRAGMENT}{results}"))
    };
    view! {
        <div class="buttons share" hidden=is_empty>
            <button type="button" class="quiet" on:click=move |_| copy("Link", link)>
                "Copy a link"
            </button>
            <button
                type="button"
                class="quiet"
                on:click=move |_| copy("Table", Results::to_markdown)
            >
                "Copy as a table"
            </button>
            <button type="button" class="quiet" on:click=move |_| copy("JSON", Results::to_json)>
                "Copy as JSON"
            </button>
            <p role="status" prop:textContent=message></p>
        </div>
    }
}

/// The meaning of the figures.
#[component]
fn Explanation() -> impl IntoView {
    view! {
        <section class="explanation">
            <h2>"What the figures mean"</h2>
            <dl>
                <dt>"Latency"</dt>
                <dd>
                    "The time from the server's acceptance of an event to its arrival in this \
                     page, for the latest 10,000 events. Events that were late because of a cut do \
                     not count. The offset between the server's clock and this machine's is \
                     measured with twelve requests, of which the fastest counts, and again each \
                     minute and after the machine has slept. The error is at most half of that \
                     request's round-trip time. If one direction is slower than the other, no \
                     measurement from here can show it."
                </dd>
                <dt>"Plot"</dt>
                <dd>
                    "The number of events by latency, on a logarithmic scale with a tick for each \
                     factor of ten. The lines are p50, p95 and p99. The dashed line is the \
                     theoretical mean of polling: half an interval and a round trip."
                </dd>
                <dt>"Missing, duplicates"</dt>
                <dd>
                    "By the ids of the events. An event is missing if another transport or the log \
                     has it, and this transport has continued after it. A duplicate was delivered \
                     before."
                </dd>
                <dt>"Bytes"</dt>
                <dd>
                    "The bytes that the server has counted on the transport's sockets, with \
                     headers and framing, without TCP and IP. With TLS, they are counted where it \
                     is spoken. Over HTTP/2, transports share a connection, whose bytes are shown \
                     below the table. The browser's count has less: for polls the content, plus \
                     300 bytes for the head whatever its size is, and nothing for open streams and \
                     WebSockets."
                </dd>
                <dt>"Cut"</dt>
                <dd>
                    "The server closes all connections of the comparison, like a failing network \
                     would. EventSource then waits for the server's retry time, and this page's \
                     WebSocket for 2 s. Polling continues with its next request. A failed long \
                     poll waits for 2 s, too. However, if a reused connection fails before the \
                     response begins, the browser itself repeats the request at once."
                </dd>
            </dl>
        </section>
    }
}
