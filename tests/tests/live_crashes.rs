//! Either process may die: eight times kill -9 of the dataplane and eight times of control under traffic. What stays allowed
//! loses nothing, what becomes forbidden meanwhile stops, and who answered or asked first is not forgotten.

use sluice_flow::Family;
use sluice_lab::{Agent, Document, Lab, parse_documents, probe};
use sluice_tests::live::{Live, drops, pod, policy, turn, until};
use sluice_tests::traffic::{TcpPlan, TcpStreams, UdpFlows, UdpPlan, median_and_max, ms, wildcard};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const CRASHES: usize = 8;
const DOWN_FOR: Duration = Duration::from_millis(200);
const FLOWS: UdpPlan = UdpPlan { port: 9000, flows: 1000, packets_per_second: 50_000, answer_every: 16 };
const STREAMS: TcpPlan = TcpPlan { port: 9001, streams: 8, bytes_per_second: 2 << 20 };
const DOOMED: UdpPlan = UdpPlan { port: 9100, flows: 8, packets_per_second: 800, answer_every: 4 };
const ASKED_PORT: u16 = 9200;
const QUICK: Duration = Duration::from_millis(400);

/// a may open to b on these ports, b to nobody, and nobody else to either.
fn gate(ports: &[u16]) -> String {
    let ports: Vec<String> =
        ports.iter().flat_map(|port| [format!("{{port: {port}}}"), format!("{{port: {port}, protocol: UDP}}")]).collect();
    let ports = ports.join(", ");
    policy(
        "x/a-to-b",
        &format!(
            "{{podSelector: {{matchLabels: {{app: a}}}}, policyTypes: [Egress], \
             egress: [{{to: [{{podSelector: {{matchLabels: {{app: b}}}}}}], ports: [{ports}]}}]}}"
        ),
    )
}

fn cluster() -> String {
    let base = policy("x/base", "{podSelector: {}, policyTypes: [Ingress, Egress]}");
    let from = policy("x/b-from-a", "{podSelector: {matchLabels: {app: b}}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}]}]}");
    ["x/a", "x/b"].map(pod).concat() + &base + &from + &gate(&[80, 9000, 9001, 9100, 9200])
}

fn document(yaml: &str) -> Document {
    parse_documents(yaml).unwrap().remove(0)
}

fn reaches(lab: &Lab, from: &str, to: (IpAddr, u16)) -> bool {
    lab.in_pod(from, || Ok(probe::tcp(SocketAddr::from(to), QUICK).outcome.reached())).unwrap()
}

