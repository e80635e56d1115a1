//! The pages of Waterclock and their components, rendered on the server and in the browser. The
//! first markup is the same on both sides.
//!
//! # Layout
//!
//! | module | what is there |
//! |---|---|
//! | [`shell`], [`Page`] | the document around a page, and which page it is |
//! | [`home`] | the page `/`: the connection's state, the button, and all the parts below |
//! | `feed`, `ring`, `filter` | what has arrived, and which of it the list shows |
//! | `list` | the list |
//! | `pace`, `rate` | events a second, and how long they take |
//! | `tools`, `settings`, `time` | what the reader can do with the list, has chosen, and how times are written |
//! | `details`, `publish`, `help` | dialogs: about one event, to publish one, about all this |
//! | `words` | how states, reasons and gaps are said |
//! | `read` | what the server says in JSON |
//! | `reactive` | effects and derived texts |
//! | [`compare`] | the page `/compare`: the four transports side by side |
//! | `diagnose` | the page `/diagnose`: what is between the browser and the server |
//! | [`browser`] | all that touches the browser's own objects; nothing else may |
//!
//! The core is one line of thought: [`waterclock_leptos`] wraps an `EventSource` in a signal,
//! keeps it open and shares it, `feed` adds each message to a reactive list, `list` shows it.

pub mod browser;
pub mod compare;
mod details;
mod diagnose;
mod feed;
mod filter;
mod help;
pub mod home;
mod list;
mod pace;
mod publish;
mod rate;
mod reactive;
mod read;
mod ring;
mod settings;
mod time;
mod tools;
mod words;

use leptos::{either::EitherOf4, nonce::use_nonce, prelude::*};
use serde::Serialize;
use waterclock::{event::Event, id::EventId};

use crate::read::Handover;

/// Which page it is, and what it knows when it arrives. They are documents of their own: the server, which
/// knows what each shows, says which one it is, and no router has to be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    /// `/`: the latest events, live.
    Home(Snapshot),
    /// `/compare`: the transports side by side.
    Compare(compare::Given),
    /// `/diagnose`: what is between the browser and the server.
    Diagnose,
    /// There is no page of that name.
    NotFound,
}

/// What was there when the page was rendered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// The latest events, oldest first.
    pub events: Vec<Event>,
    /// Where the stream goes on after them.
    pub cursor: Option<EventId>,
    /// The patterns of the topics that the page shows, with spaces between them; as they were asked for,
    /// which may be nonsense. Empty for the default.
    pub topics: String,
    /// The same as the query of a stream: `topic=a&topic=b`.
    pub query: String,
    /// Tabs with the same one share one connection: they read the same topics by the same permission.
    pub group: String,
    /// The server's name and port, as the browser calls it.
    pub host: String,
    /// Whether the reader may not read the events.
    pub is_refused: bool,
    /// Whether the reader may publish.
    pub may_publish: bool,
}

