//! Ports move from the worker that has most of them to the one that has fewest, one at a time, as pods come and go.

use super::Keeper;
use super::registry::Registered;
use crate::worker::{Command, Given};
use sluice_bpf::abi::Port;
use sluice_flow::PortIndex;
use std::mem::offset_of;
use std::time::Instant;
use tracing::info;

/// A port on its way.
#[derive(Debug)]
pub(super) struct Move {
    port: PortIndex,
    from: usize,
    to: usize,
    since: Instant,
    /// The new worker judges nothing of it before it has the connections.
    expected: bool,
    /// The old worker has let it go.
    given: Option<Given>,
}

/// The next port to move: from whom and to whom, given how many each of the workers that may be asked has.
pub(super) fn imbalance(ports: &[(usize, usize)]) -> Option<(usize, usize)> {
    let (most, least) = (ports.iter().max_by_key(|(_, count)| *count)?, ports.iter().min_by_key(|(_, count)| *count)?);
    (most.1 >= least.1 + 2).then_some((most.0, least.0))
}

impl Keeper {
    /// Whether tables wait for a port that is between two workers, so that one of them has judged each connection when both say
    /// that a table is in force. A dead or hung worker holds up nothing.
    pub(super) fn is_moving(&self) -> bool {
        self.moving.as_ref().is_some_and(|moving| [moving.from, moving.to].iter().all(|worker| self.is_alive(&self.workers[*worker])))
    }

    /// Goes on with the move that is under way, or begins one where it is worth it.
    pub(super) fn rebalance(&mut self) {
        for worker in 0..self.workers.len() {
            while let Some(given) = self.workers[worker].shared.given.pop() {
                self.hear_of_port(worker, given);
            }
        }
        self.pass_on();
        if self.moving.is_some() || self.workers.len() < 2 || self.adopting.is_some() || !self.adds.is_empty() {
            return;
        }
        let mut counts = vec![0; self.workers.len()];
        self.registry.iter().for_each(|port| counts[port.worker as usize] += 1);
        let alive: Vec<(usize, usize)> =
            counts.into_iter().enumerate().filter(|(worker, _)| self.is_alive(&self.workers[*worker])).collect();
        let Some((from, to)) = imbalance(&alive) else { return };
        let Some(port) = self.registry.iter().find(|port| port.worker as usize == from).map(|port| port.endpoint.clone()) else { return };
        self.moving = Some(Move { port: port.port, from, to, since: Instant::now(), expected: false, given: None });
        self.command(to, Command::Expect(port.port, port.incarnation));
        self.command(from, Command::GiveAway(port.port, port.incarnation));
    }

    fn hear_of_port(&mut self, worker: usize, given: Given) {
        match &mut self.moving {
            Some(moving) if moving.port == given.port && moving.to == worker => moving.expected = true,
            Some(moving) if moving.port == given.port && moving.from == worker => moving.given = Some(given),
            _ => {}
        }
    }

    /// The old worker has let a port go and the new one expects it: the slot names the new one, which gets the connections.
    fn pass_on(&mut self) {
        let Some(mut moving) = self.moving.take_if(|moving| moving.expected && moving.given.is_some()) else { return };
        let Some(given) = moving.given.take() else { return };
        let (index, to) = (usize::from(given.port.0), moving.to);
        let trunk_ifindex = self.trunks[to].near_ifindex;
        let is_same = |port: &&mut Registered| port.endpoint.port == given.port && port.endpoint.incarnation == given.incarnation;
        if let Some(port) = self.registry.iter_mut().find(is_same) {
            port.worker = to as u32;
            let (pod, connections) = (port.endpoint.pod.clone(), given.connections.len());
            // a hook that reads one of them old and the other new has its punt dropped by the trunk
            self.loaded.ports.publish(index, offset_of!(Port, trunk_ifindex), trunk_ifindex);
            self.loaded.set_worker(index, to as u16);
            info!(%pod, port = index, from = moving.from, to, connections, took_us = moving.since.elapsed().as_micros() as u64, "port moved");
        }
        self.registry.keep();
        self.command(to, Command::TakeOver(given));
    }
}

#[cfg(test)]
mod tests {
    use super::imbalance;

    #[test]
    fn a_port_moves_where_it_makes_a_difference() {
        assert_eq!(imbalance(&[]), None);
        assert_eq!(imbalance(&[(0, 5)]), None);
        assert_eq!(imbalance(&[(0, 3), (1, 2)]), None);
        assert_eq!(imbalance(&[(0, 3), (1, 1)]), Some((0, 1)));
        assert_eq!(imbalance(&[(0, 1), (2, 4), (3, 0)]), Some((2, 3)));
    }
}
