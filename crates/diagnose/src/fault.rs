//! What can be wrong with a path.

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// Whom the client reaches answers in HTTP/1.0, which has no way to go on on one connection.
    Http10,
    /// The server is asked in HTTP/1.0.
    Http10Upstream,
    /// A browser opens only six connections to a host over HTTP/1.1.
    SixConnections,
    /// Fewer streams than were tried could be open.
    ConnectionLimit,
    /// The first event takes long.
    LateFirstEvent,
    /// Events are held back in a buffer.
    Buffering,
    /// Events wait for each other for a moment.
    Coalescing,
    /// Some events did not arrive, or not in order.
    EventsLost,
    /// Comments do not arrive.
    CommentsLost,
    /// `retry` does not arrive.
    RetryLost,
    /// Ids do not arrive.
    IdsLost,
    /// The stream is compressed, which holds events back.
    Compression,
    /// It is not `text/event-stream` any more, which browsers refuse.
    ContentType,
    /// `Cache-Control` does not say any more that the stream is not to be kept and not to be changed.
    CacheControl,
    /// An answer is given out twice.
    Cached,
    /// The stream is cut in a silence.
    IdleTimeout,
    /// `Last-Event-ID` does not reach the server.
    LastEventIdLost,
    /// A POST is refused.
    PostRefused,
    /// Events of a GET's answer are held back, those of a POST's are not.
    GetUnlikePost,
    /// A service worker answers the page's requests.
    ServiceWorker,
    /// The clocks are far apart.
    ClockOff,
}

impl Fault {
    /// All that there are.
    pub const ALL: [Self; 21] = [
        Self::Http10,
        Self::Http10Upstream,
        Self::SixConnections,
        Self::ConnectionLimit,
        Self::LateFirstEvent,
        Self::Buffering,
        Self::Coalescing,
        Self::EventsLost,
        Self::CommentsLost,
        Self::RetryLost,
        Self::IdsLost,
        Self::Compression,
        Self::ContentType,
        Self::CacheControl,
        Self::Cached,
        Self::IdleTimeout,
        Self::LastEventIdLost,
        Self::PostRefused,
        Self::GetUnlikePost,
        Self::ServiceWorker,
        Self::ClockOff,
    ];

    /// Its name, which stays.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "http-1.0",
            Self::Http10Upstream => "http-1.0-upstream",
            Self::SixConnections => "six-connections",
            Self::ConnectionLimit => "connection-limit",
            Self::LateFirstEvent => "late-first-event",
            Self::Buffering => "buffering",
            Self::Coalescing => "coalescing",
            Self::EventsLost => "events-lost",
            Self::CommentsLost => "comments-lost",
            Self::RetryLost => "retry-lost",
            Self::IdsLost => "ids-lost",
            Self::Compression => "compression",
            Self::ContentType => "content-type",
            Self::CacheControl => "cache-control",
            Self::Cached => "cached",
            Self::IdleTimeout => "idle-timeout",
            Self::LastEventIdLost => "last-event-id-lost",
            Self::PostRefused => "post-refused",
            Self::GetUnlikePost => "get-unlike-post",
            Self::ServiceWorker => "service-worker",
            Self::ClockOff => "clock-off",
        }
    }

    /// What it is, in words.
    pub fn title(self) -> &'static str {
        match self {
            Self::Http10 => "the answer is in HTTP/1.0",
            Self::Http10Upstream => "the server is asked in HTTP/1.0",
            Self::SixConnections => "a browser opens only six connections over HTTP/1.1",
            Self::ConnectionLimit => "something limits how many streams can be open",
            Self::LateFirstEvent => "the first event takes long",
            Self::Buffering => "events are held back in a buffer",
            Self::Coalescing => "events wait for each other",
            Self::EventsLost => "events are lost",
            Self::CommentsLost => "comments are lost",
            Self::RetryLost => "`retry` is lost",
            Self::IdsLost => "ids are lost",
            Self::Compression => "the stream is compressed",
            Self::ContentType => "the content type was changed",
            Self::CacheControl => "`Cache-Control` was changed",
            Self::Cached => "a cache answers",
            Self::IdleTimeout => "the stream is cut in a silence",
            Self::LastEventIdLost => "`Last-Event-ID` does not reach the server",
            Self::PostRefused => "a POST is refused",
            Self::GetUnlikePost => "a GET that lasts is held back, a POST is not",
            Self::ServiceWorker => "a service worker answers the page's requests",
            Self::ClockOff => "the clocks are far apart",
        }
    }
}
