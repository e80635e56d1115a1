//! The program with a configuration file: its check, and its reload at SIGHUP.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use jsonwebtoken::{EncodingKey, Header};
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines},
    net::TcpStream,
    process::ChildStderr,
    time::timeout,
};

use super::{DEADLINE, Program, SocketAddr, request, rest, run_to_end};

const OLD_SECRET: &str = "an old secret of at least 32 bytes";
const NEW_SECRET: &str = "a new secret of at least 32 bytes!";
/// Number of streams that a reload must not cut.
const STREAMS: usize = 1000;

/// A program with a configuration file.
struct Configured {
    program: Program,
    address: SocketAddr,
    messages: Lines<BufReader<ChildStderr>>,
    folder: TempDir,
}

impl Configured {
    async fn start(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("secret"), OLD_SECRET).unwrap();
        let file = write_config(folder.path(), config);
        let file = file.display().to_string();
        let options = ["--listen=127.0.0.1:0", "--store=memory", "--config", &file];
        let mut program = Program::start_with_level("server::reload=info,off", &options);
        let address = program.address().await;
        let messages = BufReader::new(program.child.stderr.take().unwrap()).lines();
        Self { program, address, messages, folder }
    }

    /// Changes the file, and reloads it. Returns the messages up to the result.
    async fn reload(&mut self, config: &str) -> String {
        write_config(self.folder.path(), config);
        self.program.signal("-HUP").await;
        let mut messages = String::new();
        while !messages.contains("the configuration was") {
            let line = timeout(DEADLINE, self.messages.next_line()).await.expect("a message");
            messages += &(line.unwrap().expect("the program runs") + "\n");
        }
        messages
    }

    /// Opens a stream of a client behind a proxy.
    async fn open(&self, topic: &str, headers: &str) -> OpenStream {
        let head = format!("GET /events?topic={topic} HTTP/1.1\r\nHost: localhost\r\nVia: x\r\n");
        let stream = request(self.address, &format!("{head}{headers}\r\n")).await;
        OpenStream { stream, read: String::new() }
    }

    async fn publish(&self, topic: &str, data: &str, headers: &str) -> String {
        publish(self.address, topic, data, headers).await
    }
}

async fn publish(address: SocketAddr, topic: &str, data: &str, headers: &str) -> String {
    let length = data.len();
    let head =
        format!("POST /events/{topic} HTTP/1.0\r\nContent-Length: {length}\r\n{headers}\r\n");
    rest(request(address, &format!("{head}{data}")).await).await
}

/// Writes the file of a configuration with the key in the same folder.
fn write_config(folder: &Path, config: &str) -> PathBuf {
    let file = folder.join("c.toml");
    let secret = folder.join("secret");
    fs::write(&file, format!("jwt-secret-file = '{}'\n{config}", secret.display())).unwrap();
    file
}

fn token(secret: &str) -> String {
    let claims = json!({"exp": 9_999_999_999_u64, "subscribe": [">"], "publish": [">"]});
    let key = EncodingKey::from_secret(secret.as_bytes());
    let token = jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap();
    format!("Authorization: Bearer {token}\r\n")
}

struct OpenStream {
    stream: TcpStream,
    read: String,
}

impl OpenStream {
    /// Reads until a text has arrived. Panics at the end of the stream.
    async fn read_until(&mut self, text: &str) {
        while !self.read.contains(text) {
            let mut part = [0; 2048];
            let read = timeout(DEADLINE, self.stream.read(&mut part)).await;
            let count = read.unwrap_or_else(|_| panic!("{text}: {}", self.read)).unwrap();
            assert!(count > 0, "ended before {text}: {}", self.read);
            self.read += str::from_utf8(&part[..count]).unwrap();
        }
    }
}

