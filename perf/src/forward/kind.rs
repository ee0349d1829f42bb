//! What is measured, in which states, and what is promised of it.

use super::arm::Arm;
use super::bench::{Bench, CLIENT, FREE, SERVER};
use super::udp::Flows;
use super::{Drive, Sides, connect, flood, iperf, latency, request, udp};
use crate::report::{Bound, Promise};
use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// One kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// TCP, one stream.
    Tcp,
    /// TCP, eight streams.
    Tcp8,
    /// TCP, one stream, through a ClusterIP.
    Service,
    /// 64-byte UDP, one flow.
    Udp,
    /// 64-byte UDP, 1000 flows of one pair of pods.
    Udp1k,
    /// 64-byte UDP, 100,000 flows of 16 pairs.
    Udp100k,
    /// Request and response over an established connection, one at a time.
    Request,
    /// Connect, request, response, close.
    Connect,
    /// The same between pods that no policy selects.
    Free,
    /// First packets of UDP flows that differ in the source port.
    First,
    /// First packets to ports that nobody has asked for before.
    Cold,
    /// One established flow, 5000 questions a second.
    Latency,
    /// TCP beside one pod's flood of what is denied.
    Denied,
    /// Connect and close beside one pod's flood of new flows.
    Opening,
    /// 100,000 flows while ten tables a second are published.
    Swaps,
}

/// A promise about one state beside another.
pub(super) struct Compared {
    pub(super) name: &'static str,
    pub(super) arm: Arm,
    pub(super) beside: Arm,
    pub(super) promise: Promise,
}

const MANY_FLOWS: usize = 100_000;
/// What only informs has had its share then.
const INFORMING_ROUNDS: u32 = 20;
const SWAP_EVERY: Duration = Duration::from_millis(100);

