//! Why an `EventSource` gave up: it does not say, so we ask the server ourselves.

use gloo_net::http::{Request, Response};
use leptos::prelude::window;
use waterclock::sse;
use web_sys::AbortController;

use super::{FromJson, Json, from_json};
use crate::connection::Reason;

/// What a problem (RFC 9457) says of itself.
struct Detail(String);

impl FromJson for Detail {
    fn from_json(json: &Json) -> Option<Self> {
        json.parse("detail").map(Self)
    }
}

/// Asks for the stream once, looks at the head of the answer, and drops the rest.
pub async fn explain(url: &str) -> Reason {
    let abort = AbortController::new().ok();
    let signal = abort.as_ref().map(AbortController::signal);
    let answer = Request::get(url)
        .header("accept", sse::CONTENT_TYPE)
        .abort_signal(signal.as_ref())
        .send()
        .await;
    let reason = match answer {
        Err(_) if !window().navigator().on_line() => Reason::Offline,
        Err(_) => Reason::Unreachable,
        Ok(answer) if answer.status() != 200 => {
            Reason::Status { status: answer.status(), detail: detail(answer).await }
        }
        Ok(answer) => match answer.headers().get("content-type") {
            Some(kind) if is(&kind, sse::CONTENT_TYPE) => Reason::Recovered,
            kind => Reason::ContentType(kind.unwrap_or_default()),
        },
    };
    if let Some(abort) = abort {
        abort.abort();
    }
    reason
}

/// What the server says of a problem (RFC 9457), if it does.
pub async fn detail(answer: Response) -> Option<String> {
    let kind = answer.headers().get("content-type")?;
    if !is(&kind, "application/problem+json") {
        return None;
    }
    let body = answer.text().await.ok()?;
    from_json(&body).map(|Detail(detail)| detail)
}

/// Whether a content type is that media type, whatever its parameters.
fn is(content_type: &str, media_type: &str) -> bool {
    let found = content_type.split(';').next().unwrap_or_default();
    found.trim().eq_ignore_ascii_case(media_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_a_stream_whatever_its_parameters() {
        assert!(is("text/event-stream", sse::CONTENT_TYPE));
        assert!(is("Text/Event-Stream ; charset=utf-8", sse::CONTENT_TYPE));
        assert!(!is("text/html; charset=utf-8", sse::CONTENT_TYPE));
        assert!(!is("", sse::CONTENT_TYPE));
    }
}
