//! The node in memory keeps the hooks' promises: it is the ground that cases and simulation stand on.

use sluice_flow::{Addr, DropReason, Incarnation, LocalEndpoint, ObjectName, PortIndex};
use sluice_policy::{Snapshot, compile, load::load_str};
use sluice_table::Table;
use sluice_tests::live::frames::{self, Link};
use sluice_tests::node::{Fate, GATEWAY_MAC, Hook, Node, NodeConfig, Offered, Origin, Route};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

const WEB: PortIndex = PortIndex(0);
const CLIENT: PortIndex = PortIndex(1);
const SECOND_NS: u64 = 1_000_000_000;

const CLUSTER: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: x}
---
apiVersion: v1
kind: Pod
metadata: {namespace: x, name: web, labels: {app: web}}
spec: {containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}
---
apiVersion: v1
kind: Pod
metadata: {namespace: x, name: client, labels: {app: client}}
spec: {containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.0.0.2, podIPs: [{ip: 10.0.0.2}, {ip: "fd00::2"}]}
"#;

/// Only x/client reaches x/web, on TCP 80.
const POLICY: &str = r#"
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: x, name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: 80}]}]
"#;

struct World {
    node: Node,
    snapshot: Snapshot,
    now_ns: u64,
    generation: u64,
}

fn mac(port: PortIndex) -> [u8; 6] {
    [2, 0, 0, 0, 1, port.0 as u8]
}

fn ip(port: PortIndex) -> IpAddr {
    IpAddr::from([10, 0, 0, port.0 as u8 + 1])
}

fn link(port: PortIndex) -> Link {
    Link { pod: mac(port), gateway: GATEWAY_MAC }
}

impl World {
    fn new(config: NodeConfig, yaml: &str) -> Self {
        let mut snapshot = load_str("cluster.yaml", yaml).snapshot;
        let mut node = Node::new(config);
        for (port, name) in [(WEB, "web"), (CLIENT, "client")] {
            let v6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, port.0 + 1);
            let addresses = vec![ip(port), v6.into()];
            let endpoint =
                LocalEndpoint { port, incarnation: Incarnation(1), pod: ObjectName::new("x", name), uid: String::new(), addresses };
            node.add_port(&endpoint, mac(port));
            snapshot.endpoints.push(endpoint);
        }
        let mut world = Self { node, snapshot, now_ns: 1000 * SECOND_NS, generation: 0 };
        world.adopt();
        world
    }

    fn under(policies: &str) -> Self {
        Self::new(NodeConfig::default(), &format!("{CLUSTER}{policies}"))
    }

    fn adopt(&mut self) {
        self.generation += 1;
        let image = compile(&self.snapshot, self.generation).unwrap();
        self.node.adopt(Arc::new(Table::from_bytes(&image).unwrap()), self.now_ns);
    }

    /// Whether the packet arrived where it was sent, or why not.
    fn carry(&mut self, from: PortIndex, frame: &[u8]) -> Result<Route, DropReason> {
        let journey = self.node.carry(from, frame, self.now_ns);
        self.node.assert_sound();
        match (journey.left, journey.departed) {
            (Fate::Dropped(reason), _) | (_, Some(Fate::Dropped(reason))) => Err(reason),
            _ => Ok(journey.route.expect("it left")),
        }
    }
}

fn syn(from: PortIndex, to: PortIndex, ports: (u16, u16)) -> Vec<u8> {
    frames::syn(link(from), (ip(from), ports.0), (ip(to), ports.1), 1)
}

fn ack(from: PortIndex, to: PortIndex, ports: (u16, u16)) -> Vec<u8> {
    frames::ack(link(from), (ip(from), ports.0), (ip(to), ports.1))
}

