//! Pods that start, one after another and two at a time, each watched from the moment in which its ADD returns.
//!
//! ```text
//!   node1: near-red ◀──┐  newcomer, red or blue: attached by ptp and sluice-cni   ┌──▶ far-red  :node2
//!          near-blue ◀─┴─ goes to its own colour, takes from its own colour ──────┴──▶ far-blue
//! ```
//!
//! The newcomer's process is a thread that waits in its namespace from before there is a device: its first packets leave
//! microseconds after ADD returned, earlier than any process could be started. At the same moment all four others turn to
//! the newcomer. What policy allows goes to the open port and must arrive and be answered at the first attempt; what
//! it forbids goes to the shut one, where whoever receives anything writes it down. Places are used again at once,
//! by the other colour, so that whatever is left of a predecessor would show.

mod host;
mod knock;
mod newcomer;

pub use host::Host;
pub use newcomer::{Started, Street};

use std::time::Duration;

/// What became of all starts.
#[derive(Debug, Default)]
pub struct Report {
    /// How many.
    pub starts: usize,
    /// Packets and connections that policy allows.
    pub allowed: usize,
    /// Of them, those that were lost, with what and where.
    pub lost: Vec<String>,
    /// Packets and connections that policy forbids.
    pub forbidden: usize,
    /// Of them, those that arrived, with what and where.
    pub arrived: Vec<String>,
    /// Times within sluice-cni.
    pub policy_took: Vec<Duration>,
    /// Times of the whole chain.
    pub add_took: Vec<Duration>,
    /// From ADD's return to the newcomer's first packet.
    pub first_packet: Vec<Duration>,
}

impl Report {
    /// Takes one start in.
    pub fn add(&mut self, started: Started) {
        self.starts += 1;
        self.allowed += started.allowed;
        self.forbidden += started.forbidden;
        self.lost.extend(started.lost);
        self.arrived.extend(started.arrived);
        self.policy_took.push(started.policy_took);
        self.add_took.push(started.add_took);
        self.first_packet.push(started.first_packet);
    }
}

/// The value below which so many percent lie; zero of nothing.
pub fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(index).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 50), Duration::from_millis(100));
        assert_eq!(percentile(&times, 99), Duration::from_millis(198));
        assert_eq!(percentile(&times[..1], 99), Duration::from_millis(1));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }
}
