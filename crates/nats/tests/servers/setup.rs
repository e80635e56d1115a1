//! Servers and streams that are not set up as they must be.

use std::{fs, path::Path, time::Duration};

use nkeys::KeyPair;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use waterclock::cluster::{EntryKind, Sequencer as _, SequencerError};
use waterclock_nats::{ConnectError, NatsSequencer, NatsSettings};

use crate::support::{Configuration, NatsServer, free_ports, read, soon, until};

/// Connects, and returns the text of the error, which must be one line.
async fn refusal(settings: NatsSettings) -> String {
    let error =
        soon(NatsSequencer::connect(settings)).await.err().expect("the set-up was accepted");
    let text = error.to_string();
    assert!(!text.contains(['\n', '\r']), "{text:?}");
    text
}

/// Checks that the error begins as expected, and contains the second text.
async fn assert_refused(settings: NatsSettings, (start, remedy): (&str, &str)) {
    let text = refusal(settings).await;
    assert!(text.starts_with(start), "{text}");
    assert!(text.contains(remedy), "{text}");
}

fn jetstream(settings: &'static str) -> Configuration {
    Configuration { jetstream: Some(settings), ..Configuration::default() }
}

fn more(lines: &str) -> Configuration {
    Configuration { more: lines.to_owned(), ..Configuration::default() }
}

/// Settings that do not ask the server's monitoring.
fn unmonitored(server: &NatsServer) -> NatsSettings {
    NatsSettings { monitoring: Vec::new(), allow_unsafe_sync: true, ..server.settings() }
}

#[tokio::test]
async fn servers_must_be_set_up() {
    let server = NatsServer::start();
    let settings = NatsSettings { monitoring: Vec::new(), ..server.settings() };
    assert_refused(
        settings,
        (
            "say where the servers' monitoring is with --cluster-monitoring http://host:8222",
            "--cluster-unsafe-sync",
        ),
    )
    .await;
    NatsSequencer::connect(unmonitored(&server)).await.unwrap();

    for (name, remedy) in [("", "use letters"), ("a.b", "use letters"), ("a*", "use letters")] {
        let settings = NatsSettings { stream: name.to_owned(), ..server.settings() };
        let start = format!("{name:?} cannot be the name of a stream");
        assert_refused(settings, (&start, remedy)).await;
    }
    assert_refused(
        NatsSettings { replicas: 3, ..server.settings() },
        (
            "the monitoring URLs are of 1 server(s), but 3 must",
            "name the monitoring of all servers",
        ),
    )
    .await;
    assert_refused(
        NatsSettings { replicas: 3, stream: "three".to_owned(), ..unmonitored(&server) },
        ("the server n1 is alone, but 3 must keep each entry", "add a section cluster"),
    )
    .await;
    assert_refused(
        NatsSettings { replicas: 3, ..unmonitored(&server) },
        ("the stream \"waterclock\" has 1 replica(s) instead of 3", "--replicas 3"),
    )
    .await;
}

#[tokio::test]
async fn servers_must_write_to_the_disk_at_once() {
    for settings in ["", "sync_interval: \"1s\""] {
        let server = NatsServer::configured(&jetstream(settings));
        assert_refused(
            server.settings(),
            ("the server n1 acknowledges entries before", "set `sync_interval: always`"),
        )
        .await;
        let settings = NatsSettings { allow_unsafe_sync: true, ..server.settings() };
        NatsSequencer::connect(settings).await.unwrap();
    }
}

#[tokio::test]
async fn servers_must_have_jetstream() {
    let expected = ("JetStream is not enabled", "add `jetstream { sync_interval: always }`");
    let server =
        NatsServer::configured(&Configuration { jetstream: None, ..Configuration::default() });
    assert_refused(server.settings(), expected).await;
    assert_refused(unmonitored(&server), expected).await;

    let server = NatsServer::configured(&more(
        "accounts { A { users: [{ user: a, password: p }] }\n\
         B { jetstream: enabled, users: [{ user: b, password: p }] } }",
    ));
    let user = |user: &str| NatsSettings {
        servers: vec![format!("nats://{user}:p@127.0.0.1:{}", server.port)],
        ..server.settings()
    };
    assert_refused(user("a"), expected).await;
    NatsSequencer::connect(user("b")).await.unwrap();
}

