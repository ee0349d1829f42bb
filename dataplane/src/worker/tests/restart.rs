//! A worker that died: its successor knows what the pinned cache knows, and lets nothing old go on.

use super::frames::{tcp, udp};
use super::world::{Dropped, Forwarded, Outcome, SECOND, WEB, World, egress, ingress, isolate};
use sluice_bpf::abi::{CACHE_ALLOW, CACHE_BOTH_WAYS, CACHE_DENY, CACHE_REPLY};
use sluice_flow::Direction::{Egress, Ingress};
use sluice_flow::DropReason;

const CLIENT: &str = "10.0.1.1:4000";
const SERVER: &str = "10.0.0.1:80";
const DENIED: Outcome = Dropped(DropReason::PolicyDenied);

fn policies() -> [serde_json::Value; 2] {
    [ingress("10.0.1.0/24", "TCP 80"), egress("10.0.9.9/32", "UDP 53")]
}

fn world() -> World {
    let mut world = World::under(&policies());
    assert_eq!(world.enters(&tcp(CLIENT, SERVER, "S")), Forwarded);
    assert_eq!(world.leaves(&udp("10.0.0.1:4000", "10.0.9.9:53")), Forwarded);
    world.advance(10);
    world
}

#[test]
fn a_first_packet_that_is_a_reply_is_a_reply() {
    for reversed in [false, true] {
        let mut world = world();
        world.restart_with(|entries| {
            if reversed {
                entries.reverse()
            }
        });
        assert_eq!((world.worker.connections().len(), world.entries()), (2, 4));
        assert_eq!(world.leaves(&tcp(SERVER, CLIENT, "SA")), Dropped(DropReason::NoTable), "nothing is judged without a table");
        world.adopt(&policies());
        assert_eq!(world.writes(), 0, "nothing changed");
        assert_eq!(world.leaves(&tcp(SERVER, CLIENT, "SA")), Forwarded);
        assert_eq!(world.enters(&udp("10.0.9.9:53", "10.0.0.1:4000")), Forwarded);
        assert_eq!(world.leaves(&tcp(SERVER, CLIENT, "S")), DENIED, "still no opener");
        world.assert_cache_agrees();
    }
}

#[test]
fn what_the_policy_forbids_meanwhile_is_cut() {
    let mut world = world();
    world.restart();
    world.adopt(&[isolate(&["Ingress"]), egress("10.0.9.9/32", "UDP 53")]);
    assert_eq!(world.shared.counts()[3], 1);
    for (direction, frame) in [(Ingress, tcp(CLIENT, SERVER, "A")), (Egress, tcp(SERVER, CLIENT, "A"))] {
        assert_eq!(world.entry(direction, &frame).unwrap().verdict, CACHE_DENY);
        assert_eq!(world.punted(WEB, direction, &frame), DENIED);
    }
    assert_eq!(world.enters(&udp("10.0.9.9:53", "10.0.0.1:4000")), Forwarded, "the other goes on");
    world.restart();
    world.adopt(&policies());
    assert_eq!(world.leaves(&tcp(SERVER, CLIENT, "A")), Forwarded, "a cut connection survives a restart, too, and may come back");
}

#[test]
fn half_pairs_old_epochs_and_old_incarnations_are_removed() {
    let (inwards, outwards) = (tcp(CLIENT, SERVER, "A"), tcp(SERVER, CLIENT, "A"));
    for reversed in [false, true] {
        let arrange = |entries: &mut Vec<_>| {
            if reversed {
                entries.reverse()
            }
        };
        for (direction, lost) in [(Ingress, &inwards), (Egress, &outwards)] {
            let mut world = world();
            world.lose_entry(direction, lost);
            world.restart_with(arrange);
            assert_eq!((world.worker.connections().len(), world.entries()), (1, 2), "half a pair: {direction}");
            world.assert_cache_agrees();
        }
        let mut world = world();
        world.change_port(WEB, |port| port.epoch += 1);
        world.restart_with(arrange);
        assert_eq!((world.worker.connections().len(), world.entries()), (0, 0), "old epochs");

        let mut world = self::world();
        world.change_port(WEB, |port| port.incarnation += 1);
        world.restart_with(arrange);
        assert_eq!((world.worker.connections().len(), world.entries()), (0, 0), "an old incarnation");

        let mut world = self::world();
        world.change_port(WEB, |port| port.ifindex = 0);
        world.restart_with(arrange);
        assert_eq!((world.worker.connections().len(), world.entries()), (0, 0), "a free slot");
    }
}

