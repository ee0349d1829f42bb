//! Connections that begin and end in the kernel.

use super::{EPOCH, INCARNATION, ISOLATED, Pair, both_ways, from_elsewhere, long_frames, on_a_router, timeless};
use crate::kernel::Kernel;
use crate::kernel::hooks::parse::parse;
use bytemuck::Zeroable;
use sluice_bpf::abi::{
    Allowance, CACHE_ALLOW, CACHE_ALLOW_DEFERRED, CACHE_BOTH_WAYS, CACHE_DENY, CACHE_REPLY, COUNT_ADMITTED, COUNT_PUNT, CacheValue, Key,
    Opening,
};
use sluice_bpf::testing::PORT_INDEX;
use sluice_flow::{Direction, DropReason, TcpFlags};
use sluice_frames::{Choices, random_bytes};

/// An allowance beside what the cache and the denials may hold: what is admitted, what is asked, the entries that are made, what
/// the worker is told.
#[test]
fn what_was_allowed_before_is_admitted_the_same() {
    on_a_router(|| {
        for (direction, port) in both_ways(ISOLATED) {
            let pair = Pair::new(port);
            let mut told = 0;
            for (number, (what, frame)) in long_frames(9_000).enumerate() {
                let own = Key { incarnation: INCARNATION, port: PORT_INDEX, direction: direction as u8, ..Zeroable::zeroed() };
                let Ok(parsed) = parse(&frame, own) else { continue };
                let bytes = random_bytes(number as u64, 64);
                let mut choices = Choices::new(&bytes);
                // of the one port, of a range with it, and of one that ends before it or begins behind it
                let dport = parsed.key.dport;
                let range =
                    choices.pick(&[None, None, Some((0, u16::MAX)), Some((dport, dport)), Some((0, dport / 2)), Some((dport, u16::MAX))]);
                let range = range.or_else(|| choices.rarely().then_some((dport.saturating_add(1), u16::MAX)));
                let wide = match range {
                    Some(_) => Key { sport: port.deny_epoch as u16, dport: 0, ..parsed.key },
                    None => Key { sport: 0, ..parsed.key },
                };
                let (first_port, last_port) = range.unwrap_or((0, 0));
                let allowance = Allowance {
                    key: wide,
                    first_port,
                    last_port,
                    deny_epoch: port.deny_epoch - u32::from(choices.rarely()),
                    rule: 7,
                    generation: 9,
                    timeout_ns: 1 << 40,
                    verdict: choices.pick(&[CACHE_ALLOW, CACHE_ALLOW_DEFERRED]),
                    ..Zeroable::zeroed()
                };
                let room = u32::from(choices.below(4) != 0);
                pair.model.allow(&allowance, room);
                pair.twin.allow(&allowance);
                let ration = &mut pair.twin.rations.borrow_mut()[usize::from(PORT_INDEX)].clone();
                ration.may = ration.made + room;
                pair.twin.rations.borrow_mut()[usize::from(PORT_INDEX)] = *ration;
                // not, until a moment that is over, or for ever
                let mut full_until_ns = choices.pick(&[0, 0, 1, u64::MAX]);
                let what = format!("{what} with {allowance:?} and room for {room}, full until {full_until_ns}");
                // the second time the entries are there, or another packet has just asked; FIN may end what it finds
                for time in 0..2 {
                    pair.model.set_full(full_until_ns);
                    pair.twin.set_full(usize::from(PORT_INDEX), full_until_ns);
                    pair.run(direction, &format!("{what}, {time}"), &frame, from_elsewhere(direction));
                    let twins = pair.twin.rations.borrow()[usize::from(PORT_INDEX)].full_until_ns;
                    let has_asked = twins != full_until_ns;
                    assert_eq!(pair.model.full_until_ns() != full_until_ns, has_asked, "{what}, {time}: whose turn it was");
                    if has_asked {
                        full_until_ns = u64::MAX;
                    }
                }
                let mut twins = Vec::new();
                pair.twin.openings(port.worker, &mut |opening| twins.push(Opening { at_ns: 0, ..opening }));
                let openings: Vec<_> = pair.model.openings().into_iter().map(|opening| Opening { at_ns: 0, ..opening }).collect();
                assert_eq!(openings, twins, "{what} {direction}: what the worker is told");
                told += twins.len();
                pair.model.disallow(&wide);
                pair.twin.allowances.borrow_mut().remove(&wide);
                let made: Vec<_> = pair.twin.cache.borrow_mut().drain().collect();
                for (key, value) in made {
                    assert_eq!(timeless(pair.model.forget(&key)), timeless(value), "{what} {direction}: BPF's and the twin's entry");
                }
            }
            let counters = pair.model.counters();
            let full = counters[DropReason::ConnectionsFull as usize];
            assert!(told > 500 && counters[COUNT_ADMITTED] > 500 && counters[COUNT_PUNT] > 500, "{direction}: {told}, {counters:?}");
            assert!(full > 100, "{direction}: {counters:?}");
        }
    });
}

