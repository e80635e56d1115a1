//! Tokens: what others than this machine may do, signed by who runs the server. They are JSON Web Tokens
//! (RFC 7519) with the claims `publish` and `subscribe`, each a list of patterns, `exp`, and `sub`, which
//! tells one publisher from another. They are never logged.

use std::fmt;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, errors::ErrorKind};
use serde::Deserialize;
use waterclock::{
    pattern::{InvalidPattern, Pattern},
    timestamp::Timestamp,
};

/// How long a secret is at least, in bytes (RFC 7518, 3.2).
const MIN_SECRET: usize = 32;

/// By what tokens are checked.
pub struct Tokens {
    key: DecodingKey,
    validation: Validation,
}

/// What a token allows.
#[derive(Debug)]
pub struct Token {
    /// Whose it is: its `sub`.
    pub publisher: String,
    /// What may be published to.
    pub publish: Vec<Pattern>,
    /// What may be read.
    pub subscribe: Vec<Pattern>,
    /// Until when.
    pub expires: Timestamp,
}

/// Why a token allows nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// Something else is in `Authorization`.
    #[error("`Authorization` is not `Bearer` and a token")]
    NotBearer,
    /// It is no token.
    #[error("it is no JSON Web Token")]
    Malformed,
    /// It is not signed, or in another way.
    #[error("it is not signed with {0:?}")]
    Algorithm(Algorithm),
    /// Another key has signed it, or it was changed.
    #[error("its signature is not by this server's key")]
    Signature,
    /// Its time is over.
    #[error("it expired at {0}")]
    Expired(Timestamp),
    /// Its time is yet to come.
    #[error("it is valid from {0} on")]
    NotYet(Timestamp),
    /// It is for somebody else.
    #[error("its `aud` is not this server's audience")]
    Audience,
    /// What it says is not what such a token says.
    #[error("{0}")]
    Claims(String),
}

/// Why a key cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// Too short.
    #[error(
        "a secret has at least {MIN_SECRET} bytes; `openssl rand -hex 32` writes one, for instance"
    )]
    ShortSecret,
    /// None of those there are.
    #[error("an RSA, Ed25519 or P-256 public key in PEM is needed")]
    NoPublicKey,
}

#[derive(Deserialize)]
struct Claims {
    exp: f64,
    nbf: Option<f64>,
    #[serde(default)]
    sub: String,
    #[serde(default)]
    publish: Vec<String>,
    #[serde(default)]
    subscribe: Vec<String>,
}

impl Tokens {
    /// Tokens that are signed with HS256 and that secret, without the line feed at its end. With an
    /// audience they are for that one only, without for none.
    ///
    /// # Errors
    ///
    /// If it is too short.
    pub fn from_secret(secret: &[u8], audience: Option<&str>) -> Result<Self, BadKey> {
        let secret = secret.trim_ascii_end();
        if secret.len() < MIN_SECRET {
            return Err(BadKey::ShortSecret);
        }
        Ok(Self::new(DecodingKey::from_secret(secret), Algorithm::HS256, audience))
    }

