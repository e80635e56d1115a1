//! TLS (RFC 8446): a certificate from files, which are read again when they change, or a self-signed one
//! for development.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    mem,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    thread,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{CertificateParams, DnType, KeyPair};
use thiserror::Error;
use tokio_rustls::{
    Accept, TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::aws_lc_rs::default_provider,
        pki_types::{
            CertificateDer, PrivateKeyDer,
            pem::{self, PemObject as _},
        },
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    },
};

use crate::serve::Socket;

/// The protocols that are offered, the better one first (RFC 7301).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// How often it is looked whether the files have changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The file of the self-signed certificate and of its key.
const SELF_SIGNED: &str = "self-signed.pem";
/// For how long it is valid. What is valid for longer than 398 days, browsers refuse.
const VALID_FOR: Duration = Duration::from_hours(24 * 390);
/// For how long it is used; then a new one is made.
const USED_FOR: Duration = Duration::from_hours(24 * 360);

/// Why TLS cannot be spoken.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read or written, or has nothing of what is needed in it.
    #[error("{} cannot be used: {why}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: pem::Error,
    },
    /// The certificate and the key cannot be used together.
    #[error("{} and {} cannot be used together: {why}", certificate.display(), key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why not.
        why: rustls::Error,
    },
    /// No certificate could be made.
    #[error("no certificate could be made: {0}")]
    Made(#[from] rcgen::Error),
    /// None of the versions of TLS can be spoken.
    #[error("TLS cannot be spoken: {0}")]
    Config(#[from] rustls::Error),
}

/// Speaks TLS with the newest certificate. All clones are one.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    current: Arc<Current>,
    files: Arc<Files>,
}

/// What a look at the files of a certificate has come to.
#[derive(Debug)]
pub enum Look {
    /// They are as they were.
    Unchanged,
    /// The certificate that is in them now is used from now on.
    TakenUp,
    /// What is in them now cannot be used, so the certificate from before stays in use.
    Kept(TlsError),
}

/// The certificate for those who connect now.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // No code panics half-way through a change of what the lock holds.
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Where a certificate and its key come from, in PEM (RFC 7468).
#[derive(Debug)]
struct Files {
    /// The chain, the server's own certificate first.
    certificate: PathBuf,
    key: PathBuf,
    /// Taken before they were last read, so that no change between the two is missed.
    stamp: Mutex<[Option<Stamp>; 2]>,
}

/// By what a change of a file is seen, also one of who may read it.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    /// Times alone do not tell two changes in a moment apart.
    length: u64,
    mode: u32,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &Path) -> Option<Self> {
        let of = fs::metadata(file).ok()?;
        Some(Self {
            inode: of.ino(),
            length: of.len(),
            mode: of.mode(),
            modified: (of.mtime(), of.mtime_nsec()),
            changed: (of.ctime(), of.ctime_nsec()),
        })
    }
}

impl Files {
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

    /// Whether they are others than when this was last asked, or it was never asked.
    fn have_changed(&self) -> bool {
        let now = [&self.certificate, &self.key].map(|file| Stamp::of(file));
        let mut stamp = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
        mem::replace(&mut *stamp, now) != *stamp
    }
}

impl Tls {
    /// With the certificate chain and the private key of those files, in PEM.
    ///
    /// # Errors
    ///
    /// If they cannot be read, or do not belong together.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let files = Files {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            stamp: Mutex::default(),
        };
        files.have_changed();
        let current = Arc::new(Current(RwLock::new(Arc::new(files.read()?))));
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Current>::clone(&current));
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { acceptor, current, files: Arc::new(files) })
    }

    /// With a certificate for those names that only we vouch for. It is kept in a file of that folder, and
    /// made anew where there is none, or when it is old or for other names.
    ///
    /// # Errors
    ///
    /// If the file can be neither used nor written.
    pub fn self_signed(folder: &Path, names: &[String]) -> Result<Self, TlsError> {
        let file = folder.join(SELF_SIGNED);
        let head = format!("The self-signed certificate of Waterclock for {}\n", names.join(", "));
        if !is_usable(&file, &head) {
            make(&file, &head, names)?;
        }
        Self::from_files(&file, &file)
    }

    /// Where the certificate is.
    pub fn file(&self) -> &Path {
        &self.files.certificate
    }

    /// The fingerprint of the certificate, as browsers show it: SHA-256, in hexadecimal.
    pub fn fingerprint(&self) -> String {
        let current = self.current.0.read().unwrap_or_else(PoisonError::into_inner);
        let certificate = current.cert.first().map(AsRef::as_ref).unwrap_or_default();
        let digest = digest(&SHA256, certificate);
        let bytes: Vec<_> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        bytes.join(":")
    }

    /// Looks at the files each second, without end: see [`Tls::look`]. Has a thread of its own, which no stop waits
    /// for, as the disk may be slow, or be on a network that is.
    pub fn reload(self) {
        thread::spawn(move || {
            loop {
                thread::sleep(LOOK_EVERY);
                match self.look() {
                    Look::Unchanged => {}
                    Look::TakenUp => {
                        let fingerprint = self.fingerprint();
                        let file = self.file().display();
                        tracing::info!(%file, fingerprint, "new certificate");
                    }
                    Look::Kept(error) => {
                        tracing::error!("the certificate from before stays in use: {error}");
                    }
                }
            }
        });
    }

    /// Reads the files again if they have changed since the last look. Who is connected stays so; who connects
    /// from now on gets what is in them, if it can be used. Blocks.
    pub fn look(&self) -> Look {
        if !self.files.have_changed() {
            return Look::Unchanged;
        }
        match self.files.read() {
            Ok(certificate) => {
                let mut current = self.current.0.write().unwrap_or_else(PoisonError::into_inner);
                *current = Arc::new(certificate);
                Look::TakenUp
            }
            Err(error) => Look::Kept(error),
        }
    }

    pub(crate) fn accept(&self, socket: Socket) -> Accept<Socket> {
        self.acceptor.accept(socket)
    }
}