#[test]
fn a_connection_is_asked_about_once_and_its_answers_never() {
    let mut world = World::under(POLICY);
    assert_eq!(world.carry(CLIENT, &syn(CLIENT, WEB, (4000, 80))), Ok(Route::Pod(WEB)));
    world.node.stop_worker(0);
    assert_eq!(world.carry(WEB, &ack(WEB, CLIENT, (80, 4000))), Ok(Route::Pod(CLIENT)), "by the cache");
    assert_eq!(world.carry(CLIENT, &ack(CLIENT, WEB, (4000, 80))), Ok(Route::Pod(WEB)), "by the cache");
    assert_eq!(world.carry(WEB, &syn(WEB, CLIENT, (80, 4000))), Err(DropReason::NoWorker), "an answer's entry opens nothing");
    assert_eq!(world.carry(CLIENT, &syn(CLIENT, WEB, (4001, 80))), Ok(Route::Pod(WEB)), "by what was said of the one before");
    assert_eq!(world.carry(CLIENT, &syn(CLIENT, WEB, (4001, 81))), Err(DropReason::NoWorker));
    world.node.restart_worker(0, world.now_ns);
    assert_eq!(world.carry(WEB, &syn(WEB, CLIENT, (80, 4000))), Err(DropReason::PolicyDenied));
    assert_eq!(world.carry(CLIENT, &syn(CLIENT, WEB, (4001, 81))), Err(DropReason::PolicyDenied));
    assert_eq!(world.carry(CLIENT, &syn(CLIENT, WEB, (4002, 81))), Err(DropReason::PolicyDenied), "by the denial");
    assert_eq!(world.node.waiting(), 0);
}

#[test]
fn without_a_policy_nobody_is_asked_and_openers_are_remembered() {
    let mut world = World::under("");
    world.node.stop_worker(0);
    assert_eq!(world.carry(CLIENT, &syn(CLIENT, WEB, (4000, 80))), Ok(Route::Pod(WEB)));
    assert_eq!(world.carry(WEB, &ack(WEB, CLIENT, (80, 4000))), Ok(Route::Pod(CLIENT)));
    world.node.restart_worker(0, world.now_ns);
    world.snapshot.policies = load_str("policy.yaml", &format!("{CLUSTER}{POLICY}")).snapshot.policies;
    world.adopt();
    assert_eq!(world.carry(WEB, &ack(WEB, CLIENT, (80, 4000))), Ok(Route::Pod(CLIENT)), "an answer of what the client opened");
    assert_eq!(world.carry(WEB, &ack(WEB, CLIENT, (80, 4001))), Err(DropReason::MidFlowUnknown));
}

#[test]
fn nobody_speaks_in_anothers_name() {
    let mut world = World::under(POLICY);
    let other = Link { pod: mac(WEB), gateway: GATEWAY_MAC };
    let (v6, gateway) = (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2), Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
    let forged = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    for (frame, reason) in [
        (frames::udp(other, (ip(CLIENT), 1), (ip(WEB), 80), b""), DropReason::SpoofedMac),
        (frames::udp(link(CLIENT), (ip(WEB), 1), (ip(CLIENT), 80), b""), DropReason::SpoofedAddress),
        (frames::udp(link(CLIENT), (ip(CLIENT), 1), ([224, 0, 0, 1].into(), 80), b""), DropReason::Multicast),
        (frames::arp_claim(link(CLIENT), mac(CLIENT), [10, 0, 0, 1].into(), true), DropReason::SpoofedArp),
        (frames::arp_claim(link(CLIENT), mac(WEB), [10, 0, 0, 2].into(), true), DropReason::SpoofedArp),
        (frames::neighbour_claim(link(CLIENT), v6, gateway, forged, mac(CLIENT)), DropReason::SpoofedNeighbour),
        (frames::neighbour_claim(link(CLIENT), v6, gateway, v6, mac(WEB)), DropReason::SpoofedNeighbour),
        (frames::router_advertisement(link(CLIENT)), DropReason::RogueRouter),
        (vec![0; 10], DropReason::Malformed),
    ] {
        assert_eq!(world.node.leaves(CLIENT, &frame, world.now_ns), Fate::Dropped(reason));
    }
    let honest = frames::neighbour_claim(link(CLIENT), v6, gateway, v6, mac(CLIENT));
    assert_eq!(world.node.leaves(CLIENT, &honest, world.now_ns), Fate::Passed(honest.clone()));
    let stray = frames::udp(link(CLIENT), (ip(CLIENT), 1), ([10, 9, 9, 9].into(), 80), b"");
    assert_eq!(world.node.enters(WEB, &stray, Origin::Uplink, world.now_ns), Fate::Dropped(DropReason::WrongDestination));
    world.node.assert_sound();
}

