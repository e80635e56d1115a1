//! The live view of topics, kept open by the connection rules. Each tab has its own while it is
//! visible: a hidden one gives its connection to the others.

use std::time::Duration;

use leptos::{prelude::*, task::spawn_local};
use waterclock::notice::{Goodbye, Heartbeat, Hello, Notice as _};
use waterclock_leptos::{
    ConnectionState, DisconnectReason,
    browser::{
        RawMessage, SourceEvent, event_source,
        internal::{explain, from_json, is_visible, random},
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
    url: RwSignal<Option<String>>,
    pub(super) state: RwSignal<ConnectionState>,
    pub(super) reason: RwSignal<Option<DisconnectReason>>,
    /// The reason why the reader may have no view. The server is not asked again.
    pub(super) refused: RwSignal<Option<String>>,
    /// The time to compare a wait with.
    pub(super) now: RwSignal<Duration>,
}

impl ViewStream {
    /// Creates a view that opens as soon as the page runs in a browser, unless it is refused.
    /// `on_message` gets each message but goodbyes.
    pub(super) fn new(
        refused: Option<String>,
        on_message: impl Fn(&RawMessage) + Copy + 'static,
    ) -> Self {
        let view = Self {
            connection: StoredValue::new(Connection::new(None)),
            url: RwSignal::default(),
            state: RwSignal::new(ConnectionState::Idle),
            reason: RwSignal::default(),
            refused: RwSignal::new(refused),
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
                        ConnectionInput::Received(received(&message))
                    }
                });
            }
        });
        effect(move || {
            view.resume();
            browser::every_second(move || view.input(ConnectionInput::Tick));
            browser::on_visibility(move || view.resume());
            browser::on_lifecycle(move |event| match event {
                Lifecycle::PageHide => view.input(ConnectionInput::Stop),
                Lifecycle::PageShow => view.resume(),
                Lifecycle::Visible => {}
                Lifecycle::Online => view.input(ConnectionInput::Online),
            });
        });
        view
    }

    /// Asks the server again after a refusal, or at once during a wait.
    pub(super) fn retry(self) {
        self.refused.set(None);
        self.input(ConnectionInput::Connect);
    }

    /// Opens the view while the page is visible, and closes it otherwise.
    fn resume(self) {
        if !is_visible() {
            self.input(ConnectionInput::Stop);
        } else if self.refused.with_untracked(Option::is_none) {
            self.input(ConnectionInput::Connect);
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
                    let reason = explain(URL).await;
                    if let DisconnectReason::Status { status: 400 | 401 | 403, detail } = &reason {
                        let _ = self.refused.try_set(Some(detail.clone().unwrap_or_default()));
                        self.input(ConnectionInput::Stop);
                    } else {
                        self.input(ConnectionInput::Explained(reason));
                    }
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
