//! An issuer of tokens: its name, its keys from files and URLs, and the bounds of what its tokens
//! may permit.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _},
    mem,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use jsonwebtoken::{Algorithm, AlgorithmFamily, Validation, decode_header};
use parking_lot::{Mutex, RwLock};
use reqwest::Url;
use waterclock::{pattern::Pattern, timestamp::Timestamp};

use super::{
    jwks::JwksPlace,
    key::{self, InvalidKey, MAX_FILE, VerificationKey},
    key_set::KeySet,
    token::{self, InvalidToken, Token, UnknownKey, Unverified},
};
use crate::ops::files::FileStamp;

/// Maximum number of keys that are tried with one token, and of an issuer's keys without an id. A
/// verification takes time.
const MAX_TRIED: usize = 16;
/// Maximum number of patterns in a bound.
pub const MAX_BOUNDS: usize = 100;
/// Time for which no newer keys are asked for because of a `kid` that was not among the newest.
const MISSING_FOR: Duration = Duration::from_secs(30);
/// Maximum number of names of keys that are remembered for that, and of bytes of each.
const MAX_MISSING: usize = 1000;
const MAX_NAME: usize = 256;

/// An issuer of tokens, as the options or a table `[[issuer]]` of the configuration set it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IssuerSettings {
    /// Name that tokens must have in `iss`; `None` for tokens with any `iss` or none that is not
    /// another issuer's.
    pub issuer: Option<String>,
    /// JWK Sets.
    pub jwks: Vec<JwksPlace>,
    /// Files with a secret each, for HS256.
    pub secret_file: Vec<PathBuf>,
    /// Files with public keys, in PEM.
    pub public_key_file: Vec<PathBuf>,
    /// Audience that tokens must name in `aud`. Without it, tokens must have no `aud`.
    pub audience: Option<String>,
    /// Upper bound of what tokens permit to publish to; `None` for no bound.
    pub publish: Option<Vec<Pattern>>,
    /// Upper bound of what tokens permit to read; `None` for no bound.
    pub subscribe: Option<Vec<Pattern>>,
}

impl IssuerSettings {
    /// Returns `true` if there is a place of keys.
    pub fn has_keys(&self) -> bool {
        let files = [&self.secret_file, &self.public_key_file];
        !self.jwks.is_empty() || files.iter().any(|files| !files.is_empty())
    }
}

/// An issuer that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// A file cannot be read.
    #[error("{} cannot be read: {why}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The cause.
        why: io::Error,
    },
    /// The content of a file cannot be used.
    #[error("{} cannot be used: {why}", file.display())]
    Key {
        /// The file.
        file: PathBuf,
        /// The cause.
        why: InvalidKey,
    },
    /// The issuer has no keys.
    #[error(
        "the issuer {0:?} has no keys: name a JWK Set, a secret file or a public key file \
         (jwks, secret-file, public-key-file)"
    )]
    NoKeys(String),
    /// Two issuers have the same name, or none.
    #[error("two issuers have the same name {0:?}: tokens could not be told apart")]
    Twice(String),
    /// There are too many keys without an id.
    #[error("an issuer may have {MAX_TRIED} keys without a `kid`, since each of them is tried")]
    TooManyKeys,
    /// A bound has too many patterns.
    #[error("the bounds of an issuer may have {MAX_BOUNDS} patterns each")]
    TooManyPatterns,
    /// TLS is not available for requests.
    #[error("requests for {url} cannot be made: {why}")]
    Client {
        /// The URL of a JWK Set.
        url: Url,
        /// The cause.
        why: reqwest::Error,
    },
}

/// The form of the keys in a file.
#[derive(Clone, Copy, Debug)]
enum FileForm {
    Secret,
    Pem,
    Jwks,
}

/// A file with keys.
struct KeyFile {
    form: FileForm,
    file: PathBuf,
    /// Taken before the file was last read, so that no change in between is missed.
    stamp: Mutex<Option<FileStamp>>,
}

impl KeyFile {
    fn new(form: FileForm, file: PathBuf) -> Self {
        Self { form, stamp: Mutex::new(FileStamp::of(&file)), file }
    }

