//! A policy change is in force on live traffic within a second of the file's write, for new flows and for established ones;
//! what stays allowed does not notice.

use sluice_flow::Family;
use sluice_lab::{Document, Kind, Lab, ObjectRef, parse_documents};
use sluice_tests::live::{Live, pod, policy, turn, until};
use sluice_tests::traffic::{Gauge, TcpPlan, TcpStreams, UdpFlows, UdpPlan, median_and_max, ms, now_ns, wildcard};
use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The promise.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(1);
const ROUNDS: usize = 10;
const NEW_FLOWS_PORT: u16 = 9100;
const FLOWS_PORT: u16 = 9200;
const STREAMS_PORT: u16 = 9300;

fn cluster() -> String {
    ["a/client", "a/bystander", "b/server"].map(pod).concat() + &allowing("client, bystander")
}

/// The server takes what comes from these pods of namespace a.
fn allowing(clients: &str) -> String {
    policy(
        "b/gate",
        &format!(
            "{{podSelector: {{}}, ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: a}}}}, \
             podSelector: {{matchExpressions: [{{key: app, operator: In, values: [{clients}]}}]}}}}]}}]}}"
        ),
    )
}

/// A new flow each millisecond, from a socket of its own; the receiver notes when each that arrives was sent.
struct NewFlows {
    delivered: Arc<Gauge>,
    stop: Arc<AtomicBool>,
    sender: JoinHandle<u64>,
    receiver: JoinHandle<Vec<u64>>,
}

