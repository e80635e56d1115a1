//! The list of events, oldest first, and the numbers about it.

use std::sync::Arc;

use leptos::{ev, prelude::*};
use waterclock::{event::Name, timestamp::Timestamp};

use crate::{
    browser, details,
    feed::{Feed, Viewport},
    labels::{end_class, end_label, gap_label, outage_label},
    reactive::{first_text, text},
    ring::{Row, RowContent},
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
    /// `true` if all events have the same topic.
    has_one_topic: bool,
) -> impl IntoView {
    let has_rows = Signal::derive(move || feed.viewport.read().layout.total > 0);
    let placeholder = if is_refused { "No events." } else { "No events yet." };
    // A row never changes. If the format of times changes, all rows are replaced. If each row
    // subscribed to the settings instead, these would keep a subscription of every row that ever
    // existed.
    let rows = move || {
        let times = settings.times();
        let rows = feed.viewport.read().rows.clone();
        rows.into_iter().map(move |row| (row, times)).collect::<Vec<_>>()
    };
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
        if let Some(event) = browser::clicked_event(&click).and_then(|id| feed.find(id)) {
            details::open(feed, event);
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
                role="group"
                aria-label="Events, oldest first"
                node_ref=feed.scroller
                on:scroll=move |_| feed.scrolled(false)
                on:wheel:passive=on_wheel
            >
                <ol class="rows" on:click=on_click>
                    <For each=rows key=|(row, times)| (row.key, *times) let((row, times))>
                        <RowItem row times />
                    </For>
                </ol>
                <p class="empty" hidden=has_rows>{placeholder}</p>
                // Inside the scroller, so that a wheel over the button scrolls the list.
                <div class="end">
                    <button
                        type="button"
                        hidden=follows
                        prop:textContent=new
                        on:click=move |_| feed.follow()
                    ></button>
                </div>
            </div>
        </div>
    }
}

/// One row: an event, or a mark.
#[component]
fn RowItem(row: Arc<Row>, times: TimeDisplay) -> impl IntoView {
    let (kind, event, mark) = match &row.content {
        RowContent::Event(event) => ("event", Some(event), String::new()),
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
    if data.is_empty() {
        data.push_str("(empty)");
    }
    let sequence = event.map(|event| event.id.sequence.to_string()).unwrap_or_default();
    view! {
        <li class=kind data-id=event.map(|event| event.id.to_string())>
            <time datetime=time.map(|time| time.to_string())>
                {time.map(|time| write_time(time, times)).unwrap_or_default()}
            </time>
            // The tab key skips these buttons: they are many, and they come and go.
            <button type="button" class="data" dir="auto" tabindex="-1" hidden=event.is_none()>
                {data}
            </button>
            <span class="about">{mark}</span>
            <span class="topic">{topic}</span>
            <span class="event-name">{name}</span>
            <code class="id">{sequence}</code>
        </li>
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
