//! The verifier of tokens: all issuers, and the tasks that keep their keys current.

use std::{fmt, path::Path, sync::Arc, thread, time::Duration};

use futures_util::future::join_all;
use parking_lot::Mutex;
use reqwest::Url;
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};
use waterclock::timestamp::Timestamp;

use super::{
    issuer::{Issuer, IssuerError, IssuerSettings},
    key::{self, InvalidKey},
    key_set::KeySet,
    refresh::keep_fresh,
    token::{InvalidToken, Token, UnknownKey, Unverified},
};
use crate::ops::key_metrics::KeyMetrics;

/// Interval between checks of the files.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Minimum time between two requests for the same key set.
const MIN_REFRESH: Duration = Duration::from_secs(5);
/// Time for which a request waits for newer keys: a refresh that has just ended must not count.
const PATIENCE: Duration = Duration::from_secs(6);
/// Maximum number of requests that wait for newer keys at the same time.
const MAX_WAITING: usize = 1000;

/// Verifies tokens with the keys of their issuers.
pub struct TokenVerifier {
    /// At least one.
    issuers: Arc<[Arc<Issuer>]>,
    metrics: Arc<KeyMetrics>,
    min_refresh: Duration,
    patience: Duration,
    waiting: Semaphore,
    /// End with the verifier.
    tasks: Mutex<JoinSet<()>>,
}

impl TokenVerifier {
    /// Creates a verifier for these issuers, with the keys of their files and of the copies of
    /// their key sets in a folder. [`start`](Self::start) then keeps them current.
    ///
    /// # Errors
    ///
    /// If a file cannot be used, an issuer has no keys, or two have the same name.
    pub fn open(issuers: &[IssuerSettings], cache: Option<&Path>) -> Result<Self, IssuerError> {
        let mut opened: Vec<Arc<Issuer>> = Vec::new();
        for (number, settings) in issuers.iter().enumerate() {
            if opened.iter().any(|other| other.name == settings.issuer) {
                return Err(IssuerError::Twice(settings.issuer.clone().unwrap_or_default()));
            }
            opened.push(Arc::new(Issuer::open(number, settings.clone(), cache)?));
        }
        Ok(Self::new(opened.into()))
    }

    /// Creates a verifier of tokens signed with HS256. White space at the secret's end is ignored.
    /// With an audience, tokens must name it; without one, tokens must not name any.
    ///
    /// # Errors
    ///
    /// If the secret is too short.
    pub fn from_secret(secret: &[u8], audience: Option<&str>) -> Result<Self, InvalidKey> {
        Self::fixed(vec![key::from_secret(secret)?], audience)
    }

    /// Creates a verifier of tokens signed with the private keys of these public keys in PEM:
    /// RS256, EdDSA, ES256 or ES384, depending on the key.
    ///
    /// # Errors
    ///
    /// If the text holds no supported key.
    pub fn from_public_key(pem: &[u8], audience: Option<&str>) -> Result<Self, InvalidKey> {
        Self::fixed(key::from_pem(pem)?, audience)
    }

    fn fixed(keys: Vec<key::VerificationKey>, audience: Option<&str>) -> Result<Self, InvalidKey> {
        let audience = audience.map(str::to_owned);
        let count = keys.len();
        let issuer = Issuer::fixed(IssuerSettings { audience, ..Default::default() }, keys)
            .map_err(|_| InvalidKey::TooMany(count))?;
        Ok(Self::new(Arc::new([Arc::new(issuer)])))
    }

    fn new(issuers: Arc<[Arc<Issuer>]>) -> Self {
        let metrics = Arc::default();
        let (waiting, tasks) = (Semaphore::new(MAX_WAITING), Mutex::default());
        let (min_refresh, patience) = (MIN_REFRESH, PATIENCE);
        Self { issuers, metrics, min_refresh, patience, waiting, tasks }
    }

