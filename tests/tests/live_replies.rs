//! A cached reply never admits a new connection, and nobody speaks in another's name: frames made by hand inside the pods,
//! and taps that show what really arrived.

use sluice_flow::Family;
use sluice_lab::{Lab, probe};
use sluice_tests::live::frames::{self, Arrival, Link, What, addresses, arrivals};
use sluice_tests::live::{Live, PacketSocket, drops, pod, policy, turn, until};
use sluice_tests::traffic::{UdpFlows, UdpPlan, wildcard};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
/// How long a tap waits for what should not come.
const QUIET: Duration = Duration::from_millis(150);
const QUICK: Duration = Duration::from_millis(400);
const FLOOD: usize = 500;

/// a may open to b and to nobody else, nobody may open to a; b may open to nobody; c is isolated by nothing.
fn cluster() -> String {
    let base = policy("x/base", "{podSelector: {matchLabels: {app: a}}, policyTypes: [Ingress, Egress]}") + &b_leaving("[Ingress, Egress]");
    let to = policy(
        "x/a-to-b",
        "{podSelector: {matchLabels: {app: a}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: b}}}]}]}",
    );
    let from = policy("x/b-from-a", "{podSelector: {matchLabels: {app: b}}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}]}]}");
    ["x/a", "x/b", "x/c"].map(pod).concat() + &base + &to + &from
}

/// With egress, what b may not open is stopped where it leaves b; without, where it would enter a.
fn b_leaving(types: &str) -> String {
    policy("x/b-base", &format!("{{podSelector: {{matchLabels: {{app: b}}}}, policyTypes: {types}}}"))
}

/// A pod with a raw socket on its device.
struct End {
    address: IpAddr,
    link: Link,
    wire: PacketSocket,
}

impl End {
    fn of(lab: &Lab, pod: &str, family: Family) -> Self {
        let wire = PacketSocket::of_pod(&lab.pod_netns(pod)).unwrap();
        Self { address: lab.pod_address(pod, family).unwrap(), link: Link::of(lab, pod).unwrap(), wire }
    }

    /// What arrived from that address.
    fn heard(&self, from: IpAddr) -> Vec<What> {
        let heard = arrivals(&self.wire, QUIET).unwrap();
        heard.into_iter().filter(|arrival| arrival.src == from).map(|Arrival { what, .. }| what).collect()
    }
}

fn socket(lab: &Lab, pod: &str, address: IpAddr, port: u16) -> UdpSocket {
    let socket = lab.in_pod(pod, || Ok(UdpSocket::bind((address, port))?)).unwrap();
    socket.set_read_timeout(Some(QUICK)).unwrap();
    socket
}

fn gets(socket: &UdpSocket) -> bool {
    socket.recv(&mut [0; 64]).is_ok()
}

#[test]
fn replies_are_only_replies() {
    let Some(turn) = turn("live_replies") else { return };
    let live = Live::up(turn, "rep", &cluster(), |_| {});
    for (types, port) in [("[Ingress, Egress]", 5100), ("[Ingress]", 5200)] {
        live.apply_yaml(&b_leaving(types)).unwrap();
        println!("b isolated for {types}");
        for family in FAMILIES {
            let (a, b) = (End::of(&live, "x/a", family), End::of(&live, "x/b", family));
            reversed_syn_is_a_new_connection(&live, family, &a, &b);
            an_ack_from_nowhere_is_no_connection(&live, family, &a, &b);
            reversed_echo_request_is_a_new_question(&live, family, &a, &b, port);
            a_denial_against_the_direction_hurts_nobody(&live, family, &a, &b, port);
        }
    }
    live.down();
}

