//! admit.h: new connections that differ from one that a worker judged in the source port alone, or in ports of which policy says
//! the same.

use super::parse::{Parsed, Piece};
use super::{Action, Skb};
use crate::kernel::{Kernel, MemoryKernel};
use sluice_bpf::abi::{
    Allowance, CACHE_ALLOW, CACHE_ALLOW_DEFERRED, CACHE_REPLY, COUNT_ADMITTED, CacheValue, DEPARTURE, Key, MARK_DEFERRED, MARK_MASK,
    OPENING_ADMITTED, OPENING_CLOSED, OPENINGS_BYTES, Opening, Port,
};
use sluice_flow::{Direction, Protocol, TcpFlags};

/// Records that a ring holds, each with its header.
const RING_MAX: usize = OPENINGS_BYTES / (size_of::<Opening>() + 8);

/// The key of what answers TCP, UDP or SCTP with this one.
pub fn reversed(key: &Key) -> Key {
    Key { direction: key.direction ^ 1, src: key.dst, dst: key.src, sport: key.dport, dport: key.sport, ..*key }
}

impl MemoryKernel {
    /// The verdict by which a packet begins a connection here, one without cache entry or on the ports of one that is over; `None`:
    /// its worker is asked.
    pub(super) fn admit(&self, port: &Port, p: &Parsed, skb: &Skb<'_>, now_ns: u64) -> Option<u8> {
        let protocol = Protocol(p.key.protocol);
        let begins = if protocol.is_opened_explicitly() { p.opens } else { protocol == Protocol::UDP };
        if p.fragment != Piece::Whole || !begins {
            return None;
        }
        let found = |sport, dport| self.allowances.borrow().get(&Key { sport, dport, ..p.key }).copied();
        let covers =
            |allowance: &Allowance| allowance.key.dport != 0 || (allowance.first_port..=allowance.last_port).contains(&p.key.dport);
        let allowance = found(0, p.key.dport).or_else(|| found(port.deny_epoch as u16, 0)).filter(covers)?;
        let has_ring = self.openings.borrow().get(&port.worker).is_some_and(|ring| ring.len() < RING_MAX);
        let translated = p.key.direction == Direction::Ingress as u8 && self.origin(p).is_some();
        let has_room = self.rations.borrow()[usize::from(p.key.port)].left() > 0;
        if !has_ring || translated || !has_room || allowance.deny_epoch != port.deny_epoch {
            return None;
        }
        let original = CacheValue {
            epoch: port.epoch,
            verdict: allowance.verdict,
            timeout_ns: allowance.timeout_ns,
            packets: 1,
            bytes: skb.frame.len() as u64,
            last_seen_ns: now_ns,
            rule: allowance.rule,
            generation: u64::from(allowance.generation) as sluice_bpf::abi::Generation,
            ..bytemuck::Zeroable::zeroed()
        };
        let reply = CacheValue { verdict: CACHE_ALLOW, flags: CACHE_REPLY, packets: 0, bytes: 0, ..original };
        let over = self.cache_get(&p.key).map(|value| [Some(value), self.cache_get(&reversed(&p.key))]).into_iter().flatten().flatten();
        let (packets, bytes) = over.fold((0, 0), |(packets, bytes), value| (packets + value.packets, bytes + value.bytes));
        {
            let (mut cache, back) = (self.cache.borrow_mut(), reversed(&p.key));
            let missing = [p.key, back].iter().filter(|key| !cache.contains_key(key)).count();
            if cache.len() + missing > self.cache_entries_max.get() {
                cache.remove(&back);
                return None;
            }
            cache.insert(back, reply);
            cache.insert(p.key, original);
        }
        let ration = &mut self.rations.borrow_mut()[usize::from(p.key.port)];
        ration.made = ration.made.wrapping_add(1);
        let opening = Opening { key: p.key, kind: OPENING_ADMITTED, verdict: allowance.verdict, pad: 0, at_ns: now_ns, packets, bytes };
        self.tell(port, opening);
        self.count(COUNT_ADMITTED);
        Some(allowance.verdict)
    }

    /// What passes by this verdict.
    pub(super) fn let_on(verdict: u8, mark: u32) -> Action {
        Action::Pass { mark: if verdict == CACHE_ALLOW_DEFERRED { mark & !MARK_MASK | MARK_DEFERRED } else { mark } }
    }

    /// Tells the worker that a connection has ended, if this packet ended it.
    pub(super) fn note_end(&self, port: &Port, p: &Parsed, now_ns: u64) {
        let answered = self.cache.borrow().get(&reversed(&p.key)).is_some_and(|answers| answers.tcp_flags & TcpFlags::FIN != 0);
        if p.tcp_flags & TcpFlags::FIN != 0 && (p.key.direction == DEPARTURE || answered) {
            self.tell(port, Opening { key: p.key, kind: OPENING_CLOSED, at_ns: now_ns, ..bytemuck::Zeroable::zeroed() });
        }
    }

    fn tell(&self, port: &Port, opening: Opening) {
        if let Some(ring) = self.openings.borrow_mut().get_mut(&port.worker)
            && ring.len() < RING_MAX
        {
            ring.push_back(opening);
        }
    }
}
