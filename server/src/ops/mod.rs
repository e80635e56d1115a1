//! Operations: the counters, the program's own output, files of keys, and the signals that stop the
//! program.

pub(crate) mod files;
pub mod key_metrics;
pub mod metrics;
pub mod output;
pub mod signals;