#[test]
fn sixteen_crashes_lose_nothing_that_stays_allowed() {
    let Some(turn) = turn("live_crashes") else { return };
    let live = Live::up(turn, "crash", &cluster(), |_| {});
    let (a, b) = (live.pod_address("x/a", Family::V4).unwrap(), live.pod_address("x/b", Family::V4).unwrap());
    let flows = UdpFlows::start(&live, "x/a", "x/b", Family::V4, FLOWS).unwrap();
    let streams = TcpStreams::start(&live, "x/a", "x/b", Family::V6, STREAMS).unwrap();
    let doomed = UdpFlows::start(&live, "x/a", "x/b", Family::V4, DOOMED).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let mut back_after = Vec::new();
    for crash in 0..CRASHES {
        if crash == 2 {
            // under the table of the control process that has just come back, which voids what earlier ones allowed
            live.settle().unwrap();
            assert!(reaches(&live, "x/a", (b, 80)), "an allowed connection with both");
        }
        assert!(live.kill_agent(Agent::Dataplane).unwrap());
        let killed = Instant::now();
        if crash == 2 {
            // nobody is there to judge what nobody has judged before
            assert!(!reaches(&live, "x/a", (b, ASKED_PORT)), "a new connection without a dataplane");
            assert!(!reaches(&live, "x/b", (a, 80)), "a forbidden connection without a dataplane");
            assert!(reaches(&live, "x/a", (b, 80)), "one like those that were allowed before");
        }
        if crash == 4 {
            // a change that only the next dataplane can bring into force
            assert!(doomed.gauge.during(Duration::from_millis(100)) > 0);
            live.store().put(&document(&gate(&[80, 9000, 9001, 9200]))).unwrap();
        }
        std::thread::sleep(DOWN_FOR);
        let start = Instant::now();
        live.start_agent(Agent::Dataplane).unwrap();
        back_after.push(start.elapsed());
        if crash == 4 {
            let within = until("forbidden traffic stops after the restart", Duration::from_secs(5), || {
                doomed.gauge.during(Duration::from_millis(60)) == 0
            });
            println!("what was forbidden while the dataplane was down: silent {} after the start", ms(within + back_after[crash]));
        }
        let works = until("a new connection after the restart", Duration::from_secs(3), || reaches(&live, "x/a", (b, 80)));
        assert!(works < Duration::from_secs(1), "crash {crash}: {works:?} after the start, {:?} after the kill", killed.elapsed());

        assert!(live.kill_agent(Agent::Control).unwrap());
        std::thread::sleep(DOWN_FOR);
        // the last table stays in force
        assert!(reaches(&live, "x/a", (b, 80)), "crash {crash}: an allowed connection without control");
        if crash == 2 {
            assert!(!reaches(&live, "x/b", (a, 80)), "a forbidden connection without control");
        }
        live.start_agent(Agent::Control).unwrap();
    }
    live.settle().unwrap();
    assert_eq!(doomed.gauge.during(Duration::from_millis(200)), 0, "what was forbidden stays so over further restarts");
    let (flows, streams, doomed) = (flows.finish().unwrap(), streams.finish().unwrap(), doomed.finish().unwrap());
    let (median, max) = median_and_max(&back_after);
    println!(
        "{CRASHES} crashes of the dataplane (serves again {} median, {} max after its start), {CRASHES} of control",
        ms(median),
        ms(max)
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
    flows.assert_whole();
    streams.assert_whole();
    assert!(doomed.lost > 0, "{doomed:#?}");
    live.down();
}

fn bound(lab: &Lab, pod: &str, address: IpAddr, port: u16) -> UdpSocket {
    let socket = lab.in_pod(pod, || Ok(UdpSocket::bind((wildcard(address), port))?)).unwrap();
    socket.set_read_timeout(Some(QUICK)).unwrap();
    socket
}

fn received(socket: &UdpSocket) -> Option<Vec<u8>> {
    let mut buffer = [0; 64];
    socket.recv_from(&mut buffer).ok().map(|(bytes, _)| buffer[..bytes].to_vec())
}

#[test]
fn an_answer_may_be_the_first_packet_after_a_restart_and_only_an_answer() {
    let Some(turn) = turn("live_crashes replies") else { return };
    let live = Live::up(turn, "answ", &cluster(), |_| {});
    for family in [Family::V4, Family::V6] {
        let (a, b) = (live.pod_address("x/a", family).unwrap(), live.pod_address("x/b", family).unwrap());
        let (asker, bystander) = (bound(&live, "x/a", a, 0), bound(&live, "x/a", a, 0));
        let answerer = bound(&live, "x/b", b, ASKED_PORT);
        let port_of = |socket: &UdpSocket| SocketAddr::new(a, socket.local_addr().unwrap().port());
        asker.send_to(b"request", (b, ASKED_PORT)).unwrap();
        assert_eq!(received(&answerer).as_deref(), Some(&b"request"[..]), "{family:?}");
        live.kill_agent(Agent::Dataplane).unwrap();
        std::thread::sleep(DOWN_FOR);
        live.start_agent(Agent::Dataplane).unwrap();
        // each several times: the second packet may take another path than the first
        for round in 0..3 {
            answerer.send_to(b"answer", port_of(&asker)).unwrap();
            assert_eq!(received(&asker).as_deref(), Some(&b"answer"[..]), "{family:?} round {round}: the answer to what was asked before");
        }
        let before = drops(live.layout(), "policy_denied");
        for round in 0..3 {
            answerer.send_to(b"unasked", port_of(&bystander)).unwrap();
            assert_eq!(received(&bystander), None, "{family:?} round {round}: what nobody asked for");
        }
        assert_eq!(drops(live.layout(), "policy_denied") - before, 3, "{family:?}: each is counted");
        answerer.send_to(b"answer", port_of(&asker)).unwrap();
        assert_eq!(received(&asker).as_deref(), Some(&b"answer"[..]), "{family:?}: after the denials");
    }
    live.down();
}