/// B connects from port 80 to the very port from which A is connected to B's port 80.
fn reversed_syn_is_a_new_connection(live: &Live, family: Family, a: &End, b: &End) {
    let listener = live.in_pod("x/b", || Ok(TcpListener::bind((wildcard(b.address), 8000))?)).unwrap();
    let mut near = live.in_pod("x/a", || Ok(TcpStream::connect((b.address, 8000))?)).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    let used = near.local_addr().unwrap().port();
    a.heard(b.address);
    let before = drops(live.layout(), "policy_denied");
    for sequence in 0..5 {
        b.wire.send(&frames::syn(b.link, (b.address, 8000), (a.address, used), sequence)).unwrap();
    }
    let heard = a.heard(b.address);
    assert!(!heard.iter().any(|what| matches!(what, What::Syn(..))), "{family:?}: {heard:?}");
    assert_eq!(drops(live.layout(), "policy_denied") - before, 5, "{family:?}");
    // the connection itself goes on, both ways
    assert!(echoes(&mut near, &mut far) && echoes(&mut far, &mut near), "{family:?}: the connection after the SYNs against it");
    // nor is it a door once A has closed and listens there itself
    drop((near, far));
    std::thread::sleep(Duration::from_millis(50));
    a.heard(b.address);
    b.wire.send(&frames::syn(b.link, (b.address, 8000), (a.address, used), 77)).unwrap();
    assert!(!a.heard(b.address).contains(&What::Syn(8000, used)), "{family:?}: after the connection was closed");
}

/// TCP in mid-flow of a connection that nobody opened.
fn an_ack_from_nowhere_is_no_connection(live: &Live, family: Family, a: &End, b: &End) {
    a.heard(b.address);
    let before = drops(live.layout(), "mid_flow_unknown");
    for port in [81, 82, 83] {
        b.wire.send(&frames::ack(b.link, (b.address, 80), (a.address, port))).unwrap();
    }
    assert_eq!(a.heard(b.address), [], "{family:?}");
    assert_eq!(drops(live.layout(), "mid_flow_unknown") - before, 3, "{family:?}");
}

fn echoes(from: &mut TcpStream, to: &mut TcpStream) -> bool {
    use std::io::{Read, Write};
    to.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let mut word = [0; 4];
    from.write_all(b"word").is_ok() && to.read_exact(&mut word).is_ok() && word == *b"word"
}

/// A pings B; B pings back with the same identifier.
fn reversed_echo_request_is_a_new_question(live: &Live, family: Family, a: &End, b: &End, id: u16) {
    a.heard(b.address);
    a.wire.send(&frames::echo(a.link, a.address, b.address, id, 1, true)).unwrap();
    assert_eq!(a.heard(b.address), [What::EchoReply(id)], "{family:?}: the allowed ping");
    let before = drops(live.layout(), "policy_denied");
    b.wire.send(&frames::echo(b.link, b.address, a.address, id, 2, true)).unwrap();
    assert_eq!(a.heard(b.address), [], "{family:?}: the ping back");
    assert_eq!(drops(live.layout(), "policy_denied") - before, 1, "{family:?}");
    // a reply to a question that nobody asked
    let before = drops(live.layout(), "reply_to_nothing");
    b.wire.send(&frames::echo(b.link, b.address, a.address, id + 1, 1, false)).unwrap();
    assert_eq!(a.heard(b.address), [], "{family:?}: an answer to nothing");
    assert_eq!(drops(live.layout(), "reply_to_nothing") - before, 1, "{family:?}");
    a.wire.send(&frames::echo(a.link, a.address, b.address, id, 3, true)).unwrap();
    assert_eq!(a.heard(b.address), [What::EchoReply(id)], "{family:?}: the allowed ping goes on");
}

/// B's denied datagrams go exactly against a flow that A opens later.
fn a_denial_against_the_direction_hurts_nobody(live: &Live, family: Family, a: &End, b: &End, port: u16) {
    let (asker, answerer) = (socket(live, "x/a", a.address, port), socket(live, "x/b", b.address, port));
    for _ in 0..5 {
        answerer.send_to(b"x", (a.address, port)).unwrap();
    }
    assert!(!gets(&asker), "{family:?}: denied");
    asker.send_to(b"x", (b.address, port)).unwrap();
    assert!(gets(&answerer), "{family:?}: the request");
    answerer.send_to(b"x", (a.address, port)).unwrap();
    assert!(gets(&asker), "{family:?}: the answer, after denials of its very addresses and ports");
}

