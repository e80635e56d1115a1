//! The part of the table that is in view, drawn at most once per frame.

use std::sync::Arc;

use leptos::{html::Div, prelude::*, task::spawn_local};
use waterclock::timestamp::Timestamp;
use waterclock_leptos::browser::{
    RawMessage,
    internal::{FromJson, Json, from_json},
};

use super::{
    listed::{ListedTopic, newest_time, outcome_text, rate_text, readers_text, size_text},
    search::{MAX_PATTERNS, Search},
    table::{KnownTopic, TableOrder, TopicColumn, TopicTable},
};
use crate::{
    browser::{self, Layout, ScrollPosition},
    reactive::effect,
    time::relative_time,
};

/// Number of rows above and below the visible ones that are in the document too, so that a short
/// scroll shows them at once, and the tab key finds the next one.
const OVERSCAN: usize = 8;

/// Time between two readings of the readers by pattern, in seconds.
const READERS_EVERY: u64 = 5;
/// Length from which the address of such a request gets no further topic.
const MAX_URL: usize = 4000;

/// A row, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TopicRow {
    pub(super) topic: String,
    /// Its place in the table, from 1.
    pub(super) place: usize,
    /// The texts of all columns but the first.
    pub(super) cells: [String; TopicColumn::ALL.len() - 1],
}

/// The part of the table in view, and the numbers of its rows.
#[derive(Clone, Debug, Default)]
pub(super) struct TopicsInView {
    /// The rows in the document.
    pub(super) rows: Vec<Arc<TopicRow>>,
    pub(super) layout: Layout,
    /// Number of all topics.
    pub(super) all: usize,
    /// `true` if the table has all topics that the reader has asked for.
    pub(super) is_complete: bool,
}

/// A message of a view.
struct ViewMessage {
    topics: Vec<ListedTopic>,
    is_complete: bool,
}

impl FromJson for ViewMessage {
    fn from_json(json: &Json) -> Option<Self> {
        Some(Self { topics: json.list("topics"), is_complete: json.is_true("complete") })
    }
}

/// The server's time, in `hello` and in heartbeats.
struct NoticeTime(Timestamp);

impl FromJson for NoticeTime {
    fn from_json(json: &Json) -> Option<Self> {
        json.parse("time").map(Self)
    }
}

/// The table, and the part of it in view.
#[derive(Clone, Copy)]
pub(super) struct TopicList {
    pub(super) in_view: RwSignal<TopicsInView>,
    pub(super) order: RwSignal<TableOrder>,
    /// The element that scrolls.
    pub(super) scroller: NodeRef<Div>,
    table: StoredValue<TopicTable>,
    search: StoredValue<Search>,
    /// The server's time at a reading of the page's clock, so that a wrong clock of the reader's
    /// machine does not matter.
    server_time: StoredValue<(Timestamp, u64)>,
    /// `true` while the view tells each change, and the last second of the page's clock in which it
    /// did. A rate is known only then, and afterwards the order by rates stays.
    live: StoredValue<(bool, u64)>,
    /// `true` if the order may have changed since the last frame.
    is_stale: StoredValue<bool>,
    /// `true` if the reader has asked for another order, or for other topics.
    is_asked: StoredValue<bool>,
    is_frame_due: StoredValue<bool>,
    /// `true` while the numbers of readers by pattern are read.
    is_reading: StoredValue<bool>,
}

impl TopicList {
    /// Creates the list with the topics in the document, at the server's time. There may be others
    /// if it `has_more`.
    pub(super) fn new(topics: Vec<ListedTopic>, has_more: bool, time: Timestamp) -> Self {
        let list = Self {
            in_view: RwSignal::default(),
            order: RwSignal::default(),
            scroller: NodeRef::new(),
            table: StoredValue::new(TopicTable::new(topics, has_more)),
            search: StoredValue::default(),
            server_time: StoredValue::new((time, 0)),
            live: StoredValue::new((false, 0)),
            is_stale: StoredValue::new(true),
            is_asked: StoredValue::new(false),
            is_frame_due: StoredValue::new(false),
            is_reading: StoredValue::new(false),
        };
        list.draw_at(ScrollPosition::default(), 0, false);
        effect(move || {
            list.server_time.set_value((time, seconds()));
            list.request_frame();
            browser::on_resize(move || list.request_frame());
            // Times pass, and rates fall, without a message.
            browser::every_second(move || list.rearrange());
        });
        effect(move || {
            let layout = list.in_view.read().layout;
            browser::lay_out(list.scroller, layout);
        });
        // An empty list is hidden, and has no height to measure.
        let is_empty = Memo::new(move |_| list.in_view.read().layout.total == 0);
        effect(move || {
            is_empty.track();
            list.request_frame();
        });
        list
    }

    /// Applies a message of the view.
    pub(super) fn apply(self, message: &RawMessage) {
        let second = seconds();
        if message.name == "message" {
            let Some(ViewMessage { topics, is_complete }) = from_json(&message.data) else {
                return;
            };
            self.table.update_value(|table| table.apply(topics, is_complete, second));
        } else if let Some(NoticeTime(time)) = from_json(&message.data) {
            self.server_time.set_value((time, second));
            if message.name == "hello" {
                self.table.update_value(TopicTable::begin);
            }
        }
        self.rearrange();
    }

    /// Notes that the view is live, or is not any more.
    pub(super) fn set_live(self, is_live: bool) {
        self.live.update_value(|(before, _)| *before = is_live);
        self.rearrange();
    }

    /// Shows only the topics that a search finds.
    pub(super) fn search(self, search: Search) {
        self.search.set_value(search);
        self.is_asked.set_value(true);
        self.rearrange();
    }

