//! TLS (RFC 8446): a certificate from files, which are reloaded when they change, or a self-signed
//! one for development.

use std::{
    fs, mem,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{SHA256, digest};
use parking_lot::{Mutex, RwLock};
use rcgen::{CertificateParams, DnType, KeyPair};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{
    Accept, TlsAcceptor,
    rustls::{
        self, CertificateError, RootCertStore, ServerConfig,
        client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
        crypto::aws_lc_rs::default_provider,
        pki_types::{
            CertificateDer, PrivateKeyDer, ServerName, UnixTime,
            pem::{self, PemObject as _},
        },
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    },
};

use crate::ops::files::{FileStamp, write_private};

/// The offered protocols in order of preference (RFC 7301).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// Interval between checks of the files.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// File name of the self-signed certificate and its key.
const SELF_SIGNED: &str = "self-signed.pem";
/// Validity of a self-signed certificate. Browsers refuse more than 398 days.
const VALID_FOR: Duration = Duration::from_hours(24 * 390);
/// Age at which a self-signed certificate is replaced.
const USED_FOR: Duration = Duration::from_hours(24 * 360);

/// A failure to set up TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read or written, or lacks a certificate or key.
    #[error("{} cannot be used: {why}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// The cause.
        why: pem::Error,
    },
    /// The certificate and the key do not match.
    #[error("{} and {} cannot be used together: {why}", certificate.display(), key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The cause.
        why: rustls::Error,
    },
    /// The self-signed certificate could not be created.
    #[error("the self-signed certificate could not be created: {0}")]
    SelfSigned(#[from] rcgen::Error),
    /// No version of TLS is available.
    #[error("TLS is not available: {0}")]
    Config(#[from] rustls::Error),
}

/// Accepts TLS connections with the newest certificate. Clones share it.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    current: Arc<CurrentCertificate>,
    files: Arc<CertificateFiles>,
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

/// The certificate for new connections.
#[derive(Debug)]
struct CurrentCertificate(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read()))
    }
}

/// The files of a certificate and its key, in PEM (RFC 7468).
#[derive(Debug)]
struct CertificateFiles {
    /// The chain, the server's own certificate first.
    certificate: PathBuf,
    key: PathBuf,
    /// Taken before the files were last read, so that no change in between is missed.
    stamp: Mutex<[Option<FileStamp>; 2]>,
}

impl CertificateFiles {
    fn read(&self) -> Result<CertifiedKey, TlsError> {
        let Self { certificate, key, .. } = self;
        let in_chain = |why| TlsError::File { file: certificate.clone(), why };
        let chain = CertificateDer::pem_file_iter(certificate).map_err(in_chain)?;
        let chain = chain.collect::<Result<Vec<_>, _>>().map_err(in_chain)?;
        if chain.is_empty() {
            return Err(in_chain(pem::Error::NoItemsFound));
        }
        let private = PrivateKeyDer::from_pem_file(key)
            .map_err(|why| TlsError::File { file: key.clone(), why })?;
        CertifiedKey::from_der(chain, private, &default_provider()).map_err(|why| TlsError::Pair {
            certificate: certificate.clone(),
            key: key.clone(),
            why,
        })
    }

    /// Returns `true` if the files have changed since the last call, and at the first call.
    fn have_changed(&self) -> bool {
        let now = [&self.certificate, &self.key].map(|file| FileStamp::of(file));
        let mut stamp = self.stamp.lock();
        mem::replace(&mut *stamp, now) != *stamp
    }
}

