//! Two nodes behind an API server: what crosses from one to the other, what becomes of pods, namespaces and policies that
//! change there, and that neither the server nor control nor an agent's restart is needed for what was decided to hold.

use sluice_flow::{Family, ObjectName};
use sluice_lab::{Agent, ClusterConfig, Kind, Lab, MatrixRequest, ObjectRef, Place, ServedPort, Transport, probe};
use sluice_tests::live::{Live, Turn, pod_on, policy, program, turn, until};
use sluice_tests::traffic::{TcpPlan, TcpReport, TcpStreams, UdpFlows, UdpPlan, UdpReport, ms, wildcard};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const NODES: [&str; 2] = ["node1", "node2"];
/// Below the first repetition of a SYN, so that each is one attempt.
const QUICK: Duration = Duration::from_millis(900);
const HTTP: ServedPort = ServedPort { port: 80, protocol: Transport::Tcp };
/// Each way between the nodes, so that both are a sender's and a receiver's.
const FLOWS: UdpPlan = UdpPlan { port: 9000, flows: 200, packets_per_second: 10_000, answer_every: 16 };
const STREAMS: TcpPlan = TcpPlan { port: 9001, streams: 4, bytes_per_second: 1 << 20 };
const DOOMED: UdpPlan = UdpPlan { port: 9100, flows: 4, packets_per_second: 400, answer_every: 4 };
const HEALTH: &str = "127.0.0.1:9808";

fn up(turn: Turn, stem: &str, yaml: &str) -> Live {
    Live::up(turn, stem, yaml, |config| {
        config.cluster = Some(ClusterConfig::default());
        config.control_args = vec!["--metrics-bind-address".into(), HEALTH.into()];
    })
}

fn reaches(lab: &Lab, from: &str, to: &str, family: Family) -> bool {
    let to = SocketAddr::new(lab.pod_address(to, family).unwrap(), HTTP.port);
    lab.in_pod(from, || Ok(probe::tcp(to, QUICK).outcome.reached())).unwrap()
}

/// In both families, and both must agree.
fn reaches_both(lab: &Lab, from: &str, to: &str) -> bool {
    let [v4, v6] = std::thread::scope(|scope| {
        FAMILIES.map(|family| scope.spawn(move || reaches(lab, from, to, family))).map(|thread| thread.join().unwrap())
    });
    assert_eq!(v4, v6, "{from} to {to}: the families differ");
    v4
}

fn base(namespace: &str) -> String {
    policy(&format!("{namespace}/base"), "{podSelector: {}, policyTypes: [Ingress, Egress]}")
}

fn from_to(name: &str, from: &str, to: &str, ports: &[u16]) -> String {
    let ports: Vec<String> =
        ports.iter().flat_map(|port| [format!("{{port: {port}}}"), format!("{{port: {port}, protocol: UDP}}")]).collect();
    let ports = if ports.is_empty() { String::new() } else { format!(", ports: [{}]", ports.join(", ")) };
    let selector = |app: &str| format!("{{podSelector: {{matchLabels: {{app: {app}}}}}}}");
    let (namespace, name) = name.split_once('/').unwrap();
    let egress = policy(
        &format!("{namespace}/{name}-out"),
        &format!("{{podSelector: {{matchLabels: {{app: {from}}}}}, policyTypes: [Egress], egress: [{{to: [{}]{ports}}}]}}", selector(to)),
    );
    let ingress = policy(
        &format!("{namespace}/{name}-in"),
        &format!("{{podSelector: {{matchLabels: {{app: {to}}}}}, ingress: [{{from: [{}]{ports}}}]}}", selector(from)),
    );
    egress + &ingress
}

