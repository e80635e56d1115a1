//! Operations: the counters, the program's own output, and the signals that stop it.

pub mod metrics;
pub mod output;
pub mod signals;
#[cfg(feature = "otlp")]
pub mod traces;
