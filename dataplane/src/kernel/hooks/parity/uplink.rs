//! The program on NICs: it drops what the pod's own hook would drop under a denial, and nothing else.

use super::{INCARNATION, ISOLATED, both_ways, from_elsewhere, long_frames, on_a_router};
use crate::kernel::hooks::parse::parse;
use bytemuck::Zeroable;
use sluice_bpf::abi::{COUNT_UPLINK, CacheValue, Denial, EVERY_PORT, Key, PORT_ISOLATED_EGRESS, PORT_OPEN, Port};
use sluice_bpf::testing::{Fate, Hooks, PORT_INDEX};
use sluice_flow::{Addr, Direction, DropReason};
use sluice_frames::{Choices, PEER, random_bytes};

#[test]
fn a_nic_drops_only_what_the_hook_would_drop() {
    on_a_router(|| {
        for state in [ISOLATED, PORT_OPEN | PORT_ISOLATED_EGRESS, 0] {
            let (_, port) = both_ways(state)[1];
            let hooks = Hooks::load(&port);
            hooks.enter_address(&Addr::v4(PEER.v4).0);
            hooks.enter_address(&PEER.v6);
            let (mut dropped, mut denied) = (0, 0);
            for (number, (what, frame)) in long_frames(8_000).enumerate() {
                let own = Key { incarnation: INCARNATION, port: PORT_INDEX, direction: Direction::Ingress as u8, ..Zeroable::zeroed() };
                let Ok(parsed) = parse(&frame, own) else {
                    assert!(!hooks.drops_on_arrival(&frame), "{what}: the hook has a reason of its own");
                    continue;
                };
                let bytes = random_bytes(number as u64, 64);
                let mut choices = Choices::new(&bytes);
                let covered = match choices.sometimes() {
                    true => Key { sport: 0, ..parsed.key },
                    false => Key { sport: 0, dport: EVERY_PORT, protocol: 0, ..parsed.key },
                };
                let denial = Denial { deny_epoch: port.deny_epoch - u32::from(choices.rarely()), ..Zeroable::zeroed() };
                hooks.deny(&covered, &denial);
                let known = choices.rarely();
                if known {
                    hooks.remember(&parsed.key, &CacheValue { verdict: 1, ..Zeroable::zeroed() });
                }
                let drops = hooks.drops_on_arrival(&frame);
                assert!(!(drops && known), "{what}: of a connection");
                let fate = hooks.run_with(Direction::Ingress, &frame, from_elsewhere(Direction::Ingress)).0;
                let by_denial = fate == Fate::Dropped(DropReason::PolicyDenied);
                assert!(by_denial || !drops, "{what}: the hook says {fate:?}\n  frame {frame:02x?}");
                (dropped, denied) = (dropped + u64::from(drops), denied + u64::from(by_denial));
                hooks.forgive(&covered);
                if known {
                    hooks.forget(&parsed.key);
                }
            }
            assert_eq!(hooks.counters()[COUNT_UPLINK], dropped);
            println!("state {state}: {denied} denied by the hook, {dropped} of them already on the NIC");
            let expected = if state == ISOLATED { dropped > 100 } else { dropped == 0 };
            assert!(expected, "state {state}: {dropped} of {denied}");
        }
        let port = Port { ip4: [0; 4], has_ip6: 0, ..both_ways(ISOLATED)[1].1 };
        let hooks = Hooks::load(&port);
        hooks.enter_address(&Addr::v4(PEER.v4).0);
        assert!(long_frames(500).all(|(_, frame)| !hooks.drops_on_arrival(&frame)), "an address that the slot does not have");
    });
}
