//! The one error type of the HTTP edge: `application/problem+json` (RFC 9457).
//!
//! Each domain has an error enum of its own, which converts into a [`Problem`] where a handler
//! returns it.

use std::{borrow::Cow, fmt};

use axum::{
    Json,
    extract::rejection::PathRejection,
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{CONNECTION, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Map, Value};

/// A refused request: an HTTP status, and a sentence that says what would be accepted.
///
/// ```
/// use axum::{http::StatusCode, response::IntoResponse as _};
/// use waterclock_axum::Problem;
///
/// let problem = Problem::new(StatusCode::NOT_FOUND, "There is no such order.");
/// assert_eq!(problem.into_response().status(), 404);
/// ```
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    detail: Cow<'static, str>,
    attack_sign: Option<AttackSign>,
    closes: bool,
    headers: Vec<(HeaderName, HeaderValue)>,
    members: Map<String, Value>,
}

/// The sign by which a refused request may be part of an attack. The response carries it as an
/// extension, so that a layer can count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttackSign {
    /// The request is not valid HTTP/1.1, or can be read in more than one way.
    Malformed,
    /// The request's body exceeds a limit.
    TooLong,
    /// The request comes from an untrusted origin or address.
    Untrusted,
    /// The request's body did not arrive in time.
    BodyTimeout,
}

/// The detail of a refused permission (401 or 403). The response carries it as an extension, so
/// that a layer can print it.
#[derive(Clone, Debug)]
pub struct Denial(pub Cow<'static, str>);

/// The JSON body of a problem. It has no `type`, so `title` is that of the status (RFC 9457,
/// 4.2.1).
#[derive(Debug, Serialize)]
pub struct ProblemBody<'a> {
    title: &'static str,
    status: u16,
    detail: &'a str,
    /// Extensions (RFC 9457, 3.2).
    #[serde(flatten)]
    members: &'a Map<String, Value>,
}

impl Problem {
    /// Creates a problem with the given status. `detail` is shown to the client.
    pub fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            detail: detail.into(),
            attack_sign: None,
            closes: false,
            headers: Vec::new(),
            members: Map::new(),
        }
    }

    /// The answer to a path that offers other methods only. axum adds the `Allow` header.
    pub fn method_not_allowed() -> Self {
        let detail = "This resource does not support the method. The `Allow` header lists those it supports.";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, detail)
    }

    /// Adds a header to the response.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: impl Into<HeaderValue>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Marks the response to a request that may be part of an attack.
    #[must_use]
    pub fn with_attack_sign(mut self, sign: AttackSign) -> Self {
        self.attack_sign = Some(sign);
        self
    }

    /// Closes the connection after the response, since the start of the next request is unknown.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.closes = true;
        self
    }

    /// Appends a sentence to the detail.
    #[must_use]
    pub fn with_note(mut self, note: &str) -> Self {
        self.detail = format!("{} {note}", self.detail).into();
        self
    }

    /// Shortens the detail, which may quote a long text of the client. Its beginning and its end
    /// stay, since the reason may be behind the quotation.
    #[must_use]
    pub(crate) fn shortened(mut self) -> Self {
        const CHARACTERS: usize = 500;
        let detail = &self.detail;
        let from = detail.char_indices().nth(CHARACTERS).map(|(end, _)| end);
        let to = detail.char_indices().nth_back(CHARACTERS).map(|(start, _)| start);
        if let (Some(from), Some(to)) = (from, to)
            && from < to
        {
            self.detail = format!("{}…{}", &detail[..from], &detail[to..]).into();
        }
        self
    }

    /// Adds a member to the JSON body.
    #[must_use]
    pub fn with_member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// The detail of a refused permission; `None` for any other problem.
    pub(crate) fn denial(&self) -> Option<Denial> {
        let is_denial = matches!(self.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        is_denial.then(|| Denial(self.detail.clone()))
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The JSON body.
    pub fn body(&self) -> ProblemBody<'_> {
        ProblemBody {
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            members: &self.members,
        }
    }
}

impl From<PathRejection> for Problem {
    fn from(why: PathRejection) -> Self {
        Self::new(why.status(), format!("{}.", why.body_text()))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let denial = self.denial();
        let mut response = (self.status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        headers.extend(self.headers);
        if let Some(sign) = self.attack_sign {
            response.extensions_mut().insert(sign);
        }
        if let Some(denial) = denial {
            response.extensions_mut().insert(denial);
        }
        response
    }
}
