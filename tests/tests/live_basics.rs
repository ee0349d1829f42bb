//! What is neither TCP nor UDP, and what is always allowed: ping under policy, ARP and neighbour discovery, and the node's
//! own traffic to and from a pod that nobody else may reach.

use sluice_flow::Family;
use sluice_lab::{NetNs, probe};
use sluice_tests::live::frames::ip_json;
use sluice_tests::live::{Live, pod, policy, turn};
use sluice_tests::traffic::wildcard;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::time::Duration;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const QUICK: Duration = Duration::from_millis(500);

/// shut is isolated both ways and allowed nothing; b takes everything from a and TCP alone from c.
fn cluster() -> String {
    let shut = policy("x/shut", "{podSelector: {matchLabels: {app: shut}}, policyTypes: [Ingress, Egress]}");
    let b = policy(
        "x/b",
        "{podSelector: {matchLabels: {app: b}}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}]}, \
         {from: [{podSelector: {matchLabels: {app: c}}}], ports: [{port: 80}]}]}",
    );
    ["x/a", "x/b", "x/c", "x/shut"].map(pod).concat() + &shut + &b
}

/// One echo request, one second of patience.
fn pings(netns: &NetNs, to: IpAddr) -> bool {
    let (netns, to) = (netns.name(), to.to_string());
    let output = Command::new("ip").args(["netns", "exec", netns, "ping", "-n", "-c1", "-W1", &to]).output().unwrap();
    output.status.success()
}

#[test]
fn ping_is_judged_by_rules_without_ports() {
    let Some(turn) = turn("live_basics ping") else { return };
    let live = Live::up(turn, "ping", &cluster(), |_| {});
    for family in FAMILIES {
        for (from, to, allowed) in [
            ("x/a", "x/b", true),  // a rule without ports
            ("x/c", "x/b", false), // a rule with ports is about those ports
            ("x/b", "x/a", true),  // neither is isolated that way
            ("x/a", "x/shut", false),
            ("x/shut", "x/a", false),
        ] {
            let reached = pings(&live.pod_netns(from), live.pod_address(to, family).unwrap());
            assert_eq!(reached, allowed, "{family:?}: ping {from} -> {to}");
        }
        let b = SocketAddr::new(live.pod_address("x/b", family).unwrap(), 80);
        assert!(live.in_pod("x/c", || Ok(probe::tcp(b, QUICK).outcome.reached())).unwrap(), "{family:?}: c to b on its port");
    }
    live.down();
}

#[test]
fn the_node_reaches_its_pods_and_they_reach_it_whatever_the_policy() {
    let Some(turn) = turn("live_basics node") else { return };
    let live = Live::up(turn, "node", &cluster(), |_| {});
    let gateways: [IpAddr; 2] = ["10.88.0.1".parse().unwrap(), "fd88::1".parse().unwrap()];
    for (family, gateway) in FAMILIES.into_iter().zip(gateways) {
        let shut = live.pod_address("x/shut", family).unwrap();
        // as a kubelet probes
        for probe in [probe::tcp, probe::udp] {
            let outcome = live.node().run(|| Ok(probe(SocketAddr::new(shut, 80), QUICK).outcome)).unwrap();
            assert!(outcome.reached(), "{family:?}: the node to a pod under deny-all: {outcome}");
        }
        assert!(pings(&live.node(), shut), "{family:?}: the node pings the pod");
        // and the pod its node
        let listener = live.node().run(|| Ok(TcpListener::bind((wildcard(gateway), 7000))?)).unwrap();
        let answerer = live.node().run(|| Ok(UdpSocket::bind((wildcard(gateway), 7000))?)).unwrap();
        let serving = std::thread::spawn(move || {
            drop(listener.accept().unwrap());
            let mut buffer = [0; 2048];
            let (bytes, from) = answerer.recv_from(&mut buffer).unwrap();
            answerer.send_to(&buffer[..bytes], from).unwrap();
        });
        for probe in [probe::tcp, probe::udp] {
            let outcome = live.in_pod("x/shut", || Ok(probe(SocketAddr::new(gateway, 7000), QUICK).outcome)).unwrap();
            assert!(outcome.reached(), "{family:?}: a pod under deny-all to its node: {outcome}");
        }
        serving.join().unwrap();
        assert!(pings(&live.pod_netns("x/shut"), gateway), "{family:?}: the pod pings its node");
        // which opens no way to anybody else
        let b = live.pod_address("x/b", family).unwrap();
        assert!(!live.in_pod("x/shut", || Ok(probe::tcp(SocketAddr::new(b, 80), QUICK).outcome.reached())).unwrap(), "{family:?}");
    }
    live.down();
}

#[test]
fn neighbours_are_found_again_after_they_were_forgotten() {
    let Some(turn) = turn("live_basics neighbours") else { return };
    let live = Live::up(turn, "arpnd", &cluster(), |_| {});
    for family in FAMILIES {
        let b = SocketAddr::new(live.pod_address("x/b", family).unwrap(), 80);
        for round in 0..3 {
            for netns in [live.node(), live.pod_netns("x/a"), live.pod_netns("x/b")] {
                ip_json(&netns, &["neigh", "flush", "all"]).unwrap();
            }
            let outcome = live.in_pod("x/a", || Ok(probe::tcp(b, QUICK).outcome)).unwrap();
            assert!(outcome.reached(), "{family:?} round {round}: {outcome}");
        }
        // a pod under deny-all too must find its gateway
        ip_json(&live.pod_netns("x/shut"), &["neigh", "flush", "all"]).unwrap();
        let shut = live.pod_address("x/shut", family).unwrap();
        assert!(live.node().run(|| Ok(probe::tcp(SocketAddr::new(shut, 80), QUICK).outcome.reached())).unwrap(), "{family:?}");
    }
    live.down();
}
