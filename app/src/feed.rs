//! The reactive list behind the page: each message is added to a ring outside the signals, and one
//! signal tells the view, at most once an animation frame, what to show of it.

use std::sync::Arc;

use leptos::{html::Div, prelude::*};
use waterclock::{event::Event, id::EventId};
use waterclock_leptos::Arrived;

use crate::{
    browser::{self, View},
    filter::Filter,
    reactive::effect,
    ring::{Content, Ring, Row},
};

/// So many rows above and below those in view are in the document too, so that a short scroll shows
/// them at once. Fewer while the end is followed, when all of them are others in each frame.
const OVERSCAN: usize = 8;
const OVERSCAN_AT_END: usize = 3;

/// Why the list holds still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// The reader has scrolled up; it goes on at the end.
    Scrolled,
    /// The reader has said so; it goes on when told to.
    Paused,
}

/// What is shown of what there is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frame {
    /// The rows in the document, oldest first.
    pub(crate) rows: Vec<Arc<Row>>,
    /// How many rows are above them.
    pub(crate) above: usize,
    /// How many there are in all.
    pub(crate) total: usize,
    /// How high one is, in pixels.
    pub(crate) row: f64,
    /// How many events there were.
    pub(crate) events: u64,
    /// How many of them are no longer kept.
    pub(crate) evicted: u64,
    /// How many to show have come since the list holds still.
    pub(crate) new: usize,
    /// How many match the filter, if there is one.
    pub(crate) matching: Option<usize>,
}

impl Frame {
    /// The part of `shown` that is in view: its end, if that is followed. `now` is what there is by now.
    fn of(shown: &Ring, now: &Ring, view: View, is_at_end: bool) -> Self {
        let rows = shown.shown();
        let overscan = if is_at_end { OVERSCAN_AT_END } else { 2 * OVERSCAN };
        let visible = view.rows_in_view() + overscan;
        let last_first = rows.len().saturating_sub(visible);
        let above = view.rows_above().saturating_sub(OVERSCAN).min(last_first);
        let above = if is_at_end { last_first } else { above };
        Self {
            rows: rows.iter().skip(above).take(visible).cloned().collect(),
            above,
            total: rows.len(),
            row: view.row,
            events: now.events(),
            evicted: now.evicted(),
            new: now.shown_since(shown),
            matching: shown.matching(),
        }
    }
}

/// The list of what has arrived.
#[derive(Clone, Copy)]
pub(crate) struct Feed {
    pub(crate) frame: RwSignal<Frame>,
    /// Why the list holds still, if it does.
    pub(crate) hold: RwSignal<Option<Hold>>,
    /// The element that scrolls.
    pub(crate) scroller: NodeRef<Div>,
    ring: StoredValue<Ring>,
    /// What there was when the list began to hold still.
    held: StoredValue<Option<Ring>>,
    is_frame_due: StoredValue<bool>,
    /// Where the list was scrolled to when its end was last shown, in pixels. The reader has scrolled up
    /// if it is above; the end may also have moved because the window has another size.
    end: StoredValue<i32>,
}

impl Feed {
    /// A list that begins with those events.
    pub(crate) fn new(events: Vec<Event>) -> Self {
        let mut ring = Ring::new();
        for event in events {
            ring.push(Content::Event(Arc::new(event)));
        }
        let feed = Self {
            frame: RwSignal::new(Frame::of(&ring, &ring, View::default(), true)),
            hold: RwSignal::default(),
            scroller: NodeRef::new(),
            ring: StoredValue::new(ring),
            held: StoredValue::default(),
            is_frame_due: StoredValue::default(),
            end: StoredValue::default(),
        };
        effect(move || {
            feed.request_frame();
            browser::on_resize(move || feed.request_frame());
        });
        effect(move || {
            let frame = feed.frame.read();
            let is_at_end = feed.hold.get().is_none();
            let top = browser::lay_out(feed.scroller, &frame, is_at_end);
            if let Some(top) = top {
                feed.end.set_value(top);
            }
        });
        feed
    }

    /// Adds what the stream has brought.
    pub(crate) fn add(self, arrived: Arrived) {
        let content = match arrived {
            Arrived::Event(event) => Content::Event(event),
            Arrived::Opened => Content::Opened(browser::time()),
            Arrived::Gap(gap) => Content::Gap(gap, browser::time()),
            Arrived::Notice => return,
        };
        self.ring.update_value(|ring| ring.push(content));
        self.request_frame();
    }

    /// Shows only what the filter lets through.
    pub(crate) fn set_filter(self, filter: &Filter) {
        self.ring.update_value(|ring| ring.set_filter(filter.clone()));
        self.held
            .update_value(|held| held.iter_mut().for_each(|held| held.set_filter(filter.clone())));
        self.request_frame();
    }

    /// Keeps so many rows.
    pub(crate) fn set_max_rows(self, max_rows: usize) {
        self.ring.update_value(|ring| ring.set_max_rows(max_rows));
        self.request_frame();
    }

    /// Holds still, while more arrives.
    pub(crate) fn hold(self, why: Hold) {
        if self.held.with_value(Option::is_none) {
            self.held.set_value(Some(self.ring.get_value()));
        }
        self.hold.set(Some(why));
        self.request_frame();
    }

    /// Follows the newest.
    pub(crate) fn follow(self) {
        self.held.set_value(None);
        self.hold.set(None);
        self.request_frame();
    }

    /// The reader has scrolled, or is about to scroll up.
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

    /// What the list shows, all of it, oldest first.
    pub(crate) fn shown(self) -> Vec<Arc<Row>> {
        let shown = |ring: &Ring| ring.shown().iter().cloned().collect();
        let held = self.held.with_value(|held| held.as_ref().map(shown));
        held.unwrap_or_else(|| self.ring.with_value(shown))
    }

    /// The newest event that the list shows.
    pub(crate) fn newest(self) -> Option<Arc<Event>> {
        self.shown().iter().rev().find_map(|row| row.event().cloned())
    }

    /// The event of that id, if the list shows it.
    pub(crate) fn find(self, id: EventId) -> Option<Arc<Event>> {
        self.shown().iter().find_map(|row| row.event().filter(|event| event.id == id).cloned())
    }

    /// The one after that one, or before it.
    pub(crate) fn beside(self, id: EventId, forward: bool) -> Option<Arc<Event>> {
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
        let Some(view) = browser::measure(self.scroller) else { return };
        let is_at_end = self.hold.get_untracked().is_none();
        let frame = self.ring.with_value(|ring| {
            self.held
                .with_value(|held| Frame::of(held.as_ref().unwrap_or(ring), ring, view, is_at_end))
        });
        self.frame.set(frame);
    }
}