    /// Sets the minimum time between two requests for the same key set, which is 5 s, and the time
    /// for which a request with a token waits for its end, which is 6 s.
    #[must_use]
    pub fn with_refresh_times(self, min_refresh: Duration, patience: Duration) -> Self {
        Self { min_refresh, patience, ..self }
    }

    /// Counts on these counters.
    #[must_use]
    pub fn with_metrics(self, metrics: Arc<KeyMetrics>) -> Self {
        Self { metrics, ..self }
    }

    /// Takes the place of a previous verifier: it counts on the counters of that one, and continues
    /// the key sets that have the same URLs, without fetching them anew.
    #[must_use]
    pub fn after(self, previous: &Self) -> Self {
        for issuer in &*self.issuers {
            for (number, set) in issuer.sets.iter().enumerate() {
                let same = previous.issuers.iter().find_map(|other| {
                    Some((other, other.sets.iter().position(|one| one.url == set.url)?))
                });
                if let Some((other, place)) = same {
                    issuer.continue_set(number, other, place);
                }
            }
        }
        self.with_metrics(previous.metrics())
    }

    /// Begins to refresh the key sets, in tasks that end when the verifier is dropped, and to call
    /// [`check_files`](Self::check_files) every second, in a thread of its own, which no shutdown
    /// waits for, since the disk may hang.
    ///
    /// # Panics
    ///
    /// If it is called outside of a runtime of tokio.
    pub fn start(&self) {
        let mut tasks = self.tasks.lock();
        for issuer in &*self.issuers {
            for number in 0..issuer.sets.len() {
                let (issuer, metrics) = (Arc::clone(issuer), Arc::clone(&self.metrics));
                tasks.spawn(keep_fresh(issuer, number, metrics, self.min_refresh));
            }
        }
        if self.issuers.iter().any(|issuer| issuer.has_files()) {
            let issuers = Arc::downgrade(&self.issuers);
            thread::spawn(move || {
                loop {
                    thread::sleep(CHECK_INTERVAL);
                    let Some(issuers) = issuers.upgrade() else { return };
                    check_files(&issuers);
                }
            });
        }
    }

    /// Reads the files of keys that have changed since the last call. If one cannot be used, its
    /// previous keys stay in use. Returns the number of files whose keys were replaced. Blocks.
    pub fn check_files(&self) -> usize {
        check_files(&self.issuers)
    }

    /// Verifies a token at the given time.
    ///
    /// # Errors
    ///
    /// If it is not valid.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Token, InvalidToken> {
        self.issuer_of(token)?.verify(token, now)
    }

    /// The issuer whose keys a token must match.
    fn issuer_of(&self, token: &str) -> Result<&Issuer, InvalidToken> {
        if let [only] = &*self.issuers {
            return Ok(only);
        }
        let claims = Unverified::of(token).ok_or(InvalidToken::Malformed)?;
        let named =
            |name: Option<&str>| self.issuers.iter().find(|one| one.name.as_deref() == name);
        let issuer = claims.issuer().and_then(|name| named(Some(name)));
        Ok(issuer.or_else(|| named(None)).ok_or(InvalidToken::Issuer)?)
    }

    /// Waits for newer keys of an issuer, after a token named one that is not known. At most a
    /// certain number of requests wait, and not for a key that the newest sets are known to lack.
    pub async fn wait_for_keys(&self, unknown: &UnknownKey) -> NewerKeys {
        let Some(issuer) = self.issuers.get(unknown.issuer) else { return NewerKeys::None };
        let id = unknown.id.as_deref().unwrap_or_default();
        if issuer.sets.is_empty() || issuer.is_missing(id) {
            return NewerKeys::None;
        }
        let Ok(_permit) = self.waiting.try_acquire() else { return NewerKeys::Unanswered };
        let refreshed = join_all(issuer.sets.iter().map(KeySet::refreshed));
        if timeout(self.patience, refreshed).await.is_err() {
            return NewerKeys::Unanswered;
        }
        issuer.note_missing(id);
        NewerKeys::Asked
    }

    /// Returns the URLs of the key sets whose last refresh has failed, and the reasons.
    pub fn failed_refreshes(&self) -> Vec<(Url, String)> {
        let sets = self.issuers.iter().flat_map(|issuer| &issuer.sets);
        sets.filter_map(|set| Some((set.name(), set.state()?.reported?))).collect()
    }

    /// The counters of the key sets.
    pub fn metrics(&self) -> Arc<KeyMetrics> {
        Arc::clone(&self.metrics)
    }
}