#[test]
fn a_pod_and_its_node_always_reach_each_other_and_nothing_behind_its_addresses() {
    let mut world = World::under(POLICY);
    let node = IpAddr::from([192, 168, 0, 1]);
    world.node.set_node_addresses(&[Addr::from(node)], world.now_ns);
    let probe = frames::syn(link(WEB), (node, 5000), (ip(WEB), 9999), 1);
    assert!(matches!(world.node.enters(WEB, &probe, Origin::Node, world.now_ns), Fate::Passed(_)));
    let to_node = frames::syn(link(WEB), (ip(WEB), 4000), (node, 10250), 1);
    assert_eq!(world.carry(WEB, &to_node), Ok(Route::Node));
    assert!(matches!(world.node.leaves(WEB, &to_node, world.now_ns), Fate::Deferred(_)));
    world.node.assert_sound();
}

#[test]
fn what_left_deferred_is_judged_where_it_departs() {
    let client = "
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: x, name: client}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}, {port: 82}]}]
";
    let mut world = World::under(&format!("{POLICY}{client}"));
    let node = IpAddr::from([192, 168, 0, 1]);
    world.node.set_node_addresses(&[Addr::from(node)], world.now_ns);
    let mut depart = |from: PortIndex, to: (PortIndex, u16), sport: u16| {
        let nodeport = frames::syn(link(from), (ip(from), sport), (node, 30080), 1);
        assert!(matches!(world.node.leaves(from, &nodeport, world.now_ns), Fate::Deferred(_)));
        let origin = Origin::Pod { port: from, deferred: true };
        let translated = frames::syn(link(from), (ip(from), sport), (ip(to.0), to.1), 1);
        let entered = world.node.enters(to.0, &translated, origin, world.now_ns);
        // the verdict is cached
        assert_eq!(std::mem::discriminant(&world.node.enters(to.0, &translated, origin, world.now_ns)), std::mem::discriminant(&entered));
        world.node.assert_sound();
        entered
    };
    assert!(matches!(depart(CLIENT, (WEB, 80), 4000), Fate::Passed(_)), "both halves allow it");
    assert_eq!(depart(CLIENT, (WEB, 81), 4001), Fate::Dropped(DropReason::PolicyDenied), "CLIENT may not leave for it");
    assert_eq!(depart(CLIENT, (WEB, 82), 4003), Fate::Dropped(DropReason::PolicyDenied), "it may not enter WEB");
    assert_eq!(depart(WEB, (CLIENT, 80), 4002), Fate::Dropped(DropReason::PolicyDenied));
    let away = frames::syn(link(WEB), (ip(WEB), 4000), ([10, 9, 9, 9].into(), 80), 1);
    let origin = Origin::Pod { port: WEB, deferred: true };
    assert_eq!(world.node.exits(&away, origin, world.now_ns), Fate::Dropped(DropReason::PolicyDenied));
    assert_eq!(world.node.exits(&away, Origin::Uplink, world.now_ns), Fate::Passed(away), "what no pod deferred is not asked about");
    let to_nobody = frames::syn(link(WEB), (ip(WEB), 4001), ([10, 9, 9, 9].into(), 80), 1);
    let nobody = Origin::Pod { port: PortIndex(77), deferred: true };
    assert_eq!(world.node.exits(&to_nobody, nobody, world.now_ns), Fate::Dropped(DropReason::ExitUnjudged));
    world.node.assert_sound();
}

#[test]
fn a_port_is_closed_before_its_table_and_gone_after_its_removal() {
    let mut world = World::under(POLICY);
    assert!(world.carry(CLIENT, &syn(CLIENT, WEB, (4000, 80))).is_ok());
    let mut endpoint = world.snapshot.endpoints[0].clone();
    world.node.remove_port(WEB);
    let answer = ack(WEB, CLIENT, (80, 4000));
    assert_eq!(world.node.leaves(WEB, &answer, world.now_ns), Fate::Dropped(DropReason::NoPort));
    endpoint.incarnation = Incarnation(2);
    world.node.add_port(&endpoint, mac(WEB));
    assert_eq!(world.node.leaves(WEB, &answer, world.now_ns), Fate::Dropped(DropReason::PortClosed));
    world.snapshot.endpoints[0] = endpoint;
    world.adopt();
    assert_eq!(world.carry(WEB, &answer), Err(DropReason::MidFlowUnknown), "nothing of the old pod's is the new one's");
}

