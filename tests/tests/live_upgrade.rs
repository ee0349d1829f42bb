//! Upgraded and taken back under traffic: between this build's dataplane and that of another ABI version, several times each
//! way, by SIGTERM and by kill -9. What is allowed loses nothing, what is forbidden never passes, and the connections are
//! those of before.

use sluice_flow::Family;
use sluice_lab::{Agent, Lab, agents, probe};
use sluice_tests::live::{Live, drops, pod, policy, program, turn, until};
use sluice_tests::traffic::{TcpPlan, TcpStreams, UdpFlows, UdpPlan, median_and_max, ms, wildcard};
use sluice_wire::{ConnectionInfo, DataplaneStatus};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const ROUNDS: usize = 4;
const FLOWS: UdpPlan = UdpPlan { port: 9000, flows: 1000, packets_per_second: 50_000, answer_every: 16 };
const STREAMS: TcpPlan = TcpPlan { port: 9001, streams: 8, bytes_per_second: 2 << 20 };
const FORBIDDEN_PORT: u16 = 9300;
const UNTRIED_PORT: u16 = 10_000;
const ASKED_PORT: u16 = 9200;
const QUICK: Duration = Duration::from_millis(400);

/// a may open to b on these ports, b to nobody, and nobody else to either.
fn cluster() -> String {
    let base = policy("x/base", "{podSelector: {}, policyTypes: [Ingress, Egress]}");
    let from = policy("x/b-from-a", "{podSelector: {matchLabels: {app: b}}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}]}]}");
    let ports: Vec<String> = [80, 9000, 9001, ASKED_PORT]
        .iter()
        .flat_map(|port| [format!("{{port: {port}}}"), format!("{{port: {port}, protocol: UDP}}")])
        .collect();
    let gate = policy(
        "x/a-to-b",
        &format!(
            "{{podSelector: {{matchLabels: {{app: a}}}}, policyTypes: [Egress], \
             egress: [{{to: [{{podSelector: {{matchLabels: {{app: b}}}}}}], ports: [{}]}}]}}",
            ports.join(", ")
        ),
    );
    ["x/a", "x/b"].map(pod).concat() + &base + &from + &gate
}

/// Programs of this build by symbolic links, so that the dataplane can be another one at the next start.
struct Programs(tempfile::TempDir);

impl Programs {
    fn new() -> Self {
        let own = program("sluice-dataplane");
        let dir = tempfile::tempdir().unwrap();
        for name in ["sluice-control", "sluice-cni", "sluicectl", "sluice-lab"] {
            symlink(program(name), dir.path().join(name)).unwrap();
        }
        let programs = Self(dir);
        programs.install(&own);
        programs
    }

    fn install(&self, dataplane: &Path) {
        let (new, name) = (self.0.path().join("new"), self.0.path().join("sluice-dataplane"));
        symlink(dataplane, &new).unwrap();
        std::fs::rename(new, name).unwrap();
    }
}

/// What `make abi-next` builds beside this build.
fn next_program() -> PathBuf {
    let own = program("sluice-dataplane");
    let profile = own.parent().unwrap();
    let next = profile.parent().unwrap().join("abi-next").join(profile.file_name().unwrap()).join("sluice-dataplane");
    assert!(next.exists(), "{} is not there; run: make abi-next", next.display());
    next
}

fn reaches(lab: &Lab, from: &str, to: (IpAddr, u16)) -> bool {
    lab.in_pod(from, || Ok(probe::tcp(SocketAddr::from(to), QUICK).outcome.reached())).unwrap()
}

/// Datagrams that must not arrive, one a millisecond: every second one to one of eight ports in turn, where it meets a cached
/// denial, the others to ports that were never tried before. Where nobody listens, the pod's kernel counts what arrives.
struct Forbidden {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<u64>,
    listeners: Vec<UdpSocket>,
}

impl Forbidden {
    fn start(lab: &Lab, from: &str, to: &str, family: Family) -> Self {
        let address = lab.pod_address(to, family).unwrap();
        let ports: Vec<u16> = (FORBIDDEN_PORT..).take(8).collect();
        let listen = |port: &u16| Ok(UdpSocket::bind((wildcard(address), *port))?);
        let listeners: Vec<UdpSocket> = lab.in_pod(to, || ports.iter().map(listen).collect()).unwrap();
        let socket = lab.in_pod(from, || Ok(UdpSocket::bind((wildcard(address), 0))?)).unwrap();
        let stop = Arc::<AtomicBool>::default();
        let seen = stop.clone();
        let sender = std::thread::spawn(move || {
            let mut sent = 0;
            let begin = Instant::now();
            while !seen.load(Ordering::Relaxed) {
                if u128::from(sent) < begin.elapsed().as_millis() {
                    let known = ports[sent as usize / 2 % ports.len()];
                    let port = if sent % 2 == 0 { known } else { UNTRIED_PORT + (sent % 50_000) as u16 };
                    sent += u64::from(socket.send_to(b"forbidden", (address, port)).is_ok());
                    continue;
                }
                std::thread::sleep(Duration::from_micros(300));
            }
            sent
        });
        Self { stop, sender, listeners }
    }

