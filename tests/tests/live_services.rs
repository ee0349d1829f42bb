//! Services on live traffic: translated by the kernel as kube-proxy has it programmed, judged on what they become.

use sluice_flow::Family;
use sluice_lab::{ClusterConfig, Lab, NetNs, Paths, probe};
use sluice_tests::live::node::in_node;
use sluice_tests::live::{Live, drops, pod, pod_on, policy, turn};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
/// Below the first repetition of a SYN.
const QUICK: Duration = Duration::from_millis(600);
const PORT: u16 = 8080;
/// The API server's addresses: somebody outside of the cluster.
const OUTSIDE: [&str; 2] = ["172.30.0.1", "fd30::1"];

/// A service of one pod, `app: NAME`, at port 8080 over TCP and UDP, and on every node.
fn service(name: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{type: NodePort, selector: {{app: {name}}}, \
         ports: [{{name: t, port: {PORT}, targetPort: 80}}, {{name: u, port: {PORT}, targetPort: 80, protocol: UDP}}]}}\n"
    )
}

/// a leaves for b alone and takes nothing; b takes what comes from a alone; c and d are not isolated.
fn policies() -> String {
    let peer = |app: &str| format!("[{{podSelector: {{matchLabels: {{app: {app}}}}}}}]");
    let a = format!("{{podSelector: {{matchLabels: {{app: a}}}}, policyTypes: [Ingress, Egress], egress: [{{to: {}}}]}}", peer("b"));
    let b = format!("{{podSelector: {{matchLabels: {{app: b}}}}, ingress: [{{from: {}}}]}}", peer("a"));
    policy("x/a", &a) + &policy("x/b", &b)
}

fn cluster() -> String {
    let services = ["x/a", "x/b", "x/d"].map(service).concat();
    ["x/a", "x/b", "x/c", "x/d"].map(pod).concat() + &services + &policies()
}

/// Over TCP and UDP, which must agree.
fn reaches(lab: &Lab, from: &str, to: [SocketAddr; 2]) -> bool {
    lab.in_pod(from, || Ok(reached(to))).unwrap_or_else(|error| panic!("{from} to {to:?}: {error}"))
}

fn reached(to: [SocketAddr; 2]) -> bool {
    let (tcp, udp) = std::thread::scope(|scope| {
        // a thread begins in its maker's network namespace
        let udp = scope.spawn(|| probe::udp(to[1], QUICK).outcome.reached());
        (probe::tcp(to[0], QUICK).outcome.reached(), udp.join().unwrap())
    });
    assert_eq!(tcp, udp, "TCP and UDP differ to {to:?}");
    tcp
}

fn by_address(lab: &Lab, service: &str, family: Family) -> [SocketAddr; 2] {
    [SocketAddr::new(lab.service(service).unwrap().address(family).unwrap(), PORT); 2]
}

fn by_node(lab: &Lab, service: &str, node: IpAddr) -> [SocketAddr; 2] {
    let ports = lab.service(service).unwrap().node_ports;
    [0, 1].map(|index| SocketAddr::new(node, ports[index]))
}

