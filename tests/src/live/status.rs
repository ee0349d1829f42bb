//! Counters and conditions that tests wait for.

use sluice_lab::{Layout, agents};
use std::time::{Duration, Instant};

/// How many packets were dropped under this name so far.
///
/// # Panics
/// When the dataplane does not answer.
pub fn drops(layout: &Layout, reason: &str) -> u64 {
    let status = agents::dataplane_status(layout).unwrap_or_else(|error| panic!("{error:#}"));
    status.drops.iter().filter(|drop| drop.reason == reason).map(|drop| drop.packets).sum()
}

/// Waits until `condition` holds, looking every few milliseconds.
///
/// # Panics
/// With `what` when it does not hold within `limit`.
pub fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
    start.elapsed()
}
