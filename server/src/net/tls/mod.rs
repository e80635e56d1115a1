//! TLS (RFC 8446): a certificate from files, which are reloaded when they change, one from an
//! authority by ACME, or a self-signed one for development.
//!
//! # Layout
//!
//! | module | content |
//! |---|---|
//! | `acme` | certificates from an authority, renewed in time |
//! | `current` | the certificate in use, and those that answer challenges |
//! | `error` | errors of the set-up |
//! | `files` | certificates from files |
//! | `self_signed` | the self-signed certificate |
//! | `validity` | the end of a certificate, and the warnings before it |

pub mod acme;
mod current;
mod error;
mod files;
mod self_signed;
mod validity;

use std::{
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

pub(super) use current::VALIDATION;
pub use error::TlsError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{
    Accept, TlsAcceptor,
    rustls::{ServerConfig, crypto::aws_lc_rs::default_provider},
};

use self::{
    acme::{Acme, AcmeSettings},
    current::CurrentCertificate,
    files::CertificateFiles,
    validity::ExpiryWatch,
};
use crate::ops::metrics::Metrics;

/// The offered protocols in order of preference (RFC 7301).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// Interval between checks of the files.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Accepts TLS connections with the newest certificate. Clones share it.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    current: Arc<CurrentCertificate>,
    source: Source,
}

/// The origin of the certificate.
#[derive(Clone)]
enum Source {
    Files(Arc<CertificateFiles>),
    SelfSigned(Arc<CertificateFiles>),
    Acme(Arc<Acme>),
}

impl Source {
    /// The files to watch.
    fn files(&self) -> Option<&CertificateFiles> {
        match self {
            Self::Files(files) | Self::SelfSigned(files) => Some(files),
            Self::Acme(_) => None,
        }
    }

    /// Advice for a certificate that is about to expire.
    fn advice(&self) -> &'static str {
        match self {
            Self::Files(_) => "replace its files: the server then uses the new ones by itself",
            Self::SelfSigned(_) => "restart the server, which creates a new one",
            Self::Acme(_) => "its renewal has failed: earlier messages say why",
        }
    }
}

/// The result of a check of the certificate's files.
#[derive(Debug)]
pub enum Reload {
    /// The files have not changed.
    Unchanged,
    /// The files have changed, and their certificate is in use now.
    Replaced,
    /// The files have changed and cannot be used. The previous certificate stays in use.
    Failed(TlsError),
}

