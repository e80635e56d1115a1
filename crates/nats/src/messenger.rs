//! The messages of nodes to each other, which are no part of the stream.

use std::pin::Pin;

use async_nats::Message;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::{sync::watch, time::timeout};
use waterclock::cluster::{Messages, Messenger, SequencerError, SequencerFuture};

use crate::api::{ANSWER_TIMEOUT, Api, ApiError};

/// The messages of a cluster, on subjects of NATS.
pub(crate) struct NatsMessenger {
    api: Api,
    /// The beginning of the subjects. Answers have such a subject, too, since nodes may publish to
    /// few others.
    prefix: String,
}

impl NatsMessenger {
    pub fn new(api: Api, prefix: String) -> Self {
        Self { api, prefix }
    }

    /// Returns the subject of the messages to a node, or of those to all.
    fn subject(&self, to: Option<&str>) -> String {
        format!("{}.{}", self.prefix, to.unwrap_or("all"))
    }
}

impl Messenger for NatsMessenger {
    fn tell<'a>(&'a self, to: Option<&'a str>, message: Vec<u8>) -> SequencerFuture<'a, ()> {
        Box::pin(async move {
            if let Some(error) = denial(&self.prefix, &self.api.denied().borrow()) {
                return Err(error);
            }
            let client = self.api.client().map_err(SequencerError::unavailable)?;
            let published = client.publish(self.subject(to), message.into());
            let published = timeout(ANSWER_TIMEOUT, published).await;
            let published = published.map_err(SequencerError::unavailable)?;
            published.map_err(SequencerError::unavailable)
        })
    }

    fn listen<'a>(&'a self, name: &'a str) -> SequencerFuture<'a, Box<dyn Messages>> {
        Box::pin(async move {
            let client = self.api.client().map_err(SequencerError::unavailable)?;
            let subscribe = async |to| client.subscribe(self.subject(to)).await;
            let to_all = subscribe(None).await.map_err(SequencerError::unavailable)?;
            let to_me = subscribe(Some(name)).await.map_err(SequencerError::unavailable)?;
            let messages = Box::pin(stream::select(to_all, to_me));
            let (denied, prefix) = (self.api.denied(), self.prefix.clone());
            Ok(Box::new(NatsMessages { messages, denied, prefix }) as Box<dyn Messages>)
        })
    }
}

/// The messages that a node receives.
struct NatsMessages {
    messages: Pin<Box<dyn Stream<Item = Message> + Send>>,
    denied: watch::Receiver<Vec<String>>,
    prefix: String,
}

impl Messages for NatsMessages {
    fn next(&mut self) -> SequencerFuture<'_, Vec<u8>> {
        let Self { messages, denied, prefix } = self;
        Box::pin(async move {
            let is_denied = denied.wait_for(|texts| denial(prefix, texts).is_some());
            tokio::select! {
                biased;
                Ok(texts) = is_denied => {
                    let ended = || SequencerError::unavailable(ApiError::Disconnected);
                    Err(denial(prefix, &texts).unwrap_or_else(ended))
                }
                message = messages.next() => match message {
                    Some(message) => Ok(message.payload.into()),
                    None => Err(SequencerError::unavailable("the subscription has ended")),
                },
            }
        })
    }
}

/// Returns an error if one of these texts, by which the server denies permissions, is of messages.
fn denial(prefix: &str, texts: &[String]) -> Option<SequencerError> {
    let start = format!("\"{prefix}.");
    let text = texts.iter().find(|text| text.contains(&start))?;
    Some(SequencerError::denied(format!(
        "NATS denies a permission ({text}): allow the user to publish and to subscribe to \
         \"{prefix}.*\""
    )))
}
