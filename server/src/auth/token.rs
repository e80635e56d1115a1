//! Tokens permit other machines to read and publish. They are JSON Web Tokens (RFC 7519), signed by
//! the operator or by an issuer, with the claims `publish` and `subscribe` (lists of patterns),
//! `exp`, and `sub`, which identifies a publisher. They are never printed.

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode_header, errors::ErrorKind};
use serde::Deserialize;
use waterclock::{
    pattern::{InvalidPattern, Pattern},
    timestamp::Timestamp,
};

/// Tolerated difference between the clocks of the signer and of this server, in seconds (RFC 7519,
/// 4.1.4).
const LEEWAY: f64 = 5.0;

/// The permissions of a valid token.
#[derive(Debug)]
pub struct Token {
    /// Identity of the publisher, from `sub`, and from `iss` if the issuer has a name.
    pub publisher: String,
    /// Patterns of topics that the bearer may publish to.
    pub publish: Vec<Pattern>,
    /// Patterns of topics that the bearer may read.
    pub subscribe: Vec<Pattern>,
    /// `true` if the issuer's bounds leave out something that the token lists.
    pub is_bounded: bool,
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
    /// The token is not signed, or with another algorithm than those of the keys.
    #[error("it is not signed with {}", list(.0))]
    Algorithm(Vec<Algorithm>),
    /// The signature does not match the key.
    #[error("its signature does not match this server's key{}", hint_on_secret(*.is_secret))]
    Signature {
        /// `true` if a key is a secret, and not a public key.
        is_secret: bool,
    },
    /// The issuer's keys, as far as they are known, do not verify the token.
    #[error("{0}")]
    UnknownKey(UnknownKey),
    /// No issuer has the name in `iss`.
    #[error("its `iss` is not an issuer that this server trusts")]
    Issuer,
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

/// A key that is not among those of a token's issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKey {
    /// Number of the issuer in the verifier.
    pub(super) issuer: usize,
    /// The token's `kid`.
    pub(super) id: Option<String>,
    /// `true` if the issuer could not be asked for its newest keys.
    pub(super) is_away: bool,
}

