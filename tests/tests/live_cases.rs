//! The cases that are marked live, on real pods: the same policies; the same flows, in both families, over TCP and UDP; and
//! the same frames, sent by raw sockets, where they are to be dropped by name.

use sluice_flow::Family;
use sluice_flow::limits::POD_MTU_MAX;
use sluice_lab::{Kind, ObjectRef, Outcome, parse_documents, probe};
use sluice_tests::cases::{LiveCase, LiveFlow, LiveFrame, LiveStep, dir, live_cases, read_all};
use sluice_tests::live::cni::Sandbox;
use sluice_tests::live::frames::{Link, ip_json};
use sluice_tests::live::{Live, PacketSocket, drops, pod, turn};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A denial is a drop, so each costs this much. What passes is answered within a millisecond.
const DENIED_AFTER: Duration = Duration::from_millis(400);
const ALLOWED_WITHIN: Duration = Duration::from_secs(3);
/// A drop is counted at the end of its batch, and a later fragment waits a second for its first before it is one.
const COUNTED_WITHIN: Duration = Duration::from_secs(4);
/// The node's end of every pod's device in the lab.
const GATEWAYS: [&str; 2] = ["10.88.0.1", "fd88::1"];

#[test]
fn live_cases_hold_on_real_pods() {
    let cases = live_cases(&read_all(&dir(), "").unwrap()).unwrap();
    let mut by_cluster: BTreeMap<&str, Vec<&LiveCase>> = BTreeMap::new();
    for case in &cases {
        by_cluster.entry(&case.cluster).or_default().push(case);
    }
    assert!(by_cluster.len() <= 2, "few labs serve all live cases");
    let mut failures = Vec::new();
    for (cluster, cases) in by_cluster {
        let Some(turn) = turn("live_cases") else { return };
        let live = Live::up(turn, "case", cluster, |_| {});
        failures.extend(play_all(&live, &cases));
        live.down();
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What the trunks do not carry never exists, because ADD refuses the pod whose device would send it. Frames of several
/// descriptors: live_jumbo.
#[test]
fn a_pod_whose_frames_no_trunk_carries_is_refused_by_name() {
    let Some(turn) = turn("live_cases jumbo") else { return };
    let live = Live::up(turn, "jumbo", &pod("x/web"), |_| {});
    let mut sandbox = Sandbox::create(&live, "x/jumbo").unwrap();
    sandbox.plug().unwrap();
    let device = sandbox.result["interfaces"][0]["name"].as_str().unwrap().to_owned();
    for (mtu, refused) in [(65_000, true), (POD_MTU_MAX + 1, true), (POD_MTU_MAX, false)] {
        ip_json(&live.node(), &["link", "set", "dev", &device, "mtu", &mtu.to_string()]).unwrap();
        let answer = sandbox.sluice("ADD", 300).unwrap();
        let named = format!("{device} has MTU {mtu}, this release serves up to {POD_MTU_MAX}");
        assert_eq!(answer.reason().contains(&named), refused, "{answer:?}");
        // of this pod there is no object, so that the last one waits for a table that knows it, in vain
        assert!(!answer.ok, "{answer:?}");
        println!("ADD with MTU {mtu}: {}", answer.reason());
    }
    assert!(sandbox.sluice("DEL", 1000).unwrap().ok);
    sandbox.unplug().unwrap();
    live.down();
}

fn play_all(live: &Live, cases: &[&LiveCase]) -> Vec<String> {
    let mut failures = Vec::new();
    for case in cases {
        let start = Instant::now();
        let (asked, wrong) = play(live, case);
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
    failures
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
            LiveStep::Frames(frames) => {
                asked += frames.iter().filter(|frame| frame.reason.is_some()).map(|frame| frame.repeat).sum::<usize>();
                wrong.extend(frames.iter().filter_map(|frame| send(live, frame)).map(|what| format!("{}:{what}", case.file.display())));
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

/// Sends a line's frames by the pod's device; what is wrong if they are not all dropped under their name.
fn send(live: &Live, frame: &LiveFrame) -> Option<String> {
    let text = |error: anyhow::Error| format!("{error:#}");
    let address = |name: &str, v4: bool| match (name, v4) {
        ("node", true) => Ok(GATEWAYS[0].parse().expect("an address")),
        ("node", false) => Ok(GATEWAYS[1].parse().expect("an address")),
        (pod, v4) => live.pod_address(pod, if v4 { Family::V4 } else { Family::V6 }).map_err(text),
    };
    let mac = |name: &str| match name {
        "gateway" => Link::of(live, &frame.pod).map(|link| link.gateway).map_err(text),
        "broadcast" => Ok([0xff; 6]),
        pod => Link::of(live, pod).map(|link| link.pod).map_err(text),
    };
    let wire = PacketSocket::of_pod(&live.pod_netns(&frame.pod)).unwrap();
    let count = || frame.reason.map_or(0, |reason| drops(live.layout(), reason.name()));
    let before = count();
    for index in 0..frame.repeat {
        wire.send(&frame.bytes(index, &address, &mac).unwrap()).unwrap();
    }
    let reason = frame.reason?;
    let (deadline, expected) = (Instant::now() + COUNTED_WITHIN, frame.repeat as u64);
    while count() - before < expected && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    let counted = count() - before;
    let LiveFrame { line, pod, text, .. } = frame;
    (counted != expected).then(|| format!("{line}: {pod} sends {text}: {counted} of {expected} dropped as {reason}"))
}
