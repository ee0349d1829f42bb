//! What each rule let through is counted to the packet, also of connections that are over and under other tables since; and whom a
//! table cuts is listed.

use sluice_flow::{Direction, Family};
use sluice_lab::{Lab, agents};
use sluice_tests::live::node::sluicectl;
use sluice_tests::live::{Live, pod, policy, turn, until};
use sluice_wire::{CutInfo, FromDataplane, RuleCounts, ToDataplane};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

const PORT: u16 = 9000;
const FLOWS: u64 = 5;
const PACKETS: u64 = 200;
const BYTES: u64 = 100;
/// Ethernet, IPv4, UDP.
const HEADERS: u64 = 42;

/// a may ask b, by one rule at either end; `more` are other rules in front of b's, so that numbers change.
fn policies(more: usize) -> String {
    let others: String = (0..more).map(|other| format!("{{from: [{{ipBlock: {{cidr: 192.0.2.{other}/32}}}}]}}, ")).collect();
    let b = format!(
        "{{podSelector: {{matchLabels: {{app: b}}}}, policyTypes: [Ingress, Egress], \
         ingress: [{others}{{from: [{{podSelector: {{matchLabels: {{app: a}}}}}}]}}]}}"
    );
    let a = "{podSelector: {matchLabels: {app: a}}, policyTypes: [Ingress, Egress], egress: [{to: [{podSelector: {}}]}]}";
    policy("x/a-out", a) + &policy("x/b-in", &b)
}

fn rules(lab: &Lab) -> Vec<RuleCounts> {
    match agents::ask_dataplane(lab.layout(), &ToDataplane::Rules).unwrap() {
        FromDataplane::Rules { rules } => rules,
        other => panic!("{other:?}"),
    }
}

fn cuts(lab: &Lab) -> Vec<CutInfo> {
    match agents::ask_dataplane(lab.layout(), &ToDataplane::Cuts).unwrap() {
        FromDataplane::Cuts { cuts } => cuts,
        other => panic!("{other:?}"),
    }
}

/// All rules of a policy together.
fn of(lab: &Lab, policy: &str) -> RuleCounts {
    let empty = RuleCounts { rule: policy.into(), live: 0, over: 0, packets: 0, bytes: 0 };
    let all = rules(lab).into_iter().filter(|rule| rule.rule.contains(policy));
    all.fold(empty, |sum, rule| RuleCounts {
        live: sum.live + rule.live,
        over: sum.over + rule.over,
        packets: sum.packets + rule.packets,
        bytes: sum.bytes + rule.bytes,
        ..sum
    })
}

fn send(lab: &Lab) {
    let b = SocketAddr::new(lab.pod_address("x/b", Family::V4).unwrap(), PORT);
    lab.in_pod("x/a", || {
        for _ in 0..FLOWS {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            for _ in 0..PACKETS {
                socket.send_to(&[7; BYTES as usize], b)?;
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn rules_count_to_the_packet_and_cut_connections_are_listed() {
    let Some(turn) = turn("live_rules") else { return };
    let yaml = ["x/a", "x/b"].map(pod).concat() + &policies(0);
    let args = ["--udp-timeout", "2", "--scan-interval", "1"].map(String::from);
    let live = Live::up(turn, "rules", &yaml, |config| config.dataplane_args = args.into());
    let sink = live.in_pod("x/b", || Ok(UdpSocket::bind(("0.0.0.0", PORT))?)).unwrap();
    let (mut packets, mut flows) = (0, 0);
    for round in 0..3 {
        send(&live);
        (packets, flows) = (packets + FLOWS * PACKETS, flows + FLOWS);
        for policy in ["x/a-out", "x/b-in"] {
            let counts = of(&live, policy);
            assert_eq!((counts.packets, counts.live + counts.over), (packets, flows), "round {round}: {counts:?}");
        }
        // another table, other numbers
        live.apply_yaml(&policies(round + 1)).unwrap().in_force_after.unwrap();
        until("the flows are over", Duration::from_secs(12), || ["x/a-out", "x/b-in"].iter().all(|policy| of(&live, policy).live == 0));
        // what ends is shown a second later
        until("what is over is shown", Duration::from_secs(3), || of(&live, "x/b-in").over == flows);
        for policy in ["x/a-out", "x/b-in"] {
            let counts = of(&live, policy);
            println!("round {round}, {policy}: {counts:?}");
            assert_eq!((counts.packets, counts.bytes, counts.over), (packets, packets * (BYTES + HEADERS), flows), "{counts:?}");
        }
    }
    drop(sink);
    assert!(sluicectl(&live, &["get", "rules"]).contains("x/b-in"));

    // a connection that a table cuts
    assert_eq!(cuts(&live), []);
    let b = SocketAddr::new(live.pod_address("x/b", Family::V4).unwrap(), PORT);
    let listener = live.in_pod("x/b", || Ok(TcpListener::bind(("0.0.0.0", PORT))?)).unwrap();
    let stream = live.in_pod("x/a", || Ok(TcpStream::connect_timeout(&b, Duration::from_secs(2))?)).unwrap();
    let _accepted = listener.accept().unwrap();
    let nobody = policy("x/b-in", "{podSelector: {matchLabels: {app: b}}, policyTypes: [Ingress, Egress]}");
    live.apply_yaml(&nobody).unwrap().in_force_after.unwrap();
    until("it is listed", Duration::from_secs(2), || !cuts(&live).is_empty());
    let [cut] = &cuts(&live)[..] else { panic!("{:?}", cuts(&live)) };
    assert_eq!((&*cut.pod.name, cut.direction, &*cut.protocol), ("b", Direction::Ingress, "TCP"));
    assert_eq!((&cut.src, &cut.dst), (&stream.local_addr().unwrap().to_string(), &b.to_string()));
    assert!(cut.rule.as_ref().is_some_and(|rule| rule.contains("x/b-in")), "{cut:?}");
    let shown = sluicectl(&live, &["get", "cuts"]);
    assert!(shown.contains(&cut.src) && shown.contains("x/b-in"), "{shown}");
    live.down();
}
