//! One order of a certificate: account, order, proofs, certificate (RFC 8555, 7.1).

use std::{
    fmt::{self, Display},
    io,
    time::{Duration, SystemTime},
};

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error as AcmeError,
    Identifier, NewAccount, NewOrder, Order, OrderStatus, Problem, RenewalInfo, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use thiserror::Error;
use tokio::{
    task,
    time::{Instant, timeout},
};
use tokio_rustls::rustls::{
    self,
    crypto::aws_lc_rs::{default_provider, sign::any_supported_type},
    pki_types::{
        CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer,
        pem::{self, PemObject as _},
    },
    sign::CertifiedKey,
};

use super::{
    super::{current::CurrentCertificate, validity::Validity},
    AcmeSettings,
    http::Http,
    store::{AcmeStore, StoredAccount},
};

/// Maximum time for the validation of all names, and again for the issue.
const PROGRESS: Duration = Duration::from_mins(2);
/// Time after which the disk counts as hanging, so that a new certificate is used unstored.
const SAVE: Duration = Duration::from_secs(10);
/// Minimum time between two questions for renewal information. An authority may ask for more.
const ASK_AGAIN: Duration = Duration::from_hours(6);
/// Maximum time between two such questions.
const ASK_AT_LEAST: Duration = Duration::from_hours(24);
/// The problem of an account that the authority does not know (RFC 8555, 6.7).
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// A failure to get a certificate.
#[derive(Debug, Error)]
pub(super) enum OrderError {
    /// The authority cannot be reached, or refuses.
    #[error("{}", OneLine(.0))]
    Acme(#[from] AcmeError),
    /// The authority could not validate a name.
    #[error("{name} could not be validated: {}", OneLine(.why))]
    Invalid { name: String, why: String },
    /// The authority does not offer TLS-ALPN-01.
    #[error(
        "it offers no validation of {0} by TLS-ALPN-01, which is the only one that this server can do"
    )]
    NoChallenge(String),
    /// The order failed without a reason.
    #[error("the order is {0:?}")]
    Status(OrderStatus),
    /// A key or a request could not be made.
    #[error("a key could not be used: {0}")]
    Key(#[from] rcgen::Error),
    /// The certificate is not readable.
    #[error("the issued certificate cannot be read: {0}")]
    Unreadable(#[from] pem::Error),
    /// The certificate does not match the key.
    #[error("the issued certificate cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// The attempt took too long.
    #[error("it took too long")]
    Timeout,
}

/// A text without line breaks and other control characters, which an authority may send.
struct OneLine<T>(T);

impl<T: Display> Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string().replace(char::is_control, " "))
    }
}

/// The state from one order to the next.
pub(super) struct Orders<'a> {
    settings: &'a AcmeSettings,
    store: &'a AcmeStore,
    http: &'a Http,
    current: &'a CurrentCertificate,
    /// The account, if it has been used.
    account: Option<Account>,
    /// The file of a certificate that could not be written.
    unsaved: Option<String>,
    /// The moment to ask for renewal information.
    ask_at: Option<Instant>,
    suggestion: Option<Suggestion>,
}

/// The time at which an authority wants a certificate to be renewed (RFC 9773).
struct Suggestion {
    certificate: CertificateDer<'static>,
    window: [SystemTime; 2],
    /// A random moment within.
    at: SystemTime,
}

impl<'a> Orders<'a> {
    pub(super) fn new(
        settings: &'a AcmeSettings,
        store: &'a AcmeStore,
        http: &'a Http,
        current: &'a CurrentCertificate,
    ) -> Self {
        let (account, unsaved, ask_at, suggestion) = (None, None, None, None);
        Self { settings, store, http, current, account, unsaved, ask_at, suggestion }
    }

    /// Writes a certificate that could not be written before.
    pub(super) async fn save_unsaved(&mut self) {
        if let Some(text) = self.unsaved.take() {
            match self.save(text.clone()).await {
                Ok(()) => tracing::info!("the certificate is stored now"),
                Err(_) => self.unsaved = Some(text),
            }
        }
    }

    async fn save(&self, text: String) -> io::Result<()> {
        let store = self.store.clone();
        let saved = timeout(SAVE, blocking(move || store.save_certificate(&text))).await;
        saved.unwrap_or_else(|_| Err(io::Error::other("the disk does not respond")))
    }

