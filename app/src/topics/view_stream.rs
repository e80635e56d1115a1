//! The live view of topics, kept open by the connection rules. Each tab has its own while it is
//! visible: a hidden one gives its connection to the others.

use std::time::Duration;

use leptos::{prelude::*, task::spawn_local};
use waterclock::notice::{Goodbye, Heartbeat, Hello, Notice as _};
use waterclock_leptos::{
    ConnectionState, DisconnectReason,
    browser::{
        RawMessage, SourceEvent, event_source,
        internal::{explain, from_json, is_visible, json_member, random},
    },
    connection::{Connection, ConnectionEffect, ConnectionInput, ReceivedMessage},
};

use crate::{
    browser::{self, Lifecycle},
    reactive::effect,
};

/// The URL of the view. It has all topics that the reader may read.
const URL: &str = "/topics";

/// The view, and the state of its connection.
#[derive(Clone, Copy)]
pub(super) struct ViewStream {
    connection: StoredValue<Connection>,
    is_wanted: StoredValue<bool>,
    url: RwSignal<Option<String>>,
    pub(super) state: RwSignal<ConnectionState>,
    pub(super) reason: RwSignal<Option<DisconnectReason>>,
    /// The node that serves the view, or served the last one.
    pub(super) node: RwSignal<Option<String>>,
    /// The time to compare a wait with.
    pub(super) now: RwSignal<Duration>,
}

impl ViewStream {
    /// Creates a view that opens as soon as the page runs in a browser, unless it is refused.
    /// `on_message` gets each message.
    pub(super) fn new(
        refusal: Option<DisconnectReason>,
        on_message: impl Fn(&RawMessage) + Copy + 'static,
    ) -> Self {
        let mut connection = Connection::new(None);
        if let Some(reason) = refusal {
            connection.refuse(reason);
        }
        let view = Self {
            state: RwSignal::new(connection.state().clone()),
            reason: RwSignal::new(connection.reason().cloned()),
            connection: StoredValue::new(connection),
            is_wanted: StoredValue::new(false),
            node: RwSignal::default(),
            url: RwSignal::default(),
            now: RwSignal::default(),
        };
        let source = event_source(
            view.url.into(),
            &["message", Hello::NAME, Heartbeat::NAME, Goodbye::NAME],
        );
        effect(move || {
            for event in source.take() {
                view.input(match event {
                    SourceEvent::Opened => ConnectionInput::Opened,
                    SourceEvent::Lost { gave_up: false } => ConnectionInput::Lost,
                    SourceEvent::Lost { gave_up: true } => ConnectionInput::GaveUp,
                    SourceEvent::Message(message) => {
                        on_message(&message);
                        if message.name == Hello::NAME {
                            view.node.set(json_member(&message.data, "node"));
                        }
                        ConnectionInput::Received(received(&message))
                    }
                });
            }
        });
        effect(move || {
            view.set_wanted(is_visible());
            browser::every_second(move || view.input(ConnectionInput::Tick));
            browser::on_visibility(move || view.set_wanted(is_visible()));
            browser::on_lifecycle(move |event| match event {
                Lifecycle::PageHide => view.set_wanted(false),
                Lifecycle::PageShow => view.set_wanted(is_visible()),
                Lifecycle::Visible => {}
                Lifecycle::Online => view.input(ConnectionInput::Online),
            });
        });
        view
    }

    /// Asks the server again after a refusal, or at once during a wait.
    pub(super) fn retry(self) {
        self.input(ConnectionInput::Connect);
    }

    /// Opens the view, or closes it, on a change. A second event that says the same (`pageshow`
    /// after the page's start) must not cut a wait short, nor ask again for a reason. A refusal
    /// stays until the reader tries again.
    fn set_wanted(self, is_wanted: bool) {
        if self.is_wanted.get_value() == is_wanted {
            return;
        }
        self.is_wanted.set_value(is_wanted);
        if *self.state.read_untracked() != ConnectionState::Refused {
            let input = if is_wanted { ConnectionInput::Connect } else { ConnectionInput::Stop };
            self.input(input);
        }
    }

    fn input(self, input: ConnectionInput) {
        let (now, random) = (browser::now(), random());
        let step = |connection: &mut Connection| connection.step(now, random, input);
        let Some(effects) = self.connection.try_update_value(step) else { return };
        for effect in effects {
            match effect {
                ConnectionEffect::Open { .. } => self.url.set(Some(URL.to_owned())),
                ConnectionEffect::Close => self.url.set(None),
                ConnectionEffect::Explain => spawn_local(async move {
                    self.input(ConnectionInput::Explained(explain(URL).await));
                }),
            }
        }
        let (state, reason) = self
            .connection
            .with_value(|connection| (connection.state().clone(), connection.reason().cloned()));
        if matches!(state, ConnectionState::Waiting { .. }) {
            self.now.set(now);
        }
        if *self.state.read_untracked() != state {
            self.state.set(state);
        }
        if *self.reason.read_untracked() != reason {
            self.reason.set(reason);
        }
    }
}

/// Returns a message as the connection rules see it.
fn received(message: &RawMessage) -> ReceivedMessage {
    match message.name {
        Hello::NAME => ReceivedMessage::Hello { id: None, intervals: from_json(&message.data) },
        Goodbye::NAME => match from_json::<Goodbye>(&message.data) {
            Some(Goodbye { reason, retry_ms }) => {
                ReceivedMessage::Goodbye { reason, retry: Duration::from_millis(retry_ms) }
            }
            None => ReceivedMessage::Heartbeat { id: None },
        },
        _ => ReceivedMessage::Heartbeat { id: None },
    }
}
