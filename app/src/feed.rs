//! The reactive list behind the page. Each update is added to a ring outside the signals. One
//! signal tells the view what to show of it, at most once per animation frame.

use std::{sync::Arc, time::Duration};

use leptos::{html::Div, prelude::*};
use serde::Serialize;
use waterclock::{event::Event, id::EventId, notice::TopicEnd};
use waterclock_leptos::{
    StreamUpdate,
    browser::internal::{FromJson, Json},
};

use crate::{
    browser::{self, Layout, ScrollPosition},
    filter::Filter,
    reactive::effect,
    ring::{Outage, Ring, Row, RowContent},
};

/// Number of rows above and below the visible ones that are in the document too, so that a short
/// scroll shows them at once.
const OVERSCAN: usize = 8;
/// The same while the end is followed, in all. It is smaller, since all rows change in each frame.
const OVERSCAN_AT_END: usize = 3;

/// The reason why the list does not follow the newest events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// The reader has scrolled up. The list continues when they scroll to the end.
    Scrolled,
    /// The reader has paused the list.
    Paused,
}

/// The end of a topic from before the page was opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PastEnd {
    /// Its place in the log.
    pub id: EventId,
    /// The end.
    #[serde(flatten)]
    pub end: TopicEnd,
}

impl PastEnd {
    /// Reads the end from what the event log returns for it. Returns `None` for an event.
    pub fn of(event: &Event) -> Option<Self> {
        Some(Self { id: event.id, end: TopicEnd::of(event)? })
    }
}

impl FromJson for PastEnd {
    fn from_json(json: &Json) -> Option<Self> {
        Some(Self { id: json.parse("id")?, end: TopicEnd::from_json(json)? })
    }
}

/// The visible part of the list, and the numbers about it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Viewport {
    /// The rows in the document, oldest first.
    pub(crate) rows: Vec<Arc<Row>>,
    pub(crate) layout: Layout,
    /// Number of events received.
    pub(crate) events: u64,
    /// Number of events that are no longer kept.
    pub(crate) evicted: u64,
    /// Number of events to show that have come since the list is held.
    pub(crate) new: usize,
    /// Number of events that match the filter, if one is set.
    pub(crate) matching: Option<usize>,
}

impl Viewport {
    /// Returns the part of `shown` in view, or its end if that is followed. `current` is the ring
    /// as it is now.
    fn of(shown: &Ring, current: &Ring, position: ScrollPosition, is_at_end: bool) -> Self {
        let rows = shown.shown();
        let overscan = if is_at_end { OVERSCAN_AT_END } else { 2 * OVERSCAN };
        let visible = position.rows_in_view() + overscan;
        let last_first = rows.len().saturating_sub(visible);
        let above = position.rows_above().saturating_sub(OVERSCAN).min(last_first);
        let above = if is_at_end { last_first } else { above };
        Self {
            rows: rows.iter().skip(above).take(visible).cloned().collect(),
            layout: Layout { above, total: rows.len(), row_height: position.row_height },
            events: current.events(),
            evicted: current.evicted(),
            new: current.shown_since(shown),
            matching: shown.matching(),
        }
    }
}

/// The list of events received.
#[derive(Clone, Copy)]
pub(crate) struct Feed {
    pub(crate) viewport: RwSignal<Viewport>,
    pub(crate) hold: RwSignal<Option<Hold>>,
    /// The element that scrolls.
    pub(crate) scroller: NodeRef<Div>,
    ring: StoredValue<Ring>,
    /// The ring at the time when the list was held.
    held: StoredValue<Option<Ring>>,
    is_frame_due: StoredValue<bool>,
    /// The time at which the stream was lost or stopped, `true` if the reader has stopped it.
    interrupted: StoredValue<Option<(Duration, bool)>>,
    /// Scroll position when the end was last shown, in pixels. The reader has scrolled up if the
    /// list is above it. The end alone does not tell: it also moves when the window is resized.
    end: StoredValue<i32>,
}

impl Feed {
    /// Creates a list that starts with these events and ends, in the order of the log.
    pub(crate) fn new(events: Vec<Event>, ends: Vec<PastEnd>) -> Self {
        let events = events.into_iter().map(|event| RowContent::Event(Arc::new(event)));
        let mut rows: Vec<_> = events.collect();
        for PastEnd { id, end } in ends.into_iter().rev() {
            let is_before = |row: &RowContent| matches!(row, RowContent::Event(event) if event.id.sequence < id.sequence);
            rows.insert(rows.partition_point(is_before), RowContent::End(end));
        }
        let mut ring = Ring::new();
        for row in rows {
            ring.push(row);
        }
        let feed = Self {
            viewport: RwSignal::new(Viewport::of(&ring, &ring, ScrollPosition::default(), true)),
            hold: RwSignal::default(),
            scroller: NodeRef::new(),
            ring: StoredValue::new(ring),
            held: StoredValue::default(),
            is_frame_due: StoredValue::default(),
            interrupted: StoredValue::default(),
            end: StoredValue::default(),
        };
        effect(move || {
            feed.request_frame();
            browser::on_resize(move || feed.request_frame());
        });
        effect(move || {
            let layout = feed.viewport.read().layout;
            let is_at_end = feed.hold.get().is_none();
            let top = browser::lay_out(feed.scroller, layout, is_at_end);
            if let Some(top) = top {
                feed.end.set_value(top);
            }
        });
        feed
    }