    fn read(&self) -> Result<Vec<VerificationKey>, IssuerError> {
        let file = &self.file;
        let text = read(file).map_err(|why| IssuerError::Read { file: file.clone(), why })?;
        let keys = match self.form {
            _ if text.len() > MAX_FILE => Err(InvalidKey::TooLong),
            FileForm::Secret => key::from_secret(&text).map(|key| vec![key]),
            FileForm::Pem => key::from_pem(&text),
            FileForm::Jwks => key::from_jwks(&text),
        };
        keys.map_err(|why| IssuerError::Key { file: file.clone(), why })
    }

    /// Returns `true` if the file has changed since the last call, or since the start.
    fn has_changed(&self) -> bool {
        let now = FileStamp::of(&self.file);
        let mut stamp = self.stamp.lock();
        mem::replace(&mut *stamp, now) != *stamp
    }
}

/// Reads a file, up to one byte more than [`MAX_FILE`].
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(file)?.take(MAX_FILE as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// A key with the rules of its issuer's tokens.
struct ReadyKey {
    key: VerificationKey,
    validation: Validation,
}

/// An issuer with its current keys.
pub(super) struct Issuer {
    /// Its place among the issuers of the verifier.
    number: usize,
    pub(super) name: Option<String>,
    audience: Option<String>,
    publish: Option<Vec<Pattern>>,
    subscribe: Option<Vec<Pattern>>,
    files: Vec<KeyFile>,
    pub(super) sets: Vec<KeySet>,
    /// The keys of each file and then of each set.
    parts: Mutex<Vec<Vec<VerificationKey>>>,
    /// All of them.
    keys: RwLock<Arc<[ReadyKey]>>,
    /// Names of keys that the newest sets did not have, with the time when that was found.
    missing: Mutex<HashMap<String, Instant>>,
}

impl Issuer {
    /// Creates an issuer, and reads its files and the copies of its key sets.
    pub(super) fn open(
        number: usize,
        settings: IssuerSettings,
        cache: Option<&Path>,
    ) -> Result<Self, IssuerError> {
        let IssuerSettings { jwks, secret_file, public_key_file, .. } = &settings;
        let of_form = |form, files: &[PathBuf]| -> Vec<_> {
            files.iter().map(|file| KeyFile::new(form, file.clone())).collect()
        };
        let mut files = of_form(FileForm::Secret, secret_file);
        files.extend(of_form(FileForm::Pem, public_key_file));
        let mut sets = Vec::new();
        for place in jwks {
            match place {
                JwksPlace::File(file) => files.push(KeyFile::new(FileForm::Jwks, file.clone())),
                JwksPlace::Url(url) => {
                    let set = KeySet::new(url.clone(), cache);
                    sets.push(set.map_err(|why| IssuerError::Client { url: url.clone(), why })?);
                }
            }
        }
        if !settings.has_keys() {
            return Err(IssuerError::NoKeys(settings.issuer.unwrap_or_default()));
        }
        let bounds = [&settings.publish, &settings.subscribe];
        if bounds.into_iter().flatten().any(|bound| bound.len() > MAX_BOUNDS) {
            return Err(IssuerError::TooManyPatterns);
        }
        let mut parts = files.iter().map(KeyFile::read).collect::<Result<Vec<_>, _>>()?;
        parts.extend(sets.iter().map(KeySet::cached_keys));
        Self::with_parts(number, settings, files, sets, parts)
    }

    /// Creates an issuer with keys that never change.
    pub(super) fn fixed(
        settings: IssuerSettings,
        keys: Vec<VerificationKey>,
    ) -> Result<Self, IssuerError> {
        Self::with_parts(0, settings, Vec::new(), Vec::new(), vec![keys])
    }

    fn with_parts(
        number: usize,
        settings: IssuerSettings,
        files: Vec<KeyFile>,
        sets: Vec<KeySet>,
        parts: Vec<Vec<VerificationKey>>,
    ) -> Result<Self, IssuerError> {
        let issuer = Self {
            number,
            name: settings.issuer,
            audience: settings.audience,
            publish: settings.publish,
            subscribe: settings.subscribe,
            files,
            sets,
            parts: Mutex::default(),
            keys: RwLock::new(Arc::new([])),
            missing: Mutex::default(),
        };
        issuer.use_parts(parts)?;
        Ok(issuer)
    }

    fn use_parts(&self, parts: Vec<Vec<VerificationKey>>) -> Result<(), IssuerError> {
        let mut current = self.parts.lock();
        self.use_locked(&mut current, parts)
    }

    fn use_locked(
        &self,
        current: &mut Vec<Vec<VerificationKey>>,
        parts: Vec<Vec<VerificationKey>>,
    ) -> Result<(), IssuerError> {
        let all = || parts.iter().flatten();
        if all().filter(|key| key.id.is_none()).count() > MAX_TRIED {
            return Err(IssuerError::TooManyKeys);
        }
        let ready = |key: &VerificationKey| ReadyKey {
            validation: token::validation(&key.algorithms, self.audience.as_deref()),
            key: key.clone(),
        };
        *self.keys.write() = all().map(ready).collect();
        *current = parts;
        Ok(())
    }

    fn replace_part(&self, part: usize, keys: Vec<VerificationKey>) -> Result<(), IssuerError> {
        let mut current = self.parts.lock();
        let mut parts = current.clone();
        parts[part] = keys;
        self.use_locked(&mut current, parts)
    }

    /// Puts new keys into the place of those of a set.
    pub(super) fn replace_set(
        &self,
        set: usize,
        keys: Vec<VerificationKey>,
    ) -> Result<(), IssuerError> {
        self.replace_part(self.files.len() + set, keys)
    }

    /// Takes over the keys of a previous issuer's set at the same URL, and continues its schedule
    /// of refreshes.
    pub(super) fn continue_set(&self, set: usize, previous: &Self, number: usize) {
        let keys = previous.parts.lock()[previous.files.len() + number].clone();
        // Without any refresh, both have the keys of the copy.
        if previous.sets[number].has_state() && self.replace_set(set, keys).is_ok() {
            self.sets[set].continue_from(&previous.sets[number]);
        }
    }

    /// Number of the keys of a set.
    pub(super) fn count_in_set(&self, set: usize) -> usize {
        self.parts.lock()[self.files.len() + set].len()
    }

    /// Returns `true` if there are files to watch.
    pub(super) fn has_files(&self) -> bool {
        !self.files.is_empty()
    }

    /// Reads the files that have changed since the last call. If one cannot be used, its previous
    /// keys stay in use. Returns the number of files whose keys were replaced. Blocks.
    pub(super) fn check_files(&self) -> usize {
        let mut replaced = 0;
        for (part, file) in self.files.iter().enumerate().filter(|(_, file)| file.has_changed()) {
            let keys = file.read();
            let count = keys.as_ref().map_or(0, Vec::len);
            match keys.and_then(|keys| self.replace_part(part, keys)) {
                Ok(()) => {
                    replaced += 1;
                    tracing::info!(file = %file.file.display(), keys = count, "new keys for tokens");
                }
                Err(error) => {
                    tracing::error!("the previous keys for tokens stay in use: {error}");
                }
            }
        }
        replaced
    }

    /// Verifies a token at the given time.
    pub(super) fn verify(&self, token: &str, now: Timestamp) -> Result<Token, InvalidToken> {
        let keys = Arc::clone(&self.keys.read());
        let name = self.name.as_deref();
        let verify =
            |one: &ReadyKey| token::verify(token, &one.key.key, &one.validation, name, now);
        let verified = match &*keys {
            [only] if only.key.id.is_none() && self.sets.is_empty() => verify(only),
            keys => self.verify_with_any(token, keys, verify, now),
        };
        let mut token = verified?;
        token.is_bounded = restrict(&mut token.publish, self.publish.as_deref())
            | restrict(&mut token.subscribe, self.subscribe.as_deref());
        Ok(token)
    }

    /// Verifies a token with the key that its `kid` names, or else with each of its algorithm.
    fn verify_with_any(
        &self,
        token: &str,
        keys: &[ReadyKey],
        verify: impl Fn(&ReadyKey) -> Result<Token, InvalidToken>,
        now: Timestamp,
    ) -> Result<Token, InvalidToken> {
        let header = decode_header(token);
        let header = header.map_err(|error| token::invalid_header(token, error.kind()))?;
        let has_name = |one: &&ReadyKey| one.key.id.is_some() && one.key.id == header.kid;
        let is_named = keys.iter().any(|one| has_name(&one));
        let candidates: Vec<&ReadyKey> = match &header.kid {
            None => keys.iter().collect(),
            Some(_) if is_named => keys.iter().filter(has_name).collect(),
            Some(_) => keys.iter().filter(|one| one.key.id.is_none()).collect(),
        };
        let fits = |one: &&&ReadyKey| one.key.algorithms.contains(&header.alg);
        let mut is_tried = false;
        for one in candidates.iter().filter(fits).take(MAX_TRIED) {
            match verify(one) {
                Err(InvalidToken::Signature { .. }) => is_tried = true,
                decided => return decided,
            }
        }
        // Secrets come from files only, so no newer set can have one.
        let may_be_newer = header.alg.family() != AlgorithmFamily::Hmac || keys.is_empty();
        let has_names = !self.sets.is_empty() || keys.iter().any(|one| one.key.id.is_some());
        if has_names && !is_named && may_be_newer {
            let expired = Unverified::of(token).and_then(|claims| claims.expired(now));
            let is_away = self.sets.iter().any(KeySet::is_away);
            let unknown = UnknownKey { issuer: self.number, id: header.kid, is_away };
            return Err(expired.unwrap_or(InvalidToken::UnknownKey(unknown)));
        }
        Err(if is_tried {
            InvalidToken::Signature { is_secret: header.alg == Algorithm::HS256 }
        } else {
            let candidates = if candidates.is_empty() { keys.iter().collect() } else { candidates };
            let mut algorithms = Vec::new();
            for algorithm in candidates.iter().flat_map(|one| &one.key.algorithms) {
                if !algorithms.contains(algorithm) {
                    algorithms.push(*algorithm);
                }
            }
            InvalidToken::Algorithm(algorithms)
        })
    }

    /// Returns `true` if some key has this name.
    fn has_key(&self, id: &str) -> bool {
        self.keys.read().iter().any(|one| one.key.id.as_deref() == Some(id))
    }

    /// Returns `true` if the newest sets are known to lack a key of this name, which is empty for
    /// tokens without one.
    pub(super) fn is_missing(&self, id: &str) -> bool {
        let missing = self.missing.lock();
        id.len() > MAX_NAME || missing.get(id).is_some_and(|at| at.elapsed() < MISSING_FOR)
    }

    /// Remembers that the newest sets lack a key of this name, if they do.
    pub(super) fn note_missing(&self, id: &str) {
        if self.has_key(id) || self.sets.iter().any(KeySet::is_away) {
            return;
        }
        let mut missing = self.missing.lock();
        if missing.len() >= MAX_MISSING {
            missing.retain(|_, at| at.elapsed() < MISSING_FOR);
            if missing.len() >= MAX_MISSING {
                missing.clear();
            }
        }
        missing.insert(id.to_owned(), Instant::now());
    }
}

/// Restricts patterns to a bound. A pattern inside the bound stays; one around a part of the bound
/// becomes that part. One that overlaps the bound in another way is left out. Returns `true` if a
/// pattern has not stayed.
fn restrict(patterns: &mut Vec<Pattern>, bound: Option<&[Pattern]>) -> bool {
    let Some(bound) = bound else { return false };
    let mut allowed: Vec<Pattern> = Vec::new();
    let mut has_changed = false;
    for pattern in patterns.drain(..) {
        if bound.iter().any(|one| one.covers(&pattern)) {
            allowed.push(pattern);
            continue;
        }
        has_changed = true;
        for part in bound.iter().filter(|part| pattern.covers(part)) {
            if !allowed.contains(part) {
                allowed.push(part.clone());
            }
        }
    }
    *patterns = allowed;
    has_changed
}

#[cfg(test)]
mod tests {
    use std::fs;

    use jsonwebtoken::{
        DecodingKey, EncodingKey, Header,
        jwk::{Jwk, JwkSet, KeyOperations, PublicKeyUse},
    };
    use proptest::prelude::*;
    use rcgen::{
        KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm,
    };
    use serde_json::{Value, json};
    use waterclock::event::Topic;

    use super::*;
    use crate::auth::TokenVerifier;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);
    const SECRET: &str = "an example of a secret, 32 bytes";

    /// A signer of tokens.
    struct Signer {
        algorithm: Algorithm,
        key: EncodingKey,
        public: String,
        id: Option<&'static str>,
    }

    impl Signer {
        fn new(id: Option<&'static str>, algorithm: Algorithm) -> Self {
            let of: &SignatureAlgorithm = match algorithm {
                Algorithm::ES256 => &PKCS_ECDSA_P256_SHA256,
                Algorithm::ES384 => &PKCS_ECDSA_P384_SHA384,
                _ => &PKCS_ED25519,
            };
            let pair = KeyPair::generate_for(of).unwrap();
            let private = pair.serialize_pem().into_bytes();
            let key = EncodingKey::from_ec_pem(&private)
                .or_else(|_| EncodingKey::from_ed_pem(&private))
                .unwrap();
            Self { algorithm, key, public: pair.public_key_pem(), id }
        }

        fn jwk(&self) -> Jwk {
            let public = self.public.as_bytes();
            let key =
                DecodingKey::from_ec_pem(public).or_else(|_| DecodingKey::from_ed_pem(public));
            let mut jwk = Jwk::from_decoding_key(&key.unwrap(), Some(self.algorithm)).unwrap();
            jwk.common.key_id = self.id.map(str::to_owned);
            jwk
        }

        fn sign(&self, claims: &Value) -> String {
            let header = Header { kid: self.id.map(str::to_owned), ..Header::new(self.algorithm) };
            jsonwebtoken::encode(&header, claims, &self.key).unwrap()
        }

        fn token(&self) -> String {
            self.sign(&json!({"exp": 1001, "publish": ["t"]}))
        }
    }

    fn set(signers: &[&Signer]) -> String {
        let keys = signers.iter().map(|signer| signer.jwk()).collect();
        serde_json::to_string(&JwkSet { keys }).unwrap()
    }

    fn put(folder: &tempfile::TempDir, name: &str, content: &str) -> PathBuf {
        let file = folder.path().join(name);
        fs::write(&file, content).unwrap();
        file
    }

    fn of(settings: IssuerSettings) -> TokenVerifier {
        TokenVerifier::open(&[settings], None).unwrap()
    }

    fn signed_with_secret(kid: Option<&str>, secret: &[u8]) -> String {
        let header = Header { kid: kid.map(str::to_owned), ..Header::default() };
        let key = EncodingKey::from_secret(secret);
        jsonwebtoken::encode(&header, &json!({"exp": 1001}), &key).unwrap()
    }

    #[test]
    fn several_keys_of_all_kinds_verify_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let in_pem = [Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA, Algorithm::ES256];
        let in_pem = in_pem.map(|algorithm| Signer::new(None, algorithm));
        let pem: Vec<_> = in_pem.iter().map(|signer| format!("a key\n{}", signer.public)).collect();
        let in_set = [
            Signer::new(Some("a"), Algorithm::ES256),
            Signer::new(Some("b"), Algorithm::ES384),
            Signer::new(Some("c"), Algorithm::EdDSA),
        ];
        let tokens = of(IssuerSettings {
            secret_file: vec![
                put(&folder, "one", &format!("{SECRET}\n")),
                put(&folder, "two", &SECRET.repeat(2)),
            ],
            public_key_file: vec![put(&folder, "keys.pem", &pem.concat())],
            jwks: vec![JwksPlace::File(put(&folder, "jwks", &set(&in_set.each_ref())))],
            ..Default::default()
        });
        for signer in in_pem.iter().chain(&in_set) {
            tokens.verify(&signer.token(), NOW).unwrap();
            // Some signers name a key that only they know, and some name none.
            let unnamed = Signer { id: None, ..Signer::new(None, signer.algorithm) };
            let unnamed = Signer { key: signer.key.clone(), ..unnamed };
            tokens.verify(&unnamed.token(), NOW).unwrap();
        }
        for secret in [SECRET.to_owned(), SECRET.repeat(2)] {
            for kid in [None, Some("2026-11")] {
                tokens.verify(&signed_with_secret(kid, secret.as_bytes()), NOW).unwrap();
            }
        }
        // The name decides: no other key is tried.
        let other = Signer { id: Some("a"), ..Signer::new(None, Algorithm::ES256) };
        let error = tokens.verify(&other.token(), NOW).unwrap_err();
        assert_eq!(error, InvalidToken::Signature { is_secret: false });
        let other = Signer { id: Some("c"), ..other };
        let error = tokens.verify(&other.token(), NOW).unwrap_err();
        assert_eq!(error, InvalidToken::Algorithm(vec![Algorithm::EdDSA]));
        // The text of a public key is no secret (RFC 8725, 2.1), next to a real one, too.
        for public in &in_pem {
            for kid in [None, Some("x"), Some("a")] {
                let forged = signed_with_secret(kid, public.public.as_bytes());
                assert!(tokens.verify(&forged, NOW).is_err(), "{kid:?}");
            }
        }
        let stranger = Signer::new(Some("z"), Algorithm::ES256);
        let error = tokens.verify(&stranger.token(), NOW).unwrap_err();
        let expected = "its `kid` \"z\" is not the name of a key of its issuer";
        assert_eq!(error.to_string(), expected);
        let old = stranger.sign(&json!({"exp": 5}));
        assert!(matches!(tokens.verify(&old, NOW), Err(InvalidToken::Expired(_))));
    }

    #[test]
    fn keys_of_a_set_are_used_as_it_says() {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::new(Some("a"), Algorithm::ES256);
        let verify = |change: &dyn Fn(&mut Value)| {
            let mut jwk = serde_json::to_value(signer.jwk()).unwrap();
            change(&mut jwk);
            let other = Signer::new(Some("b"), Algorithm::EdDSA).jwk();
            let strange =
                json!([{"kty": "new"}, {"kty": "oct", "k": "AAAA", "kid": "a"}, 7, jwk, other]);
            let file = put(&folder, "jwks", &json!({"keys": strange, "more": 1}).to_string());
            let tokens =
                of(IssuerSettings { jwks: vec![JwksPlace::File(file)], ..Default::default() });
            tokens.verify(&signer.token(), NOW).map(drop)
        };
        let common = |name: &'static str, value: Value| {
            verify(&move |jwk: &mut Value| jwk[name] = value.clone())
        };
        common("use", json!("sig")).unwrap();
        common("key_ops", json!(["verify"])).unwrap();
        common("alg", json!("ES256")).unwrap();
        verify(&|jwk| drop(jwk.as_object_mut().unwrap().remove("alg"))).unwrap();
        for (name, value) in [
            ("use", json!("enc")),
            ("key_ops", json!(["encrypt"])),
            ("alg", json!("ES384")),
            ("alg", json!("HS256")),
            ("alg", json!("RSA-OAEP")),
            ("crv", json!("P-384")),
            ("crv", json!("P-999")),
            ("x", json!("AAAA")),
            ("y", json!("!")),
            ("kty", json!("RSA")),
        ] {
            let error = common(name, value.clone()).unwrap_err();
            assert!(matches!(error, InvalidToken::UnknownKey(_)), "{name} {value}: {error}");
        }
    }

    #[test]
    fn an_rsa_key_of_a_set_verifies_its_algorithms() {
        use aws_lc_rs::{encoding::AsDer as _, rsa::KeySize, signature::RsaKeyPair};

        let folder = tempfile::tempdir().unwrap();
        let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = key.as_der().unwrap();
        let pem = pem::encode(&pem::Pem::new("PRIVATE KEY", der.as_ref()));
        let key = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::RS256).unwrap();
        let verify = |jwk: &Jwk, algorithm| {
            let text = serde_json::to_string(&JwkSet { keys: vec![jwk.clone()] }).unwrap();
            let file = put(&folder, "jwks", &text);
            let settings =
                IssuerSettings { jwks: vec![JwksPlace::File(file)], ..Default::default() };
            let token = jsonwebtoken::encode(&Header::new(algorithm), &json!({"exp": 1001}), &key);
            of(settings).verify(&token.unwrap(), NOW).map(drop)
        };
        verify(&jwk, Algorithm::RS256).unwrap();
        assert!(verify(&jwk, Algorithm::PS256).is_err(), "its `alg` says RS256");
        jwk.common.key_algorithm = None;
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        jwk.common.key_operations = Some(vec![KeyOperations::Verify]);
        for algorithm in [Algorithm::RS256, Algorithm::RS512, Algorithm::PS256] {
            verify(&jwk, algorithm).unwrap();
        }
    }

    #[test]
    fn unusable_files_are_refused_with_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let error = |settings| TokenVerifier::open(&[settings], None).unwrap_err().to_string();
        let pem = |text: &str| {
            let public_key_file = vec![put(&folder, &format!("pem{}", text.len()), text)];
            IssuerSettings { public_key_file, ..Default::default() }
        };
        let jwks = |text: &str| {
            let jwks = vec![JwksPlace::File(put(&folder, &format!("jwks{}", text.len()), text))];
            IssuerSettings { jwks, ..Default::default() }
        };
        let private = KeyPair::generate().unwrap().serialize_pem();
        let good = Signer::new(None, Algorithm::EdDSA).public;
        let many = Signer::new(Some("a"), Algorithm::EdDSA).jwk();
        let many = serde_json::to_string(&JwkSet { keys: vec![many; 101] }).unwrap();
        for (settings, expected) in [
            (IssuerSettings::default(), "the issuer \"\" has no keys"),
            (pem(""), "public key in PEM"),
            (pem(&good[..40]), "public key in PEM"),
            (pem(&format!("{good}{private}")), "it holds a private key"),
            (pem(&good.repeat(17)), "an issuer may have 16 keys without a `kid`"),
            (jwks("{}"), "expected a JWK Set"),
            (jwks("{\"keys\":[]}"), "none of its 0 keys"),
            (jwks("{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAA\"}]}"), "none of its 1 keys"),
            (jwks(&many), "it holds 101 keys, and at most 100"),
            (jwks(&" ".repeat(MAX_FILE + 1)), "it is longer than 1048576 bytes"),
            (
                IssuerSettings { secret_file: vec!["/nowhere".into()], ..Default::default() },
                "/nowhere cannot be read: No such file",
            ),
        ] {
            let error = error(settings);
            assert!(error.contains(expected), "{expected}: {error}");
        }
        let named = IssuerSettings { issuer: Some("a".to_owned()), ..pem(&good) };
        let error = TokenVerifier::open(&[named.clone(), named], None).unwrap_err();
        assert!(error.to_string().contains("the same name \"a\""), "{error}");
    }

    #[test]
    fn a_file_that_cannot_be_used_leaves_its_keys_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let [old, new] = [Some("a"), Some("b")].map(|id| Signer::new(id, Algorithm::EdDSA));
        let file = put(&folder, "jwks", &set(&[&old]));
        let tokens =
            of(IssuerSettings { jwks: vec![JwksPlace::File(file.clone())], ..Default::default() });
        assert_eq!(tokens.check_files(), 0);
        for bad in ["", "{\"keys\":[", "{\"keys\":[]}"] {
            fs::write(&file, bad).unwrap();
            assert_eq!(tokens.check_files(), 0);
            tokens.verify(&old.token(), NOW).unwrap();
        }
        fs::remove_file(&file).unwrap();
        assert_eq!(tokens.check_files(), 0);
        tokens.verify(&old.token(), NOW).unwrap();
        put(&folder, "jwks", &set(&[&old, &new]));
        assert_eq!((tokens.check_files(), tokens.check_files()), (1, 0));
        tokens.verify(&old.token(), NOW).unwrap();
        put(&folder, "jwks", &set(&[&new]));
        assert_eq!(tokens.check_files(), 1);
        assert!(matches!(tokens.verify(&old.token(), NOW), Err(InvalidToken::UnknownKey(_))));
        tokens.verify(&new.token(), NOW).unwrap();
    }

    #[test]
    fn each_issuer_verifies_its_own_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let signers = ["one", "two", "none"].map(|_| Signer::new(None, Algorithm::EdDSA));
        let settings = |number: usize, name: Option<&str>, audience: Option<&str>| IssuerSettings {
            issuer: name.map(str::to_owned),
            audience: audience.map(str::to_owned),
            public_key_file: vec![put(&folder, &number.to_string(), &signers[number].public)],
            ..Default::default()
        };
        let one = IssuerSettings {
            publish: Some(vec!["orders.>".parse().unwrap()]),
            ..settings(0, Some("https://one.example"), None)
        };
        let all = [
            one.clone(),
            settings(1, Some("https://two.example"), Some("clock")),
            settings(2, None, None),
        ];
        let tokens = TokenVerifier::open(&all, None).unwrap();
        let claims = |iss: Value, aud: Value| {
            json!({"exp": 1001, "sub": "shop", "iss": iss, "aud": aud,
                   "publish": [">", "orders.eu", "t"], "subscribe": [">"]})
        };
        let verify = |signer: usize, iss: Value, aud: Value| {
            tokens.verify(&signers[signer].sign(&claims(iss, aud)), NOW)
        };
        let (one_name, two_name) = (json!("https://one.example"), json!("https://two.example"));
        let found = verify(0, one_name.clone(), Value::Null).unwrap();
        assert_eq!(found.publisher, "issuer \"https://one.example\" shop");
        let list = |patterns: &[&str]| -> Vec<Pattern> {
            patterns.iter().map(|pattern| pattern.parse().unwrap()).collect()
        };
        assert_eq!(found.publish, list(&["orders.>", "orders.eu"]));
        assert_eq!(found.subscribe, list(&[">"]));
        let found = verify(1, two_name.clone(), json!("clock")).unwrap();
        assert_eq!(found.publisher, "issuer \"https://two.example\" shop");
        assert_eq!(found.publish, list(&[">", "orders.eu", "t"]));
        for iss in [Value::Null, json!("https://elsewhere.example"), json!(7)] {
            let found = verify(2, iss, Value::Null).unwrap();
            assert_eq!(found.publisher, "token shop", "as without other issuers");
        }
        let signature = InvalidToken::Signature { is_secret: false };
        for (signer, iss, aud, expected) in [
            (1, one_name.clone(), Value::Null, signature.clone()),
            (2, one_name.clone(), Value::Null, signature.clone()),
            (0, Value::Null, Value::Null, signature),
            (0, one_name.clone(), json!("clock"), InvalidToken::Audience),
            (1, two_name, Value::Null, InvalidToken::Audience),
        ] {
            assert_eq!(verify(signer, iss, aud).unwrap_err(), expected, "{signer}");
        }
        // A single issuer with a name requires it, too.
        for settings in [vec![one.clone()], vec![one, all[1].clone()]] {
            let tokens = TokenVerifier::open(&settings, None).unwrap();
            for iss in [Value::Null, json!("https://elsewhere.example"), json!([one_name])] {
                let token = signers[0].sign(&claims(iss, Value::Null));
                assert_eq!(tokens.verify(&token, NOW).unwrap_err(), InvalidToken::Issuer);
            }
        }
    }

    fn patterns_of_few_tokens() -> impl Strategy<Value = Vec<Pattern>> {
        let pattern =
            "((a|b|\\*)(\\.(a|b|\\*)){0,2}(\\.>)?|>)".prop_map(|text| text.parse().unwrap());
        proptest::collection::vec(pattern, 0..4)
    }

    proptest! {
        #[test]
        fn a_bound_never_widens_a_permission(
            patterns in patterns_of_few_tokens(),
            bound in patterns_of_few_tokens(),
            topic in "(a|b)(\\.(a|b)){0,3}",
        ) {
            let topic: Topic = topic.parse().unwrap();
            let matches = |list: &[Pattern]| list.iter().any(|one| one.matches(&topic));
            let mut restricted = patterns.clone();
            restrict(&mut restricted, Some(&bound));
            prop_assert!(!matches(&restricted) || matches(&patterns) && matches(&bound));
            // Exact topics are decided exactly.
            let mut exact = vec![topic.to_string().parse().unwrap()];
            restrict(&mut exact, Some(&bound));
            prop_assert_eq!(matches(&exact), matches(&bound));
        }
    }
}
