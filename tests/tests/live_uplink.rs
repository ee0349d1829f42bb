//! What was denied before is dropped on the NIC. The NIC is a veth here, whose driver runs XDP natively, too: what this costs or
//! spares on hardware is not told by it.

use sluice_flow::Family;
use sluice_lab::{ClusterConfig, agents, probe};
use sluice_tests::live::{Live, drops, pod_on, policy, program, turn};
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

const QUICK: Duration = Duration::from_millis(500);
const PACKETS: u64 = 2000;

/// On node2, b takes what comes from a alone; a and c are on node1.
fn cluster() -> String {
    let c = "---\napiVersion: v1\nkind: Service\nmetadata: {name: c, namespace: x}\n\
             spec: {selector: {app: c}, ports: [{port: 80, protocol: UDP}]}\n";
    ["x/a", "x/c"].map(|name| pod_on("node1", name)).concat() + &pod_on("node2", "x/b") + c + &b_takes("a")
}

fn b_takes(app: &str) -> String {
    policy(
        "x/b",
        &format!("{{podSelector: {{matchLabels: {{app: b}}}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{app: {app}}}}}}}]}}]}}"),
    )
}

#[test]
fn what_was_denied_before_is_dropped_on_the_nic() {
    let Some(turn) = turn("live_uplink") else { return };
    let live = Live::up(turn, "uplink", &cluster(), |config| {
        config.cluster = Some(ClusterConfig::default());
        config.dataplane_args = ["--uplink", "uplink,nowhere"].map(String::from).into();
    });
    let node2 = live.at("node2");
    let status = || agents::dataplane_status(&node2).unwrap();
    let [uplink, nowhere] = &status().uplinks[..] else { panic!("{:?}", status().uplinks) };
    assert!(uplink.runs && uplink.native && !uplink.zero_copy && uplink.trouble.is_none(), "{uplink:?}");
    assert!(!nowhere.runs && nowhere.trouble.is_some(), "{nowhere:?}");
    let output = Command::new(program("sluicectl")).arg("--run-dir").arg(node2.run_dir()).arg("status").output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("uplink: native XDP") && shown.contains("nowhere: no such device"), "{shown}");

    for family in [Family::V4, Family::V6] {
        let b = live.pod_address("x/b", family).unwrap();
        let reaches = |from: &str| live.in_pod(from, || Ok(probe::tcp(SocketAddr::new(b, 80), QUICK).outcome.reached())).unwrap();
        assert!(reaches("x/a") && !reaches("x/c"), "{family:?}");
        let any = if family == Family::V4 { "0.0.0.0:0" } else { "[::]:0" };
        let (before, denied) = (status(), drops(&node2, "policy_denied"));
        live.in_pod("x/c", || {
            let socket = UdpSocket::bind(any)?;
            (0..PACKETS).for_each(|_| drop(socket.send_to(&[0; 64], SocketAddr::new(b, 53))));
            Ok(())
        })
        .unwrap();
        std::thread::sleep(QUICK);
        let (there, all) = (status().uplink_drops - before.uplink_drops, drops(&node2, "policy_denied") - denied);
        println!("{family:?}: {all} of {PACKETS} denied, {there} of them on the NIC");
        assert!(all == PACKETS && there > PACKETS * 9 / 10, "{all}, {there}");
        // answers by a service come from c, too, and are the service's when b's hook sees them
        let service = live.service("x/c").unwrap().address(family).unwrap();
        let answered = live.in_pod("x/b", || {
            let socket = UdpSocket::bind(any)?;
            socket.set_read_timeout(Some(QUICK))?;
            let ask = |_: &u32| socket.send_to(b"who", SocketAddr::new(service, 80)).is_ok() && socket.recv(&mut [0; 64]).is_ok();
            Ok((0..20).filter(ask).count())
        });
        assert_eq!(answered.unwrap(), 20, "{family:?}");
        assert!(reaches("x/a") && !reaches("x/c"), "{family:?}");
    }
    // what a new table allows passes there at once
    live.apply_yaml(&b_takes("c")).unwrap().in_force_after.unwrap();
    let b = SocketAddr::new(live.pod_address("x/b", Family::V4).unwrap(), 80);
    for (from, expected) in [("x/c", true), ("x/a", false)] {
        assert_eq!(live.in_pod(from, || Ok(probe::tcp(b, QUICK).outcome.reached())).unwrap(), expected, "{from}");
    }
    live.down();
}
