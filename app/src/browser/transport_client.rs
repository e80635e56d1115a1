//! Clients that read a stream over one transport and report each event, for comparing the
//! transports. Each reconnects as is usual for its transport.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use futures_channel::oneshot;
use futures_util::{StreamExt as _, future::abortable};
use gloo_net::{
    http::Request,
    websocket::{Message, futures::WebSocket},
};
use gloo_timers::future::sleep;
use leptos::task::spawn_local;
use waterclock::{
    event::Event,
    id::EventId,
    notice::{Gap, Goodbye, GoodbyeReason, Hello, Notice as _},
    timestamp::Timestamp,
    transport::Transport,
};
use waterclock_leptos::browser::{
    EventSourceHandle, RawMessage, SourceEvent,
    internal::{AbortOnDrop, FromJson, Held, Json, PollResponse, from_json, now},
};
use web_sys::AbortController;

use super::page::origin;

/// Delay before a client reconnects, unless the browser does it: the server's default for
/// `EventSource`.
const RETRY: Duration = Duration::from_secs(2);
/// Time that the server may hold back the response to a long poll, in seconds.
const LONG_POLL_WAIT: u64 = 25;

/// An event of a client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ClientEvent {
    /// A request was sent, or a connection was started.
    Requested,
    /// The connection is open, or the request was answered.
    Opened,
    /// An event has arrived.
    Event(EventId, Timestamp),
    /// The response to a poll had no events.
    Empty,
    /// The server has reported missing events.
    Gap,
    /// The server has refused the stream, because as many are open as are permitted.
    Full,
    /// The connection was lost, or the request has failed.
    Lost,
}

/// A running client. Dropping it closes its connection.
pub(crate) struct TransportClient {
    _held: Held,
}

/// The stream that a client reads.
#[derive(Clone, Debug)]
pub(crate) struct ClientOptions {
    /// The topics and the meter, as a query.
    pub(crate) query: String,
    /// The event after which the client starts.
    pub(crate) cursor: EventId,
    /// Interval of polling; other transports ignore it.
    pub(crate) poll_interval: Duration,
}

impl TransportClient {
    /// Starts a client that calls `on_event` for each event.
    pub(crate) fn start(
        transport: Transport,
        options: ClientOptions,
        on_event: impl Fn(ClientEvent) + 'static,
    ) -> Self {
        let ClientOptions { query, cursor, poll_interval } = options;
        let cursor = Rc::new(Cell::new(cursor));
        let task = ClientTask { query, cursor, on_event: Rc::new(on_event) };
        let (run, handle) = abortable(async move {
            match transport {
                Transport::Sse => task.read_sse().await,
                Transport::WebSocket => task.read_websocket().await,
                Transport::LongPoll => task.long_poll().await,
                Transport::Poll => task.poll(poll_interval).await,
            }
        });
        spawn_local(async move {
            // It ends only by being aborted.
            let _ = run.await;
        });
        Self { _held: Held::new(move || handle.abort()) }
    }
}

#[derive(Clone)]
struct ClientTask {
    query: String,
    cursor: Rc<Cell<EventId>>,
    on_event: Rc<dyn Fn(ClientEvent)>,
}

impl ClientTask {
    fn url(&self, path: &str) -> String {
        format!("{path}?format=json&{}&last_event_id={}", self.query, self.cursor.get())
    }

    fn report(&self, event: ClientEvent) {
        (self.on_event)(event);
    }

    fn report_event(&self, event: &Event) {
        self.cursor.set(event.id);
        self.report(ClientEvent::Event(event.id, event.time));
    }

    /// Reports a gap, and continues after `cursor`.
    fn report_gap(&self, cursor: Option<EventId>) {
        self.report(ClientEvent::Gap);
        self.cursor.set(cursor.unwrap_or(self.cursor.get()));
    }

    async fn read_sse(self) {
        loop {
            let (gave_up, has_given_up) = oneshot::channel::<()>();
            let gave_up = Rc::new(RefCell::new(Some(gave_up)));
            self.report(ClientEvent::Requested);
            let task = self.clone();
            let _source = EventSourceHandle::open(
                &self.url("/events"),
                &["message", Hello::NAME, Gap::NAME, Goodbye::NAME],
                move |event| match event {
                    SourceEvent::Opened => {}
                    SourceEvent::Message(RawMessage { name: "message", data, .. }) => {
                        if let Some(event) = from_json::<Event>(&data) {
                            task.report_event(&event);
                        }
                    }
                    SourceEvent::Message(RawMessage { name: Gap::NAME, last_event_id, .. }) => {
                        task.report_gap(last_event_id.parse().ok());
                    }
                    SourceEvent::Message(RawMessage { name: Goodbye::NAME, data, .. }) => {
                        if from_json(&data).is_some_and(|goodbye| is_full(&goodbye)) {
                            task.report(ClientEvent::Full);
                        }
                    }
                    SourceEvent::Message(_) => task.report(ClientEvent::Opened),
                    SourceEvent::Lost { gave_up: false } => {
                        task.report(ClientEvent::Lost);
                        // The browser reconnects by itself.
                        task.report(ClientEvent::Requested);
                    }
                    SourceEvent::Lost { gave_up: true } => {
                        task.report(ClientEvent::Lost);
                        drop(gave_up.take());
                    }
                },
            );
            // Completes when the sender is dropped.
            let _ = has_given_up.await;
            sleep(RETRY).await;
        }
    }

