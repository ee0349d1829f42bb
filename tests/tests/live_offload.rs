//! Without offload a worker sees every packet of an isolated pod, and everything means the same.

use sluice_flow::Family;
use sluice_lab::{Lab, agents, probe};
use sluice_tests::live::node::sluicectl;
use sluice_tests::live::{Live, pod, policy, turn};
use sluice_tests::traffic::{TcpPlan, TcpStreams};
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

const PORT: u16 = 9000;
const QUICK: Duration = Duration::from_millis(900);
const PACKETS: usize = 500;

fn b_takes(app: &str) -> String {
    policy(
        "x/b",
        &format!(
            "{{podSelector: {{matchLabels: {{app: b}}}}, policyTypes: [Ingress, Egress], \
             ingress: [{{from: [{{podSelector: {{matchLabels: {{app: {app}}}}}}}]}}]}}"
        ),
    )
}

/// a may ask b, and c may not.
fn cluster() -> String {
    let out = "{podSelector: {matchExpressions: [{key: app, operator: In, values: [a, c]}]}, policyTypes: [Ingress, Egress], \
               egress: [{to: [{podSelector: {}}]}]}";
    ["x/a", "x/b", "x/c"].map(pod).concat() + &policy("x/out", out) + &b_takes("a")
}

/// How many datagrams arrive, of so many sent at a pace.
fn arrived(lab: &Lab, from: &str, family: Family) -> usize {
    let any = if family == Family::V4 { "0.0.0.0" } else { "::" };
    let to = SocketAddr::new(lab.pod_address("x/b", family).unwrap(), PORT);
    let receiver = lab.in_pod("x/b", || Ok(UdpSocket::bind((any, PORT))?)).unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let sender = lab.in_pod(from, || Ok(UdpSocket::bind((any, 0))?)).unwrap();
    let mut arrived = 0;
    for _ in 0..PACKETS {
        sender.send_to(&[1; 100], to).unwrap();
        arrived += usize::from(receiver.recv(&mut [0; 200]).is_ok());
        if arrived == 0 {
            break;
        }
    }
    arrived
}

fn pings(lab: &Lab, from: &str) -> bool {
    let b = lab.pod_address("x/b", Family::V4).unwrap().to_string();
    lab.in_pod(from, || Ok(Command::new("ping").args(["-c", "2", "-i", "0.2", "-W", "1", &b]).output()?.status.success())).unwrap()
}

#[test]
fn a_worker_sees_every_packet_and_everything_means_the_same() {
    let Some(turn) = turn("live_offload") else { return };
    let live = Live::up(turn, "offload", &cluster(), |config| {
        // one for all, so that it judges for both pods
        config.workers = 1;
        config.dataplane_args = ["--offload", "off", "--scan-interval", "1"].map(String::from).into();
    });
    let status = || agents::dataplane_status(live.layout()).unwrap();
    let reaches = |from: &str, family| {
        let b = SocketAddr::new(live.pod_address("x/b", family).unwrap(), 80);
        live.in_pod(from, || Ok(probe::tcp(b, QUICK).outcome.reached())).unwrap()
    };
    // then the keeper has looked at the devices, and what goes straight is judged for both pods at once
    std::thread::sleep(Duration::from_secs(2));
    assert!(status().every_packet && sluicectl(&live, &["status"]).contains("workers see every packet"));
    for family in [Family::V4, Family::V6] {
        assert!(reaches("x/a", family) && !reaches("x/c", family), "{family:?}");
        let before = status();
        assert_eq!((arrived(&live, "x/a", family), arrived(&live, "x/c", family)), (PACKETS, 0), "{family:?}");
        let punts = status().punts - before.punts;
        println!("{family:?}: {punts} punts of {PACKETS} datagrams");
        assert!((PACKETS..PACKETS + 60).contains(&(punts as usize)), "{punts}");
    }
    assert!(pings(&live, "x/a") && !pings(&live, "x/c"));

    // a stream goes on, in segments, until a table forbids it
    let plan = TcpPlan { port: 7777, streams: 2, bytes_per_second: 4 << 20 };
    let streams = TcpStreams::start(&live, "x/a", "x/b", Family::V4, plan).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let report = streams.finish().unwrap();
    report.assert_whole();
    println!("{} bytes of TCP", report.bytes);
    assert_eq!(status().cache_hits, 0, "{:?}", status());
    live.apply_yaml(&b_takes("nobody")).unwrap().in_force_after.unwrap();
    assert_eq!((reaches("x/a", Family::V4), arrived(&live, "x/a", Family::V4), pings(&live, "x/a")), (false, 0, false));
    live.apply_yaml(&b_takes("a")).unwrap().in_force_after.unwrap();

    // and with the offload again, while everything is up
    sluicectl(&live, &["offload", "on"]);
    assert!(!status().every_packet);
    let before = status();
    assert_eq!((arrived(&live, "x/a", Family::V4), arrived(&live, "x/c", Family::V4)), (PACKETS, 0));
    let after = status();
    assert!(after.cache_hits - before.cache_hits > PACKETS as u64 && after.punts - before.punts < 40, "{before:?} {after:?}");
    live.down();
}
