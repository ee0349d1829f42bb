//! The cases that are marked live, on real pods: the same policies, the same flows, in both families, over TCP and UDP.

use sluice_flow::Family;
use sluice_lab::{Kind, ObjectRef, Outcome, parse_documents, probe};
use sluice_tests::cases::{LiveCase, LiveFlow, LiveStep, dir, live_cases, read_all};
use sluice_tests::live::{Live, turn};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A denial is a drop, so each costs this much. What passes is answered within a millisecond.
const DENIED_AFTER: Duration = Duration::from_millis(400);
const ALLOWED_WITHIN: Duration = Duration::from_secs(3);

#[test]
fn live_cases_hold_on_real_pods() {
    let Some(turn) = turn("live_cases") else { return };
    let cases = live_cases(&read_all(&dir(), "").unwrap()).unwrap();
    let mut by_cluster: BTreeMap<&str, Vec<&LiveCase>> = BTreeMap::new();
    for case in &cases {
        by_cluster.entry(&case.cluster).or_default().push(case);
    }
    assert_eq!(by_cluster.len(), 1, "one lab serves all live cases");
    let (cluster, cases) = by_cluster.pop_first().expect("just counted");
    let live = Live::up(turn, "case", cluster, |_| {});
    let mut failures = Vec::new();
    for case in cases {
        let start = Instant::now();
        let (asked, wrong) = play(&live, case);
        let verdict = if wrong.is_empty() { "ok  " } else { "FAIL" };
        println!(
            "{verdict} {asked:>3} probes {:>4.1} s  {}:{}: {}",
            start.elapsed().as_secs_f64(),
            case.file.display(),
            case.line,
            case.title
        );
        failures.extend(wrong);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    live.down();
}

/// Applies and asks in order; afterwards the cluster is as it was. Returns how many probes there were, and what was wrong.
fn play(live: &Live, case: &LiveCase) -> (usize, Vec<String>) {
    let (mut asked, mut wrong, mut applied) = (0, Vec::new(), BTreeSet::new());
    for step in &case.steps {
        match step {
            LiveStep::Apply(yaml) => {
                let documents = parse_documents(yaml).unwrap();
                live.apply(&documents).unwrap();
                applied.extend(documents.into_iter().map(|document| document.object));
            }
            LiveStep::Delete(policy) => {
                let object = ObjectRef::new(Kind::NetworkPolicy, &policy.to_string());
                live.delete(std::slice::from_ref(&object)).unwrap();
                applied.remove(&object);
            }
            LiveStep::Flows(flows) => {
                asked += flows.len() * 2;
                wrong.extend(ask(live, flows).into_iter().map(|what| format!("{}:{what}", case.file.display())));
            }
        }
    }
    if !applied.is_empty() {
        live.delete(&applied.into_iter().collect::<Vec<_>>()).unwrap();
    }
    (asked, wrong)
}

/// All flows in both families at once; what is wrong of them.
fn ask(live: &Live, flows: &[LiveFlow]) -> Vec<String> {
    std::thread::scope(|scope| {
        let one = |flow: &LiveFlow, family: Family| {
            let address = SocketAddr::new(live.pod_address(&flow.dst, family).unwrap(), flow.port);
            let timeout = if flow.reached { ALLOWED_WITHIN } else { DENIED_AFTER };
            let probe = if flow.tcp { probe::tcp } else { probe::udp };
            let outcome = live.in_pod(&flow.src, || Ok(probe(address, timeout).outcome)).unwrap();
            // a refusal is an answer: it went there and back
            let right = if flow.reached { outcome.reached() } else { outcome == Outcome::TimedOut };
            let (protocol, word) = (if flow.tcp { "TCP" } else { "UDP" }, if flow.reached { "reached" } else { "denied" });
            let LiveFlow { line, src, dst, port, .. } = flow;
            (!right).then(|| format!("{line}: {family:?} {src} -> {dst} {port}/{protocol}: should be {word}, was {outcome}"))
        };
        let questions = [Family::V4, Family::V6].into_iter().flat_map(|family| flows.iter().map(move |flow| (flow, family)));
        let probes: Vec<_> = questions.map(|(flow, family)| scope.spawn(move || one(flow, family))).collect();
        probes.into_iter().filter_map(|probe| probe.join().unwrap()).collect()
    })
}
