//! The page `/topics`: the topics that the reader may read, live, as `GET /topics` has them for
//! everybody.
//!
//! # Layout
//!
//! | module | content |
//! |---|---|
//! | `view_stream` | the live view of the server, kept open |
//! | `list` | the part of the table in view |
//! | `table` | the topics that are known, and their order |
//! | `search` | the search |
//! | `listed` | a topic with its figures, and the texts for them |

mod list;
mod listed;
mod search;
mod table;
mod view_stream;

use std::{fmt::Write as _, sync::Arc};

use leptos::prelude::*;
use serde::Serialize;
use waterclock::{event::Topic, timestamp::Timestamp};
use waterclock_leptos::{
    ConnectionState,
    browser::internal::{FromJson, Json, is_visible},
};

use self::{
    list::{TopicList, TopicRow},
    table::TopicColumn,
    view_stream::ViewStream,
};
pub use self::{
    listed::{ListedTopic, NewestEvent},
    search::Search,
};
use crate::{
    browser,
    code::with_code,
    home::KnownRefusal,
    labels::{Requested, countdown_label, document_title, reason_label, state_label},
    node_health::{NodeName, NodeNotice, NodeTexts},
    publish::PublishForm,
    reactive::{effect, first_text, origin, text},
};

/// The title of the document.
const TITLE: &str = "Topics · Waterclock";
/// Id of the title in the page.
const TITLE_ID: &str = "title";

/// The data of the page when the server renders it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TopicsData {
    /// The first topics that the search finds, with their figures.
    pub topics: Vec<ListedTopic>,
    /// The topic after which the next page begins, if there is one.
    pub next: Option<Topic>,
    /// The search in the page's address.
    pub search: String,
    /// The server's time.
    pub time: Timestamp,
    /// Host and port of the server, as the browser has requested them.
    pub host: String,
    /// The reason for which the server would refuse the view, if it would.
    pub refusal: Option<KnownRefusal>,
    /// `true` if the server could not read the topics.
    pub has_failed: bool,
    /// A problem that the page shows until its program runs, which has all topics.
    #[serde(skip)]
    pub problem: Option<String>,
    /// `true` if the reader may publish.
    pub may_publish: bool,
}

impl FromJson for TopicsData {
    fn from_json(json: &Json) -> Option<Self> {
        Some(Self {
            topics: json.list("topics"),
            next: json.parse("next"),
            search: json.parse("search")?,
            time: json.parse("time")?,
            host: json.parse("host")?,
            refusal: json.get("refusal").as_ref().and_then(KnownRefusal::from_json),
            has_failed: json.is_true("has_failed"),
            problem: None,
            may_publish: json.is_true("may_publish"),
        })
    }
}

/// The page.
#[component]
pub(crate) fn TopicsPage(data: TopicsData) -> impl IntoView {
    let TopicsData { topics, next, search, time, host, refusal, has_failed, problem, may_publish } =
        data;
    let may_have_topics = !topics.is_empty() || has_failed;
    let list = TopicList::new(topics, next.is_some() || has_failed, time);
    let refusal = refusal.map(KnownRefusal::reason);
    let stream = ViewStream::new(refusal, move |message| list.apply(message));
    let is_live = move || *stream.state.read() == ConnectionState::Live;
    let node = NodeTexts::new(move || stream.node.get().filter(|_| is_live()));
    effect(move || list.set_live(*stream.state.read() == ConnectionState::Live));
    effect(move || {
        browser::every_second(move || {
            if *stream.state.read_untracked() == ConnectionState::Live {
                list.tick();
            }
        });
    });
    let next = next.map(|next| next_page(&search, &next));
    // The program has all topics in its table.
    let has_next = RwSignal::new(next.is_some());
    effect(move || has_next.set(false));
    let search_text = RwSignal::new(search.clone());
    let is_open = may_publish && !may_have_topics && search.is_empty();
    view! {
        <main class="topics-page">
            <div class="head">
                <h1 id=TITLE_ID tabindex="-1">"Topics"</h1>
                <StreamStatus stream node />
            </div>
            <NodeNotice texts=node />
            {problem.map(|why| view! { <p class="bad">{with_code(&why)}</p> })}
            <SearchForm list search=search_text />
            {may_publish.then(|| view! { <Publishing is_open /> })}
            <TopicsTable list />
            <Nothing list stream search=search_text may_publish host />
            <p class="further" hidden=move || !has_next.get()>
                <a href=next>"More topics"</a>
            </p>
        </main>
    }
}

