//! Pods that ran before the dataplane did, under each choice, and devices that are no pods' left alone.

use serde_json::Value;
use sluice_flow::Family;
use sluice_lab::{Agent, Kind, Lab, NetNs, ObjectRef, agents, probe};
use sluice_tests::live::cni::Sandbox;
use sluice_tests::live::node::{
    NODE, QUICK, SOON, assert_enforced, at, choose, found, hooked, ifindex, in_node, pods_devices, reaches, sluicectl, start_both, states,
    uninstall, up,
};
use sluice_tests::live::{Live, drops, frames, knock, pod, turn, until};
use sluice_tests::traffic::{TcpPlan, TcpStreams, UdpFlows, UdpPlan, median_and_max, ms, now_ns};
use sluice_wire::FoundState;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Veths of the node that lead to no pod: a link to another machine with a subnet, a bridge's port with a route over it, and
/// a pair within the node. All three go to one namespace that the lab's removal finds.
fn add_other_veths(lab: &Lab) -> (NetNs, BTreeSet<u32>) {
    let other = NetNs::named(format!("{}x.other", lab.layout().netns_prefix()));
    other.create().unwrap();
    for (device, peer) in [("lablink", "up0"), ("brport", "up1")] {
        in_node(lab, &["ip", "link", "add", device, "type", "veth", "peer", "name", peer, "netns", other.name()]);
        in_node(lab, &["ip", "link", "set", device, "up"]);
        frames::ip_json(&other, &["link", "set", peer, "up"]).unwrap();
    }
    in_node(lab, &["ip", "addr", "add", "192.0.2.1/24", "dev", "lablink"]);
    in_node(lab, &["ip", "route", "add", "198.51.100.7/32", "dev", "lablink"]);
    frames::ip_json(&other, &["addr", "add", "192.0.2.2/24", "dev", "up0"]).unwrap();
    in_node(lab, &["ip", "link", "add", "br0", "type", "bridge"]);
    in_node(lab, &["ip", "link", "set", "br0", "up"]);
    in_node(lab, &["ip", "link", "set", "brport", "master", "br0"]);
    in_node(lab, &["ip", "route", "add", "198.51.100.8/32", "dev", "brport"]);
    in_node(lab, &["ip", "link", "add", "near0", "type", "veth", "peer", "name", "near1"]);
    in_node(lab, &["ip", "link", "set", "near0", "up"]);
    in_node(lab, &["ip", "route", "add", "198.51.100.9/32", "dev", "near0"]);
    let devices = ["lablink", "brport", "near0", "near1"].map(|device| ifindex(lab, device)).into();
    (other, devices)
}

fn assert_link_works(lab: &Lab, other: &NetNs) {
    let receiver = other.run(|| Ok(UdpSocket::bind("192.0.2.2:7000")?)).unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let sender = lab.node().run(|| Ok(UdpSocket::bind("192.0.2.1:0")?)).unwrap();
    sender.send_to(b"hello", "192.0.2.2:7000").unwrap();
    assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), 5, "the lab's own link");
}

