//! Servers that are not set up as they must be.