#[tokio::test]
async fn servers_must_accept_large_messages() {
    let server = NatsServer::configured(&more("max_payload: 512KB"));
    let expected =
        ("the server n1 accepts messages of 524288 bytes only", "set max_payload to 1MB or more");
    assert_refused(server.settings(), expected).await;
    assert_refused(unmonitored(&server), expected).await;

    let server = NatsServer::configured(&more("max_payload: 800KB"));
    let sequencer = server.sequencer().await;
    assert_eq!(sequencer.max_entry(), (800 << 10) - (4 << 10));
    sequencer.propose(vec![b'x'; sequencer.max_entry()], EntryKind::First).await.unwrap();
}

#[tokio::test]
async fn servers_must_be_reached() {
    let server = NatsServer::start();
    let [closed] = free_ports();
    let timeout = Duration::from_millis(700);
    for (settings, expected) in [
        (
            NatsSettings {
                servers: vec![format!("nats://u:secret@127.0.0.1:{closed}")],
                ..server.settings()
            },
            (format!("no NATS server can be reached at nats://127.0.0.1:{closed}"), "refused"),
        ),
        (
            NatsSettings {
                monitoring: vec![format!("http://127.0.0.1:{closed}")],
                ..server.settings()
            },
            (
                format!("the monitoring at http://127.0.0.1:{closed} does not answer"),
                "http_port: 8222",
            ),
        ),
        (
            // The port of clients, which does not speak HTTP.
            NatsSettings {
                monitoring: vec![format!("http://127.0.0.1:{}", server.port)],
                ..server.settings()
            },
            (
                format!("the monitoring at http://127.0.0.1:{} does not answer", server.port),
                "correct the URL",
            ),
        ),
        (
            NatsSettings {
                monitoring: vec![format!("{}/other", server.monitoring())],
                ..server.settings()
            },
            (format!("the monitoring at {}/other does not answer", server.monitoring()), "404"),
        ),
    ] {
        let settings = NatsSettings { timeout, ..settings };
        assert_refused(settings.clone(), (&expected.0, expected.1)).await;
        assert!(NatsSequencer::connect(settings).await.err().unwrap().may_pass());
    }
}

#[tokio::test]
async fn the_servers_of_the_stream_must_be_monitored() {
    let server = NatsServer::start();
    let other = NatsServer::configured(&Configuration {
        name: "n2".to_owned(),
        ..Configuration::default()
    });
    assert_refused(
        NatsSettings { monitoring: vec![other.monitoring()], ..server.settings() },
        ("the server n1 keeps the stream, but none of the monitoring URLs", "add its monitoring"),
    )
    .await;
    // Another path of the same server.
    let monitoring = vec![format!("{}/", server.monitoring()), server.monitoring()];
    NatsSequencer::connect(NatsSettings { monitoring, ..server.settings() }).await.unwrap();

    let [route, other] = free_ports();
    let clustered = NatsServer::configured(&more(&format!(
        "cluster {{\nname: c\nlisten: \"127.0.0.1:{route}\"\n\
         routes: [\"nats://127.0.0.1:{other}\"]\n}}"
    )));
    let monitoring = vec![server.monitoring(), clustered.monitoring()];
    assert_refused(
        NatsSettings { monitoring, ..server.settings() },
        ("the server n1 is in the cluster \"c\", another one in \"\"", "servers of one cluster"),
    )
    .await;
}

#[tokio::test]
async fn old_servers_are_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let info = json!({
                "server_id": "N", "server_name": "old", "version": "2.12.4",
                "max_payload": 1_048_576, "headers": true, "jetstream": true,
            });
            socket.write_all(format!("INFO {info}\r\n").as_bytes()).await.unwrap();
            let mut received = [0; 4096];
            while socket.read(&mut received).await.is_ok_and(|count| count > 0) {
                let _ = socket.write_all(b"PONG\r\n").await;
            }
        }
    });
    let settings = NatsSettings {
        servers: vec![url],
        replicas: 1,
        allow_unsafe_sync: true,
        ..NatsSettings::default()
    };
    assert_refused(settings, ("the server old is NATS 2.12.4", "install version 2.14 or later"))
        .await;
}

