//! The browser's `EventSource` (WHATWG HTML 9.2) in a signal, and a WebSocket in its place.

use std::{fmt, mem};

use leptos::prelude::*;
use send_wrapper::SendWrapper;
use wasm_bindgen::{JsCast, closure::Closure};
use web_sys::{EventSource, MessageEvent, WebSocket};

use super::{Held, Json, is_over};

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
/// The URL of a WebSocket (`ws:` or `wss:`) opens one, to the `/ws` of a Waterclock server. Its
/// messages are those that an `EventSource` would get, but no browser opens it again when it is
/// lost.
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

type Listener = Closure<dyn Fn(MessageEvent)>;

/// An `EventSource` or a WebSocket with its listeners. Dropping it closes the connection.
pub struct EventSourceHandle {
    /// `None` if the URL is invalid. A WebSocket is used only in the ways that both have.
    inner: Option<EventSource>,
    _held: Option<Held>,
    /// The listeners, kept as long as the browser may call them.
    listeners: Vec<(&'static str, Listener)>,
}

impl EventSourceHandle {
    /// Opens a connection, and calls `on_event` for each of its events. Only messages with these
    /// `names` are delivered.
    pub fn open(
        url: &str,
        names: &'static [&'static str],
        on_event: impl Fn(SourceEvent) + Clone + 'static,
    ) -> Self {
        let is_socket = url.starts_with("ws");
        let inner = if is_socket {
            WebSocket::new(url).map(JsCast::unchecked_into).ok()
        } else {
            EventSource::new(url).ok()
        };
        let mut listeners = Vec::new();
        let mut listen = |name, listener: Box<dyn Fn(MessageEvent)>| {
            let listener = Listener::wrap(listener);
            if let Some(inner) = &inner {
                let function = listener.as_ref().unchecked_ref();
                // Fails only for something that is not a function.
                let _ = inner.add_event_listener_with_callback(name, function);
            }
            listeners.push((name, listener));
        };
        let opened = on_event.clone();
        listen("open", Box::new(move |_| opened(SourceEvent::Opened)));
        let lost = on_event.clone();
        let on_lost = move |error: MessageEvent| {
            // A program that has failed closes its connections, and a WebSocket says so.
            if is_over() {
                return;
            }
            let source = error.target().and_then(|of| of.dyn_into::<EventSource>().ok());
            let gave_up = source.is_none_or(|of| of.ready_state() == EventSource::CLOSED);
            lost(SourceEvent::Lost { gave_up });
        };
        listen(if is_socket { "close" } else { "error" }, Box::new(on_lost));
        for &name in names {
            let on_event = on_event.clone();
            let on_message = move |message: MessageEvent| {
                let data = message.data().as_string().unwrap_or_default();
                let message = if is_socket {
                    socket_message(&data, names)
                } else {
                    Some(RawMessage { name, last_event_id: message.last_event_id(), data })
                };
                if let Some(message) = message {
                    on_event(SourceEvent::Message(message));
                }
            };
            listen(name, Box::new(on_message));
        }
        if inner.is_none() {
            on_event(SourceEvent::Lost { gave_up: true });
        }
        let held = inner.clone().map(|inner| Held::new(move || inner.close()));
        Self { inner, _held: held, listeners }
    }
}

impl Drop for EventSourceHandle {
    fn drop(&mut self) {
        // A WebSocket goes on calling them until it is closed.
        for (name, listener) in &self.listeners {
            if let Some(inner) = &self.inner {
                let function = listener.as_ref().unchecked_ref();
                let _ = inner.remove_event_listener_with_callback(name, function);
            }
        }
    }
}

/// Reads a message of a WebSocket as the one that an `EventSource` would get. A message without a
/// position of its own has no id.
fn socket_message(text: &str, names: &[&'static str]) -> Option<RawMessage> {
    let json = Json::of(text)?;
    names.iter().find_map(|&name| {
        let content = json.get(if name == "message" { "event" } else { name })?;
        let last_event_id = json.parse("id").or_else(|| content.parse("id")).unwrap_or_default();
        Some(RawMessage { name, last_event_id, data: content.text() })
    })
}

impl fmt::Debug for EventSourceHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSourceHandle").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::NAMES;

    #[test]
    fn a_message_of_a_websocket_is_like_that_of_an_event_source() {
        let message = |text: &str| {
            let RawMessage { name, last_event_id, data } = socket_message(text, &NAMES)?;
            Some((name, last_event_id, data))
        };
        for (text, name, id, data) in [
            (
                r#"{"event":{"id":"a-1","data":"x"}}"#,
                "message",
                "a-1",
                r#"{"data":"x","id":"a-1"}"#,
            ),
            (r#"{"event":{"id":"a-1"},"id":"a-1.7"}"#, "message", "a-1.7", r#"{"id":"a-1"}"#),
            (r#"{"hello":{"retry_ms":2},"id":"a-2"}"#, "hello", "a-2", r#"{"retry_ms":2}"#),
            (r#"{"hello":{"retry_ms":2}}"#, "hello", "", r#"{"retry_ms":2}"#),
            (r#"{"end":{"topic":"t"},"id":"a-3"}"#, "end", "a-3", r#"{"topic":"t"}"#),
            (r#"{"goodbye":{"retry_ms":2}}"#, "goodbye", "", r#"{"retry_ms":2}"#),
        ] {
            let expected = (name, id.to_owned(), data.to_owned());
            assert_eq!(message(text), Some(expected), "{text}");
        }
        for text in ["", "[]", "{", r#"{"published":{"id":"a-1"}}"#, r#"{"event":null}"#] {
            assert_eq!(message(text), None, "{text}");
        }
    }
}
