//! The programs of `bpf/src/c/sluice.bpf.c`, played on [`MemoryKernel`]: a twin in Rust, branch by branch and count by
//! count, so that a whole node runs in one test process without root.
//!
//! ```text
//!   leaving / entering   guard ▶ not isolated? pass ▶ cache hit? obey ▶ punt
//!   entering / exiting   what left its pod deferred is judged now that it is translated
//!   unjudged             nothing deferred leaves by a device without either of the two
//!   far                  to the worker that serves the trunk, or bounce
//!   near                 a verdict goes back to the hook it came from, with a one-shot mark; a bounced punt is dropped
//! ```
//!
//! It decides nothing of its own: a change of the C sources is made here too, file by file (parse.h, guard.h, the
//! programs), and `parity.rs` runs both on the same frames. What it leaves out is what memory does not have: segmentation
//! offload, helpers of the kernel that fail, and its tracking of connections but for what it translated.

mod admit;
mod direct;
mod guard;
#[cfg(all(test, feature = "kernel"))]
mod parity;
mod parse;
mod trunk;

pub use admit::reversed;
pub use trunk::{Far, Near};

use super::{Kernel, MemoryKernel};
use guard::{Guarded, guard_entering, guard_leaving};
use parse::{AUTHENTICATION, Brought, DESTINATION_OPTIONS, ETHERTYPE_V4, FRAGMENT, HOP_BY_HOP, Parsed, Piece, ROUTING, load, parse};
use sluice_bpf::abi::{
    CACHE_BOTH_WAYS, CACHE_DENY, CACHE_REPLY, CACHE_TRANSLATED, COUNT_HIT, COUNT_NEIGHBOUR, COUNT_NODE, COUNT_NOT_ISOLATED, COUNT_PUNT,
    COUNT_REINJECTED, COUNT_STALE, CacheValue, DEPARTURE, EVERY_PORT, Fragment, FragmentKey, KIND_PUNT, Key, MARK_DEFERRED, MARK_DIRECT,
    MARK_JUDGED_EGRESS, MARK_JUDGED_INGRESS, MARK_MASK, PORT_ISOLATED_EGRESS, PORT_ISOLATED_INGRESS, PORT_OPEN, PORTS_MAX, Port,
    TRUNK_DIRECT, TRUNK_HIT, TRUNK_MAGIC, TrunkHeader,
};
use sluice_flow::{Addr, Direction, DropReason, IcmpClass, Protocol, TcpFlags};

const RATION_AHEAD_NS: u64 = 100_000_000;
const ASKED_AT_ONCE: u64 = 512;
const FULL_NS: u64 = 20_000_000;
const FIN_TIMEOUT_NS: u64 = 120_000_000_000;
const RST_TIMEOUT_NS: u64 = 10_000_000_000;
const TRUNK_ADDRESS: [u8; 6] = *b"\x02SLUIC";

/// A packet as it reaches a hook.
#[derive(Debug, Clone, Copy)]
pub struct Skb<'a> {
    /// From the Ethernet header on.
    pub frame: &'a [u8],
    /// The packet's mark.
    pub mark: u32,
    /// The device it came in by, 0 for none: then this node made it, or reassembled it.
    pub ingress_ifindex: u32,
    /// A socket of this node sent it.
    pub from_socket: bool,
}

/// What a hook does with a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It goes on, with this mark.
    Pass {
        /// See [`MARK_MASK`].
        mark: u32,
    },
    /// A worker is asked: the frame with its trunk header, for the near end of the port's trunk.
    Punt {
        /// For the trunk.
        frame: Vec<u8>,
    },
    /// Straight to another pod's device, whose hook `entering` sees it next.
    Direct {
        /// That device.
        ifindex: u32,
        /// With this mark.
        mark: u32,
        /// As a router would send it there.
        frame: Vec<u8>,
    },
    /// It ends here; it has been counted.
    Drop(DropReason),
}

impl MemoryKernel {
    fn count(&self, what: usize) {
        self.counters.borrow_mut()[what] += 1;
    }

    fn drop(&self, reason: DropReason) -> Action {
        self.count(reason as usize);
        Action::Drop(reason)
    }

    fn pass(&self, what: usize, mark: u32) -> Action {
        self.count(what);
        Action::Pass { mark }
    }

