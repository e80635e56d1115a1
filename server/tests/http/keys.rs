//! Keys of issuers that are rotated, away, slow or too large, while the server verifies tokens.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header,
    jwk::{Jwk, JwkSet},
};
use rcgen::{KeyPair, PKCS_ED25519};
use serde_json::json;
use server::auth::{Access, Audience, IssuerSettings, JwksPlace, TokenVerifier};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use waterclock_axum::StreamLimits;

use crate::{
    reload,
    support::{DEADLINE, REMOTE, Server, Settings},
    tokens::{bearer, now},
};

/// Signs tokens with a key of its own.
struct Signer {
    id: String,
    key: EncodingKey,
    jwk: Jwk,
}

impl Signer {
    fn new(id: &str) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let key = EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).unwrap();
        let public = DecodingKey::from_ed_pem(pair.public_key_pem().as_bytes()).unwrap();
        let mut jwk = Jwk::from_decoding_key(&public, Some(Algorithm::EdDSA)).unwrap();
        jwk.common.key_id = Some(id.to_owned());
        Self { id: id.to_owned(), key, jwk }
    }

    /// Returns a token for all topics.
    fn token(&self) -> String {
        let header = Header { kid: Some(self.id.clone()), ..Header::new(Algorithm::EdDSA) };
        let claims = json!({"exp": now() + 60.0, "publish": [">"], "subscribe": [">"]});
        jsonwebtoken::encode(&header, &claims, &self.key).unwrap()
    }
}

fn set(signers: &[&Signer]) -> String {
    let keys = signers.iter().map(|signer| signer.jwk.clone()).collect();
    serde_json::to_string(&JwkSet { keys }).unwrap()
}

/// The response of an issuer.
#[derive(Clone)]
enum Answer {
    Set(String),
    /// A body of 100 MB.
    Huge,
    /// No response.
    Silent,
    /// A redirect to this URL.
    Redirect(String),
}

/// An issuer with a key set, on its own port.
struct IssuerServer {
    address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    requests: Arc<AtomicUsize>,
    /// Number of bytes of the largest body that a client has taken.
    taken: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Drop for IssuerServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl IssuerServer {
    async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new(answer));
        let (requests, taken) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let shared = (Arc::clone(&answer), Arc::clone(&requests), Arc::clone(&taken));
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answer, requests, taken) = shared.clone();
                tokio::spawn(async move {
                    requests.fetch_add(1, Ordering::Relaxed);
                    let answer = answer.lock().unwrap().clone();
                    respond(stream, answer, &taken).await;
                });
            }
        });
        Self { address, answer, requests, taken, serving }
    }

    fn set(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn url(&self) -> String {
        format!("http://{}/keys", self.address)
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Returns a server that trusts this issuer, with the times of its refreshes.
    async fn server(
        &self,
        cache: Option<&Path>,
        min_refresh: Duration,
        patience: Duration,
    ) -> Server {
        let settings =
            IssuerSettings { jwks: vec![self.url().parse().unwrap()], ..IssuerSettings::default() };
        let tokens = TokenVerifier::open(&[settings], cache).unwrap();
        serve_with(tokens.with_refresh_times(min_refresh, patience)).await.0
    }
}

async fn serve_with(tokens: TokenVerifier) -> (Server, Arc<TokenVerifier>) {
    let tokens = Arc::new(tokens);
    tokens.start();
    let access = Access { tokens: Some(Arc::clone(&tokens)), ..Access::default() };
    (Server::with_access(access).await, tokens)
}

async fn respond(mut stream: TcpStream, answer: Answer, taken: &AtomicUsize) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n";
    let response = match answer {
        Answer::Set(set) => format!("{head}Content-Length: {}\r\n\r\n{set}", set.len()),
        Answer::Redirect(url) => {
            format!("HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n")
        }
        Answer::Huge => {
            // Without a length, so that only reading it reveals its size.
            if stream.write_all(format!("{head}\r\n").as_bytes()).await.is_err() {
                return;
            }
            let chunk = vec![b' '; 1 << 16];
            for sent in 0..1600 {
                if stream.write_all(&chunk).await.is_err() {
                    break;
                }
                taken.fetch_max((sent + 1) * chunk.len(), Ordering::Relaxed);
            }
            return;
        }
        Answer::Silent => {
            // Until the client gives up.
            let _ = stream.read_to_end(&mut Vec::new()).await;
            return;
        }
    };
    let _ = stream.write_all(response.as_bytes()).await;
}

const SOON: Duration = Duration::from_millis(1);
const NEVER: Duration = Duration::from_hours(1);

fn refreshes(result: &str) -> String {
    format!("waterclock_jwks_refreshes_total{{result=\"{result}\"}}")
}

