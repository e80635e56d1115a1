//! The reactive list behind the page. Each update is added to a ring outside the signals. One
//! signal tells the view what to show of it, at most once per animation frame.

use std::{mem, sync::Arc, time::Duration};

use leptos::{html::Div, prelude::*, task::spawn_local};
use serde::Serialize;
use waterclock::{
    event::Event,
    id::EventId,
    notice::{Gap, TopicEnd},
};
use waterclock_leptos::{
    StreamUpdate,
    browser::internal::{FromJson, Json},
};

use crate::{
    browser::{self, Layout, ScrollPosition},
    filter::Filter,
    reactive::effect,
    ring::{Earlier, MAX_ROWS, Outage, Ring, Row, RowContent},
};

/// Number of rows above and below the visible ones that are in the document too, so that a short
/// scroll shows them at once.
const OVERSCAN: usize = 8;
/// The same while the end is followed, in all. It is smaller, since all rows change in each frame.
const OVERSCAN_AT_END: usize = 3;
/// Distance from the top of the list at which earlier events are loaded, in pixels.
const NEAR_TOP: i32 = 200;
/// Number of earlier events that are loaded at a time.
const EARLIER_EVENTS: usize = 100;
/// Maximum number of such requests in a row that add nothing to see.
const MAX_REQUESTS: usize = 20;
/// Time after a request for earlier events has failed in which scrolling does not repeat it.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The reason why the list does not follow the newest events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// The reader has scrolled up, or loads earlier events. The list continues when they scroll to
    /// the end, or when all of it is in view.
    Scrolled,
    /// The reader has paused the list.
    Paused,
    /// The event whose details are shown would have left the list. It continues when they are
    /// closed.
    Details,
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
    /// as it is now, and `earlier` the state of the events before those of `shown`.
    fn of(
        shown: &Ring,
        current: &Ring,
        earlier: Earlier,
        position: ScrollPosition,
        top: Option<i32>,
    ) -> Self {
        let is_at_end = top == Some(i32::MAX);
        let has_earlier = usize::from(shown.earlier().is_some());
        let total = shown.shown().len() + has_earlier;
        let overscan = if is_at_end { OVERSCAN_AT_END } else { 2 * OVERSCAN };
        let visible = position.rows_in_view() + overscan;
        let last_first = total.saturating_sub(visible);
        let above = position.rows_above().saturating_sub(OVERSCAN).min(last_first);
        let above = if is_at_end { last_first } else { above };
        let mut rows = Vec::new();
        if above < has_earlier {
            rows.push(earlier.row());
        }
        let above_events = above.saturating_sub(has_earlier);
        rows.extend(shown.shown().iter().skip(above_events).take(visible).cloned());
        Self {
            rows,
            layout: Layout { above, total, row_height: position.row_height, top },
            events: current.pushed() + shown.prepended(),
            evicted: shown.evicted(),
            new: current.shown_since(shown),
            matching: shown.matching(),
        }
    }
}

/// The place of a row in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// Number of rows above it.
    above: usize,
    /// Number of rows from it to the end.
    after: usize,
}

impl Place {
    /// Returns `None` if the list does not have the row.
    fn of(shown: &Ring, row: &Row) -> Option<Self> {
        let rows = shown.shown().partition_point(|other| other.key < row.key);
        let id = |row: &Row| row.event().map(|event| event.id);
        // Once a row has left the list, another may have its key.
        shown.shown().get(rows).filter(|other| other.key == row.key && id(other) == id(row))?;
        let above = rows + usize::from(shown.earlier().is_some());
        Some(Self { above, after: shown.shown().len() - rows })
    }
}

/// The list of events received.
#[derive(Clone, Copy)]
pub(crate) struct Feed {
    pub(crate) viewport: RwSignal<Viewport>,
    pub(crate) hold: RwSignal<Option<Hold>>,
    /// Key of the row of the event that the reader has chosen. 0 if there is none.
    pub(crate) chosen: RwSignal<u64>,
    /// The element that scrolls.
    pub(crate) scroller: NodeRef<Div>,
    state: StoredValue<State>,
}

