//! TLS for the connections of the load generator.

use std::{path::Path, sync::Arc};

use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use super::HttpVersion;

/// The settings of TLS connections that trust the certificates of one file.
#[derive(Clone)]
pub struct TlsSettings {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

impl TlsSettings {
    /// Reads the trusted certificates from a file, in PEM.
    pub fn trusting(file: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(file).unwrap() {
            roots.add(certificate.unwrap()).unwrap();
        }
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let [http1, http2] = ["http/1.1", "h2"].map(|protocol| {
            let alpn_protocols = vec![protocol.as_bytes().to_vec()];
            let mut config = config.clone();
            config.alpn_protocols = alpn_protocols;
            Arc::new(config)
        });
        Self { http1, http2 }
    }

    /// Creates the state of a connection, before its handshake.
    pub fn connection(&self, version: HttpVersion) -> ClientConnection {
        let config = match version {
            HttpVersion::Http1 => &self.http1,
            HttpVersion::Http2 { .. } => &self.http2,
        };
        ClientConnection::new(Arc::clone(config), "localhost".try_into().unwrap()).unwrap()
    }
}
