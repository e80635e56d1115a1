//! A simulation of a cluster with its publishers and readers, in one thread. A seed decides on the
//! turns, on delays, cuts, lost answers and crashes. Hubs and logs are the real ones, on a simulated
//! sequencer.
//!
//! `SIMULATION_SEED=7 cargo test -p waterclock --all-features simulation` repeats one run, and
//! `SIMULATIONS=10000` sets their number.

mod order;
mod world;

use crate::{event_log::wait_in_place, hub::simulation::seeds};

#[test]
fn a_cluster_keeps_its_promises() {
    wait_in_place();
    for seed in seeds() {
        fastrand::seed(seed);
        let checked = world::World::new(seed).run();
        assert_eq!(checked, Ok(()), "repeat it with SIMULATION_SEED={seed}");
    }
}
