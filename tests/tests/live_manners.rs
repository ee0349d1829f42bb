//! Beside other programs: what stands behind ours still limits; and how workers wait. What comes in front: bpf/tests/load.rs.

use sluice_flow::Family;
use sluice_lab::{Lab, agents};
use sluice_tests::live::node::in_node;
use sluice_tests::live::{Live, pod, policy, turn};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const PORT: u16 = 9000;
const FOR: Duration = Duration::from_secs(1);
/// What the queue behind our hook lets through in a second.
const LIMIT_BYTES: usize = 1_000_000;
const BYTES: usize = 1000;

/// b takes UDP from a; both are isolated.
fn cluster() -> String {
    let peer = |app: &str| format!("[{{podSelector: {{matchLabels: {{app: {app}}}}}}}]");
    let a = format!("{{podSelector: {{matchLabels: {{app: a}}}}, policyTypes: [Ingress, Egress], egress: [{{to: {}}}]}}", peer("b"));
    let b = format!("{{podSelector: {{matchLabels: {{app: b}}}}, policyTypes: [Ingress, Egress], ingress: [{{from: {}}}]}}", peer("a"));
    ["x/a", "x/b"].map(pod).concat() + &policy("x/a", &a) + &policy("x/b", &b)
}

fn device(lab: &Lab, pod: &str) -> String {
    let ports = agents::ports(lab.layout()).unwrap();
    ports.into_iter().find(|port| format!("x/{}", port.endpoint.pod.name) == pod).expect("it is attached").host_ifname
}

/// Bytes that arrive at b in [`FOR`] while a sends twenty times the limit.
fn arrived(lab: &Lab) -> usize {
    let b = SocketAddr::new(lab.pod_address("x/b", Family::V4).unwrap(), PORT);
    std::thread::scope(|scope| {
        let receiver = lab.in_pod("x/b", || Ok(UdpSocket::bind(("0.0.0.0", PORT))?)).unwrap();
        receiver.set_read_timeout(Some(FOR / 10)).unwrap();
        scope.spawn(|| {
            let sender = lab.in_pod("x/a", || Ok(UdpSocket::bind("0.0.0.0:0")?)).unwrap();
            for _ in 0..20 * LIMIT_BYTES / BYTES {
                let _ = sender.send_to(&[0; BYTES], b);
                std::thread::sleep(Duration::from_micros(20));
            }
        });
        let (began, mut buffer, mut bytes) = (Instant::now(), [0; 2 * BYTES], 0);
        while began.elapsed() < FOR {
            bytes += receiver.recv(&mut buffer).unwrap_or(0);
        }
        bytes
    })
}

#[test]
fn what_stands_behind_ours_still_limits() {
    let Some(turn) = turn("live_manners chain") else { return };
    let live = Live::up(turn, "chain", &cluster(), |config| config.dataplane_args = ["--scan-interval", "1"].map(String::from).into());
    let of_b = device(&live, "x/b");
    let free = arrived(&live);
    // as the bandwidth plugin limits what enters a pod
    let rate = format!("{}bit", 8 * LIMIT_BYTES);
    in_node(&live, &["tc", "qdisc", "add", "dev", &of_b, "root", "tbf", "rate", &rate, "burst", "16000", "latency", "20ms"]);
    let limited = arrived(&live);
    println!("{free} bytes free, {limited} limited to {LIMIT_BYTES}");
    assert!(free > 3 * LIMIT_BYTES && (LIMIT_BYTES / 3..LIMIT_BYTES * 3 / 2).contains(&limited), "{free}, {limited}");
    in_node(&live, &["tc", "qdisc", "del", "dev", &of_b, "root"]);

    assert!(agents::dataplane_status(live.layout()).unwrap().preceded.is_empty());
    live.down();
}

/// What the worker has of a CPU in a second without packets, in thousandths.
fn idle(lab: &Lab) -> u64 {
    let cpu_us = || agents::dataplane_status(lab.layout()).unwrap().workers[0].cpu_us;
    // it says so ten times a second
    std::thread::sleep(Duration::from_millis(300));
    let (before, began) = (cpu_us(), Instant::now());
    std::thread::sleep(2 * FOR);
    (cpu_us() - before) * 1000 / began.elapsed().as_micros() as u64
}

#[test]
fn a_worker_waits_as_it_is_told() {
    for (wait, at_least, at_most) in [("spin", 300, 1001), ("adaptive", 0, 9), ("sleep", 0, 9)] {
        let Some(turn) = turn("live_manners wait") else { return };
        let live = Live::up(turn, "wait", &cluster(), |config| {
            config.workers = 1;
            config.dataplane_args = ["--wait", wait].map(String::from).into();
        });
        assert_eq!(agents::dataplane_status(live.layout()).unwrap().workers[0].wait, wait);
        let used = idle(&live);
        println!("{wait}: {:.1} % of a CPU without packets", used as f64 / 10.0);
        assert!((at_least..=at_most).contains(&used), "{wait}: {used}");
        assert!(arrived(&live) > LIMIT_BYTES, "{wait}: it serves");
        live.down();
    }
}
