//! The browser's `EventSource` (WHATWG HTML 9.2), wrapped in a signal.

use std::mem;

use leptos::prelude::*;
use send_wrapper::SendWrapper;
use wasm_bindgen::{JsCast, closure::Closure};
use web_sys::{Event, EventSource, MessageEvent};

/// What an `EventSource` has told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// The connection is open.
    Opened,
    /// A message has arrived.
    Message {
        /// The name that it was sent under.
        name: &'static str,
        /// The stream's last event id, up to and with this message.
        last_event_id: String,
        /// Its data.
        data: String,
    },
    /// The connection is lost.
    Lost {
        /// The browser does not try again by itself.
        gave_up: bool,
    },
}

/// What has arrived and was not yet taken. A signal of all of it, not of the latest only, so that
/// messages that arrive together are neither lost nor merged.
#[derive(Clone, Copy, Debug)]
pub struct EventSourceSignal(RwSignal<Vec<Incoming>>);

impl EventSourceSignal {
    /// Takes what has arrived, in order. Whoever calls this is called again when there is more.
    pub fn take(self) -> Vec<Incoming> {
        self.0.track();
        self.0.try_update_untracked(mem::take).unwrap_or_default()
    }
}

/// Keeps an `EventSource` open to `url` while there is one, and a new one whenever it is set, even to
/// the same value. It is closed when the URL changes and when the current owner is cleaned up.
///
/// `EventSource` hands out only messages whose names are known beforehand: `names`.
pub fn event_source(
    url: Signal<Option<String>>,
    names: &'static [&'static str],
) -> EventSourceSignal {
    let arrived = RwSignal::new(Vec::new());
    Effect::new(move || {
        let Some(url) = url.get() else { return };
        let source = SendWrapper::new(Source::open(&url, names, move |incoming| {
            arrived.update(|arrived| arrived.push(incoming));
        }));
        on_cleanup(move || {
            drop(source);
            // What it had told and nobody has taken: the next one brings it again.
            let _ = arrived.try_update_untracked(Vec::clear);
        });
    });
    EventSourceSignal(arrived)
}

/// An `EventSource` with its listeners. Dropping it closes the connection.
pub struct Source {
    /// None if it could not be made, which is only for what is no URL.
    inner: Option<EventSource>,
    /// Kept as long as the browser may call them.
    _on_open: Closure<dyn Fn()>,
    _on_error: Closure<dyn Fn(Event)>,
    _on_message: Vec<Closure<dyn Fn(MessageEvent)>>,
}

impl Source {
    /// Opens a connection, and tells what it says under these names.
    pub fn open(
        url: &str,
        names: &[&'static str],
        tell: impl Fn(Incoming) + Clone + 'static,
    ) -> Self {
        let inner = EventSource::new(url).ok();
        let on_open = Closure::<dyn Fn()>::new({
            let tell = tell.clone();
            move || tell(Incoming::Opened)
        });
        let on_error = Closure::<dyn Fn(_)>::new({
            let tell = tell.clone();
            move |error: Event| {
                let source = error.target().and_then(|of| of.dyn_into::<EventSource>().ok());
                let gave_up = source.is_none_or(|of| of.ready_state() == EventSource::CLOSED);
                tell(Incoming::Lost { gave_up });
            }
        });
        if let Some(inner) = &inner {
            inner.set_onopen(Some(on_open.as_ref().unchecked_ref()));
            inner.set_onerror(Some(on_error.as_ref().unchecked_ref()));
        } else {
            tell(Incoming::Lost { gave_up: true });
        }
        let on_message = names.iter().map(|&name| {
            let tell = tell.clone();
            let listener = Closure::<dyn Fn(_)>::new(move |message: MessageEvent| {
                tell(Incoming::Message {
                    name,
                    last_event_id: message.last_event_id(),
                    data: message.data().as_string().unwrap_or_default(),
                });
            });
            if let Some(inner) = &inner {
                let function = listener.as_ref().unchecked_ref();
                // Fails for what is not a function.
                let _ = inner.add_event_listener_with_callback(name, function);
            }
            listener
        });
        let on_message = on_message.collect();
        Self { inner, _on_open: on_open, _on_error: on_error, _on_message: on_message }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Some(inner) = &self.inner {
            inner.close();
        }
    }
}