#[test]
fn running_pods_are_closed_until_their_runtime_speaks_and_nothing_else_is_touched() {
    let Some(turn) = turn("live_existing close") else { return };
    let live = up(turn, "exc", "close");
    uninstall(&live);
    let (other, others) = add_other_veths(&live);
    let mut sandbox = Sandbox::create(&live, "late/newcomer").unwrap();
    sandbox.plug().unwrap();
    live.start_agent(Agent::Dataplane).unwrap();
    // in force when it serves, before control is there
    let devices = found(&live);
    let mut expected = pods_devices(&live);
    expected.insert(sandbox.result["interfaces"][0]["name"].as_str().unwrap().to_owned());
    assert_eq!(devices.iter().map(|device| device.host_ifname.clone()).collect::<BTreeSet<_>>(), expected);
    for device in &devices {
        assert_eq!((device.state, device.awaits_identity), (FoundState::Closed, false), "{device:?}");
        assert_eq!(device.addresses.len(), 2, "{device:?}");
    }
    let newcomer = devices.iter().find(|device| device.addresses == sandbox.addresses()).expect("found with its addresses");
    assert_eq!(newcomer.mac.as_deref(), sandbox.result["interfaces"][1]["mac"].as_str(), "the kernel's word");
    assert_eq!(hooked(&live), devices.iter().map(|device| device.host_ifindex).collect(), "and no other device");
    assert!(hooked(&live).is_disjoint(&others));
    live.start_agent(Agent::Control).unwrap();
    live.settle().unwrap();
    let before = drops(live.layout(), "no_port");
    for (from, to) in [("x/a", "x/b"), ("x/a", "x/c"), ("x/c", "x/b")] {
        assert!(!reaches(&live, from, to), "{from} to {to}");
    }
    let into = at(&live, "x/c", 80);
    assert!(!live.node().run(|| Ok(probe::tcp(into, QUICK).outcome.reached())).unwrap(), "not even the node gets in");
    assert!(drops(live.layout(), "no_port") > before, "counted under its name");
    assert_link_works(&live, &other);
    let status = sluicectl(&live, &["status"]);
    assert!(status.contains("CLOSED") && status.contains("5 running pods"), "{status}");
    let endpoints = sluicectl(&live, &["get", "endpoints"]);
    assert!(endpoints.contains("ran before it could be attached") && endpoints.contains(&newcomer.host_ifname), "{endpoints}");

    // the runtime speaks: a port like any other
    live.store().put(&sluice_lab::parse_documents(&pod("late/newcomer")).unwrap()[0]).unwrap();
    live.settle().unwrap();
    let answer = sandbox.sluice("ADD", 5000).unwrap();
    assert!(answer.ok, "{answer:?}");
    assert!(sandbox.sluice("CHECK", 1000).unwrap().ok);
    assert!(!states(&live).contains_key(&newcomer.host_ifname), "a port now");
    let ports = agents::ports(live.layout()).unwrap();
    assert_eq!(ports.iter().map(|port| port.endpoint.pod.to_string()).collect::<Vec<_>>(), ["late/newcomer"]);
    assert_eq!(ports[0].network, "sluice-lab");
    // GC of another network does not know it; GC of its own, which lists it, keeps it; one that does not, frees it
    let gc = |network: &str, valid: Value| {
        let mut config = sandbox.config(1000);
        config["cniVersion"] = "1.1.0".into();
        config["name"] = network.into();
        config["cni.dev/valid-attachments"] = valid;
        let answer = sandbox.sluice_with("GC", &config.to_string(), &[]).unwrap();
        assert!(answer.ok, "{answer:?}");
        agents::ports(live.layout()).unwrap().len()
    };
    let own = serde_json::json!([{ "containerID": ports[0].container_id, "ifname": "eth0" }]);
    assert_eq!((gc("storage", serde_json::json!([])), gc("sluice-lab", own)), (1, 1));
    assert_eq!(gc("sluice-lab", serde_json::json!([])), 0);
    let reason = found(&live).into_iter().find(|device| device.host_ifindex == newcomer.host_ifindex).map(|device| device.reason);
    assert!(reason.is_some_and(|reason| reason.contains("DEL")), "closed as long as it lives");
    sandbox.unplug().unwrap();
    until("its device is gone", SOON, || !states(&live).contains_key(&newcomer.host_ifname));

    // off is off for them too, and on again closes them
    for on in [false, true] {
        sluicectl(&live, &["enforce", if on { "on" } else { "off" }]);
        assert_eq!(reaches(&live, "x/c", "x/b"), !on, "enforce {on}");
    }
    other.delete().unwrap();
    live.down();
}

#[test]
fn running_pods_go_on_unmanaged_and_new_ones_are_under_policy() {
    let Some(turn) = turn("live_existing unmanaged") else { return };
    let live = up(turn, "exu", "unmanaged");
    assert_enforced(&live, "attached as usual");
    uninstall(&live);
    start_both(&live);
    live.settle().unwrap();
    let all = |state: FoundState| pods_devices(&live).into_iter().map(|device| (device, state)).collect::<BTreeMap<_, _>>();
    assert_eq!(states(&live), all(FoundState::Unmanaged));
    assert!(hooked(&live).is_empty());
    assert!(reaches(&live, "x/c", "x/b") && reaches(&live, "x/a", "x/b"), "as before");
    let status: Value = serde_json::from_str(&sluicectl(&live, &["status", "-o", "json"])).unwrap();
    assert_eq!((&status["dataplane"]["status"]["foundUnmanaged"], &status["dataplane"]["status"]["foundClosed"]), (&4.into(), &0.into()));
    assert!(sluicectl(&live, &["get", "endpoints"]).contains("unmanaged"));
    // a new pod is under policy as ever
    live.apply_yaml(&pod("late/new")).unwrap();
    assert!(!reaches(&live, "late/new", "x/c"), "isolated");
    // a DEL'd device, and one whose ADD failed, stay closed here too
    let mut sandbox = Sandbox::create(&live, "late/unknown").unwrap();
    sandbox.plug().unwrap();
    let device = sandbox.result["interfaces"][0]["name"].as_str().unwrap().to_owned();
    until("found", SOON, || states(&live).get(&device) == Some(&FoundState::Unmanaged));
    assert!(!sandbox.sluice("ADD", 300).unwrap().ok, "no manifest tells of it");
    until("closed", SOON, || states(&live).get(&device) == Some(&FoundState::Closed));
    // another choice at the next start, and back: what the failed ADD closed stays so
    for (choice, state) in [("close", FoundState::Closed), ("unmanaged", FoundState::Unmanaged)] {
        live.kill_agent(Agent::Dataplane).unwrap();
        choose(&live, choice);
        live.start_agent(Agent::Dataplane).unwrap();
        let mut expected = all(state);
        expected.retain(|device, _| found(&live).iter().any(|found| found.host_ifname == *device));
        expected.insert(device.clone(), FoundState::Closed);
        assert_eq!(states(&live), expected, "{choice}");
        assert_eq!(expected.len(), 5, "late/new is a port");
        assert_eq!(reaches(&live, "x/c", "x/b"), state == FoundState::Unmanaged, "{choice}");
    }
    sandbox.unplug().unwrap();
    live.down();
}

