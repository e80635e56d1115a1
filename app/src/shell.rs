//! The document around a page. The pages are separate documents, so that none loads a router or the
//! code of another.

use leptos::{either::EitherOf5, nonce::use_nonce, prelude::*};

use crate::{
    compare::{Compare, CompareData},
    diagnose::Diagnose,
    home::{Home, HomeData},
    page_data,
    time::time_of_day,
    topics::{TopicsData, TopicsPage},
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
    /// `/topics`: the topics that exist.
    Topics(TopicsData),
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
    /// `true` if the server has the page `/compare`.
    pub has_compare: bool,
}

/// The JavaScript and the WebAssembly of `/`. `cargo leptos` by itself puts all pages in there.
const HOME_FILES: [&str; 2] = ["/pkg/waterclock.js", "/pkg/waterclock.wasm"];

/// The head of a page's document.
struct DocumentHead {
    path: &'static str,
    title: &'static str,
    description: &'static str,
    /// The function that builds the page in the browser.
    entry: &'static str,
    /// The JavaScript and the WebAssembly of the page.
    files: [&'static str; 2],
    /// The page's own style sheet.
    style: Option<&'static str>,
}

impl Page {
    fn document_head(&self) -> DocumentHead {
        match self {
            Self::Home(_) => DocumentHead {
                path: "/",
                title: "Waterclock",
                description: "A live stream of events, one timestamp a second.",
                entry: "home",
                files: HOME_FILES,
                style: None,
            },
            Self::Compare(_) => DocumentHead {
                path: "/compare",
                title: "Compare · Waterclock",
                description: "Server-Sent Events, WebSocket, long polling and polling, measured on \
                              the same stream.",
                entry: "compare",
                files: ["/pkg/compare.js", "/pkg/compare.wasm"],
                style: Some("/compare.css"),
            },
            Self::Diagnose => DocumentHead {
                path: "/diagnose",
                title: "Diagnose · Waterclock",
                description: "Checks the path between this browser and the server for whatever \
                              disturbs a stream.",
                entry: "diagnose",
                files: ["/pkg/diagnose.js", "/pkg/diagnose.wasm"],
                style: Some("/diagnose.css"),
            },
            Self::Topics(_) => DocumentHead {
                path: "/topics",
                title: "Topics · Waterclock",
                description: "The topics of this server, live: their events, their rate, and \
                              their readers.",
                entry: "topics",
                files: ["/pkg/topics.js", "/pkg/topics.wasm"],
                style: Some("/topics.css"),
            },
            Self::NotFound => DocumentHead {
                path: "",
                title: "Not found · Waterclock",
                description: "There is no page here.",
                entry: "home",
                files: HOME_FILES,
                style: None,
            },
        }
    }
}

/// Renders the document around a page.
///
/// The page is in an element of its own. In the browser it is built again, and the new element
/// takes the place of the old one. So changes that a proxy or an extension has made to the document
/// do not matter, as they would to hydration, and the old element stays if the program cannot run.
pub fn shell(options: LeptosOptions, assets: Assets, page: Page) -> impl IntoView {
    let url = assets.url;
    let DocumentHead { path, title, description, entry, files, style } = page.document_head();
    let files = if assets.are_split { files } else { HOME_FILES };
    let [script, wasm] = files.map(url);
    let has_program = page != Page::NotFound;
    let head = has_program.then(|| {
        let loader = loader(script, wasm, entry);
        view! {
            <link rel="modulepreload" href=script />
            <link rel="preload" href=wasm r#as="fetch" r#type="application/wasm" crossorigin="" />
            <script type="module" nonce=use_nonce()>
                {loader}
            </script>
        }
    });
    let suggest = matches!(page, Page::Home(_)).then(|| {
        view! { <script nonce=use_nonce()>{script_of(include_str!("suggest.js"))}</script> }
    });
    let reading = match &page {
        Page::Home(data) => Some(Reading::of(data)),
        Page::Compare(_) | Page::Diagnose | Page::Topics(_) | Page::NotFound => None,
    };
    // The script refreshes a page as often.
    let refresh = reading.as_ref().is_some_and(|reading| reading.is_refreshed).then(|| {
        view! {
            <noscript>
                <meta http-equiv="refresh" content="5" />
            </noscript>
        }
    });
    let style = style.map(|style| view! { <link rel="stylesheet" href=url(style) /> });
    let data = match &page {
        Page::Home(data) => Some(page_data::element(data)),
        Page::Compare(data) => Some(page_data::element(data)),
        Page::Topics(data) => Some(page_data::element(data)),
        Page::Diagnose | Page::NotFound => None,
    };
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
                <script nonce=use_nonce()>{script_of(include_str!("theme.js"))}</script>
                {suggest}
                {head}
                <noscript>
                    <link rel="stylesheet" href=url("/plain.css") />
                </noscript>
                {refresh}
                <AutoReload options />
            </head>
            <body>
                <Frame path assets />
                {has_program.then(|| view! { <NotRunning reading /> })}
                <div id="page">
                    {match page {
                        Page::Home(data) => EitherOf5::A(view! { <Home data /> }),
                        Page::Compare(data) => EitherOf5::B(view! { <Compare data /> }),
                        Page::Diagnose => EitherOf5::C(view! { <Diagnose /> }),
                        Page::Topics(data) => EitherOf5::D(view! { <TopicsPage data /> }),
                        Page::NotFound => EitherOf5::E(view! { <NotFound /> }),
                    }}
                </div>
                {data}
            </body>
        </html>
    }
}

