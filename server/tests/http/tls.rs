//! TLS: negotiation, certificates that change, and clients that do not use it.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::KeyPair;
use server::{
    limits::Timeouts,
    net::tls::{Reload, Tls},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs::default_provider,
        pki_types::{CertificateDer, pem::PemObject as _},
    },
};

use crate::{
    http2::Http2Connection,
    support::{DEADLINE, Server, Settings, read_until_closed, refusal_metric, timeout_metric},
};

/// Timeout of a handshake, long enough for a valid one on a busy machine.
const HANDSHAKE: Duration = Duration::from_secs(2);

/// Starts a server with a self-signed certificate. Returns the certificate and its folder, too.
pub async fn start_server(timeouts: Timeouts) -> (Server, Tls, TempDir) {
    start_with(Settings { timeouts, ..Settings::default() }).await
}

pub async fn start_with(settings: Settings) -> (Server, Tls, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let tls = Tls::self_signed(folder.path(), &["localhost".to_owned()]).unwrap();
    let settings = Settings { tls: Some(tls.clone()), ..settings };
    (Server::start_with(settings).await, tls, folder)
}

/// Connects, trusts the certificates of a file, and offers protocols.
pub async fn connect(server: &Server, file: &Path, protocols: &[&str]) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let connector = TlsConnector::from(Arc::new(config));
    let name = "localhost".try_into().unwrap();
    let connecting = connector.connect(name, server.connect().await);
    tokio::time::timeout(DEADLINE, connecting).await.expect("a handshake").unwrap()
}