#[tokio::test]
async fn the_stream_must_be_as_it_was_made() {
    let server = NatsServer::start();
    let client = server.client().await;
    let jetstream = async_nats::jetstream::new(client);
    let create = async |config: Value| {
        let name = config["name"].as_str().unwrap();
        let answer: Value =
            jetstream.request(format!("STREAM.CREATE.{name}"), &config).await.unwrap();
        assert_eq!(answer.get("error"), None);
    };
    create(json!({ "name": "foreign", "subjects": ["foreign.entries"] })).await;
    let settings = NatsSettings { stream: "foreign".to_owned(), ..server.settings() };
    let expected =
        ("the stream \"foreign\" exists, and was not made by Waterclock", "another name");
    assert_refused(settings, expected).await;

    for (name, setting, value) in [
        ("a", "subjects", json!(["a.entries", "a.others"])),
        ("b", "storage", json!("memory")),
        ("c", "retention", json!("interest")),
        ("d", "discard", json!("old")),
        ("e", "max_age", json!(3_600_000_000_000_u64)),
        ("f", "max_bytes", json!(1 << 20)),
        ("g", "max_msgs", json!(10)),
        ("h", "max_msgs_per_subject", json!(10)),
        ("i", "sealed", json!(true)),
        ("j", "mirror", json!({ "name": "foreign" })),
        ("k", "sources", json!([{ "name": "foreign" }])),
        ("l", "deny_delete", json!(false)),
        ("m", "persist_mode", json!("async")),
        ("n", "no_ack", json!(true)),
        ("o", "allow_msg_ttl", json!(true)),
        ("p", "max_msg_size", json!(1000)),
    ] {
        let settings = NatsSettings { stream: name.to_owned(), ..server.settings() };
        drop(NatsSequencer::connect(settings.clone()).await.unwrap());
        let mut stream = jetstream.get_stream(name).await.unwrap();
        let info: Value =
            jetstream.request(format!("STREAM.INFO.{name}"), &json!({})).await.unwrap();
        let mut config = info["config"].clone();
        config[setting] = value;
        if setting == "mirror" {
            config["subjects"] = json!([]);
        }
        if setting == "sealed" {
            stream.info().await.unwrap();
            let answer: Value =
                jetstream.request(format!("STREAM.UPDATE.{name}"), &config).await.unwrap();
            assert_eq!(answer.get("error"), None);
        } else {
            // Not every setting of a stream can be changed.
            jetstream.delete_stream(name).await.unwrap();
            create(config).await;
        }
        let text = refusal(settings).await;
        assert!(text.starts_with(&format!("the stream {name:?} has ")), "{text}");
        assert!(text.contains("change it back"), "{text}");
        // A mirror takes no subjects, which is found first.
        assert!(text.contains(setting) || setting == "mirror", "{setting}: {text}");
    }

    create(json!({ "name": "all", "subjects": ["taken.>"] })).await;
    assert_refused(
        NatsSettings { stream: "taken".to_owned(), ..server.settings() },
        ("JetStream refuses to create the stream", "subjects overlap with an existing stream"),
    )
    .await;
}

