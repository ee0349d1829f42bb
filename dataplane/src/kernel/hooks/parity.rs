//! Holds the twin to its model: the same frames through the BPF programs (`BPF_PROG_TEST_RUN`) and through memory.
//!
//! What must be the same for each frame: what the parser makes of it; what the hook does with it and under which counter;
//! the bytes of a punt; the mark of what passes; remembered openers; cache entries and denials afterwards. Times alone
//! may differ: the programs read a clock, the twin is told.
//!
//! Needs root. The tests run in a network namespace of their own, because the guard asks the node's routes which addresses
//! are the node's: the gateway's is, all others lie behind a default route.

mod admissions;
mod direct;
mod uplink;

use super::parse::{ETHERTYPE_ARP, Piece, parse};
use super::{Action, Skb};
use crate::kernel::MemoryKernel;
use bytemuck::Zeroable;
use sluice_bpf::abi::{
    CACHE_ALLOW, CACHE_ALLOW_DEFERRED, CACHE_BOTH_WAYS, CACHE_DENY, CACHE_REPLY, CACHE_TRANSLATED, COUNT_DIRECT, COUNT_HIT,
    COUNT_NEIGHBOUR, COUNT_NODE, COUNT_NOT_ISOLATED, COUNT_PUNT, COUNT_REINJECTED, COUNT_STALE, CacheValue, Config, DEPARTURE, Denial,
    EVERY_PORT, Key, MARK_DEFERRED, PORT_ISOLATED_EGRESS, PORT_ISOLATED_INGRESS, PORT_OPEN, Port,
};
use sluice_bpf::testing::{Context, Fate, Hooks, IFINDEX, LONG_ENOUGH, PORT_INDEX, Parsed, Parser, RUNNABLE, root};
use sluice_flow::{Addr, Direction, DropReason, Protocol, TcpFlags};
use sluice_frames::layers::{Extension, HOP_BY_HOP, ICMPV6, IPV6, V6, ethernet, icmp};
use sluice_frames::{Choices, GATEWAY, Host, PEER, POD, labelled, random_bytes};
use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::process::Command;

const INCARNATION: u32 = 3;
const EPOCH: u32 = 11;
const TRUNK_IFINDEX: u32 = 9;
const ISOLATED: u32 = PORT_OPEN | PORT_ISOLATED_INGRESS | PORT_ISOLATED_EGRESS;
/// What the twin is told; only its being later than 0 matters.
const NOW_NS: u64 = 1;

