//! The document around a page. The pages are separate documents, so that none loads a router or the
//! code of another.

use leptos::{either::EitherOf4, nonce::use_nonce, prelude::*};

use crate::{
    compare::{Compare, CompareData},
    diagnose::Diagnose,
    home::{Home, HomeData},
    page_data::transfer,
};

/// A page and its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    /// `/`: the latest events, live.
    Home(HomeData),
    /// `/compare`: the transports side by side.
    Compare(CompareData),
    /// `/diagnose`: the path between the browser and the server.
    Diagnose,
    /// The page for an unknown path.
    NotFound,
}

/// The files that the pages need.
#[derive(Clone, Copy, Debug)]
pub struct Assets {
    /// Turns the path of a file into its URL.
    pub url: fn(&'static str) -> &'static str,
    /// `true` if each page has a WebAssembly module of its own, as in a release. `cargo leptos` by
    /// itself builds one module for all pages.
    pub are_split: bool,
}

/// Renders the document around a page.
pub fn shell(options: LeptosOptions, assets: Assets, page: Page) -> impl IntoView {
    let url = assets.url;
    let [script, wasm] = match page {
        Page::Compare(_) if assets.are_split => ["/pkg/compare.js", "/pkg/compare.wasm"],
        Page::Diagnose if assets.are_split => ["/pkg/diagnose.js", "/pkg/diagnose.wasm"],
        _ => ["/pkg/waterclock.js", "/pkg/waterclock.wasm"],
    };
    let [script, wasm] = [script, wasm].map(url);
    let (title, description, hydrate) = match page {
        Page::Home(_) => {
            ("Waterclock", "A live stream of events, one timestamp a second.", Some("hydrate"))
        }
        Page::Compare(_) => (
            "Compare · Waterclock",
            "Server-Sent Events, WebSocket, long polling and polling, measured on the same stream.",
            Some("hydrate_compare"),
        ),
        Page::Diagnose => (
            "Diagnose · Waterclock",
            "Checks the path between this browser and the server for whatever disturbs a stream.",
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
                    Page::Home(data) => EitherOf4::A(view! { <Home data=transfer(data) /> }),
                    Page::Compare(data) => EitherOf4::B(view! { <Compare data=transfer(data) /> }),
                    Page::Diagnose => EitherOf4::C(view! { <Diagnose /> }),
                    Page::NotFound => EitherOf4::D(view! { <NotFound /> }),
                }}
            </body>
        </html>
    }
}

/// Hydrates `/` with the data in the document.
pub fn hydrated_home() -> impl IntoView {
    view! { <Home data=transfer(HomeData::default()) /> }
}

/// Hydrates `/compare` with the data in the document.
pub fn hydrated_compare() -> impl IntoView {
    view! { <Compare data=transfer(CompareData::default()) /> }
}

/// Hydrates `/diagnose`.
pub fn hydrated_diagnose() -> impl IntoView {
    view! { <Diagnose /> }
}

/// The page for an unknown path.
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
