//! A simulation of a cluster with its publishers and readers, in one thread. A seed decides on the
//! turns, on delays, cuts, lost answers and entries, broken disks and crashes. Hubs and logs are
//! the real ones, and only the sequencer is simulated.
//!
//! `SIMULATION_SEED=7 cargo test -p waterclock --all-features simulation` repeats one run, and
//! `SIMULATIONS=10000` sets their number.

mod import;
mod order;
mod world;

use std::thread;

use crate::{
    event_log::{folder, wait_in_place},
    hub::simulation::seeds,
};

/// Tells how to repeat a run that panics.
struct Hint(u64);

impl Drop for Hint {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("repeat it with SIMULATION_SEED={}", self.0);
        }
    }
}

#[test]
fn a_cluster_keeps_its_promises() {
    simulate(seeds(), false);
}

#[test]
fn losses_of_the_engine_are_told() {
    // Each takes longer.
    simulate(seeds().step_by(4), true);
}

fn simulate(seeds: impl Iterator<Item = u64>, has_losses: bool) {
    wait_in_place();
    for seed in seeds {
        fastrand::seed(seed);
        let _hint = Hint(seed);
        let checked = world::World::new(seed, has_losses).run();
        assert_eq!(checked, Ok(()));
    }
}
