//! Benchmarks of the server. `make bench` prints one table. Each figure stands next to that of a
//! raw loop, which only writes the same bytes to the same number of sockets, and where it makes
//! sense next to that of axum's `Sse` over a broadcast channel, the usual alternative. The
//! comparison makes the table depend less on the machine.
//!
//! The server has one core to itself, and the load generator has another.
//!
//! With `--cluster`, it measures three nodes next to a single process (`make bench-cluster`).
//!
//! # Layout
//!
//! | module | contents |
//! |---|---|
//! | `options` | the command line |
//! | `cases` | the cases, each with its target |
//! | `table` | the figures and targets, and the table that they make |
//! | `process` | a server as a process: start, CPU time, memory |
//! | `cluster` | three nodes, three servers of NATS and HAProxy, as processes |
//! | `page` | a browser with the page, as a process |
//! | `load` | the load generator: many subscribers in one thread, and publishers |
//! | `raw` | the raw loop |
//! | `bare` | writes to a file, each with a sync |
//! | `rival` | axum's `Sse` over a broadcast channel |
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a program for developers: it may panic, and it rounds its figures anyway"
)]

mod bare;
mod cases;
mod cluster;
mod load;
mod options;
mod page;
mod process;
mod raw;
mod rival;
mod table;

use std::process::ExitCode;

use options::CommandLine;

fn main() -> ExitCode {
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let result = CommandLine::parse(&arguments).and_then(|command| match command {
        CommandLine::Raw => {
            raw::serve();
            Ok(true)
        }
        CommandLine::Rival => {
            rival::serve();
            Ok(true)
        }
        CommandLine::Bare { per_second, size, seconds } => {
            bare::write(per_second, size, seconds);
            Ok(true)
        }
        CommandLine::Help => {
            print!("{}", options::HELP);
            Ok(true)
        }
        CommandLine::List => {
            cases::list();
            Ok(true)
        }
        CommandLine::Measure(options) => {
            process::remove_old_folders();
            cases::measure(&options)
        }
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}\nTry `bench --help`.");
            ExitCode::from(2)
        }
    }
}