    /// Returns the time at which to renew the current certificate: after two thirds of its life,
    /// or earlier if the authority wants it.
    pub(super) async fn due(&mut self, validity: Validity) -> SystemTime {
        let due = validity.renewal();
        let Some(current) = self.current.get() else { return due };
        let Some(certificate) = current.cert.first() else { return due };
        if self.suggestion.as_ref().is_some_and(|held| held.certificate != *certificate) {
            (self.suggestion, self.ask_at) = (None, None);
        }
        if self.ask_at.is_none_or(|at| Instant::now() >= at) && SystemTime::now() < due {
            let mut again = ASK_AGAIN;
            match self.ask(certificate).await {
                Ok((info, after)) => {
                    again = after.clamp(ASK_AGAIN, ASK_AT_LEAST);
                    self.note(certificate, validity, &info);
                }
                // Such as an authority that has no such information, or is away.
                Err(error) => tracing::debug!(%error, "there is no renewal information"),
            }
            self.ask_at = Some(Instant::now() + again);
        }
        self.suggestion.as_ref().map_or(due, |held| held.at.min(due))
    }

    async fn ask(
        &mut self,
        certificate: &CertificateDer<'_>,
    ) -> Result<(RenewalInfo, Duration), AcmeError> {
        let id = CertificateIdentifier::try_from(certificate)
            .map_err(|error| AcmeError::Other(error.into()))?;
        self.account().await?.renewal_info(&id).await
    }

    fn note(&mut self, certificate: &CertificateDer<'_>, validity: Validity, info: &RenewalInfo) {
        let window = [info.suggested_window.start, info.suggested_window.end].map(SystemTime::from);
        // A window that begins before the certificate would renew each one at once.
        if window[0] < validity.from {
            return;
        }
        if self.suggestion.as_ref().is_none_or(|held| held.window != window) {
            let length = window[1].duration_since(window[0]).unwrap_or_default();
            let at = window[0] + length.mul_f64(fastrand::f64());
            let certificate = certificate.clone().into_owned();
            self.suggestion = Some(Suggestion { certificate, window, at });
        }
    }

    /// Gets a certificate, and stores it. If that is impossible, it is used all the same.
    pub(super) async fn order(&mut self) -> Result<CertifiedKey, OrderError> {
        let ordered = match self.order_once().await {
            Err(OrderError::Acme(AcmeError::Api(problem))) if is_no_account(&problem) => {
                tracing::warn!("the authority does not know the account: registering a new one");
                self.account = Some(self.register().await?);
                self.order_once().await
            }
            ordered => ordered,
        };
        let (chain, key) = ordered?;
        let certificates = CertificateDer::pem_slice_iter(chain.as_bytes());
        let certificates = certificates.collect::<Result<Vec<_>, _>>()?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let certificate = CertifiedKey::from_der(certificates, private, &default_provider())?;
        let text = self.store.certificate_text(&chain, &key.serialize_pem());
        if let Err(error) = self.save(text.clone()).await {
            tracing::error!(
                "the new certificate is in use, but cannot be stored for a restart: {}: {error}",
                self.store.file().display()
            );
            self.unsaved = Some(text);
        } else {
            self.unsaved = None;
        }
        Ok(certificate)
    }

    async fn order_once(&mut self) -> Result<(String, KeyPair), OrderError> {
        let names: Vec<_> = self.settings.names.iter().map(ToString::to_string).collect();
        let identifiers: Vec<_> = names.iter().cloned().map(Identifier::Dns).collect();
        let mut order = self.place(&identifiers).await?;
        let poll = RetryPolicy::new().initial_delay(self.settings.pace.poll).timeout(PROGRESS);
        self.prove(&mut order).await?;
        let status = match order.poll_ready(&poll).await {
            // Tells the reason only for all names together.
            Err(AcmeError::Api(problem)) => {
                return Err(reason(&mut order).await.unwrap_or(AcmeError::Api(problem).into()));
            }
            status => status?,
        };
        if status != OrderStatus::Ready {
            return Err(reason(&mut order).await.unwrap_or(OrderError::Status(status)));
        }
        // Each certificate has a key of its own.
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = DistinguishedName::new();
        order.finalize_csr(params.serialize_request(&key)?.der()).await?;
        Ok((order.poll_certificate(&poll).await?, key))
    }

