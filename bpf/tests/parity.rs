//! Two parsers, one truth: the hooks' parser in C and the worker's in Rust see the same frames.
//!
//! *Refused* means: the BPF parser returns a drop reason; the Rust parser returns an error. *Unkeyed* is neither: the frame travels to the worker, whose parser has the last word.
//!
//! | BPF parser | then the Rust parser |
//! |---|---|
//! | a key | gives the same key, the same TCP flags, and the same first fragments |
//! | a later fragment | says so too, of the same packet |
//! | refused | refuses, for the same reason |
//! | ARP | refuses: workers never see ARP |
//! | unkeyed | may say anything, except a packet of a tracked kind, which the cache must be able to serve |
//!
//! And the whole programs, on a port that policy isolates: with an empty cache nothing passes but what the guard lets
//! pass, and with one key allowed nothing passes but frames that the Rust parser gives that key.
#![cfg(feature = "load")]

use bytemuck::Zeroable;
use sluice_bpf::abi::{
    CACHE_ALLOW, COUNT_HIT, COUNT_NEIGHBOUR, COUNT_NOT_ISOLATED, CacheValue, KIND_PUNT, Key, PORT_ISOLATED_EGRESS, PORT_ISOLATED_INGRESS,
    PORT_OPEN, Port,
};
use sluice_bpf::testing::{Context, Fate, Hooks, IFINDEX, LONG_ENOUGH, PORT_INDEX, Parsed, Parser, RUNNABLE, root};
use sluice_flow::{Direction, DropReason, Fragment, IcmpClass, Kind, Packet, parse_frame};
use sluice_frames::layers::{DESTINATION, Extension, HIP, HOP_BY_HOP, ICMPV6, IPV4, IPV6, ROUTING, TCP, UDP, V6, ethernet, icmp};
use sluice_frames::{Host, PEER, POD, frame, labelled};
use std::collections::BTreeMap;

/// `SLUICE_PARITY_FRAMES` for another number: `make parity`.
const GENERATED: u64 = 20_000;
const GENERATED_FOR_HOOKS: u64 = 3_000;

fn key(packet: &Packet) -> Key {
    Key {
        incarnation: 0,
        port: 0,
        direction: 0,
        protocol: packet.protocol.0,
        src: packet.src.0,
        dst: packet.dst.0,
        sport: packet.sport,
        dport: packet.dport,
    }
}

fn frames(generated: u64) -> impl Iterator<Item = (String, Vec<u8>)> {
    labelled(generated).filter(|(_, frame)| RUNNABLE.contains(&frame.len()))
}

/// The programs change nothing about a frame's end, so they see only what a test run takes.
fn long_frames() -> impl Iterator<Item = (String, Vec<u8>)> {
    frames(GENERATED_FOR_HOOKS).filter(|(_, frame)| frame.len() >= LONG_ENOUGH)
}

/// Of a kind that is tracked: the cache must serve it.
fn tracked(packet: &Packet) -> bool {
    match packet.kind {
        // by its first
        _ if matches!(packet.fragment, Some(Fragment::Later(_))) => false,
        Kind::Tcp(_) | Kind::Sctp(_) | Kind::Udp | Kind::Other => true,
        Kind::Icmp(class) => class != IcmpClass::Other,
        Kind::IcmpError(_) => false,
    }
}

/// See the table above.
fn agree(frame: &[u8], bpf: Parsed) -> bool {
    let rust = parse_frame(frame).map_err(|error| error.0);
    match (bpf, rust) {
        (Parsed::Keyed { key: found, opens, tcp_flags, first }, Ok(packet)) => {
            let flags = packet.kind.flags().unwrap_or_default();
            let fragment = first.map(Fragment::First);
            found == key(&packet) && opens == flags.opens() && tcp_flags == flags.0 && fragment == packet.fragment
        }
        (Parsed::Later { key: found, id }, Ok(packet)) => found == key(&packet) && packet.fragment == Some(Fragment::Later(id)),
        (Parsed::Refused(reason), Err(other)) => reason == other,
        (Parsed::Arp, Err(other)) => other == DropReason::EtherType,
        (Parsed::Unkeyed, Ok(packet)) => !tracked(&packet),
        (Parsed::Unkeyed, Err(_)) => true,
        (Parsed::Keyed { .. } | Parsed::Later { .. }, Err(_)) | (Parsed::Refused(_) | Parsed::Arp, Ok(_)) => false,
    }
}

