//! Certificates from an authority by ACME (RFC 8555), renewed without a restart.
//!
//! The authority validates names by TLS-ALPN-01 (RFC 8737): it connects to port 443 of each name,
//! and gets a certificate that proves control of the account's key. So no port 80 is needed.
//!
//! # Layout
//!
//! | module | content |
//! |---|---|
//! | `http` | requests to the authority |
//! | `name` | names that such a certificate can have |
//! | `order` | one order, from the account to the certificate |
//! | `pace` | times of attempts and renewals |
//! | `store` | the account and the certificate on disk |

mod http;
mod name;
mod order;
mod pace;
mod store;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use humantime::format_duration;
pub use name::{AcmeName, InvalidAcmeName};
pub use pace::AcmePace;
use tokio::time::Instant;
use tokio_rustls::rustls::sign::CertifiedKey;

use self::{http::Http, order::Orders, pace::Backoff, store::AcmeStore};
use super::{current::CurrentCertificate, error::TlsError};

/// Maximum duration of one attempt. The steps of an order have shorter limits.
const ATTEMPT: Duration = Duration::from_mins(5);

/// The settings of certificates by ACME.
#[derive(Clone, Debug)]
pub struct AcmeSettings {
    /// The names that the certificate is for.
    pub names: Vec<AcmeName>,
    /// The address to which the authority may send warnings.
    pub email: Option<String>,
    /// The URL of the authority's directory.
    pub directory: String,
    /// A file with the certificates, in PEM, that the authority's own server is trusted by. Without
    /// it, those of the system are used.
    pub roots: Option<PathBuf>,
    /// The folder for the account and the certificate.
    pub folder: PathBuf,
    /// The times of attempts.
    pub pace: AcmePace,
}

/// The certificate of an authority, and the means to renew it.
pub(super) struct Acme {
    settings: AcmeSettings,
    store: AcmeStore,
    http: Http,
}

impl Acme {
    pub(super) fn new(mut settings: AcmeSettings) -> Result<Self, TlsError> {
        settings.names.sort_unstable();
        settings.names.dedup();
        let http = Http::new(settings.roots.as_deref())?;
        let names: Vec<_> = settings.names.iter().map(ToString::to_string).collect();
        let store = AcmeStore::new(&settings.folder, &names, &settings.directory);
        Ok(Self { settings, store, http })
    }

    /// The file of the certificate and its key.
    pub(super) fn file(&self) -> &Path {
        self.store.file()
    }

    /// The certificate that was stored last, if it can be used. It may be for other names.
    pub(super) fn stored(&self) -> Option<CertifiedKey> {
        self.store.certificate()
    }

    /// Orders certificates when they are due, without end.
    pub(super) async fn run(self: Arc<Self>, current: Arc<CurrentCertificate>) {
        let Self { settings, store, http } = &*self;
        let pace = settings.pace;
        let mut orders = Orders::new(settings, store, http, &current);
        let mut backoff = Backoff::new(pace);
        let mut is_expected = store.is_for_these_names();
        if current.get().is_none() {
            tracing::warn!(
                "there is no certificate yet, so TLS connections are refused until {} has issued \
                 one",
                settings.directory
            );
        }
        loop {
            orders.save_unsaved().await;
            if is_expected && let Some(validity) = current.validity() {
                let due = orders.due(validity).await;
                if let Ok(left) = due.duration_since(SystemTime::now()) {
                    backoff.reset();
                    // Not longer, since the authority may want an earlier renewal.
                    wait(left.min(pace.look)).await;
                    continue;
                }
                if backoff.has_succeeded() {
                    // To go on at once would order without end.
                    let retry_in = backoff.next(None);
                    tracing::warn!(
                        "the new certificate is already to be renewed: is the clock right? The \
                         next attempt is in {}",
                        format_duration(retry_in)
                    );
                    wait(retry_in).await;
                }
            }
            let attempt = tokio::time::timeout(ATTEMPT, orders.order());
            let result = attempt.await.unwrap_or(Err(order::OrderError::Timeout));
            current.forget_proofs();
            match result {
                Ok(certificate) => {
                    current.replace(certificate);
                    is_expected = true;
                    backoff.succeeded();
                    let fingerprint = current.fingerprint();
                    let until = current.validity().map(|validity| validity.until);
                    let until = until.map(humantime::format_rfc3339_seconds);
                    let until = until.map(tracing::field::display);
                    tracing::info!(fingerprint, until, "new certificate");
                }
                Err(error) => {
                    let retry_in = backoff.next(http.take_retry_after());
                    let kept = match current.get() {
                        Some(_) => "the previous certificate stays in use",
                        None => "TLS connections are refused",
                    };
                    tracing::error!(
                        "{} has issued no certificate: {error}; {kept}; the next attempt is in {}",
                        settings.directory,
                        format_duration(retry_in)
                    );
                    wait(retry_in).await;
                }
            }
        }
    }
}

/// Waits for a time. Returns earlier if the system's clock has reached the end of it: timers stand
/// still while the machine is suspended, and a clock that was wrong may have been the problem.
async fn wait(time: Duration) {
    /// Interval of looks at the system's clock.
    const LOOK: Duration = Duration::from_secs(30);
    let (end, end_of_clock) = (Instant::now() + time, SystemTime::now() + time);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || SystemTime::now() >= end_of_clock {
            return;
        }
        tokio::time::sleep(left.min(LOOK)).await;
    }
}
