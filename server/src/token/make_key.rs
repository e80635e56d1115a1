//! `waterclock token key`: new keys in files that only this user may read.

use std::{
    ffi::OsString,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{SHA256, digest};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{Jwk, JwkSet, PublicKeyUse},
};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};

use super::{
    TokenToolError,
    args::{KeyKind, MakeKey},
};

/// Mode of files that only this user may read.
const PRIVATE: u32 = 0o600;
/// Mode of files that everybody may read.
const PUBLIC: u32 = 0o644;

/// Makes the files. Returns the text that says what to do with them.
pub(super) fn run(options: &MakeKey) -> Result<String, TokenToolError> {
    let file = |end: &str| {
        let mut name = OsString::from(&options.output);
        name.push(end);
        PathBuf::from(name)
    };
    let (pair, algorithm) = match options.algorithm {
        KeyKind::Hs256 => {
            let secret = file(".secret");
            write_new(&[(&secret, PRIVATE, &new_secret()?)])?;
            let secret = secret.display();
            return Ok(format!(
                "{secret}: the secret, for the server and the signer only\n\n\
                 Start the server with: waterclock --jwt-secret-file {secret}\n\
                 Make a token with: waterclock token create --secret-file {secret} --publish TOPIC"
            ));
        }
        KeyKind::Es256 => (KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?, Algorithm::ES256),
        KeyKind::Eddsa => (KeyPair::generate_for(&PKCS_ED25519)?, Algorithm::EdDSA),
    };
    let public_pem = pair.public_key_pem();
    let (private, public, jwks) = (file(".private.pem"), file(".public.pem"), file(".jwks.json"));
    let id = key_id(&public_pem);
    let set = jwk_set(&public_pem, algorithm, &id)?;
    write_new(&[
        (&private, PRIVATE, &pair.serialize_pem()),
        (&public, PUBLIC, &public_pem),
        (&jwks, PUBLIC, &set),
    ])?;
    let (private, public, jwks) = (private.display(), public.display(), jwks.display());
    Ok(format!(
        "{private}: the private key, for the signer only\n\
         {public}: the public key\n\
         {jwks}: the same as a JWK Set, in which it has the id {id}\n\n\
         Start the server with: waterclock --jwt-jwks {jwks}\n\
         Make a token with: waterclock token create --private-key {private} --kid {id} --publish TOPIC"
    ))
}

/// Returns 32 random bytes in hexadecimal.
fn new_secret() -> Result<String, TokenToolError> {
    let mut bytes = [0; 32];
    let filled = aws_lc_rs::rand::fill(&mut bytes);
    filled.map_err(|_| rcgen::Error::RingUnspecified)?;
    Ok(hexadecimal(&bytes))
}

/// Returns the id of a key: the same for the same key, and different for others.
fn key_id(public_pem: &str) -> String {
    hexadecimal(&digest(&SHA256, public_pem.as_bytes()).as_ref()[..8])
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

/// Returns a public key as a JWK Set.
fn jwk_set(public_pem: &str, algorithm: Algorithm, id: &str) -> Result<String, TokenToolError> {
    let pem = public_pem.as_bytes();
    let key = DecodingKey::from_ec_pem(pem).or_else(|_| DecodingKey::from_ed_pem(pem))?;
    let mut jwk = Jwk::from_decoding_key(&key, Some(algorithm))?;
    jwk.common.key_id = Some(id.to_owned());
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    let set = JwkSet { keys: vec![jwk] };
    let text = serde_json::to_string_pretty(&set).map_err(jsonwebtoken::errors::Error::from)?;
    Ok(format!("{text}\n"))
}

/// Writes new files: all of them, or none if one exists.
fn write_new(files: &[(&Path, u32, &str)]) -> Result<(), TokenToolError> {
    for (written, (file, mode, content)) in files.iter().enumerate() {
        if let Err(error) = write_one(file, *mode, content) {
            for (file, ..) in &files[..written] {
                // A file that cannot be removed has a key that nobody uses.
                let _ = fs::remove_file(file);
            }
            return Err(error);
        }
    }
    Ok(())
}

fn write_one(file: &Path, mode: u32, content: &str) -> Result<(), TokenToolError> {
    let failed = |why: io::Error| match why.kind() {
        io::ErrorKind::AlreadyExists => TokenToolError::Exists(file.to_owned()),
        _ => TokenToolError::Write { file: file.to_owned(), why },
    };
    let new = OpenOptions::new().write(true).create_new(true).mode(mode).open(file);
    let mut new = new.map_err(failed)?;
    let written = new.write_all(content.as_bytes()).and_then(|()| new.sync_all());
    written.map_err(|why| {
        let _ = fs::remove_file(file);
        failed(why)
    })
}
