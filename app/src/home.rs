//! The page `/`: the connection's state, the button that stops the stream and starts it again, and
//! the list of what it has said.

use std::sync::Arc;

use leptos::prelude::*;
use waterclock::{
    connection::{Connection, Instant, Reason, State},
    event::{Event, Name, Topic},
    notice::{Gap, GapReason, GoodbyeReason},
    timestamp::Timestamp,
};

use crate::{
    Snapshot, browser,
    feed::{Content, Feed, MAX_ROWS, Row},
    publish::Publish,
};

/// The page.
#[component]
pub(crate) fn Home(snapshot: Snapshot) -> impl IntoView {
    // Until the browser knows better: behind a proxy, the server does not know what it is called.
    let origin = RwSignal::new(format!("http://{}", snapshot.host));
    Effect::new(move || origin.set(browser::origin()));
    let query = snapshot.query.clone();
    let command = move || match (origin.get(), &*query) {
        (origin, "") => format!("curl -N {origin}/events"),
        (origin, query) => format!("curl -N '{origin}/events?{query}'"),
    };
    let topics = snapshot.topics.clone();
    let title = if topics.is_empty() { "Waterclock".to_owned() } else { topics.clone() };
    let (is_refused, may_publish) = (snapshot.is_refused, snapshot.may_publish);
    let feed = Feed::new(snapshot);
    view! {
        <header>
            <h1>"Waterclock"</h1>
            <Status feed title />
            <Count feed />
        </header>
        <main>
            <Topics topics />
            {may_publish.then_some(view! { <Publish /> })}
            <List feed is_refused />
        </main>
        <footer>
            <noscript>
                <p>
                    "Without JavaScript this page shows what had happened when you opened it. \
                     Reload it for more, or read the stream in a terminal."
                </p>
            </noscript>
            <p>"The same stream in a terminal: " <code>{command}</code></p>
        </footer>
    }
}

/// How the connection is, and the button.
#[component]
fn Status(feed: Feed, title: String) -> impl IntoView {
    let connection = feed.connection;
    let state = Memo::new(move |_| connection.with(|c| c.state().clone()));
    let reason = Memo::new(move |_| connection.with(|c| c.reason().map(reason_in_words)));
    let is_idle = move || state.get() == State::Idle;
    let is_wanted = Memo::new(move |_| connection.with(Connection::is_wanted));
    Effect::new(move || browser::set_title(&title_with(&state.get(), &title)));
    view! {
        <p class="status" data-state=move || state_key(&state.get())>
            <span role="status">
                {move || state_in_words(&state.get())} {move || reason.get().map(|r| format!(". {r}"))}
            </span>
            {move || seconds_left(&state.get(), feed.now)}
        </p>
        <button type="button" disabled=is_idle on:click=move |_| feed.toggle()>
            {move || if is_wanted.get() { "Stop" } else { "Connect" }}
        </button>
    }
}

/// Which topics are shown. Others are another page, so that each has its own address, and it needs no
/// script.
#[component]
fn Topics(topics: String) -> impl IntoView {
    view! {
        <form class="topics" action="/">
            <label for="topic">"Topics"</label>
            <input
                id="topic"
                name="topic"
                value=topics
                placeholder="clock"
                autocapitalize="none"
                autocomplete="off"
                spellcheck="false"
            />
            <button type="submit" class="quiet">"Show"</button>
        </form>
    }
}

/// How many events there were.
#[component]
fn Count(feed: Feed) -> impl IntoView {
    let rows_were_dropped = Memo::new(move |_| {
        feed.rows.with(|rows| rows.front().is_some_and(|newest| newest.key >= MAX_ROWS as u64))
    });
    let text = move || match (feed.events.get(), rows_were_dropped.get()) {
        (1, _) => "1 event".to_owned(),
        (count, false) => format!("{count} events"),
        (count, true) => format!("{count} events; the list keeps the newest {MAX_ROWS} lines"),
    };
    view! { <p class="count">{text}</p> }
}

/// The rows, newest first.
#[component]
fn List(feed: Feed, is_refused: bool) -> impl IntoView {
    let is_empty = Memo::new(move |_| feed.rows.with(std::collections::VecDeque::is_empty));
    let nothing =
        if is_refused { "These events are not public." } else { "Nothing has happened yet." };
    view! {
        <Show when=move || is_empty.get()>
            <p class="empty">{nothing}</p>
        </Show>
        <ol class="rows" aria-label="Events, newest first">
            <For each=move || feed.rows.get() key=|row| row.key let:row>
                <RowItem row />
            </For>
        </ol>
    }
}