/// The part of the list that no view reads directly. It is one value, so that Leptos's code for it
/// is in the page once.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct State {
    ring: Ring,
    /// The ring at the time when the list was held, and earlier events.
    held: Option<Ring>,
    is_frame_due: bool,
    /// The topics, as the query of a stream.
    query: String,
    earlier: Earlier,
    /// Time, by the page's clock, from which scrolling may repeat a failed request for them.
    retry_at: Duration,
    /// Number of rows that have come above those in view since the last frame.
    added_above: usize,
    /// The row of the event that the reader has chosen by keys, or to see its details.
    chosen: Option<Arc<Row>>,
    /// `true` until the chosen row has been scrolled into view.
    is_revealed_next: bool,
    /// `true` if the list must be held before the chosen row leaves its view.
    is_choice_kept: bool,
    /// `true` while the details of the chosen event are shown.
    has_details: bool,
    /// The time at which the stream was lost or stopped, `true` if the reader has stopped it.
    interrupted: Option<(Duration, bool)>,
    /// Scroll position in the last frame, in pixels. A reader who scrolls up brings the list above
    /// it. The end alone does not tell: it also moves when the window is resized.
    top: i32,
}

impl State {
    fn new(ring: Ring, query: String) -> Self {
        Self {
            ring,
            held: None,
            is_frame_due: false,
            query,
            earlier: Earlier::Kept,
            retry_at: Duration::ZERO,
            added_above: 0,
            chosen: None,
            is_revealed_next: false,
            is_choice_kept: false,
            has_details: false,
            interrupted: None,
            top: 0,
        }
    }

    fn shown(&self) -> &Ring {
        self.held.as_ref().unwrap_or(&self.ring)
    }

    fn place(&self) -> Option<Place> {
        Place::of(self.shown(), self.chosen.as_ref()?)
    }

    /// Returns the state of the events before those that are shown. Only a held list can be full:
    /// the list that is followed has room for earlier events once it is held.
    fn earlier(&self) -> Earlier {
        if self.held.as_ref().is_some_and(Ring::is_full) { Earlier::Full } else { self.earlier }
    }

    /// Returns the place before which earlier events are to be loaded, and the address of a request
    /// for them. Returns `None` if there are none, or no room, or such a request is in flight.
    fn request_earlier(&mut self) -> Option<(EventId, String)> {
        let place = self.shown().earlier()?;
        if matches!(self.earlier(), Earlier::Full | Earlier::Loading) {
            return None;
        }
        self.earlier = Earlier::Loading;
        let query = &self.query;
        Some((place, format!("/poll?before={place}&limit={EARLIER_EVENTS}&{query}")))
    }

    /// Returns `true` if the list is held although it has no more rows than its end shows, and the
    /// list that would be followed has the same ones.
    fn is_held_in_vain(&self, position: ScrollPosition) -> bool {
        self.held.as_ref().is_some_and(|held| {
            let has_earlier = usize::from(held.earlier().is_some());
            self.earlier != Earlier::Loading
                && held.earlier() == self.ring.earlier()
                && position.has_room(held.shown().len() + has_earlier)
        })
    }

    /// Chooses a row.
    fn choose(&mut self, row: &Arc<Row>) {
        self.chosen = Some(Arc::clone(row));
        (self.is_choice_kept, self.is_revealed_next) = (true, true);
    }

    /// Puts earlier rows before the others, as [`Ring::prepend`] does. Returns `true` if the reader
    /// sees no more of the list than before.
    fn prepend(&mut self, place: EventId, rows: &[RowContent], before: Option<EventId>) -> bool {
        self.earlier = Earlier::Kept;
        self.ring.prepend(place, rows, before);
        let Some(held) = &mut self.held else { return false };
        let added = held.prepend(place, rows, before);
        // The row above the oldest event may be gone.
        self.added_above += added.saturating_sub(usize::from(before.is_none()));
        added == 0
    }
}

/// Returns the index of the event that comes `by` events after the one with that key, or before it.
/// It is beyond the end if there is none.
fn step(events: &[&Arc<Row>], key: u64, by: isize) -> usize {
    let at = events.partition_point(|row| row.key < key);
    // In the place of an event that the filter hides, there is the one after it.
    let is_hidden = events.get(at).is_some_and(|row| row.key != key);
    at.saturating_add_signed(by - isize::from(is_hidden && by > 0))
}