/// Both directions close: the worker is told once, by the second FIN.
#[test]
fn an_end_is_told_the_same() {
    on_a_router(|| {
        let (_, port) = both_ways(ISOLATED)[0];
        let pair = Pair::new(port);
        let mut ends = 0;
        for (what, frame) in long_frames(3_000) {
            let own = Key { incarnation: INCARNATION, port: PORT_INDEX, direction: Direction::Egress as u8, ..Zeroable::zeroed() };
            let Ok(parsed) = parse(&frame, own) else { continue };
            if !parsed.keyed || parsed.key.protocol != 6 {
                continue;
            }
            let entry = |flags, tcp_flags| CacheValue {
                epoch: EPOCH,
                verdict: CACHE_ALLOW,
                flags,
                tcp_flags,
                timeout_ns: u64::MAX,
                last_seen_ns: u64::MAX,
                ..Zeroable::zeroed()
            };
            let back = crate::kernel::hooks::reversed(&parsed.key);
            for answers in [0, TcpFlags::ACK, TcpFlags::FIN | TcpFlags::ACK] {
                for (key, value) in [(parsed.key, entry(0, 0)), (back, entry(CACHE_REPLY, answers))] {
                    pair.model.remember(&key, &value);
                    pair.twin.cache.borrow_mut().insert(key, value);
                }
                pair.run(Direction::Egress, &what, &frame, from_elsewhere(Direction::Egress));
                let mut twins = Vec::new();
                pair.twin.openings(port.worker, &mut |opening| twins.push((opening.key, opening.kind)));
                let openings: Vec<_> = pair.model.openings().into_iter().map(|opening| (opening.key, opening.kind)).collect();
                assert_eq!(openings, twins, "{what}, answered with {answers:#x}");
                ends += twins.len();
                for key in [parsed.key, back] {
                    pair.model.forget(&key);
                }
                pair.twin.cache.borrow_mut().clear();
            }
        }
        assert!(ends > 20, "{ends}");
    });
}

/// A SYN on the ports of a connection that is over, or nearly: begun anew or asked about, and what the one before counted is told.
#[test]
fn what_begins_on_the_ports_of_another_begins_the_same() {
    on_a_router(|| {
        for (direction, port) in both_ways(ISOLATED) {
            let pair = Pair::new(port);
            let (mut begun, mut counted) = (0, 0);
            for (number, (what, frame)) in long_frames(4_000).enumerate() {
                let own = Key { incarnation: INCARNATION, port: PORT_INDEX, direction: direction as u8, ..Zeroable::zeroed() };
                let Ok(parsed) = parse(&frame, own) else { continue };
                if !parsed.opens {
                    continue;
                }
                let bytes = random_bytes(number as u64, 64);
                let mut choices = Choices::new(&bytes);
                let allowance = Allowance {
                    key: Key { sport: 0, ..parsed.key },
                    deny_epoch: port.deny_epoch - u32::from(choices.rarely()),
                    timeout_ns: 1 << 40,
                    verdict: CACHE_ALLOW,
                    ..Zeroable::zeroed()
                };
                let room = u32::from(!choices.rarely());
                pair.model.allow(&allowance, room);
                pair.twin.allow(&allowance);
                pair.twin.rations.borrow_mut()[usize::from(PORT_INDEX)].may = room;
                pair.twin.rations.borrow_mut()[usize::from(PORT_INDEX)].made = 0;
                let back = crate::kernel::hooks::reversed(&parsed.key);
                for (key, flags) in [(parsed.key, 0), (back, CACHE_REPLY)] {
                    let value = CacheValue {
                        epoch: EPOCH - u32::from(choices.rarely()),
                        verdict: choices.pick(&[CACHE_ALLOW, CACHE_DENY]),
                        flags: if choices.rarely() { CACHE_BOTH_WAYS } else { flags },
                        tcp_flags: choices.pick(&[TcpFlags::ACK, TcpFlags::FIN, TcpFlags::RST | TcpFlags::ACK]),
                        timeout_ns: u64::MAX,
                        last_seen_ns: u64::MAX,
                        packets: u64::from(choices.byte()),
                        bytes: u64::from(choices.byte()) << 8,
                        ..Zeroable::zeroed()
                    };
                    if !choices.rarely() {
                        pair.model.remember(&key, &value);
                        pair.twin.cache.borrow_mut().insert(key, value);
                    }
                }
                pair.run(direction, &what, &frame, from_elsewhere(direction));
                let mut twins = Vec::new();
                pair.twin.openings(port.worker, &mut |opening| twins.push(Opening { at_ns: 0, ..opening }));
                let openings: Vec<_> = pair.model.openings().into_iter().map(|opening| Opening { at_ns: 0, ..opening }).collect();
                assert_eq!(openings, twins, "{what} {direction}: what the worker is told");
                begun += twins.len();
                counted += twins.iter().filter(|opening| opening.packets > 0).count();
                pair.model.disallow(&allowance.key);
                pair.twin.allowances.borrow_mut().clear();
                for (key, value) in pair.twin.cache.borrow_mut().drain() {
                    let expected = timeless(value);
                    let found = timeless(pair.model.forget(&key));
                    assert_eq!(found, expected, "{what} {direction}: BPF's and the twin's entry");
                }
            }
            assert!(begun > 50 && counted > 50, "{direction}: {begun} begun, {counted} of them on the ports of others");
        }
    });
}