#[tokio::test]
async fn a_reload_cuts_only_the_streams_that_lose_their_permission() {
    let limits = "max-streams-per-address = 3000\nmax-publishes = 1000000\n";
    let mut server =
        Configured::start(&format!("{limits}public-topic = ['p.>']\ninterval = '1s'\n")).await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(server.open("p.a", "").await);
    }
    let mut of_old_key = server.open("secret", &token(OLD_SECRET)).await;
    for stream in streams.iter_mut().chain([&mut of_old_key]) {
        stream.read_until("event: hello").await;
    }

    // Rules take the place of the option, and the key is another one. Publishes go on meanwhile.
    let (is_over, address) = (Arc::new(AtomicBool::new(false)), server.address);
    let load = tokio::spawn({
        let is_over = Arc::clone(&is_over);
        async move {
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) {
                let answer = publish(address, "other", "x", "").await;
                assert!(answer.starts_with("HTTP/1.0 201"), "{answer}");
                count += 1;
            }
            count
        }
    });
    fs::write(server.folder.path().join("secret"), NEW_SECRET).unwrap();
    let rules =
        "[[rule]]\ntopics = 'p.>'\nread = 'anyone'\npublish = 'anyone'\nmax-event-size = 9\n";
    let messages = server.reload(&format!("{limits}interval = '2s'\n{rules}")).await;
    assert!(messages.contains("the change of this option counts at the next start"), "{messages}");
    assert!(messages.contains("option=\"interval\"") && !messages.contains("public-topic"));
    assert!(messages.contains("the configuration was reloaded"), "{messages}");
    of_old_key.read_until("event: goodbye\ndata: {\"reason\":\"expired\"").await;
    let mut of_new_key = server.open("secret", &token(NEW_SECRET)).await;
    of_new_key.read_until("event: hello").await;
    let by_anyone = server.publish("p.a", "first", "Via: x\r\n").await;
    assert!(by_anyone.starts_with("HTTP/1.0 201"), "{by_anyone}");
    let too_long = server.publish("p.a", "ten bytes!", "").await;
    assert!(too_long.starts_with("HTTP/1.0 413"), "{too_long}");
    for stream in &mut streams {
        stream.read_until("data: first").await;
    }

    // A file with an error changes nothing.
    let wrong = format!("{limits}require-token = true\n[[rule]]\ntopics = 'p.>'\nread = 'me'\n");
    let messages = server.reload(&wrong).await;
    assert!(messages.contains("c.toml:7: read: expected anyone, local,"), "{messages}");
    assert!(messages.contains("was not reloaded, nothing has changed"), "{messages}");
    server.publish("p.a", "second", "").await;
    for stream in &mut streams {
        stream.read_until("data: second").await;
    }

    // Without the rule, nobody elsewhere may read.
    server.reload(limits).await;
    for stream in &mut streams {
        stream.read_until("event: goodbye\ndata: {\"reason\":\"expired\"").await;
    }
    server.open("p.a", "").await.read_until("HTTP/1.1 401").await;
    of_new_key.read_until("event: hello").await;
    server.publish("secret", "third", "").await;
    of_new_key.read_until("data: third").await;
    is_over.store(true, Ordering::Relaxed);
    assert!(load.await.unwrap() > 0);
}

#[tokio::test]
async fn a_reload_reaches_websockets_uploads_and_views() {
    let rule = "[[rule]]\ntopics = 't'\nread = 'anyone'\npublish = 'anyone'\n";
    let mut server = Configured::start(rule).await;
    let upload = "POST /events/t?split=lines HTTP/1.1\r\nHost: localhost\r\nVia: x\r\n\
                  Transfer-Encoding: chunked\r\n\r\n6\r\nfirst\n\r\n";
    let upload = request(server.address, upload).await;
    let mut reader = server.open("t", "").await;
    let view = "GET /topics/t HTTP/1.1\r\nHost: localhost\r\nVia: x\r\n\
                Accept: text/event-stream\r\n\r\n";
    let view = request(server.address, view).await;
    let mut view = OpenStream { stream: view, read: String::new() };
    view.read_until("event: hello").await;
    reader.read_until("event: hello").await;
    let messages =
        server.reload("[[rule]]\ntopics = 't'\nread = 'nobody'\npublish = 'nobody'\n").await;
    assert!(messages.contains("the configuration was reloaded"), "{messages}");
    view.read_until("\"reason\":\"expired\"").await;
    reader.read_until("\"reason\":\"expired\"").await;
    let mut upload = OpenStream { stream: upload, read: String::new() };
    upload.read_until("taken away during the upload").await;
    let local = server.publish("t", "x", "").await;
    assert!(local.contains("Nobody may publish to `t`, by a rule"), "{local}");
}