async fn publish_status(server: &Server, token: &str) -> u16 {
    server.post("t", &bearer(token), b"x").await.status()
}

/// Publishes until the server answers with this status.
async fn wait_for_status(server: &Server, token: &str, status: u16) {
    let reached = async { while publish_status(server, token).await != status {} };
    tokio::time::timeout(DEADLINE, reached).await.expect("the status");
}

#[tokio::test]
async fn keys_rotate_under_a_thousand_open_streams() {
    let folder = tempfile::tempdir().unwrap();
    let [old, new] = ["a", "b"].map(Signer::new);
    let [old_of_file, new_of_file] = ["c", "d"].map(Signer::new);
    let issuer = IssuerServer::start(Answer::Set(set(&[&old]))).await;
    let file = folder.path().join("keys.json");
    std::fs::write(&file, set(&[&old_of_file])).unwrap();
    let settings = IssuerSettings {
        jwks: vec![issuer.url().parse().unwrap(), JwksPlace::File(file.clone())],
        ..IssuerSettings::default()
    };
    let tokens = TokenVerifier::open(&[settings], None).unwrap();
    let (server, tokens) = serve_with(tokens.with_refresh_times(SOON, DEADLINE)).await;

    let readers = [old.token(), old_of_file.token()];
    // The first request brings the keys.
    assert_eq!(publish_status(&server, &readers[0]).await, 201);
    let opened = (0..1000).map(async |number| {
        let mut stream = server.get_with_token(&readers[number % 2], "/events?topic=t").await;
        assert_eq!(stream.message().await.name, "hello");
        stream
    });
    let mut streams = join_all(opened).await;
    server.wait_for_streams(1000).await;

    // The new keys appear next to the old ones, and a token of theirs is the first sign of it.
    issuer.set(Answer::Set(set(&[&old, &new])));
    std::fs::write(&file, set(&[&old_of_file, &new_of_file])).unwrap();
    tokens.check_files();
    for signer in [&new, &new_of_file, &old, &old_of_file] {
        assert_eq!(publish_status(&server, &signer.token()).await, 201, "{}", signer.id);
    }
    // The old ones are removed.
    issuer.set(Answer::Set(set(&[&new])));
    std::fs::write(&file, set(&[&new_of_file])).unwrap();
    tokens.check_files();
    // An unknown key makes the server fetch the set.
    publish_status(&server, &Signer::new("e").token()).await;
    for signer in [&old, &old_of_file] {
        wait_for_status(&server, &signer.token(), 401).await;
        let status = server.get_with_token(&signer.token(), "/events?topic=t").await.status();
        assert_eq!(status, 401, "{}", signer.id);
    }
    for signer in [&new, &new_of_file] {
        assert_eq!(publish_status(&server, &signer.token()).await, 201, "{}", signer.id);
    }
    assert_eq!(server.streams.count(), 1000, "no stream has ended");
    server.publish_to("t", "last").await;
    let received = join_all(streams.iter_mut().map(
        async |stream| {
            while stream.message().await.data != "last" {}
        },
    ));
    tokio::time::timeout(DEADLINE, received).await.expect("each stream gets the last event");
    assert_eq!(server.metric(&refreshes("failed")).await, 0);
}

#[tokio::test]
async fn a_set_of_100_mb_is_not_read_and_the_last_good_one_stays() {
    let (old, new) = (Signer::new("a"), Signer::new("b"));
    let issuer = IssuerServer::start(Answer::Set(set(&[&old]))).await;
    let server = issuer.server(None, SOON, DEADLINE).await;
    assert_eq!(publish_status(&server, &old.token()).await, 201);
    issuer.set(Answer::Huge);
    let response = server.post("t", &bearer(&new.token()), b"x").await;
    assert_eq!((response.status(), response.header("retry-after")), (503, Some("5")));
    let detail = response.rest().await;
    assert!(detail.contains("which cannot be asked for newer ones at present"), "{detail}");
    assert_eq!(publish_status(&server, &old.token()).await, 201);
    server.wait_for_metric(&refreshes("failed"), |count| count >= 1).await;
    // Some MiB are in the buffers of the sockets.
    let taken = issuer.taken.load(Ordering::Relaxed);
    assert!(taken < 20 << 20, "{taken}");
    issuer.set(Answer::Set(set(&[&old, &new])));
    wait_for_status(&server, &new.token(), 201).await;
}

