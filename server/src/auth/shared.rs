//! The rules that apply now. A reload replaces them, for requests and for open streams.

use std::{net::IpAddr, sync::Arc};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, request::Parts};
use parking_lot::RwLock;
use waterclock::{
    event::Topic,
    hub::{Hub, TopicSet},
    pattern::Patterns,
};
use waterclock_axum::{
    Asked, Denied, Expiry, Policy, PolicyChanges, Publisher, StandingPermission, TopicLimits,
};

use super::{access::Access, caller::Caller, policy::caller};
use crate::net::Peer;

/// The rules that apply now. Clones share them.
#[derive(Clone)]
pub struct SharedAccess {
    access: Arc<RwLock<Arc<Access>>>,
    changes: PolicyChanges,
    /// The hub, for its clock; `None` if the rules never change.
    hub: Option<Arc<Hub>>,
}

impl SharedAccess {
    /// Creates rules that never change.
    pub fn fixed(access: Access) -> Self {
        let access = Arc::new(RwLock::new(Arc::new(access)));
        Self { access, changes: PolicyChanges::default(), hub: None }
    }

    /// Creates rules that may be replaced. Each open stream then keeps the head of its request.
    pub fn reloadable(access: Access, hub: Arc<Hub>) -> Self {
        Self { hub: Some(hub), ..Self::fixed(access) }
    }

    /// Returns the rules that apply now.
    pub fn load(&self) -> Arc<Access> {
        Arc::clone(&self.access.read())
    }

    /// Replaces the rules. Streams and uploads end that they do not permit.
    pub fn replace(&self, access: Access) {
        let mut current = self.access.write();
        *current = Arc::new(Access { revision: current.revision + 1, ..access });
        drop(current);
        self.changes.announce();
    }

    /// Identifies the caller of a request again, if the rules have been replaced since then, as
    /// they may have been since a WebSocket was opened, or while the issuer of a token was asked.
    fn identify_again(&self, request: &Parts, access: &Access) -> Option<Caller> {
        let hub = self.hub.as_ref()?;
        let is_outdated = caller(request).is_ok_and(|caller| caller.is_outdated(access));
        is_outdated.then(|| Caller::identify(request, access, hub.now()))
    }

    /// The announcement of replacements.
    pub fn changes(&self) -> PolicyChanges {
        self.changes.clone()
    }
}

impl Policy for SharedAccess {
    fn may_read(&self, request: &Parts, topics: &Patterns) -> Result<Expiry, Denied> {
        let access = self.load();
        match self.identify_again(request, &access) {
            Some(caller) => Ok(caller.may_read(topics, &access)?),
            None => access.may_read(request, topics),
        }
    }

    fn may_list(&self, request: &Parts, topics: &Patterns) -> Result<(TopicSet, Expiry), Denied> {
        let access = self.load();
        match self.identify_again(request, &access) {
            Some(caller) => Ok(caller.may_list(topics, &access)?),
            None => access.may_list(request, topics),
        }
    }

    fn may_publish(&self, request: &Parts, topic: &Topic) -> Result<Publisher, Denied> {
        let access = self.load();
        match self.identify_again(request, &access) {
            Some(caller) => Ok(caller.may_publish(topic, &access)?),
            None => access.may_publish(request, topic),
        }
    }

    fn may_publish_some(&self, request: &Parts) -> bool {
        let access = self.load();
        match self.identify_again(request, &access) {
            Some(caller) => caller.may_publish_some(&access),
            None => access.may_publish_some(request),
        }
    }

