//! The browser's `EventSource` (WHATWG HTML 9.2) in a signal.

use std::{fmt, mem};

use leptos::prelude::*;
use send_wrapper::SendWrapper;
use wasm_bindgen::{JsCast, closure::Closure};
use web_sys::{Event, EventSource, MessageEvent};

use super::Held;

/// An event of an `EventSource`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceEvent {
    /// The connection is open.
    Opened,
    /// A message has arrived.
    Message(RawMessage),
    /// The connection is lost.
    Lost {
        /// `true` if the browser will not reconnect by itself.
        gave_up: bool,
    },
}

/// A message of an `EventSource`, before it is parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawMessage {
    /// Name of the message, SSE's `event:`.
    pub name: &'static str,
    /// The stream's last event id, up to and including this message.
    pub last_event_id: String,
    /// The data.
    pub data: String,
}

/// The events of an `EventSource` that have not been taken yet. The signal keeps all of them, not
/// only the latest, so that messages that arrive together are neither lost nor merged.
#[derive(Clone, Copy, Debug)]
pub struct EventSourceSignal(RwSignal<Vec<SourceEvent>>);

impl EventSourceSignal {
    /// Takes all events, in order, and subscribes the caller to further ones.
    pub fn take(self) -> Vec<SourceEvent> {
        self.0.track();
        self.0.try_update_untracked(mem::take).unwrap_or_default()
    }
}

/// Keeps an `EventSource` open to `url` while it is `Some`, and opens a new one whenever it is set,
/// even to the same value. The connection is closed when the URL changes and when the current owner
/// is cleaned up.
///
/// `EventSource` delivers only messages whose `names` are known beforehand.
///
/// ```
/// use leptos::prelude::*;
/// use waterclock_leptos::browser::{SourceEvent, event_source};
///
/// #[component]
/// fn Latest() -> impl IntoView {
///     let (data, set_data) = signal(String::new());
///     let events = event_source(Signal::stored(Some("/events".to_owned())), &["message"]);
///     Effect::new(move || {
///         for event in events.take() {
///             if let SourceEvent::Message(message) = event {
///                 set_data.set(message.data);
///             }
///         }
///     });
///     view! { <p>{data}</p> }
/// }
/// ```
pub fn event_source(
    url: Signal<Option<String>>,
    names: &'static [&'static str],
) -> EventSourceSignal {
    let events = RwSignal::new(Vec::new());
    Effect::new(move || {
        let Some(url) = url.get() else { return };
        let source = SendWrapper::new(EventSourceHandle::open(&url, names, move |event| {
            events.update(|events| events.push(event));
        }));
        on_cleanup(move || {
            drop(source);
            // The next connection repeats the events that were not taken.
            let _ = events.try_update_untracked(Vec::clear);
        });
    });
    EventSourceSignal(events)
}

/// An `EventSource` with its listeners. Dropping it closes the connection.
pub struct EventSourceHandle {
    /// `None` if the URL is invalid.
    inner: Option<EventSource>,
    _held: Option<Held>,
    /// The listeners, kept as long as the browser may call them.
    _on_open: Closure<dyn Fn()>,
    _on_error: Closure<dyn Fn(Event)>,
    _on_message: Vec<Closure<dyn Fn(MessageEvent)>>,
}

impl EventSourceHandle {
    /// Opens a connection, and calls `on_event` for each of its events. Only messages with these
    /// `names` are delivered.
    pub fn open(
        url: &str,
        names: &[&'static str],
        on_event: impl Fn(SourceEvent) + Clone + 'static,
    ) -> Self {
        let inner = EventSource::new(url).ok();
        let on_open = Closure::<dyn Fn()>::new({
            let on_event = on_event.clone();
            move || on_event(SourceEvent::Opened)
        });
        let on_error = Closure::<dyn Fn(_)>::new({
            let on_event = on_event.clone();
            move |error: Event| {
                let source = error.target().and_then(|of| of.dyn_into::<EventSource>().ok());
                let gave_up = source.is_none_or(|of| of.ready_state() == EventSource::CLOSED);
                on_event(SourceEvent::Lost { gave_up });
            }
        });
        if let Some(inner) = &inner {
            inner.set_onopen(Some(on_open.as_ref().unchecked_ref()));
            inner.set_onerror(Some(on_error.as_ref().unchecked_ref()));
        } else {
            on_event(SourceEvent::Lost { gave_up: true });
        }
        let on_message = names.iter().map(|&name| {
            let on_event = on_event.clone();
            let listener = Closure::<dyn Fn(_)>::new(move |message: MessageEvent| {
                on_event(SourceEvent::Message(RawMessage {
                    name,
                    last_event_id: message.last_event_id(),
                    data: message.data().as_string().unwrap_or_default(),
                }));
            });
            if let Some(inner) = &inner {
                let function = listener.as_ref().unchecked_ref();
                // Fails only for something that is not a function.
                let _ = inner.add_event_listener_with_callback(name, function);
            }
            listener
        });
        let on_message = on_message.collect();
        let held = inner.clone().map(|inner| Held::new(move || inner.close()));
        Self { inner, _held: held, _on_open: on_open, _on_error: on_error, _on_message: on_message }
    }
}

impl fmt::Debug for EventSourceHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSourceHandle").field("inner", &self.inner).finish_non_exhaustive()
    }
}
