//! The application of the rules to requests.

use std::{net::IpAddr, sync::Arc};

use axum::http::request::Parts;
use waterclock::{event::Topic, hub::TopicSet, pattern::Patterns};
use waterclock_axum::{Denied, Expiry, Policy, Publisher, TopicLimits};

use super::{
    access::Access, caller::Caller, client_address::client_address, error::AuthError,
    origin::foreign_origin, rule::limits_of,
};

/// The caller that the layer in front of the routes has identified.
pub(super) fn caller(request: &Parts) -> Result<&Caller, Denied> {
    let caller = request.extensions.get::<Arc<Caller>>().map(AsRef::as_ref);
    caller.ok_or_else(|| Denied::Forbidden("The caller was not identified.".to_owned()))
}

impl Policy for Access {
    fn may_read(&self, request: &Parts, topics: &Patterns) -> Result<Expiry, Denied> {
        Ok(caller(request)?.may_read(topics, self)?)
    }

    fn may_list(&self, request: &Parts, topics: &Patterns) -> Result<(TopicSet, Expiry), Denied> {
        Ok(caller(request)?.may_list(topics, self)?)
    }

    fn may_publish(&self, request: &Parts, topic: &Topic) -> Result<Publisher, Denied> {
        Ok(caller(request)?.may_publish(topic, self)?)
    }

    fn may_publish_some(&self, request: &Parts) -> bool {
        caller(request).is_ok_and(|caller| caller.may_publish_some(self))
    }

    fn topic_limits(&self, topic: &Topic) -> TopicLimits {
        let limits = limits_of(&self.rules, topic);
        let publish_rate = limits.publish_rate.or_else(|| self.publish_rate.clone());
        TopicLimits { publish_rate, ..limits }
    }

    fn may_open_websocket(&self, request: &Parts) -> Result<(), Denied> {
        match foreign_origin(request, &self.cors_origins) {
            None => Ok(()),
            Some(origin) => {
                let origin = String::from_utf8_lossy(origin.as_bytes()).into_owned();
                Err(AuthError::ForeignOrigin(origin).into())
            }
        }
    }

    fn client_address(&self, request: &Parts) -> Option<IpAddr> {
        client_address(request, &self.trusted_proxies)
    }
}
