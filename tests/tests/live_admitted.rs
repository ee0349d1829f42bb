//! Connections like one that was allowed before begin in the kernel: few ask a worker, and a change of policy ends all of it, also
//! while they come at full rate.

use sluice_flow::Family;
use sluice_flow::limits::CONNECTIONS_PER_PORT_MAX;
use sluice_lab::{agents, probe};
use sluice_tests::live::{Live, pod, policy, turn};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const CONNECTIONS: u64 = 1000;
const AGAIN: u64 = 10_000;
const QUICK: Duration = Duration::from_millis(900);
const CHANGES: usize = 10;

fn allowed() -> String {
    policy("x/b-from-a", "{podSelector: {matchLabels: {app: b}}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}]}]}")
}

fn denied() -> String {
    policy("x/b-from-a", "{podSelector: {matchLabels: {app: b}}, ingress: [{from: [{podSelector: {matchLabels: {app: nobody}}}]}]}")
}

fn cluster() -> String {
    let out =
        policy("x/a-to-b", "{podSelector: {matchLabels: {app: a}}, policyTypes: [Ingress, Egress], egress: [{to: [{podSelector: {}}]}]}");
    let base = policy("x/base", "{podSelector: {matchLabels: {app: b}}, policyTypes: [Ingress, Egress]}");
    ["x/a", "x/b"].map(pod).concat() + &out + &base + &allowed()
}

#[test]
fn what_is_like_one_before_begins_in_the_kernel_and_ends_with_the_policy_that_allowed_it() {
    let Some(turn) = turn("live_admitted") else { return };
    let live = Live::up(turn, "adm", &cluster(), |_| {});
    for family in [Family::V4, Family::V6] {
        let b = SocketAddr::new(live.pod_address("x/b", family).unwrap(), 80);
        let before = agents::dataplane_status(live.layout()).unwrap();
        let opened = live.in_pod("x/a", || Ok((0..CONNECTIONS).filter(|_| probe::tcp(b, QUICK).outcome.reached()).count() as u64)).unwrap();
        let after = agents::dataplane_status(live.layout()).unwrap();
        let (admitted, punts) = (after.admitted - before.admitted, after.punts - before.punts);
        println!("{family:?}: {opened} connections, {admitted} times admitted at the two hooks, {punts} punts");
        assert_eq!(opened, CONNECTIONS);
        // the first one of each hook, and what neighbour discovery and repeated ports add
        assert!(admitted >= 2 * CONNECTIONS - 40 && punts < 40, "{family:?}: {admitted} admitted, {punts} punts");
    }

    let b = SocketAddr::new(live.pod_address("x/b", Family::V4).unwrap(), 80);
    let (stop, forbidden) = (AtomicBool::new(false), AtomicBool::new(false));
    let (opened, leaked) = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            live.in_pod("x/a", || {
                let (mut opened, mut leaked) = (0u64, 0u64);
                // SeqCst: what is begun after the word `forbidden` is said must not come about
                while !stop.load(Ordering::SeqCst) {
                    let was_forbidden = forbidden.load(Ordering::SeqCst);
                    let reached = probe::tcp(b, Duration::from_millis(20)).outcome.reached();
                    opened += u64::from(reached);
                    leaked += u64::from(reached && was_forbidden && forbidden.load(Ordering::SeqCst));
                }
                Ok((opened, leaked))
            })
            .unwrap()
        });
        for _ in 0..CHANGES {
            live.apply_yaml(&denied()).unwrap().in_force_after.unwrap();
            forbidden.store(true, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(150));
            forbidden.store(false, Ordering::SeqCst);
            live.apply_yaml(&allowed()).unwrap().in_force_after.unwrap();
            std::thread::sleep(Duration::from_millis(150));
        }
        stop.store(true, Ordering::SeqCst);
        client.join().unwrap()
    });
    println!("{CHANGES} times forbidden and allowed again: {opened} connections came about, {leaked} of them when none might");
    assert!(opened > 100 * CHANGES as u64, "{opened}");
    assert_eq!(leaked, 0);
    live.down();
}

/// A worker hears of what begins without it in large groups, also where its port is more than half full of what has ended: each time
/// that it is woken costs whoever opens a connection then.
#[test]
fn what_begins_at_a_high_rate_seldom_wakes_its_worker() {
    let Some(turn) = turn("live_admitted seldom") else { return };
    let live = Live::up(turn, "sld", &cluster(), |_| {});
    let b = SocketAddr::new(live.pod_address("x/b", Family::V4).unwrap(), 80);
    let pid = live.state().unwrap().nodes.values().next().unwrap().dataplane.unwrap().pid;
    let (before, began) = (times_woken(pid), Instant::now());
    let opened = live.in_pod("x/a", || Ok((0..AGAIN).filter(|_| probe::tcp(b, QUICK).outcome.reached()).count() as u64)).unwrap();
    let (woken, seconds) = (times_woken(pid) - before, began.elapsed().as_secs());
    println!("{opened} connections in {seconds} s, the worker woke {woken} times");
    assert_eq!(opened, AGAIN);
    // it looks around five times a second in any case
    assert!(woken < AGAIN / 50 + 10 * (seconds + 1), "woke {woken} times in {seconds} s");
    live.down();
}

/// How often the dataplane's workers have slept so far.
fn times_woken(pid: i32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path());
    let workers = tasks.filter(|task| std::fs::read_to_string(task.join("comm")).unwrap().starts_with("worker-"));
    let times = |task: PathBuf| {
        let status = std::fs::read_to_string(task.join("status")).unwrap();
        let times = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap().trim().to_owned();
        times.parse::<u64>().unwrap()
    };
    workers.map(times).sum()
}

/// A client with few ports comes back to those of connections that are over, hundreds of times to each.
#[test]
fn the_ports_of_a_connection_that_is_over_are_used_again_without_a_worker() {
    let Some(turn) = turn("live_admitted again") else { return };
    let live = Live::up(turn, "agn", &cluster(), |_| {});
    live.pod_netns("x/a").set_sysctls(&[("ipv4/ip_local_port_range", "20000 20019")]).unwrap();
    let b = SocketAddr::new(live.pod_address("x/b", Family::V4).unwrap(), 80);
    let before = agents::dataplane_status(live.layout()).unwrap();
    let opened = live.in_pod("x/a", || Ok((0..AGAIN).filter(|_| probe::tcp(b, QUICK).outcome.reached()).count() as u64)).unwrap();
    let after = agents::dataplane_status(live.layout()).unwrap();
    let (admitted, punts) = (after.admitted - before.admitted, after.punts - before.punts);
    println!("{opened} connections from 20 ports, {admitted} times admitted at the two hooks, {punts} punts");
    assert_eq!(opened, AGAIN);
    // more than a port has room for, were they not on the same places
    assert!(AGAIN > CONNECTIONS_PER_PORT_MAX as u64 && admitted >= 2 * AGAIN - 40 && punts < 40, "{admitted} admitted, {punts} punts");
    live.down();
}
