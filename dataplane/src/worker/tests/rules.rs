//! What rules let through, and whom tables cut.

use super::frames::{tcp, udp};
use super::world::{Forwarded, WEB, World, egress, ingress, isolate};
use crate::worker::Command;
use sluice_flow::Direction;
use sluice_flow::Incarnation;

const CLIENT: &str = "10.0.1.1:4000";
const POD: &str = "10.0.0.1:80";

fn counts(world: &mut World) -> Vec<(String, u64, u64)> {
    world.advance(2);
    world.worker.run_commands(world.now_ns);
    world.shared.rules().into_iter().map(|(rule, counts)| (rule, counts.connections, counts.packets)).collect()
}

#[test]
fn counts_follow_the_rule_through_tables_and_end_with_no_connection() {
    let mut world = World::under(&[isolate(&["Ingress", "Egress"]), ingress("10.0.1.0/24", "TCP 80")]);
    let (opener, answer) = (tcp(CLIENT, POD, "S"), tcp(POD, CLIENT, "SA"));
    assert_eq!((world.enters(&opener), world.leaves(&answer)), (Forwarded, Forwarded));
    world.change_entry(Direction::Ingress, &opener, |value| value.packets += 40);
    assert_eq!(counts(&mut world), [], "it lives");
    // idle for too long
    world.advance(8000);
    let key = super::frames::flow(WEB, Direction::Ingress, &opener);
    let incarnation = Incarnation(world.port(WEB).incarnation);
    world.command(Command::Expire(vec![(key, incarnation)]));
    let first = counts(&mut world);
    assert!(matches!(&first[..], [(rule, 1, 42)] if rule.contains("x/p1")), "{first:?}");

    // by another table the rule has another number and the same name
    assert_eq!(world.enters(&opener), Forwarded);
    world.adopt(&[isolate(&["Ingress", "Egress"]), ingress("10.0.1.0/24", "TCP 80"), egress("10.0.9.9/32", "UDP 53")]);
    world.command(Command::ForgetPort(WEB));
    assert_eq!(counts(&mut world), [(first[0].0.clone(), 2, 43)]);
}

#[test]
fn what_replaces_a_connection_loses_none_of_its_packets() {
    let mut world = World::under(&[isolate(&["Ingress", "Egress"]), ingress("10.0.1.0/24", "TCP 80")]);
    let opener = tcp(CLIENT, POD, "S");
    assert_eq!(world.enters(&opener), Forwarded);
    world.change_entry(Direction::Ingress, &opener, |value| value.packets += 9);
    assert_eq!(world.enters(&opener), Forwarded, "again");
    world.command(Command::ForgetPort(WEB));
    let all = counts(&mut world);
    assert!(matches!(&all[..], [(_, 1, 11)]), "a SYN that is sent again is no other connection: {all:?}");
}

#[test]
fn a_table_lists_whom_it_cuts_and_by_which_rule_they_had_been() {
    let mut world = World::under(&[isolate(&["Ingress", "Egress"]), ingress("10.0.1.0/24", "TCP 80"), egress("10.0.9.9/32", "UDP 53")]);
    assert_eq!(world.enters(&tcp(CLIENT, POD, "S")), Forwarded);
    assert_eq!(world.leaves(&udp("10.0.0.1:4000", "10.0.9.9:53")), Forwarded);
    world.adopt(&[isolate(&["Ingress", "Egress"]), egress("10.0.9.9/32", "UDP 53")]);
    let cuts: Vec<_> = world.shared.take_cuts().collect();
    let [cut] = &cuts[..] else { panic!("{cuts:?}") };
    assert_eq!((cut.flow.sport, cut.flow.dport, cut.generation), (4000, 80, 2));
    assert!(cut.rule.as_ref().is_some_and(|rule| rule.contains("x/p1")), "{cut:?}");
    world.adopt(&[isolate(&["Ingress", "Egress"])]);
    assert_eq!(world.shared.take_cuts().count(), 1, "once each");
    world.adopt(&[isolate(&["Ingress"])]);
    assert_eq!(world.shared.take_cuts().count(), 0);
}