/// Whether that file has a certificate with that head, for long enough, and a key that nobody else has seen.
fn is_usable(file: &Path, head: &str) -> bool {
    let Ok(metadata) = fs::metadata(file) else { return false };
    let age = metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
    age.is_some_and(|age| age < USED_FOR)
        && metadata.mode() % 0o100 == 0
        && fs::read_to_string(file).is_ok_and(|text| text.starts_with(head))
}

/// Makes a certificate and its key. What stands before them in the file is a comment (RFC 7468, 2).
fn make(file: &Path, head: &str, names: &[String]) -> Result<(), TlsError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "Waterclock, self-signed");
    let now = SystemTime::now();
    params.not_before = now.into();
    params.not_after = (now + VALID_FOR).into();
    let certificate = params.self_signed(&key)?;
    let text = format!("{head}{}{}", certificate.pem(), key.serialize_pem());
    write(file, &text)
        .map_err(|why| TlsError::File { file: file.to_owned(), why: pem::Error::Io(why) })
}

/// Writes a file that only we may read; whole, or not at all.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let unfinished = file.with_extension("new");
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    // One that a crash has left may be of another mode.
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut new = options.write(true).create_new(true).mode(0o600).open(&unfinished)?;
    new.write_all(text.as_bytes())?;
    new.sync_all()?;
    fs::rename(&unfinished, file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

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
        write(file, text).unwrap();
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
        assert!(matches!(tls.look(), Look::Unchanged));
        let old = tls.fingerprint();
        let [certificate, key] = pair();
        put(&tls.files.certificate, &certificate);
        let look = tls.look();
        assert!(matches!(look, Look::Kept(TlsError::Pair { .. })), "{look:?}");
        assert_eq!(tls.fingerprint(), old);
        assert!(matches!(tls.look(), Look::Unchanged), "what is wrong is said once");
        put(&tls.files.key, &key);
        assert!(matches!(tls.look(), Look::TakenUp));
        assert_ne!(tls.fingerprint(), old);
        assert!(matches!(tls.look(), Look::Unchanged));
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
            let look = tls.look();
            assert!(matches!(look, Look::Kept(_)), "{end}: {look:?}");
            assert_eq!(tls.fingerprint(), old);
        }
        fs::write(&tls.files.certificate, &certificate).unwrap();
        assert!(matches!(tls.look(), Look::TakenUp));
        assert_ne!(tls.fingerprint(), old);
    }

    #[test]
    fn files_that_are_gone_leave_the_certificate_in_use() {
        let (tls, _folder) = of_pair(&pair());
        let old = tls.fingerprint();
        fs::remove_file(&tls.files.key).unwrap();
        assert!(matches!(tls.look(), Look::Kept(TlsError::File { .. })));
        assert_eq!(tls.fingerprint(), old);
    }

    #[test]
    fn files_are_read_again_when_only_their_permissions_change() {
        let (tls, _folder) = of_pair(&pair());
        for file in [&tls.files.certificate, &tls.files.key] {
            set_mode(file, 0o640);
            assert!(matches!(tls.look(), Look::TakenUp));
            assert!(matches!(tls.look(), Look::Unchanged));
        }
    }

    #[test]
    fn a_key_that_others_could_read_is_made_anew() {
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
