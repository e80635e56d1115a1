//! The servers as their monitoring describes them.

use async_nats::datetime;
use futures_util::future::try_join_all;

use crate::{
    api::{ANSWER_TIMEOUT, one_line},
    error::ConnectError,
    settings::NatsSettings,
    setup::{Monitored, check_clock},
};

/// Asks all servers in the settings, and compares their clocks with this machine's.
pub(crate) async fn look(settings: &NatsSettings) -> Result<Vec<Monitored>, ConnectError> {
    if settings.monitoring.is_empty() {
        return Ok(Vec::new());
    }
    // The servers are in the same network; a proxy for the web does not reach them.
    let mut client = reqwest::Client::builder().no_proxy().timeout(ANSWER_TIMEOUT);
    if let (Some(path), Some(pem)) = (&settings.ca, settings.read_ca()?) {
        let certificates = reqwest::Certificate::from_pem_bundle(&pem);
        let certificates = certificates.map_err(|error| ConnectError::Certificates {
            path: path.clone(),
            reason: one_line(&error),
        })?;
        client = client.tls_certs_only(certificates);
    }
    let unable = |error: reqwest::Error| ConnectError::Monitoring {
        url: settings.monitoring.join(", "),
        reason: one_line(&error),
    };
    let client = client.build().map_err(unable)?;
    try_join_all(settings.monitoring.iter().map(|url| ask(&client, url))).await
}

async fn ask(client: &reqwest::Client, url: &str) -> Result<Monitored, ConnectError> {
    let silent = |reason: String| ConnectError::Monitoring { url: url.to_owned(), reason };
    let failed = |error: reqwest::Error| silent(one_line(&error.without_url()));
    let before = datetime::now();
    let address = format!("{}/varz", url.trim_end_matches('/'));
    let answer = client.get(address).send().await.map_err(failed)?;
    let body = answer.error_for_status().map_err(failed)?.bytes().await.map_err(failed)?;
    let after = datetime::now();
    let server: Monitored = serde_json::from_slice(&body)
        .map_err(|error| silent(format!("it is not the monitoring of NATS: {error}")))?;
    check_clock(&server.name, server.now, (before, after))?;
    Ok(server)
}
