//! TLS: what is negotiated, certificates that change, and clients that do not speak it.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::KeyPair;
use server::{
    serve::TimeOuts,
    tls::{Look, Tls},
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
    http2::Connection,
    support::{DEADLINE, Server, Settings},
};

const SHORT: Duration = Duration::from_millis(100);

/// A server with a self-signed certificate, and the folder of that.
pub async fn start(time_outs: TimeOuts) -> (Server, Tls, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let tls = Tls::self_signed(folder.path(), &["localhost".to_owned()]).unwrap();
    let settings = Settings { time_outs, tls: Some(tls.clone()), ..Settings::default() };
    (Server::start(settings).await, tls, folder)
}

/// Connects, trusting the certificates of that file, and offers those protocols.
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

/// The fingerprint of the certificate that a client sees.
fn seen(stream: &TlsStream<TcpStream>) -> String {
    let certificates = stream.get_ref().1.peer_certificates().unwrap();
    let digest = digest(&SHA256, &certificates[0]);
    digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

async fn read_until(stream: &mut TlsStream<TcpStream>, end: &str) -> String {
    let mut bytes = Vec::new();
    while !String::from_utf8_lossy(&bytes).contains(end) {
        let read = tokio::time::timeout(DEADLINE, stream.read_buf(&mut bytes)).await;
        let read = read.expect(end).unwrap();
        assert!(read > 0, "ended: {}", String::from_utf8_lossy(&bytes));
    }
    String::from_utf8(bytes).unwrap()
}

/// The value of a line of `/metrics`.
async fn metric(server: &Server, tls: &Tls, name: &str) -> u64 {
    let answer = Connection::over(connect(server, tls.file(), &["h2"]).await).await;
    let text = answer.get("/metrics").await.text().await;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap().parse().unwrap()
}

async fn until_metric(server: &Server, tls: &Tls, name: &str, expected: u64) {
    let reached = async { while metric(server, tls, name).await != expected {} };
    tokio::time::timeout(DEADLINE, reached).await.expect(name);
}

#[tokio::test]
async fn http_2_is_negotiated_and_http_1_where_a_client_wants_it() {
    let (server, tls, _folder) = start(TimeOuts::default()).await;
    let stream = connect(&server, tls.file(), &["h2", "http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let connection = Connection::over(stream).await;
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
    let (server, tls, _folder) = start(TimeOuts::default()).await;
    for close in [true, false] {
        let mut stream = connect(&server, tls.file(), &["http/1.1"]).await;
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        read_until(&mut stream, "event: hello").await;
        server.until_streams(1).await;
        if close {
            // TLS has an end of its own, before that of the connection.
            stream.shutdown().await.unwrap();
        }
        drop(stream);
        server.until_streams(0).await;
    }
}

#[tokio::test]
async fn a_certificate_is_taken_up_when_its_file_changes_and_no_stream_is_dropped() {
    let (server, tls, folder) = start(TimeOuts::default()).await;
    let first = connect(&server, tls.file(), &["h2"]).await;
    let fingerprint = seen(&first);
    assert_eq!(fingerprint, tls.fingerprint());
    let connection = Connection::over(first).await;
    let mut events = connection.get("/events").await;
    events.message().await;

    // Half of a file leaves all as it is.
    let old = fs::read(tls.file()).unwrap();
    fs::write(tls.file(), &old[..old.len() / 2]).unwrap();
    let look = tls.look();
    assert!(matches!(look, Look::Kept(_)), "{look:?}");
    let kept = folder.path().join("old.pem");
    fs::write(&kept, &old).unwrap();
    assert_eq!(seen(&connect(&server, &kept, &["h2"]).await), fingerprint);

    tls.clone().reload();
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
    assert_eq!(seen(&second), new.fingerprint());

    server.publish("tick").await;
    assert_eq!(events.message().await.data, "tick");
}

#[test]
fn a_self_signed_certificate_is_kept_for_its_names() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let first = Tls::self_signed(&folder.path().join("data"), &names).unwrap();
    let mode = fs::metadata(first.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "its key is in it");
    let again = Tls::self_signed(&folder.path().join("data"), &names).unwrap();
    assert_eq!(again.fingerprint(), first.fingerprint());
    let other = Tls::self_signed(&folder.path().join("data"), &names[..1]).unwrap();
    assert_ne!(other.fingerprint(), first.fingerprint());
    // What cannot be used is said, and not written over.
    fs::write(other.file(), fs::read_to_string(other.file()).unwrap().replace("KEY", "KEI"))
        .unwrap();
    let error = Tls::self_signed(&folder.path().join("data"), &names[..1]).err().unwrap();
    assert!(error.to_string().contains("self-signed.pem cannot be used"), "{error}");
}

#[test]
fn files_that_cannot_be_used_are_named() {
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
async fn who_does_not_speak_tls_is_told_so() {
    let (server, tls, _folder) = start(TimeOuts::default()).await;
    for request in
        [&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let answer = server.send(request).await;
        assert_eq!(answer.status(), 400);
        assert_eq!(answer.rest().await, "This port speaks TLS: use https:// instead of http://.\n");
    }
    until_metric(&server, &tls, "waterclock_refused_total{reason=\"no-tls\"}", 2).await;
}

#[tokio::test]
async fn what_is_no_handshake_is_refused_and_half_of_one_given_up() {
    let time_outs = TimeOuts { handshake: SHORT, ..TimeOuts::default() };
    let (server, tls, _folder) = start(time_outs).await;
    let garbage =
        [&[22; 300][..], b"\x16\x03\x01\xff\xff", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"];
    for bytes in garbage {
        let mut stream = server.connect().await;
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let closed = stream.read_to_end(&mut answer);
        let _ = tokio::time::timeout(DEADLINE, closed).await.expect("closed by the server");
        // At most an alert (RFC 8446, 6).
        assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    }
    let half = server.connect().await;
    half.writable().await.unwrap();
    half.try_write(b"\x16\x03\x01\x02\x00\x01").unwrap();
    until_metric(&server, &tls, "waterclock_connections_timed_out_total{reason=\"handshake\"}", 1)
        .await;
    until_metric(&server, &tls, "waterclock_refused_total{reason=\"tls\"}", 3).await;
    let connection = Connection::over(connect(&server, tls.file(), &["h2"]).await).await;
    assert_eq!(connection.get("/health/live").await.status, 200);
    drop(half);
}
