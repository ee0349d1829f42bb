//! Established UDP goes straight from one pod's device to the other's: only where the kernel takes it there, only as long as it
//! does, and past nobody who looks.

use sluice_flow::Family;
use sluice_lab::{Lab, agents};
use sluice_tests::live::node::in_node;
use sluice_tests::live::{Live, pod, policy, turn, until};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

const PORT: u16 = 9000;
const PACE: Duration = Duration::from_millis(2);
/// What the kernel showed counts for so long at most, and the keeper looks every second.
const SHOWN: Duration = Duration::from_secs(8);

/// a asks b; both are isolated.
fn cluster() -> String {
    let peer = |app: &str| format!("[{{podSelector: {{matchLabels: {{app: {app}}}}}}}]");
    let a = format!("{{podSelector: {{matchLabels: {{app: a}}}}, policyTypes: [Ingress, Egress], egress: [{{to: {}}}]}}", peer("b"));
    let b = format!("{{podSelector: {{matchLabels: {{app: b}}}}, policyTypes: [Ingress, Egress], ingress: [{{from: {}}}]}}", peer("a"));
    ["x/a", "x/b"].map(pod).concat() + &policy("x/a", &a) + &policy("x/b", &b)
}

/// Questions from a and their answers from b.
struct Talk {
    asks: UdpSocket,
    answers: UdpSocket,
    to: SocketAddr,
}

impl Talk {
    fn begin(lab: &Lab, family: Family) -> Self {
        // one socket of IPv6 would take both families
        let (any, port) = if family == Family::V4 { ("0.0.0.0", PORT) } else { ("::", PORT + 1) };
        let open = |pod: &str, port| {
            let socket = lab.in_pod(pod, || Ok(UdpSocket::bind((any, port))?)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            socket
        };
        let to = SocketAddr::new(lab.pod_address("x/b", family).unwrap(), port);
        Self { asks: open("x/a", 0), answers: open("x/b", port), to }
    }

    fn once(&self, bytes: usize) -> bool {
        let (sent, mut buffer) = (vec![7; bytes], vec![0; 2 * bytes]);
        self.asks.send_to(&sent, self.to).unwrap();
        let Ok((len, from)) = self.answers.recv_from(&mut buffer) else { return false };
        self.answers.send_to(&buffer[..len], from).unwrap();
        self.asks.recv(&mut buffer).is_ok_and(|len| buffer[..len] == sent)
    }

    /// How many of so many questions were answered.
    fn talk(&self, questions: usize) -> usize {
        (0..questions)
            .filter(|_| {
                std::thread::sleep(PACE);
                self.once(100)
            })
            .count()
    }
}

fn direct(lab: &Lab) -> u64 {
    agents::dataplane_status(lab.layout()).unwrap().direct
}

fn device(lab: &Lab, pod: &str) -> String {
    let ports = agents::ports(lab.layout()).unwrap();
    ports.into_iter().find(|port| format!("x/{}", port.endpoint.pod.name) == pod).expect("it is attached").host_ifname
}

#[test]
fn it_goes_straight_where_the_kernel_takes_it_and_past_nobody() {
    let Some(turn) = turn("live_direct") else { return };
    let live = Live::up(turn, "direct", &cluster(), |config| config.dataplane_args = ["--scan-interval", "1"].map(String::from).into());
    let talks = [Family::V4, Family::V6].map(|family| Talk::begin(&live, family));
    for talk in &talks {
        until("a question goes straight", SHOWN, || {
            let before = direct(&live);
            talk.once(100) && direct(&live) > before
        });
        let before = direct(&live);
        assert_eq!(talk.talk(500), 500);
        let straight = direct(&live) - before;
        println!("{}: {straight} of 1000 packets went straight", talk.to);
        assert!((900..=1000).contains(&straight), "{straight}");
        assert!(talk.once(4000), "in pieces, which go by the kernel");
    }

    // the node's firewall changes its mind: nothing passes once what it showed is over
    in_node(
        &live,
        &["nft", "add table inet t; add chain inet t f { type filter hook forward priority 0; }; add rule inet t f udp dport 9000 drop"],
    );
    until("the firewall holds", SHOWN, || !talks[0].once(100));
    assert_eq!(talks[0].talk(20), 0);
    in_node(&live, &["nft", "delete table inet t"]);
    until("it passes again", SHOWN, || talks[0].once(100));

    // a limit of the older kind at the device where what a sends comes in
    let of_a = device(&live, "x/a");
    in_node(&live, &["tc", "qdisc", "add", "dev", &of_a, "clsact"]);
    let mut last = 0;
    until("nothing goes past it", SHOWN, || {
        let before = direct(&live);
        assert!(talks[0].talk(20) >= 19);
        last = direct(&live) - before;
        last == 0
    });
    in_node(&live, &["tc", "qdisc", "del", "dev", &of_a, "clsact"]);
    until("it goes straight again", SHOWN, || {
        let before = direct(&live);
        talks[0].once(100) && direct(&live) > before
    });

    // and a policy that ends it does
    let nobody = policy("x/b", "{podSelector: {matchLabels: {app: b}}, policyTypes: [Ingress, Egress]}");
    live.apply_yaml(&nobody).unwrap().in_force_after.unwrap();
    assert_eq!(talks.map(|talk| talk.talk(20)), [0, 0]);
    live.down();
}

#[test]
fn nothing_goes_straight_where_it_is_told_not_to() {
    let Some(turn) = turn("live_direct off") else { return };
    let args = ["--scan-interval", "1", "--direct", "off"].map(String::from);
    let live = Live::up(turn, "indirect", &cluster(), |config| config.dataplane_args = args.into());
    let talk = Talk::begin(&live, Family::V4);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((talk.talk(100), direct(&live)), (100, 0));
    live.down();
}