impl Feed {
    /// Creates a list that starts with these events and ends, in the order of the log, and with the
    /// gap after them. `before` is the position before the earlier ones, if there are any. `query`
    /// has the topics.
    pub(crate) fn new(
        events: Vec<Event>,
        ends: Vec<PastEnd>,
        gap: Option<Gap>,
        before: Option<EventId>,
        query: String,
    ) -> Self {
        let events = events.into_iter().map(|event| RowContent::Event(Arc::new(event)));
        let ends = ends.into_iter().map(|PastEnd { id, end }| (id, end));
        let mut ring = Ring::new(before);
        ring.start(events.chain(gap.map(RowContent::Gap)).collect(), ends.collect());
        let position = ScrollPosition::default();
        let viewport = Viewport::of(&ring, &ring, Earlier::Kept, position, Some(i32::MAX));
        let state = State::new(ring, query);
        let feed = Self {
            viewport: RwSignal::new(viewport),
            hold: RwSignal::default(),
            chosen: RwSignal::default(),
            scroller: NodeRef::new(),
            state: StoredValue::new(state),
        };
        effect(move || {
            feed.request_frame();
            browser::on_resize(move || feed.request_frame());
        });
        effect(move || {
            let top = browser::lay_out(feed.scroller, feed.viewport.read().layout);
            if let Some(top) = top {
                feed.with(&mut |state| state.top = top);
            }
        });
        feed
    }

    /// Reads or changes the state, unless the page is gone.
    fn with(self, run: &mut dyn FnMut(&mut State)) {
        let _ = self.state.try_update_value(|state| run(state));
    }

    /// Changes the state and shows the change.
    fn update(self, run: &mut dyn FnMut(&mut State)) {
        self.with(run);
        self.request_frame();
    }

    /// Adds an update of the stream.
    pub(crate) fn add(self, update: StreamUpdate) {
        let mut update = Some(update);
        self.update(&mut |state| {
            let content = match update.take() {
                Some(StreamUpdate::Event(event)) => RowContent::Event(event),
                Some(StreamUpdate::Opened) => match state.interrupted.take() {
                    Some((since, was_stopped)) => {
                        let length = browser::now().saturating_sub(since);
                        RowContent::Outage(Outage { length, was_stopped })
                    }
                    None => return,
                },
                Some(StreamUpdate::Gap(gap)) => RowContent::Gap(gap),
                Some(StreamUpdate::End(end)) => RowContent::End(end),
                Some(StreamUpdate::Notice) | None => return,
            };
            state.ring.push(content);
        });
    }

    /// Notes that there is no stream any more.
    pub(crate) fn interrupted(self, was_stopped: bool) {
        self.with(&mut |state| {
            state.interrupted.get_or_insert_with(|| (browser::now(), was_stopped));
        });
    }

    /// Sets the filter.
    pub(crate) fn set_filter(self, filter: &Filter) {
        self.update(&mut |state| {
            state.ring.set_filter(filter.clone());
            state.held.iter_mut().for_each(|held| held.set_filter(filter.clone()));
            if state.earlier == Earlier::Unmatched {
                state.earlier = Earlier::Kept;
            }
        });
    }

    /// Sets the maximum number of rows.
    pub(crate) fn set_max_rows(self, max_rows: usize) {
        self.update(&mut |state| state.ring.set_max_rows(max_rows));
    }

    /// Keeps the list as it is, while further events are counted.
    pub(crate) fn hold(self, hold: Hold) {
        self.hold.set(Some(hold));
        self.update(&mut |state| {
            if state.held.is_none() {
                let mut ring = state.ring.clone();
                ring.set_max_rows(MAX_ROWS);
                state.held = Some(ring);
            }
        });
    }

    /// Follows the newest events.
    pub(crate) fn follow(self) {
        self.hold.set(None);
        self.update(&mut |state| {
            (state.held, state.is_choice_kept) = (None, false);
            if state.earlier == Earlier::Unmatched {
                state.earlier = Earlier::Kept;
            }
        });
    }

    /// Handles a scroll, or the intention to scroll up.
    pub(crate) fn scrolled(self, is_upwards: bool) {
        let Some(position) = browser::measure(self.scroller) else { return };
        let (mut top, mut may_load) = (0, false);
        self.with(&mut |state| {
            top = state.top;
            may_load = match state.earlier {
                Earlier::Kept => true,
                Earlier::Failed => browser::now() >= state.retry_at,
                _ => false,
            };
        });
        let is_above =
            is_upwards && position.can_scroll() || position.is_above(top) && !position.is_at_end();
        match self.hold.get_untracked() {
            None | Some(Hold::Details) if is_above => self.hold(Hold::Scrolled),
            Some(Hold::Scrolled) if position.is_at_end() && !is_upwards => self.follow(),
            _ => self.request_frame(),
        }
        // The list also scrolls by itself, to where the last frame has put it.
        let is_wanted = is_upwards || self.hold.get_untracked().is_some() && !position.is_at(top);
        if is_wanted && may_load && position.is_above(NEAR_TOP) {
            self.load_earlier();
        }
    }

