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
//! | `conclusion` | the sentences that say what was found; pure |
//! | `setup` | the settings |
//! | `picture`, `table`, `column`, `format` | the results as a picture and as a table |

mod column;
mod comparison;
mod conclusion;
mod format;
mod latency;
mod picture;
mod results;
mod seen_ids;
mod setup;
mod stats;
mod table;

use leptos::{prelude::*, task::spawn_local};

pub use setup::CompareData;

use self::{
    comparison::{Comparison, ComparisonPhase, FROM_LINK},
    conclusion::{headline, paragraph, progress, remarks},
    picture::Picture,
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
    let results = comparison.results;
    let transports = Memo::new(move |_| match &*results.read() {
        Some(results) => results.transports.iter().map(|result| result.transport).collect(),
        None => setup.tracked_transports(),
    });
    view! {
        <main class="compare">
            <Head comparison />
            <SetupForm setup data is_fixed protocol />
            <Conclusion comparison />
            <Picture transports results />
            <Actions comparison />
            <Table transports results />
            <details class="explanation">
                <summary>"What the figures mean"</summary>
                <dl inner_html=EXPLANATION></dl>
            </details>
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

/// The title, the state, and the main button.
#[component]
fn Head(comparison: Comparison) -> impl IntoView {
    let Comparison { phase, results, status, .. } = comparison;
    let start = text(move || {
        match phase.get() {
            ComparisonPhase::NotMounted | ComparisonPhase::Ready => "Start",
            ComparisonPhase::Starting | ComparisonPhase::Running => "Stop",
        }
        .to_owned()
    });
    let state = text(move || {
        match (phase.get(), &*results.read()) {
            (ComparisonPhase::Starting, _) => "connecting",
            (ComparisonPhase::Running, Some(results)) => progress(results).0,
            (_, Some(_)) => "stopped",
            (_, None) => "",
        }
        .to_owned()
    });
    let status = text(move || match status.get() {
        status if status.is_empty() => "Not started".to_owned(),
        status => status,
    });
    view! {
        <div class="head">
            <h1>"Compare"</h1>
            <button
                type="button"
                disabled=move || phase.get() == ComparisonPhase::NotMounted
                prop:textContent=start
                on:click=move |_| comparison.toggle()
            >
                {first_text(start)}
            </button>
            <p class="status" data-state=state prop:textContent=status>
                {first_text(status)}
            </p>
        </div>
    }
}

/// The text in place of the conclusion before the first run.
const INTRODUCTION: &str = "Start a run to see which transport delivers events soonest, and at \
                            what cost. All of them read the same events at the same time.";

/// The conclusion, and problems.
#[component]
fn Conclusion(comparison: Comparison) -> impl IntoView {
    let Comparison { phase, results, status, problem, .. } = comparison;
    let written = move |write: fn(&Results) -> String| results.with(|of| of.as_ref().map(write));
    let main = text(move || written(headline).unwrap_or_else(|| INTRODUCTION.to_owned()));
    let more = text(move || written(remarks).unwrap_or_default());
    // The visible texts change each second, too often for a screen reader.
    let announced = text(move || match phase.get() {
        ComparisonPhase::Starting => "Starting".to_owned(),
        ComparisonPhase::Running => "Running".to_owned(),
        ComparisonPhase::Ready | ComparisonPhase::NotMounted => {
            let status = if *status.read() == FROM_LINK { FROM_LINK } else { "Stopped" };
            written(headline).map_or(String::new(), |headline| format!("{status}. {headline}"))
        }
    });
    view! {
        <div class="conclusion">
            <p class="headline" prop:textContent=main>
                {first_text(main)}
            </p>
            <p prop:textContent=more></p>
            <p class="bad" role="alert" prop:textContent=problem></p>
            <p class="hidden" role="status" prop:textContent=announced></p>
        </div>
    }
}

/// The buttons that cut the connections and copy the results.
#[component]
fn Actions(comparison: Comparison) -> impl IntoView {
    let is_not_running = move || comparison.phase.get() != ComparisonPhase::Running;
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
        <div class="buttons" hidden=is_empty>
            <button
                type="button"
                class="quiet"
                disabled=is_not_running
                on:click=move |_| comparison.cut()
            >
                "Cut the connections"
            </button>
            <button type="button" class="quiet" on:click=move |_| copy("Link", link)>
                "Copy a link"
            </button>
            <button
                type="button"
                class="quiet"
                on:click=move |_| copy("Table", |results| results.to_markdown(&paragraph(results)))
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

/// The meaning of the figures, as HTML.
const EXPLANATION: &str = "<dt>Latency<dd>The time from the server's acceptance of an event to its \
    arrival in this page, for the latest 10,000 events. The sentence at the top has the p50: half \
    of the events are faster. Transports whose p50 differs by at most 1 ms or a fifth count as \
    equal. Events that were late because of a cut do not count. The offset between the server's \
    clock and this machine's is measured with twelve requests, of which the fastest counts, and \
    again each minute and after the machine has slept. The error is at most half of that \
    request's round-trip time. If one direction is slower than the other, no measurement from here \
    can show it.\
    <dt>Picture<dd>The bars show how many events had each latency. The line below them begins at \
    the p50 and gets thinner at the p95 and at the p99; it ends at the max. The dashed line is the \
    theoretical mean of polling: half an interval and a round trip.\
    <dt>Missing, duplicates<dd>By the ids of the events. An event is missing if another transport \
    or the event log has it, and this transport has continued after it. A duplicate was delivered \
    before. The server reports a gap if the log no longer has an event.\
    <dt>Bytes per event<dd>The bytes that the server has counted on the transport's sockets, with \
    headers and framing, without TCP and IP. With TLS, they are counted after decryption. Over \
    HTTP/2, transports share a connection, whose bytes are shown below the table. The browser's \
    count has less: for polls the content, plus 300 bytes for the headers whatever their size is, \
    and nothing for open streams and WebSockets.\
    <dt>Recovery<dd>With “Cut the connections”, the server closes all connections of the \
    comparison, as a failing network would. EventSource then waits for the server's retry time, \
    and this page's WebSocket for 2 s. Polling continues with its next request. A failed long poll \
    waits for 2 s, too. However, if a reused connection fails before the response begins, the \
    browser itself repeats the request at once.";