#[test]
fn what_crosses_between_nodes_is_what_both_ends_allow() {
    let Some(turn) = turn("live_cluster cross") else { return };
    // on the host network: labelled like a, yet its node and no pod
    let on_host = pod_on("node1", "x/a-on-host")
        .replace("app: a-on-host", "app: a")
        .replace("nodeName: node1,", "nodeName: node1, hostNetwork: true,");
    let pods = pod_on("node1", "x/a") + &pod_on("node2", "x/b") + &pod_on("node1", "x/c") + &pod_on("node2", "y/out") + &on_host;
    let loose: String = ["z/one", "z/two"].map(sluice_tests::live::pod).concat();
    let live = up(turn, "cross", &(pods + &loose + &base("x") + &from_to("x/a-b", "a", "b", &[])));
    let placed: Vec<String> = ["z/one", "z/two"].map(|pod| live.pod(pod).unwrap().node).into();
    assert_ne!(placed[0], placed[1], "pods without a node are spread");
    for family in FAMILIES {
        let ports = [HTTP, ServedPort { protocol: Transport::Udp, ..HTTP }];
        let matrix = live.matrix(&MatrixRequest { ports: ports.into(), family, ..MatrixRequest::default() }).unwrap();
        assert_eq!(matrix.without_expectation, None);
        let wrong: Vec<_> = matrix.cells.iter().filter(|cell| cell.is_wrong()).collect();
        assert!(wrong.is_empty(), "{family:?}: {wrong:#?}");
        let cell = |from: &str, to: &str| {
            let found = |cell: &&sluice_lab::Cell| cell.from == ObjectName::parse(from) && cell.to == ObjectName::parse(to);
            matrix.cells.iter().filter(found).map(|cell| cell.reached).collect::<Vec<_>>()
        };
        assert_eq!(cell("x/a", "x/b"), [true, true], "{family:?}");
        assert_eq!(cell("x/b", "x/a"), [false, false], "{family:?}");
        assert_eq!(cell("y/out", "x/b"), [false, false], "{family:?}");
        assert_eq!(cell("z/one", "z/two"), [true, true], "{family:?}");
        println!("{family:?}: all {} attempts as the policies say", matrix.cells.len());
        // a node reaches its own pods whatever the policy, another node is an address that no rule names
        let b = SocketAddr::new(live.pod_address("x/b", family).unwrap(), 80);
        let from_node = |node: &str| live.node_netns(node).run(|| Ok(probe::tcp(b, QUICK).outcome.reached())).unwrap();
        assert!(from_node("node2"), "{family:?}: the node of b");
        assert!(!from_node("node1"), "{family:?}: another node, where a pod on the host network has the label that b allows");
    }
    // no policy selects a pod on the host network: base would shut it
    let host = live.api().unwrap().get(&Place::pod(&ObjectName::parse("x/a-on-host"))).unwrap().unwrap();
    let host: SocketAddr = format!("{}:7000", host["status"]["podIP"].as_str().unwrap()).parse().unwrap();
    let listener = live.node_netns("node1").run(|| Ok(std::net::TcpListener::bind(host)?)).unwrap();
    assert!(live.in_pod("y/out", || Ok(TcpStream::connect_timeout(&host, QUICK).is_ok())).unwrap());
    drop(listener);
    live.down();
}

#[test]
fn pods_namespaces_and_policies_that_change_on_the_server() {
    let Some(turn) = turn("live_cluster life") else { return };
    let pods =
        ["x/job", "x/a", "y/out"].map(|pod| pod_on("node1", pod)).concat() + &["x/srv", "x/b"].map(|pod| pod_on("node2", pod)).concat();
    let srv = policy("x/srv", "{podSelector: {matchLabels: {app: srv}}, ingress: [{from: [{podSelector: {matchLabels: {app: job}}}]}]}");
    let red = policy("x/b", "{podSelector: {matchLabels: {app: b}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}}]}]}");
    let live = up(turn, "life", &(pods + &srv + &red));
    an_ended_pod_is_nobody(&live);
    a_terminating_pod_keeps_its_policies(&live);

    let namespace = |team: &str| format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: \"y\", labels: {{team: {team}}}}}\n");
    for (team, allowed) in [("red", true), ("blue", false), ("red", true)] {
        let change = live.apply_yaml(&namespace(team)).unwrap();
        println!("namespace relabelled {team}: in force {:?}", change.on_nodes);
        assert_eq!(reaches_both(&live, "y/out", "x/b"), allowed, "namespace y is team {team}");
    }

    // the same policy selects another pod: the first one is free, the other is not
    assert!(!reaches_both(&live, "x/a", "x/srv") && reaches_both(&live, "y/out", "x/a"));
    live.apply_yaml(&policy(
        "x/srv",
        "{podSelector: {matchLabels: {app: a}}, ingress: [{from: [{podSelector: {matchLabels: {app: job}}}]}]}",
    ))
    .unwrap();
    assert!(reaches_both(&live, "x/a", "x/srv"), "no longer selected");
    assert!(!reaches_both(&live, "y/out", "x/a"), "selected now");
    live.down();
}