    /// Tokens that are signed with RS256, EdDSA or ES256, as the public key is.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub fn from_public_key(pem: &[u8], audience: Option<&str>) -> Result<Self, BadKey> {
        let key = DecodingKey::from_rsa_pem(pem).map(|key| (key, Algorithm::RS256));
        let key = key.or_else(|_| DecodingKey::from_ed_pem(pem).map(|key| (key, Algorithm::EdDSA)));
        let key = key.or_else(|_| DecodingKey::from_ec_pem(pem).map(|key| (key, Algorithm::ES256)));
        let (key, algorithm) = key.map_err(|_| BadKey::NoPublicKey)?;
        Ok(Self::new(key, algorithm, audience))
    }

    fn new(key: DecodingKey, algorithm: Algorithm, audience: Option<&str>) -> Self {
        let mut validation = Validation::new(algorithm);
        if let Some(audience) = audience {
            validation.set_audience(&[audience]);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        // By the hub's time, which a test sets.
        validation.validate_exp = false;
        Self { key, validation }
    }

    /// What that token allows at that time.
    ///
    /// # Errors
    ///
    /// If it allows nothing.
    pub fn check(&self, token: &str, now: Timestamp) -> Result<Token, BadToken> {
        let claims = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation);
        let claims = claims.map_err(|error| self.bad(error.kind()))?.claims;
        let expires = time(claims.exp);
        if expires <= now {
            return Err(BadToken::Expired(expires));
        }
        if let Some(from) = claims.nbf.map(time).filter(|from| *from > now) {
            return Err(BadToken::NotYet(from));
        }
        Ok(Token {
            publisher: format!("token {}", claims.sub),
            publish: patterns("publish", &claims.publish)?,
            subscribe: patterns("subscribe", &claims.subscribe)?,
            expires,
        })
    }

    fn bad(&self, kind: &ErrorKind) -> BadToken {
        let algorithm = self.validation.algorithms[0];
        match kind {
            ErrorKind::InvalidSignature => BadToken::Signature,
            ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => {
                BadToken::Algorithm(algorithm)
            }
            ErrorKind::InvalidAudience => BadToken::Audience,
            ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => BadToken::Audience,
            ErrorKind::MissingRequiredClaim(claim) => {
                BadToken::Claims(format!("it has no valid `{claim}`"))
            }
            // Serde says which claim, and nothing of the token's text that is not its owner's to see.
            ErrorKind::Json(error) if error.is_data() => {
                BadToken::Claims(format!("its claims cannot be read: {error}"))
            }
            _ => BadToken::Malformed,
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

/// A time as tokens have it: in seconds since 1970, perhaps with a fraction (RFC 7519, 2).
fn time(seconds: f64) -> Timestamp {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "what is out of range becomes the nearest time that there is"
    )]
    Timestamp::from_millis((seconds * 1000.0) as u64)
}