    /// Sent, and arrived.
    fn finish(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        let (mut arrived, mut buffer) = (0, [0; 64]);
        for listener in &self.listeners {
            listener.set_nonblocking(true).unwrap();
            while listener.recv(&mut buffer).is_ok() {
                arrived += 1;
            }
        }
        (sent, arrived)
    }
}

/// Datagrams that arrived in a pod where nobody listens.
fn to_nobody(lab: &Lab, pod: &str) -> u64 {
    let number = |text: &str| text.parse::<u64>().unwrap();
    lab.in_pod(pod, || {
        let (v4, v6) = (std::fs::read_to_string("/proc/thread-self/net/snmp")?, std::fs::read_to_string("/proc/thread-self/net/snmp6")?);
        let v4 = v4.lines().filter_map(|line| line.strip_prefix("Udp: ")).nth(1).and_then(|line| line.split(' ').nth(1)).map(number);
        let v6 = v6.lines().find_map(|line| line.strip_prefix("Udp6NoPorts")).map(|line| number(line.trim()));
        Ok(v4.expect("Udp: InDatagrams NoPorts") + v6.expect("Udp6NoPorts"))
    })
    .unwrap()
}

/// An asker whose question was answered once, and somebody who asked nothing.
struct Answers {
    answerer: UdpSocket,
    asker: (UdpSocket, SocketAddr),
    bystander: (UdpSocket, SocketAddr),
}

impl Answers {
    fn asked(lab: &Lab, family: Family) -> Self {
        let (a, b) = (lab.pod_address("x/a", family).unwrap(), lab.pod_address("x/b", family).unwrap());
        let bound = |pod: &str, address: IpAddr, port: u16| {
            let socket = lab.in_pod(pod, || Ok(UdpSocket::bind((address, port))?)).unwrap();
            socket.set_read_timeout(Some(QUICK)).unwrap();
            let at = SocketAddr::new(address, socket.local_addr().unwrap().port());
            (socket, at)
        };
        let (asker, bystander, (answerer, at)) = (bound("x/a", a, 0), bound("x/a", a, 0), bound("x/b", b, ASKED_PORT));
        asker.0.send_to(b"request", at).unwrap();
        assert_eq!(received(&answerer).as_deref(), Some(&b"request"[..]), "{family:?}");
        Self { answerer, asker, bystander }
    }

    /// What was asked before may be answered now, first of all; what nobody asked may not.
    fn assert_answers_only(&self, when: &str) {
        self.answerer.send_to(b"answer", self.asker.1).unwrap();
        assert_eq!(received(&self.asker.0).as_deref(), Some(&b"answer"[..]), "{when}: the answer to what was asked before");
        self.answerer.send_to(b"unasked", self.bystander.1).unwrap();
        assert_eq!(received(&self.bystander.0), None, "{when}: what nobody asked for");
    }
}

fn received(socket: &UdpSocket) -> Option<Vec<u8>> {
    let mut buffer = [0; 64];
    socket.recv_from(&mut buffer).ok().map(|(bytes, _)| buffer[..bytes].to_vec())
}

/// The lasting connections as `sluicectl` would list them: all but what counts up.
fn connections(lab: &Lab) -> BTreeSet<String> {
    let all: Vec<ConnectionInfo> = agents::connections(lab.layout(), 100_000).unwrap();
    let lasting = |port: u16| move |connection: &&ConnectionInfo| connection.dst.ends_with(&format!(":{port}"));
    let lasting: Vec<&ConnectionInfo> =
        [FLOWS.port, STREAMS.port, ASKED_PORT].into_iter().flat_map(|port| all.iter().filter(lasting(port))).collect();
    let shown =
        lasting.iter().map(|c| format!("{} {:?} {} {} {} {} {:?}", c.pod, c.direction, c.protocol, c.src, c.dst, c.verdict, c.rule));
    shown.collect()
}