    async fn read_websocket(self) {
        loop {
            self.report(ClientEvent::Requested);
            let url = self.url(&format!("{}/ws", origin().replacen("http", "ws", 1)));
            if let Ok(inner) = web_sys::WebSocket::new(&url)
                && let Ok(mut socket) = WebSocket::try_from(inner.clone())
            {
                // A failure in this task leaves it as it is. Closing twice does nothing.
                let _held = Held::new(move || drop(inner.close()));
                while let Some(Ok(message)) = socket.next().await {
                    if let Message::Text(text) = message
                        && let Some(message) = from_json::<SocketMessage>(&text)
                    {
                        match message {
                            SocketMessage::Event(event) => self.report_event(&event),
                            SocketMessage::Hello => self.report(ClientEvent::Opened),
                            SocketMessage::Gap(cursor) => self.report_gap(cursor),
                            SocketMessage::Full => self.report(ClientEvent::Full),
                        }
                    }
                }
            }
            self.report(ClientEvent::Lost);
            sleep(RETRY).await;
        }
    }

    async fn long_poll(self) {
        // The first response should come soon: it shows that the connection is open.
        let mut wait = 1;
        loop {
            let requested = now();
            let outcome = self.request(&format!("{}&wait={wait}", self.url("/poll"))).await;
            wait = if outcome == PollOutcome::Failed { 1 } else { LONG_POLL_WAIT };
            // A server that is shutting down answers at once, with no events.
            let is_early =
                outcome == PollOutcome::Empty && now() < requested + Duration::from_millis(500);
            if outcome == PollOutcome::Failed || is_early {
                sleep(RETRY).await;
            }
        }
    }

    /// Polls with a pause after each response, like a page with a timer, unless there are more
    /// events already.
    async fn poll(self, interval: Duration) {
        loop {
            if self.request(&self.url("/poll")).await != PollOutcome::More {
                sleep(interval).await;
            }
        }
    }

    /// Polls once.
    async fn request(&self, url: &str) -> PollOutcome {
        self.report(ClientEvent::Requested);
        let response = match poll_until_dropped(url).await {
            Ok(response) => response,
            Err(status) => {
                self.report(ClientEvent::Lost);
                if matches!(status, Some(429 | 503)) {
                    self.report(ClientEvent::Full);
                }
                return PollOutcome::Failed;
            }
        };
        self.report(ClientEvent::Opened);
        if response.gap.is_some() {
            self.report_gap(None);
        }
        let is_empty = response.events.is_empty();
        if is_empty {
            self.report(ClientEvent::Empty);
        }
        for event in &response.events {
            self.report_event(event);
        }
        self.cursor.set(response.cursor);
        match (response.more, is_empty) {
            (true, _) => PollOutcome::More,
            (false, true) => PollOutcome::Empty,
            (false, false) => PollOutcome::Complete,
        }
    }
}

/// Polls once, without a timeout. Dropping the future aborts the request. Without a valid response,
/// returns the status if there is one.
async fn poll_until_dropped(url: &str) -> Result<PollResponse, Option<u16>> {
    let abort = AbortOnDrop(AbortController::new().map_err(|_| None)?);
    let request = Request::get(url).abort_signal(Some(&abort.0.signal()));
    let response = request.send().await.map_err(|_| None)?;
    let status = Some(response.status());
    if !response.ok() {
        return Err(status);
    }
    let text = response.text().await.map_err(|_| status)?;
    from_json(&text).ok_or(status)
}

/// Returns `true` if the server has closed a stream because as many are open as are permitted.
fn is_full(goodbye: &Goodbye) -> bool {
    goodbye.reason == GoodbyeReason::Limit
}

/// The outcome of a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PollOutcome {
    /// The request has failed.
    Failed,
    /// The response had no events.
    Empty,
    /// The response had all events.
    Complete,
    /// The response had events, and more may be available already.
    More,
}

/// A message of the WebSocket, reduced to the kinds that a client needs.
enum SocketMessage {
    Event(Event),
    Hello,
    Gap(Option<EventId>),
    Full,
}

impl FromJson for SocketMessage {
    fn from_json(json: &Json) -> Option<Self> {
        if let Some(event) = json.get("event") {
            return Event::from_json(&event).map(Self::Event);
        }
        if json.get(Hello::NAME).is_some() {
            return Some(Self::Hello);
        }
        if let Some(goodbye) = json.get(Goodbye::NAME) {
            return Goodbye::from_json(&goodbye).filter(is_full).map(|_| Self::Full);
        }
        json.get(Gap::NAME).map(|_| Self::Gap(json.parse("id")))
    }
}