/// Succeeded and Failed: gone as a peer while the sandbox is there, and whoever has the address next is somebody else.
fn an_ended_pod_is_nobody(live: &Live) {
    for (phase, heir) in [("Succeeded", "x/heir1"), ("Failed", "x/heir2")] {
        let addresses = live.pod("x/job").unwrap().addresses;
        assert!(reaches_both(live, "x/job", "x/srv"), "before {phase}");
        live.set_phase("x/job", phase).unwrap();
        live.settle().unwrap();
        assert!(!reaches_both(live, "x/job", "x/srv"), "{phase}: its sandbox still sends");
        // the next change takes the sandbox and gives its place to the newcomer; the ended object keeps naming the addresses
        live.apply_yaml(&pod_on("node1", heir)).unwrap();
        assert_eq!(live.pod(heir).unwrap().addresses, addresses, "{phase}: the address is used again");
        let object = live.api().unwrap().get(&Place::pod(&ObjectName::parse("x/job"))).unwrap().unwrap();
        assert_eq!(object["status"]["podIP"], addresses[0].to_string(), "{phase}");
        assert!(!reaches_both(live, heir, "x/srv"), "{phase}: inherited by address");
        live.delete(&[ObjectRef::new(Kind::Pod, heir), ObjectRef::new(Kind::Pod, "x/job")]).unwrap();
        live.apply_yaml(&pod_on("node1", "x/job")).unwrap();
    }
    println!("ended pods are nobody, and their addresses carry nothing over");
}

/// Marked for deletion, and even with its object gone: isolated until the sandbox is taken.
fn a_terminating_pod_keeps_its_policies(live: &Live) {
    live.apply_yaml(
        &(pod_on("node2", "x/old")
            + &policy("x/old", "{podSelector: {matchLabels: {app: old}}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}]}]}")),
    )
    .unwrap();
    let holds = |when: &str| {
        assert!(reaches_both(live, "x/a", "x/old"), "{when}: what its policy allows");
        assert!(!reaches_both(live, "y/out", "x/old"), "{when}: what it forbids");
    };
    holds("alive");
    let place = Place::pod(&ObjectName::parse("x/old"));
    let api = live.api().unwrap();
    assert!(api.delete(&place, 30).unwrap());
    assert!(api.get(&place).unwrap().unwrap()["metadata"]["deletionTimestamp"].is_string());
    live.settle().unwrap();
    holds("terminating");
    assert!(api.delete(&place, 0).unwrap());
    live.settle().unwrap();
    holds("its object is gone, its sandbox is not");
    live.take_sandbox("x/old").unwrap();
    println!("a terminating pod keeps its policies until its sandbox is gone");
}