impl std::fmt::Display for UnknownKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.id {
            Some(id) => write!(f, "its `kid` {id:?} is not the name of a key of its issuer")?,
            None => f.write_str("its signature does not match any key of its issuer")?,
        }
        if self.is_away {
            f.write_str(", which cannot be asked for newer ones at present")?;
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Claims {
    exp: f64,
    // Some libraries write `null` for a claim that is not set.
    nbf: Option<f64>,
    sub: Option<String>,
    publish: Option<Vec<String>>,
    subscribe: Option<Vec<String>>,
    // Of any type, since it counts only if the issuer has a name.
    iss: Option<serde_json::Value>,
}

/// Returns the rules of a token's signature and audience. With an audience, tokens must name it;
/// without one, tokens must not name any.
///
/// # Panics
///
/// If `algorithms` is empty.
pub(super) fn validation(algorithms: &[Algorithm], audience: Option<&str>) -> Validation {
    let mut validation = Validation::new(algorithms[0]);
    validation.algorithms = algorithms.to_vec();
    if let Some(audience) = audience {
        validation.set_audience(&[audience]);
        validation.required_spec_claims.insert("aud".to_owned());
    }
    // `verify` checks the expiry against the time it is given, which tests set.
    validation.validate_exp = false;
    validation
}

/// Verifies a token with one key at the given time. If the issuer has a name, the token must have
/// it.
pub(super) fn verify(
    token: &str,
    key: &DecodingKey,
    validation: &Validation,
    issuer: Option<&str>,
    now: Timestamp,
) -> Result<Token, InvalidToken> {
    let decoded = jsonwebtoken::decode::<Claims>(token, key, validation);
    let decoded = decoded.map_err(|error| invalid(token, error.kind(), validation))?;
    if decoded.header.crit.is_some() {
        return Err(InvalidToken::Critical);
    }
    permissions(decoded.claims, issuer, now)
}

/// Returns the permissions that a token claims, without any check of its signature, its audience
/// and its issuer. It is for explanations only.
///
/// # Errors
///
/// If the token is not valid, whoever signed it.
pub fn claimed_permissions(token: &str, now: Timestamp) -> Result<Token, InvalidToken> {
    let decoded = jsonwebtoken::dangerous::insecure_decode::<Claims>(token);
    let decoded = decoded.map_err(|error| invalid(token, error.kind(), &Validation::default()))?;
    if decoded.header.crit.is_some() {
        return Err(InvalidToken::Critical);
    }
    permissions(decoded.claims, None, now)
}

/// Checks the claims of a token.
fn permissions(
    claims: Claims,
    issuer: Option<&str>,
    now: Timestamp,
) -> Result<Token, InvalidToken> {
    if issuer.is_some() && issuer != claims.iss.as_ref().and_then(|iss| iss.as_str()) {
        return Err(InvalidToken::Issuer);
    }
    let expires = time(claims.exp + LEEWAY);
    if expires <= now {
        return Err(InvalidToken::Expired(time(claims.exp)));
    }
    if let Some(from) = claims.nbf.filter(|from| time(from - LEEWAY) > now) {
        return Err(InvalidToken::NotYet(time(from)));
    }
    let subject = claims.sub.unwrap_or_default();
    Ok(Token {
        publisher: match issuer {
            None => format!("token {subject}"),
            // No subject of another issuer can look the same: the name is quoted, and the first
            // word differs.
            Some(issuer) => format!("issuer {issuer:?} {subject}"),
        },
        publish: patterns("publish", &claims.publish.unwrap_or_default())?,
        subscribe: patterns("subscribe", &claims.subscribe.unwrap_or_default())?,
        is_bounded: false,
        expires,
    })
}

/// Returns the error of a token whose header cannot be read.
pub(super) fn invalid_header(token: &str, kind: &ErrorKind) -> InvalidToken {
    match kind {
        // The errors reveal only text of the bearer's own token.
        ErrorKind::Json(error) if error.is_data() && decode_header(token).is_err() => {
            InvalidToken::Header(error.to_string())
        }
        _ => InvalidToken::Malformed,
    }
}

fn invalid(token: &str, kind: &ErrorKind, validation: &Validation) -> InvalidToken {
    let algorithms = &validation.algorithms;
    match kind {
        ErrorKind::InvalidSignature => {
            InvalidToken::Signature { is_secret: algorithms.contains(&Algorithm::HS256) }
        }
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => {
            InvalidToken::Algorithm(algorithms.clone())
        }
        ErrorKind::InvalidAudience => InvalidToken::Audience,
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => InvalidToken::Audience,
        ErrorKind::MissingRequiredClaim(claim) => {
            InvalidToken::Claims(format!("it has no valid `{claim}`"))
        }
        ErrorKind::Json(error) if error.is_data() && decode_header(token).is_ok() => {
            InvalidToken::Claims(format!("its claims cannot be read: {error}"))
        }
        kind => invalid_header(token, kind),
    }
}

/// The claims of a token that are read before its signature is verified. They decide which keys are
/// tried, and nothing else.
#[derive(Deserialize)]
pub(super) struct Unverified {
    #[serde(default)]
    iss: serde_json::Value,
    #[serde(default)]
    exp: serde_json::Value,
}

impl Unverified {
    /// Reads them, without any check.
    pub(super) fn of(token: &str) -> Option<Self> {
        jsonwebtoken::dangerous::insecure_decode_claims(token).ok()
    }

    /// The claim `iss`.
    pub(super) fn issuer(&self) -> Option<&str> {
        self.iss.as_str()
    }

    /// Returns the error of a token that has expired, whoever signed it.
    pub(super) fn expired(&self, now: Timestamp) -> Option<InvalidToken> {
        let expires = self.exp.as_f64()?;
        (time(expires + LEEWAY) <= now).then(|| InvalidToken::Expired(time(expires)))
    }
}

fn list(algorithms: &[Algorithm]) -> String {
    let names: Vec<_> = algorithms.iter().map(|algorithm| format!("{algorithm:?}")).collect();
    names.join(" or ")
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
