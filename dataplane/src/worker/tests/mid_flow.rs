//! TCP without its SYN.

use super::frames::tcp;
use super::world::{Dropped, Forwarded, World, egress, ingress, isolate};
use sluice_bpf::abi::{CACHE_BOTH_WAYS, CACHE_REPLY, TRUNK_BACK, TRUNK_ONWARD, TrunkHeader};
use sluice_flow::Direction::{Egress, Ingress};
use sluice_flow::DropReason;

const CLIENT: &str = "10.0.1.1:4000";
const WEB: &str = "10.0.0.1:80";
const UNKNOWN: super::world::Outcome = Dropped(DropReason::MidFlowUnknown);

#[test]
fn where_the_opener_is_known_its_direction_is_judged() {
    let (inwards, outwards) = (tcp(CLIENT, WEB, "A"), tcp(WEB, CLIENT, "A"));
    let policies = [isolate(&["Ingress", "Egress"]), ingress("10.0.1.0/24", "TCP 80")];
    for first_is_reply in [false, true] {
        let mut world = World::under(&policies);
        world.remember_origin(Ingress, &inwards);
        if first_is_reply {
            assert_eq!(world.leaves(&outwards), Forwarded);
        }
        assert_eq!(world.enters(&inwards), Forwarded);
        assert_eq!(world.leaves(&outwards), Forwarded);
        assert_eq!(world.entry(Ingress, &inwards).unwrap().flags, 0);
        assert_eq!(world.entry(Egress, &outwards).unwrap().flags, CACHE_REPLY);
        world.assert_cache_agrees();

        let mut world = World::under(&policies);
        world.remember_origin(Egress, &outwards);
        let denied = Dropped(DropReason::PolicyDenied);
        assert_eq!(world.enters(&inwards), denied, "x/web opened it, and may not");
        assert_eq!(world.leaves(&outwards), denied);
        assert!(world.denials().is_empty(), "neither is an opener");
        assert_eq!(world.entries(), 0);
    }
}

#[test]
fn where_the_kernel_tracks_it_its_word_counts_unless_the_opener_is_known() {
    let (inwards, outwards) = (tcp(CLIENT, WEB, "A"), tcp(WEB, CLIENT, "A"));
    let policies = [isolate(&["Ingress", "Egress"]), ingress("10.0.1.0/24", "TCP 80")];
    let denied = Dropped(DropReason::PolicyDenied);
    for (direction, frame, way, outcome) in [
        (Ingress, &inwards, TRUNK_ONWARD, Forwarded),
        (Egress, &outwards, TRUNK_BACK, Forwarded),
        (Ingress, &inwards, TRUNK_BACK, denied),
        (Egress, &outwards, TRUNK_ONWARD, denied),
        (Ingress, &inwards, 0, UNKNOWN),
        (Egress, &outwards, TRUNK_ONWARD | TRUNK_BACK, UNKNOWN),
    ] {
        let punted = |world: &mut World| {
            let mut sent = world.punt(super::world::WEB, direction, frame);
            sent[std::mem::offset_of!(TrunkHeader, flags)] |= way;
            world.received(sent)
        };
        let mut world = World::under(&policies);
        assert_eq!(punted(&mut world), outcome, "{direction} {way}");
        if outcome == Forwarded {
            assert_eq!(world.entry(Ingress, &inwards).unwrap().flags, 0);
            assert_eq!(world.entry(Egress, &outwards).unwrap().flags, CACHE_REPLY);
            world.assert_cache_agrees();
        }
        let mut world = World::under(&policies);
        world.remember_origin(Ingress, &inwards);
        assert_eq!(punted(&mut world), Forwarded, "{direction} {way}: the hook saw its opener");
    }
}

#[test]
fn where_the_opener_is_unknown_both_ways_must_be_allowed() {
    let (inwards, outwards) = (tcp(CLIENT, WEB, "A"), tcp(WEB, CLIENT, "A"));
    let both = ["Ingress", "Egress"];
    for (policies, allowed) in [
        (vec![isolate(&both)], false),
        (vec![isolate(&both), ingress("10.0.1.0/24", "TCP 80")], false),
        (vec![isolate(&both), egress("10.0.1.0/24", "any")], false),
        (vec![ingress("10.0.1.0/24", "TCP 80"), egress("10.0.1.0/24", "any")], true),
        (vec![ingress("10.0.1.0/24", "TCP 80"), egress("10.0.1.0/24", "TCP 80")], false),
        (vec![ingress("10.0.1.0/24", "TCP 80")], true),
        (vec![ingress("10.0.1.0/24", "TCP 81")], false),
    ] {
        for (direction, frame) in [(Ingress, &inwards), (Egress, &outwards)] {
            let mut world = World::under(&policies);
            let outcome = world.punted(super::world::WEB, direction, frame);
            assert_eq!(outcome, if allowed { Forwarded } else { UNKNOWN }, "{policies:?} {direction}");
            assert!(world.denials().is_empty(), "mid-flow packets leave no denial");
            if allowed {
                assert!(
                    [Ingress, Egress].iter().zip([&inwards, &outwards]).all(|(direction, frame)| world
                        .entry(*direction, frame)
                        .unwrap()
                        .flags
                        & CACHE_BOTH_WAYS
                        != 0)
                );
                world.assert_cache_agrees();
            }
        }
    }
}

#[test]
fn a_connection_picked_up_in_mid_flow_stays_allowed_only_both_ways() {
    let mut world = World::under(&[ingress("10.0.1.0/24", "TCP 80"), egress("10.0.1.0/24", "any")]);
    assert_eq!(world.leaves(&tcp(WEB, CLIENT, "A")), Forwarded);
    world.adopt(&[ingress("10.0.1.0/24", "TCP 80"), isolate(&["Egress"])]);
    assert_eq!(world.shared.counts()[3], 1, "cut");
    assert_eq!(world.enters(&tcp(CLIENT, WEB, "A")), Dropped(DropReason::PolicyDenied));
    world.assert_cache_agrees();
    // its opener comes again, and now all is known
    assert_eq!(world.enters(&tcp(CLIENT, WEB, "S")), Forwarded);
    assert_eq!(world.leaves(&tcp(WEB, CLIENT, "SA")), Forwarded);
    assert_eq!(world.entry(Ingress, &tcp(CLIENT, WEB, "S")).unwrap().flags & CACHE_BOTH_WAYS, 0);
}

#[test]
fn odd_flags_are_mid_flow_unless_they_open() {
    let mut world = World::under(&[isolate(&["Egress"]), ingress("10.0.1.0/24", "TCP 80")]);
    for flags in ["", "A", "F", "R", "FA", "RA", "SA"] {
        assert_eq!(world.enters(&tcp(CLIENT, WEB, flags)), UNKNOWN, "{flags:?}");
    }
    assert_eq!(world.enters(&tcp(CLIENT, WEB, "SF")), Forwarded, "judged as the opener that it is");
}
