//! The options of certificates by ACME.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::net::tls::acme::{AcmeName, AcmePace, AcmeSettings};

/// The directory of Let's Encrypt.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Its directory for trials, whose certificates no client trusts.
const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";
/// The folder within the data folder.
const FOLDER: &str = "acme";
/// Maximum number of names in one certificate of Let's Encrypt.
const MAX_NAMES: usize = 100;

/// The options of certificates by ACME.
#[derive(Args, Debug)]
#[expect(clippy::struct_field_names, reason = "they have the names of the options")]
pub struct AcmeOptions {
    /// A name of this server, such as live.example.org: serve https with a certificate that the
    /// server gets from Let's Encrypt and renews by itself. Port 443 of that name must lead to
    /// `--listen`. With this option you accept the authority's terms of service. May be repeated
    #[arg(
        long,
        env = "WATERCLOCK_ACME_DOMAIN",
        value_name = "NAME",
        value_delimiter = ',',
        conflicts_with_all = ["tls_cert", "tls_key", "tls_self_signed"]
    )]
    acme_domain: Vec<AcmeName>,

    /// Address to which the authority may send messages
    #[arg(long, env = "WATERCLOCK_ACME_EMAIL", value_name = "ADDRESS", requires = "acme_domain", value_parser = email)]
    acme_email: Option<String>,

    /// Directory of another authority than Let's Encrypt
    #[arg(
        long,
        env = "WATERCLOCK_ACME_DIRECTORY",
        value_name = "URL",
        requires = "acme_domain",
        value_parser = directory
    )]
    acme_directory: Option<String>,

    /// Use the staging directory of Let's Encrypt, for trials: it has higher limits, and clients do
    /// not trust its certificates
    #[arg(
        long,
        env = "WATERCLOCK_ACME_STAGING",
        requires = "acme_domain",
        conflicts_with = "acme_directory"
    )]
    acme_staging: bool,

    /// File with the root certificates, in PEM, by which the authority itself is trusted
    /// [default: those of the system]
    #[arg(long, env = "WATERCLOCK_ACME_CA", value_name = "FILE", requires = "acme_domain")]
    acme_ca: Option<PathBuf>,
}

impl AcmeOptions {
    /// The settings, if certificates by ACME are wanted.
    ///
    /// # Errors
    ///
    /// If there are too many names.
    pub fn settings(&self, data: &Path) -> Result<Option<AcmeSettings>, String> {
        let names = self.acme_domain.clone();
        if names.len() > MAX_NAMES {
            return Err(format!("--acme-domain: a certificate has at most {MAX_NAMES} names"));
        }
        let default = if self.acme_staging { LETS_ENCRYPT_STAGING } else { LETS_ENCRYPT };
        Ok((!names.is_empty()).then(|| AcmeSettings {
            names,
            email: self.acme_email.clone(),
            directory: self.acme_directory.clone().unwrap_or_else(|| default.to_owned()),
            roots: self.acme_ca.clone(),
            folder: data.join(FOLDER),
            pace: AcmePace::default(),
        }))
    }
}

fn directory(text: &str) -> Result<String, &'static str> {
    let url = text.parse::<reqwest::Url>().ok();
    let url = url.filter(|url| url.scheme() == "https" && url.username().is_empty());
    url.map(String::from).ok_or("expected a URL, such as https://authority.example/directory")
}

fn email(text: &str) -> Result<String, &'static str> {
    let is_address = text.split_once('@').is_some_and(|(user, host)| {
        let is_part = |part: &str| !part.is_empty() && !part.contains([' ', ',', '?', '@', ':']);
        is_part(user) && is_part(host)
    });
    is_address.then(|| text.to_owned()).ok_or("expected an address, such as admin@example.org")
}
