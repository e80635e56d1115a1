//! Operations: the counters, the program's own output, files of keys, HTTP clients, the signals
//! that stop the program, and the messages to a service manager.

pub(crate) mod files;
pub(crate) mod http_client;
pub mod key_metrics;
pub mod metrics;
pub mod output;
pub mod service_manager;
pub mod signals;
#[cfg(feature = "otlp")]
pub mod traces;
