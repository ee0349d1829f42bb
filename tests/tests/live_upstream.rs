//! The thirteen simplest of Kubernetes' own NetworkPolicy specs on live TCP, in both families. Services are not served yet,
//! so pods' addresses stand for ClusterIPs.

use sluice_flow::Family;
use sluice_lab::{ObjectRef, Outcome, agents, parse_documents, probe};
use sluice_tests::live::{Live, turn, upstream};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A denial is a drop, so each costs this much.
const DENIED_AFTER: Duration = Duration::from_millis(500);
/// Upstream's own limit for a connection that should work.
const ALLOWED_WITHIN: Duration = Duration::from_secs(3);

#[test]
fn the_thirteen_simplest_upstream_specs_hold_on_live_traffic() {
    let Some(turn) = turn("live_upstream") else { return };
    let cluster = std::fs::read_to_string(upstream::dir().join("cluster.yaml")).unwrap();
    let live = Live::up(turn, "up", &cluster, |config| config.workers = 2);
    let mut failures = Vec::new();
    for case in upstream::cases().unwrap() {
        let start = Instant::now();
        let documents = parse_documents(&case.yaml).unwrap();
        let in_force = live.apply(&documents).unwrap().in_force_after.unwrap();
        let wrong = run(&live, &case);
        let objects: Vec<ObjectRef> = documents.into_iter().map(|document| document.object).collect();
        live.delete(&objects).unwrap();
        let verdict = if wrong.is_empty() { "ok  " } else { "FAIL" };
        let (probes, took) = (case.cells.len() * 2, start.elapsed().as_secs_f64());
        println!("{verdict} {:<36} {probes:>3} probes  in force after {:>5.1} ms  {took:>4.1} s", case.name, in_force.as_secs_f64() * 1e3);
        failures.extend(wrong.into_iter().map(|what| format!("{}: {what}", case.title)));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    live.down();
}

/// All cells in both families at once; what is wrong of them.
fn run(live: &Live, case: &upstream::Case) -> Vec<String> {
    std::thread::scope(|scope| {
        let ask = |cell: &upstream::Expected, family: Family| {
            let (src, dst) = (live.pod_address(&cell.from, family).unwrap(), live.pod_address(&cell.to, family).unwrap());
            let told = agents::explain(live.layout(), &src.to_string(), &dst.to_string(), 80, "TCP").unwrap();
            assert_eq!(told.allowed, cell.reached, "{}: the case and the oracle disagree on {cell:?}", case.name);
            let timeout = if cell.reached { ALLOWED_WITHIN } else { DENIED_AFTER };
            let outcome = live.in_pod(&cell.from, || Ok(probe::tcp(SocketAddr::new(dst, 80), timeout).outcome)).unwrap();
            let right = if cell.reached { matches!(outcome, Outcome::Open { .. }) } else { outcome == Outcome::TimedOut };
            (!right).then(|| format!("{family:?} {} -> {}: should be {}, was {outcome}", cell.from, cell.to, reached(cell)))
        };
        let questions = [Family::V4, Family::V6].into_iter().flat_map(|family| case.cells.iter().map(move |cell| (cell, family)));
        let probes: Vec<_> = questions.map(|(cell, family)| scope.spawn(move || ask(cell, family))).collect();
        probes.into_iter().filter_map(|probe| probe.join().unwrap()).collect()
    })
}

fn reached(cell: &upstream::Expected) -> &'static str {
    if cell.reached { "reached" } else { "denied" }
}
