//! How fast the server is: `make bench` prints one table. Each figure stands beside that of a raw loop,
//! which does no more than write the same bytes to as many sockets, and, where that makes sense, of axum's
//! `Sse` over a broadcast channel, which one would write instead. The machine matters less then.
//!
//! A server has one core for itself, the load has another.
//!
//! # Layout
//!
//! | module | what is there |
//! |---|---|
//! | `process` | a server as a process: start, processor time, memory |
//! | `load` | many subscribers in one thread, and what they have seen; a publisher |
//! | `http2` | the frames of subscribers that share connections |
//! | `raw` | the raw loop |
//! | `rival` | axum's `Sse` over a broadcast channel |
//! | `cases` | what is measured |
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a program for developers: what fails ends it, and figures are rounded anyway"
)]

mod cases;
mod http2;
mod load;
mod process;
mod raw;
mod rival;

fn main() {
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["raw"] => raw::serve(),
        ["rival"] => rival::serve(),
        [waterclock] => cases::all(waterclock, ""),
        [waterclock, only] => cases::all(waterclock, only),
        _ => println!("bench <the program waterclock> [the beginning of a case's name]"),
    }
}
