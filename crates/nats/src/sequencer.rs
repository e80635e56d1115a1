//! The sequencer.

use async_nats::{HeaderMap, header, jetstream::stream::RawMessageErrorKind};
use waterclock::cluster::{
    Entries, EntryKind, Messenger, OrderBounds, RawEntry, Sequencer, SequencerError,
    SequencerFuture,
};

use crate::{
    api::{Acknowledgement, Api, ApiError, code},
    checks::Checks,
    connect::{self, MissingStream},
    entries::{NatsEntries, timestamp},
    error::ConnectError,
    messenger::NatsMessenger,
    settings::NatsSettings,
    setup::{self, StreamInfo},
};

/// Maximum size of a message, in bytes, although servers may accept larger ones.
const MAX_MESSAGE: usize = 1 << 20;
/// Room for the headers of a message, in bytes.
const MAX_HEADERS: usize = 4 << 10;

/// The order of a cluster, on a stream of NATS JetStream.
pub struct NatsSequencer {
    api: Api,
    /// The checks that go on in the background; `None` if they were made at the start.
    checks: Option<Checks>,
    stream: String,
    subject: String,
    /// The subject of snapshots.
    snapshots: String,
    /// The beginning of the subjects of messages.
    messages: String,
    max_entry: usize,
}

impl NatsSequencer {
    /// Connects, checks the servers and the stream, and creates the stream if there is none.
    ///
    /// # Errors
    ///
    /// If the cluster cannot be reached in time, or is not set up as it must be.
    pub async fn connect(settings: NatsSettings) -> Result<Self, ConnectError> {
        let connected = connect::connect(&settings, MissingStream::Create).await?;
        Ok(Self::new(connected.api, None, settings, connected.max_payload))
    }

    /// Connects and checks the servers and the stream in the background. A node that has been a
    /// member before can start by it although [`connect`](Self::connect) fails with an error that
    /// [may pass](ConnectError::may_pass): a server is away. If the checks find later that
    /// something must be changed, entries are refused until it is. A stream that is missing is not
    /// created: it may be restored.
    ///
    /// # Errors
    ///
    /// If the settings cannot be used.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, because the checks are a task of their own.
    pub async fn resume(settings: NatsSettings) -> Result<Self, ConnectError> {
        if !setup::is_name(&settings.stream) {
            return Err(ConnectError::Name(settings.stream));
        }
        if settings.monitoring.is_empty() && !settings.allow_unsafe_sync {
            return Err(ConnectError::NoMonitoring);
        }
        let api = Api::connect(&settings, true).await?;
        let checks = Checks::start(settings.clone());
        // More is not certain yet.
        Ok(Self::new(api, Some(checks), settings, setup::MIN_PAYLOAD))
    }

    fn new(api: Api, checks: Option<Checks>, settings: NatsSettings, max_payload: usize) -> Self {
        let (subject, snapshots) = (settings.subject(), settings.snapshots());
        let messages = settings.readers();
        let max_entry = max_payload.min(MAX_MESSAGE) - MAX_HEADERS;
        Self { api, checks, stream: settings.stream, subject, snapshots, messages, max_entry }
    }
}