/// One row.
#[component]
fn RowItem(row: Arc<Row>) -> impl IntoView {
    match &row.content {
        Content::Event(event) => event_row(event).into_any(),
        Content::Opened(time) => view! {
            <li class="mark">{time_of_day(*time)} <span>"Stream opened"</span></li>
        }
        .into_any(),
        Content::Gap(gap) => view! {
            <li class="mark gap">{gap_in_words(gap)}</li>
        }
        .into_any(),
    }
}

fn event_row(event: &Event) -> impl IntoView + use<> {
    let about = (event.topic != Topic::clock() || event.name != Name::default())
        .then(|| format!("{} {}", event.topic, event.name.as_str()));
    view! {
        <li class="event" data-id=event.id.to_string()>
            {time_of_day(event.time)}
            <span class="data">{event.data.clone()}</span>
            {about.map(|about| view! { <span class="about">{about}</span> })}
            <code class="id" title=event.id.to_string()>{event.id.sequence}</code>
        </li>
    }
}

/// The time of day in UTC, to the second.
fn time_of_day(time: Timestamp) -> impl IntoView + use<> {
    let text = time.to_string();
    let of_day = text.split_once('T').and_then(|(_, time)| time.get(..8)).map(str::to_owned);
    view! { <time datetime=text>{of_day}</time> }
}

/// The connection's state, in words.
fn state_in_words(state: &State) -> &'static str {
    match state {
        State::Idle => "Not connected",
        State::Connecting => "Connecting",
        State::Live => "Live",
        State::Reconnecting => "Connection lost, trying again",
        State::Stale => "Nothing heard for long, connecting anew",
        State::Waiting { .. } => "No connection",
        State::Stopped => "Stopped",
    }
}

fn gap_in_words(gap: &Gap) -> &'static str {
    match gap.reason {
        GapReason::Expired => "Events are missing here: they are no longer kept.",
        GapReason::OtherEpoch => "The server began a new log. Events may be missing here.",
        GapReason::Future | GapReason::Malformed => {
            "The server does not know where we were. Events may be missing here."
        }
    }
}

fn reason_in_words(reason: &Reason) -> String {
    match reason {
        Reason::Goodbye(GoodbyeReason::Draining) => "The server is stopping".to_owned(),
        Reason::Goodbye(GoodbyeReason::Expired) => "The permission to read has expired".to_owned(),
        Reason::Goodbye(GoodbyeReason::Limit) => {
            "The server has as many streams as it allows".to_owned()
        }
        Reason::Unreachable => "The server cannot be reached".to_owned(),
        Reason::Status { status: 204, .. } => "The server says that there is no more".to_owned(),
        Reason::Status { status, detail: None } => {
            format!("The server answered with status {status}")
        }
        Reason::Status { status, detail: Some(detail) } => {
            format!("The server answered with status {status}: {}", detail.trim_end_matches('.'))
        }
        Reason::ContentType(kind) if kind.is_empty() => {
            "The server answered with something that is not a stream".to_owned()
        }
        Reason::ContentType(kind) => {
            format!("The server answered with {kind}, which is not a stream")
        }
        Reason::Recovered => "The server answers again".to_owned(),
    }
}

/// The document's title: what is shown, and how the connection is, with the mark that the style sheet has for the state.
fn title_with(state: &State, title: &str) -> String {
    let mark = match state {
        State::Idle => return title.to_owned(),
        State::Live => "●",
        State::Connecting | State::Reconnecting | State::Stale => "◌",
        State::Waiting { .. } => "△",
        State::Stopped => "■",
    };
    format!("{mark} {} · {title}", state_in_words(state))
}

/// The state as the style sheet knows it.
fn state_key(state: &State) -> &'static str {
    match state {
        State::Idle => "idle",
        State::Connecting => "connecting",
        State::Live => "live",
        State::Reconnecting => "reconnecting",
        State::Stale => "stale",
        State::Waiting { .. } => "waiting",
        State::Stopped => "stopped",
    }
}

/// How long until the next try. Outside the live region, so that it is not read out every second.
fn seconds_left(state: &State, now: RwSignal<Instant>) -> Option<impl IntoView + use<>> {
    let State::Waiting { until } = *state else { return None };
    let seconds = move || until.saturating_sub(now.get()).as_secs() + 1;
    Some(view! { <span class="countdown">". Next try in " {seconds} " s"</span> })
}
