//! The settings of the connection.

use std::{fs, path::PathBuf, time::Duration};

use crate::error::ConnectError;

/// The address of the servers, and the demands on them.
#[derive(Clone)]
pub struct NatsSettings {
    /// URLs of the servers: `nats://host:4222`, or `tls://host:4222`. The first one may contain a
    /// user and a password, or a token, for all of them: `nats://user:password@host:4222`.
    pub servers: Vec<String>,
    /// The name of the stream. It is created if it does not exist.
    pub stream: String,
    /// The number of servers that must keep each entry; 1, 3 or 5.
    pub replicas: usize,
    /// A file of credentials (`.creds`).
    pub credentials: Option<PathBuf>,
    /// A file of certificates in PEM to trust in place of those that the system trusts.
    pub ca: Option<PathBuf>,
    /// URLs of the servers' monitoring, such as `http://host:8222`.
    pub monitoring: Vec<String>,
    /// `true` to accept servers that write entries to the disk only from time to time.
    pub allow_unsafe_sync: bool,
    /// Time in which the connection must be made and the servers checked.
    pub timeout: Duration,
}

impl Default for NatsSettings {
    fn default() -> Self {
        Self {
            servers: vec!["nats://127.0.0.1:4222".to_owned()],
            stream: "waterclock".to_owned(),
            replicas: 3,
            credentials: None,
            ca: None,
            monitoring: Vec::new(),
            allow_unsafe_sync: false,
            timeout: Duration::from_secs(10),
        }
    }
}

impl NatsSettings {
    /// Returns the subject on which the parts of snapshots are published.
    pub(crate) fn snapshots(&self) -> String {
        format!("{}.snapshots", self.stream)
    }

    /// Returns the subject on which entries are published.
    pub(crate) fn subject(&self) -> String {
        format!("{}.entries", self.stream)
    }

    /// Returns the beginning of the subjects on which nodes ask each other for their readers. They
    /// are no part of the stream.
    pub(crate) fn readers(&self) -> String {
        format!("{}.readers", self.stream)
    }

    /// Reads the file of certificates, if there is one.
    pub(crate) fn read_ca(&self) -> Result<Option<Vec<u8>>, ConnectError> {
        let Some(path) = &self.ca else { return Ok(None) };
        let unusable = |reason| ConnectError::Certificates { path: path.clone(), reason };
        let pem = fs::read(path).map_err(|error| unusable(error.to_string()))?;
        if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
            return Err(unusable("it has none in PEM".to_owned()));
        }
        Ok(Some(pem))
    }

    /// Returns the URLs of the servers without a user.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.servers.iter().map(|url| split(url).1).collect()
    }

    /// Returns the user and the password, or the token, that the first URL contains.
    pub(crate) fn login(&self) -> Option<Login> {
        let login = split(self.servers.first()?).0?;
        Some(match login.split_once(':') {
            Some((user, password)) => Login::User(decode(user), decode(password)),
            None => Login::Token(decode(&login)),
        })
    }
}

/// The part of a URL that says who connects.
#[derive(Debug, PartialEq)]
pub(crate) enum Login {
    /// A user and a password.
    User(String, String),
    /// A token.
    Token(String),
}

/// Splits a URL into the part before `@`, and the URL without it.
fn split(url: &str) -> (Option<String>, String) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("nats", url));
    let (login, host) = match rest.rsplit_once('@') {
        Some((login, host)) => (Some(login.to_owned()), host),
        None => (None, rest),
    };
    (login, format!("{scheme}://{host}"))
}

/// Decodes the percent encoding of a part of a URL.
fn decode(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after.first_chunk::<2>().filter(|_| byte == b'%');
        let hex = hex.and_then(|hex| std::str::from_utf8(hex).ok());
        let (byte, after) = match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(decoded) => (decoded, &after[2..]),
            None => (byte, after),
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_may_say_who_connects() {
        let user = |user: &str, password: &str| Login::User(user.to_owned(), password.to_owned());
        for (url, address, login) in [
            ("nats://host:4222", "nats://host:4222", None),
            ("host", "nats://host", None),
            ("nats://a:b@host:4222", "nats://host:4222", Some(user("a", "b"))),
            ("tls://a:b%40c%2f@[::1]:4222", "tls://[::1]:4222", Some(user("a", "b@c/"))),
            ("nats://a:100%@host", "nats://host", Some(user("a", "100%"))),
            ("nats://secret@host", "nats://host", Some(Login::Token("secret".to_owned()))),
        ] {
            let settings =
                NatsSettings { servers: vec![url.to_owned()], ..NatsSettings::default() };
            assert_eq!(settings.addresses(), [address]);
            assert_eq!(settings.login(), login, "{url}");
        }
    }
}