#[tokio::test]
async fn users_need_permissions() {
    let allow = |publish: &str, subscribe: &str| {
        format!(
            "authorization {{ users: [{{ user: u, password: p, permissions: {{\n\
             publish: {publish}\nsubscribe: {subscribe}\n}} }}] }}"
        )
    };
    let all = r#"["$JS.API.>", "waterclock.entries"]"#;
    let inbox = r#"["_INBOX.>"]"#;
    for (publish, subscribe, denied) in [
        (r#"["waterclock.entries"]"#, inbox, r#"Publish to "$JS.API.STREAM.INFO.waterclock""#),
        (
            r#"["$JS.API.STREAM.INFO.waterclock", "waterclock.entries"]"#,
            inbox,
            r#"Publish to "$JS.API.STREAM.CREATE.waterclock""#,
        ),
        (r#"["$JS.API.>"]"#, inbox, r#"Publish to "waterclock.entries""#),
        (
            r#"["$JS.API.STREAM.>", "waterclock.entries"]"#,
            inbox,
            r#"Publish to "$JS.API.CONSUMER.CREATE.waterclock"#,
        ),
        (all, r#"["other.>"]"#, r#"Subscription to "_INBOX."#),
    ] {
        let server = NatsServer::configured(&more(&allow(publish, subscribe)));
        let servers = vec![format!("nats://u:p@127.0.0.1:{}", server.port)];
        let settings = NatsSettings { servers, ..server.settings() };
        let text = refusal(settings).await;
        assert!(text.starts_with("NATS denies a permission (Permissions Violation for "), "{text}");
        assert!(text.contains(denied), "{text}");
    }

    // Those that the README lists.
    let needed = |row: &str| -> Vec<&str> {
        let needed = include_str!("../../README.md").lines().find(|line| line.starts_with(row));
        needed.unwrap().split('`').skip(1).step_by(2).collect()
    };
    let (publish, subscribe) = (needed("| publish"), needed("| subscribe"));
    assert!(publish.contains(&"waterclock.entries") && subscribe.contains(&"_INBOX.>"));
    let allowed = allow(&format!("{publish:?}"), &format!("{subscribe:?}"));
    let server = NatsServer::configured(&more(&allowed));
    let servers = vec![format!("nats://u:p@127.0.0.1:{}", server.port)];
    let settings = NatsSettings { servers, ..server.settings() };
    let sequencer = NatsSequencer::connect(settings).await.unwrap();
    sequencer.propose("first".into(), EntryKind::First).await.unwrap();
    assert_eq!(read(&sequencer, 0, 1).await[0].bytes, b"first");
    assert_eq!(sequencer.entry(1).await.unwrap().as_deref(), Some(&b"first"[..]));
    let messenger = sequencer.messenger().unwrap();
    let mut messages = messenger.listen("a1").await.unwrap();
    for (to, message) in [(None, "to all"), (Some("a1"), "to one")] {
        messenger.tell(Some("b2"), "to another one".into()).await.unwrap();
        messenger.tell(to, message.into()).await.unwrap();
        assert_eq!(soon(messages.next()).await.unwrap(), message.as_bytes());
    }
    assert_eq!(sequencer.bounds().await.unwrap().last, 1, "messages are no entries");
    assert!(!server.log().contains("Violation"));

    let server = NatsServer::configured(&more(&allow(all, inbox)));
    let settings = |password: &str| NatsSettings {
        servers: vec![format!("nats://u:{password}@127.0.0.1:{}", server.port)],
        ..server.settings()
    };
    let sequencer = NatsSequencer::connect(settings("p")).await.unwrap();
    // Without the permission for messages, a node counts its own readers.
    let messenger = sequencer.messenger().unwrap();
    let error = soon(messenger.listen("a1").await.unwrap().next()).await.unwrap_err();
    assert!(matches!(error, SequencerError::Denied(_)), "{error}");
    let remedy = "allow the user to publish and to subscribe to \"waterclock.readers.*\"";
    assert!(error.to_string().ends_with(remedy), "{error}");
    let error = messenger.tell(None, "to all".into()).await.unwrap_err();
    assert!(matches!(error, SequencerError::Denied(_)), "{error}");
    assert_refused(settings("wrong"), ("NATS refuses the connection", "check the credentials"))
        .await;
    let text = refusal(server.settings()).await;
    assert!(text.starts_with("NATS refuses the connection"), "{text}");
}

#[tokio::test]
async fn certificates_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    fs::write(path("cert.pem"), cert.pem()).unwrap();
    fs::write(path("key.pem"), signing_key.serialize_pem()).unwrap();
    let CertifiedKey { cert, .. } = generate_simple_self_signed(["other".to_owned()]).unwrap();
    fs::write(path("other.pem"), cert.pem()).unwrap();
    fs::write(path("empty.pem"), "").unwrap();

    let server = NatsServer::configured(&more(&format!(
        "tls {{\ncert_file: {:?}\nkey_file: {:?}\n}}",
        path("cert.pem"),
        path("key.pem")
    )));
    let settings = |ca: Option<&str>| NatsSettings {
        servers: vec![format!("tls://127.0.0.1:{}", server.port)],
        ca: ca.map(path),
        timeout: Duration::from_secs(2),
        ..server.settings()
    };
    let trusting =
        NatsSettings { timeout: server.settings().timeout, ..settings(Some("cert.pem")) };
    let sequencer = NatsSequencer::connect(trusting).await.unwrap();
    assert_eq!(sequencer.propose("first".into(), EntryKind::First).await.unwrap(), 1);

    for ca in [Some("other.pem"), None] {
        let text = refusal(settings(ca)).await;
        assert!(text.starts_with("the certificate of a server at tls://127.0.0.1"), "{text}");
    }
    for ca in ["missing.pem", "empty.pem"] {
        let text = refusal(settings(Some(ca))).await;
        assert!(text.starts_with("the certificates in "), "{text}");
    }
}

/// Encodes bytes as base64url without padding.
fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let group = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for digit in 0..=chunk.len() {
            text.push(char::from(DIGITS[(group >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    text
}

/// Signs claims of NATS.
fn token(issuer: &KeyPair, subject: &KeyPair, claims: &Value) -> String {
    let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let claims = json!({
        "jti": "1", "iat": 1, "name": "name", "iss": issuer.public_key(),
        "sub": subject.public_key(), "nats": claims,
    });
    let [header, claims] = [header, claims].map(|part| base64url(part.to_string().as_bytes()));
    let signed = format!("{header}.{claims}");
    let signature = base64url(&issuer.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}

/// Writes a file of credentials.
fn write_credentials(path: &Path, token: &str, user: &KeyPair) {
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        user.seed().unwrap()
    );
    fs::write(path, text).unwrap();
}

#[tokio::test]
async fn credentials_are_used() {
    let (operator, system, account) =
        (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
        "conn": -1, "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1,
        "consumer": -1,
    });
    let account_claims = json!({ "type": "account", "version": 2, "limits": limits });
    let system_limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
        "conn": -1, "leaf": -1,
    });
    let system_claims = json!({ "type": "account", "version": 2, "limits": system_limits });
    let operator_claims =
        json!({ "type": "operator", "version": 2, "system_account": system.public_key() });
    let server = NatsServer::configured(&more(&format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload {{\n{}: {}\n{}: {}\n}}",
        token(&operator, &operator, &operator_claims),
        system.public_key(),
        system.public_key(),
        token(&operator, &system, &system_claims),
        account.public_key(),
        token(&operator, &account, &account_claims),
    )));

    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let user = KeyPair::new_user();
    let user_claims =
        json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1 });
    write_credentials(&path("user.creds"), &token(&account, &user, &user_claims), &user);
    let stranger = KeyPair::new_account();
    write_credentials(&path("stranger.creds"), &token(&stranger, &user, &user_claims), &user);
    fs::write(path("empty.creds"), "").unwrap();

    let settings = |credentials: Option<&str>| NatsSettings {
        credentials: credentials.map(path),
        ..server.settings()
    };
    let sequencer = NatsSequencer::connect(settings(Some("user.creds"))).await.unwrap();
    assert_eq!(sequencer.propose("first".into(), EntryKind::First).await.unwrap(), 1);
    for credentials in [Some("stranger.creds"), None] {
        let text = refusal(settings(credentials)).await;
        assert!(text.starts_with("NATS refuses the connection"), "{text}");
    }
    for credentials in ["missing.creds", "empty.creds"] {
        let text = refusal(settings(Some(credentials))).await;
        assert!(text.starts_with("the credentials in "), "{text}");
    }
}

#[tokio::test]
async fn servers_that_start_are_waited_for() {
    let mut server = NatsServer::start();
    drop(server.sequencer().await);
    server.kill();
    let connecting = tokio::spawn(NatsSequencer::connect(server.settings()));
    let mut failed = server.settings();
    failed.timeout = Duration::from_millis(300);
    // By then the other one has met the closed port as well.
    let error = NatsSequencer::connect(failed).await.err().unwrap();
    assert!(matches!(error, ConnectError::Monitoring { .. }), "{error}");
    server.restart();
    let sequencer = soon(connecting).await.unwrap().unwrap();
    until("bounds", async || sequencer.bounds().await.ok()).await;
}
