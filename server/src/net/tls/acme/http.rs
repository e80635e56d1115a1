//! Requests to the authority, by reqwest, with limits on time and size.

use std::{
    error::Error,
    fmt::Write as _,
    fs, io,
    path::Path,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    body::{Body, to_bytes},
    http::{Request, header},
};
use bytes::{Bytes, BytesMut};
use instant_acme::{BodyWrapper, BytesResponse, Error as AcmeError, HttpClient};
use parking_lot::Mutex;
use reqwest::{Certificate, Client, redirect};
use tokio_rustls::rustls::pki_types::pem;

use super::super::error::TlsError;

/// Maximum duration of a connection's set-up.
const CONNECT: Duration = Duration::from_secs(10);
/// Maximum duration of a request.
const REQUEST: Duration = Duration::from_secs(30);
/// Maximum size of a response, in bytes. A chain of certificates has some kilobytes.
const MAX_RESPONSE: usize = 1 << 20;

/// The client of an authority. Clones share it.
#[derive(Clone)]
pub(super) struct Http {
    client: Client,
    /// The end of the wait that the authority asked for, in its last refusal.
    retry_at: Arc<Mutex<Option<SystemTime>>>,
}

impl Http {
    /// Trusts the certificates of a file in PEM, or those of the system.
    pub(super) fn new(roots: Option<&Path>) -> Result<Self, TlsError> {
        let mut client = Client::builder()
            .https_only(true)
            .connect_timeout(CONNECT)
            .timeout(REQUEST)
            // A request has the signature of its URL.
            .redirect(redirect::Policy::none());
        if let Some(file) = roots {
            let error = |why| TlsError::File { file: file.to_owned(), why };
            let text = fs::read(file).map_err(|why| error(pem::Error::Io(why)))?;
            let roots = Certificate::from_pem_bundle(&text)
                .map_err(|why| error(pem::Error::Io(io::Error::other(with_causes(&why)))))?;
            if roots.is_empty() {
                return Err(error(pem::Error::NoItemsFound));
            }
            client = client.tls_certs_only(roots);
        }
        let client = client.build().map_err(|why| TlsError::Client(with_causes(&why)))?;
        Ok(Self { client, retry_at: Arc::default() })
    }

    /// Returns the time for which the authority has asked to wait since the last call.
    pub(super) fn take_retry_after(&self) -> Option<Duration> {
        let at = self.retry_at.lock().take()?;
        at.duration_since(SystemTime::now()).ok()
    }

    async fn send(&self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, AcmeError> {
        let (parts, body) = request.into_parts();
        let body = to_bytes(Body::new(body), usize::MAX).await;
        let body = body.map_err(|error| AcmeError::Other(error.into()))?;
        let url = parts.uri.to_string();
        let request = reqwest::Request::try_from(Request::from_parts(parts, body));
        let failed = |error| AcmeError::Other(with_causes(&error).into());
        let mut response = self.client.execute(request.map_err(failed)?).await.map_err(failed)?;

        let mut parts = axum::http::Response::new(()).into_parts().0;
        parts.status = response.status();
        parts.headers = response.headers().clone();
        if !parts.status.is_success() {
            let after = parts.headers.get(header::RETRY_AFTER).and_then(|at| at.to_str().ok());
            if let Some(seconds) = after.and_then(|text| text.trim().parse().ok()) {
                *self.retry_at.lock() = SystemTime::now().checked_add(Duration::from_secs(seconds));
            }
            let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
            // Such as the page of a proxy.
            if !kind.is_some_and(|kind| kind.contains("json")) {
                return Err(AcmeError::Other(format!("{url} answers {}", parts.status).into()));
            }
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_RESPONSE {
                return Err(AcmeError::Other(format!("the response of {url} is too long").into()));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(BytesResponse { parts, body: Box::new(body.freeze()) })
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, AcmeError>> + Send>> {
        let client = self.clone();
        Box::pin(async move { client.send(request).await })
    }
}

/// Joins an error and its causes in one line. That of reqwest alone does not tell the cause.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
