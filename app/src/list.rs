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

/// Id of the element that scrolls.
const LIST: &str = "events";
/// Maximum length of the data in a row, in bytes: more than fits on a line.
const MAX_DATA: usize = 512;

/// The numbers of events.
#[component]
pub(crate) fn Counts(feed: Feed) -> impl IntoView {
    let counts = text(move || {
        let Viewport { events, evicted, matching, .. } = *feed.viewport.read();
        let all = if events == 1 { "1 event".to_owned() } else { format!("{events} events") };
        let matching = match matching {
            None => String::new(),
            Some(1) => ", 1 matches the filter".to_owned(),
            Some(n) => format!(", {n} match the filter"),
        };
        let evicted = match evicted {
            0 => String::new(),
            1 => "; the oldest is no longer in the list".to_owned(),
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
    /// `true` until a stream that the server has refused is live.
    is_refused: RwSignal<bool>,
    may_publish: bool,
    /// `true` if all events have the same topic.
    has_one_topic: bool,
    /// That topic. It is empty for the clock, to which only the server publishes.
    topic: StoredValue<String>,
    /// The server's origin.
    origin: RwSignal<String>,
) -> impl IntoView {
    // A row never changes. If the format of times changes, all rows are replaced. If each row
    // subscribed to the settings instead, these would keep a subscription of every row that ever
    // existed.
    let rows = move || {
        let times = settings.times();
        let chosen = feed.chosen.get();
        let rows = feed.viewport.read().rows.clone();
        let row = |row: Arc<Row>| (times, chosen != 0 && chosen == row.key, row);
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
                id=LIST
                tabindex="0"
                role="listbox"
                aria-label="Events, oldest first"
                aria-activedescendant=active
                node_ref=feed.scroller
                on:scroll:capture=move |_| feed.scrolled(false)
                on:wheel:capture=on_wheel
                on:keydown:capture=move |event| press(feed, &event)
            >
                <ol class="rows" role="none" on:click:capture=on_click>
                    <For
                        each=rows
                        key=|(times, is_chosen, row)| (row.key, *times, *is_chosen)
                        let((times, is_chosen, row))
                    >
                        <RowItem row times is_chosen />
                    </For>
                </ol>
            </div>
            <Hint is_refused may_publish topic origin />
            // It comes under the pointer of a reader who scrolls up, and must not stop the wheel.
            <p
                class="end"
                hidden=follows
                on:wheel:capture=move |wheel| browser::scroll_by(feed.scroller, wheel.delta_y())
            >
                <button
                    type="button"
                    class="quiet"
                    prop:textContent=new
                    on:click:capture=move |_| {
                        feed.follow();
                        // The button is gone then.
                        browser::focus(LIST);
                    }
                ></button>
            </p>
        </div>
    }
}

/// The text in the place of rows, and the way to publish the first event.
#[component]
fn Hint(
    is_refused: RwSignal<bool>,
    may_publish: bool,
    topic: StoredValue<String>,
    origin: RwSignal<String>,
) -> impl IntoView {
    let may_publish = may_publish && !topic.read_value().is_empty();
    let placeholder = text(move || {
        let placeholder = match (is_refused.get(), may_publish) {
            (true, _) => "No events.",
            (false, true) => "No events yet. Publish the first one:",
            (false, false) => "No events yet.",
        };
        placeholder.to_owned()
    });
    let hint = text(move || {
        if may_publish && !is_refused.get() {
            format!("curl -d hello {}/events/{}", origin.get(), topic.read_value())
        } else {
            String::new()
        }
    });
    view! {
        // The style sheet shows it while there are no rows.
        <p class="empty">
            <span prop:textContent=placeholder>{first_text(placeholder)}</span>
            " "
            <code prop:textContent=hint>{first_text(hint)}</code>
            <button
                type="button"
                class="quiet"
                hidden=Signal::derive(move || hint.read().is_empty())
                on:click:capture=publish::opener(topic)
            >
                "Publish an event"
            </button>
        </p>
    }
}

/// Handles a key in the list.
fn press(feed: Feed, event: &ev::KeyboardEvent) {
    // These belong to the browser, and to screen readers.
    if browser::has_modifier(event) || event.shift_key() {
        return;
    }
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
        // Only some rows are in the document, and earlier ones may come: their number is unknown.
        <li
            id=row.key.to_string()
            class=kind
            role="option"
            aria-setsize="-1"
            aria-selected=is_chosen.to_string()
        >
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
        Earlier::Failed => "Earlier events could not be loaded. Click here to try again.",
        Earlier::Unmatched => "None found yet. Click here to look further.",
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
