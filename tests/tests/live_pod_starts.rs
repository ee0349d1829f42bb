//! No window: pods start by the hundred, and from the moment in which ADD returns nothing passes that policy forbids and
//! nothing is lost that it allows. `SLUICE_POD_STARTS` sets another number than a thousand.

use sluice_lab::ClusterConfig;
use sluice_tests::live::{Live, pod_on, policy, turn};
use sluice_tests::starts::{Host, Report, Street, percentile};
use sluice_tests::traffic::ms;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

const STARTS: usize = 1000;
const AT_ONCE: usize = 2;
const NEIGHBOURS: [(&str, &str); 4] = [("node1", "x/near-red"), ("node1", "x/near-blue"), ("node2", "x/far-red"), ("node2", "x/far-blue")];

/// A newcomer deals with its own colour only, both ways. The near ones take from their own colour only; the far ones are
/// isolated by nothing, so that the newcomer's own policy is all that stands between.
fn cluster() -> String {
    let labelled = |(node, name): (&str, &str)| {
        let (role, colour) = name.trim_start_matches("x/").split_once('-').unwrap();
        pod_on(node, name).replace("labels: {", &format!("labels: {{role: {role}, colour: {colour}, "))
    };
    let pods: String = NEIGHBOURS.map(labelled).concat();
    let policies = ["red", "blue"].map(|colour| {
        let own = format!("[{{podSelector: {{matchLabels: {{colour: {colour}}}}}}}]");
        let newcomer = format!(
            "{{podSelector: {{matchLabels: {{role: newcomer, colour: {colour}}}}}, policyTypes: [Ingress, Egress], \
             ingress: [{{from: {own}}}], egress: [{{to: {own}}}]}}"
        );
        let near = format!("{{podSelector: {{matchLabels: {{role: near, colour: {colour}}}}}, ingress: [{{from: {own}}}]}}");
        policy(&format!("x/newcomer-{colour}"), &newcomer) + &policy(&format!("x/near-{colour}"), &near)
    });
    pods + &policies.concat()
}

fn starts() -> usize {
    let Ok(text) = std::env::var("SLUICE_POD_STARTS") else { return STARTS };
    text.parse().unwrap_or_else(|_| panic!("SLUICE_POD_STARTS is a number, not {text:?}"))
}

#[test]
fn from_the_moment_add_returns_policy_holds_and_nothing_allowed_is_lost() {
    let Some(turn) = turn("live_pod_starts") else { return };
    let live = Live::up(turn, "start", &cluster(), |config| config.cluster = Some(ClusterConfig::default()));
    let names = NEIGHBOURS.map(|(_, name)| name);
    let hosts = names.map(|name| Host::open(&live.pod_netns(name), name.to_owned()).unwrap());
    let street = Street::new(&live, "node1", &names).unwrap();
    let (wanted, next, report) = (starts(), AtomicUsize::new(0), Mutex::new(Report::default()));
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                // Relaxed: the counter hands out numbers
                while let Some(number) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|number| *number < wanted) {
                    let started = street.start(number).unwrap_or_else(|error| panic!("start {number}: {error:#}"));
                    let mut report = report.lock().unwrap();
                    report.add(started);
                    if report.starts % 100 == 0 {
                        println!("{} starts after {:.0} s", report.starts, begin.elapsed().as_secs_f64());
                    }
                }
            });
        }
    });
    let took = begin.elapsed();
    let mut report = report.into_inner().unwrap();
    report.arrived.extend(hosts.into_iter().flat_map(Host::close));
    let p = |times: &[std::time::Duration]| format!("{} p50, {} p99", ms(percentile(times, 50)), ms(percentile(times, 99)));
    println!("{} pods started in {:.0} s, {AT_ONCE} at a time", report.starts, took.as_secs_f64());
    println!("ADD of sluice-cni: {}; of the whole chain: {}", p(&report.policy_took), p(&report.add_took));
    println!("the newcomer's first packet after ADD returned: {}", p(&report.first_packet));
    println!(
        "allowed: {} of {} lost; forbidden: {} of {} arrived",
        report.lost.len(),
        report.allowed,
        report.arrived.len(),
        report.forbidden
    );
    assert_eq!(report.starts, wanted);
    assert!(report.arrived.is_empty(), "forbidden, yet arrived:\n{}", report.arrived.join("\n"));
    assert!(report.lost.is_empty(), "allowed, yet lost:\n{}", report.lost.join("\n"));
    live.down();
}
