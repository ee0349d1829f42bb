//! Datagrams that are larger than the pods' MTU, as their stacks cut them: between pods, to a service, in both families.

use sluice_flow::Family;
use sluice_lab::{Lab, agents};
use sluice_tests::live::frames::{Link, addresses, udp};
use sluice_tests::live::{Live, PacketSocket, drops, pod, policy, turn, until};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

const QUICK: Duration = Duration::from_millis(400);
/// Three pieces at an MTU of 1500.
const BYTES: usize = 4000;
const PORT: u16 = 80;
/// Where b's server does not listen.
const SINK: u16 = 81;

/// b takes UDP 80 from a alone; a leaves for b alone; c is not isolated.
fn cluster() -> String {
    let from_a = "[{podSelector: {matchLabels: {app: a}}}]";
    let b = format!(
        "{{podSelector: {{matchLabels: {{app: b}}}}, ingress: [{{from: {from_a}, ports: [{{port: {PORT}, endPort: {SINK}, protocol: UDP}}]}}]}}"
    );
    let a =
        "{podSelector: {matchLabels: {app: a}}, policyTypes: [Ingress, Egress], egress: [{to: [{podSelector: {matchLabels: {app: b}}}]}]}";
    let service = format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: b, namespace: x}}\nspec: {{selector: {{app: b}}, ports: [{{port: {PORT}, protocol: UDP}}]}}\n"
    );
    ["x/a", "x/b", "x/c"].map(pod).concat() + &service + &policy("x/b", &b) + &policy("x/a", a)
}

/// Sends so many datagrams of [`BYTES`] from one socket; how many are echoed whole.
fn echoed(lab: &Lab, from: &str, to: IpAddr, count: usize) -> usize {
    lab.in_pod(from, || {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        socket.connect(SocketAddr::new(to, PORT))?;
        socket.set_read_timeout(Some(QUICK))?;
        let (sent, mut buffer, mut whole) = (vec![0x5a; BYTES], vec![0; 2 * BYTES], 0);
        for _ in 0..count {
            socket.send(&sent)?;
            // an echo begins with the pod's name
            whole += usize::from(socket.recv(&mut buffer).is_ok_and(|bytes| bytes > BYTES && buffer[..bytes].ends_with(&sent)));
        }
        Ok(whole)
    })
    .unwrap_or_else(|error| panic!("{from} to {to}: {error:#}"))
}

/// An IPv4 datagram in pieces of 1000 bytes.
fn pieces(frame: &[u8], id: u16) -> Vec<Vec<u8>> {
    const PIECE: usize = 1000;
    const HEADERS: usize = 34;
    let (head, body) = frame.split_at(HEADERS);
    let piece = |(number, part): (usize, &[u8])| {
        let mut piece = [head, part].concat();
        let more = HEADERS + number * PIECE + part.len() < frame.len();
        piece[16..18].copy_from_slice(&((20 + part.len()) as u16).to_be_bytes());
        piece[18..20].copy_from_slice(&id.to_be_bytes());
        piece[20..22].copy_from_slice(&((number * PIECE / 8) as u16 | u16::from(more) << 13).to_be_bytes());
        piece[24..26].fill(0);
        let sum: u32 = piece[14..HEADERS].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        piece[24..26].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
        piece
    };
    body.chunks(PIECE).enumerate().map(piece).collect()
}

/// Datagrams whose pieces leave a in this order, as many as arrive at b whole.
fn arrived(lab: &Lab, order: &[usize], first_id: u16, count: u16) -> usize {
    let (a, _) = addresses(lab, "x/a").unwrap();
    let (b, _) = addresses(lab, "x/b").unwrap();
    let link = Link::of(lab, "x/a").unwrap();
    let tap = PacketSocket::of_pod(&lab.pod_netns("x/a")).unwrap();
    let receiver = lab.in_pod("x/b", || Ok(UdpSocket::bind(("0.0.0.0", SINK))?)).unwrap();
    receiver.set_read_timeout(Some(QUICK)).unwrap();
    let payload = vec![0x5a; BYTES];
    let mut whole = 0;
    for number in 0..count {
        // each other one of a new flow: its first piece meets the worker, the others' are let pass by the cache
        let frame = udp(link, (a.into(), 4000 + number / 2), (b.into(), SINK), &payload);
        let pieces = pieces(&frame, first_id + number);
        for &piece in order {
            tap.send(&pieces[piece]).unwrap();
        }
        let mut buffer = vec![0; 2 * BYTES];
        whole += usize::from(receiver.recv(&mut buffer).is_ok_and(|len| buffer[..len] == payload));
    }
    whole
}

#[test]
fn pieces_in_any_order_arrive() {
    let Some(turn) = turn("live_fragments order") else { return };
    let live = Live::up(turn, "order", &cluster(), |_| {});
    for (round, order) in [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 4, 0, 1, 3], [1, 0, 2, 3, 4]].into_iter().enumerate() {
        let whole = arrived(&live, &order, round as u16 * 100, 20);
        println!("pieces in the order {order:?}: {whole} of 20 datagrams arrive");
        assert_eq!(whole, 20, "{order:?}");
    }
    // one that never gets its first is dropped in time, and said
    assert_eq!(arrived(&live, &[1, 2, 3], 5000, 1), 0);
    until("the pieces are given up", Duration::from_secs(5), || drops(live.layout(), "fragment_unmatched") == 3);
    live.down();
}

#[test]
fn large_datagrams_pass_whole_where_policy_lets_them_and_not_at_all_where_not() {
    let Some(turn) = turn("live_fragments") else { return };
    let live = Live::up(turn, "frag", &cluster(), |_| {});
    for family in [Family::V4, Family::V6] {
        let b = live.pod_address("x/b", family).unwrap();
        let c = live.pod_address("x/c", family).unwrap();
        let service = live.service("x/b").unwrap().address(family).unwrap();
        // the first of them meets the worker, the others the cache
        assert_eq!(echoed(&live, "x/a", b, 20), 20, "{family:?} a to b");
        assert_eq!(echoed(&live, "x/a", service, 20), 20, "{family:?} a to b's service");
        assert_eq!(echoed(&live, "x/a", c, 2), 0, "{family:?} a to c: a may not");
        assert_eq!(echoed(&live, "x/c", b, 2), 0, "{family:?} c to b: b does not take it");
        assert_eq!(echoed(&live, "x/c", service, 2), 0, "{family:?} c to b's service");
    }
    let status = agents::dataplane_status(live.layout()).unwrap();
    assert!(status.cache_hits > 200, "{status:?}");
    assert!(drops(live.layout(), "policy_denied") > 0 && drops(live.layout(), "exit_unjudged") == 0);
    live.down();
}
