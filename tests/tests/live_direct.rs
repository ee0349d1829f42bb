//! What is established goes straight from one pod's device to the other's: only where the kernel takes it there, only as long as it
//! does, and past nobody who looks; TCP only where connection tracking bears it.

use sluice_flow::Family;
use sluice_lab::{Lab, agents};
use sluice_tests::live::node::in_node;
use sluice_tests::live::{Live, pod, policy, turn, until};
use sluice_wire::Straight;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
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

/// A connection from a to b.
struct Call {
    client: TcpStream,
    server: TcpStream,
}

impl Call {
    fn begin(lab: &Lab, family: Family, port: u16) -> Self {
        let any = if family == Family::V4 { "0.0.0.0" } else { "::" };
        let listener = lab.in_pod("x/b", || Ok(TcpListener::bind((any, port))?)).unwrap();
        let to = SocketAddr::new(lab.pod_address("x/b", family).unwrap(), port);
        let client = lab.in_pod("x/a", || Ok(TcpStream::connect_timeout(&to, Duration::from_secs(5))?)).unwrap();
        let (server, _) = listener.accept().unwrap();
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        Self { client, server }
    }

    fn once(&mut self) {
        let mut buffer = [0; 100];
        for (from, to) in [(&self.client, &self.server), (&self.server, &self.client)] {
            let (mut from, mut to) = (from, to);
            from.write_all(&[7; 100]).unwrap();
            to.read_exact(&mut buffer).unwrap();
        }
    }

    /// Of the packets of so many questions and answers, the share that went straight.
    fn talk(&mut self, lab: &Lab, questions: usize) -> f64 {
        let counted = || agents::dataplane_status(lab.layout()).map(|status| (status.cache_hits, status.direct)).unwrap();
        let before = counted();
        for _ in 0..questions {
            std::thread::sleep(PACE);
            self.once();
        }
        let after = counted();
        // each is looked up twice
        2.0 * (after.1 - before.1) as f64 / (after.0 - before.0) as f64
    }

    /// From a to b, as fast as it goes.
    fn fill(&mut self, bytes: u64) {
        std::thread::scope(|scope| {
            let server = &mut self.server;
            let reader = scope.spawn(move || std::io::copy(&mut server.take(bytes), &mut std::io::sink()).unwrap());
            assert_eq!(std::io::copy(&mut std::io::repeat(7).take(bytes), &mut self.client).unwrap(), bytes);
            assert_eq!(reader.join().unwrap(), bytes);
        });
    }
}

/// Whether the node's tracking holds a connection to this port for established, and for more than a minute: of one that was reset
/// by a segment that it did not expect it changes the time alone.
fn is_established(lab: &Lab, port: u16) -> bool {
    let read = || Ok(std::fs::read_to_string("/proc/thread-self/net/nf_conntrack")?);
    let table = lab.node().run(read).expect("this kernel lists what it tracks");
    table.lines().filter(|line| line.contains(&format!("dport={port} "))).any(|line| {
        let mut words = line.split_whitespace().skip(4);
        words.next().and_then(|seconds| seconds.parse().ok()).is_some_and(|seconds: u32| seconds > 60)
            && words.next() == Some("ESTABLISHED")
    })
}

fn straight(lab: &Lab) -> Straight {
    agents::dataplane_status(lab.layout()).unwrap().straight
}

/// More than half of the sequence numbers: what tracking saw last is in the future then.
const MUCH: u64 = 3 << 30;