#[test]
fn both_parsers_give_the_same_key_or_both_refuse() {
    if !root() {
        return;
    }
    let parser = Parser::load();
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    let generated = std::env::var("SLUICE_PARITY_FRAMES").map_or(GENERATED, |frames| frames.parse().expect("a number of frames"));
    let every = generated / 10;
    for (number, (what, frame)) in (0u64..).zip(frames(generated)) {
        if generated > GENERATED && number > 0 && number.is_multiple_of(every) {
            println!("{number} of some {generated} frames");
        }
        let bpf = parser.parse(&frame);
        assert!(agree(&frame, bpf), "{what}\n  frame {frame:02x?}\n  BPF   {bpf:?}\n  Rust  {:?}", parse_frame(&frame));
        let outcome = match bpf {
            Parsed::Keyed { .. } | Parsed::Later { .. } => "the same key",
            Parsed::Refused(_) | Parsed::Arp => "both refuse",
            Parsed::Unkeyed => "left to the worker",
        };
        *outcomes.entry(outcome).or_default() += 1;
    }
    println!("{outcomes:?}");
    assert!(outcomes.len() == 3 && outcomes.values().all(|&count| count > 500), "{outcomes:?}");
}

/// The frame with the length that IP gives it as 0.
fn unsegmented(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let length_at = if frame[12..14] == IPV4.to_be_bytes() { 16 } else { 18 };
    frame[length_at..length_at + 2].fill(0);
    frame
}

/// The lengths of a packet that is still to be cut into segments may say anything; its key is that of its segments.
#[test]
fn a_packet_before_segmentation_has_the_key_of_its_segments() {
    if !root() {
        return;
    }
    let parser = Parser::load();
    let mut compared = 0;
    for (what, mut frame) in frames(GENERATED) {
        let whole = parser.parse(&frame);
        let Parsed::Keyed { key, .. } = whole else { continue };
        if !matches!(key.protocol, TCP | UDP) {
            continue;
        }
        assert_eq!(parser.parse_segments(&frame, 2), whole, "{what} {frame:02x?}");
        frame = unsegmented(&frame);
        assert_eq!(parser.parse_segments(&frame, 2), whole, "{what} with length 0 {frame:02x?}");
        compared += 1;
    }
    assert!(compared > 500, "only {compared}");
}

const ISOLATED: u32 = PORT_OPEN | PORT_ISOLATED_INGRESS | PORT_ISOLATED_EGRESS;
const INCARNATION: u32 = 3;
const EPOCH: u32 = 11;
const WORKER: u16 = 2;

/// `owner` is the pod behind the port.
fn load_hooks(owner: Host, state: u32) -> Hooks {
    Hooks::load(&Port {
        ifindex: IFINDEX,
        incarnation: INCARNATION,
        epoch: EPOCH,
        deny_epoch: 0,
        state: Port::state_word(INCARNATION, state),
        trunk_ifindex: 9,
        worker: WORKER,
        mac: POD.mac,
        ip4: owner.v4,
        has_ip6: 1,
        ip6: owner.v6,
        ..Zeroable::zeroed()
    })
}

/// Hooks of the pod that frames leave, and of the one that they enter.
fn hooks(state: u32) -> [(Direction, Hooks); 2] {
    [(Direction::Egress, load_hooks(POD, state)), (Direction::Ingress, load_hooks(PEER, state))]
}

/// The key under which a cache entry of the port stands.
fn port_key(parsed: Key, direction: Direction) -> Key {
    Key { incarnation: INCARNATION, port: PORT_INDEX, direction: direction as u8, ..parsed }
}

/// Lets the cache allow one key more; it never idles out.
fn allow(hooks: &Hooks, key: &Key) {
    const HOUR_NS: u64 = 3_600_000_000_000;
    let value = CacheValue { epoch: EPOCH, verdict: CACHE_ALLOW, timeout_ns: HOUR_NS, last_seen_ns: u64::MAX, ..Zeroable::zeroed() };
    hooks.remember(key, &value);
}

#[test]
fn nothing_passes_an_isolated_port_with_an_empty_cache_but_neighbour_discovery() {
    if !root() {
        return;
    }
    for (direction, hooks) in hooks(ISOLATED) {
        let mut punted = 0;
        for (what, frame) in long_frames() {
            let fate = hooks.run(direction, &frame);
            match fate {
                Fate::Passed(COUNT_NEIGHBOUR) => assert!(neighbours_talk(direction, &frame), "{what} {direction} {frame:02x?}"),
                Fate::Passed(counter) => panic!("{what} {direction} passed under counter {counter}: {frame:02x?}"),
                Fate::Punted(_) | Fate::Direct(_) => {
                    let (header, inner) = fate.punted().expect("it was");
                    let said = (header.kind, header.direction, header.port, header.worker, header.incarnation, header.epoch);
                    assert_eq!(said, (KIND_PUNT, direction as u8, PORT_INDEX, WORKER, INCARNATION, EPOCH), "{what}");
                    assert!(inner == frame, "{what}: punted changed");
                    punted += 1;
                }
                Fate::Dropped(reason) => {
                    assert!(reason != DropReason::PolicyDenied && reason != DropReason::Internal, "{what} {direction}: {reason}");
                }
            }
        }
        assert!(punted > 500, "{direction}: only {punted} frames were punted");
    }
}

