//! Tokens permit other machines to read and publish. They are JSON Web Tokens (RFC 7519), signed by
//! the operator, with the claims `publish` and `subscribe` (lists of patterns), `exp`, and `sub`,
//! which identifies a publisher. They are never printed.

use std::fmt;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode_header, errors::ErrorKind};
use serde::Deserialize;
use waterclock::{
    pattern::{InvalidPattern, Pattern},
    timestamp::Timestamp,
};

/// Minimum length of a secret, in bytes (RFC 7518, 3.2).
const MIN_SECRET: usize = 32;
/// Tolerated difference between the clocks of the signer and of this server, in seconds (RFC 7519,
/// 4.1.4).
const LEEWAY: f64 = 5.0;

/// Verifies tokens with one key.
pub struct TokenVerifier {
    key: DecodingKey,
    validation: Validation,
}

/// The permissions of a valid token.
#[derive(Debug)]
pub struct Token {
    /// Identity of the publisher, from `sub`.
    pub publisher: String,
    /// Patterns of topics that the bearer may publish to.
    pub publish: Vec<Pattern>,
    /// Patterns of topics that the bearer may read.
    pub subscribe: Vec<Pattern>,
    /// Time at which the permissions end: a moment after `exp`, in case the signer's clock is late.
    pub expires: Timestamp,
}

/// A token that is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// `Authorization` has another scheme, or there are several.
    #[error("`Authorization` must be given once, as `Bearer` and a token")]
    NotBearer,
    /// The text is not a JSON Web Token.
    #[error("it is not a JSON Web Token")]
    Malformed,
    /// The token is not signed, or with another algorithm.
    #[error("it is not signed with {0:?}")]
    Algorithm(Algorithm),
    /// The signature does not match the key.
    #[error("its signature does not match this server's key{}", hint_on_secret(*.is_secret))]
    Signature {
        /// `true` if the key is a secret, and not a public key.
        is_secret: bool,
    },
    /// The header cannot be read.
    #[error("its header cannot be read: {0}")]
    Header(String),
    /// The header has parameters that must be understood (RFC 7515, 4.1.11).
    #[error("its header says `crit`, and this server understands no extension of tokens")]
    Critical,
    /// The token has expired.
    #[error("it expired at {0}")]
    Expired(Timestamp),
    /// The token is not valid yet.
    #[error("it is not valid before {0}")]
    NotYet(Timestamp),
    /// The token is for another audience.
    #[error("its `aud` is not this server's audience")]
    Audience,
    /// The claims are missing or malformed.
    #[error("{0}")]
    Claims(String),
}

/// A key that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// The secret is too short.
    #[error("a secret must have at least {MIN_SECRET} bytes, as `openssl rand -hex 32` prints")]
    ShortSecret,
    /// The file holds no supported public key.
    #[error("expected an RSA, Ed25519 or P-256 public key in PEM")]
    NoPublicKey,
}

#[derive(Deserialize)]
struct Claims {
    exp: f64,
    // Some libraries write `null` for a claim that is not set.
    nbf: Option<f64>,
    sub: Option<String>,
    publish: Option<Vec<String>>,
    subscribe: Option<Vec<String>>,
}

impl TokenVerifier {
    /// Creates a verifier of tokens signed with HS256. White space at the secret's end is ignored.
    /// With an audience, tokens must name it; without one, tokens must not name any.
    ///
    /// # Errors
    ///
    /// If the secret is too short.
    pub fn from_secret(secret: &[u8], audience: Option<&str>) -> Result<Self, InvalidKey> {
        let secret = secret.trim_ascii_end();
        if secret.len() < MIN_SECRET {
            return Err(InvalidKey::ShortSecret);
        }
        Ok(Self::new(DecodingKey::from_secret(secret), Algorithm::HS256, audience))
    }

    /// Creates a verifier of tokens signed with RS256, EdDSA or ES256, depending on the public key.
    ///
    /// # Errors
    ///
    /// If the file holds no supported key.
    pub fn from_public_key(pem: &[u8], audience: Option<&str>) -> Result<Self, InvalidKey> {
        let key = DecodingKey::from_rsa_pem(pem).map(|key| (key, Algorithm::RS256));
        let key = key.or_else(|_| DecodingKey::from_ed_pem(pem).map(|key| (key, Algorithm::EdDSA)));
        let key = key.or_else(|_| DecodingKey::from_ec_pem(pem).map(|key| (key, Algorithm::ES256)));
        let (key, algorithm) = key.map_err(|_| InvalidKey::NoPublicKey)?;
        Ok(Self::new(key, algorithm, audience))
    }

