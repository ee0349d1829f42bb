//! A port changes its worker, with its connections, so that no worker has many ports and another one few.
//!
//! ```text
//!   new worker   judges nothing of the port before it has its connections, and says so
//!   old worker   voids the port's allowances, hears of what was begun by them, gives its connections to the keeper;
//!                packets of the port that still reach it are dropped
//!   keeper       names the new worker and its trunk in the slot
//!   new worker   tracks the connections, judges them by its table, lets what may begin begin
//! ```
//!
//! What the cache knows goes on in the kernel all the time. What is new waits some microseconds, or is sent again.

use super::{Given, Worker};
use crate::io::PacketIo;
use crate::kernel::Kernel;
use sluice_flow::{Incarnation, PortIndex};

impl<I: PacketIo, K: Kernel> Worker<I, K> {
    pub(super) fn give_away(&mut self, port: PortIndex, incarnation: Incarnation) {
        let slot = self.kernel.port(usize::from(port.0));
        let mut connections = Vec::new();
        if slot.worker == self.config.worker && slot.ifindex != 0 && slot.incarnation == incarnation.0 {
            // from here on nothing begins there without a worker, and what began is known
            self.kernel.void_denials(usize::from(port.0));
            self.hear();
            connections = self.connections.remove_port(port);
            self.fragments.forget_port(port);
            self.ended.forget_port(port);
            self.local.retain(|_, at| *at != port);
            self.away.insert(port, incarnation);
        }
        self.shared.given.push(Given { port, incarnation, connections });
    }

    /// A port is about to come: nothing is judged before its connections are here.
    pub(super) fn expect(&mut self, port: PortIndex, incarnation: Incarnation) {
        self.away.insert(port, incarnation);
        self.shared.given.push(Given { port, incarnation, connections: Vec::new() });
    }

    /// Whether this use of a port is on its way from here or to here.
    pub(super) fn is_away(&self, port: PortIndex, incarnation: u32) -> bool {
        self.away.get(&port) == Some(&Incarnation(incarnation))
    }

    pub(super) fn take_port(&mut self, given: Given) {
        let Given { port, incarnation, connections } = given;
        let slot = self.kernel.port(usize::from(port.0));
        self.away.remove(&port);
        let mine = slot.worker == self.config.worker && slot.ifindex != 0 && slot.incarnation == incarnation.0;
        for (flow, connection) in connections {
            // what nobody tracks no later table could cut: nothing of it may stay, as of a pod that went meanwhile
            if mine && self.connections.has_room(port) {
                self.connections.insert(flow, connection);
            } else {
                self.take_entries(&flow, &connection);
            }
        }
        if let Some(table) = self.table.clone().filter(|_| mine) {
            self.set_port_states(&table);
            self.hear();
            self.revalidate(&table, Some(&table));
        }
    }
}
