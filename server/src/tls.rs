//! TLS (RFC 8446): a certificate from files, which are read again when they change, or a self-signed one
//! for development.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
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
    /// Of the files, before they were first read.
    stamp: Stamp,
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
}

type Stamp = [Option<(u64, i64, i64, i64, i64)>; 2];

impl Files {
    fn read(&self) -> Result<CertifiedKey, TlsError> {
        let Self { certificate, key } = self;
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

    /// By what a change of theirs is seen, also one of who may read them.
    fn stamp(&self) -> Stamp {
        [&self.certificate, &self.key].map(|file| {
            let of = fs::metadata(file).ok()?;
            Some((of.ino(), of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec()))
        })
    }
}

impl Tls {
    /// With the certificate chain and the private key of those files, in PEM.
    ///
    /// # Errors
    ///
    /// If they cannot be read, or do not belong together.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let files = Files { certificate: certificate.to_owned(), key: key.to_owned() };
        let stamp = files.stamp();
        let current = Arc::new(Current(RwLock::new(Arc::new(files.read()?))));
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Current>::clone(&current));
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { acceptor, current, files: Arc::new(files), stamp })
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

    /// Reads the files again whenever they change, without end. Who is connected stays so; what cannot be
    /// used is logged, and the certificate from before goes on being used.
    pub async fn reload(self) {
        let mut stamp = self.stamp;
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            look.tick().await;
            let now = self.files.stamp();
            if now == stamp {
                continue;
            }
            stamp = now;
            match self.files.read() {
                Ok(certificate) => {
                    let current = &self.current.0;
                    *current.write().unwrap_or_else(PoisonError::into_inner) =
                        Arc::new(certificate);
                    let fingerprint = self.fingerprint();
                    tracing::info!(file = %self.file().display(), fingerprint, "new certificate");
                }
                Err(error) => {
                    tracing::error!("the certificate from before stays in use: {error}");
                }
            }
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
