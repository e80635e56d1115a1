//! The server that a command calls, the token that it sends, and the certificates that it trusts.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use clap::Args;
use reqwest::{Certificate, Client, ClientBuilder, Url, header::HeaderValue};

use crate::ops::http_client::http_client;

/// Maximum size of a file with a token or certificates, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// The variable with the token.
const TOKEN: &str = "WATERCLOCK_TOKEN";

/// The options by which a command finds its server.
#[derive(Args, Clone, Debug)]
pub struct ServerArgs {
    /// URL of the server
    #[arg(
        long,
        env = "WATERCLOCK_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:3000",
        value_parser = server_url
    )]
    pub(crate) url: Url,

    /// The token, and the certificates to trust.
    #[command(flatten)]
    pub(crate) credentials: Credentials,
}

/// The options by which a client gets access.
#[derive(Args, Clone, Debug, Default)]
pub struct Credentials {
    /// File with the token to send. It is read again for each connection
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// File with certificates to trust, in PEM, such as data/self-signed.pem
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

/// A reason for which credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file cannot be read.
    #[error("{} cannot be read: {reason}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The system's reason.
        reason: io::Error,
    },
    /// The text is not a token.
    #[error("{0} is not a token: expected one line without spaces")]
    NotAToken(String),
    /// The file has no certificate.
    #[error("{} has no certificate in PEM", .0.display())]
    NoCertificate(PathBuf),
    /// The client cannot be made.
    #[error("the HTTP client cannot be set up: {0}")]
    Client(reqwest::Error),
}

impl ServerArgs {
    /// Returns the header `Authorization` for requests to a URL: with the token of the file, or
    /// else with that of the variable, which is only for the server that the options name.
    pub(crate) fn authorization(&self, url: &Url) -> Result<Option<HeaderValue>, CredentialsError> {
        let token = env::var(TOKEN).ok().filter(|token| !token.is_empty());
        let is_for_it = url.origin() == self.url.origin();
        self.credentials.authorization(token.as_deref().filter(|_| is_for_it))
    }
}

impl Credentials {
    /// Returns the header `Authorization` with the token of the file, or else with `token`.
    fn authorization(&self, token: Option<&str>) -> Result<Option<HeaderValue>, CredentialsError> {
        match (&self.token_file, token) {
            (Some(file), _) => {
                let token = String::from_utf8(read(file)?).unwrap_or_default();
                bearer(&token, || file.display().to_string()).map(Some)
            }
            (None, Some(token)) => bearer(token, || TOKEN.to_owned()).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// Makes a client that trusts the certificates of the file, and those of the system.
    pub(crate) fn client(
        &self,
        options: impl Fn() -> ClientBuilder,
    ) -> Result<Client, CredentialsError> {
        http_client(options, &self.certificates()?).map_err(CredentialsError::Client)
    }

    fn certificates(&self) -> Result<Vec<Certificate>, CredentialsError> {
        let Some(file) = &self.ca_file else { return Ok(Vec::new()) };
        let certificates = Certificate::from_pem_bundle(&read(file)?).unwrap_or_default();
        if certificates.is_empty() {
            return Err(CredentialsError::NoCertificate(file.clone()));
        }
        Ok(certificates)
    }
}

/// Parses the URL of a server.
pub(crate) fn server_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    url.filter(Url::has_host)
        .ok_or("expected a URL such as https://clock.example/ or http://127.0.0.1:3000")
}

fn read(file: &Path) -> Result<Vec<u8>, CredentialsError> {
    let read = || {
        // The size of a pipe is 0.
        if fs::metadata(file)?.len() > MAX_FILE {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        fs::read(file)
    };
    read().map_err(|reason| CredentialsError::Unreadable { file: file.to_owned(), reason })
}

fn bearer(token: &str, name: impl Fn() -> String) -> Result<HeaderValue, CredentialsError> {
    let token = token.trim();
    let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    let value = is_token.then(|| HeaderValue::from_str(&format!("Bearer {token}")).ok()).flatten();
    let mut value = value.ok_or_else(|| CredentialsError::NotAToken(name()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let credentials = Credentials { token_file: Some(file.clone()), ca_file: None };
        assert!(credentials.authorization(Some("a")).is_err(), "there is no such file");
        for (text, expected) in [("a.b.c\n", Some("Bearer a.b.c")), ("", None), ("a b", None)] {
            fs::write(&file, text).unwrap();
            let header = credentials.authorization(Some("other"));
            let header = header.ok().flatten();
            assert_eq!(
                header.as_ref().map(|header| header.to_str().unwrap()),
                expected,
                "{text:?}"
            );
            assert!(header.is_none_or(|header| header.is_sensitive()));
        }
        let by_environment = Credentials::default().authorization(Some("t")).unwrap().unwrap();
        assert_eq!(by_environment, "Bearer t");
        assert!(Credentials::default().authorization(None).unwrap().is_none());
    }

    #[test]
    fn a_file_without_certificates_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        fs::write(&file, "-----BEGIN NOTHING-----").unwrap();
        let credentials = Credentials { token_file: None, ca_file: Some(file) };
        let error = credentials.client(Client::builder).unwrap_err().to_string();
        assert!(error.ends_with("ca.pem has no certificate in PEM"), "{error}");
    }
}