    fn new(key: DecodingKey, algorithm: Algorithm, audience: Option<&str>) -> Self {
        let mut validation = Validation::new(algorithm);
        if let Some(audience) = audience {
            validation.set_audience(&[audience]);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        // `verify` checks the expiry against the time it is given, which tests set.
        validation.validate_exp = false;
        Self { key, validation }
    }

    /// Verifies a token at the given time.
    ///
    /// # Errors
    ///
    /// If it is not valid.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Token, InvalidToken> {
        let decoded = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation);
        let decoded = decoded.map_err(|error| self.invalid(token, error.kind()))?;
        if decoded.header.crit.is_some() {
            return Err(InvalidToken::Critical);
        }
        let claims = decoded.claims;
        let expires = time(claims.exp + LEEWAY);
        if expires <= now {
            return Err(InvalidToken::Expired(time(claims.exp)));
        }
        if let Some(from) = claims.nbf.filter(|from| time(from - LEEWAY) > now) {
            return Err(InvalidToken::NotYet(time(from)));
        }
        Ok(Token {
            publisher: format!("token {}", claims.sub.unwrap_or_default()),
            publish: patterns("publish", &claims.publish.unwrap_or_default())?,
            subscribe: patterns("subscribe", &claims.subscribe.unwrap_or_default())?,
            expires,
        })
    }

    fn invalid(&self, token: &str, kind: &ErrorKind) -> InvalidToken {
        let algorithm = self.validation.algorithms[0];
        match kind {
            ErrorKind::InvalidSignature => {
                InvalidToken::Signature { is_secret: algorithm == Algorithm::HS256 }
            }
            ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => {
                InvalidToken::Algorithm(algorithm)
            }
            ErrorKind::InvalidAudience => InvalidToken::Audience,
            ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => InvalidToken::Audience,
            ErrorKind::MissingRequiredClaim(claim) => {
                InvalidToken::Claims(format!("it has no valid `{claim}`"))
            }
            // The errors reveal only text of the bearer's own token.
            ErrorKind::Json(error) if error.is_data() && decode_header(token).is_err() => {
                InvalidToken::Header(error.to_string())
            }
            ErrorKind::Json(error) if error.is_data() => {
                InvalidToken::Claims(format!("its claims cannot be read: {error}"))
            }
            _ => InvalidToken::Malformed,
        }
    }
}

impl fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenVerifier").finish_non_exhaustive()
    }
}

fn hint_on_secret(is_secret: bool) -> &'static str {
    if is_secret {
        ". The server leaves out white space at the end of its secret file, such as the last line \
         end, and the signer must do the same"
    } else {
        ""
    }
}

/// Converts a numeric date: seconds since 1970, possibly with a fraction (RFC 7519, 2).
fn time(seconds: f64) -> Timestamp {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "values out of range are clamped"
    )]
    Timestamp::from_millis((seconds * 1000.0) as u64)
}

fn patterns(claim: &str, list: &[String]) -> Result<Vec<Pattern>, InvalidToken> {
    let pattern = |text: &String| {
        let bad =
            |InvalidPattern| format!("its `{claim}` lists {text:?}, which is {InvalidPattern}");
        text.parse().map_err(|why| InvalidToken::Claims(bad(why)))
    };
    list.iter().map(pattern).collect()
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
    use jsonwebtoken::{EncodingKey, Header};
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
        assert_eq!(bad(&longer.unwrap()), InvalidToken::Algorithm(Algorithm::HS256));
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
                    Err(InvalidToken::Algorithm(*algorithm))
                };
                assert_eq!(allowed, expected, "{algorithm:?} {other:?}");
            }
            // The public key used as a secret, the second oldest attack (RFC 8725, 2.1).
            let forged = EncodingKey::from_secret(public);
            let forged = jsonwebtoken::encode(&Header::default(), &claims, &forged).unwrap();
            assert_eq!(
                tokens.verify(&forged, NOW).unwrap_err(),
                InvalidToken::Algorithm(*algorithm)
            );
        }
    }

    #[test]
    fn unusable_keys_are_refused() {
        let short = TokenVerifier::from_secret(b"too short\n", None).unwrap_err();
        assert_eq!(short, InvalidKey::ShortSecret);
        TokenVerifier::from_secret(&[SECRET, &b"\r\n"[..]].concat(), None).unwrap();
        let none = TokenVerifier::from_public_key(SECRET, None).unwrap_err();
        assert_eq!(none, InvalidKey::NoPublicKey);
    }
}