impl Tls {
    /// Loads a certificate chain and its private key from PEM files.
    ///
    /// # Errors
    ///
    /// If they cannot be read, or do not match.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let files = CertificateFiles {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            stamp: Mutex::default(),
        };
        files.have_changed();
        let current = Arc::new(CurrentCertificate(RwLock::new(Arc::new(files.read()?))));
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<CurrentCertificate>::clone(&current));
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { acceptor, current, files: Arc::new(files) })
    }

    /// Returns the time at which the certificate expires, since 1970, if it has expired at `time`.
    /// An unusual certificate counts as not expired.
    pub fn expired_at(&self, time: Duration) -> Option<Duration> {
        let chain = self.current.0.read();
        let certificate = chain.cert.first()?;
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).ok()?;
        let provider = Arc::new(default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let time = UnixTime::since_unix_epoch(time);
        // The name does not matter: the dates are checked first.
        let name = ServerName::try_from("localhost").ok()?;
        let result = verifier.build().ok()?.verify_server_cert(certificate, &[], &name, &[], time);
        match result {
            Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
                not_after,
                ..
            })) => Some(Duration::from_secs(not_after.as_secs())),
            _ => None,
        }
    }

    /// Loads the self-signed certificate for `names` from a file in `folder`. Creates it if it is
    /// missing, too old, or for other names.
    ///
    /// # Errors
    ///
    /// If the file can neither be used nor be written.
    pub fn self_signed(folder: &Path, names: &[String]) -> Result<Self, TlsError> {
        let file = folder.join(SELF_SIGNED);
        let head = format!("The self-signed certificate of Waterclock for {}\n", names.join(", "));
        if !is_usable(&file, &head) {
            create(&file, &head, names)?;
        }
        Self::from_files(&file, &file)
    }

    /// The certificate's file.
    pub fn file(&self) -> &Path {
        &self.files.certificate
    }

    /// The certificate's SHA-256 fingerprint in hexadecimal, as browsers show it.
    pub fn fingerprint(&self) -> String {
        let current = self.current.0.read();
        let certificate = current.cert.first().map(AsRef::as_ref).unwrap_or_default();
        let digest = digest(&SHA256, certificate);
        let bytes: Vec<_> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        bytes.join(":")
    }

    /// Calls [`check`](Self::check) every second, without end. It runs in a thread of its own,
    /// which no shutdown waits for, since the disk may hang.
    pub fn watch(self) {
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
            }
        });
    }

    /// Reloads the files if they have changed since the last check. Open connections are not
    /// affected. Blocks.
    pub fn check(&self) -> Reload {
        if !self.files.have_changed() {
            return Reload::Unchanged;
        }
        match self.files.read() {
            Ok(certificate) => {
                *self.current.0.write() = Arc::new(certificate);
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

/// Returns `true` if the file has the expected head, is recent, and is not readable by others.
fn is_usable(file: &Path, head: &str) -> bool {
    let Ok(metadata) = fs::metadata(file) else { return false };
    // A file of the future is as good as new: the clock was set back since.
    let age =
        metadata.modified().map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
    age.is_ok_and(|age| age < USED_FOR)
        && metadata.mode() % 0o100 == 0
        && fs::read_to_string(file).is_ok_and(|text| text.starts_with(head))
}

/// Creates a certificate and its key. Text before them in the file is a comment (RFC 7468, 2).
fn create(file: &Path, head: &str, names: &[String]) -> Result<(), TlsError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "Waterclock, self-signed");
    let now = SystemTime::now();
    params.not_before = now.into();
    params.not_after = (now + VALID_FOR).into();
    let certificate = params.self_signed(&key)?;
    let text = format!("{head}{}{}", certificate.pem(), key.serialize_pem());
    write_private(file, text.as_bytes())
        .map_err(|why| TlsError::File { file: file.to_owned(), why: pem::Error::Io(why) })
}

#[cfg(test)]
mod tests {
    use std::{fs::OpenOptions, os::unix::fs::PermissionsExt as _};

    use tempfile::TempDir;

    use super::*;

    /// A certificate and its key, in PEM.
    fn pair() -> [String; 2] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        [params.self_signed(&key).unwrap().pem(), key.serialize_pem()]
    }

    /// Puts a new file into the place of another, as programs that fetch certificates do.
    fn put(file: &Path, text: &str) {
        write_private(file, text.as_bytes()).unwrap();
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
    fn the_time_at_which_a_certificate_expires_is_known_once_it_has() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["clock.test".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 2, 1);
        let pem = params.self_signed(&key).unwrap().pem();
        let (tls, _folder) = of_pair(&[pem, key.serialize_pem()]);
        let end = Duration::from_hours(491_640);
        let hour = Duration::from_hours(1);
        assert_eq!(tls.expired_at(Duration::from_hours(491_639)), None);
        assert_eq!(tls.expired_at(end + hour), Some(end));
        let (tls, _folder) = of_pair(&pair());
        assert_eq!(tls.expired_at(end), None, "not valid yet is not expired");
    }

    #[test]
    fn a_certificate_without_its_key_waits_for_it() {
        let (tls, _folder) = of_pair(&pair());
        assert!(matches!(tls.check(), Reload::Unchanged));
        let old = tls.fingerprint();
        let [certificate, key] = pair();
        put(&tls.files.certificate, &certificate);
        let look = tls.check();
        assert!(matches!(look, Reload::Failed(TlsError::Pair { .. })), "{look:?}");
        assert_eq!(tls.fingerprint(), old);
        assert!(matches!(tls.check(), Reload::Unchanged), "the error is reported once");
        put(&tls.files.key, &key);
        assert!(matches!(tls.check(), Reload::Replaced));
        assert_ne!(tls.fingerprint(), old);
        assert!(matches!(tls.check(), Reload::Unchanged));
    }

    #[test]
    fn half_of_a_file_is_not_used_and_its_rest_is_noticed() {
        let (tls, _folder) = of_pair(&pair());
        let old = tls.fingerprint();
        let [certificate, key] = pair();
        put(&tls.files.key, &key);
        // Written where it is, in the same moment.
        for end in [0, 100, certificate.len() / 2] {
            fs::write(&tls.files.certificate, &certificate[..end]).unwrap();
            let look = tls.check();
            assert!(matches!(look, Reload::Failed(_)), "{end}: {look:?}");
            assert_eq!(tls.fingerprint(), old);
        }
        fs::write(&tls.files.certificate, &certificate).unwrap();
        assert!(matches!(tls.check(), Reload::Replaced));
        assert_ne!(tls.fingerprint(), old);
    }

    #[test]
    fn files_that_are_gone_leave_the_certificate_in_use() {
        let (tls, _folder) = of_pair(&pair());
        let old = tls.fingerprint();
        fs::remove_file(&tls.files.key).unwrap();
        assert!(matches!(tls.check(), Reload::Failed(TlsError::File { .. })));
        assert_eq!(tls.fingerprint(), old);
    }

    #[test]
    fn a_change_of_permissions_alone_reloads_the_files() {
        let (tls, _folder) = of_pair(&pair());
        for file in [&tls.files.certificate, &tls.files.key] {
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