/// Returns the fingerprint of the certificate that a client sees.
fn fingerprint(stream: &TlsStream<TcpStream>) -> String {
    let certificates = stream.get_ref().1.peer_certificates().unwrap();
    let digest = digest(&SHA256, &certificates[0]);
    digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

pub async fn read_until(stream: &mut TlsStream<TcpStream>, end: &str) -> String {
    let mut bytes = Vec::new();
    while !String::from_utf8_lossy(&bytes).contains(end) {
        let read = tokio::time::timeout(DEADLINE, stream.read_buf(&mut bytes)).await;
        let read = read.expect(end).unwrap();
        assert!(read > 0, "ended: {}", String::from_utf8_lossy(&bytes));
    }
    String::from_utf8(bytes).unwrap()
}

/// Returns the value of a metric.
pub async fn metric(server: &Server, tls: &Tls, name: &str) -> u64 {
    let response = Http2Connection::handshake(connect(server, tls.file(), &["h2"]).await).await;
    let text = response.get("/metrics").await.text().await;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap().parse().unwrap()
}

/// Waits until a metric has a value.
pub async fn wait_for_metric(server: &Server, tls: &Tls, name: &str, expected: u64) {
    let reached = async { while metric(server, tls, name).await != expected {} };
    tokio::time::timeout(DEADLINE, reached).await.expect(name);
}

#[tokio::test]
async fn http_2_is_negotiated_unless_a_client_prefers_http_1() {
    let (server, tls, _folder) = start_server(Timeouts::default()).await;
    let stream = connect(&server, tls.file(), &["h2", "http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let connection = Http2Connection::handshake(stream).await;
    let mut events = connection.get("/events").await;
    assert_eq!(events.message().await.name, "hello");
    server.publish("tick").await;
    assert_eq!(events.message().await.data, "tick");

    for (protocols, negotiated) in [(&["http/1.1"][..], Some(&b"http/1.1"[..])), (&[], None)] {
        let mut stream = connect(&server, tls.file(), protocols).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), negotiated);
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        read_until(&mut stream, "event: hello").await;
        server.publish("tock").await;
        read_until(&mut stream, "data: tock").await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed() {
    let (server, tls, _folder) = start_server(Timeouts::default()).await;
    for close in [true, false] {
        let mut stream = connect(&server, tls.file(), &["http/1.1"]).await;
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        read_until(&mut stream, "event: hello").await;
        server.wait_for_streams(1).await;
        if close {
            // TLS ends before the connection does.
            stream.shutdown().await.unwrap();
        }
        drop(stream);
        server.wait_for_streams(0).await;
    }
}

#[tokio::test]
async fn a_changed_certificate_is_reloaded_without_dropping_streams() {
    let (server, tls, folder) = start_server(Timeouts::default()).await;
    let first = connect(&server, tls.file(), &["h2"]).await;
    let old_fingerprint = fingerprint(&first);
    assert_eq!(old_fingerprint, tls.fingerprint());
    let connection = Http2Connection::handshake(first).await;
    let mut events = connection.get("/events").await;
    events.message().await;

    // An incomplete file changes nothing.
    let old = fs::read(tls.file()).unwrap();
    fs::write(tls.file(), &old[..old.len() / 2]).unwrap();
    let reload = tls.check();
    assert!(matches!(reload, Reload::Failed(_)), "{reload:?}");
    let copy = folder.path().join("old.pem");
    fs::write(&copy, &old).unwrap();
    assert_eq!(fingerprint(&connect(&server, &copy, &["h2"]).await), old_fingerprint);

    tls.clone().watch(Arc::clone(&server.metrics));
    let other = tempfile::tempdir().unwrap();
    let new = Tls::self_signed(other.path(), &["localhost".to_owned()]).unwrap();
    fs::copy(new.file(), tls.file()).unwrap();
    let reloaded = async {
        while tls.fingerprint() != new.fingerprint() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, reloaded).await.expect("the new certificate");
    let second = connect(&server, new.file(), &["h2"]).await;
    assert_eq!(fingerprint(&second), new.fingerprint());

    server.publish("tick").await;
    assert_eq!(events.message().await.data, "tick");
}

#[test]
fn a_self_signed_certificate_is_reused_for_the_same_names() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let first = Tls::self_signed(&folder.path().join("data"), &names).unwrap();
    let mode = fs::metadata(first.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "the file contains the key");
    let again = Tls::self_signed(&folder.path().join("data"), &names).unwrap();
    assert_eq!(again.fingerprint(), first.fingerprint());
    let other = Tls::self_signed(&folder.path().join("data"), &names[..1]).unwrap();
    assert_ne!(other.fingerprint(), first.fingerprint());
    // A corrupt file causes an error, and is not overwritten.
    fs::write(other.file(), fs::read_to_string(other.file()).unwrap().replace("KEY", "KEI"))
        .unwrap();
    let error = Tls::self_signed(&folder.path().join("data"), &names[..1]).err().unwrap();
    assert!(error.to_string().contains("self-signed.pem cannot be used"), "{error}");
}

#[test]
fn an_error_names_the_unusable_file() {
    let folder = tempfile::tempdir().unwrap();
    let tls = Tls::self_signed(folder.path(), &["localhost".to_owned()]).unwrap();
    let file = |name: &str, text: &str| {
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        file
    };
    let empty = file("empty.pem", "");
    let other = file("other.pem", &KeyPair::generate().unwrap().serialize_pem());
    let missing = folder.path().join("missing.pem");
    for (certificate, key, expected) in [
        (&*missing, tls.file(), "missing.pem cannot be used: I/O error: No such file"),
        (tls.file(), &*missing, "missing.pem cannot be used: I/O error: No such file"),
        (&*empty, tls.file(), "empty.pem cannot be used: no items found"),
        (tls.file(), &*empty, "empty.pem cannot be used: no items found"),
        (tls.file(), &*other, "other.pem cannot be used together: keys may not be consistent"),
    ] {
        let error = Tls::from_files(certificate, key).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn plain_http_on_a_tls_port_gets_400() {
    let (server, tls, _folder) = start_server(Timeouts::default()).await;
    for request in
        [&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let response = server.send(request).await;
        assert_eq!(response.status(), 400);
        assert_eq!(
            response.rest().await,
            "This port requires TLS: use https:// instead of http://.\n"
        );
    }
    wait_for_metric(&server, &tls, &refusal_metric("no-tls"), 2).await;
}

#[tokio::test]
async fn invalid_handshakes_are_refused_and_incomplete_ones_time_out() {
    let timeouts = Timeouts { handshake: HANDSHAKE, ..Timeouts::default() };
    let (server, tls, _folder) = start_server(timeouts).await;
    let garbage =
        [&[22; 300][..], b"\x16\x03\x01\xff\xff", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"];
    for bytes in garbage {
        let mut stream = server.connect().await;
        stream.write_all(bytes).await.unwrap();
        let response = read_until_closed(stream).await;
        // The server sends at most an alert (RFC 8446, 6).
        assert!(response.is_empty() || response[0] == 21, "{response:?}");
    }
    let half = server.connect().await;
    half.writable().await.unwrap();
    half.try_write(b"\x16\x03\x01\x02\x00\x01").unwrap();
    wait_for_metric(&server, &tls, &timeout_metric("handshake"), 1).await;
    wait_for_metric(&server, &tls, &refusal_metric("tls"), 3).await;
    let connection = Http2Connection::handshake(connect(&server, tls.file(), &["h2"]).await).await;
    assert_eq!(connection.get("/health/live").await.status, 200);
    drop(half);
}
