//! A page of the list of topics. A long one counts as an open stream while its client takes it.

use std::{convert::Infallible, net::IpAddr};

use axum::{
    body::Body,
    http::header::{CACHE_CONTROL, CONTENT_TYPE, VARY},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use waterclock::event::Topic;

use super::figures::TopicJson;
use crate::state::StreamContext;

/// Size of a page, in bytes, that is handed over whole, as most are.
const MAX_WHOLE: usize = 32 * 1024;
/// Number of bytes of a longer page that are handed over at a time.
const CHUNK: usize = 16 * 1024;

/// A page of the list.
#[derive(Serialize)]
pub(super) struct Page {
    pub(super) topics: Vec<TopicJson>,
    /// The `after` of the next page; `None` on the last one.
    pub(super) next: Option<Topic>,
}

impl Page {
    /// Makes the response. Without room for a stream, or at a stop, a long page ends early, and the
    /// next one has the rest.
    pub(super) fn respond(mut self, context: &StreamContext, client: Option<IpAddr>) -> Response {
        let mut json = self.to_json();
        let may_be_long = json.len() > MAX_WHOLE && !context.stop.has_begun();
        let open = may_be_long.then(|| context.streams.open(client).ok()).flatten();
        let body = if let Some(open) = open {
            let chunks = stream::unfold((json, open), async |(mut json, open)| {
                let chunk = json.split_to(CHUNK.min(json.len()));
                (!chunk.is_empty()).then(|| (Ok::<_, Infallible>(chunk), (json, open)))
            });
            Body::from_stream(chunks)
        } else {
            while json.len() > MAX_WHOLE && self.topics.len() > 1 {
                self.topics.truncate((self.topics.len() * MAX_WHOLE / json.len()).max(1));
                self.next = self.topics.last().map(|last| last.topic.clone());
                json = self.to_json();
            }
            json.into()
        };
        let headers = [
            (CONTENT_TYPE, "application/json"),
            (CACHE_CONTROL, "no-cache, no-transform"),
            (VARY, "accept"),
        ];
        (headers, body).into_response()
    }

    fn to_json(&self) -> Bytes {
        // Serialization cannot fail: figures consist of strings and numbers.
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}
