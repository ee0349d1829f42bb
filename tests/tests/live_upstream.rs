//! Kubernetes' own NetworkPolicy specs on live traffic, through ClusterIPs, in both families.

use sluice_tests::live::{Live, turn};
use sluice_tests::upstream::{Suite, dir, rows};

#[test]
fn every_traffic_row_of_upstreams_suite_holds() {
    let Some(turn) = turn("live_upstream") else { return };
    let cluster = std::fs::read_to_string(dir().join("cluster.yaml")).unwrap();
    let live = Live::up(turn, "up", &cluster, |config| config.workers = 2);
    let suite = Suite::new(&live).unwrap();
    let mut failures = Vec::new();
    for row in rows().unwrap() {
        let played = suite.play(&row).unwrap();
        let verdict = if played.wrong.is_empty() { "ok  " } else { "FAIL" };
        let (probes, took) = (played.probes, played.took_s);
        println!("{verdict} {:<42} {probes:>3} probes  in force after {:>5.1} ms  {took:>4.1} s", row.name, played.in_force_ms);
        failures.extend(played.wrong.into_iter().map(|what| format!("row {}: {what}", row.number)));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    drop(suite);
    live.down();
}
