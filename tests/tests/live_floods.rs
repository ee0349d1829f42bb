//! Floods by one pod, with one worker for all: of new flows that policy allows, of flows that it denies, of headers at random.
//! What the others open meanwhile comes about, and what is established does not notice.

use sluice_flow::Family;
use sluice_lab::{Lab, agents, probe};
use sluice_tests::live::frames::{Link, syn};
use sluice_tests::live::{Live, PacketSocket, drops, pod, policy, turn};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A pod's share, in new flows a second.
const SHARE: u64 = 2000;
const FLOOD: Duration = Duration::from_secs(2);
/// Below the first repetition of a SYN, so that each is one attempt.
const QUICK: Duration = Duration::from_millis(900);
/// What a neighbour opens during each flood.
const CONNECTIONS: usize = 40;

/// a may open everything to b and nothing else; c and d to each other. All are isolated both ways.
fn cluster() -> String {
    let pair = |from: &str, to: &str| {
        let peer = |app: &str| format!("[{{podSelector: {{matchLabels: {{app: {app}}}}}}}]");
        let out =
            format!("{{podSelector: {{matchLabels: {{app: {from}}}}}, policyTypes: [Ingress, Egress], egress: [{{to: {}}}]}}", peer(to));
        let into =
            format!("{{podSelector: {{matchLabels: {{app: {to}}}}}, policyTypes: [Ingress, Egress], ingress: [{{from: {}}}]}}", peer(from));
        policy(&format!("x/{from}"), &out) + &policy(&format!("x/{to}"), &into)
    };
    ["x/a", "x/b", "x/c", "x/d"].map(pod).concat() + &pair("a", "b") + &pair("c", "d")
}

/// Runs `flood` in pod a for [`FLOOD`], told how many it has sent; c connects to d meanwhile. Returns what was sent, and how
/// many of c's connections came about.
fn beside(lab: &Lab, flood: impl FnOnce(&AtomicBool, &AtomicU64) + Send) -> (u64, usize) {
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let d = SocketAddr::new(lab.pod_address("x/d", Family::V4).unwrap(), 80);
    std::thread::scope(|scope| {
        scope.spawn(|| flood(&stop, &sent));
        let began = Instant::now();
        let opened = lab
            .in_pod("x/c", || {
                let opened = (0..CONNECTIONS).filter(|_| {
                    std::thread::sleep(FLOOD / CONNECTIONS as u32 / 2);
                    probe::tcp(d, QUICK).outcome.reached()
                });
                Ok(opened.count())
            })
            .unwrap();
        std::thread::sleep(FLOOD.saturating_sub(began.elapsed()));
        // Relaxed: the thread looks again soon
        stop.store(true, Ordering::Relaxed);
        (sent.load(Ordering::Relaxed), opened)
    })
}

/// Datagrams to ever other ports of an address: each is a flow of its own.
fn datagrams(lab: &Lab, to: IpAddr, stop: &AtomicBool, sent: &AtomicU64) {
    lab.in_pod("x/a", || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_nonblocking(true)?;
        let mut port = 1u16;
        // Relaxed: a count and a flag
        while !stop.load(Ordering::Relaxed) {
            // a closed port's answer is an error of the next call
            let _ = socket.send_to(&[0x5a; 18], SocketAddr::new(to, port));
            port = port.checked_add(1).unwrap_or(1);
            sent.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_flood_by_one_pod_is_not_its_neighbours() {
    let Some(turn) = turn("live_floods") else { return };
    let live = Live::up(turn, "flood", &cluster(), |config| {
        config.workers = 1;
        config.dataplane_args = ["--new-flows-per-second", &SHARE.to_string()].map(String::from).into();
    });
    let [a, b, c] = ["x/a", "x/b", "x/c"].map(|pod| live.pod_address(pod, Family::V4).unwrap());
    let port_80 = SocketAddr::new(b, 80);
    let reaches_b = || live.in_pod("x/a", || Ok(probe::tcp(port_80, QUICK).outcome.reached())).unwrap();
    assert!(reaches_b());
    let rationed = || drops(live.layout(), "rationed");

    let (sent, opened) = beside(&live, |stop, sent| datagrams(&live, b, stop, sent));
    let first = rationed();
    println!("new flows: {sent} sent, {first} rationed; {opened} of {CONNECTIONS} connections of a neighbour");
    assert!(sent > 20 * SHARE && first > sent / 2, "{sent} sent, {first} rationed");
    assert_eq!(opened, CONNECTIONS);
    let of = |pod: &str| agents::ports(live.layout()).unwrap().into_iter().find(|port| port.endpoint.pod.name == pod).unwrap().rationed;
    assert!(of("a") > 0 && of("c") == 0 && of("d") == 0, "whose it is");
    std::thread::sleep(Duration::from_millis(300));
    assert!(reaches_b(), "its share is there again");

    let (sent, opened) = beside(&live, |stop, sent| datagrams(&live, c, stop, sent));
    let (second, denied) = (rationed() - first, drops(live.layout(), "policy_denied"));
    println!("denied flows: {sent} sent, {second} rationed, {denied} denied; {opened} of {CONNECTIONS} connections of a neighbour");
    assert!(second + denied > sent / 2 && denied > SHARE);
    assert_eq!(opened, CONNECTIONS);

    let link = Link::of(&live, "x/a").unwrap();
    let tap = PacketSocket::of_pod(&live.pod_netns("x/a")).unwrap();
    let (sent, opened) = beside(&live, |stop, sent| {
        let mut random = 1u64;
        // Relaxed: a count and a flag
        while !stop.load(Ordering::Relaxed) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let bytes = random.to_le_bytes();
            let mut frame = syn(link, (a, u16::from_le_bytes([bytes[0], bytes[1]])), (b, u16::from_le_bytes([bytes[2], bytes[3]])), 1);
            // flags, protocol and lengths at random
            frame[14 + usize::from(bytes[4]) % 40] = bytes[5];
            let _ = tap.send(&frame);
            sent.fetch_add(1, Ordering::Relaxed);
        }
    });
    println!(
        "headers at random: {sent} sent, {} rationed; {opened} of {CONNECTIONS} connections of a neighbour",
        rationed() - first - second
    );
    assert_eq!(opened, CONNECTIONS);
    std::thread::sleep(Duration::from_millis(300));
    assert!(reaches_b());
    assert_eq!(drops(live.layout(), "worker_overrun"), 0, "the worker was never behind");
    live.down();
}
