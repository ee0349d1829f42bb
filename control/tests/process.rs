//! The real binary on a real directory and real sockets, against a dataplane that the test plays with the wire crate.

#[allow(dead_code, reason = "shared with the other tests of the binary")]
mod rig;

use rig::{Control, Dataplane, allows, endpoint, on_manifests, web};
use sluice_flow::{Direction, Incarnation, ObjectName, PortIndex};
use sluice_wire::{FromControl, ToControl};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: x, labels: {app: web}}
spec: {containers: [{name: c, image: i}]}
status: {podIP: 10.0.0.1, phase: Running}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: x, labels: {app: client}}
spec: {containers: [{name: c, image: i}]}
status: {podIP: 10.0.0.2, phase: Running}
";

const ALLOW_CLIENT: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: x}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: client}}}]
    ports: [{port: 80}]
";

const DENY_ALL: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: x}
spec: {podSelector: {}}
";

#[test]
fn a_change_is_compiled_and_published_soon_and_generations_rise() {
    let control = Control::start(&[("pods.yaml", PODS)]);
    let dataplane = Dataplane::start(&control);
    let mut session = dataplane.accept(web(), 41);
    let first = session.publish_and_adopt();
    assert!(first.generation() > 41, "continues above the dataplane's generation");
    assert!(allows(&first, 80) && allows(&first, 81), "not isolated");

    let started = Instant::now();
    control.write("policy.yaml", ALLOW_CLIENT);
    let second = session.publish_and_adopt();
    let took = started.elapsed();
    assert!(took < Duration::from_secs(2), "published after {took:?}");
    assert!(second.generation() > first.generation());
    assert!(allows(&second, 80) && !allows(&second, 81));
    let status = control.until("settled", |s| s.settled);
    assert_eq!((status.policies, status.pods, status.endpoints), (1, 2, 1));
    assert_eq!(status.adopted_generation, second.generation());
    assert!(
        status.last_change_to_adopted_us.is_some()
            && status.comparisons > 0
            && status.comparisons == status.comparisons_required
            && !status.proof_pending
            && status.image_bytes > 0
    );

    control.write("notes.txt", "not a manifest");
    control.write("copy.yaml", "# nothing in it\n");
    session.stays_silent(Duration::from_millis(500));
}

#[test]
fn nothing_is_published_before_the_endpoints_and_the_directory_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start_in(dir);
    let dataplane = Dataplane::start(&control);
    let mut session = dataplane.accept_silently();
    session.stays_silent(Duration::from_millis(300));
    session.endpoints(web(), 0);
    session.stays_silent(Duration::from_millis(300));
    let status = control.status();
    assert!(status.problems.iter().any(|p| p.file.ends_with("manifests")), "{status:#?}");
    assert!(!status.settled);
    // the directory appears: found by the rescan
    let manifests = control.dir.path().join("manifests");
    std::fs::create_dir(&manifests).unwrap();
    control.write("pods.yaml", PODS);
    control.write("policy.yaml", DENY_ALL);
    while allows(&session.publish_and_adopt(), 80) {}
    assert!(control.until("settled", |s| s.settled).problems.is_empty());
}

#[test]
fn a_bad_file_keeps_the_last_good_state_and_is_shown_with_its_place() {
    let control = Control::start(&[("pods.yaml", PODS), ("policy.yaml", ALLOW_CLIENT)]);
    let dataplane = Dataplane::start(&control);
    let mut session = dataplane.accept(web(), 0);
    session.publish_and_adopt();
    control.write("policy.yaml", &ALLOW_CLIENT.replace("port: 80", "port: 80000"));
    let status = control.settle();
    let problem = status.problems.first().expect("a problem");
    assert!(problem.file.ends_with("policy.yaml") && problem.line > 0 && problem.column > 0, "{problem:?}");
    assert_eq!(problem.object.as_deref(), Some("NetworkPolicy x/web"));
    assert!(problem.in_force.contains("last good"), "{problem:?}");
    assert!(status.settled, "the last good state is what was read, and it is in force: {status:#?}");
    assert_eq!(status.policies, 1);
    session.stays_silent(Duration::from_millis(300));
    // repaired: the problem goes
    control.write("policy.yaml", DENY_ALL);
    assert!(!allows(&session.publish_and_adopt(), 80));
    assert!(control.settle().problems.is_empty());
}