    /// Adds an update of the stream.
    pub(crate) fn add(self, update: StreamUpdate) {
        let content = match update {
            StreamUpdate::Event(event) => RowContent::Event(event),
            StreamUpdate::Opened => match self.interrupted.try_update_value(Option::take) {
                Some(Some((since, was_stopped))) => {
                    let length = browser::now().saturating_sub(since);
                    RowContent::Outage(Outage { length, was_stopped })
                }
                _ => return,
            },
            StreamUpdate::Gap(gap) => RowContent::Gap(gap),
            StreamUpdate::End(end) => RowContent::End(end),
            StreamUpdate::Notice => return,
        };
        self.ring.update_value(|ring| ring.push(content));
        self.request_frame();
    }

    /// Notes that there is no stream any more.
    pub(crate) fn interrupted(self, was_stopped: bool) {
        self.interrupted.update_value(|interrupted| {
            interrupted.get_or_insert_with(|| (browser::now(), was_stopped));
        });
    }

    /// Sets the filter.
    pub(crate) fn set_filter(self, filter: &Filter) {
        self.ring.update_value(|ring| ring.set_filter(filter.clone()));
        self.held
            .update_value(|held| held.iter_mut().for_each(|held| held.set_filter(filter.clone())));
        self.request_frame();
    }

    /// Sets the maximum number of rows.
    pub(crate) fn set_max_rows(self, max_rows: usize) {
        self.ring.update_value(|ring| ring.set_max_rows(max_rows));
        self.request_frame();
    }

    /// Keeps the list as it is, while further events are counted.
    pub(crate) fn hold(self, hold: Hold) {
        if self.held.with_value(Option::is_none) {
            self.held.set_value(Some(self.ring.get_value()));
        }
        self.hold.set(Some(hold));
        self.request_frame();
    }

    /// Follows the newest events.
    pub(crate) fn follow(self) {
        self.held.set_value(None);
        self.hold.set(None);
        self.request_frame();
    }

    /// Handles a scroll, or the intention to scroll up.
    pub(crate) fn scrolled(self, is_upwards: bool) {
        let is_at_end = browser::is_at_end(self.scroller);
        let is_above = !is_at_end && browser::is_above(self.scroller, self.end.get_value());
        match self.hold.get_untracked() {
            None if is_above || (is_upwards && browser::can_scroll(self.scroller)) => {
                self.hold(Hold::Scrolled);
            }
            Some(Hold::Scrolled) if is_at_end && !is_upwards => self.follow(),
            _ => self.request_frame(),
        }
    }

    /// Returns all rows that the list shows, oldest first.
    pub(crate) fn shown(self) -> Vec<Arc<Row>> {
        let shown = |ring: &Ring| ring.shown().iter().cloned().collect();
        let held = self.held.with_value(|held| held.as_ref().map(shown));
        held.unwrap_or_else(|| self.ring.with_value(shown))
    }

    /// Returns the newest event that the list shows.
    pub(crate) fn newest(self) -> Option<Arc<Event>> {
        self.shown().iter().rev().find_map(|row| row.event().cloned())
    }

    /// Returns the event of that id, if the list shows it.
    pub(crate) fn find(self, id: EventId) -> Option<Arc<Event>> {
        self.shown().iter().find_map(|row| row.event().filter(|event| event.id == id).cloned())
    }

    /// Returns the event after the one of that id, or before it.
    pub(crate) fn neighbour(self, id: EventId, forward: bool) -> Option<Arc<Event>> {
        let shown = self.shown();
        let mut events = shown.iter().filter_map(|row| row.event());
        let mut before = None;
        while let Some(event) = events.next() {
            if event.id == id {
                return if forward { events.next() } else { before }.cloned();
            }
            before = Some(event);
        }
        None
    }

    fn request_frame(self) {
        if self.is_frame_due.try_get_value() == Some(false) {
            self.is_frame_due.set_value(true);
            request_animation_frame(move || self.draw());
        }
    }

    fn draw(self) {
        // The page may be gone meanwhile.
        let _ = self.is_frame_due.try_set_value(false);
        let Some(position) = browser::measure(self.scroller) else { return };
        let is_at_end = self.hold.get_untracked().is_none();
        let viewport = self.ring.with_value(|ring| {
            self.held.with_value(|held| {
                Viewport::of(held.as_ref().unwrap_or(ring), ring, position, is_at_end)
            })
        });
        self.viewport.set(viewport);
    }
}
