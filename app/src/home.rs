//! The page `/`: the connection's state, the button that stops the stream and starts it again, and
//! the list of what it has said.

use leptos::prelude::*;
use waterclock_diagnose::Protocol;
use waterclock_leptos::{Live, Stream, connection::State};

use crate::{
    Snapshot, browser,
    feed::Feed,
    list::{Counts, List},
    pace::{Pace, PaceView},
    reactive::{effect, text},
    settings::Settings,
    tools::{Tools, shortcuts},
    words::{reason_in_words, sharing_in_words, state_in_words, state_key, title_with},
};

/// A connection that comes and goes is not told more often, in seconds.
const SPEAK_EVERY: u64 = 10;

/// The page.
#[component]
pub(crate) fn Home(given: Snapshot) -> impl IntoView {
    let Snapshot { events, cursor, topics, query, group, host, is_refused, may_publish } = given;
    let title = if topics.is_empty() { "Waterclock".to_owned() } else { topics.clone() };
    let command = command(&host, query.clone());

    let settings = Settings::new();
    let feed = Feed::new(events);
    let pace = Pace::new(settings);
    let live = Live::new(Stream { query, cursor, group }, move |arrived| {
        pace.note(&arrived);
        feed.add(arrived);
    });
    let protocol = RwSignal::new(String::new());
    effect(move || {
        let words = Protocol::parse(&browser::protocol()).map(Protocol::as_str);
        protocol.set(words.unwrap_or_default().to_owned());
    });
    let sharing = text(move || sharing_in_words(live.role(), &live.state(), live.tabs()));
    shortcuts(feed, live, settings);
    view! {
        <header>
            <h1>"Waterclock"</h1>
            <Status live title settings />
            <div class="facts">
                <p class="sharing">{sharing}</p>
                <p class="protocol">{protocol}</p>
                <Counts feed />
                <PaceView pace live />
            </div>
        </header>
        <main>
            <Topics topics />
            <Tools feed settings may_publish />
            <List feed settings is_refused />
        </main>
        <footer>
            <noscript>
                <p>
                    "Without JavaScript this page shows what had happened when you opened it. \
                     Reload it for more, or read the stream in a terminal."
                </p>
            </noscript>
            <p>"The same stream in a terminal: " <code>{command}</code></p>
            <p>
                <a href="/compare">"The same by WebSocket and polling, compared"</a> " · "
                <a href="/diagnose">"What is between you and the server"</a>
            </p>
        </footer>
    }
}

/// How to read the same stream in a terminal.
fn command(host: &str, query: String) -> Signal<String> {
    // Until the browser knows better: behind a proxy, the server does not know what it is called.
    let origin = RwSignal::new(format!("http://{host}"));
    effect(move || origin.set(browser::origin()));
    text(move || match (origin.get(), &*query) {
        (origin, "") => format!("curl -N {origin}/events"),
        (origin, query) => format!("curl -N '{origin}/events?{query}'"),
    })
}

/// How the connection is, and the button.
#[component]
fn Status(live: Live, title: String, settings: Settings) -> impl IntoView {
    let words = text(move || match live.reason() {
        Some(reason) => format!("{}. {}", state_in_words(&live.state()), reason_in_words(&reason)),
        None => state_in_words(&live.state()).to_owned(),
    });
    let is_idle = Signal::derive(move || live.state() == State::Idle);
    let key = text(move || state_key(&live.state()).to_owned());
    let button = text(move || if live.is_wanted() { "Stop" } else { "Connect" }.to_owned());
    let countdown = text(move || countdown(&live.state(), live));
    effect(move || browser::set_title(&title_with(&live.state(), &title)));
    view! {
        <p class="status" data-state=key>
            <span class="state">{words}</span>
            <span class="countdown">{countdown}</span>
        </p>
        <p class="hidden" role="status">{spoken(words, settings.seconds)}</p>
        <button type="button" disabled=is_idle on:click=move |_| live.toggle()>
            {button}
        </button>
    }
}

/// What screen readers say of it: what it is at a full second, and at most every [`SPEAK_EVERY`].
fn spoken(words: Signal<String>, seconds: RwSignal<u64>) -> RwSignal<String> {
    let spoken = RwSignal::new(String::new());
    let last = StoredValue::new(None);
    effect(move || {
        let second = seconds.get();
        let may_speak = last.get_value().is_none_or(|last| second >= last + SPEAK_EVERY);
        let words = words.get_untracked();
        if second > 0 && may_speak && *spoken.read_untracked() != words {
            last.set_value(Some(second));
            spoken.set(words);
        }
    });
    spoken
}

/// How long until the next try. It is not spoken: it changes every second.
fn countdown(state: &State, live: Live) -> String {
    let State::Waiting { until } = *state else { return String::new() };
    format!(". Next try in {} s", until.saturating_sub(live.now()).as_secs() + 1)
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