    /// Loads events before the oldest one, unless that is going on already. Then the list is held.
    pub(crate) fn load_earlier(self) {
        let mut request = None;
        self.with(&mut |state| request = state.request_earlier());
        if request.is_none() {
            return;
        }
        if self.hold.get_untracked().is_none() {
            self.hold(Hold::Scrolled);
        }
        self.request_frame();
        spawn_local(async move {
            let mut requests = 1;
            while let Some((place, url)) = request.take() {
                let response = browser::earlier_events(url).await;
                self.update(&mut |state| {
                    let Some((rows, before)) = &response else {
                        state.earlier = Earlier::Failed;
                        state.retry_at = browser::now() + RETRY_PAUSE;
                        return;
                    };
                    if !state.prepend(place, rows, *before) {
                        return;
                    }
                    // None of them matches the filter, or the log has dropped them.
                    if requests < MAX_REQUESTS {
                        request = state.request_earlier();
                    } else {
                        state.earlier = Earlier::Unmatched;
                    }
                });
                requests += 1;
            }
        });
    }

    /// Chooses the event that comes `by` events after the chosen one, or before it. If none is
    /// chosen, or it is no longer in the list, the event before the end of the list is that at -1.
    /// At the oldest event, earlier ones are loaded.
    pub(crate) fn step(self, by: isize) {
        let mut is_oldest = false;
        self.update(&mut |state| {
            let rows = state.shown().shown();
            let oldest = rows.front().map_or(0, |row| row.key);
            let chosen = state.chosen.as_ref().filter(|row| row.key >= oldest);
            let key = chosen.map_or(u64::MAX, |row| row.key);
            let events: Vec<_> = rows.iter().filter(|row| row.event().is_some()).collect();
            let Some(last) = events.len().checked_sub(1) else { return };
            let next = step(&events, key, by);
            is_oldest = next == 0;
            let row = Arc::clone(events[next.min(last)]);
            state.choose(&row);
        });
        if is_oldest && by < 0 {
            self.load_earlier();
        }
    }

    /// Handles a click on the row of that key. Returns `true` if it has chosen an event.
    pub(crate) fn clicked(self, key: u64) -> bool {
        let mut is_event = false;
        self.update(&mut |state| {
            let rows = state.shown().shown();
            let row = rows.get(rows.partition_point(|row| row.key < key)).cloned();
            if let Some(row) = row.filter(|row| row.key == key && row.event().is_some()) {
                state.choose(&row);
                is_event = true;
            }
        });
        if Earlier::has_key(key) {
            self.load_earlier();
        }
        is_event
    }

    /// Returns the chosen event.
    pub(crate) fn chosen(self) -> Option<Arc<Event>> {
        let mut event = None;
        self.chosen.track();
        self.with(&mut |state| {
            event = state.chosen.as_ref().and_then(|row| row.event()).cloned();
        });
        event
    }

    /// Notes that the details of the chosen event are shown. Returns `false` if they were already,
    /// or if there is no chosen event.
    pub(crate) fn open_details(self) -> bool {
        let mut is_new = false;
        self.with(&mut |state| {
            is_new = !state.has_details && state.chosen.is_some();
            state.has_details |= is_new;
        });
        is_new
    }

    /// Notes that the details have been closed.
    pub(crate) fn close_details(self) {
        self.with(&mut |state| (state.has_details, state.is_choice_kept) = (false, false));
        if self.hold.get_untracked() == Some(Hold::Details) {
            self.follow();
        }
    }

    /// Keeps the chosen event in the list.
    fn hold_choice(self) {
        let mut hold = Hold::Scrolled;
        self.with(&mut |state| {
            if state.has_details {
                hold = Hold::Details;
            }
        });
        self.hold(hold);
    }

    /// Returns the number of rows that are wholly in view.
    pub(crate) fn page(self) -> isize {
        let rows = browser::measure(self.scroller).map_or(3, ScrollPosition::rows_in_view);
        rows.saturating_sub(2).max(1).cast_signed()
    }

    /// Returns all rows that the list shows, oldest first.
    pub(crate) fn shown(self) -> Vec<Arc<Row>> {
        let mut rows = Vec::new();
        self.with(&mut |state| rows.extend(state.shown().shown().iter().cloned()));
        rows
    }

