//! Messages about refused permissions (401 and 403): at most one a minute for each origin or
//! address, so that a page or program that asks again and again does not fill the output.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    http::{HeaderValue, Method, StatusCode, Uri, header::ORIGIN, request::Parts},
    response::Response,
};
use parking_lot::Mutex;
use waterclock_axum::{Denial, DenialHook};

use crate::auth::{SharedAccess, client_address};

/// Time between two messages about the same origin or address.
const INTERVAL: Duration = Duration::from_mins(1);
/// Maximum number of origins and addresses with a message in the last minute. Further ones get no
/// message.
const MAX_SOURCES: usize = 1000;
/// Maximum length of a text from a client in a message, in characters.
const MAX_TEXT: usize = 300;

/// The recent messages.
pub(super) struct Denials {
    access: SharedAccess,
    recent: Mutex<RecentMessages>,
}

impl Denials {
    /// Starts without messages.
    pub(super) fn new(access: SharedAccess) -> Self {
        Self { access, recent: Mutex::default() }
    }

    /// Prints a message if the permission of a line or a message in a request is refused. Returns
    /// the parts for a message about the request itself.
    pub(super) fn watch(self: &Arc<Self>, request: &mut Parts) -> Arc<RefusedRequest> {
        let refused = Arc::new(RefusedRequest::new(Arc::clone(self), request));
        let within = Arc::clone(&refused);
        let hook = DenialHook::new(move |status, denial| within.print(status, denial));
        request.extensions.insert(hook);
        refused
    }
}

/// The last message about each origin or address.
#[derive(Default)]
struct RecentMessages(HashMap<String, LastMessage>);

struct LastMessage {
    at: Instant,
    /// Number of refusals since then.
    repeats: u64,
}

impl RecentMessages {
    /// Counts a refusal. Returns the number of refusals without a message since the last one, or
    /// `None` if this one gets no message, either.
    fn count(&mut self, source: String, now: Instant) -> Option<u64> {
        let is_recent = |last: &LastMessage| now.duration_since(last.at) < INTERVAL;
        if let Some(last) = self.0.get_mut(&source) {
            if is_recent(last) {
                last.repeats += 1;
                return None;
            }
            return Some(std::mem::replace(last, LastMessage { at: now, repeats: 0 }).repeats);
        }
        if self.0.len() >= MAX_SOURCES {
            self.0.retain(|_, last| is_recent(last));
        }
        if self.0.len() >= MAX_SOURCES {
            return None;
        }
        self.0.insert(source, LastMessage { at: now, repeats: 0 });
        Some(0)
    }
}

/// The parts of a request that a message about it has.
pub(super) struct RefusedRequest {
    denials: Arc<Denials>,
    client: Option<IpAddr>,
    origin: Option<HeaderValue>,
    method: Method,
    uri: Uri,
}

impl RefusedRequest {
    fn new(denials: Arc<Denials>, request: &Parts) -> Self {
        let client = client_address(request, &denials.access.load().trusted_proxies);
        let origin = request.headers.get(ORIGIN).cloned();
        Self { denials, client, origin, method: request.method.clone(), uri: request.uri.clone() }
    }

    /// Prints a message if the response refuses the permission of the request.
    pub(super) fn print_if_denied(&self, response: &Response) {
        if let Some(denial) = response.extensions().get() {
            self.print(response.status(), denial);
        }
    }

    /// Prints a message about the refusal, unless there was one lately.
    fn print(&self, status: StatusCode, Denial(detail): &Denial) {
        let short = |text: &str| text.chars().take(MAX_TEXT).collect::<String>();
        let origin = self.origin.as_ref();
        let origin = origin.map(|origin| short(&String::from_utf8_lossy(origin.as_bytes())));
        let address = || self.client.map(|client| client.to_string()).unwrap_or_default();
        let source = origin.clone().unwrap_or_else(address);
        if let Some(repeats) = self.denials.recent.lock().count(source, Instant::now()) {
            tracing::info!(
                status = status.as_u16(),
                method = %self.method,
                // Without the query, which may have a secret of another program.
                path = short(self.uri.path()),
                origin,
                client = self.client.map(display),
                detail = short(detail),
                repeats,
                "request refused"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_gets_one_message_a_minute_with_the_number_of_repeats() {
        let (mut recent, now) = (RecentMessages::default(), Instant::now());
        let mut count = |source: &str, seconds| {
            recent.count(source.to_owned(), now + Duration::from_secs(seconds))
        };
        assert_eq!(count("a", 0), Some(0));
        assert_eq!(count("a", 1), None);
        assert_eq!(count("b", 1), Some(0));
        assert_eq!(count("a", 59), None);
        assert_eq!(count("a", 60), Some(2));
        assert_eq!(count("a", 119), None);
        assert_eq!(count("b", 119), Some(0));
    }

    #[test]
    fn invented_sources_take_bounded_memory() {
        let (mut recent, now) = (RecentMessages::default(), Instant::now());
        let messages = (0..3000).filter_map(|number| recent.count(number.to_string(), now));
        assert_eq!(messages.count(), MAX_SOURCES);
        assert_eq!(recent.0.len(), MAX_SOURCES);
        assert_eq!(recent.count("later".to_owned(), now + INTERVAL), Some(0));
        assert_eq!(recent.0.len(), 1);
    }
}