    /// Identifies the caller again, by the new rules and keys. A permission that expires earlier
    /// than before counts as taken away, and so does a list of other topics.
    fn standing(&self, request: &Parts, asked: Asked<'_>) -> Option<StandingPermission> {
        let hub = Arc::clone(self.hub.as_ref()?);
        let (head, access) = (kept_head(request), Arc::clone(&self.access));
        let identify = move || {
            let access = Arc::clone(&access.read());
            (Caller::identify(&head, &access, hub.now()), access)
        };
        let is_as_long = |before: Expiry, now: Expiry| match (before, now) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(before), Some(now)) => now >= before,
        };
        // Rules that were replaced just now may deny what the ones before have permitted.
        let denied = || Some(StandingPermission::new(|| false));
        Some(match asked {
            Asked::Read(topics) => {
                let Ok(before) = self.may_read(request, topics) else { return denied() };
                let topics = topics.clone();
                StandingPermission::new(move || {
                    let (caller, access) = identify();
                    caller.may_read(&topics, &access).is_ok_and(|now| is_as_long(before, now))
                })
            }
            Asked::List(topics) => {
                let Ok((allowed, before)) = self.may_list(request, topics) else { return denied() };
                let topics = topics.clone();
                StandingPermission::new(move || {
                    let (caller, access) = identify();
                    let now = caller.may_list(&topics, &access);
                    now.is_ok_and(|(now, until)| now == allowed && is_as_long(before, until))
                })
            }
            Asked::Publish(topic) => {
                let Ok(before) = self.may_publish(request, topic) else { return denied() };
                let topic = topic.clone();
                StandingPermission::new(move || {
                    let (caller, access) = identify();
                    let now = caller.may_publish(&topic, &access);
                    now.is_ok_and(|now| {
                        now.name == before.name && is_as_long(before.expires, now.expires)
                    })
                })
            }
        })
    }

    fn topic_limits(&self, topic: &Topic) -> TopicLimits {
        self.load().topic_limits(topic)
    }

    fn may_open_websocket(&self, request: &Parts) -> Result<(), Denied> {
        self.load().may_open_websocket(request)
    }

    fn client_address(&self, request: &Parts) -> Option<IpAddr> {
        self.load().client_address(request)
    }
}

/// Returns the parts of a request by which its caller is identified. Its headers are copies, since
/// the originals keep the whole buffer in which they arrived.
fn kept_head(request: &Parts) -> Parts {
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = request.method.clone();
    head.version = request.version;
    if request.uri.authority().is_some() {
        head.uri = request.uri.clone();
    }
    let copies = request.headers.iter().filter_map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(value.as_bytes()).ok()?))
    });
    let mut headers = HeaderMap::with_capacity(request.headers.keys_len());
    copies.for_each(|(name, value)| {
        headers.append(name, value);
    });
    head.headers = headers;
    if let Some(peer) = request.extensions.get::<Peer>() {
        head.extensions.insert(*peer);
    }
    head
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::json;

    use super::*;
    use crate::auth::{IssuerSettings, TokenVerifier};

    const SECRET: &str = "an example of a secret, 32 bytes";

    #[tokio::test]
    async fn a_caller_identified_before_a_reload_obeys_the_new_rules() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, SECRET).unwrap();
        let settings = IssuerSettings { secret_file: vec![file], ..IssuerSettings::default() };
        let tokens = TokenVerifier::open(&[settings], None).unwrap();
        let with_key = Access { tokens: Some(Arc::new(tokens)), ..Access::default() };
        let hub = Arc::new(Hub::in_memory());
        let shared = SharedAccess::reloadable(with_key, Arc::clone(&hub));

        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let claims = json!({"exp": 9_000_000_000_u64, "publish": [">"], "subscribe": [">"]});
        let token = jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap();
        let request = Request::get("/").header("authorization", format!("Bearer {token}"));
        let (mut request, ()) = request.body(()).unwrap().into_parts();
        let caller = Caller::identify(&request, &shared.load(), hub.now());
        request.extensions.insert(Arc::new(caller));

        let topic: Topic = "a".parse().unwrap();
        let topics = Patterns::from(topic.clone());
        let asked = [Asked::Read(&topics), Asked::List(&topics), Asked::Publish(&topic)];
        let permitted = || {
            [
                shared.may_read(&request, &topics).is_ok(),
                shared.may_list(&request, &topics).is_ok(),
                shared.may_publish(&request, &topic).is_ok(),
                shared.may_publish_some(&request),
            ]
        };
        assert_eq!(permitted(), [true; 4]);
        shared.replace(Access::default());
        assert_eq!(permitted(), [false; 4]);
        for asked in asked {
            assert!(shared.standing(&request, asked).is_some(), "it does not hold without end");
        }
    }
}
