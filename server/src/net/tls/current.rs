//! The certificate in use, and those that answer challenges of an authority (RFC 8737).

use std::{collections::HashMap, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use parking_lot::RwLock;
use tokio_rustls::rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::validity::Validity;

/// The protocol of an authority that validates a name (RFC 8737, 4). It carries no data.
pub const VALIDATION: &[u8] = b"acme-tls/1";

/// The certificate for new connections.
#[derive(Debug)]
pub(super) struct CurrentCertificate {
    /// `None` until an authority has issued the first one.
    certificate: RwLock<Option<Arc<CertifiedKey>>>,
    /// The certificates that prove control of names, by the name, during an order.
    proofs: RwLock<HashMap<String, Arc<CertifiedKey>>>,
}

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // Only an authority offers this protocol. It must never get the ordinary certificate.
        if hello.alpn().is_some_and(|mut offered| offered.any(|name| name == VALIDATION)) {
            let name = hello.server_name()?.to_ascii_lowercase();
            return self.proofs.read().get(&name).cloned();
        }
        self.certificate.read().clone()
    }
}

impl CurrentCertificate {
    pub(super) fn new(certificate: Option<CertifiedKey>) -> Self {
        let certificate = RwLock::new(certificate.map(Arc::new));
        Self { certificate, proofs: RwLock::default() }
    }

    pub(super) fn replace(&self, certificate: CertifiedKey) {
        *self.certificate.write() = Some(Arc::new(certificate));
    }

    pub(super) fn get(&self) -> Option<Arc<CertifiedKey>> {
        self.certificate.read().clone()
    }

    /// The time for which the certificate is valid. `None` without a certificate, and if it has no
    /// readable times, which no client accepts either.
    pub(super) fn validity(&self) -> Option<Validity> {
        Validity::of(self.get()?.cert.first()?)
    }

    /// Its SHA-256 fingerprint in hexadecimal, or an empty text.
    pub(super) fn fingerprint(&self) -> String {
        let current = self.get();
        let Some(certificate) = current.as_ref().and_then(|current| current.cert.first()) else {
            return String::new();
        };
        let digest = digest(&SHA256, certificate);
        let bytes: Vec<_> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        bytes.join(":")
    }

    /// Answers a challenge for a name from now on.
    pub(super) fn prove(&self, name: String, certificate: CertifiedKey) {
        self.proofs.write().insert(name, Arc::new(certificate));
    }

    /// Answers no challenge any more.
    pub(super) fn forget_proofs(&self) {
        self.proofs.write().clear();
    }
}