/// Runs a test on a node that routes IPv6; not at all without root.
fn on_a_router(test: impl FnOnce() + Send) {
    if !root() {
        return;
    }
    let run = || {
        // SAFETY: this thread holds no namespace state that another one relies on, and ends with the test.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.expect("a network namespace");
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").expect("the namespace's own setting");
        let gateway = format!("addr add {}/128 dev lo", Ipv6Addr::from(GATEWAY.v6));
        for arguments in [
            "link set lo up",
            &gateway,
            "link add near type veth peer name far",
            "link set far up",
            "link set near up",
            "-6 route add default dev near",
        ] {
            let status = Command::new("ip").args(arguments.split(' ')).status().expect("iproute2 is installed");
            assert!(status.success(), "ip {arguments}");
        }
        test();
    };
    let ended = std::thread::scope(|scope| scope.spawn(run).join());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// The port of `owner` with these bits of state.
fn port(owner: Host, state: u32) -> Port {
    Port {
        ifindex: IFINDEX,
        incarnation: INCARNATION,
        epoch: EPOCH,
        deny_epoch: 4,
        state: Port::state_word(INCARNATION, state),
        trunk_ifindex: TRUNK_IFINDEX,
        worker: 2,
        mac: POD.mac,
        ip4: owner.v4,
        has_ip6: 1,
        ip6: owner.v6,
        ..Zeroable::zeroed()
    }
}

/// A port of the pod that frames leave, and one of the pod that they enter.
fn both_ways(state: u32) -> [(Direction, Port); 2] {
    [(Direction::Egress, port(POD, state)), (Direction::Ingress, port(PEER, state))]
}

/// A frame that enters came from another device.
fn from_elsewhere(direction: Direction) -> Context {
    Context { ingress_ifindex: if direction == Direction::Ingress { IFINDEX } else { 0 }, ..Context::default() }
}

fn long_frames(generated: u64) -> impl Iterator<Item = (String, Vec<u8>)> {
    labelled(generated).filter(|(_, frame)| (LONG_ENOUGH..=*RUNNABLE.end()).contains(&frame.len()))
}

/// The hooks of one port, twice.
struct Pair {
    model: Hooks,
    twin: MemoryKernel,
}

impl Pair {
    fn new(port: Port) -> Self {
        Self::of(Hooks::load(&port), port)
    }

    /// Hooks that send every packet to the worker.
    fn for_every_packet(port: Port) -> Self {
        let pair = Self::of(Hooks::load_with(&port, &Config { every_packet: 1, ..Zeroable::zeroed() }), port);
        pair.twin.every_packet.set(true);
        pair
    }

    /// Hooks that bring TCP straight to another pod's device, too.
    fn for_direct_tcp(port: Port) -> Self {
        let pair = Self::of(Hooks::load_with(&port, &Config { direct_tcp: 1, ..Zeroable::zeroed() }), port);
        pair.twin.direct_tcp.set(true);
        pair
    }

    fn of(model: Hooks, port: Port) -> Self {
        let twin = MemoryKernel::default();
        twin.port_of_ifindex.borrow_mut().insert(IFINDEX, u32::from(PORT_INDEX));
        twin.ports.borrow_mut()[usize::from(PORT_INDEX)] = port;
        twin.node_addresses.borrow_mut().insert(Addr(GATEWAY.v6));
        twin.open_ring(port.worker);
        Self { model, twin }
    }

    /// Runs both hooks, asserts that they do the same, and returns what.
    fn run(&self, direction: Direction, what: &str, frame: &[u8], context: Context) -> Fate {
        let (fate, mark) = self.model.run_with(direction, frame, context);
        let skb = Skb { frame, mark: context.mark, ingress_ifindex: context.ingress_ifindex, from_socket: true };
        let action = self.twin.hook(IFINDEX, direction, &skb, NOW_NS);
        let same = match (&fate, &action) {
            (Fate::Passed(_), &Action::Pass { mark: twins }) => twins == mark,
            (Fate::Dropped(reason), Action::Drop(twins)) => reason == twins,
            (Fate::Punted(frame), Action::Punt { frame: twins }) => frame == twins,
            (Fate::Direct(frame), Action::Direct { frame: twins, mark: marked, ifindex }) => {
                frame == twins && *marked == mark && *ifindex == IFINDEX
            }
            _ => false,
        };
        let said = format!("{direction}, {context:?}: {what}\n  frame {frame:02x?}");
        assert!(same, "{said}\n  BPF  {fate:02x?}, mark {mark:#x}\n  twin {action:02x?}");
        assert_eq!(self.model.counters(), *self.twin.counters.borrow(), "{said}\n  {fate:02x?}: counters, BPF's and the twin's");
        fate
    }
}

#[test]
fn both_parsers_make_the_same_of_every_frame() {
    if !root() {
        return;
    }
    let parser = Parser::load();
    let mut kinds = [0; 5];
    for (what, frame) in labelled(20_000).filter(|(_, frame)| RUNNABLE.contains(&frame.len())) {
        let twins = match parse(&frame, Key::zeroed()) {
            Err(reason) => Parsed::Refused(reason),
            Ok(parsed) if parsed.ethertype == ETHERTYPE_ARP => Parsed::Arp,
            Ok(parsed) if parsed.fragment == Piece::Later => Parsed::Later { key: parsed.key, id: parsed.fragment_id },
            Ok(parsed) if parsed.keyed => {
                let first = (parsed.fragment == Piece::First).then_some(parsed.fragment_id);
                Parsed::Keyed { key: parsed.key, opens: parsed.opens, tcp_flags: parsed.tcp_flags, first }
            }
            Ok(_) => Parsed::Unkeyed,
        };
        assert_eq!(parser.parse(&frame), twins, "{what}: BPF's and the twin's\n  frame {frame:02x?}");
        kinds[match twins {
            Parsed::Refused(_) => 0,
            Parsed::Arp => 1,
            Parsed::Later { .. } => 2,
            Parsed::Keyed { .. } => 3,
            Parsed::Unkeyed => 4,
        }] += 1;
    }
    assert!(kinds.iter().all(|&count| count > 100), "{kinds:?}");
}

#[test]
fn an_isolated_port_with_an_empty_cache_does_the_same() {
    on_a_router(|| {
        let mut reasons = BTreeSet::new();
        for state in [ISOLATED, PORT_OPEN | PORT_ISOLATED_INGRESS, PORT_OPEN | PORT_ISOLATED_EGRESS] {
            for (direction, port) in both_ways(state) {
                let pair = Pair::new(port);
                for (what, frame) in long_frames(4_000) {
                    let fate = pair.run(direction, &what, &frame, from_elsewhere(direction));
                    reasons.extend(if let Fate::Dropped(reason) = fate { Some(reason.name()) } else { None });
                }
                let counters = pair.model.counters();
                assert!(counters[COUNT_PUNT] > 500, "{direction}: {counters:?}");
                assert!(pair.model.take_origins().is_empty() && pair.twin.origins.borrow().is_empty(), "only of ports without policy");
            }
        }
        assert!(reasons.len() >= 11, "every reason of parser and guard: {reasons:?}");
    });
}

#[test]
fn a_port_that_nobody_isolates_passes_the_same_and_remembers_the_same_openers() {
    on_a_router(|| {
        for ((direction, port), tracked) in both_ways(PORT_OPEN).into_iter().flat_map(|way| [(way, false), (way, true)]) {
            let config = Config { tracked: tracked.into(), ..Zeroable::zeroed() };
            let (pair, mut opened) = (Pair::of(Hooks::load_with(&port, &config), port), 0);
            pair.twin.tracked.set(tracked);
            for (what, frame) in long_frames(4_000) {
                pair.run(direction, &what, &frame, from_elsewhere(direction));
                let twins: Vec<Key> = pair.twin.origins.borrow_mut().drain().collect();
                assert_eq!(pair.model.take_origins(), twins, "{what} {direction}: BPF's and the twin's openers");
                opened += twins.len();
                assert!(
                    !tracked || twins.iter().all(|key| key.protocol != Protocol::TCP.0 || Addr(key.src).to_v4().is_none()),
                    "the kernel knows them"
                );
            }
            let counters = pair.model.counters();
            assert!(opened > if tracked { 10 } else { 100 } && counters[COUNT_NOT_ISOLATED] > 500, "{direction}: {opened}, {counters:?}");
        }
    });
}

#[test]
fn a_port_that_is_closed_or_not_this_one_drops_everything() {
    on_a_router(|| {
        let closed = |owner| port(owner, 0);
        let opened_for_another = |owner| Port { state: Port::state_word(INCARNATION + 1, ISOLATED), ..port(owner, 0) };
        let of_another_device = |owner| Port { ifindex: IFINDEX + 1, ..port(owner, ISOLATED) };
        let cases: [(&dyn Fn(Host) -> Port, DropReason); 3] =
            [(&closed, DropReason::PortClosed), (&opened_for_another, DropReason::PortClosed), (&of_another_device, DropReason::NoPort)];
        for (port, reason) in cases {
            for (direction, owner) in [(Direction::Egress, POD), (Direction::Ingress, PEER)] {
                let pair = Pair::new(port(owner));
                for (what, frame) in long_frames(1_000) {
                    let fate = pair.run(direction, &what, &frame, from_elsewhere(direction));
                    assert_eq!(fate, Fate::Dropped(reason), "{what} {direction}");
                }
            }
        }
    });
}

/// Without an address of the packet's family nothing is the pod's own.
#[test]
fn a_port_of_one_family_does_the_same() {
    on_a_router(|| {
        for (direction, port) in both_ways(ISOLATED) {
            for port in [Port { ip4: [0; 4], ..port }, Port { has_ip6: 0, ip6: [0; 16], ..port }] {
                let pair = Pair::new(port);
                for (what, frame) in long_frames(2_000) {
                    pair.run(direction, &what, &frame, from_elsewhere(direction));
                }
            }
        }
    });
}

/// Neighbour discovery, listener messages and ARP in every combination of what the guard looks at.
fn link_talk() -> Vec<Vec<u8>> {
    const LINK_LOCAL: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
    let multicast = |scope: u8| [0xff, scope, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let loopback = Ipv6Addr::LOCALHOST.octets();
    let options = [None, Some((1, POD.mac)), Some((2, POD.mac)), Some((1, PEER.mac)), Some((14, PEER.mac))];
    let (mut frames, mut bodies) = (Vec::new(), Vec::new());
    for target in [POD.v6, PEER.v6, LINK_LOCAL] {
        for option in options {
            let option = option.map(|(kind, mac): (u8, [u8; 6])| [&[kind, 1][..], &mac].concat());
            bodies.push([&target[..], &option.unwrap_or_default()].concat());
        }
    }
    for src in [POD.v6, PEER.v6, LINK_LOCAL, [0; 16], loopback, multicast(2)] {
        for dst in [LINK_LOCAL, GATEWAY.v6, PEER.v6, POD.v6, loopback, multicast(2), multicast(5)] {
            for (hop_limit, extensions) in [(255, vec![]), (64, vec![]), (255, vec![Extension::of(HOP_BY_HOP)])] {
                let header = V6 { src, dst, hop_limit, extensions, ..V6::default() };
                for kind in [128, 130, 131, 132, 133, 134, 135, 136, 137, 143] {
                    frames.extend(bodies.iter().map(|body| ethernet(IPV6, &header.around(ICMPV6, &icmp(kind, 0, [0; 4], body)))));
                }
            }
        }
    }
    for (mac, ip) in [POD.mac, PEER.mac].into_iter().flat_map(|mac| [POD.v4, PEER.v4, [0; 4]].map(|ip| (mac, ip))) {
        for head in [[0, 1, 8, 0, 6, 4, 0, 1], [0, 1, 8, 0, 6, 4, 0, 2], [0, 6, 8, 0, 6, 4, 0, 1], [0, 1, 8, 0, 8, 4, 0, 1]] {
            let claim = [&head[..], &mac, &ip, &GATEWAY.mac, &GATEWAY.v4].concat();
            // an Ethernet frame is padded to 60 bytes
            frames.push([&ethernet(0x0806, &claim)[..], &[0; 18]].concat());
        }
    }
    frames
}

#[test]
fn the_guard_lets_the_same_neighbours_talk() {
    on_a_router(|| {
        for state in [PORT_OPEN, ISOLATED] {
            let pair = Pair::new(port(POD, state));
            for (number, frame) in link_talk().iter().enumerate() {
                pair.run(Direction::Egress, &format!("link_talk()[{number}]"), frame, from_elsewhere(Direction::Egress));
            }
            let counters = pair.model.counters();
            let guards = [DropReason::RogueRouter, DropReason::SpoofedNeighbour, DropReason::SpoofedAddress, DropReason::SpoofedArp];
            let met = guards.iter().all(|&reason| counters[reason as usize] > 10);
            assert!(met && counters[COUNT_NEIGHBOUR] > 500, "{counters:?}");
        }
    });
}

#[test]
fn marks_and_origins_decide_the_same() {
    on_a_router(|| {
        for (direction, port) in both_ways(ISOLATED) {
            let pair = Pair::new(port);
            for (what, frame) in long_frames(100) {
                for mark in 0..16u32 {
                    for ingress_ifindex in [0, IFINDEX, TRUNK_IFINDEX] {
                        let context = Context { mark: mark << 28 | 0x77, ingress_ifindex, ..Context::default() };
                        pair.run(direction, &what, &frame, context);
                    }
                }
            }
            let counters = pair.model.counters();
            assert!(counters[COUNT_REINJECTED] > 500 && counters[COUNT_PUNT] > 500, "{direction}: {counters:?}");
            assert!(direction == Direction::Egress || counters[COUNT_NODE] > 500, "{counters:?}");
            // its own pod's, where the device is the port's; otherwise nobody's
            let nobodys = counters[DropReason::ExitUnjudged as usize];
            assert!(direction == Direction::Egress || nobodys > 100, "{counters:?}");
        }
    });
}

/// An entry of the cache as a worker may have left it; its times are far from every limit that a clock could pass.
fn cached(c: &mut Choices<'_>) -> CacheValue {
    let all_flags = [0, CACHE_REPLY, CACHE_BOTH_WAYS, CACHE_REPLY | CACHE_BOTH_WAYS, CACHE_TRANSLATED, CACHE_TRANSLATED | CACHE_REPLY];
    let idle = c.rarely();
    CacheValue {
        epoch: if c.rarely() { EPOCH - 1 } else { EPOCH },
        verdict: c.pick(&[CACHE_ALLOW, CACHE_ALLOW_DEFERRED, CACHE_DENY]),
        flags: c.pick(&all_flags),
        tcp_flags: c.pick(&[0, 0, 0, TcpFlags::SYN | TcpFlags::ACK, TcpFlags::FIN, TcpFlags::RST, 0x3f]),
        timeout_ns: if idle { 0 } else { c.pick(&[u64::MAX, 1 << 62]) },
        last_seen_ns: if idle { 0 } else { c.pick(&[0, u64::MAX]) },
        packets: u64::from(c.byte()),
        bytes: 1000,
        direct_until_ns: c.pick(&[0, u64::MAX]),
        out_port: c.pick(&[PORT_INDEX, PORT_INDEX, PORT_INDEX + 1, 999]),
        ..Zeroable::zeroed()
    }
}

/// The entry without the clock's reading, should that be what its last field holds.
fn timeless(value: CacheValue) -> CacheValue {
    let read = |ns| !matches!(ns, 0 | u64::MAX);
    let last_seen_ns = if read(value.last_seen_ns) { NOW_NS } else { value.last_seen_ns };
    let direct_until_ns = if read(value.direct_until_ns) { NOW_NS } else { value.direct_until_ns };
    CacheValue { last_seen_ns, direct_until_ns, ..value }
}

/// What left its pod deferred, where it departs and enters a pod at once: two verdicts, each of the cache or of a worker.
#[test]
fn departures_are_judged_the_same() {
    on_a_router(|| {
        let pair = Pair::new(port(PEER, ISOLATED));
        let (mut passed, mut punted) = (0, [0; 2]);
        for (number, (what, frame)) in long_frames(6_000).enumerate() {
            let bytes = random_bytes(number as u64, 64);
            let mut choices = Choices::new(&bytes);
            let mut keys = Vec::new();
            for way in [DEPARTURE, Direction::Ingress as u8] {
                let own = Key { incarnation: INCARNATION, port: PORT_INDEX, direction: way, ..Zeroable::zeroed() };
                let Ok(parsed) = parse(&frame, own) else { continue };
                if parsed.keyed && choices.below(4) != 0 {
                    let value = CacheValue { verdict: if choices.rarely() { CACHE_DENY } else { CACHE_ALLOW }, ..cached(&mut choices) };
                    pair.model.remember(&parsed.key, &value);
                    pair.twin.cache.borrow_mut().insert(parsed.key, value);
                    keys.push(parsed.key);
                }
            }
            let context = Context { mark: MARK_DEFERRED | 0x77, ingress_ifindex: IFINDEX, ..Context::default() };
            let fate = pair.run(Direction::Ingress, &what, &frame, context);
            passed += usize::from(matches!(fate, Fate::Passed(_)));
            if let Some((header, _)) = fate.punted() {
                punted[usize::from(header.direction == DEPARTURE)] += 1;
                assert_eq!(header.exit_ifindex, if header.direction == DEPARTURE { IFINDEX } else { 0 });
            }
            for key in keys {
                let twins = pair.twin.cache.borrow_mut().remove(&key).expect("the hooks remove nothing");
                assert_eq!(timeless(pair.model.forget(&key)), timeless(twins), "{what}: BPF's and the twin's entry");
            }
        }
        assert!(passed > 300 && punted.iter().all(|&count| count > 300), "{passed}, {punted:?}");
    });
}

/// Whatever cache and denials hold, both do the same with a packet that meets it, and leave the same of it.
fn obey_the_same(pair: &Pair, direction: Direction, port: Port) {
    for (number, (what, frame)) in long_frames(6_000).enumerate() {
        let Ok(parsed) =
            parse(&frame, Key { incarnation: INCARNATION, port: PORT_INDEX, direction: direction as u8, ..Zeroable::zeroed() })
        else {
            continue;
        };
        let bytes = random_bytes(number as u64, 64);
        let mut choices = Choices::new(&bytes);
        let (key, value) = (parsed.key, cached(&mut choices));
        let denied = match choices.sometimes() {
            true => Key { sport: 0, ..key },
            false => Key { sport: 0, dport: EVERY_PORT, protocol: 0, ..key },
        };
        let denial = Denial { deny_epoch: port.deny_epoch - u32::from(choices.rarely()), ..Zeroable::zeroed() };
        let (has_value, has_denial) = (choices.below(4) != 0, choices.sometimes());
        if has_value {
            pair.model.remember(&key, &value);
            pair.twin.cache.borrow_mut().insert(key, value);
        }
        if has_denial {
            pair.model.deny(&denied, &denial);
            pair.twin.denials.borrow_mut().insert(denied, denial);
        }
        let what = format!("{what} with {value:?} {has_value} and {denial:?} {has_denial}");
        pair.run(direction, &what, &frame, from_elsewhere(direction));
        if has_value {
            let twins = pair.twin.cache.borrow_mut().remove(&key).expect("the hooks remove nothing");
            assert_eq!(timeless(pair.model.forget(&key)), timeless(twins), "{what} {direction}: BPF's and the twin's entry");
        }
        if has_denial {
            let twins = pair.twin.denials.borrow_mut().remove(&denied).expect("the hooks remove nothing");
            assert_eq!(pair.model.forgive(&denied).packets, twins.packets, "{what} {direction}: BPF's and the twin's denial");
        }
    }
}

#[test]
fn cached_verdicts_and_denials_are_obeyed_the_same() {
    on_a_router(|| {
        for (direction, port) in both_ways(ISOLATED) {
            let pair = Pair::new(port);
            obey_the_same(&pair, direction, port);
            let counters = pair.model.counters();
            for counter in [COUNT_HIT, COUNT_STALE, COUNT_PUNT, DropReason::PolicyDenied as usize] {
                assert!(counters[counter] > 300, "{direction}: {counter} in {counters:?}");
            }
        }
    });
}

/// Without offload nothing is obeyed, neither entries nor denials: the worker is asked, and told what the cache knows.
#[test]
fn every_packet_goes_to_the_worker_the_same() {
    on_a_router(|| {
        for (direction, port) in both_ways(ISOLATED) {
            let pair = Pair::for_every_packet(Port { direct_mtu: 1500, ..port });
            obey_the_same(&pair, direction, port);
            let counters = pair.model.counters();
            assert!(counters[COUNT_PUNT] > 1000 && counters[COUNT_STALE] > 300, "{direction}: {counters:?}");
            assert_eq!([COUNT_HIT, COUNT_DIRECT, DropReason::PolicyDenied as usize].map(|counter| counters[counter]), [0; 3]);
        }
    });
}
