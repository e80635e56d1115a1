//! The JWK Set of an issuer that has a URL: its state, and the copy that outlives a restart.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use aws_lc_rs::digest::{SHA256, digest};
use parking_lot::Mutex;
use reqwest::Url;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{
    jwks::{FetchKeysError, FetchedKeys, JwksClient},
    key::{self, VerificationKey},
};
use crate::ops::{
    files::write_private,
    key_metrics::{RefreshResult, RefreshTime},
};

/// The state of the refreshes of a set.
#[derive(Clone)]
pub(super) struct RefreshState {
    /// Time at which the next one is due.
    pub(super) due: Instant,
    /// Earliest time of the next one.
    pub(super) earliest: Instant,
    /// Number of failed refreshes in a row.
    pub(super) failures: u32,
    /// The error that was printed last, since a success.
    pub(super) reported: Option<String>,
    /// The response in use.
    pub(super) body: Option<Vec<u8>>,
    /// Time of the last success, as the metrics have it.
    pub(super) time: Arc<RefreshTime>,
}

/// A key set at a URL.
pub(super) struct KeySet {
    pub(super) url: Url,
    client: JwksClient,
    /// The copy of the last good set.
    cache: Option<PathBuf>,
    /// Asks for a refresh before it is due.
    demand: Notify,
    /// Result of the last refresh; `None` before the first one has ended.
    last: watch::Sender<Option<RefreshResult>>,
    /// `None` before the first refresh has ended.
    state: Mutex<Option<RefreshState>>,
    /// Number of refreshes that have begun.
    begun: AtomicU64,
}

impl KeySet {
    pub(super) fn new(url: Url, cache: Option<&Path>) -> Result<Self, reqwest::Error> {
        let client = JwksClient::new(&url)?;
        let cache = cache.map(|folder| folder.join(cache_name(&url)));
        let (demand, last) = (Notify::new(), watch::Sender::new(None));
        let (state, begun) = (Mutex::default(), AtomicU64::new(0));
        Ok(Self { url, client, cache, demand, last, state, begun })
    }

    /// The URL as messages have it: without its query, which may have a secret.
    pub(super) fn name(&self) -> Url {
        let mut url = self.url.clone();
        url.set_query(None);
        url
    }

    /// Continues the refreshes of a previous set with the same URL.
    pub(super) fn continue_from(&self, previous: &Self) {
        *self.state.lock() = previous.state();
        self.last.send_replace(*previous.last.borrow());
    }

    /// Returns `true` if a refresh has ended.
    pub(super) fn has_state(&self) -> bool {
        self.state.lock().is_some()
    }

    /// Returns the state after the last refresh, if there was one.
    pub(super) fn state(&self) -> Option<RefreshState> {
        self.state.lock().clone()
    }

    /// Reads the keys of the copy, if there is one.
    pub(super) fn cached_keys(&self) -> Vec<VerificationKey> {
        let read = || key::from_jwks(&fs::read(self.cache.as_ref()?).ok()?).ok();
        read().unwrap_or_default()
    }

    /// Returns `true` if the newest keys are not known.
    pub(super) fn is_away(&self) -> bool {
        *self.last.borrow() != Some(RefreshResult::Ok)
    }

    /// Asks for a refresh, and waits for the end of one that begins from now on. Returns at once if
    /// the last one has failed.
    pub(super) async fn refreshed(&self) {
        let mut result = self.last.subscribe();
        let begun = self.begun.load(Ordering::SeqCst);
        let last = *result.borrow_and_update();
        // The first one is in flight, or will be at once.
        if last.is_some() {
            self.demand.notify_one();
        }
        if last == Some(RefreshResult::Failed) {
            return;
        }
        // The sender lives as long as this set.
        while result.changed().await.is_ok() {
            // The answer to one that was in flight may be older than the key.
            if last.is_none() || self.begun.load(Ordering::SeqCst) > begun {
                return;
            }
        }
    }

    /// Fetches the set.
    pub(super) async fn fetch(&self) -> Result<FetchedKeys, FetchKeysError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.client.fetch(&self.url).await
    }

    /// Tells all that wait for a refresh that it has ended.
    pub(super) fn end_refresh(&self, result: RefreshResult, state: RefreshState) {
        *self.state.lock() = Some(state);
        self.last.send_replace(Some(result));
    }

    /// Waits until a refresh is asked for.
    pub(super) async fn demanded(&self) {
        self.demand.notified().await;
    }

    /// Stores the copy, in a thread of its own, which no shutdown waits for, since the disk may
    /// hang.
    pub(super) fn store(&self, body: &[u8]) {
        let Some(file) = self.cache.clone() else { return };
        let body = body.to_vec();
        thread::spawn(move || {
            if fs::read(&file).is_ok_and(|stored| stored == body) {
                return;
            }
            if let Err(error) = write_private(&file, &body) {
                let file = file.display();
                tracing::warn!(%file, "the copy of an issuer's keys was not stored: {error}");
            }
        });
    }
}

/// The file name of the copy of a set.
fn cache_name(url: &Url) -> String {
    let hash = digest(&SHA256, url.as_str().as_bytes());
    let hash: Vec<_> = hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("jwks-{}.json", hash.concat())
}
