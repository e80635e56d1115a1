//! The pages of Waterclock and their components, rendered on the server and in the browser. The
//! first markup is the same on both sides.
//!
//! # Layout
//!
//! | module | what is there |
//! |---|---|
//! | [`App`], [`shell`] | what is around every page |
//! | `home` | the page `/`: the connection's state, the button, the list |
//! | `feed` | the signals behind it: the connection, and the rows of the list |
//! | `browser` | all that touches the browser's own objects; nothing else may |
//!
//! The core is one line of thought: [`browser::event_source`] wraps an `EventSource` in a signal,
//! `feed` adds each message to a reactive list, `home` shows it.

pub mod browser;
mod feed;
mod home;

use leptos::prelude::*;
use leptos_meta::{Link, Meta, MetaTags, Stylesheet, Title, provide_meta_context};
use leptos_router::{
    StaticSegment,
    components::{Route, Router, Routes},
};
use serde::{Deserialize, Serialize};
use waterclock::{event::Event, id::EventId};

/// What a page knows when it arrives. The server provides it as context; the browser finds it in the
/// page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The latest events, oldest first.
    pub events: Vec<Event>,
    /// Where the stream goes on after them.
    pub cursor: Option<EventId>,
    /// The server's name and port, as the browser calls it.
    pub host: String,
}

/// The document around the app.
pub fn shell(options: LeptosOptions) -> impl IntoView {
    view! {
        <!DOCTYPE html>
        <html lang="en">
            <head>
                <meta charset="utf-8" />
                <meta name="viewport" content="width=device-width, initial-scale=1" />
                <AutoReload options=options.clone() />
                <HydrationScripts options />
                <MetaTags />
            </head>
            <body>
                <App />
            </body>
        </html>
    }
}

/// All pages.
#[component]
pub fn App() -> impl IntoView {
    provide_meta_context();
    view! {
        <Title text="Waterclock" />
        <Meta name="description" content="A live stream of events, one timestamp a second." />
        <Meta name="color-scheme" content="light dark" />
        <Link rel="icon" type_="image/svg+xml" href="/favicon.svg" />
        <Stylesheet id="leptos" href="/pkg/waterclock.css" />
        <Router>
            <Routes fallback=NotFound>
                <Route path=StaticSegment("") view=home::Home />
            </Routes>
        </Router>
    }
}

/// What is shown where no page is.
#[component]
fn NotFound() -> impl IntoView {
    view! {
        <main>
            <h1>"Not found"</h1>
            // Not by the router: only the server knows the latest events.
            <p>"There is no page here. " <a href="/" rel="external">"Go to the clock"</a> "."</p>
        </main>
    }
}
