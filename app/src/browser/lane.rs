//! Reads a stream by one transport, for as long as the lane is there, and tells what happens as it happens:
//! for comparing them. Each reconnects as is usual for it.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use futures_channel::oneshot;
use futures_util::{
    StreamExt as _,
    future::{AbortHandle, abortable},
};
use gloo_net::websocket::{Message, futures::WebSocket};
use gloo_timers::future::sleep;
use leptos::task::spawn_local;
use waterclock::{
    event::Event,
    id::EventId,
    notice::{Gap, Hello, Notice as _},
    transport::Transport,
};

use waterclock_leptos::browser::{
    FromJson, Incoming, Json, Source, from_json, now, poll_until_dropped,
};

use super::origin;
use crate::compare::stats::News;

/// How long a lane waits after its connection was lost, unless the browser does that by itself: as long
/// as `EventSource` does, going by the server's default.
const RETRY: Duration = Duration::from_secs(2);
/// How long the server may hold back the answer to a long poll, in seconds.
const WAIT: u64 = 25;

/// A lane, until it is dropped.
pub(crate) struct Lane(AbortHandle);

impl Drop for Lane {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Where a lane reads.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    /// The topics and the meter, as a query.
    pub(crate) query: String,
    /// From where on.
    pub(crate) cursor: EventId,
    /// How often it asks, if it polls.
    pub(crate) every: Duration,
}

/// Opens a lane.
pub(crate) fn open_lane(
    transport: Transport,
    address: Address,
    tell: impl Fn(News) + 'static,
) -> Lane {
    let Address { query, cursor, every } = address;
    let reader = Reader { query, cursor: Rc::new(Cell::new(cursor)), tell: Rc::new(tell) };
    let (read, handle) = abortable(async move {
        match transport {
            Transport::Sse => reader.read_sse().await,
            Transport::WebSocket => reader.read_websocket().await,
            Transport::LongPoll => reader.poll_long().await,
            Transport::Poll => reader.poll(every).await,
        }
    });
    spawn_local(async move {
        // It ends when it is aborted.
        let _ = read.await;
    });
    Lane(handle)
}

#[derive(Clone)]
struct Reader {
    query: String,
    cursor: Rc<Cell<EventId>>,
    tell: Rc<dyn Fn(News)>,
}

impl Reader {
    fn url(&self, path: &str) -> String {
        format!("{path}?format=json&{}&last_event_id={}", self.query, self.cursor.get())
    }

    fn tell(&self, news: News) {
        (self.tell)(news);
    }

    fn event(&self, event: &Event) {
        self.cursor.set(event.id);
        self.tell(News::Event(event.id, event.time));
    }

    /// What stands before the events after a gap.
    fn gap(&self, goes_on_after: Option<EventId>) {
        self.tell(News::Gap);
        self.cursor.set(goes_on_after.unwrap_or(self.cursor.get()));
    }

    async fn read_sse(self) {
        loop {
            let (gave_up, has_given_up) = oneshot::channel::<()>();
            let gave_up = Rc::new(RefCell::new(Some(gave_up)));
            self.tell(News::Asked);
            let reader = self.clone();
            let _source = Source::open(
                &self.url("/events"),
                &["message", Hello::NAME, Gap::NAME],
                move |incoming| match incoming {
                    Incoming::Opened => {}
                    Incoming::Message { name: "message", data, .. } => {
                        if let Some(event) = from_json::<Event>(&data) {
                            reader.event(&event);
                        }
                    }
                    Incoming::Message { name: Gap::NAME, last_event_id, .. } => {
                        reader.gap(last_event_id.parse().ok());
                    }
                    Incoming::Message { .. } => reader.tell(News::Opened),
                    Incoming::Lost { gave_up: false } => {
                        reader.tell(News::Lost);
                        // The browser tries again by itself.
                        reader.tell(News::Asked);
                    }
                    Incoming::Lost { gave_up: true } => {
                        reader.tell(News::Lost);
                        drop(gave_up.take());
                    }
                },
            );
            // Told by its being dropped.
            let _ = has_given_up.await;
            sleep(RETRY).await;
        }
    }

    async fn read_websocket(self) {
        loop {
            self.tell(News::Asked);
            let url = self.url(&format!("{}/ws", origin().replacen("http", "ws", 1)));
            if let Ok(mut socket) = WebSocket::open(&url) {
                while let Some(Ok(message)) = socket.next().await {
                    if let Message::Text(text) = message
                        && let Some(message) = from_json::<Said>(&text)
                    {
                        match message {
                            Said::Event(event) => self.event(&event),
                            Said::Hello => self.tell(News::Opened),
                            Said::Gap(cursor) => self.gap(cursor),
                        }
                    }
                }
            }
            self.tell(News::Lost);
            sleep(RETRY).await;
        }
    }

    async fn poll_long(self) {
        // The first is answered soon, so that it is known to be open.
        let mut wait = 1;
        loop {
            let asked = now();
            let answer = self.ask(&format!("{}&wait={wait}", self.url("/poll"))).await;
            wait = if answer == Answer::None { 1 } else { WAIT };
            // With nothing at once answers a server that is stopping.
            let is_early = answer == Answer::Nothing && now() < asked + Duration::from_millis(500);
            if answer == Answer::None || is_early {
                sleep(RETRY).await;
            }
        }
    }

    /// Waits after each answer, as a page does that asks by a timer, unless there is more already.
    async fn poll(self, every: Duration) {
        loop {
            if self.ask(&self.url("/poll")).await != Answer::More {
                sleep(every).await;
            }
        }
    }

    /// Polls once.
    async fn ask(&self, url: &str) -> Answer {
        self.tell(News::Asked);
        let Some(polled) = poll_until_dropped(url).await else {
            self.tell(News::Lost);
            return Answer::None;
        };
        self.tell(News::Opened);
        if polled.gap.is_some() {
            self.gap(None);
        }
        let is_empty = polled.events.is_empty();
        if is_empty {
            self.tell(News::Empty);
        }
        for event in &polled.events {
            self.event(event);
        }
        self.cursor.set(polled.cursor);
        match (polled.more, is_empty) {
            (true, _) => Answer::More,
            (false, true) => Answer::Nothing,
            (false, false) => Answer::All,
        }
    }
}

/// How a poll was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Not at all.
    None,
    /// There is nothing.
    Nothing,
    /// With all that there is.
    All,
    /// There may be more already.
    More,
}

/// What the server says over a WebSocket, as far as a lane is concerned.
enum Said {
    Event(Event),
    Hello,
    Gap(Option<EventId>),
}

impl FromJson for Said {
    fn from_json(json: &Json) -> Option<Self> {
        if let Some(event) = json.get("event") {
            return Event::from_json(&event).map(Self::Event);
        }
        if json.get(Hello::NAME).is_some() {
            return Some(Self::Hello);
        }
        json.get(Gap::NAME).map(|_| Self::Gap(json.parse("id")))
    }
}
