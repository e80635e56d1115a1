//! The list of events, oldest first, and the numbers about it.

use std::sync::Arc;

use leptos::{ev, prelude::*};
use waterclock::{event::Name, timestamp::Timestamp};

use crate::{
    browser, details,
    feed::{Feed, Viewport},
    labels::{end_class, end_label, gap_label, outage_label},
    publish,
    reactive::{first_text, text},
    ring::{Earlier, Row, RowContent},
    settings::{Settings, TimeDisplay},
    time::{TimeFormat, relative_time, time_of_day, unix_time},
    visible::visible_line,
};

/// Maximum length of the data in a row, in bytes: more than fits on a line.
const MAX_DATA: usize = 512;

/// The numbers of events.
#[component]
pub(crate) fn Counts(feed: Feed) -> impl IntoView {
    let counts = text(move || {
        let Viewport { events, evicted, matching, .. } = *feed.viewport.read();
        let all = if events == 1 { "1 event".to_owned() } else { format!("{events} events") };
        let matching = matching.map(|n| format!(", {n} match the filter")).unwrap_or_default();
        let evicted = match evicted {
            0 => String::new(),
            n => format!("; the oldest {n} are no longer in the list"),
        };
        all + &matching + &evicted
    });
    view! { <p class="count" prop:textContent=counts>{first_text(counts)}</p> }
}

/// The rows, oldest first. Only those in view are in the document.
#[component]
pub(crate) fn List(
    feed: Feed,
    settings: Settings,
    is_refused: bool,
    may_publish: bool,
    /// `true` if all events have the same topic.
    has_one_topic: bool,
    /// That topic. It is empty for the clock, to which only the server publishes.
    topic: StoredValue<String>,
    /// The server's origin.
    origin: RwSignal<String>,
) -> impl IntoView {
    let is_hinted = may_publish && !is_refused && !topic.read_value().is_empty();
    let placeholder = match (is_refused, is_hinted) {
        (true, _) => "No events.",
        (false, true) => "No events yet. Publish the first one:",
        (false, false) => "No events yet.",
    };
    let hint = text(move || {
        if is_hinted {
            format!("curl -d hello {}/events/{}", origin.get(), topic.read_value())
        } else {
            String::new()
        }
    });
    // A row never changes. If the format of times changes, all rows are replaced. If each row
    // subscribed to the settings instead, these would keep a subscription of every row that ever
    // existed.
    let rows = move || {
        let times = settings.times();
        let chosen = feed.chosen.get();
        let rows = feed.viewport.read().rows.clone();
        let row = |row: Arc<Row>| (times, chosen == row.key, row);
        rows.into_iter().map(row).collect::<Vec<_>>()
    };
    let active = text(move || match feed.chosen.get() {
        0 => String::new(),
        key => key.to_string(),
    });
    let follows = Signal::derive(move || feed.hold.get().is_none());
    let new = text(move || match feed.viewport.read().new {
        0 => "Newest".to_owned(),
        new => format!("Newest (+{new})"),
    });
    // Handled even if the list cannot scroll and no scroll event follows.
    let on_wheel = move |wheel: ev::WheelEvent| {
        // With Ctrl, the wheel zooms the page.
        if !wheel.ctrl_key() {
            feed.scrolled(wheel.delta_y() < 0.0);
        }
    };
    let on_click = move |click: ev::MouseEvent| {
        if browser::clicked_item(&click).is_some_and(|key| feed.clicked(key)) {
            details::open(feed);
        }
    };
    view! {
        // Translators would have to translate each frame, and the data is not prose.
        <div class="list" class:one-topic=has_one_topic translate="no">
            <p class="columns" aria-hidden="true">
                <span>"Time"</span>
                <span>"Data"</span>
                <span class="topic">"Topic"</span>
                <span class="event-name">"Name"</span>
                <span>"Id"</span>
            </p>
            <div
                class="scroller"
                tabindex="0"
                role="listbox"
                aria-label="Events, oldest first"
                aria-activedescendant=active
                node_ref=feed.scroller
                on:scroll=move |_| feed.scrolled(false)
                on:wheel=on_wheel
                on:keydown=move |event| press(feed, &event)
            >
                <ol class="rows" role="none" on:click=on_click>
                    <For
                        each=rows
                        key=|(times, is_chosen, row)| (row.key, *times, *is_chosen)
                        let((times, is_chosen, row))
                    >
                        <RowItem row times is_chosen />
                    </For>
                </ol>
            </div>
            // The style sheet shows it while there are no rows.
            <p class="empty">
                {placeholder} " " <code prop:textContent=hint>{first_text(hint)}</code>
                <button
                    type="button"
                    class="quiet"
                    hidden=!is_hinted
                    on:click=publish::opener(topic)
                >
                    "Publish an event"
                </button>
            </p>
            // It comes under the pointer of a reader who scrolls up, and must not stop the wheel.
            <p
                class="end"
                hidden=follows
                on:wheel=move |wheel| browser::scroll_by(feed.scroller, wheel.delta_y())
            >
                <button
                    type="button"
                    class="quiet"
                    prop:textContent=new
                    on:click=move |_| feed.follow()
                ></button>
            </p>
        </div>
    }
}

