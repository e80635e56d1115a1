//! Encoder and parser of the wire format of Server-Sent Events, `text/event-stream` (WHATWG HTML
//! 9.2).
//!
//! ```
//! use waterclock::sse::{Block, Message, Parsed, Parser};
//!
//! let block = Block { id: Some("a-1"), data: Some("two\nlines"), ..Block::default() };
//! let mut bytes = Vec::new();
//! block.encode(&mut bytes)?;
//! assert_eq!(bytes, b"id: a-1\ndata: two\ndata: lines\n\n");
//!
//! let mut parser = Parser::default();
//! assert_eq!(
//!     parser.feed(&bytes),
//!     [Parsed::Message(Message {
//!         name: "message".to_owned(),
//!         data: "two\nlines".to_owned(),
//!         last_event_id: "a-1".to_owned(),
//!     })]
//! );
//! # Ok::<_, waterclock::sse::EncodeError>(())
//! ```

mod encode;
mod parse;

pub use encode::{Block, EncodeError};
pub use parse::{Message, Parsed, Parser};

/// The media type of a stream.
pub const CONTENT_TYPE: &str = "text/event-stream";