#[test]
fn services_are_judged_on_what_stands_behind_them() {
    let Some(turn) = turn("live_services one node") else { return };
    let live = Live::up(turn, "svc", &cluster(), |_| {});
    for family in FAMILIES {
        let gateway: IpAddr = if family == Family::V4 { "10.88.0.1" } else { "fd88::1" }.parse().unwrap();
        for (from, to, expected, why) in [
            ("x/a", "x/b", true, "both halves allow it"),
            ("x/a", "x/d", false, "a may not leave for d, whom nobody isolates"),
            ("x/a", "x/a", true, "a pod reaches itself"),
            ("x/c", "x/b", false, "b takes what comes from a alone"),
            ("x/c", "x/d", true, "nobody is isolated"),
            ("x/c", "x/a", false, "a takes nothing"),
            ("x/d", "x/d", true, "itself, without policy"),
        ] {
            assert_eq!(reaches(&live, from, by_address(&live, to, family)), expected, "{family:?} {from} to service {to}: {why}");
            // by the node's port the source is masqueraded, and judged as it was before
            assert_eq!(reaches(&live, from, by_node(&live, to, gateway)), expected, "{family:?} {from} to node port of {to}: {why}");
        }
    }
    assert_eq!(drops(live.layout(), "exit_unjudged"), 0);
    assert!(drops(live.layout(), "policy_denied") > 0);
    let connections = sluice_lab::agents::connections(live.layout(), 1000).unwrap();
    let departed = connections.iter().filter(|connection| connection.departs).count();
    assert!(departed > 0, "{connections:?}");
    // somebody takes the marks away; and one's own translation of what is no service
    for command in [
        &["nft", "add table ip thief; add chain ip thief forward { type filter hook forward priority 0; }"][..],
        &["nft", "add rule ip thief forward meta mark set 0"],
    ] {
        in_node(&live, command);
    }
    let stolen = drops(live.layout(), "exit_unjudged");
    assert!(!reaches(&live, "x/a", by_address(&live, "x/b", Family::V4)), "a deferred packet without its mark");
    assert!(reaches(&live, "x/c", by_address(&live, "x/d", Family::V4)), "who is not isolated is not asked about");
    assert!(drops(live.layout(), "exit_unjudged") > stolen);
    in_node(&live, &["nft", "delete table ip thief"]);
    assert!(reaches(&live, "x/a", by_address(&live, "x/b", Family::V4)));
    let d = live.pod_address("x/d", Family::V4).unwrap();
    in_node(&live, &["nft", "add table ip detour; add chain ip detour pre { type nat hook prerouting priority -110; }"]);
    in_node(&live, &["nft", &format!("add rule ip detour pre ip daddr 192.0.2.77 dnat to {d}")]);
    live.apply_yaml(&policy(
        "x/a-more",
        "{podSelector: {matchLabels: {app: a}}, egress: [{to: [{ipBlock: {cidr: 192.0.2.0/24}}]}], policyTypes: [Egress]}",
    ))
    .unwrap();
    let translated = SocketAddr::new("192.0.2.77".parse().unwrap(), 80);
    assert!(!live.in_pod("x/a", || Ok(probe::tcp(translated, QUICK).outcome.reached())).unwrap(), "the block is not d");
    assert!(live.in_pod("x/c", || Ok(probe::tcp(translated, QUICK).outcome.reached())).unwrap());
    // a service whose backend is beyond a device without an exit hook: a tunnel without Ethernet header
    for command in [
        &["ip", "tuntap", "add", "plain", "mode", "tun"][..],
        &["ip", "address", "add", "192.0.3.1/24", "dev", "plain"],
        &["ip", "link", "set", "plain", "up"],
        &["nft", "add rule ip detour pre tcp dport 30099 dnat to 192.0.3.2:80"],
    ] {
        in_node(&live, command);
    }
    let beyond = SocketAddr::new("10.88.0.1".parse().unwrap(), 30099);
    assert!(!live.in_pod("x/a", || Ok(probe::tcp(beyond, QUICK).outcome.reached())).unwrap());
    assert!(drops(live.layout(), "exit_unjudged") > 0, "dropped by its name");
    live.down();
}

/// a and c on the first node, b and d on the second.
fn spread() -> String {
    let pods = [("node1", "x/a"), ("node2", "x/b"), ("node1", "x/c"), ("node2", "x/d")].map(|(node, name)| pod_on(node, name)).concat();
    pods + &["x/a", "x/b", "x/d"].map(service).concat() + &policies()
}

#[test]
fn across_nodes_by_routes() {
    across(Paths::Routed, "live_services routed");
}

#[test]
fn across_nodes_by_vxlan() {
    across(Paths::Vxlan, "live_services vxlan");
}

