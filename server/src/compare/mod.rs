//! The machinery of `/compare`: meters that count the bytes of a transport, and a load of events.
//! It is behind the default feature `compare`.

pub mod load;
pub mod meter;