/// Returns the address of the next page for readers without a program.
fn next_page(search: &str, next: &Topic) -> String {
    let mut address = "/topics?match=".to_owned();
    for byte in search.bytes() {
        // Whatever the byte is, it may be written like this. Writing to a string cannot fail.
        let _ = write!(address, "%{byte:02x}");
    }
    address + "&after=" + next.as_str()
}

/// The state of the connection.
#[component]
fn StreamStatus(stream: ViewStream, node: NodeTexts) -> impl IntoView {
    let ViewStream { state, reason, now, .. } = stream;
    let label = text(move || match (&*state.read(), &*reason.read()) {
        (ConnectionState::Refused, Some(reason)) => reason_label(reason, Requested::Topics),
        (state, Some(reason)) => {
            format!("{}. {}", state_label(state), reason_label(reason, Requested::Topics))
        }
        (state, None) => state_label(state).to_owned(),
    });
    let key = text(move || state.read().as_str().to_owned());
    let countdown = text(move || countdown_label(&state.read(), now.get()));
    effect(move || {
        let state = state.get();
        // A tab that is not seen has no connection, and claims none.
        let state = if is_visible() { state } else { ConnectionState::Idle };
        browser::set_title(&document_title(&state, TITLE));
    });
    let needs_no_button = move || {
        !matches!(*state.read(), ConnectionState::Waiting { .. } | ConnectionState::Refused)
    };
    view! {
        <p class="status" data-state=key role="status">
            <span class="state" prop:textContent=label>{first_text(label)}</span>
            <NodeName texts=node />
        </p>
        <p class="countdown" prop:textContent=countdown></p>
        <button
            type="button"
            class="quiet"
            hidden=needs_no_button
            on:click=move |_| {
                stream.retry();
                // The button is gone then.
                browser::focus(TITLE_ID);
            }
        >
            "Try again"
        </button>
    }
}

/// The field that searches, with the numbers of topics. Without a program, it requests another
/// page.
#[component]
fn SearchForm(list: TopicList, search: RwSignal<String>) -> impl IntoView {
    let problem = move || search.with(|text| Search::parse(text)).err();
    effect(move || {
        if let Ok(parsed) = search.with(|text| Search::parse(text)) {
            list.search(parsed);
        }
    });
    let is_bad = text(move || problem().is_some().to_string());
    let counts = text(move || {
        let in_view = list.in_view.read();
        let all = in_view.all;
        let topics = if all == 1 { "topic" } else { "topics" };
        let found = in_view.layout.total;
        match (found == all, in_view.is_complete) {
            // Another text says why.
            _ if all == 0 => String::new(),
            (true, true) => format!("{all} {topics}"),
            (true, false) => format!("{all} {topics} so far"),
            (false, _) => format!("{found} of {all} {topics}"),
        }
    });
    let first_search = search.get_untracked();
    view! {
        <form class="tools" action="/topics" role="search" on:submit=|event| event.prevent_default()>
            <label class="hidden" for="search">"Search"</label>
            <input
                id="search"
                name="match"
                type="search"
                placeholder="Search: eu, orders.*"
                autocapitalize="none"
                autocomplete="off"
                spellcheck="false"
                value=first_search
                aria-invalid=is_bad
                aria-describedby="search-problem"
                on:input:target=move |event| {
                    search.set(event.target().value());
                    search.with_untracked(|text| browser::set_query("match", text));
                }
            />
            <button type="submit" class="quiet">"Search"</button>
            <p class="count" prop:textContent=counts></p>
            <div id="search-problem" role="alert">
                <For each=problem key=Clone::clone let:why>
                    <p class="bad">{with_code(&why)}</p>
                </For>
            </div>
        </form>
    }
}

/// The form that publishes an event, and so creates its topic. Without the program, it would send
/// the event as a part of the page's address, so it is disabled until that runs.
#[component]
fn Publishing(
    /// `true` if the form is unfolded from the start.
    is_open: bool,
) -> impl IntoView {
    let is_idle = RwSignal::new(true);
    effect(move || is_idle.set(false));
    view! {
        <details class="publishing" open=is_open>
            <summary>"Publish an event"</summary>
            <fieldset disabled=is_idle>
                <PublishForm topic=String::new() class="quiet" />
            </fieldset>
        </details>
    }
}

