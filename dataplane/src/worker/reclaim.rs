//! Room for a new connection where a port is full: what has ended goes first.
//!
//! A closed connection of TCP or SCTP lingers for late segments, which nobody misses when there is no room; its ports are judged anew
//! by the next SYN in any case. A port that opens and closes connections at a high rate lives by this.

use super::Worker;
use super::adopt::{is_silent, last_seen_ns};
use crate::io::PacketIo;
use crate::kernel::{Kernel, key_of};
use sluice_bpf::abi::CacheValue;
use sluice_flow::limits::PORTS_MAX;
use sluice_flow::{FlowKey, PortIndex, TcpFlags};

const CLOSED_IDLE_NS: u64 = 100_000_000;
const DATAGRAM_IDLE_NS: u64 = 10_000_000_000;
/// Of what nobody has answered: what a flood leaves behind. Above the second after which TCP repeats its SYN.
const UNANSWERED_IDLE_NS: u64 = 2_000_000_000;
/// Between two searches of one port that found little.
const FRUITLESS_NS: u64 = 100_000_000;
/// What is worth another search at once.
const FRUITFUL: usize = 64;

/// When a search of each port last found little.
#[derive(Debug)]
pub(super) struct LastReclaim(Box<[u64; PORTS_MAX]>);

impl Default for LastReclaim {
    fn default() -> Self {
        Self(Box::new([0; PORTS_MAX]))
    }
}

impl<I: PacketIo, K: Kernel> Worker<I, K> {
    /// Forgets what has ended of a full port; returns whether there is room now. Cost: two look-ups in the kernel for each
    /// connection of the port, so a search that found little is not repeated at once.
    pub(super) fn reclaim(&mut self, port: PortIndex, now_ns: u64) -> bool {
        self.reap(port, now_ns);
        if self.connections.has_room(port) {
            return true;
        }
        let fruitless = &mut self.reclaimed.0[usize::from(port.0)];
        if *fruitless != 0 && now_ns.saturating_sub(*fruitless) < FRUITLESS_NS {
            return false;
        }
        let mut freed = 0;
        let of_port: Vec<FlowKey> = self.connections.iter_mut().map(|(flow, _)| *flow).filter(|flow| flow.port == port).collect();
        for flow in of_port {
            let Some((_, connection, _)) = self.connections.find(&flow) else { continue };
            let keys = [key_of(&flow, connection.incarnation), key_of(&flow.reversed(), connection.incarnation)];
            let entries = keys.map(|key| self.kernel.cache_get(&key));
            let idle_ns = now_ns.saturating_sub(last_seen_ns(&entries, connection.seen_ns));
            if has_ended(&flow, &entries, idle_ns) {
                self.end(&flow, &connection);
                freed += 1;
            }
        }
        let room = self.connections.has_room(port);
        // a search costs as much as the port holds: not again at once for the few that it found
        self.reclaimed.0[usize::from(port.0)] = if freed >= FRUITFUL { 0 } else { now_ns };
        if !room {
            // nobody need ask meanwhile: the answer would be the same
            self.kernel.set_full(usize::from(port.0), now_ns + FRUITLESS_NS);
        }
        room
    }
}

fn has_ended(flow: &FlowKey, entries: &[Option<CacheValue>; 2], idle_ns: u64) -> bool {
    let flags = entries.map(|entry| entry.map_or(0, |entry| entry.tcp_flags));
    let reset = (flags[0] | flags[1]) & TcpFlags::RST != 0;
    // the answers of what departs cross another hook; what would still come is judged anew there
    let closed = flags[0] & (if flow.departs { flags[0] } else { flags[1] }) & TcpFlags::FIN != 0;
    let lost = entries.iter().all(Option::is_none);
    if !lost && is_silent(flow, entries) && idle_ns > UNANSWERED_IDLE_NS {
        return true;
    }
    match flow.protocol {
        protocol if protocol.is_opened_explicitly() => (reset || closed || lost) && idle_ns > CLOSED_IDLE_NS,
        _ => idle_ns > DATAGRAM_IDLE_NS,
    }
}
