//! Connecting, with all checks.

use std::time::Duration;

use async_nats::{HeaderMap, datetime, header};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::{
    api::{Acknowledgement, Api, ApiError, code},
    entries::NatsEntries,
    error::ConnectError,
    monitoring,
    settings::NatsSettings,
    setup::{self, StreamInfo},
};

/// Pause after a failure that may pass.
const PAUSE: Duration = Duration::from_millis(200);

/// A connection to a cluster that can be used.
pub(crate) struct Connected {
    pub api: Api,
    /// The smallest limit of the servers for messages, in bytes.
    pub max_payload: usize,
}

/// The way to deal with a stream that does not exist.
#[derive(Clone, Copy)]
pub(crate) enum MissingStream {
    Create,
    /// It may be about to be restored.
    Await,
}

/// Connects and checks the set-up. Servers that start just now are waited for.
pub(crate) async fn connect(
    settings: &NatsSettings,
    missing: MissingStream,
) -> Result<Connected, ConnectError> {
    if !setup::is_name(&settings.stream) {
        return Err(ConnectError::Name(settings.stream.clone()));
    }
    let deadline = Instant::now() + settings.timeout;
    let mut last = ConnectError::Silent("answer");
    loop {
        match timeout_at(deadline, Box::pin(attempt(settings, missing))).await {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(error)) if error.may_pass() => last = error,
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(last),
        }
        let next = Instant::now() + PAUSE;
        if next >= deadline {
            return Err(last);
        }
        sleep_until(next).await;
    }
}

async fn attempt(
    settings: &NatsSettings,
    missing: MissingStream,
) -> Result<Connected, ConnectError> {
    let monitored = monitoring::look(settings).await?;
    setup::check_monitored(&monitored, settings.replicas, settings.allow_unsafe_sync)?;
    let api = Api::connect(settings, false).await?;
    let server = api.server();
    setup::check_server(&server.server_name, &server.version, server.max_payload)?;
    let payloads = monitored.iter().map(|server| server.max_payload);
    let max_payload = payloads.fold(server.max_payload, usize::min);

    let before = datetime::now();
    let stream = find_stream(&api, settings, missing).await?;
    setup::check_stream(&stream.config, settings)?;
    let leader = stream.cluster.leader.as_ref().unwrap_or(&server.server_name);
    setup::check_clock(leader, stream.time, (before, datetime::now()))?;
    setup::check_holders(&stream.cluster, &server.server_name, &monitored)?;
    check_publishing(&api, settings).await?;
    let entries = NatsEntries::follow(&api, &settings.stream, stream.state.last).await;
    entries.map_err(|error| explain("send entries", &settings.subject(), error))?;
    Ok(Connected { api, max_payload })
}

/// Describes the stream.
async fn find_stream(
    api: &Api,
    settings: &NatsSettings,
    missing: MissingStream,
) -> Result<StreamInfo, ConnectError> {
    let (stream, subject) = (&settings.stream, settings.subject());
    match api.stream_info(stream).await {
        Ok(info) => return Ok(info),
        Err(ApiError::Refused(refusal)) if refusal.code() == code::STREAM_NOT_FOUND => {
            if matches!(missing, MissingStream::Await) {
                return Err(ConnectError::NoStream(stream.clone()));
            }
        }
        // Without JetStream, nobody is responsible for its requests.
        Err(ApiError::NoResponders) if !api.server().jetstream => {
            return Err(ConnectError::NoJetStream);
        }
        Err(error) => return Err(explain("describe the stream", &subject, error)),
    }
    let config = setup::stream_config(settings);
    match api.request(&format!("STREAM.CREATE.{stream}"), &config).await {
        Ok(info) => Ok(info),
        Err(ApiError::Refused(refusal)) if refusal.code() == code::REPLICAS_NOT_SUPPORTED => {
            let (server, replicas) = (api.server().server_name, settings.replicas);
            Err(ConnectError::NotClustered { server, replicas })
        }
        Err(ApiError::Refused(refusal)) if refusal.code() == code::NO_PEERS => {
            let replicas = settings.replicas;
            Err(ConnectError::TooFewServers { replicas, reason: refusal.to_string() })
        }
        Err(error) => Err(explain("create the stream", &subject, error)),
    }
}

/// Checks that the user may publish, by an entry that the stream must refuse.
async fn check_publishing(api: &Api, settings: &NatsSettings) -> Result<(), ConnectError> {
    let subject = settings.subject();
    let mut headers = HeaderMap::new();
    // No stream has such a name.
    headers.insert(header::NATS_EXPECTED_STREAM, "none.");
    let answer = api.send::<Acknowledgement>(subject.clone(), headers, "".into()).await;
    match answer {
        Err(ApiError::Refused(refusal)) if refusal.code() == code::OTHER_STREAM => Ok(()),
        Err(error) => Err(explain("accept entries", &subject, error)),
        Ok(_) => Err(ConnectError::ForeignStream(settings.stream.clone())),
    }
}

/// Explains the failure of a request.
fn explain(action: &'static str, subject: &str, error: ApiError) -> ConnectError {
    match error {
        ApiError::Permission(text) => ConnectError::Permission(text, subject.to_owned()),
        ApiError::Disconnected | ApiError::NoResponders | ApiError::Silent => {
            ConnectError::Silent(action)
        }
        ApiError::Refused(refusal) if refusal.is_disabled() => ConnectError::NoJetStream,
        error => {
            let may_pass = matches!(&error, ApiError::Refused(refusal) if refusal.may_pass());
            ConnectError::JetStream { action, reason: error.to_string(), may_pass }
        }
    }
}
