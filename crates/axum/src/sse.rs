//! Server-Sent Events (WHATWG HTML 9.2) as an encoding of streams, and the head of the response.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{
        HeaderName,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use waterclock::{
    hub::{Batch, Format, Frame},
    notice::Notice,
    sse::{self, Block},
};

use crate::session::Encoder;

/// Encodes a stream as blocks of `text/event-stream`. Each chunk holds whole blocks.
pub(crate) struct SseEncoder(pub(crate) Format);

impl Encoder for SseEncoder {
    type Chunk = Bytes;

    fn events(&self, batch: &Batch) -> Bytes {
        batch.bytes(self.0)
    }

    fn counted_events(&self, frames: &[Arc<Frame>], first: u64) -> Bytes {
        let frames = frames.iter().zip(first..);
        let bytes = frames.map(|(frame, sent)| frame.counted_bytes(self.0, sent));
        bytes.collect::<Vec<_>>().concat().into()
    }

    fn notice<N: Notice>(
        &self,
        notice: &N,
        position: Option<&str>,
        retry: Option<Duration>,
    ) -> Bytes {
        let json = serde_json::to_string(notice);
        let mut bytes = Vec::new();
        let block = Block {
            id: position,
            name: Some(N::NAME),
            retry,
            // Serialization cannot fail: notices consist of strings and numbers.
            data: Some(json.as_deref().unwrap_or("null")),
        };
        let encoded = block.encode(&mut bytes);
        debug_assert_eq!(encoded, Ok(()), "ids and reserved names have no CR, LF and NUL");
        bytes.into()
    }

    fn length(chunk: &Bytes) -> usize {
        chunk.len()
    }
}

/// Builds the response that carries a stream.
pub(crate) fn response(body: Body) -> Response {
    streamed(sse::CONTENT_TYPE, body)
}

/// Builds a response whose parts must arrive as they are sent.
pub(crate) fn streamed(content_type: &'static str, body: Body) -> Response {
    let headers = [
        (CONTENT_TYPE, content_type),
        // Intermediaries must neither store nor compress the stream; compression delays events.
        (CACHE_CONTROL, "no-cache, no-transform"),
        // nginx would buffer the stream otherwise.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, body).into_response()
}
