//! Operations: the counters, and the program's own output.

pub mod metrics;
pub mod output;