#[tokio::test]
async fn a_check_reports_all_problems_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.toml");
    let path = file.display().to_string();
    let check = async |config: &str, variables: &[(&str, &str)]| {
        fs::write(&file, config).unwrap();
        let (code, errors) = run_to_end(&["check", "--config", &path], variables).await;
        (code, errors.replace(&format!("{}/", folder.path().display()), ""))
    };
    let (code, errors) = check("store = 'memory'\n", &[]).await;
    assert_eq!((code, &*errors), (0, ""));
    let config = "retain-age = '0s'\njwt-secret-file = '/nowhere/secret'\ntls-cert = \
                  '/nowhere/c'\ntls-key = '/nowhere/k'\ndata-dir = '/proc/none'\n";
    let (code, errors) = check(config, &[("WATERCLOCK_DRAIN", "soon")]).await;
    assert_eq!(code, 2);
    assert!(errors.starts_with("WATERCLOCK_DRAIN: expected a time from 5ms"), "{errors}");
    assert!(errors.contains("\nc.toml:1: retain-age: expected a time"), "{errors}");
    // Files are looked at once all values are valid.
    let (code, errors) = check(config.split_once('\n').unwrap().1, &[]).await;
    assert_eq!(code, 2);
    for start in ["c.toml:1: /nowhere/secret", "c.toml:2: /nowhere/c cannot be used"] {
        assert!(errors.lines().any(|line| line.starts_with(start)), "{start}: {errors}");
    }
    // Each option has its own line, also if the one before it is valid.
    fs::write(folder.path().join("secret"), "an example of a secret, 32 bytes").unwrap();
    let secret = folder.path().join("secret").display().to_string();
    for (config, variables, start) in [
        (
            format!("jwt-secret-file = '{secret}'\njwt-public-key-file = '/nowhere/public'\n"),
            &[][..],
            "c.toml:2: /nowhere/public",
        ),
        (
            "store = 'memory'\ncluster = 'nats://127.0.0.1'\ncluster-unsafe-sync = true\n"
                .to_owned(),
            &[],
            "c.toml:1: store: a node of a cluster keeps its events in a file",
        ),
        ("acme-domain = 'a.example'\nacme-ca = '/nowhere/ca'\n".to_owned(), &[], "c.toml:2: "),
        (
            "store = 'memory'\n".to_owned(),
            &[("WATERCLOCK_REQUIRE_TOKEN", "1")],
            "WATERCLOCK_REQUIRE_TOKEN: expected true or false",
        ),
    ] {
        let (code, errors) = check(&config, variables).await;
        assert!(code == 2 && errors.starts_with(start) && errors.lines().count() == 1, "{errors}");
    }
    let (_, errors) = check(config.split_once('\n').unwrap().1, &[]).await;
    // A start makes the same checks.
    let (code, of_start) = run_to_end(&["--config", &path], &[]).await;
    let of_start = of_start.replace(&format!("{}/", folder.path().display()), "");
    assert_eq!((code, of_start), (2, errors));
    // A folder that cannot be written, unless this user may write everything.
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(closed.join("probe"), "").is_err() {
        let (code, errors) = check(&format!("data-dir = '{}/d'\n", closed.display()), &[]).await;
        assert_eq!(code, 2);
        assert!(errors.starts_with("c.toml:1: data-dir: the data folder cannot be"), "{errors}");
    }
    let (code, errors) = check(&format!("\ndata-dir = '{path}/d'\n"), &[]).await;
    assert_eq!((code, &*errors), (2, "c.toml:2: data-dir: c.toml is no folder\n"));
    let (code, errors) =
        check("store = 'memory'\n[[rule]]\ntopics = 'a'\nread = 'token'", &[]).await;
    assert_eq!(code, 2);
    assert!(errors.starts_with("c.toml:2: rule: read = \"token\" needs a key"), "{errors}");
}

/// Publishes to a topic until so many of its events are kept. The others are dropped some time
/// after they exceed the bound.
async fn wait_for_kept(server: &Configured, topic: &str, count: usize) {
    let poll = format!("GET /poll?topic={topic}&last_event_id=earliest HTTP/1.0\r\n\r\n");
    let reached = async {
        loop {
            let published = server.publish(topic, "x", "").await;
            assert!(published.starts_with("HTTP/1.0 201"), "{published}");
            let answer = rest(request(server.address, &poll).await).await;
            if answer.matches("\"data\":\"x\"").count() == count {
                return;
            }
        }
    };
    timeout(DEADLINE, reached).await.unwrap_or_else(|_| panic!("{topic}: {count}"));
}