#[test]
fn a_udp_answer_after_its_flow_expired_is_a_new_flow() {
    let Some(turn) = turn("live_replies expiry") else { return };
    let arguments = ["--udp-timeout", "2", "--scan-interval", "1"].map(String::from);
    let live = Live::up(turn, "exp", &cluster(), |config| config.dataplane_args = arguments.into());
    let ends: Vec<_> = FAMILIES
        .iter()
        .map(|family| {
            let (a, b) = (live.pod_address("x/a", *family).unwrap(), live.pod_address("x/b", *family).unwrap());
            (a, b, socket(&live, "x/a", a, 5000), socket(&live, "x/b", b, 6000))
        })
        .collect();
    for (a, b, asker, answerer) in &ends {
        asker.send_to(b"x", (*b, 6000)).unwrap();
        assert!(gets(answerer), "{b}: the request");
        std::thread::sleep(Duration::from_millis(1000));
        answerer.send_to(b"x", (*a, 5000)).unwrap();
        assert!(gets(asker), "{a}: the answer in time");
    }
    // idle for longer than the flow may be: once looked at by the hook alone, once after the keeper's scan
    std::thread::sleep(Duration::from_millis(2300));
    for (a, _, asker, answerer) in &ends {
        let before = drops(live.layout(), "policy_denied");
        answerer.send_to(b"x", (*a, 5000)).unwrap();
        assert!(!gets(asker), "{a}: an answer after the flow expired");
        assert_eq!(drops(live.layout(), "policy_denied") - before, 1, "{a}");
    }
    for (a, b, asker, answerer) in &ends {
        asker.send_to(b"x", (*b, 6000)).unwrap();
        assert!(gets(answerer), "{b}: a new request");
        answerer.send_to(b"x", (*a, 5000)).unwrap();
        assert!(gets(asker), "{a}: its answer");
    }
    live.down();
}

/// Sends frames from C and expects every one of them dropped under that name.
fn all_dropped(live: &Live, wire: &PacketSocket, what: &str, reason: &str, frames: impl IntoIterator<Item = Vec<u8>>) {
    let before = drops(live.layout(), reason);
    let mut sent = 0;
    for frame in frames {
        wire.send(&frame).unwrap();
        sent += 1;
    }
    let counted = || drops(live.layout(), reason) - before;
    until(what, Duration::from_secs(2), || counted() >= sent);
    assert_eq!(counted(), sent, "{what}");
    println!("{what}: {sent} frames, all dropped as {reason}");
}

#[test]
fn nobody_speaks_in_anothers_name() {
    let Some(turn) = turn("live_replies spoofing") else { return };
    let live = Live::up(turn, "spoof", &cluster(), |_| {});
    for family in FAMILIES {
        let (b, c) = (End::of(&live, "x/b", family), End::of(&live, "x/c", family));
        let a = live.pod_address("x/a", family).unwrap();
        let plan = UdpPlan { port: 9000, flows: 20, packets_per_second: 2000, answer_every: 1 };
        let victim = UdpFlows::start(&live, "x/a", "x/b", family, plan).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        // every port that the victim may be using, towards the very port that it talks to
        let ports = (0..FLOOD as u16).map(|index| 32_768 + index * 50);
        let floods = ports.clone().map(|port| frames::udp(c.link, (a, port), (b.address, 9000), b"not from a, by any means"));
        all_dropped(&live, &c.wire, &format!("{family:?} UDP in A's name"), "spoofed_address", floods);
        let floods = ports.map(|port| frames::syn(c.link, (a, port), (b.address, 80), 1));
        all_dropped(&live, &c.wire, &format!("{family:?} SYN in A's name"), "spoofed_address", floods);
        let heard = arrivals(&b.wire, QUIET).unwrap();
        assert!(!heard.iter().any(|arrival| matches!(arrival.what, What::Syn(..))), "{family:?}: a forged SYN arrived");
        // C itself may not reach B, and its denials are its own
        for port in [9000, 9001] {
            let own = frames::udp(c.link, (c.address, 1), (b.address, port), b"x");
            all_dropped(&live, &c.wire, &format!("{family:?} C to B"), "policy_denied", vec![own; 20]);
        }
        let mine = Link { pod: [2, 0, 0, 0, 0, 9], ..c.link };
        let forged = frames::udp(mine, (c.address, 1), (b.address, 9000), b"x");
        all_dropped(&live, &c.wire, &format!("{family:?} a foreign source MAC"), "spoofed_mac", vec![forged; 10]);
        assert!(reaches_new(&live, b.address), "{family:?}: A opens a new connection to B after all that");
        let report = victim.finish().unwrap();
        report.assert_whole();
        println!("{family:?}: meanwhile A to B {} datagrams and {} answers, none lost", report.received, report.answers_received);
    }
    live.down();
}