#[test]
fn add_waits_for_the_table_and_not_for_the_address_to_appear() {
    let Some(turn) = turn("live_cluster add") else { return };
    const DELAY: Duration = Duration::from_secs(2);
    let pods = pod_on("node1", "x/a") + &pod_on("node1", "x/b");
    let gate = policy("x/b", "{podSelector: {matchLabels: {app: b}}, ingress: [{from: [{podSelector: {matchLabels: {app: late}}}]}]}");
    let live = Live::up(turn, "late", &(pods + &gate), |config| {
        config.cluster = Some(ClusterConfig { status_delay: DELAY, ..ClusterConfig::default() });
    });
    let b = SocketAddr::new(live.pod_address("x/b", Family::V4).unwrap(), 80);
    let (lab, name): (&Lab, _) = (&live, "x/late");
    std::thread::scope(|scope| {
        let applying = scope.spawn(|| lab.apply_yaml(&pod_on("node1", name)).unwrap());
        let open = || {
            sluice_lab::agents::ports(&lab.at("node1"))
                .unwrap()
                .iter()
                .any(|port| port.endpoint.pod == ObjectName::parse(name) && port.state != sluice_wire::PortState::Closed)
        };
        until("the newcomer is under policy", Duration::from_secs(10), open);
        let since = Instant::now();
        // the pod's namespace is there; the lab writes the pod down when it is done with it
        let reached = lab.pod_netns(name).run(|| Ok(probe::tcp(b, QUICK).outcome.reached())).unwrap();
        let object = lab.api().unwrap().get(&Place::pod(&ObjectName::parse(name))).unwrap().unwrap();
        assert!(since.elapsed() < DELAY && object["status"]["podIP"].is_null(), "{object}");
        assert!(reached, "a rule for its label counts on its own node before its address appears");
        applying.join().unwrap();
    });
    live.down();
}

/// Traffic each way between the nodes, of which nothing may be lost.
struct Crossing {
    udp: [UdpFlows; 2],
    tcp: TcpStreams,
}

impl Crossing {
    fn start(lab: &Lab) -> Self {
        let there = UdpFlows::start(lab, "x/a", "x/b", Family::V4, FLOWS).unwrap();
        let back = UdpFlows::start(lab, "x/d", "x/c", Family::V6, FLOWS).unwrap();
        Self { udp: [there, back], tcp: TcpStreams::start(lab, "x/a", "x/b", Family::V6, STREAMS).unwrap() }
    }

    fn finish(self, what: &str) {
        let udp: [UdpReport; 2] = self.udp.map(|flows| flows.finish().unwrap());
        let tcp: TcpReport = self.tcp.finish().unwrap();
        let (sent, lost) = (udp[0].sent + udp[1].sent, udp[0].lost + udp[1].lost);
        println!("{what}: {lost} of {sent} datagrams lost, {} of {} streams cut, {} MB", tcp.cut.len(), tcp.streams, tcp.bytes >> 20);
        udp.iter().for_each(UdpReport::assert_whole);
        tcp.assert_whole();
    }
}

/// a (node1) may go to b (node2), d (node2) to c (node1); on some ports.
fn crossing_cluster(ports: &[u16]) -> String {
    let pods = ["x/a", "x/c", "x/e"].map(|pod| pod_on("node1", pod)).concat() + &["x/b", "x/d"].map(|pod| pod_on("node2", pod)).concat();
    pods + &base("x") + &from_to("x/a-b", "a", "b", ports) + &from_to("x/d-c", "d", "c", &[9000])
}

const PORTS: [u16; 4] = [80, 9000, 9001, 9100];

fn ready(lab: &Lab, node: &str) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(HEALTH)?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200"))
    };
    lab.node_netns(node).run(ask).unwrap()
}