/// Returns the script that starts a page, given the files of its program and its entry point.
fn loader(script: &str, wasm: &str, entry: &str) -> String {
    let code = script_of(include_str!("loader.js"));
    format!("const [script, wasm, entry] = {:?};\n{code}", [script, wasm, entry])
}

/// Returns a script without its comments and indentation.
fn script_of(text: &str) -> String {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.fold(String::new(), |code, line| code + line.trim_start() + "\n")
}

/// The frame of all pages: the name, the way to the other pages, and the choice of the colours.
#[component]
fn Frame(
    /// Path of the page that is shown.
    path: &'static str,
    assets: Assets,
) -> impl IntoView {
    let pages =
        [("/", "Live"), ("/topics", "Topics"), ("/compare", "Compare"), ("/diagnose", "Diagnose")];
    let links = pages.into_iter().filter(|(page, _)| assets.has_compare || *page != "/compare");
    // Ahead of all others, and seen only while it has the focus.
    let skip = (path == "/").then(|| {
        view! {
            <a class="hidden" href="#events">
                "Skip to the events"
            </a>
        }
    });
    let links = links.map(|(page, name)| {
        let current = (page == path).then_some("page");
        view! {
            <a href=page aria-current=current>
                {name}
            </a>
        }
    });
    view! {
        <header>
            {skip}
            <a class="name" href="/">
                <img src=(assets.url)("/favicon.svg") alt="" width="24" height="24" />
                "Waterclock"
            </a>
            <nav aria-label="Pages">{links.collect_view()}</nav>
            <label class="theme">
                <span class="hidden">"Colours"</span>
                <select id="theme">
                    <option value="">"System"</option>
                    <option value="light">"Light"</option>
                    <option value="dark">"Dark"</option>
                </select>
            </label>
        </header>
    }
}

/// The page as it is read without its program: rendered by the server, and refreshed.
struct Reading {
    /// Time of day at which the server has read the events.
    as_of: String,
    is_refreshed: bool,
    /// Address of the same page, refreshed if this one is not.
    other: String,
}

impl Reading {
    fn of(HomeData { query, as_of, is_paused, .. }: &HomeData) -> Self {
        let as_of = as_of.map(|time| time_of_day(time, 0)).unwrap_or_default();
        let pause = match (is_paused, &**query) {
            (true, _) => "",
            (false, "") => "refresh=0",
            (false, _) => "&refresh=0",
        };
        Self {
            as_of: as_of.split('.').take(1).collect(),
            is_refreshed: !is_paused,
            other: format!("/?{query}{pause}"),
        }
    }
}

/// The notice that the page does not run. It is in the document from the start, so that it needs no
/// script. The style sheet hides it for some seconds, and the script for good or shows it at once.
#[component]
fn NotRunning(reading: Option<Reading>) -> impl IntoView {
    let is_refreshed = reading.as_ref().is_some_and(|reading| reading.is_refreshed);
    let note = is_refreshed.then_some(" It reloads every 5 s. Pause it to choose topics.");
    let reading = reading.map(|Reading { as_of, other, .. }| {
        let link = if is_refreshed { "Pause" } else { "Refresh every 5 s" };
        view! {
            <p>
                "Events as of " <span id="as-of">{as_of}</span> " UTC. " <span role="status"></span>
                " " <a id="refresh" href=other hidden>
                    {link}
                </a>
            </p>
        }
    });
    view! {
        <aside id="not-running">
            <p role="alert">
                <strong>"This page is not running."</strong>
                " "
                <span>"Its program has not started yet."</span>
                <noscript>" It needs JavaScript." {note}</noscript>
                " "
                <a href="">"Reload the page"</a>
            </p>
            {reading}
        </aside>
    }
}

/// Builds `/` in the browser, with the data in the document.
pub fn mounted_home() -> impl IntoView {
    view! { <Home data=page_data::read() /> }
}

/// Builds `/compare` in the browser, with the data in the document.
pub fn mounted_compare() -> impl IntoView {
    view! { <Compare data=page_data::read() /> }
}

/// Builds `/diagnose` in the browser.
pub fn mounted_diagnose() -> impl IntoView {
    view! { <Diagnose /> }
}

/// Builds `/topics` in the browser, with the data in the document.
pub fn mounted_topics() -> impl IntoView {
    view! { <TopicsPage data=page_data::read() /> }
}

/// The page for an unknown path.
#[component]
fn NotFound() -> impl IntoView {
    view! {
        <main>
            <div class="head">
                <h1>"Not found"</h1>
            </div>
            <p class="empty">"There is no page here. " <a href="/">"Go to the clock"</a> "."</p>
        </main>
    }
}
