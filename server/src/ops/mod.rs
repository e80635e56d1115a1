//! Operations: the counters, the program's own output, the signals that stop it, and the messages
//! to a service manager.

pub mod metrics;
pub mod output;
pub mod service_manager;
pub mod signals;