impl Kind {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Tcp => "TCP, 1 stream",
            Self::Tcp8 => "TCP, 8 streams",
            Self::Service => "TCP, 1 stream, ClusterIP",
            Self::Udp => "UDP, 64 B, 1 flow",
            Self::Udp1k => "UDP, 64 B, 1k flows",
            Self::Udp100k => "UDP, 64 B, 100k flows",
            Self::Request => "request/response",
            Self::Connect => "connect/close",
            Self::Free => "connect/close, no policy selects",
            Self::First => "first packet, RTT p50",
            Self::Cold => "first packet to a new port, RTT p50",
            Self::Latency => "established flow, RTT p99",
            Self::Denied => "TCP beside a denied flood",
            Self::Opening => "connect/close beside new flows",
            Self::Swaps => "UDP, 100k flows, 10 tables/s",
        }
    }

    /// The unit, and how many of the base unit it is.
    pub(super) fn unit(self) -> (&'static str, f64) {
        match self {
            Self::Tcp | Self::Tcp8 | Self::Service | Self::Denied => ("Gbit/s", 1e9),
            Self::Udp | Self::Udp1k | Self::Udp100k | Self::Swaps => ("kpps", 1e3),
            Self::Request | Self::Connect | Self::Free | Self::Opening => ("k/s", 1e3),
            Self::First | Self::Cold | Self::Latency => ("µs", 1.0),
        }
    }

    /// What is measured; all ratios are to the first, with which each of the others takes turns.
    pub(super) fn arms(self) -> &'static [Arm] {
        match self {
            Self::Tcp => &[Arm::Off, Arm::On, Arm::Some, Arm::Few, Arm::Sets],
            Self::First | Self::Request => &[Arm::Off, Arm::On, Arm::Few, Arm::Sets],
            Self::Udp => &[Arm::Off, Arm::On, Arm::Some, Arm::Few, Arm::Every, Arm::Sets, Arm::Linear],
            Self::Connect => &[Arm::Off, Arm::On, Arm::Some, Arm::Few, Arm::Sets, Arm::Linear],
            Self::Udp100k => &[Arm::Off, Arm::On, Arm::Few],
            Self::Tcp8 | Self::Service | Self::Udp1k | Self::Free | Self::Cold | Self::Latency => &[Arm::Off, Arm::On],
            Self::Denied => &[Arm::Refused, Arm::On],
            Self::Opening => &[Arm::Silenced, Arm::On],
            Self::Swaps => &[Arm::Few, Arm::Swapped],
        }
    }

    /// The states of a round that take turns with the first: those that nothing is promised of in some rounds only, in either order.
    pub(super) fn contenders(self, round: u32) -> Vec<Arm> {
        let takes_part = |arm: &Arm| match arm {
            Arm::Sets => round < INFORMING_ROUNDS && [0, 3].contains(&(round % 4)),
            Arm::Some | Arm::Linear => round < INFORMING_ROUNDS && [0, 3].contains(&(round % 8)),
            _ => true,
        };
        self.arms()[1..].iter().copied().filter(takes_part).collect()
    }

    /// How long a turn is, and what passes before it counts.
    pub(super) fn turn(self) -> (Duration, Duration) {
        match self {
            // several tables in a turn, and none left of the one before
            Self::Swaps => (Duration::from_millis(500), Duration::from_millis(100)),
            _ => (Duration::from_millis(125), Duration::from_millis(25)),
        }
    }

    pub(super) fn compared(self) -> Vec<Compared> {
        let (arms, name) = (self.arms(), self.title());
        let (bound, must, aim) = match self {
            Self::Tcp => (Bound::AtLeast, 0.97, 1.02),
            Self::Service => (Bound::AtLeast, 0.95, 1.0),
            Self::Udp => (Bound::AtLeast, 0.95, 1.1),
            Self::Udp100k => (Bound::AtLeast, 0.85, 1.0),
            Self::Connect => (Bound::AtLeast, 0.7, 0.95),
            Self::Free => (Bound::AtLeast, 0.97, 1.0),
            Self::First | Self::Cold => (Bound::AtMost, 1.4, 1.1),
            Self::Latency => (Bound::AtMost, 1.1, 1.0),
            Self::Denied => (Bound::AtLeast, 0.95, 1.1),
            Self::Opening => (Bound::AtLeast, 0.8, 0.95),
            Self::Swaps => (Bound::AtLeast, 0.95, 0.99),
            Self::Tcp8 | Self::Udp1k | Self::Request => return Vec::new(),
        };
        let judged = if self == Self::Swaps { Arm::Swapped } else { Arm::On };
        let mut all = vec![Compared { name, arm: judged, beside: arms[0], promise: Promise { bound, must, aim } }];
        if arms.contains(&Arm::Few) && self != Self::Swaps {
            let (name, promise) = match self {
                Self::Tcp => ("TCP, all policies / 10", Promise { bound: Bound::AtLeast, must: 0.95, aim: 1.0 }),
                Self::Udp => ("UDP, 1 flow, all policies / 10", Promise { bound: Bound::AtLeast, must: 0.95, aim: 1.0 }),
                Self::Udp100k => ("UDP, 100k flows, all policies / 10", Promise { bound: Bound::AtLeast, must: 0.95, aim: 1.0 }),
                Self::Connect => ("connect/close, all policies / 10", Promise { bound: Bound::AtLeast, must: 0.95, aim: 1.0 }),
                _ => ("first packet, all policies / 10", Promise { bound: Bound::AtMost, must: 1.05, aim: 1.0 }),
            };
            all.push(Compared { name, arm: Arm::On, beside: Arm::Few, promise });
        }
        if arms.contains(&Arm::Every) {
            let promise = Promise { bound: Bound::AtLeast, must: 0.65, aim: 0.9 };
            all.push(Compared { name: "UDP, 64 B, 1 flow, offload off", arm: Arm::Every, beside: arms[0], promise });
        }
        all
    }

    /// From how many rounds on it may end, and how many there are at most while an interval is wider than the distance to its must. That
    /// asks for a distance of four standard errors, so looking again and again seldom lets pass by luck what is just at its must.
    pub(super) fn rounds(self) -> RangeInclusive<u32> {
        match self {
            Self::Tcp8 | Self::Udp1k | Self::Request => 8..=8,
            // what varies most, or has its must near
            Self::Tcp | Self::Latency => 20..=120,
            Self::Free => 20..=200,
            _ => 20..=60,
        }
    }

    /// What is made once and used in all rounds.
    pub(super) fn prepare(self, bench: &Bench) -> Result<Option<Flows>> {
        let count = match self {
            Self::Udp1k => 1000,
            Self::Udp100k | Self::Swaps => MANY_FLOWS,
            _ => return Ok(None),
        };
        let mut flows = Flows::new(bench, count)?;
        bench.switch(Arm::On)?;
        // twice: the answer to a lost first packet is another one
        flows.introduce(bench)?;
        flows.introduce(bench)?;
        Ok(Some(flows))
    }

    /// Runs the traffic while `drive` takes turns; `None` if that says so.
    pub(super) fn measure(self, bench: &Bench, flows: &mut Option<Flows>, drive: Drive<'_>) -> Result<Option<Sides>> {
        let server = bench.server(0).ip();
        match (self, flows) {
            (Self::Swaps, Some(flows)) => while_tables_change(bench, || flows.run(bench, drive)),
            (_, Some(flows)) => flows.run(bench, drive),
            (Self::Tcp, _) => iperf::run(bench, server, 1, drive),
            (Self::Tcp8, _) => iperf::run(bench, server, 8, drive),
            (Self::Service, _) => iperf::run(bench, bench.service(0)?.ip(), 1, drive),
            (Self::Request, _) => request::run(bench, drive),
            (Self::Connect, _) => connect::run(bench, [CLIENT, SERVER], drive),
            (Self::Free, _) => connect::run(bench, FREE, drive),
            (Self::First, _) => latency::first(bench, drive),
            (Self::Cold, _) => latency::cold(bench, drive),
            (Self::Latency, _) => latency::established(bench, drive),
            (Self::Denied, _) => flood::denied(bench, drive),
            (Self::Opening, _) => flood::opening(bench, drive),
            (Self::Udp | Self::Udp1k | Self::Udp100k | Self::Swaps, _) => udp::run(bench, drive),
        }
    }
}