/// ARP, or neighbour discovery or a listener report, in the pod's own name. Only what leaves a pod is of this kind.
fn neighbours_talk(direction: Direction, frame: &[u8]) -> bool {
    let arp = frame[12..14] == [8, 6] && frame[22..28] == POD.mac;
    let discovery = || matches!(parse_frame(frame), Ok(Packet { kind: Kind::Icmp(IcmpClass::Other), .. }));
    direction == Direction::Egress && frame[6..12] == POD.mac && (arp || discovery())
}

#[test]
fn with_one_key_allowed_exactly_the_frames_with_that_key_pass() {
    if !root() {
        return;
    }
    let plainest = key(&parse_frame(&frame(&[])).unwrap());
    for (direction, hooks) in hooks(ISOLATED) {
        let (mut hits, mut whole, allowed) = (0, 0, port_key(plainest, direction));
        allow(&hooks, &allowed);
        for (what, frame) in long_frames() {
            let packet = parse_frame(&frame).ok();
            let own = packet.map(|packet| port_key(key(&packet), direction));
            if own == Some(allowed) {
                continue;
            }
            let fate = hooks.run(direction, &frame);
            assert_ne!(fate, Fate::Passed(COUNT_HIT), "{what} {direction}: passed by another's key {frame:02x?}");
            let Some((own, packet)) = own.zip(packet) else { continue };
            allow(&hooks, &own);
            let passed = hooks.run(direction, &frame) == Fate::Passed(COUNT_HIT);
            let expected = matches!(fate, Fate::Punted(_)) && tracked(&packet);
            assert_eq!(passed, expected, "{what} {direction}: {frame:02x?}");
            hits += usize::from(passed);
            if passed && packet.fragment.is_none() && matches!(own.protocol, TCP | UDP) {
                allow(&hooks, &own);
                let frame = unsegmented(&frame);
                let context =
                    Context { ingress_ifindex: u32::from(direction == Direction::Ingress) * IFINDEX, gso_segs: 2, ..Context::default() };
                assert_eq!(hooks.run_with(direction, &frame, context).0, Fate::Passed(COUNT_HIT), "{what} {direction}: {frame:02x?}");
                whole += 1;
            }
            hooks.forget(&own);
        }
        assert!(hits > 500 && whole > 200, "{direction}: only {hits} hits, {whole} before segmentation");
    }
}

#[test]
fn a_port_that_no_policy_isolates_passes_or_drops_and_never_asks_a_worker() {
    if !root() {
        return;
    }
    for (direction, hooks) in hooks(PORT_OPEN) {
        for (what, frame) in long_frames() {
            match hooks.run(direction, &frame) {
                Fate::Passed(counter) => assert!(counter == COUNT_NOT_ISOLATED || counter == COUNT_NEIGHBOUR, "{what}: {counter}"),
                Fate::Dropped(_) => {}
                Fate::Punted(_) | Fate::Direct(_) => panic!("{what} {direction}: punted"),
            }
        }
    }
}

/// The stack of the node walks extension headers before it believes an advertisement; so must the guard.
#[test]
fn forged_neighbour_messages_are_dropped_behind_any_extension_header() {
    const LINK_LOCAL_GATEWAY: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    if !root() {
        return;
    }
    let of = Extension::of;
    let chains = [vec![], vec![of(HOP_BY_HOP)], vec![of(DESTINATION)], vec![of(ROUTING), of(HIP)], vec![of(DESTINATION); 8]];
    let too_long = vec![of(DESTINATION); 9];
    let forged = |kind: u8, claimed: [u8; 16], extensions: Vec<Extension>| {
        let header = V6 { dst: LINK_LOCAL_GATEWAY, hop_limit: 255, extensions, ..V6::default() };
        let option = [&[2, 1][..], &POD.mac].concat();
        ethernet(IPV6, &header.around(ICMPV6, &icmp(kind, 0, [0x20, 0, 0, 0], &[&claimed[..], &option].concat())))
    };
    for isolated in [PORT_OPEN, ISOLATED] {
        let hooks = load_hooks(POD, isolated);
        let fate = |frame: Vec<u8>| hooks.run(Direction::Egress, &frame);
        for chain in &chains {
            assert_eq!(fate(forged(136, PEER.v6, chain.clone())), Fate::Dropped(DropReason::SpoofedNeighbour), "{chain:?}");
            assert_eq!(fate(forged(134, PEER.v6, chain.clone())), Fate::Dropped(DropReason::RogueRouter), "{chain:?}");
            assert_eq!(fate(forged(136, POD.v6, chain.clone())), Fate::Passed(COUNT_NEIGHBOUR), "a true one behind {chain:?}");
        }
        assert_eq!(fate(forged(136, PEER.v6, too_long.clone())), Fate::Dropped(DropReason::ExtensionChain));
    }
}