impl NewFlows {
    fn start(lab: &Lab, from: &str, to: &str) -> Self {
        let address = SocketAddr::new(lab.pod_address(to, Family::V4).unwrap(), NEW_FLOWS_PORT);
        let listener = lab.in_pod(to, || Ok(UdpSocket::bind((wildcard(address.ip()), NEW_FLOWS_PORT))?)).unwrap();
        listener.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let (delivered, stop) = (Arc::<Gauge>::default(), Arc::<AtomicBool>::default());
        let (netns, stop_sending) = (lab.pod_netns(from), stop.clone());
        let sender = std::thread::spawn(move || {
            let mut sent = 0;
            netns.enter().unwrap();
            while !stop_sending.load(Ordering::Relaxed) {
                let socket = UdpSocket::bind((wildcard(address.ip()), 0)).unwrap();
                let _ = socket.send_to(&now_ns().to_le_bytes(), address);
                sent += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            sent
        });
        let (gauge, stop_receiving) = (delivered.clone(), stop.clone());
        let receiver = std::thread::spawn(move || {
            let mut arrived = Vec::new();
            let mut body = [0; 8];
            while !stop_receiving.load(Ordering::Relaxed) {
                if listener.recv(&mut body).is_ok_and(|bytes| bytes == body.len()) {
                    arrived.push(u64::from_le_bytes(body));
                    gauge.note(1);
                }
            }
            arrived
        });
        Self { delivered, stop, sender, receiver }
    }

    /// When each flow that was delivered was sent, in order, and how many were sent.
    fn finish(self) -> (Vec<u64>, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let mut delivered = self.receiver.join().unwrap();
        delivered.sort_unstable();
        (delivered, self.sender.join().unwrap())
    }
}

fn document(yaml: &str) -> Document {
    parse_documents(yaml).unwrap().remove(0)
}

#[test]
fn a_change_is_in_force_within_a_second_of_the_files_write() {
    let Some(turn) = turn("live_change") else { return };
    let live = Live::up(turn, "chg", &cluster(), |_| {});
    let store = live.store();
    let (open, closed) = (document(&allowing("client, bystander")), document(&allowing("bystander")));
    let flows = NewFlows::start(&live, "a/client", "b/server");
    std::thread::sleep(Duration::from_millis(200));
    // (when the file was there, whether it closes)
    let mut changes = Vec::new();
    for _ in 0..ROUNDS {
        for (gate, closes) in [(&closed, true), (&open, false)] {
            store.put(gate).unwrap();
            changes.push((now_ns(), closes));
            until("the change shows in new flows", IN_FORCE_WITHIN, || (flows.delivered.during(Duration::from_millis(60)) == 0) == closes);
        }
    }
    let (delivered, sent) = flows.finish();
    let mut times: BTreeMap<bool, Vec<Duration>> = BTreeMap::new();
    for (index, (at, closes)) in changes.iter().enumerate() {
        let next = changes.get(index + 1).map_or(u64::MAX, |(at, _)| *at);
        let within: Vec<u64> = delivered.iter().copied().filter(|sent| (*at..next).contains(sent)).collect();
        let in_force = if *closes { within.last().copied().unwrap_or(*at) } else { within[0] };
        times.entry(*closes).or_default().push(Duration::from_nanos(in_force - at));
    }
    for (closes, times) in &times {
        let (median, max) = median_and_max(times);
        let what = if *closes { "allow to deny" } else { "deny to allow" };
        println!("new flows, {what}: in force after {} median, {} max of {} (file's write to traffic)", ms(median), ms(max), times.len());
        assert!(max <= IN_FORCE_WITHIN, "{what}: {times:?}");
    }
    println!("{sent} new flows sent, {} delivered", delivered.len());
    live.down();
}

#[test]
fn what_becomes_forbidden_stops_and_what_stays_allowed_does_not_notice() {
    let Some(turn) = turn("live_change established") else { return };
    let live = Live::up(turn, "est", &cluster(), |_| {});
    let udp = UdpPlan { port: FLOWS_PORT, flows: 20, packets_per_second: 2000, answer_every: 4 };
    let tcp = TcpPlan { port: STREAMS_PORT, streams: 2, bytes_per_second: 4 << 20 };
    for family in [Family::V4, Family::V6] {
        live.apply_yaml(&allowing("client, bystander")).unwrap();
        let doomed_flows = UdpFlows::start(&live, "a/client", "b/server", family, udp).unwrap();
        let doomed_streams = TcpStreams::start(&live, "a/client", "b/server", family, tcp).unwrap();
        let (udp, tcp) = (UdpPlan { port: FLOWS_PORT + 1, ..udp }, TcpPlan { port: STREAMS_PORT + 1, ..tcp });
        let flows = UdpFlows::start(&live, "a/bystander", "b/server", family, udp).unwrap();
        let streams = TcpStreams::start(&live, "a/bystander", "b/server", family, tcp).unwrap();
        std::thread::sleep(Duration::from_millis(500));
        flows.gauge.restart_silence();
        streams.gauges.iter().for_each(|gauge| gauge.restart_silence());
        live.store().put(&document(&allowing("bystander"))).unwrap();
        let changed = now_ns();
        std::thread::sleep(IN_FORCE_WITHIN);
        let late = (doomed_flows.gauge.arrived(), doomed_streams.arrived());
        std::thread::sleep(Duration::from_millis(700));
        assert_eq!((doomed_flows.gauge.arrived(), doomed_streams.arrived()), late, "{family:?}: forbidden data still arrives");
        let after = |gauge: &Gauge| ms(Duration::from_nanos(gauge.last_ns().saturating_sub(changed)));
        println!(
            "{family:?}: last forbidden datagram {} after the file's write, last forbidden TCP data {}",
            after(&doomed_flows.gauge),
            doomed_streams.gauges.iter().map(|gauge| after(gauge)).collect::<Vec<_>>().join(" and "),
        );
        let doomed = doomed_flows.finish().unwrap();
        assert!(doomed.lost > 0 && doomed.duplicates == 0, "{doomed:#?}");
        let cut = drop_stalled(doomed_streams);
        assert_eq!(cut, 2, "{family:?}: both forbidden streams stall");
        let (flows, streams) = (flows.finish().unwrap(), streams.finish().unwrap());
        flows.assert_whole();
        streams.assert_whole();
        println!(
            "{family:?}: beside them {} datagrams and {} MB went on whole; longest silence {} UDP, {} TCP",
            flows.received,
            streams.bytes >> 20,
            ms(flows.longest_silence),
            ms(streams.longest_silence)
        );
    }
    live.delete(&[ObjectRef::new(Kind::NetworkPolicy, "b/gate")]).unwrap();
    live.down();
}

/// Ends streams that no longer get through; how many of them did not.
fn drop_stalled(streams: TcpStreams) -> usize {
    streams.finish().unwrap().cut.len()
}