/// The result of a wait for newer keys of an issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewerKeys {
    /// The issuer has been asked. The token is worth another attempt.
    Asked,
    /// There are none.
    None,
    /// The issuer has not answered in time, or too many requests wait for it.
    Unanswered,
}

fn check_files(issuers: &[Arc<Issuer>]) -> usize {
    issuers.iter().map(|issuer| issuer.check_files()).sum()
}

impl fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenVerifier").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der},
        rsa::KeySize,
        signature::{
            ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair,
        },
    };
    use jsonwebtoken::{Algorithm, EncodingKey, Header};
    use serde_json::{Value, json};

    use super::*;

    const SECRET: &[u8; 32] = b"an example of a secret, 32 bytes";
    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn signed(claims: &Value) -> String {
        let key = EncodingKey::from_secret(SECRET);
        jsonwebtoken::encode(&Header::default(), claims, &key).unwrap()
    }

    fn check(claims: &Value, audience: Option<&str>) -> Result<Token, InvalidToken> {
        TokenVerifier::from_secret(SECRET, audience).unwrap().verify(&signed(claims), NOW)
    }

    #[test]
    fn claims_of_a_valid_token_are_read() {
        let claims = json!({"exp": 1000.5, "nbf": 1000, "sub": "shop", "publish": ["orders.>"]});
        let token = check(&claims, None).unwrap();
        assert_eq!(token.publisher, "token shop");
        assert_eq!(token.publish, ["orders.>".parse().unwrap()]);
        assert_eq!(token.subscribe, []);
        assert_eq!(token.expires, Timestamp::from_millis(1_005_500), "with the leeway");
        let nulls = json!({"exp": 1001, "nbf": null, "sub": null, "publish": null, "iat": 1e99});
        let token = check(&nulls, None).unwrap();
        assert_eq!((&*token.publisher, token.publish.len()), ("token ", 0));
        check(&json!({"exp": 1001, "aud": "clock"}), Some("clock")).unwrap();
        check(&json!({"exp": 1001, "aud": ["other", "clock"]}), Some("clock")).unwrap();
    }

    #[test]
    fn expired_early_and_malformed_tokens_are_refused() {
        let bad = |claims: Value| check(&claims, None).unwrap_err();
        let expired = InvalidToken::Expired(Timestamp::from_millis(995_000));
        assert_eq!(bad(json!({"exp": 995})), expired);
        assert_eq!(
            bad(json!({"exp": 1010, "nbf": 1006})),
            InvalidToken::NotYet(Timestamp::from_millis(1_006_000))
        );
        // In milliseconds, as JavaScript counts.
        let late = bad(json!({"exp": 1_795_388_500_000.0_f64, "nbf": 1_795_388_400_000.0_f64}));
        assert_eq!(late.to_string(), "it is not valid before 9999-12-31T23:59:59.999Z");
        for claims in [
            json!({}),
            json!({"exp": "tomorrow"}),
            json!({"exp": -1}),
            json!({"exp": 1001, "publish": "a"}),
            json!({"exp": 1001, "publish": [1]}),
            json!({"exp": 1001, "subscribe": ["a..b"]}),
        ] {
            let bad = bad(claims.clone());
            assert!(matches!(bad, InvalidToken::Claims(_)), "{claims}: {bad:?}");
        }
        assert_eq!(bad(json!({"exp": 1001, "aud": "other"})), InvalidToken::Audience);
        for claims in [json!({"exp": 1001}), json!({"exp": 1001, "aud": "other"})] {
            assert_eq!(check(&claims, Some("clock")).unwrap_err(), InvalidToken::Audience);
        }
    }

    #[test]
    fn clocks_may_differ_by_a_few_seconds() {
        let token = check(&json!({"exp": 996, "publish": ["a"]}), None).unwrap();
        assert_eq!(token.expires, Timestamp::from_millis(1_001_000));
        check(&json!({"exp": 1010, "nbf": 1005, "iat": 1005}), None).unwrap();
    }

    #[test]
    fn a_header_is_read_as_libraries_write_it() {
        let tokens = TokenVerifier::from_secret(SECRET, None).unwrap();
        let key = EncodingKey::from_secret(SECRET);
        let check = |header: &Header| {
            let token = jsonwebtoken::encode(header, &json!({"exp": 1001}), &key).unwrap();
            tokens.verify(&token, NOW).map(|token| token.expires)
        };
        let typed = |typ: Option<&str>| Header { typ: typ.map(str::to_owned), ..Header::default() };
        for header in [typed(None), typed(Some("jwt")), typed(Some("at+jwt"))] {
            check(&header).unwrap();
        }
        let text = || Some("2026-11".to_owned());
        check(&Header { kid: text(), cty: text(), x5t: text(), ..Header::default() }).unwrap();
        // Parameters that must be understood (RFC 7515, 4.1.11).
        for names in [vec![], vec!["exp".to_owned()], vec!["b64".to_owned()]] {
            let header = Header { crit: Some(names), ..Header::default() };
            assert_eq!(check(&header).unwrap_err(), InvalidToken::Critical);
        }
        // {"alg":"hs256"}, since names of algorithms are case-sensitive; and {"typ":"JWT"}.
        for header in ["eyJhbGciOiJoczI1NiJ9", "eyJ0eXAiOiJKV1QifQ"] {
            let error = tokens.verify(&format!("{header}.e30.x"), NOW).unwrap_err();
            assert!(matches!(error, InvalidToken::Header(_)), "{header}: {error}");
        }
    }

    #[test]
    fn a_signer_that_keeps_the_line_end_of_the_secret_is_told() {
        let file = [SECRET, &b"\n"[..]].concat();
        let key = EncodingKey::from_secret(&file);
        let token = jsonwebtoken::encode(&Header::default(), &json!({"exp": 1001}), &key).unwrap();
        let tokens = TokenVerifier::from_secret(&file, None).unwrap();
        let error = tokens.verify(&token, NOW).unwrap_err().to_string();
        assert!(error.contains("leaves out white space at the end of its secret file"), "{error}");
    }

    #[test]
    fn tokens_not_signed_by_the_key_are_refused() {
        let tokens = TokenVerifier::from_secret(SECRET, None).unwrap();
        let bad = |token: &str| tokens.verify(token, NOW).unwrap_err();
        for text in ["", "x", "a.b", "a.b.c", "a.b.c.d", "ä.ö.ü"] {
            assert_eq!(bad(text), InvalidToken::Malformed, "{text}");
        }
        let good = signed(&json!({"exp": 1001}));
        tokens.verify(&good, NOW).unwrap();
        let [head, claims, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!() };
        let signature_error = InvalidToken::Signature { is_secret: true };
        assert_eq!(bad(&format!("{head}.{claims}.")), signature_error);
        let other = signed(&json!({"exp": 9999}));
        let claims_of_other = other.split('.').nth(1).unwrap();
        assert_eq!(bad(&format!("{head}.{claims_of_other}.{signature}")), signature_error);
        // {"alg":"none"} and {"alg":"None","typ":"JWT"}: the oldest attack (RFC 8725, 2.1).
        for none in ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJOb25lIiwidHlwIjoiSldUIn0"] {
            for signature in ["", signature] {
                let bad = bad(&format!("{none}.{claims}.{signature}"));
                assert!(
                    matches!(bad, InvalidToken::Malformed | InvalidToken::Header(_)),
                    "{bad:?}"
                );
            }
        }
        let longer = jsonwebtoken::encode(
            &Header::new(Algorithm::HS512),
            &json!({"exp": 1001}),
            &EncodingKey::from_secret(SECRET),
        );
        assert_eq!(bad(&longer.unwrap()), InvalidToken::Algorithm(vec![Algorithm::HS256]));
    }

    fn pem(tag: &str, der: &[u8]) -> Vec<u8> {
        pem::encode(&pem::Pem::new(tag, der)).into_bytes()
    }

    #[test]
    fn each_kind_of_public_key_verifies_its_own_algorithm_only() {
        let public = |der: PublicKeyX509Der| pem("PUBLIC KEY", der.as_ref());
        let private = |der: &[u8]| pem("PRIVATE KEY", der);

        let ed = Ed25519KeyPair::generate().unwrap();
        let private_of_ed = private(ed.to_pkcs8v1().unwrap().as_ref());
        let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let private_of_p256 = private(ec.to_pkcs8v1().unwrap().as_ref());
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let private_of_rsa: Pkcs8V1Der = rsa.as_der().unwrap();
        let private_of_rsa = private(private_of_rsa.as_ref());
        let signers = [
            (
                public(ed.public_key().as_der().unwrap()),
                Algorithm::EdDSA,
                EncodingKey::from_ed_pem(&private_of_ed).unwrap(),
            ),
            (
                public(ec.public_key().as_der().unwrap()),
                Algorithm::ES256,
                EncodingKey::from_ec_pem(&private_of_p256).unwrap(),
            ),
            (
                public(rsa.public_key().as_der().unwrap()),
                Algorithm::RS256,
                EncodingKey::from_rsa_pem(&private_of_rsa).unwrap(),
            ),
        ];
        let claims = json!({"exp": 1001, "publish": ["t"]});
        for (public, algorithm, _) in &signers {
            let tokens = TokenVerifier::from_public_key(public, None).unwrap();
            for (_, other, key) in &signers {
                let token = jsonwebtoken::encode(&Header::new(*other), &claims, key).unwrap();
                let allowed = tokens.verify(&token, NOW).map(|token| token.publish.len());
                let expected = if other == algorithm {
                    Ok(1)
                } else {
                    Err(InvalidToken::Algorithm(vec![*algorithm]))
                };
                assert_eq!(allowed, expected, "{algorithm:?} {other:?}");
            }
            // The public key used as a secret, the second oldest attack (RFC 8725, 2.1).
            let forged = EncodingKey::from_secret(public);
            let forged = jsonwebtoken::encode(&Header::default(), &claims, &forged).unwrap();
            assert_eq!(
                tokens.verify(&forged, NOW).unwrap_err(),
                InvalidToken::Algorithm(vec![*algorithm])
            );
        }
    }

    #[test]
    fn unusable_keys_are_refused() {
        let short = TokenVerifier::from_secret(b"too short\n", None).unwrap_err();
        assert_eq!(short, InvalidKey::ShortSecret);
        TokenVerifier::from_secret(&[SECRET, &b"\r\n"[..]].concat(), None).unwrap();
        // Whoever knows a public key could sign with it.
        let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2Vw\n-----END PUBLIC KEY-----\n";
        let jwks = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": "x".repeat(43) }] });
        for public in [
            pem.to_owned(),
            format!("# The key of our issuer\n{pem}"),
            jwks.to_string(),
            format!("\n {}", jwks["keys"][0]),
            format!("ssh-ed25519 {}", "A".repeat(68)),
        ] {
            let refused = TokenVerifier::from_secret(public.as_bytes(), None).unwrap_err();
            assert_eq!(refused, InvalidKey::NotASecret, "{public}");
        }
        let none = TokenVerifier::from_public_key(SECRET, None).unwrap_err();
        assert_eq!(none, InvalidKey::NoPublicKey);
    }
}