impl Tls {
    /// Loads a certificate chain and its private key from PEM files.
    ///
    /// # Errors
    ///
    /// If they cannot be read, or do not match.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        Self::with_files(certificate, key, Source::Files)
    }

    /// Loads the self-signed certificate for `names` from a file in `folder`. Creates it if it is
    /// missing, too old, or for other names.
    ///
    /// # Errors
    ///
    /// If the file can neither be used nor be written.
    pub fn self_signed(folder: &Path, names: &[String]) -> Result<Self, TlsError> {
        let file = self_signed::file_for(folder, names)?;
        Self::with_files(&file, &file, Source::SelfSigned)
    }

    /// Takes certificates from an authority by ACME, beginning with the last one that is stored.
    /// Until there is one, handshakes fail with the alert `access_denied`.
    /// [`watch`](Self::watch) orders the first one, and renews it.
    ///
    /// # Errors
    ///
    /// If the file with the authority's own root certificates cannot be used.
    pub fn acme(settings: AcmeSettings) -> Result<Self, TlsError> {
        let acme = Acme::new(settings)?;
        let current = CurrentCertificate::new(acme.stored());
        Self::new(current, &[&PROTOCOLS[..], &[VALIDATION]].concat(), Source::Acme(Arc::new(acme)))
    }

    fn with_files(
        certificate: &Path,
        key: &Path,
        source: fn(Arc<CertificateFiles>) -> Source,
    ) -> Result<Self, TlsError> {
        let files = CertificateFiles::new(certificate, key);
        let current = CurrentCertificate::new(Some(files.read()?));
        Self::new(current, &PROTOCOLS, source(Arc::new(files)))
    }

    fn new(
        current: CurrentCertificate,
        protocols: &[&[u8]],
        source: Source,
    ) -> Result<Self, TlsError> {
        let current = Arc::new(current);
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<CurrentCertificate>::clone(&current));
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), current, source })
    }

    /// The certificate's file.
    pub fn file(&self) -> &Path {
        match &self.source {
            Source::Files(files) | Source::SelfSigned(files) => &files.certificate,
            Source::Acme(acme) => acme.file(),
        }
    }

    /// The certificate's SHA-256 fingerprint in hexadecimal, as browsers show it. It is empty while
    /// there is no certificate.
    pub fn fingerprint(&self) -> String {
        self.current.fingerprint()
    }

    /// The end of the certificate's validity. `None` if there is no certificate, or it is unusual.
    pub fn expires(&self) -> Option<SystemTime> {
        self.current.validity().map(|validity| validity.until)
    }

    /// Watches the certificate without end: calls [`check`](Self::check) every second, writes its
    /// end to the metrics, and warns before it. Orders and renews a certificate by ACME. Must be
    /// called within a runtime.
    ///
    /// It runs in a thread of its own, which no shutdown waits for, since the disk may hang.
    pub fn watch(self, metrics: Arc<Metrics>) {
        if let Source::Acme(acme) = &self.source {
            tokio::spawn(Arc::clone(acme).run(Arc::clone(&self.current)));
        }
        let mut expiry = ExpiryWatch::default();
        // The first look is before the first connection.
        self.look_at_expiry(&mut expiry, &metrics);
        thread::spawn(move || {
            loop {
                thread::sleep(CHECK_INTERVAL);
                match self.check() {
                    Reload::Unchanged => {}
                    Reload::Replaced => {
                        let fingerprint = self.fingerprint();
                        let file = self.file().display();
                        tracing::info!(%file, fingerprint, "new certificate");
                    }
                    Reload::Failed(error) => {
                        tracing::error!("the previous certificate stays in use: {error}");
                    }
                }
                self.look_at_expiry(&mut expiry, &metrics);
            }
        });
    }

    fn look_at_expiry(&self, expiry: &mut ExpiryWatch, metrics: &Metrics) {
        let validity = self.current.validity();
        metrics.set_certificate_end(validity.map(|validity| validity.until));
        if let Some(validity) = validity {
            expiry.report(validity, SystemTime::now(), Instant::now(), self.source.advice());
        }
    }

    /// Reloads the files if they have changed since the last check. Open connections are not
    /// affected. Blocks.
    pub fn check(&self) -> Reload {
        let Some(files) = self.source.files() else { return Reload::Unchanged };
        if !files.have_changed() {
            return Reload::Unchanged;
        }
        match files.read() {
            Ok(certificate) => {
                self.current.replace(certificate);
                Reload::Replaced
            }
            Err(error) => Reload::Failed(error),
        }
    }

    /// Accepts a TLS connection over a socket.
    pub(super) fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, socket: S) -> Accept<S> {
        self.acceptor.accept(socket)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, OpenOptions},
        os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    };

    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;

    use super::{self_signed::USED_FOR, *};

    /// A certificate and its key, in PEM.
    fn pair() -> [String; 2] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        [params.self_signed(&key).unwrap().pem(), key.serialize_pem()]
    }

    /// Puts a new file into the place of another, as programs that fetch certificates do.
    fn put(file: &Path, text: &str) {
        crate::ops::files::write_private(file, text.as_bytes()).unwrap();
    }

    fn files(tls: &Tls) -> &CertificateFiles {
        tls.source.files().unwrap()
    }

    fn of_pair([certificate, key]: &[String; 2]) -> (Tls, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let files = ["chain.pem", "key.pem"].map(|name| folder.path().join(name));
        put(&files[0], certificate);
        put(&files[1], key);
        (Tls::from_files(&files[0], &files[1]).unwrap(), folder)
    }

    fn set_mode(file: &Path, mode: u32) {
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_certificate_without_its_key_waits_for_it() {
        let (tls, _folder) = of_pair(&pair());
        assert!(matches!(tls.check(), Reload::Unchanged));
        let old = tls.fingerprint();
        let [certificate, key] = pair();
        put(&files(&tls).certificate, &certificate);
        let look = tls.check();
        assert!(matches!(look, Reload::Failed(TlsError::Pair { .. })), "{look:?}");
        assert_eq!(tls.fingerprint(), old);
        assert!(matches!(tls.check(), Reload::Unchanged), "the error is reported once");
        put(&files(&tls).key, &key);
        assert!(matches!(tls.check(), Reload::Replaced));
        assert_ne!(tls.fingerprint(), old);
        assert!(matches!(tls.check(), Reload::Unchanged));
    }

    #[test]
    fn half_of_a_file_is_not_used_and_its_rest_is_noticed() {
        let (tls, _folder) = of_pair(&pair());
        let old = tls.fingerprint();
        let [certificate, key] = pair();
        put(&files(&tls).key, &key);
        // Written where it is, in the same moment.
        for end in [0, 100, certificate.len() / 2] {
            fs::write(&files(&tls).certificate, &certificate[..end]).unwrap();
            let look = tls.check();
            assert!(matches!(look, Reload::Failed(_)), "{end}: {look:?}");
            assert_eq!(tls.fingerprint(), old);
        }
        fs::write(&files(&tls).certificate, &certificate).unwrap();
        assert!(matches!(tls.check(), Reload::Replaced));
        assert_ne!(tls.fingerprint(), old);
    }

    #[test]
    fn files_that_are_gone_leave_the_certificate_in_use() {
        let (tls, _folder) = of_pair(&pair());
        let old = tls.fingerprint();
        fs::remove_file(&files(&tls).key).unwrap();
        assert!(matches!(tls.check(), Reload::Failed(TlsError::File { .. })));
        assert_eq!(tls.fingerprint(), old);
    }

    #[test]
    fn a_change_of_permissions_alone_reloads_the_files() {
        let (tls, _folder) = of_pair(&pair());
        for file in [&files(&tls).certificate, &files(&tls).key] {
            set_mode(file, 0o640);
            assert!(matches!(tls.check(), Reload::Replaced));
            assert!(matches!(tls.check(), Reload::Unchanged));
        }
    }

    #[test]
    fn a_clock_that_was_set_back_replaces_no_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["localhost".to_owned()];
        let first = Tls::self_signed(folder.path(), &names).unwrap();
        let file = OpenOptions::new().write(true).open(first.file()).unwrap();
        for (modified, is_kept) in
            [(SystemTime::now() + USED_FOR, true), (SystemTime::UNIX_EPOCH, false)]
        {
            file.set_modified(modified).unwrap();
            let second = Tls::self_signed(folder.path(), &names).unwrap();
            assert_eq!(second.fingerprint() == first.fingerprint(), is_kept);
        }
    }

    #[test]
    fn a_key_that_others_could_read_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["localhost".to_owned()];
        let first = Tls::self_signed(folder.path(), &names).unwrap();
        set_mode(first.file(), 0o644);
        let second = Tls::self_signed(folder.path(), &names).unwrap();
        assert_ne!(second.fingerprint(), first.fingerprint());
        let mode = fs::metadata(second.file()).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