    /// The programs `leaving` (egress) and `entering` (ingress) of the device `ifindex`.
    pub fn hook(&self, ifindex: u32, direction: Direction, skb: &Skb<'_>, now_ns: u64) -> Action {
        let Some((index, port)) = self.port_of(ifindex) else { return self.drop(DropReason::NoPort) };
        let state = port.state_bits();
        if state & PORT_OPEN == 0 {
            return self.drop(DropReason::PortClosed);
        }
        let skb = &match self.marked(direction, skb) {
            Some(action) => return action,
            None if direction == Direction::Ingress && skb.mark & MARK_DEFERRED != 0 => match self.depart(ifindex, skb, now_ns) {
                Action::Pass { mark } => Skb { mark, ..*skb },
                action => return action,
            },
            None => *skb,
        };
        let enters = direction == Direction::Ingress;
        let judged = enters && skb.mark & MARK_JUDGED_INGRESS != 0 && skb.ingress_ifindex == port.trunk_ifindex;
        let direct = match (enters && skb.mark & MARK_DIRECT != 0, judged) {
            (false, true) => return self.pass(COUNT_REINJECTED, skb.mark & !MARK_JUDGED_INGRESS),
            (false, false) => Brought::ByKernel,
            (true, false) => Brought::Direct,
            (true, true) => Brought::DirectJudged,
        };
        let one_shot = if direct == Brought::ByKernel { 0 } else { MARK_DIRECT | MARK_JUDGED_INGRESS };
        let skb = &Skb { mark: skb.mark & !one_shot, ..*skb };
        let key = Key { incarnation: port.incarnation, port: index, direction: direction as u8, ..bytemuck::Zeroable::zeroed() };
        let guarded = parse(skb.frame, key).and_then(|parsed| {
            let parsed = Parsed { direct, ..parsed };
            let is_node = |address| self.node_addresses.borrow().contains(&address);
            let guarded = match direction {
                Direction::Egress => guard_leaving(skb.frame, &port, &parsed, &is_node),
                Direction::Ingress => guard_entering(&port, &parsed),
            };
            Ok((parsed, guarded?))
        });
        match guarded {
            Err(reason) => self.drop(reason),
            Ok((_, Guarded::Neighbour)) => self.pass(COUNT_NEIGHBOUR, skb.mark),
            Ok((parsed, Guarded::Judge)) if state & (PORT_ISOLATED_INGRESS | PORT_ISOLATED_EGRESS) == 0 => {
                // should a policy isolate the pod in mid-connection, the worker knows the original direction
                let remembers = parsed.key.protocol != Protocol::TCP.0 || parsed.ethertype != ETHERTYPE_V4 || !self.tracked.get();
                if parsed.keyed && parsed.opens && remembers {
                    self.origins.borrow_mut().insert(parsed.key);
                }
                self.pass(COUNT_NOT_ISOLATED, skb.mark)
            }
            Ok((parsed, Guarded::Judge)) => match self.judge(ifindex, &port, &parsed, skb, now_ns) {
                Action::Pass { mark } if parsed.direct == Brought::DirectJudged => self.pass(COUNT_REINJECTED, mark),
                Action::Pass { mark } => self.pass(COUNT_HIT, mark),
                action => action,
            },
        }
    }

    /// The port of a device.
    fn port_of(&self, ifindex: u32) -> Option<(u16, Port)> {
        let index = self.port_of_ifindex.borrow().get(&ifindex).copied();
        let slot = index.filter(|&index| (index as usize) < PORTS_MAX).map(|index| (index as u16, self.port(index as usize)));
        slot.filter(|(_, port)| port.ifindex == ifindex)
    }

    /// A packet that left its pod deferred, where it departs. A pass counts nothing.
    fn depart(&self, ifindex: u32, skb: &Skb<'_>, now_ns: u64) -> Action {
        let Some((index, port)) = self.port_of(skb.ingress_ifindex) else { return self.drop(DropReason::ExitUnjudged) };
        let state = port.state_bits();
        if state & PORT_OPEN == 0 {
            return self.drop(DropReason::PortClosed);
        }
        if state & PORT_ISOLATED_EGRESS != 0 {
            let key = Key { incarnation: port.incarnation, port: index, direction: DEPARTURE, ..bytemuck::Zeroable::zeroed() };
            let action = match parse(skb.frame, key) {
                Err(reason) => self.drop(reason),
                Ok(parsed) => self.judge(ifindex, &port, &parsed, skb, now_ns),
            };
            let Action::Pass { .. } = action else { return action };
        }
        Action::Pass { mark: skb.mark & !MARK_MASK }
    }