#[tokio::test]
async fn a_new_key_of_an_issuer_that_has_become_slow_is_not_refused_for_good() {
    let (old, new) = (Signer::new("a"), Signer::new("b"));
    let issuer = IssuerServer::start(Answer::Set(set(&[&old]))).await;
    let server = issuer.server(None, SOON, Duration::from_millis(300)).await;
    wait_for_status(&server, &old.token(), 201).await;
    issuer.set(Answer::Silent);
    let response = server.post("t", &bearer(&new.token()), b"x").await;
    assert_eq!((response.status(), response.header("retry-after")), (503, Some("5")));
    assert_eq!(publish_status(&server, &old.token()).await, 201);
}

#[tokio::test]
async fn a_silent_issuer_delays_only_tokens_of_unknown_keys() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::new("a");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "an example of a secret, 32 bytes").unwrap();
    let issuer = IssuerServer::start(Answer::Silent).await;
    let settings = IssuerSettings {
        jwks: vec![issuer.url().parse().unwrap()],
        secret_file: vec![secret],
        ..IssuerSettings::default()
    };
    let tokens = TokenVerifier::open(&[settings], None).unwrap();
    let patience = Duration::from_millis(300);
    let (server, _) = serve_with(tokens.with_refresh_times(NEVER, patience)).await;
    let begin = Instant::now();
    let unknown = async {
        let status = publish_status(&server, &signer.token()).await;
        (status, begin.elapsed() >= patience)
    };
    let others = async {
        let known = crate::tokens::token(json!({"publish": ["t"]}));
        let known = publish_status(&server, &known).await;
        let local = server.post("t", "", b"x").await.status();
        let local_with_token =
            format!("Host: localhost\r\nAuthorization: Bearer {}\r\n", signer.token());
        let local_with_token = server.post("t", &local_with_token, b"x").await.status();
        (known, local, local_with_token, begin.elapsed() < patience)
    };
    let (unknown, others) = tokio::join!(unknown, others);
    assert_eq!(unknown, (503, true));
    assert_eq!(others, (201, 201, 201, true), "others do not wait");
}

#[tokio::test]
async fn random_key_names_cause_no_flood_of_requests() {
    let signer = Signer::new("a");
    let issuer = IssuerServer::start(Answer::Set(set(&[&signer]))).await;
    let server = issuer.server(None, NEVER, Duration::from_millis(50)).await;
    assert_eq!(publish_status(&server, &signer.token()).await, 201);
    assert_eq!(issuer.requests(), 1);
    let attack = async {
        for round in 0..20 {
            let strangers = (0..20).map(|number| Signer::new(&format!("{round}-{number}")));
            let statuses = join_all(strangers.map(async |stranger| {
                server.get_with_token(&stranger.token(), "/poll").await.status()
            }));
            // Not final, since the issuer has not been asked for these keys.
            assert_eq!(statuses.await, [503; 20]);
        }
    };
    let client = async {
        for _ in 0..20 {
            assert_eq!(publish_status(&server, &signer.token()).await, 201);
        }
    };
    tokio::join!(attack, client);
    assert_eq!(issuer.requests(), 1, "the next request is allowed later");
}

#[tokio::test]
async fn a_key_that_the_newest_set_lacks_is_asked_for_once() {
    let signer = Signer::new("a");
    let issuer = IssuerServer::start(Answer::Set(set(&[&signer]))).await;
    let server = issuer.server(None, SOON, DEADLINE).await;
    assert_eq!(publish_status(&server, &signer.token()).await, 201);
    let removed = Signer::new("old").token();
    assert_eq!(publish_status(&server, &removed).await, 401);
    let requests = issuer.requests();
    for _ in 0..20 {
        let response = server.post("t", &bearer(&removed), b"x").await;
        assert_eq!(response.status(), 401);
        let detail = response.rest().await;
        assert!(detail.contains("its `kid` \\\"old\\\" is not the name of a key"), "{detail}");
    }
    assert_eq!(issuer.requests(), requests);
}

