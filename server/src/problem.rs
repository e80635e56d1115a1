//! The one error type of the HTTP edge: `application/problem+json` (RFC 9457).

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// Why a request was refused, and what would be accepted.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// `topic` names one that does not exist.
    #[error("There is no topic {0:?}. The only topic is `clock`, which is also the default.")]
    NoSuchTopic(String),
    /// `format` is not one of those there are.
    #[error("There is no format {0:?}. Leave `format` out, or set it to `json`.")]
    NoSuchFormat(String),
    /// No route and no file has that path.
    #[error("There is nothing here. The events are at `/events`, a page that shows them at `/`.")]
    NothingHere,
    /// The route does not offer the method. The `Allow` header says which it offers.
    #[error("This method is not offered here. The `Allow` header says which ones are.")]
    MethodNotAllowed,
}

/// The body, as RFC 9457 has it. Without a `type`, `title` is that of the status.
#[derive(Serialize)]
struct Body {
    title: &'static str,
    status: u16,
    detail: String,
}

impl Problem {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoSuchTopic(_) | Self::NothingHere => StatusCode::NOT_FOUND,
            Self::NoSuchFormat(_) => StatusCode::BAD_REQUEST,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let body = Body {
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: self.to_string(),
        };
        let content_type = HeaderValue::from_static("application/problem+json");
        (status, [(header::CONTENT_TYPE, content_type)], axum::Json(body)).into_response()
    }
}
