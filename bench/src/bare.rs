//! The limit of durable publishing: a process that writes events into a file that has its size
//! already, and syncs each of them.

use std::{
    fs::File,
    io::{Seek as _, Write as _},
    time::Instant,
};

use crate::{
    load::{data, paced},
    process,
    table::percentile,
};

/// Size of the file in bytes. It is overwritten again and again, like a journal.
const SIZE: usize = 4 << 20;

/// The figures of bare writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BareWrites {
    /// Writes per second.
    pub rate: f64,
    /// p50 of the time of a write with its sync, in milliseconds.
    pub latency: f64,
    /// CPU time per write, in microseconds.
    pub cost: f64,
}

/// Writes `size` bytes at a time for some seconds, and prints the figures. A rate of 0 is as fast
/// as possible.
pub fn write(per_second: f64, size: usize, seconds: f64) {
    let mut file = File::create("bare").unwrap();
    file.write_all(&vec![0; SIZE]).unwrap();
    file.sync_all().unwrap();
    file.rewind().unwrap();
    let (start, before) = (Instant::now(), process::cpu_time(std::process::id()));
    let mut position = 0;
    let times = paced(per_second, seconds, |number| {
        if position + size > SIZE {
            position = 0;
            file.rewind().unwrap();
        }
        file.write_all(data(number, size).as_bytes()).unwrap();
        file.sync_data().unwrap();
        position += size;
    });
    let rate = times.len() as f64 / start.elapsed().as_secs_f64();
    let used = process::cpu_time(std::process::id()).saturating_sub(before);
    let cost = used.as_secs_f64() * 1e6 / times.len() as f64;
    println!("{rate} {} {cost}", percentile(&times, 0.5) as f64 / 1e6);
}

/// Runs the writes in a process on the servers' core.
pub fn measure(per_second: f64, size: usize, seconds: f64) -> BareWrites {
    let folder = process::temporary_folder();
    let arguments =
        ["bare".to_owned(), per_second.to_string(), size.to_string(), seconds.to_string()];
    let output = process::run_on_server_core(&arguments, folder.path());
    let figures: Vec<f64> = output.split_whitespace().map(|word| word.parse().unwrap()).collect();
    BareWrites { rate: figures[0], latency: figures[1], cost: figures[2] }
}