/// A pod as the API server shows it: on this node, running, with its addresses.
fn show(lab: &Lab, name: &str, uid: &str, addresses: &[IpAddr]) {
    let ips: Vec<String> = addresses.iter().map(|address| format!("{{ip: \"{address}\"}}")).collect();
    let shown = pod(name).replace("spec: {", &format!("spec: {{nodeName: {NODE}, "));
    let shown = shown.replace("metadata: {", &format!("metadata: {{uid: \"{uid}\", "));
    let status = format!("status: {{phase: Running, podIP: \"{}\", podIPs: [{}]}}\n", addresses[0], ips.join(", "));
    lab.store().put(&sluice_lab::parse_documents(&(shown + &status)).unwrap()[0]).unwrap();
}

#[test]
fn running_pods_are_adopted_once_control_proves_who_they_are() {
    let Some(turn) = turn("live_existing adopt") else { return };
    let live = up(turn, "exa", "adopt");
    for name in ["x/a", "x/b", "x/c"] {
        let pod = live.pod(name).unwrap();
        show(&live, name, &pod.uid, &pod.addresses);
    }
    live.settle().unwrap();
    let devices = pods_devices(&live);
    uninstall(&live);
    let streams =
        TcpStreams::start(&live, "x/a", "x/b", Family::V4, TcpPlan { port: 9001, streams: 4, bytes_per_second: 1 << 20 }).unwrap();
    let forbidden =
        UdpFlows::start(&live, "x/c", "x/b", Family::V4, UdpPlan { port: 9002, flows: 4, packets_per_second: 400, answer_every: 4 })
            .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(forbidden.gauge.during(Duration::from_millis(100)) > 0);
    let began = Instant::now();
    live.start_agent(Agent::Dataplane).unwrap();
    let closed = began.elapsed();
    assert_eq!(forbidden.gauge.during(Duration::from_millis(200)), 0, "closed from the start");
    live.start_agent(Agent::Control).unwrap();
    until("all three are ports", SOON, || agents::ports(live.layout()).unwrap().len() == 3);
    live.settle().unwrap();
    let adopted = began.elapsed();
    assert_enforced(&live, "adopted");
    let arrived = streams.arrived();
    until("the stream goes on", SOON, || streams.arrived() > arrived + (1 << 16));
    assert_eq!(forbidden.gauge.during(Duration::from_millis(200)), 0, "what policy forbids stays out");
    println!(
        "adopted {} after the start, of it {} until the dataplane served; then an established stream went on",
        ms(adopted),
        ms(closed)
    );
    for port in agents::ports(live.layout()).unwrap() {
        let pod = live.pod(&port.endpoint.pod.to_string()).unwrap();
        assert_eq!(port.container_id, format!("found:{}", port.host_ifindex));
        assert_eq!((port.ifname.as_str(), &port.endpoint.uid, port.network.as_str()), ("eth0", &pod.uid, ""));
        assert_eq!(port.endpoint.addresses.iter().collect::<BTreeSet<_>>(), pod.addresses.iter().collect::<BTreeSet<_>>());
    }
    // the DNS pod's object tells neither node nor addresses: it stays closed, with the reason
    let rest = found(&live);
    assert_eq!((rest.len(), rest[0].state), (1, FoundState::Closed), "{rest:?}");
    until("the reason shows", SOON, || found(&live)[0].reason.contains("no running pod of node n1 has exactly its addresses"));
    assert_eq!(hooked(&live).len(), devices.len());
    streams.finish().unwrap().assert_whole();
    let _ = forbidden.finish();

    // they survive a crash, and their runtime's DEL finds them by their device
    live.kill_agent(Agent::Dataplane).unwrap();
    live.start_agent(Agent::Dataplane).unwrap();
    assert_eq!(agents::ports(live.layout()).unwrap().len(), 3);
    assert_enforced(&live, "after a crash");
    live.settle().unwrap();
    let gone = ObjectRef { kind: Kind::Pod, name: sluice_flow::ObjectName::parse("x/c") };
    live.delete(&[gone]).unwrap();
    until("its port is free", SOON, || agents::ports(live.layout()).unwrap().len() == 2);

    // a device that is just being attached is not taken for the pod whose object shows its address, until it lingers
    let mut sandbox = Sandbox::create(&live, "late/lingers").unwrap();
    sandbox.plug().unwrap();
    show(&live, "late/lingers", "some", &sandbox.addresses());
    let took = until("adopted in the end", 2 * SOON, || agents::ports(live.layout()).unwrap().len() == 3);
    assert!(took > Duration::from_secs(2), "{took:?}");
    // an ADD that comes now finds the same pod, and makes a port of its own of it
    let arguments = [("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=late;K8S_POD_NAME=lingers;K8S_POD_UID=some")];
    let answer = sandbox.sluice_with("ADD", &sandbox.config(5000).to_string(), &arguments).unwrap();
    assert!(answer.ok, "{answer:?}");
    let ports = agents::ports(live.layout()).unwrap();
    let port = ports.iter().find(|port| port.endpoint.pod.name == "lingers").unwrap();
    assert!(ports.len() == 3 && !port.container_id.starts_with("found:") && port.network == "sluice-lab", "{port:?}");
    assert!(sandbox.sluice("DEL", 1000).unwrap().ok);
    sandbox.unplug().unwrap();
    live.down();
}

