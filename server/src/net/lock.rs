//! The lock of the inboxes. The model check in `tests/inbox.rs` has loom's in its place.

pub(super) use parking_lot::Mutex;
