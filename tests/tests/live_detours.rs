//! Ways round the hooks: translation by the node, hooks taken off and put back, a device renamed, many short connections.

use sluice_flow::Family;
use sluice_lab::{Agent, Lab, NetNs, agents, probe};
use sluice_tests::live::{Live, drops, pod, policy, turn};
use sluice_wire::{FromDataplane, ToDataplane};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

const QUICK: Duration = Duration::from_millis(500);

/// a may reach b and nobody else; d takes everything.
fn cluster() -> String {
    let a = policy(
        "x/a",
        "{podSelector: {matchLabels: {app: a}}, policyTypes: [Ingress, Egress], egress: [{to: [{podSelector: {matchLabels: {app: b}}}]}]}",
    );
    let b = "---\napiVersion: v1\nkind: Service\nmetadata: {name: b, namespace: x}\nspec: {selector: {app: b}, ports: [{port: 80}]}\n";
    ["x/a", "x/b", "x/d"].map(pod).concat() + b + &a
}

fn reaches(lab: &Lab, from: &str, to: SocketAddr) -> bool {
    lab.in_pod(from, || Ok(probe::tcp(to, QUICK).outcome.reached())).unwrap()
}

fn at(lab: &Lab, pod: &str) -> SocketAddr {
    SocketAddr::new(lab.pod_address(pod, Family::V4).unwrap(), 80)
}

fn in_node(node: &NetNs, command: &[&str]) {
    let output = Command::new("ip").args(["netns", "exec", node.name()]).args(command).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_the_node_translates_does_not_get_round_the_pods_policy() {
    let Some(turn) = turn("live_detours translation") else { return };
    let live = Live::up(turn, "nat", &cluster(), |_| {});
    let (node, d) = (live.node(), at(&live, "x/d"));
    assert!(!reaches(&live, "x/a", d) && reaches(&live, "x/b", d), "as the policy says");
    // a port of the node leads to d, one to b, and one to a server beyond a device that comes now
    in_node(&node, &["nft", "add table ip nodeport; add chain ip nodeport pre { type nat hook prerouting priority -100; }"]);
    in_node(&node, &["nft", &format!("add rule ip nodeport pre tcp dport 30080 dnat to {d}")]);
    in_node(&node, &["nft", &format!("add rule ip nodeport pre tcp dport 30082 dnat to {}", at(&live, "x/b"))]);
    in_node(&node, &["nft", "add rule ip nodeport pre tcp dport 30081 dnat to 192.0.2.2:80"]);
    in_node(&node, &["ip", "link", "add", "beyond", "type", "veth", "peer", "name", "farther"]);
    in_node(&node, &["ip", "link", "set", "farther", "up"]);
    in_node(&node, &["ip", "addr", "add", "192.0.2.1/24", "dev", "beyond"]);
    in_node(&node, &["ip", "neigh", "add", "192.0.2.2", "lladdr", "02:00:00:00:00:99", "dev", "beyond", "nud", "permanent"]);
    in_node(&node, &["ip", "link", "set", "beyond", "up"]);
    let gateway = |port| SocketAddr::new("10.88.0.1".parse().unwrap(), port);
    assert!(reaches(&live, "x/b", gateway(30080)), "who is not isolated goes through the node's port");
    assert!(reaches(&live, "x/a", gateway(30082)), "a through the node's port to b");
    assert!(!reaches(&live, "x/a", gateway(30080)), "a through the node's port to d");
    let denied = drops(live.layout(), "policy_denied");
    assert!(!reaches(&live, "x/a", gateway(30081)), "and to a place outside");
    assert!(drops(live.layout(), "policy_denied") > denied, "stopped at the device that leads there");
    live.down();
}

#[test]
fn hooks_come_back_whole_after_they_were_taken_off_and_after_a_device_was_renamed() {
    let Some(turn) = turn("live_detours hooks") else { return };
    let live = Live::up(turn, "hooks", &cluster(), |_| {});
    let d = at(&live, "x/d");
    let enforce = |on| match agents::ask_dataplane(live.layout(), &ToDataplane::Enforce { on }).unwrap() {
        FromDataplane::Done => {}
        other => panic!("{other:?}"),
    };
    let service = SocketAddr::new(live.service("x/b").unwrap().address(Family::V4).unwrap(), 80);
    assert!(reaches(&live, "x/a", service));
    enforce(false);
    assert!(reaches(&live, "x/a", service), "services too");
    assert!(reaches(&live, "x/a", d) && !agents::dataplane_status(live.layout()).unwrap().enforcing);
    for _ in 0..2 {
        enforce(true);
        assert!(!reaches(&live, "x/a", d) && agents::dataplane_status(live.layout()).unwrap().enforcing);
        assert!(reaches(&live, "x/a", service));
    }
    let ports = agents::ports(live.layout()).unwrap();
    let device = &ports.iter().find(|port| port.endpoint.pod.name == "a").unwrap().host_ifname;
    assert!(live.kill_agent(Agent::Dataplane).unwrap());
    in_node(&live.node(), &["ip", "link", "set", device, "name", "renamed0"]);
    live.start_agent(Agent::Dataplane).unwrap();
    assert!(!reaches(&live, "x/a", d), "the device is the same under another name");
    assert!(reaches(&live, "x/a", at(&live, "x/b")));
    live.down();
}

#[test]
fn short_connections_do_not_fill_a_pods_room() {
    let Some(turn) = turn("live_detours room") else { return };
    let live = Live::up(turn, "room", &cluster(), |_| {});
    let service = SocketAddr::new(live.service("x/b").unwrap().address(Family::V4).unwrap(), 80);
    let room = sluice_flow::limits::CONNECTIONS_PER_PORT_MAX;
    // by a service each takes two places
    for (to, count) in [(at(&live, "x/b"), room + 500), (service, room / 2 + 500)] {
        let open = |_: &usize| TcpStream::connect_timeout(&to, Duration::from_secs(3)).is_ok();
        let opened = live.in_pod("x/a", || Ok((0..count).filter(open).count())).unwrap();
        println!("{opened} connections to {to} opened and closed, room for {room}");
        assert_eq!((opened, drops(live.layout(), "connections_full")), (count, 0));
    }
    live.down();
}
