//! Planted bugs: each edits what one stage of the compiler hands to the next, as a bug in that stage would, or compiles
//! with an object that the compiler failed to notice. The proof must find every one of them, and show where.
//!
//! `cargo test -p sluice-policy planted -- --nocapture` lists them with what found each.

mod bugs;
mod changes;

use super::model::Model;
use super::{CompileError, Compiler, Stages};
use crate::load::load_str;
use crate::prove::{Counterexample, Prover};
use crate::{LocalEndpoint, ObjectName, Snapshot};
use bugs::bugs;
use changes::changes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sluice_flow::{Direction, Incarnation, PortIndex};
use sluice_table::{Table, TableParts, build_image};
use std::fmt::Write;
use std::sync::Arc;

/// What a planted bug does; most need only one of the two.
struct Planted {
    model: fn(&mut Model),
    parts: fn(&mut TableParts),
}

impl Stages for Planted {
    fn model(&self, model: &mut Model) {
        (self.model)(model);
    }

    fn parts(&self, parts: &mut TableParts) {
        (self.parts)(parts);
    }
}

const CLUSTER: &str = include_str!("cluster.yaml");

/// The cluster of the file, with pods of namespace `x` attached here, and a policy whose rules need more than 256
/// classes, rows and port classes.
fn cluster() -> Snapshot {
    let mut text = CLUSTER.to_owned();
    text.push_str(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: many, namespace: x}\n\
         spec:\n  podSelector: {matchLabels: {app: web}}\n  policyTypes: [Ingress]\n  ingress:\n",
    );
    for n in 0..300 {
        writeln!(text, "  - {{from: [{{ipBlock: {{cidr: 172.16.{}.{}/32}}}}], ports: [{{port: {}}}]}}", n / 256, n % 256, 20_000 + 2 * n)
            .unwrap();
    }
    let loaded = load_str("cluster.yaml", &text);
    assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
    let mut snapshot = loaded.snapshot;
    for (port, name) in (3u16..).zip(["x/web", "x/db", "x/twin-a", "x/open", "x/agent"]) {
        let pod = ObjectName::parse(name);
        let status = snapshot.pods[&pod].status.clone().unwrap();
        let addresses = status.pod_ips.unwrap().into_iter().map(|ip| ip.ip.parse().unwrap()).collect();
        snapshot.endpoints.push(LocalEndpoint { port: PortIndex(port), incarnation: Incarnation(1), pod, uid: String::new(), addresses });
    }
    snapshot
}

fn table(parts: &TableParts) -> Table {
    Table::from_bytes(&build_image(parts, 1)).unwrap()
}

/// What the proof says of a wrong table. A prover that knows the cluster already and one that does not must agree.
fn found(experienced: &mut Prover, snapshot: &Snapshot, wrong: &Table, name: &str) -> Counterexample {
    let counterexample = Prover::new().prove(snapshot, wrong).err().unwrap_or_else(|| panic!("not caught: {name}"));
    assert_eq!(experienced.prove(snapshot, wrong), Err(counterexample.clone()), "{name}");
    counterexample
}

fn show(name: &str, counterexample: &Counterexample) {
    println!("{name}\n    {}", counterexample.to_string().replace('\n', "\n    "));
}

#[test]
fn planted_bugs_of_every_stage_are_caught() {
    let snapshot = cluster();
    let right = build_image(&Compiler::new().parts(&snapshot, &super::Straight).unwrap(), 1);
    let mut prover = Prover::new();
    prover.prove(&snapshot, &Table::from_bytes(&right).unwrap()).unwrap_or_else(|wrong| panic!("the right table: {wrong}"));
    for (name, model, parts) in bugs() {
        let parts = Compiler::new().parts(&snapshot, &Planted { model, parts }).unwrap();
        assert!(build_image(&parts, 1) != right, "{name}: changes nothing, so nothing is tested");
        show(name, &found(&mut prover, &snapshot, &table(&parts), name));
    }
}

#[test]
fn planted_blindness_to_a_change_is_caught() {
    let before = cluster();
    // what an incremental compiler makes that does not notice the change
    let stale = table(&Compiler::new().parts(&before, &super::Straight).unwrap());
    let mut prover = Prover::new();
    for (name, change) in changes() {
        prover.prove(&before, &stale).unwrap();
        let mut after = before.clone();
        change(&mut after);
        show(&format!("overlooked: {name}"), &found(&mut prover, &after, &stale, name));
    }
}

