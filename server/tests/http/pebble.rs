//! Pebble, a real ACME server for tests, and the DNS that it asks.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener as StdListener},
    path::{Path, PathBuf},
    process::Stdio,
};

use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    process::{Child, Command},
    task::JoinHandle,
};
use tokio_rustls::rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// A name that Pebble refuses to issue for.
pub const BLOCKED: &str = "blocked.test";
/// A name that the DNS does not know.
pub const MISSING: &str = "missing.test";

/// A running Pebble, which validates names at a port of this machine.
pub struct Pebble {
    child: Child,
    dns: JoinHandle<()>,
    pub directory: String,
    /// The file with the certificate of Pebble's own server.
    pub roots: PathBuf,
    management: SocketAddr,
    _folder: TempDir,
}

impl Drop for Pebble {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.start_kill();
        self.dns.abort();
    }
}

/// Returns an address that nothing uses.
pub fn free_address() -> SocketAddr {
    StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Pebble {
    /// Starts Pebble at `address`, if it is there. It connects to `port` of each name, issues
    /// certificates for `validity` seconds, and rejects so many percent of all good nonces.
    pub async fn start(
        address: SocketAddr,
        port: u16,
        validity: u32,
        nonce_reject: u32,
    ) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let file = folder.path().join(name);
            std::fs::write(&file, text).unwrap();
            file
        };
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let roots = file("certificate.pem", &params.self_signed(&key).unwrap().pem());
        let management = free_address();
        let config = json!({"pebble": {
            "listenAddress": address.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": roots,
            "privateKey": file("key.pem", &key.serialize_pem()),
            "httpPort": 1,
            "tlsPort": port,
            "domainBlocklist": [BLOCKED],
            "retryAfter": {"authz": 0, "order": 0},
            "keyAlgorithm": "ecdsa",
            "profiles": {"default": {"description": "of a test", "validityPeriod": validity}},
        }});
        let config = file("config.json", &config.to_string());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut command = Command::new("pebble");
        command
            .args([Path::new("-config"), &config, Path::new("-strict"), Path::new("-dnsserver")])
            .arg(listener.local_addr().unwrap().to_string())
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_VA_ALWAYS_VALID", "0")
            .env("PEBBLE_AUTHZREUSE", "0")
            .env("PEBBLE_WFE_NONCEREJECT", nonce_reject.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                assert!(std::env::var_os("PEBBLE_REQUIRED").is_none(), "pebble: {error}");
                eprintln!("not tested: pebble is missing (scripts/setup.sh test installs it)");
                return None;
            }
        };
        let directory = format!("https://{address}/dir");
        let dns = tokio::spawn(answer_dns(listener));
        Some(Self { child, dns, directory, roots, management, _folder: folder })
    }

    /// Returns the root of the certificates that it issues, once it is up.
    pub async fn issuer(&self) -> RootCertStore {
        let own = std::fs::read(&self.roots).unwrap();
        let own = reqwest::Certificate::from_pem(&own).unwrap();
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([own]).build().unwrap();
        let url = format!("https://{}/roots/0", self.management);
        let root = loop {
            match client.get(&url).send().await {
                Ok(response) => break response.bytes().await.unwrap(),
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&root).unwrap()).unwrap();
        roots
    }
}

/// Answers that each name but one is this machine (RFC 1035, 4). Pebble asks over TCP.
async fn answer_dns(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            // Until Pebble closes the connection.
            while let Ok(length) = stream.read_u16().await {
                let mut query = vec![0; length.into()];
                stream.read_exact(&mut query).await.unwrap();
                let answer = dns_answer(&query);
                let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                stream.write_all(&[&length[..], &answer].concat()).await.unwrap();
            }
        });
    }
}

fn dns_answer(query: &[u8]) -> Vec<u8> {
    /// A response to a recursive query, without an error.
    const FLAGS: [u8; 2] = [0x81, 0x80];
    const TYPE_A: u8 = 1;
    // The question: the labels of the name, an empty one, type and class.
    let labels = query[12..].iter().position(|byte| *byte == 0).unwrap();
    let question = &query[12..12 + labels + 5];
    let (label, _) = MISSING.split_once('.').unwrap();
    let is_known = !question[1..].to_ascii_lowercase().starts_with(label.as_bytes());
    let has_answer = is_known && question[labels + 2] == TYPE_A;
    let mut answer = query[..2].to_vec();
    answer.extend(FLAGS);
    answer.extend([0, 1, 0, u8::from(has_answer), 0, 0, 0, 0]);
    answer.extend(question);
    if has_answer {
        // The name of the question, type, class, a minute, and four bytes of address.
        answer.extend([0xc0, 12, 0, TYPE_A, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(Ipv4Addr::LOCALHOST.octets());
    }
    answer
}
