//! The commands for a terminal: they read and publish over HTTP, and keep backups of the event log.
//!
//! | module | content |
//! |---|---|
//! | `tail` | `waterclock tail`: events as they arrive |
//! | `publish` | `waterclock publish` |
//! | `topics` | `waterclock topics`: the list of topics |
//! | `health` | `waterclock health`, for programs that watch a server |
//! | `backup` | `waterclock backup` and `waterclock restore` |
//! | `manual` | completions of shells, and man pages |
//! | `server` | the HTTP client |
//! | `output` | what is printed, and the exit code |
//! | `visible` | text of others, as it may be shown |
//! | `backoff` | the delay before another attempt |
//! | `error` | the reasons for which a server does not answer as expected |

mod backoff;
mod backup;
mod error;
mod health;
mod manual;
mod output;
mod publish;
mod server;
mod tail;
mod topics;
mod visible;

pub use backup::{Backup, Restore, back_up, restore};
pub use error::TerminalError;
pub use health::{Health, check_health};
pub use manual::{Completions, Manual, print_completions, write_manual};
pub use publish::{Publish, publish};
pub use tail::{Tail, tail};
pub use topics::{TopicList, list_topics};