#[test]
fn a_vanished_directory_is_a_problem_and_not_an_empty_cluster() {
    let control = Control::start(&[("pods.yaml", PODS), ("policy.yaml", ALLOW_CLIENT)]);
    let dataplane = Dataplane::start(&control);
    let mut session = dataplane.accept(web(), 0);
    session.publish_and_adopt();
    let manifests = control.dir.path().join("manifests");
    std::fs::rename(&manifests, control.dir.path().join("elsewhere")).unwrap();
    let status = control.until("a problem", |s| !s.problems.is_empty());
    assert_eq!(status.policies, 1, "{status:#?}");
    session.stays_silent(Duration::from_millis(300));
    // another directory in its place is watched again
    std::fs::create_dir(&manifests).unwrap();
    control.write("pods.yaml", PODS);
    control.write("policy.yaml", DENY_ALL);
    while allows(&session.publish_and_adopt(), 80) {}
    control.until("no problem", |s| s.problems.is_empty());
}

#[test]
fn an_endpoint_is_compiled_in_at_once_and_a_terminating_pod_keeps_its_policy() {
    let control = Control::start(&[("pods.yaml", &PODS.replace("podIP: 10.0.0.1, ", "")), ("policy.yaml", ALLOW_CLIENT)]);
    let dataplane = Dataplane::start(&control);
    let mut session = dataplane.accept(Vec::new(), 0);
    let before = session.publish_and_adopt();
    assert_eq!(before.endpoint(PortIndex(0)), None);
    let started = Instant::now();
    session.endpoints(web(), before.generation());
    let after = session.publish_and_adopt();
    let took = started.elapsed();
    assert_eq!(after.endpoint(PortIndex(0)), Some(Incarnation(1)));
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(allows(&after, 80) && !allows(&after, 81), "under policy before its status shows an address");
    // the pod's object vanishes, its endpoint does not
    std::fs::remove_file(control.dir.path().join("manifests/pods.yaml")).unwrap();
    let terminating = session.publish_and_adopt();
    assert!(terminating.isolated(PortIndex(0), Direction::Ingress));
    assert!(!allows(&terminating, 81));
    session.endpoints(Vec::new(), terminating.generation());
    assert_eq!(session.publish_and_adopt().endpoint(PortIndex(0)), None);
}

#[test]
fn a_returning_dataplane_is_given_the_table_again_above_its_own_generation() {
    let control = Control::start(&[("pods.yaml", PODS), ("policy.yaml", ALLOW_CLIENT)]);
    let dataplane = Dataplane::start(&control);
    let mut session = dataplane.accept(web(), 0);
    let first = session.publish_and_adopt();
    control.until("settled", |s| s.settled);
    drop(session);
    control.until("disconnected", |s| !s.dataplane_connected && !s.settled);
    let mut session = dataplane.accept(web(), 1000);
    let again = session.publish_and_adopt();
    assert!(again.generation() > 1000 && again.generation() > first.generation());
    assert!(allows(&again, 80) && !allows(&again, 81));
    assert!(control.settle().settled);
}

#[test]
fn settle_reads_at_once_and_answers_when_adopted_or_refused() {
    let control = Control::start(&[("pods.yaml", PODS)]);
    let dataplane = Dataplane::start(&control);
    let mut session = dataplane.accept(web(), 0);
    session.publish_and_adopt();
    control.write("policy.yaml", DENY_ALL);
    let worker = std::thread::spawn(move || {
        let table = session.published();
        std::thread::sleep(Duration::from_millis(100));
        session.adopted(table.generation());
        session
    });
    let status = control.settle();
    assert!(status.settled && status.policies == 1, "{status:#?}");
    let mut session = worker.join().unwrap();

    control.write("policy.yaml", ALLOW_CLIENT);
    let worker = std::thread::spawn(move || {
        let generation = session.published().generation();
        let reason = "no room for its connections".to_owned();
        session.refused(generation, reason);
        session
    });
    let status = control.settle();
    assert!(!status.settled);
    assert!(status.last_failure.as_deref().is_some_and(|f| f.contains("no room for its connections")), "{status:#?}");
    let mut session = worker.join().unwrap();
    session.stays_silent(Duration::from_millis(200));
    // the next change is tried again, and its success clears the failure
    control.write("policy.yaml", &ALLOW_CLIENT.replace("port: 80", "port: 8080"));
    assert!(allows(&session.publish_and_adopt(), 8080));
    assert_eq!(control.settle().last_failure, None);
}

