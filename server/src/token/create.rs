//! `waterclock token create`: a signed token.

use std::path::Path;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use waterclock::{pattern::Pattern, timestamp::Timestamp};

use super::{TokenToolError, args::CreateToken, read};
use crate::auth::secret_of;

#[derive(Serialize)]
struct NewClaims<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    publish: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscribe: Vec<String>,
}

/// Returns the token.
pub(super) fn run(options: &CreateToken, now: Timestamp) -> Result<String, TokenToolError> {
    if options.publish.is_empty() && options.subscribe.is_empty() {
        return Err(TokenToolError::PermitsNothing);
    }
    let texts = |list: &[Pattern]| list.iter().map(ToString::to_string).collect();
    let iat = now.as_millis() / 1000;
    let claims = NewClaims {
        iss: options.issuer.as_deref(),
        sub: options.subject.as_deref(),
        aud: options.audience.as_deref(),
        iat,
        exp: iat + options.expires.as_secs(),
        publish: texts(&options.publish),
        subscribe: texts(&options.subscribe),
    };
    let sign = |algorithm, key: &EncodingKey| {
        let header = Header { kid: options.kid.clone(), ..Header::new(algorithm) };
        jsonwebtoken::encode(&header, &claims, key)
    };
    if let Some(file) = &options.secret_file {
        let read = read(file)?;
        let secret =
            secret_of(&read).map_err(|why| TokenToolError::Secret { file: file.clone(), why })?;
        return Ok(sign(Algorithm::HS256, &EncodingKey::from_secret(secret))?);
    }
    // The command line requires one of the two.
    let file = options.private_key.as_deref().unwrap_or(Path::new(""));
    let pem = read(file)?;
    let candidates = [
        (EncodingKey::from_ed_pem(&pem), Algorithm::EdDSA),
        (EncodingKey::from_ec_pem(&pem), Algorithm::ES256),
        (EncodingKey::from_ec_pem(&pem), Algorithm::ES384),
        (EncodingKey::from_rsa_pem(&pem), Algorithm::RS256),
    ];
    let mut signed = candidates.into_iter().filter_map(|(key, algorithm)| {
        // A key of the other curve fails here.
        sign(algorithm, &key.ok()?).ok()
    });
    signed.next().ok_or_else(|| TokenToolError::NotPrivate(file.to_owned()))
}
