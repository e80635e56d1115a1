//! Why an `EventSource` gave up: it does not say, so we ask the server ourselves.

use gloo_net::http::Request;
use waterclock::{connection::Reason, sse};
use web_sys::AbortController;

/// Asks for the stream once, looks at the head of the answer, and drops the rest.
pub(crate) async fn explain(url: &str) -> Reason {
    let abort = AbortController::new().ok();
    let signal = abort.as_ref().map(AbortController::signal);
    let answer = Request::get(url)
        .header("accept", sse::CONTENT_TYPE)
        .abort_signal(signal.as_ref())
        .send()
        .await;
    let reason = match answer {
        Err(_) => Reason::Unreachable,
        Ok(answer) if answer.status() != 200 => Reason::Status(answer.status()),
        Ok(answer) => match answer.headers().get("content-type") {
            Some(kind) if is_event_stream(&kind) => Reason::Recovered,
            kind => Reason::ContentType(kind.unwrap_or_default()),
        },
    };
    if let Some(abort) = abort {
        abort.abort();
    }
    reason
}

/// Whether that is the media type of a stream, whatever its parameters.
fn is_event_stream(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case(sse::CONTENT_TYPE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_a_stream_whatever_its_parameters() {
        assert!(is_event_stream("text/event-stream"));
        assert!(is_event_stream("Text/Event-Stream ; charset=utf-8"));
        assert!(!is_event_stream("text/html; charset=utf-8"));
        assert!(!is_event_stream(""));
    }
}
