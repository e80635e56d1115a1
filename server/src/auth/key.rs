//! The keys that verify tokens, and the forms in which they come: a secret, public keys in PEM (RFC
//! 7468), and JWK Sets (RFC 7517). Each key has its own algorithms, so a public key can never serve
//! as a secret (RFC 8725, 3.1).

use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;

/// Minimum length of a secret, in bytes (RFC 7518, 3.2).
const MIN_SECRET: usize = 32;
/// The beginning of a key in PEM.
const BEGIN: &str = "-----BEGIN ";
/// Maximum number of keys in one file or set.
pub(super) const MAX_KEYS: usize = 100;
/// Maximum length of a file of keys, in bytes.
pub(super) const MAX_FILE: usize = 1 << 20;

/// A key that verifies tokens.
#[derive(Clone)]
pub(super) struct VerificationKey {
    /// Its `kid`. Keys in PEM and secrets have none.
    pub(super) id: Option<String>,
    pub(super) key: DecodingKey,
    /// At least one, all of the same family.
    pub(super) algorithms: Vec<Algorithm>,
}

/// A key that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// The secret is too short.
    #[error(
        "a secret must have at least {MIN_SECRET} bytes; `waterclock token key --algorithm hs256` \
         makes one"
    )]
    ShortSecret,
    /// The file of a secret holds another key, which others may know.
    #[error(
        "it holds a key in PEM, in JSON or for SSH, which is no secret: name a public key with \
         jwt-public-key-file, and a JWK Set with jwt-jwks"
    )]
    NotASecret,
    /// The file holds no supported public key.
    #[error("expected an RSA, Ed25519, P-256 or P-384 public key in PEM")]
    NoPublicKey,
    /// The file of public keys holds a private key.
    #[error("it holds a private key, and the server needs only the public one: keep it elsewhere")]
    PrivateKey,
    /// The text is no JWK Set.
    #[error("expected a JWK Set, which is an object with a list `keys`: {0}")]
    NotJwks(String),
    /// No key of the set can verify tokens.
    #[error(
        "none of its {0} keys can verify tokens: expected RSA (2048 to 8192 bits), EC or Ed25519"
    )]
    NoUsableKey(usize),
    /// There are too many keys.
    #[error("it holds {0} keys, and at most {MAX_KEYS} are allowed")]
    TooMany(usize),
    /// The file is too long.
    #[error("it is longer than {MAX_FILE} bytes")]
    TooLong,
}

/// Returns a secret for HS256, without the white space at its end.
///
/// # Errors
///
/// If it is too short, or another kind of key. Whoever knows a public key could sign with it.
pub(crate) fn secret_of(file: &[u8]) -> Result<&[u8], InvalidKey> {
    let is_json = serde_json::from_slice::<serde_json::Map<_, _>>(file).is_ok();
    let is_pem = file.windows(BEGIN.len()).any(|part| part == BEGIN.as_bytes());
    // As `ssh-keygen` writes public keys.
    let is_ssh = [&b"ssh-"[..], b"ecdsa-sha2-"].iter().any(|begin| file.starts_with(begin));
    if is_json || is_pem || is_ssh {
        return Err(InvalidKey::NotASecret);
    }
    let secret = file.trim_ascii_end();
    if secret.len() < MIN_SECRET { Err(InvalidKey::ShortSecret) } else { Ok(secret) }
}

/// Reads a secret for HS256.
pub(super) fn from_secret(file: &[u8]) -> Result<VerificationKey, InvalidKey> {
    let key = DecodingKey::from_secret(secret_of(file)?);
    Ok(VerificationKey { id: None, key, algorithms: vec![Algorithm::HS256] })
}