impl Sequencer for NatsSequencer {
    fn bounds(&self) -> SequencerFuture<'_, OrderBounds> {
        Box::pin(async move {
            let info = self.api.stream_info(&self.stream).await;
            let StreamInfo { created, state, .. } = info.map_err(SequencerError::unavailable)?;
            // A stream that is deleted and made again has another time.
            let stream = format!("{} {}", self.stream, created.unix_timestamp_nanos());
            Ok(OrderBounds { stream, first: state.first, last: state.last })
        })
    }

    fn propose(&self, entry: Vec<u8>, kind: EntryKind) -> SequencerFuture<'_, u64> {
        Box::pin(async move {
            if let Some(error) = self.checks.as_ref().and_then(Checks::error) {
                return Err(SequencerError::Unavailable(error));
            }
            let is_first = kind == EntryKind::First;
            let subject = match kind {
                EntryKind::Snapshot => &self.snapshots,
                EntryKind::First | EntryKind::Other => &self.subject,
            };
            let mut headers = HeaderMap::new();
            headers.insert(header::NATS_EXPECTED_STREAM, self.stream.as_str());
            if is_first {
                headers.insert(header::NATS_EXPECTED_LAST_SEQUENCE, "0");
            }
            let sent = self.api.send(subject.clone(), headers, entry.into()).await;
            match sent {
                Ok(Acknowledgement { sequence }) => Ok(sequence),
                Err(error) => Err(explain(error, is_first)),
            }
        })
    }

    fn follow(&self, after: u64) -> SequencerFuture<'_, Box<dyn Entries>> {
        Box::pin(async move {
            let entries = NatsEntries::follow(&self.api, &self.stream, after).await;
            let entries = entries.map_err(SequencerError::unavailable)?;
            Ok(Box::new(entries) as Box<dyn Entries>)
        })
    }

    fn entry(&self, position: u64) -> SequencerFuture<'_, Option<Vec<u8>>> {
        Box::pin(async move {
            let jetstream = self.api.jetstream().map_err(SequencerError::unavailable)?;
            let stream = jetstream.get_stream_no_info(&self.stream).await;
            let stream = stream.map_err(SequencerError::unavailable)?;
            match stream.get_raw_message(position).await {
                Ok(message) => Ok(Some(message.payload.into())),
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
                Err(error) => Err(SequencerError::unavailable(error)),
            }
        })
    }

    fn snapshots(&self) -> SequencerFuture<'_, Vec<RawEntry>> {
        Box::pin(async move {
            let jetstream = self.api.jetstream().map_err(SequencerError::unavailable)?;
            let stream = jetstream.get_stream_no_info(&self.stream).await;
            let stream = stream.map_err(SequencerError::unavailable)?;
            let (mut found, mut next) = (Vec::new(), 1);
            loop {
                let subject = self.snapshots.as_str();
                let message = match stream.get_first_raw_message_by_subject(subject, next).await {
                    Ok(message) => message,
                    Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {
                        return Ok(found);
                    }
                    Err(error) => return Err(SequencerError::unavailable(error)),
                };
                let (position, time) =
                    (message.sequence, timestamp(message.time.unix_timestamp_nanos()));
                next = position + 1;
                found.push(RawEntry { position, time, bytes: message.payload.into() });
            }
        })
    }

    fn trim(&self, up_to: u64) -> SequencerFuture<'_, ()> {
        Box::pin(async move {
            let jetstream = self.api.jetstream().map_err(SequencerError::unavailable)?;
            let stream = jetstream.get_stream_no_info(&self.stream).await;
            let stream = stream.map_err(SequencerError::unavailable)?;
            let purged = stream.purge().sequence(up_to + 1).await;
            purged.map(|_| ()).map_err(SequencerError::unavailable)
        })
    }

    fn max_entry(&self) -> usize {
        self.max_entry
    }

    fn messenger(&self) -> Option<Box<dyn Messenger>> {
        Some(Box::new(NatsMessenger::new(self.api.clone(), self.messages.clone())))
    }
}

/// Says whether an entry that was not acknowledged may have been added.
fn explain(error: ApiError, is_first: bool) -> SequencerError {
    match &error {
        ApiError::Refused(refusal) if is_first && refusal.code() == code::WRONG_LAST_SEQUENCE => {
            SequencerError::Begun
        }
        ApiError::Refused(refusal) if refusal.is_definite() => SequencerError::unavailable(error),
        ApiError::Disconnected | ApiError::TooLarge(_) | ApiError::NoResponders => {
            SequencerError::unavailable(error)
        }
        // The client may keep the entry and send it later, or the acknowledgement was lost.
        _ => SequencerError::unconfirmed(error),
    }
}
