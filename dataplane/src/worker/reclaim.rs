//! Room for a new connection where a port is full: what has ended goes first.
//!
//! A closed connection of TCP or SCTP lingers for late segments, which nobody misses when there is no room; the next SYN on its ports
//! begins another one in any case. A port that opens and closes connections at a high rate lives by this.

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
/// Looked at in one search, and forgotten in it at most: other ports' packets wait for two look-ups in the kernel for each.
pub(super) const SEARCHED_MAX: usize = 128;
const ENOUGH: usize = 64;
/// After a search that did not find that many, so that a full port costs its worker little.
const PAUSE_NS: u64 = 20_000_000;

/// Until when no search of each port is worth its cost.
#[derive(Debug)]
pub(super) struct Pauses(Box<[u64; PORTS_MAX]>);

impl Default for Pauses {
    fn default() -> Self {
        Self(Box::new([0; PORTS_MAX]))
    }
}

impl<I: PacketIo, K: Kernel> Worker<I, K> {
    /// Forgets some of what has ended of a full port; returns whether there is room now. Searches go round the port's
    /// connections, each on from where the last one ended, so that none takes long.
    pub(super) fn reclaim(&mut self, port: PortIndex, now_ns: u64) -> bool {
        let index = usize::from(port.0);
        self.reap(port, now_ns);
        if self.connections.has_room(port) {
            return true;
        }
        if now_ns >= self.pauses.0[index] {
            let mut freed = 0;
            for _ in 0..SEARCHED_MAX.min(self.connections.count(port)) {
                let Some((flow, connection)) = self.connections.next_of(port) else { break };
                // young: spares the look-ups
                let shortest_ns = if flow.protocol.is_opened_explicitly() { CLOSED_IDLE_NS } else { UNANSWERED_IDLE_NS };
                if now_ns.saturating_sub(connection.seen_ns) <= shortest_ns {
                    continue;
                }
                let keys = [key_of(&flow, connection.incarnation), key_of(&flow.reversed(), connection.incarnation)];
                let entries = keys.map(|key| self.kernel.cache_get(&key));
                let idle_ns = now_ns.saturating_sub(last_seen_ns(&entries, connection.seen_ns));
                if has_ended(&flow, &entries, idle_ns) {
                    self.end(&flow, &connection);
                    freed += 1;
                }
                if freed == ENOUGH {
                    break;
                }
            }
            if freed < ENOUGH {
                self.pauses.0[index] = now_ns + PAUSE_NS;
            }
        }
        // once the room is used up, nobody need ask before the next search: the answer would be the same
        self.kernel.set_full(index, self.pauses.0[index].max(1));
        self.connections.has_room(port)
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