#[test]
fn neither_the_server_nor_control_is_needed_for_what_holds() {
    let Some(turn) = turn("live_cluster away") else { return };
    let live = up(turn, "away", &crossing_cluster(&PORTS));
    let holds = |when: &str| {
        assert!(reaches_both(&live, "x/a", "x/b"), "{when}: an allowed connection");
        assert!(!reaches_both(&live, "x/b", "x/a"), "{when}: a forbidden one");
    };
    let traffic = Crossing::start(&live);
    let doomed = UdpFlows::start(&live, "x/a", "x/b", Family::V4, DOOMED).unwrap();

    live.outage(true).unwrap();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(5) {
        assert!(NODES.iter().all(|node| ready(&live, node)), "readiness holds while the server is away");
        holds("the server is away");
        std::thread::sleep(Duration::from_millis(300));
    }
    // agents that restart meanwhile go on with what they have
    live.kill_agent_on("node2", Agent::Dataplane).unwrap();
    live.start_agent_on("node2", Agent::Dataplane).unwrap();
    holds("a dataplane restarted while the server is away");
    live.outage(false).unwrap();
    println!("the API server was away for {:.1} s; readiness held", begin.elapsed().as_secs_f64());
    live.settle().unwrap();

    NODES.iter().for_each(|node| assert!(live.kill_agent_on(node, Agent::Control).unwrap()));
    let begin = Instant::now();
    live.write(&sluice_lab::parse_documents(&from_to("x/a-b", "a", "b", &PORTS[..3])).unwrap()).unwrap();
    while begin.elapsed() < Duration::from_secs(10) {
        holds("control is away");
        assert!(doomed.gauge.during(Duration::from_millis(200)) > 0, "the last table stays in force, also what the server forbids by now");
    }
    NODES.iter().for_each(|node| live.start_agent_on(node, Agent::Control).unwrap());
    let since = Instant::now();
    live.settle().unwrap();
    println!(
        "control was away for {:.1} s; back, everything is in force {} after it serves",
        begin.elapsed().as_secs_f64(),
        ms(since.elapsed())
    );
    until("what was forbidden meanwhile stops", Duration::from_secs(2), || doomed.gauge.during(Duration::from_millis(50)) == 0);
    holds("control is back");
    assert!(doomed.finish().unwrap().lost > 0);
    traffic.finish("the server, a dataplane and both control processes away");
    live.down();
}

#[test]
fn a_dataplane_of_another_build_a_new_sandbox_and_a_reboot() {
    let Some(turn) = turn("live_cluster anew") else { return };
    let live = up(turn, "anew", &crossing_cluster(&PORTS));
    let traffic = Crossing::start(&live);
    let elsewhere = tempfile::tempdir().unwrap();
    let copy = elsewhere.path().join("sluice-dataplane");
    std::fs::copy(program("sluice-dataplane"), &copy).unwrap();
    for other in [Some(copy.as_path()), None] {
        live.restart_dataplane_from("node2", other).unwrap();
        let pid = live.state().unwrap().nodes["node2"].dataplane.unwrap().pid;
        let runs = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        assert_eq!(runs == copy, other.is_some(), "{}", runs.display());
        assert!(reaches_both(&live, "x/a", "x/b") && !reaches_both(&live, "x/b", "x/a"));
        std::thread::sleep(Duration::from_millis(300));
    }
    // another pod of the same node gets another sandbox meanwhile
    for _ in 0..3 {
        let before = live.pod("x/e").unwrap();
        live.renew_sandbox("x/e").unwrap();
        let after = live.pod("x/e").unwrap();
        assert!(before.uid == after.uid && before.container_id != after.container_id && before.addresses == after.addresses);
        assert!(!reaches_both(&live, "x/e", "x/b"), "isolated in its new sandbox too");
        live.check_attachment("x/e").unwrap();
    }
    traffic.finish("a dataplane replaced by another file and back, three new sandboxes");

    let since = Instant::now();
    live.reboot("node2").unwrap();
    println!("node2 rebooted: agents and pods are back after {:.1} s", since.elapsed().as_secs_f64());
    live.settle().unwrap();
    assert!(reaches_both(&live, "x/a", "x/b") && !reaches_both(&live, "x/b", "x/a"));
    live.check_attachment("x/b").unwrap();
    let traffic = Crossing::start(&live);
    std::thread::sleep(Duration::from_secs(1));
    traffic.finish("after the reboot");
    live.down();
}

/// One datagram of a new flow every millisecond, numbered by time; what arrives is told by when it was sent.
struct Probing {
    stop: Arc<AtomicBool>,
    sender: std::thread::JoinHandle<u64>,
    receiver: UdpSocket,
}

