//! Bad input 9: frames of jumbo MTUs, which several descriptors hold, reach worker and pod unharmed, and mean what short ones mean.

use sluice_flow::Family;
use sluice_lab::{Lab, agents};
use sluice_tests::live::node::in_node;
use sluice_tests::live::{Live, drops, pod, policy, turn};
use sluice_tests::traffic::{TcpPlan, TcpStreams};
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

const MTU: usize = 9000;
const FIRST_PORT: u16 = 9000;
/// Each to a port that nobody asked for before, so that each meets a worker.
const QUESTIONS: u16 = 20;

/// a may ask b, and c may not.
fn cluster() -> String {
    let b = "{podSelector: {matchLabels: {app: b}}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {matchLabels: {app: a}}}]}]}";
    let a = "{podSelector: {matchLabels: {app: a}}, policyTypes: [Ingress, Egress], egress: [{to: [{podSelector: {}}]}]}";
    ["x/a", "x/b", "x/c"].map(pod).concat() + &policy("x/a", a) + &policy("x/b", b)
}

fn set_mtus(lab: &Lab) {
    let mtu = MTU.to_string();
    for pod in ["x/a", "x/b", "x/c"] {
        let set = ["link", "set", "dev", "eth0", "mtu", &mtu];
        assert!(lab.in_pod(pod, || Ok(Command::new("ip").args(set).status()?.success())).unwrap());
        // host-local addresses come with routes that have an MTU of the old device or none
        let ports = agents::ports(lab.layout()).unwrap();
        let port = ports.into_iter().find(|port| format!("x/{}", port.endpoint.pod.name) == pod).unwrap();
        in_node(lab, &["ip", "link", "set", "dev", &port.host_ifname, "mtu", &mtu]);
    }
}

/// Bytes of a datagram that fills a frame of that family.
fn payload(family: Family) -> usize {
    MTU - 8 - if family == Family::V4 { 20 } else { 40 }
}

/// How many datagrams come back whole, each of a new flow.
fn answered(lab: &Lab, from: &str, family: Family, bytes: usize, first_port: u16) -> u16 {
    let any = if family == Family::V4 { "0.0.0.0" } else { "::" };
    let b = lab.pod_address("x/b", family).unwrap();
    let question: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
    let mut answered = 0;
    for port in first_port..first_port + QUESTIONS {
        let open = |pod: &str, port| {
            let socket = lab.in_pod(pod, || Ok(UdpSocket::bind((any, port))?)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            socket
        };
        let (asks, answers, mut buffer) = (open(from, 0), open("x/b", port), vec![0; 2 * bytes]);
        asks.send_to(&question, SocketAddr::new(b, port)).unwrap();
        let Ok((len, from)) = answers.recv_from(&mut buffer) else { continue };
        assert!(buffer[..len] == question, "it arrived as it was sent");
        answers.send_to(&buffer[..len], from).unwrap();
        answered += u16::from(asks.recv(&mut buffer).is_ok_and(|len| buffer[..len] == question));
    }
    answered
}

fn pings(lab: &Lab, from: &str, family: Family, bytes: usize) -> bool {
    let (b, bytes) = (lab.pod_address("x/b", family).unwrap().to_string(), bytes.to_string());
    let ping = ["-c", "2", "-i", "0.2", "-W", "1", "-M", "do", "-s", &bytes, &b];
    lab.in_pod(from, || Ok(Command::new("ping").args(ping).output()?.status.success())).unwrap()
}

fn try_everything(lab: &Lab, first_port: u16) {
    for (family, first_port) in [(Family::V4, first_port), (Family::V6, first_port + 100)] {
        let bytes = payload(family);
        // three buffers, two, one; and one in pieces
        for (round, bytes) in [bytes, 5000, 100, 3 * bytes].into_iter().enumerate() {
            let first_port = first_port + round as u16 * 1000;
            assert_eq!(answered(lab, "x/a", family, bytes, first_port), QUESTIONS, "{family:?}, {bytes} bytes");
        }
        assert_eq!(answered(lab, "x/c", family, bytes, first_port), 0, "{family:?}");
        assert!(pings(lab, "x/a", family, bytes) && !pings(lab, "x/c", family, bytes), "{family:?}");
    }
    let plan = TcpPlan { port: 7777, streams: 2, bytes_per_second: 8 << 20 };
    let streams = TcpStreams::start(lab, "x/a", "x/b", Family::V4, plan).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    streams.finish().unwrap().assert_whole();
}

#[test]
fn long_frames_mean_what_short_ones_mean() {
    for offload in ["on", "off"] {
        let Some(turn) = turn("live_jumbo") else { return };
        let args = ["--offload", offload, "--new-flows-per-second", "0"].map(String::from);
        let live = Live::up(turn, &format!("jumbo{offload}"), &cluster(), |config| config.dataplane_args = args.into());
        set_mtus(&live);
        try_everything(&live, FIRST_PORT);
        let status = agents::dataplane_status(live.layout()).unwrap();
        println!(
            "offload {offload}: {} punts, {} packets of workers",
            status.punts,
            status.workers.iter().map(|w| w.forwarded).sum::<u64>()
        );
        for reason in ["malformed", "trunk_header", "internal", "worker_overrun", "transmit_full"] {
            assert_eq!(drops(live.layout(), reason), 0, "{reason}: {:?}", status.drops);
        }
        live.down();
    }
}