#[test]
fn tcp_goes_straight_where_tracking_bears_it_and_ends_as_it_should() {
    let Some(turn) = turn("live_direct tcp") else { return };
    let live = Live::up(turn, "directtcp", &cluster(), |config| config.dataplane_args = ["--scan-interval", "1"].map(String::from).into());
    until("tracking bears it", SHOWN, || straight(&live) == Straight::UdpAndTcp);
    // as kube-proxy does
    in_node(
        &live,
        &["nft", "add table inet t; add chain inet t f { type filter hook forward priority 0; }; add rule inet t f ct state invalid drop"],
    );
    for (family, port) in [(Family::V4, PORT + 2), (Family::V6, PORT + 3)] {
        let mut call = Call::begin(&live, family, port);
        until("the keeper has seen the pods' devices", SHOWN, || call.talk(&live, 10) > 0.0);
        let share = call.talk(&live, 500);
        println!("{family:?}: {share:.3} of TCP's packets went straight");
        assert!((0.9..=1.0).contains(&share), "{share}");
        let mut call = Call::begin(&live, family, port + 2);
        call.fill(MUCH);
        call.once();
        assert!(is_established(&live, port + 2), "tracking has seen it begin");
        // it ends although tracking has not seen the middle
        call.client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(call.server.read(&mut [0; 100]).unwrap(), 0, "{family:?}: the end arrives");
        assert!(!is_established(&live, port + 2), "{family:?}: and tracking knows");
        let mut call = Call::begin(&live, family, port + 4);
        call.fill(MUCH);
        rustix::net::sockopt::set_socket_linger(&call.client, Some(Duration::ZERO)).unwrap();
        drop(call.client);
        assert_eq!(call.server.read(&mut [0; 100]).unwrap_err().kind(), ErrorKind::ConnectionReset, "{family:?}: so does a reset");
        assert!(!is_established(&live, port + 4), "{family:?}: and tracking knows");
    }

    // where it does not bear it, all of TCP goes by the kernel
    live.node().set_sysctls(&[("netfilter/nf_conntrack_tcp_be_liberal", "0")]).unwrap();
    until("the keeper sees it", SHOWN, || straight(&live) == Straight::UdpSinceTcpIsTracked);
    let mut call = Call::begin(&live, Family::V4, PORT + 8);
    assert_eq!(call.talk(&live, 50), 0.0);
    live.node().set_sysctls(&[("netfilter/nf_conntrack_tcp_be_liberal", "1")]).unwrap();
    until("it goes straight again", SHOWN, || call.talk(&live, 20) > 0.5);
    live.down();
}

/// Tracking, which the hooks leave the memory of openers to, knows whose connection goes on when both pods become isolated: the one
/// that policy allows does, whoever speaks first, and the one against its direction does not.
#[test]
fn who_opened_a_connection_is_known_when_its_pods_become_isolated() {
    let Some(turn) = turn("live_direct openers") else { return };
    let pods = ["x/a", "x/b"].map(pod).concat();
    let live = Live::up(turn, "openers", &pods, |config| config.dataplane_args = ["--scan-interval", "1"].map(String::from).into());
    // something is tracked, and the keeper has seen that
    let first = Call::begin(&live, Family::V4, PORT);
    std::thread::sleep(Duration::from_secs(3));
    let mut calls = [1, 2].map(|offset| Call::begin(&live, Family::V4, PORT + offset));
    live.apply_yaml(&cluster()).unwrap().in_force_after.unwrap();
    // the answering end first, then the asking one
    calls[0].server.write_all(&[7]).unwrap();
    calls[0].client.read_exact(&mut [0]).unwrap();
    calls.iter_mut().for_each(Call::once);
    let a_asks_nobody = policy("x/a", "{podSelector: {matchLabels: {app: a}}, policyTypes: [Ingress, Egress]}");
    live.apply_yaml(&a_asks_nobody).unwrap().in_force_after.unwrap();
    calls[1].server.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    calls[1].client.write_all(&[7]).unwrap();
    assert!(calls[1].server.read_exact(&mut [0]).is_err(), "what policy forbids ends");
    drop(first);
    live.down();
}

#[test]
fn nothing_goes_straight_where_it_is_told_not_to() {
    let Some(turn) = turn("live_direct off") else { return };
    let args = ["--scan-interval", "1", "--direct", "off"].map(String::from);
    let live = Live::up(turn, "indirect", &cluster(), |config| config.dataplane_args = args.into());
    let talk = Talk::begin(&live, Family::V4);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((talk.talk(100), direct(&live), straight(&live)), (100, 0, Straight::Nothing));
    live.down();
}