    /// The program `exiting` of the device `ifindex`.
    pub fn exiting(&self, ifindex: u32, skb: &Skb<'_>, now_ns: u64) -> Action {
        if skb.mark & MARK_DEFERRED != 0 { self.depart(ifindex, skb, now_ns) } else { Action::Pass { mark: skb.mark } }
    }

    /// The program `unjudged`, for a packet that is about to leave by the device `ifindex`: whether it may.
    pub fn may_leave_by(&self, ifindex: u32, mark: u32) -> bool {
        let judged = mark & MARK_DEFERRED == 0 || self.is_known(ifindex);
        if !judged {
            self.count(DropReason::ExitUnjudged as usize);
        }
        judged
    }

    /// Whether a device carries one of the hooks where packets depart.
    fn is_known(&self, ifindex: u32) -> bool {
        self.port_of_ifindex.borrow().contains_key(&ifindex) || self.exits.borrow().contains(&ifindex)
    }

    /// What mark and origin decide before anybody looks at the packet.
    fn marked(&self, direction: Direction, skb: &Skb<'_>) -> Option<Action> {
        match direction {
            // cannot come out of the pod: the kernel scrubs marks between namespaces
            Direction::Egress if skb.mark & MARK_JUDGED_EGRESS != 0 => Some(self.pass(COUNT_REINJECTED, skb.mark & !MARK_JUDGED_EGRESS)),
            Direction::Egress => None,
            // always allowed; before the mark is looked at, which an answer of this node may carry back
            Direction::Ingress if made_here(skb) => Some(self.pass(COUNT_NODE, skb.mark)),
            Direction::Ingress => None,
        }
    }

    /// The cached verdict, one that was given before for what comes alike, or a punt. A pass counts nothing.
    fn judge(&self, ifindex: u32, port: &Port, p: &Parsed, skb: &Skb<'_>, now_ns: u64) -> Action {
        let p = &match p.fragment {
            Piece::Later => self.follow_first(p),
            _ => *p,
        };
        if !p.keyed {
            return self.ration(ifindex, port, p, skb, now_ns);
        }
        let Some(value) = self.cache_get(&p.key) else {
            if self.rations.borrow()[usize::from(p.key.port)].until_ns > now_ns + RATION_AHEAD_NS {
                return self.drop(DropReason::Rationed);
            }
            if self.denied_before(p, port, now_ns) {
                return self.drop(DropReason::PolicyDenied);
            }
            if self.overdrawn(p, now_ns) {
                return self.drop(DropReason::Rationed);
            }
            let protocol = Protocol(p.key.protocol);
            let opens = match protocol.is_opened_explicitly() {
                true => p.opens,
                false => p.key.dport != IcmpClass::Reply as u16 || protocol == Protocol::UDP,
            };
            let admitted = if self.every_packet.get() { None } else { self.admit(port, p, skb, now_ns) };
            return match admitted {
                Some(verdict) => Self::let_on(verdict, skb.mark),
                None if opens && self.is_full(p, now_ns) => self.drop(DropReason::ConnectionsFull),
                None => self.ask(ifindex, port, p, skb, now_ns),
            };
        };
        let idle = now_ns > value.last_seen_ns && now_ns - value.last_seen_ns > value.timeout_ns;
        // against the direction of a connection, where it was picked up in mid-flow, or perhaps from another origin
        let opens_another = p.opens && value.flags & (CACHE_REPLY | CACHE_BOTH_WAYS | CACHE_TRANSLATED) != 0;
        // the same ports again, after FIN or RST
        let opens_again = p.tcp_flags & TcpFlags::SYN != 0 && value.tcp_flags & (TcpFlags::FIN | TcpFlags::RST) != 0;
        // what a cut connection would have answered may be a flow of its own
        let may_be_own = value.verdict == CACHE_DENY && value.flags & CACHE_REPLY != 0 && !Protocol(p.key.protocol).is_opened_explicitly();
        if (may_be_own || opens_another) && self.denied_before(p, port, now_ns) {
            return self.drop(DropReason::PolicyDenied);
        }
        // as if there were nothing, if it may begin here
        if opens_again && p.opens && !opens_another && !idle && value.epoch == port.epoch && !self.every_packet.get() {
            if self.overdrawn(p, now_ns) {
                return self.drop(DropReason::Rationed);
            }
            if let Some(verdict) = self.admit(port, p, skb, now_ns) {
                return Self::let_on(verdict, skb.mark);
            }
            self.count(COUNT_STALE);
            return self.ask(ifindex, port, p, skb, now_ns);
        }
        if value.epoch != port.epoch || idle || opens_another || opens_again || may_be_own {
            self.count(COUNT_STALE);
            // what may begin something is rationed, what is only asked about again never
            return match opens_another || opens_again || may_be_own {
                true => self.ration(ifindex, port, p, skb, now_ns),
                false => self.punt(ifindex, port, p, skb, 0),
            };
        }
        if value.verdict == CACHE_DENY {
            return match self.every_packet.get() {
                true => self.punt(ifindex, port, p, skb, TRUNK_HIT),
                false => self.drop(DropReason::PolicyDenied),
            };
        }
        self.note_hit(port, p, skb.frame.len(), value, now_ns);
        if p.fragment == Piece::First {
            let first = Fragment { protocol: p.key.protocol, sport: p.key.sport, dport: p.key.dport, pad: [0; 3] };
            self.fragments.borrow_mut().insert(fragment_key(p), first);
        }
        if p.direct == Brought::DirectJudged {
            return Self::let_on(value.verdict, skb.mark);
        }
        match (self.take_shortcut(port, p, &value, skb, now_ns), self.every_packet.get()) {
            (None, true) => return self.punt(ifindex, port, p, skb, TRUNK_HIT),
            (Some((device, frame)), true) => {
                return self.punt(device, port, p, &Skb { frame: &frame, ..*skb }, TRUNK_HIT | TRUNK_DIRECT);
            }
            (Some((device, frame)), false) => return self.bring(device, frame, skb.mark),
            (None, false) => {}
        }
        Self::let_on(value.verdict, skb.mark)
    }