#[tokio::test]
async fn the_last_good_set_outlives_a_restart_while_the_issuer_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("data");
    let (old, new) = (Signer::new("a"), Signer::new("b"));
    let issuer = IssuerServer::start(Answer::Set(set(&[&old]))).await;
    let url = issuer.url();
    let server = issuer.server(Some(&cache), SOON, DEADLINE).await;
    assert_eq!(publish_status(&server, &old.token()).await, 201);
    let is_stored = || {
        let mut files = std::fs::read_dir(&cache).into_iter().flatten();
        files.any(|file| file.unwrap().path().extension().is_some_and(|is| is == "json"))
    };
    let stored = async {
        while !is_stored() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, stored).await.expect("the copy of the set");
    drop((server, issuer));

    let settings = IssuerSettings { jwks: vec![url.parse().unwrap()], ..IssuerSettings::default() };
    let tokens = TokenVerifier::open(std::slice::from_ref(&settings), Some(&cache)).unwrap();
    let (server, _) = serve_with(tokens.with_refresh_times(NEVER, DEADLINE)).await;
    assert_eq!(publish_status(&server, &old.token()).await, 201);
    assert_eq!(publish_status(&server, &new.token()).await, 503);
    server.wait_for_metric(&refreshes("failed"), |count| count == 1).await;
    assert_eq!(server.metric(&refreshes("ok")).await, 0);

    // A damaged copy counts as none, and the server starts.
    for file in std::fs::read_dir(&cache).unwrap() {
        std::fs::write(file.unwrap().path(), "{\"keys\":[").unwrap();
    }
    let tokens = TokenVerifier::open(&[settings], Some(&cache)).unwrap();
    let (server, _) = serve_with(tokens.with_refresh_times(NEVER, DEADLINE)).await;
    assert_eq!(publish_status(&server, &old.token()).await, 503);
    assert_eq!(server.post("t", REMOTE, b"x").await.status(), 401);
    assert_eq!(server.post("t", "", b"x").await.status(), 201);
}

#[tokio::test]
async fn a_redirect_is_followed_on_the_same_host_only() {
    let signer = Signer::new("a");
    let other = IssuerServer::start(Answer::Set(set(&[&signer]))).await;
    let issuer = IssuerServer::start(Answer::Redirect(other.url())).await;
    let server = issuer.server(None, NEVER, DEADLINE).await;
    assert_eq!(publish_status(&server, &signer.token()).await, 503);
    assert_eq!(other.requests(), 0);
    let issuer = IssuerServer::start(Answer::Redirect("/keys".to_owned())).await;
    let server = issuer.server(None, NEVER, DEADLINE).await;
    assert_eq!(publish_status(&server, &signer.token()).await, 503);
    assert_eq!(issuer.requests(), 4, "three redirects");
}

#[tokio::test]
async fn a_reload_while_the_issuer_is_away_loses_no_key_and_fetches_nothing() {
    let signer = Signer::new("a");
    let issuer = IssuerServer::start(Answer::Set(set(&[&signer]))).await;
    let of_issuer =
        IssuerSettings { jwks: vec![issuer.url().parse().unwrap()], ..IssuerSettings::default() };
    let open = |settings: &[IssuerSettings]| {
        let tokens = TokenVerifier::open(settings, None).unwrap();
        tokens.with_refresh_times(NEVER, DEADLINE)
    };
    let tokens = Arc::new(open(std::slice::from_ref(&of_issuer)));
    tokens.start();
    let access = Access { tokens: Some(Arc::clone(&tokens)), ..Access::default() };
    let settings = Settings { access, is_reloadable: true, ..Settings::default() };
    let server = Server::start_with(settings).await;
    assert_eq!(publish_status(&server, &signer.token()).await, 201);
    let mut stream = server.get_with_token(&signer.token(), "/events?topic=t").await;
    assert_eq!(stream.message().await.name, "hello");
    let (requests, old) = (issuer.requests(), Arc::downgrade(&tokens));
    assert_eq!(requests, 1);
    drop((issuer, tokens));

    // With another issuer in front of it.
    let named = IssuerSettings { issuer: Some("other".to_owned()), ..of_issuer.clone() };
    let tokens = Some(Arc::new(server.reload.continue_tokens(open(&[named, of_issuer]))));
    let limits = StreamLimits { total: 9, per_address: 9 };
    server.reload.apply(Access { tokens, ..Access::default() }, limits);
    assert!(old.upgrade().is_none(), "the tasks of the old one end");
    assert_eq!(publish_status(&server, &signer.token()).await, 201);
    while stream.message().await.data != "x" {}
    assert_eq!(server.streams.count(), 1);
    assert_eq!(server.metric(&refreshes("ok")).await, 1);
    assert_eq!(server.metric(&refreshes("failed")).await, 0);
}

#[tokio::test]
async fn a_local_request_waits_for_keys_if_a_rule_is_for_tokens() {
    let signer = Signer::new("a");
    let issuer = IssuerServer::start(Answer::Set(set(&[&signer]))).await;
    let settings =
        IssuerSettings { jwks: vec![issuer.url().parse().unwrap()], ..IssuerSettings::default() };
    let tokens = TokenVerifier::open(&[settings], None).unwrap();
    let tokens = Arc::new(tokens.with_refresh_times(SOON, DEADLINE));
    tokens.start();
    let access = Access { tokens: Some(tokens), ..reload::rule(Audience::Token) };
    let server = Server::with_access(access).await;
    let local = format!("Authorization: Bearer {}\r\n", signer.token());
    assert_eq!(server.post("t", &local, b"x").await.status(), 201);
}