    fn request_frame(self) {
        let mut is_new = false;
        self.with(&mut |state| is_new = !mem::replace(&mut state.is_frame_due, true));
        if is_new {
            request_animation_frame(move || self.draw());
        }
    }

    fn draw(self) {
        let Some(mut position) = browser::measure(self.scroller) else { return };
        if self.hold.get_untracked() == Some(Hold::Scrolled) {
            let mut is_in_vain = false;
            self.with(&mut |state| is_in_vain = state.is_held_in_vain(position));
            if is_in_vain {
                self.hold.set(None);
                self.with(&mut |state| state.held = None);
            }
        }
        let follows = self.hold.get_untracked().is_none();
        let mut drawn = None;
        self.with(&mut |state| {
            state.is_frame_due = false;
            let place = state.place();
            state.is_choice_kept &= place.is_some();
            let added = mem::take(&mut state.added_above);
            let mut top = None;
            if follows {
                top = Some(i32::MAX);
                let is_kept = state.is_choice_kept;
                if is_kept && place.is_some_and(|place| !position.has_room(place.after)) {
                    return;
                }
            } else if added > 0 {
                top = Some(position.move_down(added));
            }
            if mem::take(&mut state.is_revealed_next)
                && !follows
                && let Some(place) = place
            {
                top = Some(position.reveal(place.above));
            }
            let viewport = Viewport::of(state.shown(), &state.ring, state.earlier(), position, top);
            let chosen = state.chosen.as_ref().filter(|_| place.is_some());
            drawn = Some((viewport, chosen.map_or(0, |row| row.key)));
        });
        let Some((viewport, chosen)) = drawn else {
            // The chosen row would leave the view.
            self.with(&mut |state| state.is_revealed_next = true);
            return self.hold_choice();
        };
        self.viewport.set(viewport);
        if chosen != self.chosen.get_untracked() {
            self.chosen.set(chosen);
        }
    }
}

#[cfg(test)]
mod tests {
    use waterclock::{id::Epoch, timestamp::Timestamp};

    use super::*;

    fn ring(has_earlier: bool, events: u64) -> Ring {
        let first = EventId { epoch: Epoch::new(1), sequence: 1 };
        let mut ring = Ring::new(has_earlier.then_some(first));
        for sequence in 1..=events {
            ring.push(RowContent::Event(event(sequence)));
        }
        ring
    }

    fn event(sequence: u64) -> Arc<Event> {
        Arc::new(Event {
            id: EventId { epoch: Epoch::new(1), sequence },
            topic: "t".parse().unwrap(),
            name: "n".parse().unwrap(),
            data: String::new(),
            time: Timestamp::from_millis(sequence),
        })
    }

    fn view(ring: &Ring, earlier: Earlier, top: Option<i32>) -> Viewport {
        Viewport::of(ring, ring, earlier, ScrollPosition::default(), top)
    }

    #[test]
    fn a_row_above_the_oldest_event_leads_to_earlier_ones() {
        let content = |viewport: &Viewport| viewport.rows.first().map(|row| row.content.clone());
        let held = view(&ring(true, 3), Earlier::Loading, None);
        assert_eq!(content(&held), Some(RowContent::Earlier(Earlier::Loading)));
        assert_eq!((held.layout.total, held.events), (4, 3));
        assert!(held.rows.iter().is_sorted_by_key(|row| row.key));

        let first = view(&ring(false, 3), Earlier::Kept, None);
        assert!(matches!(content(&first), Some(RowContent::Event(_))));
        assert_eq!(first.layout.total, 3);

        // It is above the part of a long list that is in view.
        let end = view(&ring(true, 500), Earlier::Kept, Some(i32::MAX));
        assert!(matches!(content(&end), Some(RowContent::Event(_))));
        assert_eq!(end.layout.above + end.rows.len(), 501);
    }

    #[test]
    fn the_row_of_each_state_is_another() {
        let ring = ring(true, 1);
        let states = [Earlier::Kept, Earlier::Loading, Earlier::Failed];
        let keys = states.map(|state| view(&ring, state, None).rows[0].key);
        assert!(keys.is_sorted_by(|key, next| key < next), "{keys:?}");
    }

    #[test]
    fn a_row_has_a_place_in_the_list() {
        let rows = ring(true, 3);
        let last = Arc::clone(&rows.shown()[2]);
        assert_eq!(Place::of(&rows, &last), Some(Place { above: 3, after: 1 }));
        assert_eq!(Place::of(&ring(false, 3), &last), Some(Place { above: 2, after: 1 }));
    }

