//! Ports move between workers as pods come and go: flows and streams of theirs do not notice, policy holds all the time.

use sluice_flow::Family;
use sluice_lab::{Kind, Lab, ObjectRef, agents, probe};
use sluice_tests::live::{Live, pod, policy, turn, until};
use sluice_tests::traffic::{TcpPlan, TcpStreams, UdpFlows, UdpPlan};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

const QUICK: Duration = Duration::from_millis(500);
const ASIDE: usize = 8;

/// a may ask b, and c may not; others stand aside, and go.
fn cluster() -> String {
    let b = "{podSelector: {matchLabels: {app: b}}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {matchLabels: {app: a}}}]}]}";
    let out = "{podSelector: {matchExpressions: [{key: app, operator: In, values: [a, c]}]}, policyTypes: [Ingress, Egress], \
               egress: [{to: [{podSelector: {}}]}]}";
    let aside: String = (0..ASIDE).map(|number| pod(&format!("x/aside{number}"))).collect();
    ["x/a", "x/b", "x/c"].map(pod).concat() + &aside + &policy("x/b", b) + &policy("x/out", out)
}

/// The worker of each pod.
fn workers(lab: &Lab) -> BTreeMap<String, u32> {
    agents::ports(lab.layout()).unwrap().into_iter().map(|port| (port.endpoint.pod.to_string(), port.worker)).collect()
}

fn counts(lab: &Lab) -> [usize; 2] {
    [0, 1].map(|worker| workers(lab).values().filter(|other| **other == worker).count())
}

fn reaches(lab: &Lab, from: &str) -> bool {
    let b = SocketAddr::new(lab.pod_address("x/b", Family::V4).unwrap(), 80);
    lab.in_pod(from, || Ok(probe::tcp(b, QUICK).outcome.reached())).unwrap()
}

#[test]
fn ports_move_with_their_connections() {
    let Some(turn) = turn("live_balance") else { return };
    let live = Live::up(turn, "balance", &cluster(), |config| config.workers = 2);
    let [first, second] = counts(&live);
    assert!(first.abs_diff(second) <= 1, "each pod went to the worker with fewer: {:?}", workers(&live));

    let plan = UdpPlan { port: 7000, flows: 50, packets_per_second: 2000, answer_every: 10 };
    let flows = UdpFlows::start(&live, "x/a", "x/b", Family::V4, plan).unwrap();
    let streams = TcpStreams::start(&live, "x/a", "x/b", Family::V6, TcpPlan { port: 7777, streams: 4, bytes_per_second: 1 << 20 });
    let streams = streams.unwrap();
    // all that stand aside on the worker that has not the first of those that talk go: ports with low numbers come over first
    let first = agents::ports(live.layout()).unwrap().into_iter().find(|port| ["a", "b", "c"].contains(&&*port.endpoint.pod.name));
    let (before, talks) = (workers(&live), first.unwrap());
    let (mut moved, talking) = (0, talks.endpoint.pod.to_string());
    let leaving = before.iter().filter(|(name, worker)| name.starts_with("x/aside") && **worker != talks.worker);
    for name in leaving.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
        let was = workers(&live);
        live.delete(&[ObjectRef::new(Kind::Pod, &name)]).unwrap();
        until("the workers have as many again", Duration::from_secs(3), || counts(&live)[0].abs_diff(counts(&live)[1]) <= 1);
        moved += workers(&live).iter().filter(|(name, worker)| was.get(*name).is_some_and(|before| before != *worker)).count();
        assert!(reaches(&live, "x/a") && !reaches(&live, "x/c"), "policy holds after {name} went");
    }
    println!("{moved} ports moved; {before:?} became {:?}", workers(&live));
    assert!(moved >= 1, "{talking} was first on its worker");
    let (flows, streams) = (flows.finish().unwrap(), streams.finish().unwrap());
    println!("{} datagrams, {} bytes of TCP", flows.sent, streams.bytes);
    flows.assert_whole();
    streams.assert_whole();
    live.down();
}