/// Reads all public keys of a file in PEM. Text around them is a comment.
pub(super) fn from_pem(text: &[u8]) -> Result<Vec<VerificationKey>, InvalidKey> {
    let text = str::from_utf8(text).map_err(|_| InvalidKey::NoPublicKey)?;
    let mut keys = Vec::new();
    for (start, _) in text.match_indices(BEGIN) {
        let block = &text[start..];
        let label = block[BEGIN.len()..].split("-----").next().unwrap_or_default();
        if label.ends_with("PRIVATE KEY") {
            return Err(InvalidKey::PrivateKey);
        }
        // `openssl ecparam` writes the name of the curve, too.
        if label != "EC PARAMETERS" {
            keys.push(from_pem_block(block.as_bytes()).ok_or(InvalidKey::NoPublicKey)?);
        }
    }
    match keys.len() {
        0 => Err(InvalidKey::NoPublicKey),
        count if count > MAX_KEYS => Err(InvalidKey::TooMany(count)),
        _ => Ok(keys),
    }
}

fn from_pem_block(block: &[u8]) -> Option<VerificationKey> {
    let rsa = || Some((DecodingKey::from_rsa_pem(block).ok()?, Algorithm::RS256));
    let ed = || Some((DecodingKey::from_ed_pem(block).ok()?, Algorithm::EdDSA));
    let ec = || {
        let key = DecodingKey::from_ec_pem(block).ok()?;
        let algorithm = match key.try_get_as_bytes().map(<[u8]>::len) {
            Ok(P256_POINT) => Algorithm::ES256,
            Ok(P384_POINT) => Algorithm::ES384,
            _ => return None,
        };
        Some((key, algorithm))
    };
    let (key, algorithm) = rsa().or_else(ed).or_else(ec)?;
    Some(VerificationKey { id: None, key, algorithms: vec![algorithm] })
}

/// Length of an uncompressed point of P-256, in bytes (SEC 1, 2.3.3).
const P256_POINT: usize = 65;
/// The same of P-384.
const P384_POINT: usize = 97;

/// Reads the keys of a JWK Set that can verify tokens. Others are skipped (RFC 7517, 5).
pub(super) fn from_jwks(text: &[u8]) -> Result<Vec<VerificationKey>, InvalidKey> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let Set { keys } =
        serde_json::from_slice(text).map_err(|why| InvalidKey::NotJwks(why.to_string()))?;
    if keys.len() > MAX_KEYS {
        return Err(InvalidKey::TooMany(keys.len()));
    }
    let count = keys.len();
    let keys: Vec<_> = keys.into_iter().filter_map(from_jwk).collect();
    if keys.is_empty() { Err(InvalidKey::NoUsableKey(count)) } else { Ok(keys) }
}

/// Reads a key of a set, or returns `None` if it is not for verifying tokens. A secret (`oct`) is
/// never taken from a set, since most sets are public.
fn from_jwk(jwk: serde_json::Value) -> Option<VerificationKey> {
    let jwk: Jwk = serde_json::from_value(jwk).ok()?;
    let common = &jwk.common;
    let is_for_signatures =
        common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
    let verifies = common
        .key_operations
        .as_ref()
        .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    if !is_for_signatures || !verifies {
        return None;
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    let algorithms: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => match key.kind() {
            // A zero may come before the modulus.
            DecodingKeyKind::RsaModulusExponent { n, .. } if (256..=1025).contains(&n.len()) => &[
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ],
            _ => return None,
        },
        AlgorithmParameters::EllipticCurve(of) => {
            match (&of.curve, key.try_get_as_bytes().ok()?.len()) {
                (EllipticCurve::P256, P256_POINT) => &[Algorithm::ES256],
                (EllipticCurve::P384, P384_POINT) => &[Algorithm::ES384],
                _ => return None,
            }
        }
        AlgorithmParameters::OctetKeyPair(of)
            if of.curve == EllipticCurve::Ed25519 && key.try_get_as_bytes().ok()?.len() == 32 =>
        {
            &[Algorithm::EdDSA]
        }
        _ => return None,
    };
    let algorithms = match common.key_algorithm {
        None => algorithms.to_vec(),
        Some(only) => {
            let only = Algorithm::try_from(only).ok()?;
            vec![*algorithms.iter().find(|&&algorithm| algorithm == only)?]
        }
    };
    Some(VerificationKey { id: jwk.common.key_id, key, algorithms })
}