/// For how long a process that is in the sandbox before its device gets packets out, and none of them after `closed`.
fn exposure(live: &Live, name: &str, is_closed_early: bool) -> Duration {
    live.store().put(&sluice_lab::parse_documents(&pod(name)).unwrap()[0]).unwrap();
    live.settle().unwrap();
    // c takes everything, so only the newcomer's own policy stands between
    let listener = live.in_pod("x/c", || Ok(UdpSocket::bind(("0.0.0.0", 9000))?)).unwrap();
    listener.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut sandbox = Sandbox::create(live, name).unwrap();
    let stop = Arc::<AtomicBool>::default();
    let knocking = knock(sandbox.netns.clone(), at(live, "x/c", 9000), stop.clone());
    sandbox.plug().unwrap();
    // the gateway is known, so that no packet waits for an answer that a closed device does not give
    let host = sandbox.result["interfaces"][0].clone();
    let (device, mac) = (host["name"].as_str().unwrap(), host["mac"].as_str().unwrap());
    frames::ip_json(&sandbox.netns, &["neigh", "replace", "10.88.0.1", "lladdr", mac, "dev", "eth0", "nud", "permanent"]).unwrap();
    let wanted = if is_closed_early { FoundState::Closed } else { FoundState::Unmanaged };
    until("the device is found", SOON, || states(live).get(device) == Some(&wanted));
    let found_at = now_ns();
    // the runtime takes its time between two plugins
    std::thread::sleep(Duration::from_millis(20));
    let answer = sandbox.sluice("ADD", 5000).unwrap();
    assert!(answer.ok, "{answer:?}");
    let added_at = now_ns();
    std::thread::sleep(Duration::from_millis(20));
    stop.store(true, Ordering::Relaxed);
    knocking.join().unwrap();
    let (mut got_out, mut body) = (Vec::new(), [0; 8]);
    while listener.recv(&mut body).is_ok() {
        got_out.push(u64::from_le_bytes(body));
    }
    let closed_at = if is_closed_early { found_at } else { added_at };
    let late: Vec<&u64> = got_out.iter().filter(|sent| **sent > closed_at).collect();
    assert!(late.is_empty(), "{name}: closed at {closed_at}, yet got out: {late:?}");
    assert!(sandbox.sluice("DEL", 1000).unwrap().ok);
    sandbox.unplug().unwrap();
    sandbox.netns.delete().unwrap();
    Duration::from_nanos(got_out.iter().max().unwrap_or(&0) - got_out.iter().min().unwrap_or(&0))
}

#[test]
fn a_new_device_is_closed_before_its_add() {
    let Some(turn) = turn("live_existing window") else { return };
    let live = up(turn, "exw", "close");
    for choice in ["close", "unmanaged"] {
        live.kill_agent(Agent::Dataplane).unwrap();
        choose(&live, choice);
        live.start_agent(Agent::Dataplane).unwrap();
        let exposures: Vec<Duration> = (0..8).map(|round| exposure(&live, &format!("late/{choice}{round}"), choice == "close")).collect();
        let (median, max) = median_and_max(&exposures);
        println!("--existing-pods={choice}: a process in the sandbox got packets out for {} (median), {} (max)", ms(median), ms(max));
    }
    live.down();
}
