//! A swap disturbs nobody whose verdict stays: 1000 UDP flows and 8 TCP streams between two pods that are isolated both
//! ways, while a hundred tables are swapped, half of them touching these very pods.

use sluice_flow::Family;
use sluice_lab::agents;
use sluice_tests::live::{Live, pod, policy, turn};
use sluice_tests::traffic::{TcpPlan, TcpStreams, UdpFlows, UdpPlan, median_and_max, ms};
use std::time::{Duration, Instant};

const SWAPS: usize = 100;
const FLOWS: UdpPlan = UdpPlan { port: 9000, flows: 1000, packets_per_second: 50_000, answer_every: 16 };
const STREAMS: TcpPlan = TcpPlan { port: 9001, streams: 8, bytes_per_second: 4 << 20 };

/// a may go to b and to nowhere else, b takes from a and from nobody else.
fn cluster() -> String {
    let pods = ["x/a", "x/b", "y/elsewhere"].map(pod).concat();
    let base = policy("x/base", "{podSelector: {}, policyTypes: [Ingress, Egress]}");
    let to = policy(
        "x/a-to-b",
        "{podSelector: {matchLabels: {app: a}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: b}}}]}]}",
    );
    let from = policy("x/b-from-a", "{podSelector: {matchLabels: {app: b}}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}]}]}");
    pods + &base + &to + &from
}

/// Never the same twice, so that each is a new table.
fn edit(swap: usize) -> String {
    let block = format!("192.0.2.{}/32", swap % 250 + 1);
    let spec = |selector: &str| {
        format!(
            "{{podSelector: {selector}, policyTypes: [Ingress, Egress], ingress: [{{from: [{{ipBlock: {{cidr: {block}}}}}], \
             ports: [{{port: {}}}]}}], egress: [{{to: [{{ipBlock: {{cidr: {block}}}}}]}}]}}",
            1000 + swap
        )
    };
    match swap % 2 {
        0 => policy("x/more", &spec("{}")),
        _ => policy("y/more", &spec("{matchLabels: {app: elsewhere}}")),
    }
}

#[test]
fn a_hundred_swaps_lose_no_packet_and_cut_no_connection() {
    let Some(turn) = turn("live_swaps") else { return };
    let live = Live::up(turn, "swap", &cluster(), |_| {});
    let flows = UdpFlows::start(&live, "x/a", "x/b", Family::V4, FLOWS).unwrap();
    let streams = TcpStreams::start(&live, "x/a", "x/b", Family::V6, STREAMS).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let before = agents::dataplane_status(live.layout()).unwrap();
    let (begin, sent_before) = (Instant::now(), flows.sent());
    let mut times = Vec::new();
    for swap in 0..SWAPS {
        let change = live.apply_yaml(&edit(swap)).unwrap();
        times.push(change.in_force_after.unwrap());
        std::thread::sleep(Duration::from_millis(20));
    }
    let (took, sent) = (begin.elapsed(), flows.sent() - sent_before);
    let after = agents::dataplane_status(live.layout()).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let (flows, streams) = (flows.finish().unwrap(), streams.finish().unwrap());
    let swaps = after.generation - before.generation;
    let (median, max) = median_and_max(&times);
    println!(
        "{swaps} swaps in {:.1} s; file's write to adoption by both workers {} median, {} max",
        took.as_secs_f64(),
        ms(median),
        ms(max)
    );
    println!(
        "{} datagrams in {} flows: {} lost, {} reordered, answers {} of {}; longest silence {}, longest way {}",
        flows.sent,
        FLOWS.flows,
        flows.lost,
        flows.reordered,
        flows.answers_received,
        flows.answered,
        ms(flows.longest_silence),
        ms(flows.latency_max)
    );
    println!(
        "{} TCP streams over IPv6, {} MB: {} cut; longest silence {}",
        streams.streams,
        streams.bytes >> 20,
        streams.cut.len(),
        ms(streams.longest_silence)
    );
    println!(
        "during the swaps: {:.1} kpps of UDP, {} packets judged in the kernel, {} sent to a worker",
        sent as f64 / took.as_secs_f64() / 1e3,
        after.cache_hits - before.cache_hits,
        after.punts - before.punts
    );
    assert!(swaps >= SWAPS as u64, "{swaps} generations for {SWAPS} changes");
    flows.assert_whole();
    streams.assert_whole();
    let cut: u64 = after.workers.iter().map(|worker| worker.connections_cut).sum();
    assert_eq!(cut, 0, "the workers' own count of connections cut");
    live.down();
}