#[test]
fn a_late_worker_answers_with_the_table_it_has_then() {
    let mut world = World::new(NodeConfig { receive_max: 2, ..NodeConfig::default() }, &format!("{CLUSTER}{POLICY}"));
    let origin = Origin::Pod { port: CLIENT, deferred: false };
    let mut offer = |sport: u16| world.node.offer(Hook::Entering(WEB), &syn(CLIENT, WEB, (sport, 80)), origin, world.now_ns);
    let (first, second) = (offer(1), offer(2));
    assert_eq!(offer(3), Offered::Done(Fate::Dropped(DropReason::WorkerOverrun)));
    world.node.assert_sound();
    world.snapshot.policies.clear();
    world.generation += 1;
    let image = compile(&world.snapshot, world.generation).unwrap();
    world.node.hand_over(Arc::new(Table::from_bytes(&image).unwrap()));
    world.node.set_transmit_max(0, 1);
    let fates = world.node.serve(0, world.now_ns);
    assert_eq!(fates.len(), 2);
    assert_eq!(first, Offered::Asked(fates[0].0, 0));
    assert!(matches!(fates[0].1, Offered::Done(Fate::Passed(_))));
    assert_eq!((second, &fates[1].1), (Offered::Asked(fates[1].0, 0), &Offered::Done(Fate::Dropped(DropReason::TransmitFull))));
    world.node.assert_sound();
}

#[test]
fn what_waits_when_a_worker_dies_is_lost_and_counted() {
    let mut world = World::under(POLICY);
    let origin = Origin::Pod { port: CLIENT, deferred: false };
    let offered = world.node.offer(Hook::Entering(WEB), &syn(CLIENT, WEB, (1, 80)), origin, world.now_ns);
    let lost = world.node.restart_worker(0, world.now_ns);
    assert_eq!(lost.into_iter().map(|ticket| Offered::Asked(ticket, 0)).collect::<Vec<_>>(), [offered]);
    assert_eq!(world.node.accounts().lost, 1);
    world.node.assert_sound();
}

/// The checks can fail: each kind of damage is found.
#[test]
fn damage_is_found() {
    let damage: [fn(&mut Node); 3] = [
        |node| node.kernel().cache.borrow_mut().values_mut().for_each(|entry| entry.flags ^= 1),
        |node| node.kernel().cache.borrow_mut().values_mut().for_each(|entry| entry.verdict = 3),
        |node| node.command(0, sluice_dataplane::worker::Command::ForgetPort(WEB)),
    ];
    for (index, damage) in damage.into_iter().enumerate() {
        let mut world = World::under(POLICY);
        assert!(world.carry(CLIENT, &syn(CLIENT, WEB, (4000, 80))).is_ok());
        let kept = world.node.kernel().cache.borrow().clone();
        damage(&mut world.node);
        world.node.run_commands(world.now_ns);
        if world.node.kernel().cache.borrow().is_empty() {
            *world.node.kernel().cache.borrow_mut() = kept;
        }
        assert!(world.node.check_cache().is_err(), "{index}");
    }
    let world = World::under(POLICY);
    world.node.kernel().counters.borrow_mut()[DropReason::PolicyDenied as usize] += 1;
    assert!(world.node.check_accounts().is_err());
}

/// A port's share: so many new flows at once, then one at a time; what is established is not counted, nor is another port.
#[test]
fn new_flows_are_rationed_by_port() {
    let mut world = World::under(POLICY);
    // a hundred in a tenth of a second
    world.node.kernel().new_flow_ns.set(1_000_000);
    let opens = |world: &mut World, sport: u16| world.carry(CLIENT, &syn(CLIENT, WEB, (sport, 80)));
    for sport in 1..=101 {
        assert!(opens(&mut world, sport).is_ok(), "{sport}");
    }
    assert_eq!(opens(&mut world, 102), Err(DropReason::Rationed));
    assert!(world.carry(CLIENT, &ack(CLIENT, WEB, (1, 80))).is_ok(), "established");
    assert!(world.carry(WEB, &ack(WEB, CLIENT, (80, 1))).is_ok(), "its answers");
    assert_eq!(world.carry(WEB, &syn(WEB, CLIENT, (80, 1))), Err(DropReason::Rationed), "an opener, though there is an answer's entry");
    world.now_ns += 2_000_000;
    assert!(opens(&mut world, 103).is_ok() && opens(&mut world, 104).is_ok());
    assert_eq!(opens(&mut world, 105), Err(DropReason::Rationed));
    world.now_ns += SECOND_NS;
    for sport in 200..=300 {
        assert!(opens(&mut world, sport).is_ok(), "{sport}: no more than a tenth of a second is saved up");
    }
    assert_eq!(opens(&mut world, 301), Err(DropReason::Rationed));
    world.node.assert_sound();
}