/// Measures while a policy is edited ten times a second, in the turns that are for it; every edit is a table.
fn while_tables_change<T>(bench: &Bench, measure: impl FnOnce() -> Result<T>) -> Result<T> {
    let stop = AtomicBool::new(false);
    let base = bench.status()?.generation as usize * 1000;
    std::thread::scope(|scope| {
        let editor = scope.spawn(|| -> Result<()> {
            let mut number = 0;
            // Relaxed: a lone flag; the thread is joined
            while !stop.load(Ordering::Relaxed) {
                if bench.is_editing() {
                    bench.edit(base + number)?;
                    number += 1;
                }
                std::thread::sleep(SWAP_EVERY);
            }
            Ok(())
        });
        let measured = measure();
        // Relaxed: see above
        stop.store(true, Ordering::Relaxed);
        editor.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        measured
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_takes_part_in_both_orders_and_promised_ones_always() {
        for &kind in Kind::value_variants() {
            for arm in kind.arms() {
                let takes_part = |round: &u32| arm == &kind.arms()[0] || kind.contenders(*round).contains(arm);
                let rounds: Vec<u32> = (0..8).filter(takes_part).collect();
                let orders = [0, 1].map(|order| rounds.iter().filter(|round| *round % 2 == order).count());
                assert!(orders[0] == orders[1] && takes_part(&0), "{kind:?} {arm:?}: rounds {rounds:?}");
                let promised = kind.compared().iter().any(|compared| [compared.arm, compared.beside].contains(arm));
                assert!(!promised || rounds.len() == 8, "{kind:?} {arm:?}: rounds {rounds:?}");
            }
        }
    }

    #[test]
    fn every_promise_is_about_states_that_are_measured() {
        for &kind in Kind::value_variants() {
            assert!(kind.arms().len() >= 2, "{kind:?}");
            for Compared { arm, beside, name, .. } in kind.compared() {
                assert!(arm != beside && [arm, beside].iter().all(|arm| kind.arms().contains(arm)), "{name}");
            }
        }
    }
}