    /// Orders the topics by a column, or turns its order.
    pub(super) fn order_by(self, column: TopicColumn) {
        self.order.update(|order| *order = order.after_click(column));
        self.is_asked.set_value(true);
        self.rearrange();
    }

    /// Reads the numbers of readers by pattern of the topics in view, every few seconds. The view
    /// tells them only together with other changes.
    pub(super) fn tick(self) {
        let in_view = self.in_view.read_untracked();
        let is_due = seconds().is_multiple_of(READERS_EVERY) && !in_view.rows.is_empty();
        if is_due && in_view.is_complete && !self.is_reading.get_value() {
            self.is_reading.set_value(true);
            spawn_local(self.read_pattern_readers(in_view.rows.clone()));
        }
    }

    async fn read_pattern_readers(self, rows: Vec<Arc<TopicRow>>) {
        for url in readers_urls(&rows) {
            let Ok(json) = browser::get_json(url).await else { break };
            let topics = json.list::<ListedTopic>("topics");
            // The page may be gone meanwhile.
            let _ = self.table.try_update_value(|table| table.set_pattern_readers(&topics));
            self.request_frame();
        }
        let _ = self.is_reading.try_set_value(false);
    }

    fn rearrange(self) {
        let _ = self.is_stale.try_set_value(true);
        self.request_frame();
    }

    pub(super) fn request_frame(self) {
        if self.is_frame_due.try_get_value() == Some(false) {
            self.is_frame_due.set_value(true);
            request_animation_frame(move || self.draw());
        }
    }

    fn draw(self) {
        // The page may be gone meanwhile.
        let _ = self.is_frame_due.try_set_value(false);
        if let Some(position) = browser::measure(self.scroller) {
            self.draw_at(position, seconds(), browser::is_pointed_at(self.scroller));
        }
    }

    fn draw_at(self, position: ScrollPosition, second: u64, is_pointed: bool) {
        let (time, at) = self.server_time.get_value();
        let passed = second.saturating_sub(at);
        let now = Timestamp::from_millis(time.as_millis() + passed * 1000);
        let (is_live, last) = self.live.get_value();
        let rated_at = if is_live { second } else { last };
        self.live.set_value((is_live, rated_at));
        if self.is_stale.get_value() {
            self.is_stale.set_value(false);
            let is_asked = self.is_asked.try_update_value(std::mem::take) == Some(true);
            // A click meets the row that was meant, and the focus stays where it is.
            let is_held = !is_asked && is_pointed;
            let order = self.order.get_untracked();
            self.table.update_value(|table| {
                self.search.with_value(|search| table.arrange(search, order, is_held, rated_at));
            });
        }
        let in_view = self.table.with_value(|table| {
            let total = table.shown_count();
            let count = position.rows_in_view() + 2 * OVERSCAN;
            let above = position.rows_above().saturating_sub(OVERSCAN);
            let above = above.min(total.saturating_sub(count));
            let rows = table.shown(above, count).into_iter();
            let row = |(place, known): (usize, &KnownTopic)| {
                let rate = if is_live { known.rate(rated_at) } else { None };
                Arc::new(row(known, place, now, rate))
            };
            TopicsInView {
                rows: rows.map(row).collect(),
                layout: Layout { above, total, row_height: position.row_height, top: None },
                all: table.count(),
                is_complete: table.is_complete(),
            }
        });
        self.in_view.set(in_view);
    }
}

/// Returns the addresses of the requests for the readers of the topics in these rows. A high window
/// has more rows than one request may name.
fn readers_urls(rows: &[Arc<TopicRow>]) -> Vec<String> {
    let mut urls: Vec<String> = Vec::new();
    let mut count = 0;
    for row in rows {
        match urls.last_mut() {
            Some(url) if count < MAX_PATTERNS && url.len() < MAX_URL => {
                *url += "&match=";
                *url += &row.topic;
                count += 1;
            }
            _ => {
                urls.push(format!("/topics?limit={MAX_PATTERNS}&match={}", row.topic));
                count = 1;
            }
        }
    }
    urls
}

/// Returns the seconds of the page's clock.
fn seconds() -> u64 {
    browser::now().as_secs()
}

/// Writes a row.
fn row(known: &KnownTopic, place: usize, now: Timestamp, rate: Option<u64>) -> TopicRow {
    let listed = &known.listed;
    TopicRow {
        topic: listed.topic.to_string(),
        place: place + 1,
        cells: [
            listed.events.to_string(),
            rate.map(rate_text).unwrap_or_default(),
            size_text(listed.bytes),
            newest_time(listed).map(|time| relative_time(time, now)).unwrap_or_default(),
            readers_text(listed.readers, listed.pattern_readers),
            outcome_text(listed.outcome).to_owned(),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(topics: impl Iterator<Item = String>) -> Vec<Arc<TopicRow>> {
        let cells = || std::array::from_fn(|_| String::new());
        let row = |topic| Arc::new(TopicRow { topic, place: 1, cells: cells() });
        topics.map(row).collect()
    }

    #[test]
    fn the_readers_of_all_rows_are_read() {
        let topics = || (0..150).map(|n| format!("t.{n}"));
        let urls = readers_urls(&rows(topics()));
        let counts: Vec<_> = urls.iter().map(|url| url.matches("&match=").count()).collect();
        assert_eq!(counts, [64, 64, 22]);
        for topic in topics() {
            let wanted = format!("&match={topic}");
            assert!(urls.iter().any(|url| url.contains(&wanted)), "{topic}");
        }
        assert!(readers_urls(&[]).is_empty());
    }

    #[test]
    fn addresses_with_long_topics_are_short_enough() {
        let urls = readers_urls(&rows((0..40).map(|n| format!("{n}{}", "x".repeat(250)))));
        assert!(urls.len() > 1);
        assert!(urls.iter().all(|url| url.len() < MAX_URL + 300));
    }
}