    /// A later fragment with the key of its first, if that has passed here.
    fn follow_first(&self, p: &Parsed) -> Parsed {
        let Some(Fragment { protocol, sport, dport, .. }) = self.first_fragment(&fragment_key(p)) else { return *p };
        Parsed { key: Key { protocol, sport, dport, ..p.key }, keyed: true, ..*p }
    }

    fn note_hit(&self, port: &Port, p: &Parsed, bytes: usize, mut value: CacheValue, now_ns: u64) {
        value.packets += 1;
        value.bytes += bytes as u64;
        value.last_seen_ns = value.last_seen_ns.max(now_ns);
        // flags seen before have shortened it already
        let news = p.tcp_flags & !value.tcp_flags != 0;
        if news {
            value.tcp_flags |= p.tcp_flags;
            let limit_ns = match p.tcp_flags {
                flags if flags & TcpFlags::RST != 0 => RST_TIMEOUT_NS,
                flags if flags & TcpFlags::FIN != 0 => FIN_TIMEOUT_NS,
                _ => u64::MAX,
            };
            value.timeout_ns = value.timeout_ns.min(limit_ns);
        }
        self.cache.borrow_mut().insert(p.key, value);
        if news {
            self.note_end(port, p, now_ns);
        }
    }

    fn denied_before(&self, p: &Parsed, port: &Port, now_ns: u64) -> bool {
        // what may be an answer is never refused by a denial: the worker knows the connection
        let may_answer = if Protocol(p.key.protocol).is_opened_explicitly() { !p.opens } else { p.key.dport == IcmpClass::Reply as u16 };
        if may_answer || self.every_packet.get() {
            return false;
        }
        let mut denials = self.denials.borrow_mut();
        // of everything from or to that address; else of this port
        let keys = [Key { sport: 0, dport: EVERY_PORT, protocol: 0, ..p.key }, Key { sport: 0, ..p.key }];
        let in_force = |key: &&Key| denials.get(key).is_some_and(|denial| denial.deny_epoch == port.deny_epoch);
        let Some(found) = keys.iter().find(in_force).and_then(|key| denials.get_mut(key)) else { return false };
        found.packets += 1;
        found.last_seen_ns = now_ns;
        true
    }

    /// Whether a port has had its share of new flows.
    fn overdrawn(&self, p: &Parsed, now_ns: u64) -> bool {
        self.overdraws(&mut self.rations.borrow_mut()[usize::from(p.key.port)].until_ns, now_ns, RATION_AHEAD_NS)
    }

    /// Whether a port has asked its worker as often as it may.
    fn asked_enough(&self, p: &Parsed, now_ns: u64) -> bool {
        let ahead_ns = RATION_AHEAD_NS.min(u64::from(self.new_flow_ns.get()) * ASKED_AT_ONCE);
        self.overdraws(&mut self.rations.borrow_mut()[usize::from(p.key.port)].asked_until_ns, now_ns, ahead_ns)
    }

