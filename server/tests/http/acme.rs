//! Certificates by ACME from Pebble, over real sockets.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    sync::Arc,
    time::{Duration, SystemTime},
};

use server::net::tls::{
    Tls,
    acme::{AcmePace, AcmeSettings},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs::default_provider},
};

use crate::{
    http2::Http2Connection,
    pebble::{Pebble, free_address},
    support::{DEADLINE, Server, Settings},
};

const NAME: &str = "clock.test";
/// Validity of a certificate in seconds. It is renewed after two thirds.
const VALIDITY: u32 = 4;

async fn connect(
    server: &Server,
    roots: &RootCertStore,
    protocol: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.into()];
    let connector = TlsConnector::from(Arc::new(config));
    let connecting = connector.connect(NAME.try_into().unwrap(), server.connect().await);
    timeout(DEADLINE, connecting).await.expect("a handshake")
}

async fn other_fingerprint(tls: &Tls, than: &str) -> String {
    let other = async {
        while tls.fingerprint() == than {
            tokio::task::yield_now().await;
        }
        tls.fingerprint()
    };
    timeout(DEADLINE, other).await.expect("another certificate")
}

/// The authority may still be starting at first, and rejects many good nonces.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_ordered_and_renewed_under_open_streams() {
    let folder = tempfile::tempdir().unwrap();
    let (address, listen) = (free_address(), free_address());
    let Some(pebble) = Pebble::start(address, listen.port(), VALIDITY, 30).await else { return };
    let settings = AcmeSettings {
        names: vec![NAME.parse().unwrap()],
        email: Some("admin@clock.test".to_owned()),
        directory: pebble.directory.clone(),
        roots: Some(folder.path().join("roots.pem")),
        folder: folder.path().join("acme"),
        pace: AcmePace {
            first_retry: Duration::from_millis(20),
            max_retry: Duration::from_millis(200),
            poll: Duration::from_millis(10),
            ..AcmePace::default()
        },
    };
    let error = Tls::acme(settings.clone()).err().unwrap().to_string();
    assert!(error.contains("roots.pem cannot be used: I/O error: No such file"), "{error}");
    fs::copy(&pebble.roots, folder.path().join("roots.pem")).unwrap();
    let tls = Tls::acme(settings.clone()).unwrap();
    let server = Settings { tls: Some(tls.clone()), listen, ..Settings::default() };
    let server = Server::start_with(server).await;
    let error = connect(&server, &RootCertStore::empty(), "h2").await.unwrap_err().to_string();
    assert!(error.contains("AccessDenied"), "{error}");
    assert_eq!(tls.fingerprint(), "");

    tls.clone().watch(Arc::clone(&server.metrics));
    let first = other_fingerprint(&tls, "").await;
    let roots = pebble.issuer().await;
    let connection = connect(&server, &roots, "h2").await.unwrap();
    let connection = Http2Connection::handshake(connection).await;
    let mut events = connection.get("/events").await;
    assert_eq!(events.message().await.name, "hello");
    // Nobody but the authority speaks this protocol, and it does so during an order only.
    let error = connect(&server, &roots, "acme-tls/1").await.unwrap_err().to_string();
    assert!(error.contains("AccessDenied"), "{error}");

    let second = other_fingerprint(&tls, &first).await;
    assert_ne!(second, first);
    let renewed = connect(&server, &roots, "h2").await.unwrap();
    let renewed = Http2Connection::handshake(renewed).await;
    let name = "waterclock_certificate_expires_timestamp_seconds";
    let end = async {
        loop {
            let text = renewed.get("/metrics").await.text().await;
            let end = text.lines().find_map(|line| line.strip_prefix(name)).expect("the metric");
            match end.trim_start_matches("{}").trim().parse::<u64>().unwrap() {
                // The server looks at the certificate once a second.
                0 => tokio::task::yield_now().await,
                end => break end,
            }
        }
    };
    let end = timeout(DEADLINE, end).await.expect("the end of the certificate");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert!(end.abs_diff(now) < 60, "{end}");
    server.publish("tick").await;
    assert_eq!(events.message().await.data, "tick");

    let mut files = 0;
    for file in fs::read_dir(folder.path().join("acme")).unwrap() {
        // One that is being written may have its final name by now.
        let Ok(metadata) = file.unwrap().metadata() else { continue };
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        files += 1;
    }
    assert!(files >= 2, "the account and the certificate");
    // A restart needs no authority.
    drop(pebble);
    assert_ne!(Tls::acme(settings).unwrap().fingerprint(), "");
}
