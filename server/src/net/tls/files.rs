//! A certificate and its key in files, which are reloaded when they change.

use std::{
    mem,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use tokio_rustls::rustls::{
    crypto::aws_lc_rs::default_provider,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
    sign::CertifiedKey,
};

use super::error::TlsError;
use crate::ops::files::FileStamp;

/// The files of a certificate and its key, in PEM (RFC 7468).
#[derive(Debug)]
pub(super) struct CertificateFiles {
    /// The chain, the server's own certificate first.
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    /// Taken before the files were last read, so that no change in between is missed.
    stamp: Mutex<[Option<FileStamp>; 2]>,
}

impl CertificateFiles {
    pub(super) fn new(certificate: &Path, key: &Path) -> Self {
        let files = Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            stamp: Mutex::default(),
        };
        files.have_changed();
        files
    }

    pub(super) fn read(&self) -> Result<CertifiedKey, TlsError> {
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
    pub(super) fn have_changed(&self) -> bool {
        let now = [&self.certificate, &self.key].map(|file| FileStamp::of(file));
        let mut stamp = self.stamp.lock();
        mem::replace(&mut *stamp, now) != *stamp
    }
}