#[test]
fn rules_of_both_directions_are_in_play() {
    let snapshot = cluster();
    let parts = Compiler::new().parts(&snapshot, &super::Straight).unwrap();
    for direction in Direction::BOTH {
        assert!(parts.names.rules.iter().any(|rule| rule.direction == direction));
    }
    let rows = parts.profiles.iter().map(|profile| profile.actions.len() / profile.stride).max().unwrap();
    assert!(parts.classes > 256 && rows > 256 && parts.ports.classes > 256, "{} {rows} {}", parts.classes, parts.ports.classes);
}

#[test]
fn label_sets_that_get_other_numbers_take_nothing_over() {
    // so many label sets come and go that the compiler forgets them and numbers the next ones anew
    let crowd = |count: usize, app: &str| {
        let mut snapshot = cluster();
        let client = Arc::clone(&snapshot.pods[&ObjectName::parse("w/client")]);
        for index in 0..count {
            let mut pod = (*client).clone();
            pod.metadata.labels = Some(Arc::new([("app".into(), app.into()), ("index".into(), index.to_string())].into()));
            pod.status.get_or_insert_default().pod_ips =
                Some([crate::pod::PodIp { ip: format!("10.7.{}.{}", index / 256, index % 256).into() }].into_iter().collect());
            snapshot.pods.insert(ObjectName::new("w", format!("crowd-{app}-{index}")), Arc::new(pod));
        }
        snapshot
    };
    let mut compiler = Compiler::new();
    for (count, app) in [(4200, "client"), (1, "client"), (2, "nobody"), (4200, "nobody"), (3, "other")] {
        let snapshot = crowd(count, app);
        assert!(compiler.compile(&snapshot, 1) == super::compile(&snapshot, 1), "{count} pods with app={app}");
    }
}

#[test]
fn what_a_compiler_remembers_stays_in_proportion_and_never_shows() {
    let name = ObjectName::parse("x/many");
    let mut snapshot = cluster();
    let mut compiler = Compiler::new();
    let (mut most, mut forgot) = (0, false);
    for round in 0..80u16 {
        let policy = Arc::make_mut(snapshot.policies.get_mut(&name).unwrap());
        for rule in policy.spec.as_mut().unwrap().ingress.as_mut().unwrap() {
            rule.ports.as_mut().unwrap()[0].port = Some(IntOrString::Int(i32::from(1000 + round)));
        }
        assert!(compiler.compile(&snapshot, 1) == super::compile(&snapshot, 1), "round {round}");
        let weight: usize = compiler.columns.weights().iter().sum();
        (most, forgot) = (most.max(weight), forgot || weight < most / 2);
    }
    assert!(forgot && most < 40_000, "{most}");
}

#[test]
fn a_refused_policy_leaves_the_compiler_usable() {
    let snapshot = cluster();
    let mut compiler = Compiler::new();
    compiler.compile(&snapshot, 1).unwrap();
    // beside a policy of a namespace with pods of this node and one without, everything else changes too
    for (name, pod) in [("x/web", "w/client"), ("z/bad", "z/far")] {
        let mut wrong = snapshot.clone();
        let mut policy = (*snapshot.policies[&ObjectName::parse("x/web")]).clone();
        policy.spec.as_mut().unwrap().pod_selector = Some(LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement { key: "app".into(), operator: "Near".into(), values: None }]),
            match_labels: None,
        });
        wrong.policies.insert(ObjectName::parse(name), Arc::new(policy));
        wrong.pods.remove(&ObjectName::parse(pod));
        let refused = super::compile(&wrong, 1);
        assert!(matches!(&refused, Err(CompileError::Object { object, .. }) if object.ends_with(name)), "{refused:?}");
        assert_eq!(compiler.compile(&wrong, 1), refused);
        assert_eq!(compiler.compile(&wrong, 1), refused, "{name} at the second look");
        wrong.policies.remove(&ObjectName::parse(name));
        assert!(compiler.compile(&wrong, 1) == super::compile(&wrong, 1), "{name} is gone");
        assert!(compiler.compile(&snapshot, 1) == super::compile(&snapshot, 1), "{name} was never there");
    }
}