    #[test]
    fn a_row_that_the_filter_excludes_has_no_place() {
        let mut rows = ring(true, 3);
        let second = Arc::clone(&rows.shown()[1]);
        rows.set_filter(Filter::parse("nothing").unwrap());
        assert_eq!(Place::of(&rows, &second), None);
        rows.set_filter(Filter::default());
        rows.set_max_rows(1);
        assert_eq!(Place::of(&rows, &second), None);
        // Another row with its key.
        let other = Row { key: second.key, content: RowContent::Event(event(7)) };
        assert_eq!(Place::of(&ring(true, 3), &other), None);
    }

    #[test]
    fn a_step_goes_to_the_next_event_that_is_shown() {
        let rows = ring(false, 3);
        let events: Vec<_> = rows.shown().iter().collect();
        let second = events[1].key;
        assert_eq!([-2, -1, 1, 2].map(|by| step(&events, second, by)), [0, 0, 2, 3]);
        let without_it = [events[0], events[2]];
        assert_eq!([-2, -1, 1, 2].map(|by| step(&without_it, second, by)), [0, 0, 1, 2]);
        assert_eq!(step(&events, u64::MAX, -1), 2);
    }

    fn state(ring: Ring) -> State {
        State::new(ring, "topic=t".to_owned())
    }

    /// Holds the list, as [`Feed::hold`] does.
    fn hold(state: &mut State) {
        let mut held = state.ring.clone();
        held.set_max_rows(MAX_ROWS);
        state.held = Some(held);
    }

    fn row(sequence: u64) -> RowContent {
        RowContent::Event(event(sequence))
    }

    #[test]
    fn a_full_list_loads_earlier_events_again_after_it_was_followed() {
        let mut ring = ring(false, 10);
        ring.set_max_rows(3);
        let mut state = state(ring);
        for _ in 0..2 {
            hold(&mut state);
            let (place, url) = state.request_earlier().unwrap();
            assert_eq!(place.sequence, 8);
            assert!(url.ends_with("&limit=100&topic=t"), "{url}");
            assert_eq!(state.earlier(), Earlier::Loading);
            assert_eq!(state.request_earlier(), None, "one is in flight");
            state.prepend(place, &[row(7)], None);
            assert_eq!(state.shown().shown().len(), 4);
            // Followed again.
            state.held = None;
            assert_eq!(state.earlier(), Earlier::Kept);
        }
    }

    #[test]
    fn earlier_events_are_added_to_a_list_that_is_followed_or_held_meanwhile() {
        let mut ring = ring(true, 3);
        ring.set_max_rows(5);
        let mut state = state(ring);
        hold(&mut state);
        let (place, _) = state.request_earlier().unwrap();
        // Followed while the request is in flight.
        state.held = None;
        assert!(!state.prepend(place, &[], None), "nothing more is loaded for nobody");
        assert_eq!((state.added_above, state.earlier()), (0, Earlier::Kept));

        // The oldest event leaves the list that is followed, and not the one that is held.
        let mut ring = self::ring(true, 3);
        ring.set_max_rows(3);
        let mut state = self::state(ring);
        hold(&mut state);
        let (place, _) = state.request_earlier().unwrap();
        state.ring.push(row(4));
        assert!(!state.prepend(place, &[row(0)], None));
        assert_eq!(state.held.as_ref().map(|held| held.shown().len()), Some(4));
        assert_eq!(state.ring.shown().len(), 3, "it takes no events that are not before its own");
        // The row that leads to earlier events has gone.
        assert_eq!(state.added_above, 0);
    }

    #[test]
    fn a_list_that_fits_is_held_only_while_it_loads() {
        let position = ScrollPosition::default();
        let mut state = state(ring(true, 3));
        hold(&mut state);
        assert!(state.is_held_in_vain(position));
        let (place, _) = state.request_earlier().unwrap();
        assert!(!state.is_held_in_vain(position));
        state.prepend(place, &[row(0)], None);
        assert!(state.is_held_in_vain(position));

        // The list that is followed would lose what was loaded.
        let mut full = ring(true, 3);
        full.set_max_rows(3);
        let mut state = self::state(full);
        hold(&mut state);
        let (place, _) = state.request_earlier().unwrap();
        state.prepend(place, &[row(0)], None);
        assert!(!state.is_held_in_vain(position));

        let mut state = self::state(ring(false, 500));
        hold(&mut state);
        assert!(!state.is_held_in_vain(position));
    }
}
