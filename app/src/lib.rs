//! The pages of Waterclock and their components, rendered on the server and in the browser. The
//! first markup is the same on both sides.
//!
//! # Layout
//!
//! | module | what is there |
//! |---|---|
//! | [`shell`], [`App`], [`Page`] | the document, what is in it, and which page it is |
//! | `home` | the page `/`: the connection's state, the button, and all the parts below |
//! | [`live`] | the stream, in signals: opened, kept open, shared among tabs |
//! | `tabs` | what tabs say to each other, as text |
//! | `feed`, `ring`, `filter` | what has arrived, and which of it the list shows |
//! | `list` | the list |
//! | `pace`, `rate` | events a second, and how long they take |
//! | `tools`, `settings`, `time` | what the reader can do with the list, has chosen, and how times are written |
//! | `details`, `publish`, `help` | dialogs: about one event, to publish one, about all this |
//! | `words` | how states, reasons and gaps are said |
//! | `read` | what the server says in JSON |
//! | `reactive` | effects and derived texts |
//! | [`browser`] | all that touches the browser's own objects; nothing else may |
//!
//! The core is one line of thought: [`browser::event_source`] wraps an `EventSource` in a signal,
//! [`live`] keeps it open and shares it, `feed` adds each message to a reactive list, `list` shows it.

pub mod browser;
mod details;
mod feed;
mod filter;
mod help;
mod home;
mod list;
pub mod live;
mod pace;
mod publish;
mod rate;
mod reactive;
mod read;
mod ring;
mod settings;
mod tabs;
mod time;
mod tools;
mod words;

use leptos::{either::Either, nonce::use_nonce, prelude::*};
use serde::Serialize;
use waterclock::{event::Event, id::EventId};

use crate::read::Handover;

/// Which page it is, and what it knows when it arrives. The server provides it as context; the
/// browser finds it in the page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Page {
    /// `/`: the latest events, live.
    Home(Snapshot),
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

/// The document around the app. `url` turns the path of a file of the site into its URL.
pub fn shell(options: LeptosOptions, url: fn(&'static str) -> &'static str) -> impl IntoView {
    let script = url("/pkg/waterclock.js");
    let wasm = url("/pkg/waterclock.wasm");
    let start = format!(
        "import start, {{ hydrate }} from {script:?};\n\
         await start({{ module_or_path: {wasm:?} }});\n\
         hydrate();"
    );
    view! {
        <!DOCTYPE html>
        <html lang="en">
            <head>
                <meta charset="utf-8" />
                <meta name="viewport" content="width=device-width, initial-scale=1" />
                <title>"Waterclock"</title>
                <meta name="description" content="A live stream of events, one timestamp a second." />
                <meta name="color-scheme" content="light dark" />
                // The style sheet's --paper.
                <meta name="theme-color" media="(prefers-color-scheme: light)" content="#fbfaf7" />
                <meta name="theme-color" media="(prefers-color-scheme: dark)" content="#14181a" />
                <link rel="icon" type="image/svg+xml" href=url("/favicon.svg") />
                <link rel="stylesheet" href=url("/pkg/waterclock.css") />
                <link rel="modulepreload" href=script />
                <link rel="preload" href=wasm r#as="fetch" r#type="application/wasm" crossorigin="" />
                <script type="module" nonce=use_nonce()>
                    {start}
                </script>
                <AutoReload options />
            </head>
            <body>
                <App />
            </body>
        </html>
    }
}

/// All pages. They are documents of their own: the server, which knows what each shows, says which
/// one it is, and no router has to be loaded.
#[component]
pub fn App() -> impl IntoView {
    let page = || use_context::<Page>().unwrap_or(Page::NotFound);
    match SharedValue::<_, Handover>::new_with_encoding(page).into_inner() {
        Page::Home(snapshot) => Either::Left(view! { <home::Home snapshot /> }),
        Page::NotFound => Either::Right(view! { <NotFound /> }),
    }
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
