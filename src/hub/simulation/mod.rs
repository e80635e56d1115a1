//! A simulation of a hub with its publishers and readers, in one thread. A seed decides on their
//! turns, on delays, errors and crashes. The hub is the real one, on a simulated disk.
//!
//! `SIMULATION_SEED=7 cargo test -p waterclock --all-features simulation` repeats one run, and
//! `SIMULATIONS=10000` sets their number.

pub(crate) mod checker;
mod log;
mod world;

use std::ops::Range;

use world::World;

/// Number of seeds by default.
const RUNS: u64 = 200;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect(name))
}

/// Returns the seeds of the runs.
pub(crate) fn seeds() -> Range<u64> {
    match number("SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIMULATIONS").unwrap_or(RUNS),
    }
}

#[test]
fn the_hub_keeps_its_promises() {
    for seed in seeds() {
        let checked = World::new(seed).run().check();
        assert_eq!(checked, Ok(()), "repeat it with SIMULATION_SEED={seed}");
    }
}
