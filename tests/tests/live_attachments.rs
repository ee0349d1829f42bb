//! How attachments end, other than by DEL: devices that vanish or come back as others, pods that are replaced under their
//! name, a start over half of its state, a reboot, and removal under traffic.

use serde_json::Value;
use sluice_flow::Family;
use sluice_lab::{Agent, Lab, NetNs, agents};
use sluice_tests::live::cni::Sandbox;
use sluice_tests::live::node::{
    SOON, assert_enforced, found, hooked, ifindex, in_node, pods_devices, reaches, remove, start_both, states, stop_both, up,
};
use sluice_tests::live::{frames, pod, turn, until};
use sluice_tests::traffic::{TcpPlan, TcpStreams, UdpFlows, UdpPlan, ms};
use sluice_wire::FoundState;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

/// A device of the node with that index, and what it leads to.
fn take_index(lab: &Lab, index: u32, other: &NetNs) {
    let index = index.to_string();
    let add = ["ip", "link", "add", "reused", "index", &index, "type", "veth", "peer", "name", "eth0", "netns", other.name()];
    in_node(lab, &add);
    in_node(lab, &["ip", "link", "set", "reused", "up"]);
    in_node(lab, &["ip", "addr", "add", "192.0.2.1/24", "dev", "reused"]);
    frames::ip_json(other, &["link", "set", "eth0", "up"]).unwrap();
    frames::ip_json(other, &["addr", "add", "192.0.2.2/24", "dev", "eth0"]).unwrap();
}

#[test]
fn ports_end_with_their_devices_and_an_index_that_comes_back_is_another_device() {
    let Some(turn) = turn("live_attachments devices") else { return };
    let live = up(turn, "exd", "close");
    live.store().put(&sluice_lab::parse_documents(&pod("late/newcomer")).unwrap()[0]).unwrap();
    live.settle().unwrap();
    let is_port = || agents::ports(live.layout()).unwrap().iter().any(|port| port.endpoint.pod.name == "newcomer");
    let attach = |sandbox: &mut Sandbox| {
        sandbox.plug().unwrap();
        let answer = sandbox.sluice("ADD", 5000).unwrap();
        assert!(answer.ok, "{answer:?}");
        ifindex(&live, sandbox.result["interfaces"][0]["name"].as_str().unwrap())
    };
    // the sandbox's namespace goes, and nobody says so
    let mut sandbox = Sandbox::create(&live, "late/newcomer").unwrap();
    attach(&mut sandbox);
    sandbox.netns.delete().unwrap();
    let freed = until("the port is free", SOON, || !is_port());
    println!("a device gone without a DEL: its port was free after {}", ms(freed));
    assert!(sandbox.sluice("DEL", 1000).unwrap().ok, "a DEL that comes late");
    sandbox.unplug().unwrap();
    // the same with the dataplane down, and its index is somebody else's when it is back
    let mut sandbox = Sandbox::create(&live, "late/newcomer").unwrap();
    let index = attach(&mut sandbox);
    live.kill_agent(Agent::Dataplane).unwrap();
    assert!(sandbox.sluice("DEL", 1000).unwrap().ok, "with the dataplane down");
    sandbox.netns.delete().unwrap();
    until("the device is gone", SOON, || !in_node(&live, &["ip", "-o", "link"]).contains(&format!("\n{index}: ")));
    let other = NetNs::named(format!("{}x.other", live.layout().netns_prefix()));
    other.create().unwrap();
    take_index(&live, index, &other);
    live.start_agent(Agent::Dataplane).unwrap();
    assert!(!is_port() && !hooked(&live).contains(&index), "the index is another device's");
    let receiver = other.run(|| Ok(UdpSocket::bind("192.0.2.2:7000")?)).unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    live.node().run(|| Ok(UdpSocket::bind("192.0.2.1:0")?.send_to(b"hello", "192.0.2.2:7000")?)).unwrap();
    assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), 5, "and left alone");
    other.delete().unwrap();
    sandbox.unplug().unwrap();
    live.settle().unwrap();
    assert_enforced(&live, "afterwards");

    // the same name with another UID is another pod
    let named = |uid: &str| pod("late/newcomer").replace("metadata: {", &format!("metadata: {{uid: {uid}, "));
    let show = |uid: &str| {
        live.store().put(&sluice_lab::parse_documents(&named(uid)).unwrap()[0]).unwrap();
        live.settle().unwrap();
    };
    show("of-the-old-pod");
    let mut sandbox = Sandbox::create(&live, "late/newcomer").unwrap();
    sandbox.plug().unwrap();
    let arguments = [("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=late;K8S_POD_NAME=newcomer;K8S_POD_UID=of-the-new-pod")];
    let config = sandbox.config(500).to_string();
    let answer = sandbox.sluice_with("ADD", &config, &arguments).unwrap();
    assert!(!answer.ok && answer.reason().contains("no published table"), "the old pod's object is not this pod's: {answer:?}");
    show("of-the-new-pod");
    let answer = sandbox.sluice_with("ADD", &sandbox.config(5000).to_string(), &arguments).unwrap();
    assert!(answer.ok, "{answer:?}");
    assert!(sandbox.sluice("DEL", 1000).unwrap().ok);
    sandbox.unplug().unwrap();
    live.down();
}

