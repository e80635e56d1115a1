//! Benchmarks of the server. `make bench` prints one table. Each figure stands next to that of a
//! raw loop, which only writes the same bytes to the same number of sockets, and where it makes
//! sense next to that of axum's `Sse` over a broadcast channel, the usual alternative. The
//! comparison makes the table depend less on the machine.
//!
//! The server has one core to itself, and the load generator has another.
//!
//! # Layout
//!
//! | module | contents |
//! |---|---|
//! | `cases` | the benchmarks, and the table |
//! | `process` | a server as a process: start, CPU time, memory |
//! | `load` | the load generator: many subscribers in one thread, and a publisher |
//! | `http2` | the HTTP/2 frames of subscribers that share connections |
//! | `raw` | the raw loop |
//! | `rival` | axum's `Sse` over a broadcast channel |
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a program for developers: it may panic, and it rounds its figures anyway"
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
        [waterclock] => cases::run(waterclock, ""),
        [waterclock, prefix] => cases::run(waterclock, prefix),
        _ => println!("usage: bench <path of waterclock> [beginning of the name of a benchmark]"),
    }
}