fn across(paths: Paths, stem: &'static str) {
    let Some(turn) = turn(stem) else { return };
    let change = |config: &mut sluice_lab::LabConfig| config.cluster = Some(ClusterConfig { paths, ..ClusterConfig::default() });
    let live = Live::up(turn, if paths == Paths::Vxlan { "svcv" } else { "svcr" }, &spread(), change);
    let exits = ["node1", "node2"].map(|node| live.at(node));
    for (index, family) in FAMILIES.into_iter().enumerate() {
        for (from, to, expected, why) in [
            ("x/a", "x/b", true, "both halves allow it"),
            ("x/a", "x/d", false, "a may not leave for d"),
            ("x/a", "x/a", true, "a pod reaches itself"),
            ("x/c", "x/b", false, "b takes what comes from a alone"),
            ("x/c", "x/d", true, "nobody is isolated"),
            ("x/d", "x/a", false, "a takes nothing"),
        ] {
            assert_eq!(reaches(&live, from, by_address(&live, to, family)), expected, "{family:?} {from} to service {to}: {why}");
        }
        // from outside through the node of the pod, whose own translation tells where it came from
        let outside = NetNs::named(live.layout().underlay_netns());
        let node2 = live.state().unwrap().node("node2").unwrap().addresses()[index];
        let comes_in = |to: &str| outside.run(|| Ok(reached(by_node(&live, to, node2)))).unwrap();
        assert!(comes_in("x/d") && !comes_in("x/b"), "{family:?}: d takes everything, b what comes from a alone");
        let block = format!("{}/{}", OUTSIDE[index], if family == Family::V4 { 32 } else { 128 });
        let open = format!("{{podSelector: {{matchLabels: {{app: b}}}}, ingress: [{{from: [{{ipBlock: {{cidr: \"{block}\"}}}}]}}]}}");
        live.apply_yaml(&policy("x/b-outside", &open)).unwrap();
        assert!(comes_in("x/b"), "{family:?}: by the address from which it came, not the node's");
    }
    for layout in exits {
        assert_eq!(drops(&layout, "exit_unjudged"), 0);
    }
    live.down();
}

/// A pod of the two behind one service, and that service with more of its `spec` and `status`.
fn shared(more: &str, status: &str) -> String {
    let pod = |name: &str| pod(name).replace(&format!("app: {}", &name[2..]), "app: many");
    let service = format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: many, namespace: x}}\nspec: {{type: NodePort, selector: {{app: many}}, {more} \
         ports: [{{port: {PORT}, targetPort: 80, protocol: UDP}}]}}\n{status}"
    );
    let a = "{podSelector: {matchLabels: {app: a}}, policyTypes: [Ingress, Egress], egress: [{to: [{podSelector: {matchLabels: {app: many}}}]}]}";
    ["x/e", "x/f"].map(pod).concat() + &self::pod("x/a") + &service + &policy("x/a", a)
}

#[test]
fn affinity_and_addresses_from_outside_are_services_too() {
    let Some(turn) = turn("live_services addresses") else { return };
    let balanced = "status: {loadBalancer: {ingress: [{ip: 192.0.2.201}]}}\n";
    let live = Live::up(turn, "svca", &shared("externalIPs: [192.0.2.200],", balanced), |_| {});
    // whom so many datagrams of a, each of a flow of its own, reach
    let answered = |to: IpAddr| -> std::collections::BTreeSet<String> {
        let said = |_| match probe::udp(SocketAddr::new(to, PORT), QUICK).outcome {
            sluice_lab::Outcome::Open { said } => said,
            other => panic!("{to}: {other}"),
        };
        live.in_pod("x/a", || Ok((0..24).map(said).collect())).unwrap()
    };
    let cluster = live.service("x/many").unwrap().address(Family::V4).unwrap();
    for to in [cluster, "192.0.2.200".parse().unwrap(), "192.0.2.201".parse().unwrap()] {
        assert_eq!(answered(to).len(), 2, "{to}: both serve");
    }
    live.apply_yaml(&shared("sessionAffinity: ClientIP,", "")).unwrap();
    assert_eq!(answered(cluster).len(), 1, "one serves this client");
    assert_eq!(drops(live.layout(), "exit_unjudged"), 0);
    live.down();
}
