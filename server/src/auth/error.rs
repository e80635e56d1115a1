//! Denied permissions.

use waterclock::{event::Topic, pattern::Pattern};
use waterclock_axum::Denied;

use super::{origin::NotLocal, token::InvalidToken};

/// The cookie that may carry a token where no header can be set, as with `EventSource`.
pub(super) const COOKIE_NAME: &str = "waterclock_token";

/// A denied permission, with the reason.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AuthError {
    /// The token is not valid.
    #[error("The token is refused: {0}. Send a valid one in `Authorization` or in the cookie.")]
    InvalidToken(InvalidToken),
    /// The request has no token, and needs one.
    #[error(
        "A token is required: `Authorization: Bearer` with a JSON Web Token, or the cookie \
         `{COOKIE_NAME}`."
    )]
    MissingToken,
    /// The token does not list the topic.
    #[error(
        "The token's `{claim}` does not list `{pattern}`{}. It lists {}. Send one that does in \
         `Authorization`.",
        if *is_bounded { " within the bounds that the server sets its issuer" } else { "" },
        list(listed)
    )]
    NotListed {
        /// The claim that lists patterns.
        claim: &'static str,
        /// The topic or pattern that was asked for.
        pattern: String,
        /// The patterns that the claim lists.
        listed: Vec<Pattern>,
        /// `true` if the bounds of the token's issuer leave out some.
        is_bounded: bool,
    },
    /// The topic is reserved for the server.
    #[error("Only the server itself publishes to `{}`. Use another topic.", Topic::CLOCK)]
    ReservedTopic,
    /// Only local requests may publish without a token.
    #[error(
        "Only the server's own machine may publish, and the request is not local: {0}. With the \
         option --jwt-secret-file, others may publish by a token."
    )]
    PublishNotLocal(NotLocal),
    /// Only local requests may read the topic without a token.
    #[error(
        "This topic is not public, and the request is not local: {0}. The option --public-topic \
         makes topics public, and --jwt-secret-file permits tokens."
    )]
    ReadNotLocal(NotLocal),
    /// The resource is for local requests only.
    #[error("This is for the server's own machine only, and the request is not local: {0}.")]
    NotLocal(NotLocal),
    /// A rule for these topics denies it.
    #[error(
        "{} may {verb} `{topics}`, by a rule in the server's configuration{}.",
        if why.is_some() { "Only the server's own machine" } else { "Nobody" },
        why.map(|why| format!(", and the request is not local: {why}")).unwrap_or_default()
    )]
    ByRule {
        /// The action.
        verb: &'static str,
        /// The topic or pattern.
        topics: String,
        /// The sign that the request is not local, if only local ones may.
        why: Option<NotLocal>,
    },
    /// A page of another origin asks for a WebSocket.
    #[error(
        "A page of the origin {0:?} may not open a WebSocket here, since it is not the server's own \
         (`Host` differs). The option --cors-origin permits other origins."
    )]
    ForeignOrigin(String),
}

impl From<AuthError> for Denied {
    fn from(error: AuthError) -> Self {
        let detail = error.to_string();
        match error {
            // The token may be valid: the issuer has not been asked.
            AuthError::InvalidToken(InvalidToken::UnknownKey(unknown)) if unknown.is_away => {
                Self::Unavailable(detail)
            }
            AuthError::InvalidToken(_) => Self::InvalidToken(detail),
            AuthError::MissingToken => Self::Unauthenticated(detail),
            AuthError::NotListed { .. }
            | AuthError::ReservedTopic
            | AuthError::ByRule { why: None, .. } => Self::Forbidden(detail),
            AuthError::PublishNotLocal(_)
            | AuthError::ReadNotLocal(_)
            | AuthError::NotLocal(_)
            | AuthError::ByRule { why: Some(_), .. }
            | AuthError::ForeignOrigin(_) => Self::Untrusted(detail),
        }
    }
}

fn list(patterns: &[Pattern]) -> String {
    let list: Vec<_> = patterns.iter().map(|pattern| format!("`{pattern}`")).collect();
    if list.is_empty() { "nothing".to_owned() } else { list.join(", ") }
}