/// The worker died between the two entries of a pair, after an epoch had been raised.
#[test]
fn a_pair_of_two_epochs_leaves_no_entry_without_a_connection() {
    let (inwards, outwards) = (tcp(CLIENT, SERVER, "A"), tcp(SERVER, CLIENT, "A"));
    for reversed in [false, true] {
        for (direction, old) in [(Ingress, &inwards), (Egress, &outwards)] {
            let mut world = world();
            world.change_entry(direction, old, |entry| entry.epoch -= 1);
            world.restart_with(|entries| {
                if reversed {
                    entries.reverse()
                }
            });
            world.assert_cache_agrees();
            world.adopt(&[isolate(&["Ingress", "Egress"])]);
            for (direction, frame) in [(Ingress, &inwards), (Egress, &outwards)] {
                assert_ne!(
                    world.entry(direction, frame).map(|entry| (entry.epoch, entry.verdict)),
                    Some((5, CACHE_ALLOW)),
                    "old {old:?}: {direction}"
                );
            }
        }
    }
}

#[test]
fn two_originals_are_no_pair() {
    let mut world = world();
    world.change_entry(Egress, &tcp(SERVER, CLIENT, "A"), |entry| entry.flags = 0);
    world.restart();
    assert_eq!((world.worker.connections().len(), world.entries()), (1, 2));
}

/// The worker died in the middle of the flips of an adoption; the last table that its successor adopts forbids the same.
#[test]
fn a_flip_that_death_interrupted_is_finished() {
    for done in 0..2 {
        for allowed_before in [true, false] {
            let mut world = world();
            let (forbid, allow) = (vec![isolate(&["Ingress", "Egress"])], policies().to_vec());
            let (before, after) = if allowed_before { (&allow, &forbid) } else { (&forbid, &allow) };
            world.adopt(before);
            world.hooks.0.fail_after.set(Some(done));
            world.hooks.0.dies_there.set(true);
            world.adopt(after);
            world.restart();
            world.adopt(after);
            world.assert_cache_agrees();
            let expected = if allowed_before { CACHE_DENY } else { CACHE_ALLOW };
            for (direction, frame) in [(Ingress, tcp(CLIENT, SERVER, "A")), (Egress, tcp(SERVER, CLIENT, "A"))] {
                let verdict = world.entry(direction, &frame).map(|entry| entry.verdict);
                assert!(verdict.is_none_or(|verdict| verdict == expected), "{done} written, {direction}: {verdict:?}");
            }
        }
    }
}

#[test]
fn how_a_connection_was_picked_up_is_remembered() {
    let mut world = World::under(&[ingress("10.0.1.0/24", "TCP 80"), egress("10.0.1.0/24", "any")]);
    assert_eq!(world.leaves(&tcp(SERVER, CLIENT, "A")), Forwarded);
    world.restart();
    world.adopt(&[isolate(&["Ingress"]), egress("10.0.1.0/24", "any")]);
    assert_eq!(world.shared.counts()[3], 1, "both ways or not at all");
    let entry = world.entry(Ingress, &tcp(CLIENT, SERVER, "A")).unwrap();
    assert_eq!((entry.verdict, entry.flags), (CACHE_DENY, CACHE_REPLY | CACHE_BOTH_WAYS));
}

#[test]
fn entries_of_other_workers_are_left_alone() {
    let mut world = world();
    world.change_port(WEB, |port| port.worker = 1);
    world.restart();
    assert_eq!((world.worker.connections().len(), world.entries()), (0, 4));
}

/// A damaged key must not stop a worker from starting.
#[test]
fn nonsense_in_the_cache_is_removed() {
    let mut world = world();
    assert_eq!(world.punted(SECOND, Ingress, &udp("10.0.1.1:1", "10.0.0.2:1")), Forwarded);
    // ports beyond the last look like copies of the last
    let last = world.port(WEB);
    world.hooks.0.memory.ports.borrow_mut()[255] = last;
    let mut planted = Vec::new();
    for (direction, frame) in [(Ingress, tcp(CLIENT, SERVER, "A")), (Egress, tcp(SERVER, CLIENT, "A"))] {
        let (mut key, value) = (world.key(direction, &frame), world.entry(direction, &frame).unwrap());
        key.port = 300;
        planted.push((key, value));
        key.direction = 9;
        planted.push((key, value));
    }
    world.hooks.0.memory.cache.borrow_mut().extend(planted);
    world.restart();
    assert_eq!((world.worker.connections().len(), world.entries()), (3, 6));
}