#[tokio::test]
async fn a_reload_changes_what_is_kept_of_the_topics() {
    let mut server = Configured::start("retain-count = 6\n").await;
    wait_for_kept(&server, "t", 6).await;
    wait_for_kept(&server, "u", 6).await;
    let rule = "[[rule]]\ntopics = 't'\nretain-count = 2\n";
    // An error elsewhere changes nothing.
    let messages = server.reload(&format!("retain-count = 4\nmax-streams = -1\n{rule}")).await;
    assert!(messages.contains("was not reloaded, nothing has changed"), "{messages}");
    wait_for_kept(&server, "t", 6).await;
    let messages = server.reload(&format!("retain-count = 4\nmax-topics = 1\n{rule}")).await;
    assert!(messages.contains("was reloaded") && !messages.contains("next start"), "{messages}");
    wait_for_kept(&server, "t", 2).await;
    wait_for_kept(&server, "u", 4).await;
    let refused = server.publish("third", "x", "").await;
    assert!(refused.starts_with("HTTP/1.0 507"), "{refused}");
    server.reload("retain-count = 8\n").await;
    wait_for_kept(&server, "t", 8).await;
    wait_for_kept(&server, "third", 8).await;
}

#[tokio::test]
async fn a_reload_adds_and_removes_an_issuer() {
    let mut server = Configured::start("").await;
    let file = server.folder.path().join("shop");
    fs::write(&file, NEW_SECRET).unwrap();
    let claims = json!({"exp": 9_999_999_999_u64, "iss": "shop", "publish": [">"]});
    let key = EncodingKey::from_secret(NEW_SECRET.as_bytes());
    let token = jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap();
    let headers = format!("Via: x\r\nAuthorization: Bearer {token}\r\n");
    let issuer = format!(
        "[[issuer]]\nissuer = 'shop'\nsecret-file = '{}'\npublish = 'shop.>'\n",
        file.display()
    );
    for (config, of_shop, of_others) in [("", 401, 401), (&*issuer, 201, 403), ("", 401, 401)] {
        let messages = server.reload(config).await;
        assert!(messages.contains("the configuration was reloaded"), "{messages}");
        for (topic, status) in [("shop.a", of_shop), ("other", of_others)] {
            let answer = server.publish(topic, "x", &headers).await;
            assert!(answer.starts_with(&format!("HTTP/1.0 {status}")), "{config}: {answer}");
        }
        let by_option = format!("Via: x\r\n{}", self::token(OLD_SECRET));
        let by_option = server.publish("t", "x", &by_option).await;
        assert!(by_option.starts_with("HTTP/1.0 201"), "{by_option}");
    }
    let messages = server.reload("[[issuer]]\nissuer = 'shop'\nsecret-file = '/nowhere/s'\n").await;
    assert!(messages.contains("c.toml:2: issuer: /nowhere/s cannot be read"), "{messages}");
}

#[tokio::test]
async fn a_certificate_that_expires_within_a_day_gets_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let (pem, config) = (folder.path().join("both.pem"), folder.path().join("c.toml"));
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_hours(720)).into();
    params.not_after = (now + Duration::from_hours(6)).into();
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    fs::write(&pem, certificate.pem() + &key.serialize_pem()).unwrap();
    let file = pem.display();
    fs::write(&config, format!("tls-cert = '{file}'\ntls-key = '{file}'\n")).unwrap();
    let path = config.display().to_string();

    let (code, errors) = run_to_end(&["check", "--config", &path], &[]).await;
    assert_eq!((code, errors.lines().count()), (0, 1), "{errors}");
    let expected = format!("c.toml:1: warning: {file}: the certificate expires at 2");
    assert!(errors.contains(&expected), "{errors}");

    let options = ["--listen=127.0.0.1:0", "--store=memory", "--config", &path];
    let mut program = Program::start_with_level("warn", &options);
    assert!(program.line().await.starts_with("listening on https://"));
    program.signal("-TERM").await;
    let (code, errors) = program.end().await;
    assert_eq!((code, errors.lines().count()), (0, 1), "{errors}");
    assert!(errors.contains("the certificate expires at 2"), "{errors}");
}
