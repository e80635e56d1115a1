//! The signals behind the page: the connection, as the rules have it, and the rows of the list.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use leptos::prelude::*;
use leptos::task::spawn_local;
use waterclock::{
    connection::{Connection, Effect as Do, Input, Instant},
    event::Event,
    id::EventId,
    notice::{Gap, Goodbye, Heartbeat, Hello, Notice},
    timestamp::Timestamp,
};

use crate::{
    Snapshot,
    browser::{self, Incoming, from_json},
};

/// How many rows the list keeps.
pub(crate) const MAX_ROWS: usize = 1000;

/// What the page listens to: events, which are all unnamed in the format that it asks for, and the
/// notices.
const NAMES: [&str; 5] = ["message", Hello::NAME, Gap::NAME, Heartbeat::NAME, Goodbye::NAME];

/// A row of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Tells rows apart.
    pub(crate) key: u64,
    pub(crate) content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// An event.
    Event(Event),
    /// The stream has opened, at that time.
    Opened(Timestamp),
    /// Events are missing here.
    Gap(Gap),
}

/// The state of the page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Feed {
    pub(crate) connection: RwSignal<Connection>,
    /// When the connection was last looked at.
    pub(crate) now: RwSignal<Instant>,
    /// Newest first, at most [`MAX_ROWS`].
    pub(crate) rows: RwSignal<VecDeque<Arc<Row>>>,
    /// How many events there were.
    pub(crate) events: RwSignal<u64>,
    /// Where the stream is read from, while there is to be one.
    url: RwSignal<Option<String>>,
    /// The topics, as the query of a stream.
    query: StoredValue<String>,
    keys: StoredValue<u64>,
}

impl Feed {
    /// The feed of a page that arrived with that snapshot. In the browser, it connects.
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        let feed = Self {
            connection: RwSignal::new(Connection::new(snapshot.cursor)),
            now: RwSignal::default(),
            rows: RwSignal::default(),
            events: RwSignal::default(),
            url: RwSignal::default(),
            query: StoredValue::new(snapshot.query),
            keys: StoredValue::default(),
        };
        for event in snapshot.events {
            feed.add(Content::Event(event));
        }
        let arrived = browser::event_source(feed.url.into(), &NAMES);
        Effect::new(move || {
            for incoming in arrived.take() {
                feed.receive(incoming);
            }
        });
        Effect::new(move || {
            feed.input(Input::Connect);
            browser::every_second(move || feed.input(Input::Tick));
        });
        feed
    }

    /// Connects, or stops.
    pub(crate) fn toggle(self) {
        let is_wanted = self.connection.with_untracked(Connection::is_wanted);
        self.input(if is_wanted { Input::Stop } else { Input::Connect });
    }

    /// Lets the rules decide, and does what they say.
    fn input(self, input: Input) {
        let now = browser::now();
        self.now.set(now);
        let before = self.connection.get_untracked();
        let (after, effects) = before.clone().step(now, browser::random(), input);
        if after != before {
            self.connection.set(after);
        }
        for effect in effects {
            match effect {
                Do::Open { after } => self.url.set(Some(self.stream_url(after))),
                Do::Close => self.url.set(None),
                Do::Explain => spawn_local(async move {
                    let cursor = self.connection.with_untracked(Connection::cursor);
                    let reason = browser::explain(&self.stream_url(cursor)).await;
                    self.input(Input::Explained(reason));
                }),
            }
        }
    }

    fn stream_url(self, after: Option<EventId>) -> String {
        let query = self.query.get_value();
        let and = if query.is_empty() { "" } else { "&" };
        match after {
            Some(id) => format!("/events?format=json{and}{query}&last_event_id={id}"),
            None => format!("/events?format=json{and}{query}"),
        }
    }

    fn receive(self, incoming: Incoming) {
        if self.url.with_untracked(Option::is_none) {
            // Of a connection that was closed before this was taken; the next one brings it again.
            return;
        }
        match incoming {
            Incoming::Opened => self.input(Input::Opened),
            Incoming::Lost { gave_up: false } => self.input(Input::Lost),
            Incoming::Lost { gave_up: true } => self.input(Input::GaveUp),
            Incoming::Message { name, last_event_id, data } => {
                let id = last_event_id.parse().ok();
                let input = self.receive_message(name, id, &data);
                self.input(input);
            }
        }
    }

    fn receive_message(self, name: &str, id: Option<EventId>, data: &str) -> Input {
        let mut intervals = None;
        if name == "message" {
            match from_json::<Event>(data) {
                Some(event) if self.connection.with_untracked(|c| c.is_new(event.id)) => {
                    self.add(Content::Event(event));
                }
                Some(_) => {}
                None => leptos::logging::error!("not an event: {data}"),
            }
        } else if name == Hello::NAME {
            self.add(Content::Opened(browser::time()));
            intervals = from_json(data);
        } else if name == Gap::NAME
            && let Some(gap) = from_json(data)
        {
            self.add(Content::Gap(gap));
            return Input::Gap { cursor: id };
        } else if name == Goodbye::NAME
            && let Some(Goodbye { reason, retry_ms }) = from_json(data)
        {
            return Input::Goodbye { reason, retry: Duration::from_millis(retry_ms) };
        }
        Input::Heard { id, intervals }
    }

    fn add(self, content: Content) {
        if matches!(content, Content::Event(_)) {
            self.events.update(|count| *count += 1);
        }
        let key = self.keys.get_value();
        self.keys.set_value(key + 1);
        self.rows.update(|rows| {
            rows.push_front(Arc::new(Row { key, content }));
            rows.truncate(MAX_ROWS);
        });
    }
}
