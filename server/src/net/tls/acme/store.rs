//! The account and the certificate on disk, so that a restart asks the authority for nothing.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{SHA256, digest};
use instant_acme::AccountCredentials;
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::sign::CertifiedKey;

use super::super::files::CertificateFiles;
use crate::ops::files::write_private;

/// File name of the certificate and its key.
const CERTIFICATE: &str = "certificate.pem";

/// The folder of the account and the certificate. Its functions block.
#[derive(Clone, Debug)]
pub(super) struct AcmeStore {
    /// The certificate, its issuers and its key, in PEM.
    certificate: PathBuf,
    account: PathBuf,
    /// The first line of the certificate's file, a comment (RFC 7468, 2) that tells the names and
    /// the authority.
    head: String,
}

/// An account with an authority.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredAccount {
    pub(super) email: Option<String>,
    pub(super) credentials: AccountCredentials,
}

impl AcmeStore {
    pub(super) fn new(folder: &Path, names: &[String], directory: &str) -> Self {
        let head =
            format!("The certificate of Waterclock for {}, by {directory}\n", names.join(", "));
        // Each authority has a file of its own, so that a trial of another one loses nothing.
        let authority = digest(&SHA256, directory.as_bytes());
        let bytes = authority.as_ref().iter().take(4).map(|byte| format!("{byte:02x}"));
        let authority = bytes.collect::<Vec<_>>().concat();
        Self {
            certificate: folder.join(CERTIFICATE),
            account: folder.join(format!("account-{authority}.json")),
            head,
        }
    }

    /// The file of the certificate and its key.
    pub(super) fn file(&self) -> &Path {
        &self.certificate
    }

    /// Returns `true` if the stored certificate is of this authority, and for exactly these names.
    pub(super) fn is_for_these_names(&self) -> bool {
        fs::read(&self.certificate).is_ok_and(|text| text.starts_with(self.head.as_bytes()))
    }

    /// The stored certificate. A file that cannot be used is reported.
    pub(super) fn certificate(&self) -> Option<CertifiedKey> {
        if !self.certificate.exists() {
            return None;
        }
        CertificateFiles::new(&self.certificate, &self.certificate)
            .read()
            .inspect_err(|error| tracing::warn!("a new certificate will be ordered: {error}"))
            .ok()
    }

    /// The text that [`save_certificate`](Self::save_certificate) writes.
    pub(super) fn certificate_text(&self, chain: &str, key: &str) -> String {
        format!("{}{key}{chain}", self.head)
    }

    pub(super) fn save_certificate(&self, text: &str) -> io::Result<()> {
        write_private(&self.certificate, text.as_bytes())
    }

    /// The stored account with this authority. A file that cannot be used is reported.
    pub(super) fn account(&self) -> Option<StoredAccount> {
        let text = match fs::read_to_string(&self.account) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            text => text,
        };
        let account = text.and_then(|text| Ok(serde_json::from_str(&text)?));
        let file = self.account.display();
        account
            .inspect_err(|error| {
                tracing::warn!("a new account will be registered: {file} cannot be used: {error}");
            })
            .ok()
    }

    pub(super) fn save_account(&self, account: &StoredAccount) -> io::Result<()> {
        write_private(&self.account, serde_json::to_string(account)?.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    const DIRECTORY: &str = "https://authority.test/directory";

    fn store(folder: &Path, names: &[&str], directory: &str) -> AcmeStore {
        AcmeStore::new(
            folder,
            &names.iter().map(ToString::to_string).collect::<Vec<_>>(),
            directory,
        )
    }

    #[test]
    fn a_certificate_is_kept_for_its_names_and_its_authority() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("acme");
        let first = store(&folder, &["a.test", "b.test"], DIRECTORY);
        assert!(first.certificate().is_none() && !first.is_for_these_names());
        let key = KeyPair::generate().unwrap();
        let chain = CertificateParams::default().self_signed(&key).unwrap().pem();
        let text = first.certificate_text(&chain, &key.serialize_pem());
        first.save_certificate(&text).unwrap();
        assert!(first.certificate().is_some() && first.is_for_these_names());
        for (path, mode) in [(&*folder, 0o700), (first.file(), 0o600)] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, mode);
        }
        for other in [
            store(&folder, &["a.test"], DIRECTORY),
            store(&folder, &["a.test", "b.test", "c.test"], DIRECTORY),
            store(&folder, &["a.test", "b.test"], "https://authority.test/directory2"),
        ] {
            // It is better than none until the authority has issued the right one.
            assert!(other.certificate().is_some() && !other.is_for_these_names());
        }
        fs::write(first.file(), &text[..text.len() / 2]).unwrap();
        assert!(first.certificate().is_none(), "half a file");
    }

    #[test]
    fn an_account_that_cannot_be_read_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), &["a.test"], DIRECTORY);
        assert!(store.account().is_none());
        fs::write(&store.account, "{\"email\":").unwrap();
        assert!(store.account().is_none());
    }
}