/// Handles a key in the list.
fn press(feed: Feed, event: &ev::KeyboardEvent) {
    match &*event.key() {
        "ArrowUp" => feed.step(-1),
        "ArrowDown" => feed.step(1),
        "PageUp" => feed.step(-feed.page()),
        "PageDown" => feed.step(feed.page()),
        "Home" => feed.step(isize::MIN),
        "End" => {
            feed.follow();
            feed.step(isize::MAX);
        }
        "Enter" => {
            if feed.chosen.get_untracked() == 0 {
                feed.step(isize::MAX);
            }
            details::open(feed);
        }
        _ => return,
    }
    event.prevent_default();
}

/// One row: an event, or a mark.
#[component]
fn RowItem(row: Arc<Row>, times: TimeDisplay, is_chosen: bool) -> impl IntoView {
    let (kind, event, mark) = match &row.content {
        RowContent::Event(event) => ("event", Some(event), String::new()),
        RowContent::Earlier(earlier) => ("mark earlier", None, earlier_label(*earlier).to_owned()),
        RowContent::Outage(outage) => ("mark", None, outage_label(*outage)),
        RowContent::Gap(gap) => ("mark gap", None, gap_label(gap).to_owned()),
        RowContent::End(end) => (end_class(end), None, end_label(end)),
    };
    let topic = event.map(|event| event.topic.to_string()).unwrap_or_default();
    let name = event.filter(|event| event.name != Name::default());
    let name = name.map(|event| visible_line(event.name.as_str())).unwrap_or_default();
    let time = event.map(|event| event.time);
    let data = event.map_or("", |event| event.data.trim_start());
    let data = data.get(..data.floor_char_boundary(MAX_DATA)).unwrap_or_default();
    let mut data = visible_line(data);
    if data.is_empty() && event.is_some() {
        data.push_str("(empty)");
    }
    let sequence = event.map(|event| event.id.sequence.to_string()).unwrap_or_default();
    view! {
        <li id=row.key.to_string() class=kind role="option" aria-selected=is_chosen.to_string()>
            <time datetime=time.map(|time| time.to_string())>
                {time.map(|time| write_time(time, times)).unwrap_or_default()}
            </time>
            <span class="data" dir="auto">{data}</span>
            <span class="about">{mark}</span>
            <span class="topic">{topic}</span>
            <span class="event-name">{name}</span>
            <code class="id">{sequence}</code>
        </li>
    }
}

/// Describes the events before those in the list.
fn earlier_label(earlier: Earlier) -> &'static str {
    match earlier {
        Earlier::Kept => "Earlier events…",
        Earlier::Loading => "Loading earlier events…",
        Earlier::Failed => "Earlier events could not be loaded. Scroll up to try again.",
        Earlier::Full => "The list has no room for earlier events.",
    }
}

fn write_time(time: Timestamp, times: TimeDisplay) -> String {
    match times.format {
        TimeFormat::Utc => time_of_day(time, 0),
        TimeFormat::Local => time_of_day(time, browser::utc_offset(time)),
        TimeFormat::Unix => unix_time(time),
        TimeFormat::Relative => relative_time(time, browser::time()),
    }
}