#[test]
fn a_start_over_half_of_its_state_is_safe() {
    let Some(turn) = turn("live_attachments halves") else { return };
    let live = up(turn, "exh", "close");
    let run = live.layout().run_dir();
    // what was pinned is gone, the run directory is there: the ports and the last table are taken up again
    stop_both(&live);
    std::fs::remove_dir_all(live.layout().bpf_dir()).unwrap();
    live.start_agent(Agent::Dataplane).unwrap();
    assert_eq!((agents::ports(live.layout()).unwrap().len(), found(&live).len()), (4, 0));
    assert_enforced(&live, "pins lost, without control");
    live.start_agent(Agent::Control).unwrap();
    live.settle().unwrap();
    assert_enforced(&live, "pins lost");
    // the other way round: nobody knows any more whose the ports were, so nothing passes
    stop_both(&live);
    for file in ["ports.json", "image.last"] {
        std::fs::remove_file(run.join(file)).unwrap();
    }
    start_both(&live);
    live.settle().unwrap();
    assert_eq!(agents::ports(live.layout()).unwrap().len(), 0);
    assert_eq!(states(&live), pods_devices(&live).into_iter().map(|device| (device, FoundState::Closed)).collect());
    assert!(!reaches(&live, "x/a", "x/b") && !reaches(&live, "x/a", "x/c"), "closed");
    live.down();
}

#[test]
fn nothing_from_before_a_reboot_is_believed() {
    let Some(turn) = turn("live_attachments reboot") else { return };
    let live = up(turn, "exb", "close");
    stop_both(&live);
    let path = live.layout().run_dir().join("ports.json");
    let mut kept: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    kept["boot_id"] = "another".into();
    let last = kept["last_incarnation"].as_u64().unwrap();
    std::fs::write(&path, kept.to_string()).unwrap();
    live.start_agent(Agent::Dataplane).unwrap();
    let status = agents::dataplane_status(live.layout()).unwrap();
    assert_eq!((status.generation, status.ports, status.found_closed), (0, 0, 4));
    live.start_agent(Agent::Control).unwrap();
    live.settle().unwrap();
    assert!(!reaches(&live, "x/a", "x/b"), "closed");
    live.apply_yaml(&pod("x/d")).unwrap();
    let ports = agents::ports(live.layout()).unwrap();
    assert!(ports.len() == 1 && u64::from(ports[0].endpoint.incarnation.0) > last, "{ports:?}");
    live.down();
}

#[test]
fn removal_under_traffic_loses_nothing_and_leaves_nothing() {
    let Some(turn) = turn("live_attachments removal") else { return };
    let live = up(turn, "exr", "close");
    assert_enforced(&live, "before");
    let flows =
        UdpFlows::start(&live, "x/a", "x/b", Family::V4, UdpPlan { port: 9000, flows: 100, packets_per_second: 10_000, answer_every: 16 })
            .unwrap();
    let streams =
        TcpStreams::start(&live, "x/a", "x/b", Family::V6, TcpPlan { port: 9001, streams: 4, bytes_per_second: 2 << 20 }).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let refused = remove(&live);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("stop it first"), "while it runs: {said}");
    let state = live.state().unwrap();
    for agent in Agent::ALL {
        let node = state.nodes.values().next().unwrap();
        assert!(Agent::stop(agent.process(node).unwrap()));
        live.kill_agent(agent).unwrap();
    }
    let began = Instant::now();
    let output = remove(&live);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    println!("removed in {}", ms(began.elapsed()));
    std::thread::sleep(Duration::from_millis(500));
    flows.finish().unwrap().assert_whole();
    streams.finish().unwrap().assert_whole();
    assert!(reaches(&live, "x/c", "x/b") && reaches(&live, "x/a", "x/b"), "everything passes");
    let node = |command: &[&str]| in_node(&live, command);
    let links = node(&["ip", "-o", "link"]);
    assert!(!links.contains(": sluice-n"), "trunks: {links}");
    assert!(!live.layout().bpf_dir().exists(), "pins");
    let left: Vec<_> = std::fs::read_dir(live.layout().run_dir()).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "{left:?}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&live.layout().run_dir().display().to_string()), "the trunks' namespace");
    // and again: nothing to do is no error
    assert!(remove(&live).status.success());
    live.down();
}
