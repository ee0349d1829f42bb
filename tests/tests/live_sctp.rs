//! Associations on live traffic: the kernel here has no SCTP, so both ends are played with frames, handshake and all.

use sluice_flow::Family;
use sluice_lab::agents;
use sluice_tests::live::frames::{Link, What, arrivals, sctp};
use sluice_tests::live::{Live, PacketSocket, drops, pod, policy, turn};
use std::net::IpAddr;
use std::time::Duration;

const QUICK: Duration = Duration::from_millis(300);
const OPEN: u16 = 3868;
const SHUT: u16 = 3869;
/// Types of chunks. Source: RFC 9260, 3.2.
const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const ABORT: u8 = 6;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;

/// b takes SCTP from a at one port, and opens nothing; nobody else is isolated.
fn cluster() -> String {
    let b = policy(
        "x/b",
        &format!(
            "{{podSelector: {{matchLabels: {{app: b}}}}, policyTypes: [Ingress, Egress], \
             ingress: [{{from: [{{podSelector: {{matchLabels: {{app: a}}}}}}], ports: [{{port: {OPEN}, protocol: SCTP}}]}}]}}"
        ),
    );
    ["x/a", "x/b", "x/c"].map(pod).concat() + &b
}

/// A pod whose stack is played.
struct End {
    link: Link,
    tap: PacketSocket,
    address: IpAddr,
}

impl End {
    fn of(live: &Live, name: &str, family: Family) -> Self {
        let address = live.pod_address(name, family).unwrap();
        Self { link: Link::of(live, name).unwrap(), tap: PacketSocket::of_pod(&live.pod_netns(name)).unwrap(), address }
    }

    /// Sends one packet; whether it arrives at the other end.
    fn reaches(&self, other: &Self, ports: [u16; 2], chunks: &[u8]) -> bool {
        self.tap.send(&sctp(self.link, (self.address, ports[0]), (other.address, ports[1]), chunks)).unwrap();
        let expected = What::Sctp(ports[0], ports[1], chunks[0]);
        arrivals(&other.tap, QUICK).unwrap().iter().any(|arrival| arrival.src == self.address && arrival.what == expected)
    }
}

#[test]
fn an_association_passes_where_policy_lets_it_and_begins_with_init_only() {
    let Some(turn) = turn("live_sctp") else { return };
    let live = Live::up(turn, "sctp", &cluster(), |_| {});
    for family in [Family::V4, Family::V6] {
        let [a, b, c] = ["x/a", "x/b", "x/c"].map(|name| End::of(&live, name, family));
        assert!(!a.reaches(&b, [4000, OPEN], &[DATA]), "{family:?}: nothing before its INIT");
        assert!(a.reaches(&b, [4000, OPEN], &[INIT]), "{family:?}: INIT");
        assert!(b.reaches(&a, [OPEN, 4000], &[INIT_ACK]), "{family:?}: INIT ACK");
        assert!(a.reaches(&b, [4000, OPEN], &[COOKIE_ECHO, DATA]), "{family:?}: COOKIE ECHO");
        assert!(b.reaches(&a, [OPEN, 4000], &[COOKIE_ACK]), "{family:?}: COOKIE ACK");
        assert!(a.reaches(&b, [4000, OPEN], &[DATA]) && b.reaches(&a, [OPEN, 4000], &[DATA]), "{family:?}: DATA");
        assert!(!b.reaches(&a, [OPEN, 4000], &[INIT]), "{family:?}: an answer is no beginning");
        assert!(!b.reaches(&a, [5000, 5000], &[INIT]), "{family:?}: b opens nothing");
        assert!(!a.reaches(&b, [4001, SHUT], &[INIT]) && !a.reaches(&b, [4001, SHUT], &[INIT]), "{family:?}: another port");
        assert!(!c.reaches(&b, [4000, OPEN], &[INIT]), "{family:?}: somebody else");
        assert!(a.reaches(&c, [4000, SHUT], &[INIT]), "{family:?}: who is not isolated takes everything");
        // the same ports again, after the association was ended
        assert!(a.reaches(&b, [4000, OPEN], &[ABORT]), "{family:?}: ABORT");
        assert!(a.reaches(&b, [4000, OPEN], &[INIT]) && b.reaches(&a, [OPEN, 4000], &[INIT_ACK]), "{family:?}: once more");
    }
    let status = agents::dataplane_status(live.layout()).unwrap();
    assert!(status.cache_hits > 0, "the kernel carries what is known: {status:?}");
    for reason in ["policy_denied", "mid_flow_unknown"] {
        assert!(drops(live.layout(), reason) > 0, "{reason}");
    }
    let connections = agents::connections(live.layout(), 100).unwrap();
    assert!(connections.iter().any(|connection| connection.protocol == "SCTP" && connection.dst.ends_with(":3868")), "{connections:?}");
    live.down();
}