    /// Places the order. If the authority has suggested a time for it, it also tells which
    /// certificate it replaces, since limits do not count such an order.
    async fn place(&mut self, identifiers: &[Identifier]) -> Result<Order, AcmeError> {
        let account = self.account().await?;
        let new = || NewOrder::new(identifiers);
        let held = self.suggestion.as_ref();
        let old = held.and_then(|held| CertificateIdentifier::try_from(&held.certificate).ok());
        if let Some(old) = old {
            match account.new_order(&new().replaces(old)).await {
                // An authority refuses that, too, such as one that has lost its memory.
                Err(error) => tracing::debug!(%error, "the order does not count as a renewal"),
                order => return order,
            }
        }
        account.new_order(&new()).await
    }

    /// Proves control of each name that the authority does not know yet.
    async fn prove(&self, order: &mut Order) -> Result<(), OrderError> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let name = authorization.identifier().to_string();
            let Some(mut challenge) = authorization.challenge(ChallengeType::TlsAlpn01) else {
                return Err(OrderError::NoChallenge(name));
            };
            let digest = challenge.key_authorization().digest();
            self.current.prove(name.clone(), proof(&name, digest.as_ref())?);
            challenge.set_ready().await?;
        }
        Ok(())
    }

    /// The account with the authority: the one in use, the one that is stored, or a new one.
    async fn account(&mut self) -> Result<Account, AcmeError> {
        if let Some(account) = &self.account {
            return Ok(account.clone());
        }
        let store = self.store.clone();
        let stored = blocking(move || Ok(store.account())).await.ok().flatten();
        let account = match stored {
            Some(stored) => self.resume(stored).await?,
            None => self.register().await?,
        };
        Ok(self.account.insert(account).clone())
    }

    async fn resume(&self, stored: StoredAccount) -> Result<Account, AcmeError> {
        let builder = Account::builder_with_http(Box::new(self.http.clone()));
        if stored.email == self.settings.email {
            return builder.from_credentials(stored.credentials).await;
        }
        // The credentials can be used once.
        let text = serde_json::to_string(&stored.credentials)?;
        let account = builder.from_credentials(stored.credentials).await?;
        let contact = self.contact();
        account.update_contacts(&contact.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        let credentials = serde_json::from_str(&text)?;
        self.save_account(StoredAccount { email: self.settings.email.clone(), credentials }).await;
        Ok(account)
    }

    async fn register(&self) -> Result<Account, AcmeError> {
        let contact = self.contact();
        let new = NewAccount {
            contact: &contact.iter().map(String::as_str).collect::<Vec<_>>(),
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let builder = Account::builder_with_http(Box::new(self.http.clone()));
        let directory = self.settings.directory.clone();
        let (account, credentials) = builder.create(&new, directory, None).await?;
        self.save_account(StoredAccount { email: self.settings.email.clone(), credentials }).await;
        Ok(account)
    }

    /// Stores the account. Without it, the next start registers another one.
    async fn save_account(&self, account: StoredAccount) {
        let store = self.store.clone();
        if let Err(error) = blocking(move || store.save_account(&account)).await {
            tracing::warn!("the account with the authority cannot be stored: {error}");
        }
    }

    fn contact(&self) -> Option<String> {
        self.settings.email.as_ref().map(|email| format!("mailto:{email}"))
    }
}

/// Runs a function that uses the disk, which may hang.
async fn blocking<T: Send + 'static>(
    function: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    task::spawn_blocking(function).await.map_err(io::Error::other)?
}

fn is_no_account(problem: &Problem) -> bool {
    problem.r#type.as_deref() == Some(NO_ACCOUNT)
}

/// Finds the name that could not be validated, and the authority's reason.
async fn reason(order: &mut Order) -> Option<OrderError> {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        authorization.refresh().await.ok()?;
        let why = authorization.challenges.iter().find_map(|challenge| challenge.error.as_ref());
        if let Some(why) = why {
            let why = why.detail.clone().unwrap_or_else(|| why.to_string());
            return Some(OrderError::Invalid { name: authorization.identifier().to_string(), why });
        }
    }
    None
}

/// Creates the certificate that answers a challenge (RFC 8737, 3).
fn proof(name: &str, digest: &[u8]) -> Result<CertifiedKey, OrderError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key)?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    // `from_der` would refuse the critical extension, which only the authority must know.
    Ok(CertifiedKey::new(vec![certificate.der().clone()], any_supported_type(&private)?))
}