#[test]
fn what_cannot_be_compiled_is_shown_and_the_next_state_is_published() {
    let control = Control::start(&[("pods.yaml", PODS), ("policy.yaml", ALLOW_CLIENT)]);
    let dataplane = Dataplane::start(&control);
    let mut session = dataplane.accept(web(), 0);
    let good = session.publish_and_adopt();
    // a port beyond the table format's room
    session.endpoints(vec![endpoint(0, "x/web", "10.0.0.1"), endpoint(60_000, "x/client", "10.0.0.2")], good.generation());
    let status = control.until("a failure", |s| s.last_failure.is_some());
    assert!(!status.settled && status.adopted_generation == good.generation(), "{status:#?}");
    session.stays_silent(Duration::from_millis(200));
    // undone: what is in force is what is wanted, so nothing has to be published
    session.endpoints(web(), good.generation());
    let status = control.until("settled", |s| s.settled);
    assert_eq!(status.last_failure, None);
    session.stays_silent(Duration::from_millis(200));
}

#[test]
fn settle_gives_up_in_time_without_a_dataplane() {
    let control = Control::start(&[("pods.yaml", PODS)]);
    let started = Instant::now();
    let FromControl::Status(status) = control.ask(&ToControl::Settle { timeout_ms: 200 }) else { panic!("another answer") };
    assert!(!status.settled && !status.dataplane_connected);
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn explanations_show_the_objects_and_the_table_in_force() {
    let control = Control::start(&[("pods.yaml", PODS), ("policy.yaml", ALLOW_CLIENT)]);
    let dataplane = Dataplane::start(&control);
    let mut session = dataplane.accept(web(), 0);
    session.publish_and_adopt();
    control.until("settled", |s| s.settled);
    for (port, allowed) in [(80, true), (81, false)] {
        let question = ToControl::Explain { src: "x/client".into(), dst: "x/web".into(), port, protocol: "TCP".into() };
        let FromControl::Explanation(e) = control.ask(&question) else { panic!("another answer") };
        assert_eq!(e.allowed, allowed);
        let ingress = e.ingress.expect("the web pod's half");
        assert_eq!((ingress.allowed, ingress.table_allowed), (allowed, Some(allowed)));
        assert_eq!(ingress.rule, ingress.table_rule);
        assert_eq!(ingress.nearest_miss.is_some(), !allowed);
        assert_eq!(e.egress.expect("the client's half").table_allowed, None, "not attached here");
    }
    let FromControl::Policies { policies } = control.ask(&ToControl::Policies) else { panic!("another answer") };
    assert_eq!(policies.len(), 1);
    assert_eq!(policies[0].selected_pods, [ObjectName::parse("x/web")]);
    assert_eq!((policies[0].local_pods, policies[0].ingress_rules), (1, 1));
    assert!(policies[0].file.as_deref().is_some_and(|f| f.contains("policy.yaml:")), "{policies:?}");
    let question = ToControl::Explain { src: "x/nobody".into(), dst: "x/web".into(), port: 80, protocol: "TCP".into() };
    assert!(matches!(control.ask(&question), FromControl::Failed { .. }));
}

#[test]
fn a_storm_of_edits_costs_few_images_and_the_last_one_wins() {
    let control = Control::start(&[("pods.yaml", PODS)]);
    let dataplane = Dataplane::start(&control);
    let mut session = dataplane.accept(web(), 0);
    session.publish_and_adopt();
    for port in 1000..1100 {
        control.write("policy.yaml", &ALLOW_CLIENT.replace("port: 80", &format!("port: {port}")));
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut images = 0;
    loop {
        images += 1;
        let table = session.publish_and_adopt();
        // Each edit empties the file before it fills it; no image may be made of that moment.
        assert!(table.isolated(PortIndex(0), Direction::Ingress), "generation {} of a torn file", table.generation());
        if allows(&table, 1099) {
            break;
        }
    }
    assert!(images < 20, "{images} images for 100 edits");
    assert!(control.settle().settled);
}

#[test]
fn a_second_process_is_turned_away_and_a_signal_ends_the_first_cleanly() {
    let mut control = Control::start(&[("pods.yaml", PODS)]);
    control.status();
    let second = on_manifests(control.dir.path()).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(second.status.code(), Some(3));
    let text = String::from_utf8(second.stderr).unwrap();
    assert!(text.contains("another sluice-control"), "{text}");
    control.status();
    let killed = Command::new("kill").args(["-TERM", &control.process.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(control.process.wait().unwrap().code(), Some(0));
    assert!(!control.dir.path().join("run/control/control.sock").exists());
}

#[test]
fn a_killed_process_leaves_nothing_that_stops_its_successor() {
    let mut first = Control::start(&[("pods.yaml", PODS)]);
    first.status();
    first.process.kill().unwrap();
    first.process.wait().unwrap();
    assert!(first.dir.path().join("run/control/control.sock").exists());
    first.process = on_manifests(first.dir.path()).spawn().unwrap();
    assert_eq!(first.status().pid, first.process.id());
}
