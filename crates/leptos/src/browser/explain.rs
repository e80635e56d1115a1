//! The reason why a request has failed. An `EventSource` that gave up does not say, so the page
//! asks the server itself.

use gloo_net::{
    Error,
    http::{Request, Response},
};
use leptos::prelude::window;
use waterclock::sse;
use web_sys::AbortController;

use super::json::json_member;
use crate::connection::DisconnectReason;

/// Requests the stream once, looks at the head of the response, and aborts the rest.
pub async fn explain(url: &str) -> DisconnectReason {
    let abort = AbortController::new().ok();
    let signal = abort.as_ref().map(AbortController::signal);
    let response = Request::get(url)
        .header("accept", sse::CONTENT_TYPE)
        .abort_signal(signal.as_ref())
        .send()
        .await;
    let reason = match check(response, sse::CONTENT_TYPE).await {
        Ok(_) => DisconnectReason::Recovered,
        Err(reason) => reason,
    };
    if let Some(abort) = abort {
        abort.abort();
    }
    reason
}

/// Returns a response that has the status 200 and the media type that was asked for.
///
/// # Errors
///
/// Returns the reason why there is none.
pub(crate) async fn check(
    response: Result<Response, Error>,
    media_type: &str,
) -> Result<Response, DisconnectReason> {
    match response {
        Err(_) if !window().navigator().on_line() => Err(DisconnectReason::Offline),
        Err(_) => Err(DisconnectReason::Unreachable),
        Ok(response) if response.status() != 200 => Err(DisconnectReason::Status {
            status: response.status(),
            detail: problem_detail(response).await,
        }),
        Ok(response) => match response.headers().get("content-type") {
            Some(content_type) if is_media_type(&content_type, media_type) => Ok(response),
            content_type => Err(DisconnectReason::ContentType(content_type.unwrap_or_default())),
        },
    }
}

/// Returns the `detail` of the problem in a response (RFC 9457), if it has one.
pub async fn problem_detail(response: Response) -> Option<String> {
    let content_type = response.headers().get("content-type")?;
    if !is_media_type(&content_type, "application/problem+json") {
        return None;
    }
    let body = response.text().await.ok()?;
    json_member(&body, "detail")
}

/// Compares a content type with a media type, ignoring parameters.
fn is_media_type(content_type: &str, media_type: &str) -> bool {
    let found = content_type.split(';').next().unwrap_or_default();
    found.trim().eq_ignore_ascii_case(media_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_a_content_type_are_ignored() {
        assert!(is_media_type("text/event-stream", sse::CONTENT_TYPE));
        assert!(is_media_type("Text/Event-Stream ; charset=utf-8", sse::CONTENT_TYPE));
        assert!(!is_media_type("text/html; charset=utf-8", sse::CONTENT_TYPE));
        assert!(!is_media_type("", sse::CONTENT_TYPE));
    }
}