fn status(lab: &Lab) -> DataplaneStatus {
    agents::dataplane_status(lab.layout()).unwrap()
}

#[test]
fn upgrades_there_and_back_lose_nothing_and_let_nothing_in() {
    let Some(turn) = turn("live_upgrade") else { return };
    let (own, next) = (program("sluice-dataplane"), next_program());
    let programs = Programs::new();
    let live = Live::up(turn, "upgr", &cluster(), |config| config.bin_dir = Some(programs.0.path().to_owned()));
    let b = live.pod_address("x/b", Family::V4).unwrap();
    let answers = [Family::V4, Family::V6].map(|family| Answers::asked(&live, family));
    let flows = UdpFlows::start(&live, "x/a", "x/b", Family::V4, FLOWS).unwrap();
    let streams = TcpStreams::start(&live, "x/a", "x/b", Family::V6, STREAMS).unwrap();
    let forbidden =
        [("x/a", "x/b", Family::V4), ("x/b", "x/a", Family::V6)].map(|(from, to, family)| Forbidden::start(&live, from, to, family));
    std::thread::sleep(Duration::from_millis(500));
    let before = connections(&live);
    let unheard = ["x/a", "x/b"].map(|pod| to_nobody(&live, pod));
    let unserved = drops(live.layout(), "no_worker");
    assert_eq!(before.len(), 2 * (FLOWS.flows + STREAMS.streams + answers.len()), "one for each end");
    let (own_version, mut last) = (status(&live).abi_version, status(&live));
    let (mut back_after, mut takeovers) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        for (dataplane, version) in [(&next, own_version + 1), (&own, own_version)] {
            let when = format!("round {round}, to ABI {version}");
            programs.install(dataplane);
            let start = Instant::now();
            if round % 2 == 0 {
                live.restart_agent(Agent::Dataplane).unwrap();
            } else {
                live.kill_agent(Agent::Dataplane).unwrap();
                live.start_agent(Agent::Dataplane).unwrap();
            }
            back_after.push(start.elapsed());
            for answers in &answers {
                answers.assert_answers_only(&when);
            }
            let works = until("a new connection after the upgrade", Duration::from_secs(3), || reaches(&live, "x/a", (b, 80)));
            assert!(works < Duration::from_secs(1), "{when}: {works:?}");
            let now = status(&live);
            let taken = now.taken_over.clone().unwrap_or_else(|| panic!("{when}: {now:#?}"));
            assert_eq!((now.abi_version, &taken.abi_versions), (version, &vec![last.abi_version]), "{when}");
            assert!(taken.entries >= 2 * before.len() as u64 && taken.skipped == 0 && taken.unreadable.is_empty(), "{when}: {taken:?}");
            assert!(now.cache_hits >= last.cache_hits && now.punts >= last.punts, "{when}: counts go back: {last:#?} {now:#?}");
            assert_eq!(connections(&live), before, "{when}");
            takeovers.push(Duration::from_micros(taken.took_us));
            last = now;
        }
    }
    let (flows, streams) = (flows.finish().unwrap(), streams.finish().unwrap());
    let forbidden = forbidden.map(Forbidden::finish);
    let ((median, max), (took, took_max)) = (median_and_max(&back_after), median_and_max(&takeovers));
    println!(
        "{} upgrades: serves again {} median, {} max after its end; takeover {} median, {} max",
        2 * ROUNDS,
        ms(median),
        ms(max),
        ms(took),
        ms(took_max)
    );
    println!(
        "{} datagrams in {} flows: {} lost, {} reordered, answers {} of {}; longest silence {}",
        flows.sent,
        FLOWS.flows,
        flows.lost,
        flows.reordered,
        flows.answers_received,
        flows.answered,
        ms(flows.longest_silence)
    );
    println!(
        "{} TCP streams over IPv6, {} MB: {} cut; longest silence {}",
        streams.streams,
        streams.bytes >> 20,
        streams.cut.len(),
        ms(streams.longest_silence)
    );
    let unserved = drops(live.layout(), "no_worker") - unserved;
    println!("forbidden, sent and arrived: {forbidden:?}; {unserved} packets met no worker");
    flows.assert_whole();
    streams.assert_whole();
    for (sent, arrived) in forbidden {
        assert!(sent > 2000 && arrived == 0, "{arrived} of {sent} forbidden datagrams arrived");
    }
    assert_eq!(["x/a", "x/b"].map(|pod| to_nobody(&live, pod)), unheard, "forbidden datagrams arrived where nobody listens");
    assert!(unserved > 0, "what nobody could judge was dropped under its name");
    live.down();
}