impl Probing {
    fn start(lab: &Lab, from: &str, to: &str, port: u16) -> Self {
        let to_address = SocketAddr::new(lab.pod_address(to, Family::V4).unwrap(), port);
        let receiver = lab.in_pod(to, || Ok(UdpSocket::bind((wildcard(to_address.ip()), port))?)).unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&receiver, 16 << 20).unwrap();
        let (stop, netns) = (Arc::<AtomicBool>::default(), lab.pod_netns(from));
        let stopped = stop.clone();
        let sender = std::thread::spawn(move || {
            netns.enter().unwrap();
            let (begin, mut sent) = (Instant::now(), 0u64);
            while !stopped.load(Ordering::Relaxed) {
                if begin.elapsed().as_millis() as u64 <= sent {
                    std::thread::sleep(Duration::from_micros(200));
                    continue;
                }
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                let _ = socket.send_to(&sluice_tests::traffic::now_ns().to_le_bytes(), to_address);
                sent += 1;
            }
            sent
        });
        Self { stop, sender, receiver }
    }

    /// How many were sent, and when those that arrived were.
    fn finish(self) -> (u64, Vec<u64>) {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().unwrap();
        self.receiver.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let (mut arrived, mut body) = (Vec::new(), [0; 8]);
        while self.receiver.recv(&mut body).is_ok() {
            arrived.push(u64::from_le_bytes(body));
        }
        (sent, arrived)
    }
}

#[test]
fn a_policy_deleted_while_the_agents_were_down_vanishes_and_nothing_is_wider_before() {
    let Some(turn) = turn("live_cluster deleted") else { return };
    let pods = ["x/a", "x/c"].map(|pod| pod_on("node1", pod)).concat() + &["x/b", "x/shut"].map(|pod| pod_on("node2", pod)).concat();
    let shut = policy("x/shut", "{podSelector: {matchLabels: {app: shut}}, policyTypes: [Ingress, Egress]}");
    let b = policy("x/b", "{podSelector: {matchLabels: {app: b}}, policyTypes: [Ingress]}");
    let gate = policy("x/gate", "{podSelector: {matchLabels: {app: b}}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}]}]}");
    let live = up(turn, "gone", &(pods + &shut + &b + &gate));
    assert!(reaches_both(&live, "x/a", "x/b") && !reaches_both(&live, "x/c", "x/b") && !reaches_both(&live, "x/a", "x/shut"));
    Agent::ALL.into_iter().rev().for_each(|agent| assert!(live.kill_agent_on("node2", agent).unwrap()));
    // one that allows a to b, and one that shuts a pod
    for gone in ["x/gate", "x/shut"] {
        live.erase(&ObjectRef::new(Kind::NetworkPolicy, gone)).unwrap();
    }
    let never = Probing::start(&live, "x/c", "x/b", 9300);
    let until_synced = Probing::start(&live, "x/a", "x/b", 9301);
    std::thread::sleep(Duration::from_millis(500));
    let down_until = sluice_tests::traffic::now_ns();
    live.start_agent_on("node2", Agent::Dataplane).unwrap();
    let served = sluice_tests::traffic::now_ns();
    std::thread::sleep(Duration::from_millis(500));
    assert!(!reaches_both(&live, "x/a", "x/shut"), "the last table, before control is back");
    let control_started = sluice_tests::traffic::now_ns();
    live.start_agent_on("node2", Agent::Control).unwrap();
    live.settle().unwrap();
    let synced = sluice_tests::traffic::now_ns();
    std::thread::sleep(Duration::from_millis(500));
    let (sent, arrived) = never.finish();
    assert!(arrived.is_empty(), "{} of {sent} datagrams that both policies forbid arrived", arrived.len());
    let (sent_gate, arrived_gate) = until_synced.finish();
    let count = |from: u64, to: u64| arrived_gate.iter().filter(|at| (from..to).contains(at)).count();
    println!(
        "{sent} and {sent_gate} datagrams at 1 kHz; what the old table alone allows: {} while the dataplane was down, {} before control was \
         back, {} until synced, {} after",
        count(0, down_until),
        count(served, control_started),
        count(control_started, synced),
        count(synced, u64::MAX)
    );
    assert_eq!(count(0, down_until), 0, "nobody judges new flows without a dataplane");
    assert!(count(served, control_started) > 0, "the last table is in force before control is back");
    assert_eq!(count(synced, u64::MAX), 0, "the deleted policy allows nothing any more");
    assert!(reaches_both(&live, "x/a", "x/shut"), "the deleted policy shuts nobody any more");
    live.down();
}