fn patterns(claim: &str, list: &[String]) -> Result<Vec<Pattern>, BadToken> {
    let pattern = |text: &String| {
        let bad =
            |InvalidPattern| format!("its `{claim}` lists {text:?}, which is {InvalidPattern}");
        text.parse().map_err(|why| BadToken::Claims(bad(why)))
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

    fn check(claims: &Value, audience: Option<&str>) -> Result<Token, BadToken> {
        Tokens::from_secret(SECRET, audience).unwrap().check(&signed(claims), NOW)
    }

    #[test]
    fn what_a_token_allows() {
        let claims = json!({"exp": 1000.5, "nbf": 1000, "sub": "shop", "publish": ["orders.>"]});
        let token = check(&claims, None).unwrap();
        assert_eq!(token.publisher, "token shop");
        assert_eq!(token.publish, ["orders.>".parse().unwrap()]);
        assert_eq!(token.subscribe, []);
        assert_eq!(token.expires, Timestamp::from_millis(1_000_500));
        check(&json!({"exp": 1001, "aud": "clock"}), Some("clock")).unwrap();
        check(&json!({"exp": 1001, "aud": ["other", "clock"]}), Some("clock")).unwrap();
    }

    #[test]
    fn what_allows_nothing() {
        let bad = |claims: Value| check(&claims, None).unwrap_err();
        assert_eq!(bad(json!({"exp": 1000})), BadToken::Expired(NOW));
        assert_eq!(
            bad(json!({"exp": 1002, "nbf": 1001})),
            BadToken::NotYet(Timestamp::from_millis(1_001_000))
        );
        // As JavaScript counts, in milliseconds.
        let late = bad(json!({"exp": 1_795_388_500_000.0_f64, "nbf": 1_795_388_400_000.0_f64}));
        assert_eq!(late.to_string(), "it is valid from 9999-12-31T23:59:59.999Z on");
        for claims in [
            json!({}),
            json!({"exp": "tomorrow"}),
            json!({"exp": -1}),
            json!({"exp": 1001, "publish": "a"}),
            json!({"exp": 1001, "publish": [1]}),
            json!({"exp": 1001, "subscribe": ["a..b"]}),
        ] {
            let bad = bad(claims.clone());
            assert!(matches!(bad, BadToken::Claims(_)), "{claims}: {bad:?}");
        }
        assert_eq!(bad(json!({"exp": 1001, "aud": "other"})), BadToken::Audience);
        for claims in [json!({"exp": 1001}), json!({"exp": 1001, "aud": "other"})] {
            assert_eq!(check(&claims, Some("clock")).unwrap_err(), BadToken::Audience);
        }
    }

    #[test]
    fn what_is_not_signed_by_this_key() {
        let tokens = Tokens::from_secret(SECRET, None).unwrap();
        let bad = |token: &str| tokens.check(token, NOW).unwrap_err();
        for text in ["", "x", "a.b", "a.b.c", "a.b.c.d", "ä.ö.ü"] {
            assert_eq!(bad(text), BadToken::Malformed, "{text}");
        }
        let good = signed(&json!({"exp": 1001}));
        tokens.check(&good, NOW).unwrap();
        let [head, claims, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!() };
        assert_eq!(bad(&format!("{head}.{claims}.")), BadToken::Signature);
        let other = signed(&json!({"exp": 9999}));
        let claims_of_other = other.split('.').nth(1).unwrap();
        assert_eq!(bad(&format!("{head}.{claims_of_other}.{signature}")), BadToken::Signature);
        // {"alg":"none"} and {"alg":"None","typ":"JWT"}: the oldest trick (RFC 8725, 2.1).
        for none in ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJOb25lIiwidHlwIjoiSldUIn0"] {
            for signature in ["", signature] {
                let bad = bad(&format!("{none}.{claims}.{signature}"));
                assert!(matches!(bad, BadToken::Malformed | BadToken::Claims(_)), "{bad:?}");
            }
        }
        let longer = jsonwebtoken::encode(
            &Header::new(Algorithm::HS512),
            &json!({"exp": 1001}),
            &EncodingKey::from_secret(SECRET),
        );
        assert_eq!(bad(&longer.unwrap()), BadToken::Algorithm(Algorithm::HS256));
    }

    fn pem(tag: &str, der: &[u8]) -> Vec<u8> {
        pem::encode(&pem::Pem::new(tag, der)).into_bytes()
    }

    #[test]
    fn what_is_signed_by_the_owner_of_a_public_key() {
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
            let tokens = Tokens::from_public_key(public, None).unwrap();
            for (_, other, key) in &signers {
                let token = jsonwebtoken::encode(&Header::new(*other), &claims, key).unwrap();
                let allowed = tokens.check(&token, NOW).map(|token| token.publish.len());
                let expected =
                    if other == algorithm { Ok(1) } else { Err(BadToken::Algorithm(*algorithm)) };
                assert_eq!(allowed, expected, "{algorithm:?} {other:?}");
            }
            // The public key taken for a secret, the second oldest trick (RFC 8725, 2.1).
            let forged = EncodingKey::from_secret(public);
            let forged = jsonwebtoken::encode(&Header::default(), &claims, &forged).unwrap();
            assert_eq!(tokens.check(&forged, NOW).unwrap_err(), BadToken::Algorithm(*algorithm));
        }
    }

    #[test]
    fn keys() {
        let short = Tokens::from_secret(b"too short\n", None).unwrap_err();
        assert_eq!(short, BadKey::ShortSecret);
        Tokens::from_secret(&[SECRET, &b"\r\n"[..]].concat(), None).unwrap();
        let none = Tokens::from_public_key(SECRET, None).unwrap_err();
        assert_eq!(none, BadKey::NoPublicKey);
    }
}