    /// Whether a port that was found full has used up what room it was granted since, and it is not this packet's turn to ask;
    /// under fail-open it always is.
    fn is_full(&self, p: &Parsed, now_ns: u64) -> bool {
        let ration = &mut self.rations.borrow_mut()[usize::from(p.key.port)];
        if ration.left() > 0 || ration.full_until_ns == 0 {
            return false;
        }
        if ration.full_until_ns > now_ns {
            return true;
        }
        if !self.fail_open.get() {
            ration.full_until_ns = now_ns + FULL_NS;
        }
        false
    }

    fn overdraws(&self, until_ns: &mut u64, now_ns: u64, ahead_ns: u64) -> bool {
        let new_flow_ns = u64::from(self.new_flow_ns.get());
        let paid_ns = now_ns.max(*until_ns);
        let refused = new_flow_ns != 0 && paid_ns - now_ns > ahead_ns;
        if new_flow_ns != 0 && !refused {
            *until_ns = paid_ns + new_flow_ns;
        }
        refused
    }

    /// Asks the worker about what may begin something, if the port's share lasts.
    fn ration(&self, ifindex: u32, port: &Port, p: &Parsed, skb: &Skb<'_>, now_ns: u64) -> Action {
        if self.overdrawn(p, now_ns) { self.drop(DropReason::Rationed) } else { self.ask(ifindex, port, p, skb, now_ns) }
    }

    /// The same for what is paid for already.
    fn ask(&self, ifindex: u32, port: &Port, p: &Parsed, skb: &Skb<'_>, now_ns: u64) -> Action {
        if self.asked_enough(p, now_ns) { self.drop(DropReason::Rationed) } else { self.punt(ifindex, port, p, skb, 0) }
    }

    fn punt(&self, ifindex: u32, port: &Port, p: &Parsed, skb: &Skb<'_>, flags: u8) -> Action {
        let origin = if p.key.direction == Direction::Ingress as u8 { self.origin(p) } else { None };
        let header = TrunkHeader {
            dst: TRUNK_ADDRESS,
            src: TRUNK_ADDRESS,
            ethertype: p.ethertype.to_be_bytes(),
            magic: TRUNK_MAGIC,
            version: sluice_bpf::ABI_VERSION as u8,
            kind: KIND_PUNT,
            direction: p.key.direction,
            flags,
            port: p.key.port,
            worker: port.worker,
            incarnation: p.key.incarnation,
            // before judging: a bump in between voids what the worker will write
            epoch: port.epoch,
            mark: skb.mark,
            exit_ifindex: if p.key.direction == DEPARTURE || flags & TRUNK_DIRECT != 0 { ifindex } else { 0 },
            origin: origin.map_or([0; 16], |origin| origin.0),
        };
        self.count(COUNT_PUNT);
        Action::Punt { frame: [bytemuck::bytes_of(&header), skb.frame].concat() }
    }

    /// The source of a packet that enters before the node translated it; the kernel tells of TCP and UDP.
    fn origin(&self, p: &Parsed) -> Option<Addr> {
        let Key { protocol, src, dst, sport, dport, .. } = p.key;
        let told = p.keyed && [Protocol::TCP, Protocol::UDP].contains(&Protocol(protocol));
        let origin = self.translated.borrow().get(&(protocol, Addr(src), Addr(dst), sport, dport)).copied();
        origin.filter(|origin| told && *origin != Addr(src))
    }
}

/// Port, way and addresses of a packet in pieces, with its protocol where all of them tell, and its identification.
fn fragment_key(p: &Parsed) -> FragmentKey {
    let Key { incarnation, port, direction, src, dst, .. } = p.key;
    let protocol = if p.ethertype == ETHERTYPE_V4 { p.key.protocol } else { 0 };
    FragmentKey { incarnation, port, direction, protocol, src, dst, id: p.fragment_id }
}

/// Whether this node made the packet. No ingress device says so, except that reassembled and refragmented IPv6 packets have
/// lost theirs: with extension headers only a socket proves where a packet began.
fn made_here(skb: &Skb<'_>) -> bool {
    if skb.ingress_ifindex != 0 || skb.from_socket {
        return skb.ingress_ifindex == 0;
    }
    match load(skb.frame, 12).map(u16::from_be_bytes) {
        None => false,
        Some(parse::ETHERTYPE_V6) => load(skb.frame, 20)
            .is_some_and(|[next_header]| !matches!(next_header, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS)),
        Some(_) => true,
    }
}