fn reaches_new(live: &Live, to: IpAddr) -> bool {
    live.in_pod("x/a", || Ok(probe::tcp(SocketAddr::new(to, 80), QUICK).outcome.reached())).unwrap()
}

#[test]
fn forged_neighbours_and_routers_have_no_effect() {
    let Some(turn) = turn("live_replies neighbours") else { return };
    let live = Live::up(turn, "neigh", &cluster(), |_| {});
    let c = End::of(&live, "x/c", Family::V4);
    let (b4, b6) = addresses(&live, "x/b").unwrap();
    let (_, c6) = addresses(&live, "x/c").unwrap();
    let node6 = "fd88::1".parse().unwrap();
    let claims = [frames::arp_claim(c.link, c.link.pod, b4, false), frames::arp_claim(c.link, c.link.pod, b4, true)];
    all_dropped(&live, &c.wire, "gratuitous ARP for B's address", "spoofed_arp", claims.into_iter().cycle().take(10));
    let foreign = frames::arp_claim(c.link, [2, 0, 0, 0, 0, 9], "10.88.0.1".parse().unwrap(), true);
    all_dropped(&live, &c.wire, "ARP for the gateway's address", "spoofed_arp", vec![foreign; 5]);
    let claim = frames::neighbour_claim(c.link, c6, node6, b6, c.link.pod);
    all_dropped(&live, &c.wire, "neighbour advertisement for B's address", "spoofed_neighbour", vec![claim; 10]);
    let claim = frames::neighbour_claim(c.link, c6, node6, c6, [2, 0, 0, 0, 0, 9]);
    all_dropped(&live, &c.wire, "neighbour advertisement with a foreign MAC", "spoofed_neighbour", vec![claim; 5]);
    let claim = frames::neighbour_claim(c.link, b6, node6, b6, c.link.pod);
    all_dropped(&live, &c.wire, "neighbour advertisement in B's name", "spoofed_neighbour", vec![claim; 5]);
    all_dropped(&live, &c.wire, "router advertisement", "rogue_router", vec![frames::router_advertisement(c.link); 10]);
    // the node believed none of it
    let device = live.pod("x/c").unwrap().host_ifname;
    let neighbours = frames::ip_json(&live.node(), &["neigh", "show", "dev", &device]).unwrap();
    for address in [b4.to_string(), b6.to_string()] {
        let known = neighbours.as_array().unwrap().iter().any(|entry| entry["dst"] == address.as_str());
        assert!(!known, "the node looks for {address} behind C's device: {neighbours}");
    }
    let routes = frames::ip_json(&live.node(), &["-6", "route", "show", "default"]).unwrap();
    assert!(routes.as_array().is_none_or(Vec::is_empty), "{routes}");
    for family in FAMILIES {
        assert!(reaches_new(&live, live.pod_address("x/b", family).unwrap()), "{family:?}: A still finds B");
    }
    live.down();
}
