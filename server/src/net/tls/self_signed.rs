//! The self-signed certificate, for development.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, DnType, KeyPair};
use tokio_rustls::rustls::pki_types::pem;

use super::error::TlsError;
use crate::ops::files::write_private;

/// File name of the certificate and its key.
const FILE: &str = "self-signed.pem";
/// Validity of a self-signed certificate. Browsers refuse more than 398 days.
const VALID_FOR: Duration = Duration::from_hours(24 * 390);
/// Age at which a self-signed certificate is replaced.
pub(super) const USED_FOR: Duration = Duration::from_hours(24 * 360);

/// Returns the file of the self-signed certificate for `names` in `folder`. Creates it if it is
/// missing, too old, or for other names.
pub(super) fn file_for(folder: &Path, names: &[String]) -> Result<PathBuf, TlsError> {
    let file = folder.join(FILE);
    let head = format!("The self-signed certificate of Waterclock for {}\n", names.join(", "));
    if !is_usable(&file, &head) {
        create(&file, &head, names)?;
    }
    Ok(file)
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