/// The table. Only the rows in view are in the document.
///
/// The roles are explicit, since the style sheet lays the table out as blocks and grids, for which
/// some browsers forget them.
#[component]
fn TopicsTable(list: TopicList) -> impl IntoView {
    let count = text(move || (list.in_view.read().layout.total + 1).to_string());
    let is_idle = RwSignal::new(true);
    effect(move || is_idle.set(false));
    let heads = TopicColumn::ALL.map(|column| {
        let sorted = text(move || {
            let order = list.order.get();
            let sorted = match (order.column == column, order.is_descending) {
                (false, _) => "none",
                (true, false) => "ascending",
                (true, true) => "descending",
            };
            sorted.to_owned()
        });
        view! {
            <th role="columnheader" scope="col" aria-sort=sorted>
                <button type="button" disabled=is_idle on:click=move |_| list.order_by(column)>
                    {column.name()}
                </button>
            </th>
        }
    });
    let is_empty = move || list.in_view.read().layout.total == 0;
    let rows = move || list.in_view.read().rows.clone();
    view! {
        <div class="list" translate="no" hidden=is_empty>
            <div
                class="scroller"
                tabindex="0"
                role="group"
                aria-label="Topics"
                node_ref=list.scroller
                on:scroll=move |_| list.request_frame()
            >
                <table role="table" aria-rowcount=count>
                    <thead role="rowgroup">
                        <tr role="row" aria-rowindex="1">{heads.collect_view()}</tr>
                    </thead>
                    <tbody
                        role="rowgroup"
                        class="rows"
                        on:keydown=|event| browser::move_focus(&event)
                    >
                        <For each=rows key=|row| row.topic.clone() let:row>
                            <TopicRowView list row />
                        </For>
                    </tbody>
                </table>
            </div>
        </div>
    }
}

/// One row. Its texts change with the figures, and its elements stay, so that the focus does.
#[component]
fn TopicRowView(list: TopicList, row: Arc<TopicRow>) -> impl IntoView {
    let topic = row.topic.clone();
    let href = ["/?topic=", &topic].concat();
    let first = Arc::clone(&row);
    let row = Memo::new(move |before: Option<&Arc<TopicRow>>| {
        let in_view = list.in_view.read();
        let found = in_view.rows.iter().find(|other| other.topic == first.topic);
        Arc::clone(found.or(before).unwrap_or(&first))
    });
    let index = text(move || (row.read().place + 1).to_string());
    let state = text(move || row.read().cells[5].clone());
    let cells = [0, 1, 2, 3, 4, 5].map(|cell| {
        let content = text(move || row.read().cells[cell].clone());
        view! {
            <td role="cell" prop:textContent=content>
                {first_text(content)}
            </td>
        }
    });
    view! {
        <tr role="row" aria-rowindex=index data-state=state>
            <th role="rowheader" scope="row">
                <a href=href>{topic}</a>
            </th>
            {cells.collect_view()}
        </tr>
    }
}

/// The text in the place of an empty table.
#[component]
fn Nothing(
    list: TopicList,
    stream: ViewStream,
    search: RwSignal<String>,
    may_publish: bool,
    host: String,
) -> impl IntoView {
    let origin = origin(&host);
    let command = text(move || format!("curl -d Hello {}/events/orders.eu", origin.read()));
    let is_searching = move || Search::parse(&search.read()) != Ok(Search::default());
    let is_empty = move || {
        let in_view = list.in_view.read();
        let is_refused = *stream.state.read() == ConnectionState::Refused;
        in_view.is_complete && in_view.layout.total == 0 && !is_refused
    };
    let hides_search = move || !is_empty() || !is_searching();
    let hides_none = move || !is_empty() || is_searching();
    view! {
        <p class="empty" hidden=hides_search>"No topics found."</p>
        <div class="empty" hidden=hides_none>
            <p>"There are no topics yet. The first event of a topic creates it."</p>
            <p hidden=!may_publish>
                "In a terminal: " <code prop:textContent=command>{first_text(command)}</code>
            </p>
        </div>
    }
}