/// Where the files are that the pages need.
#[derive(Clone, Copy, Debug)]
pub struct Files {
    /// Turns the path of a file of the site into its URL.
    pub url: fn(&'static str) -> &'static str,
    /// Whether the other pages have scripts of their own. In a release they have, so that `/` need not load
    /// theirs; what `cargo leptos` builds by itself has one for all.
    pub are_split: bool,
}

/// The document around a page.
pub fn shell(options: LeptosOptions, files: Files, page: Page) -> impl IntoView {
    let url = files.url;
    let [script, wasm] = match page {
        Page::Compare(_) if files.are_split => ["/pkg/compare.js", "/pkg/compare.wasm"],
        Page::Diagnose if files.are_split => ["/pkg/diagnose.js", "/pkg/diagnose.wasm"],
        _ => ["/pkg/waterclock.js", "/pkg/waterclock.wasm"],
    };
    let [script, wasm] = [script, wasm].map(url);
    let (title, description, hydrate) = match page {
        Page::Home(_) => {
            ("Waterclock", "A live stream of events, one timestamp a second.", Some("hydrate"))
        }
        Page::Compare(_) => (
            "Compare · Waterclock",
            "Server-Sent Events, WebSocket, long polling and polling on the same stream, measured.",
            Some("hydrate_compare"),
        ),
        Page::Diagnose => (
            "Diagnose · Waterclock",
            "What is between this browser and the server, and what it does to a stream.",
            Some("hydrate_diagnose"),
        ),
        Page::NotFound => ("Not found · Waterclock", "There is no page here.", None),
    };
    let head = hydrate.map(|hydrate| {
        let start = format!(
            "import start, {{ {hydrate} }} from {script:?};\n\
             await start({{ module_or_path: {wasm:?} }});\n\
             {hydrate}();"
        );
        view! {
            <link rel="modulepreload" href=script />
            <link rel="preload" href=wasm r#as="fetch" r#type="application/wasm" crossorigin="" />
            <script type="module" nonce=use_nonce()>
                {start}
            </script>
        }
    });
    let style = match page {
        Page::Compare(_) => Some("/compare.css"),
        Page::Diagnose => Some("/diagnose.css"),
        Page::Home(_) | Page::NotFound => None,
    };
    let style = style.map(|style| view! { <link rel="stylesheet" href=url(style) /> });
    view! {
        <!DOCTYPE html>
        <html lang="en">
            <head>
                <meta charset="utf-8" />
                <meta name="viewport" content="width=device-width, initial-scale=1" />
                <title>{title}</title>
                <meta name="description" content=description />
                <meta name="color-scheme" content="light dark" />
                // The style sheet's --paper.
                <meta name="theme-color" media="(prefers-color-scheme: light)" content="#fbfaf7" />
                <meta name="theme-color" media="(prefers-color-scheme: dark)" content="#14181a" />
                <link rel="icon" type="image/svg+xml" href=url("/favicon.svg") />
                <link rel="stylesheet" href=url("/pkg/waterclock.css") />
                {style}
                {head}
                <AutoReload options />
            </head>
            <body>
                {match page {
                    Page::Home(snapshot) => {
                        EitherOf4::A(view! { <home::Home given=provided(snapshot) /> })
                    }
                    Page::Compare(given) => {
                        EitherOf4::B(view! { <compare::Compare given=provided(given) /> })
                    }
                    Page::Diagnose => EitherOf4::C(view! { <diagnose::Diagnose /> }),
                    Page::NotFound => EitherOf4::D(view! { <NotFound /> }),
                }}
            </body>
        </html>
    }
}

/// `/` as it is hydrated: what the server has given it is in the page.
pub fn hydrated_home() -> impl IntoView {
    view! { <home::Home given=provided(Snapshot::default()) /> }
}

/// `/compare` as it is hydrated.
pub fn hydrated_compare() -> impl IntoView {
    view! { <compare::Compare given=provided(compare::Given::default()) /> }
}

/// `/diagnose` as it is hydrated.
pub fn hydrated_diagnose() -> impl IntoView {
    view! { <diagnose::Diagnose /> }
}

/// What a page is given by the server; in the browser, what the server has put into the page.
fn provided<T>(given: T) -> T
where
    Handover: codee::Encoder<T, Encoded = String> + codee::Decoder<T, Encoded = str>,
    <Handover as codee::Encoder<T>>::Error: std::fmt::Debug,
    <Handover as codee::Decoder<T>>::Error: std::fmt::Debug,
{
    SharedValue::<T, Handover>::new_with_encoding(move || given).into_inner()
}

/// What is shown where no page is.
#[component]
fn NotFound() -> impl IntoView {
    view! {
        <header>
            <h1>"Not found"</h1>
        </header>
        <main>
            <p class="empty">"There is no page here. " <a href="/">"Go to the clock"</a> "."</p>
        </main>
    }
}
