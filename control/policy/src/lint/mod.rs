//! Warnings about manifests that are legal and probably not what their author meant.
//!
//! ```text
//!   Loaded + Sources ──▶ Cluster: pods (and pods to be) by label, namespace, address
//!                           │
//!                           ├─ selection   a policy or a peer that matches no pod
//!                           ├─ dns         what egress isolation leaves of name resolution, all policies together
//!                           ├─ ports       named ports that no destination defines
//!                           ├─ blocks      ipBlocks that hold pods, or a service's address
//!                           ├─ written     fields left empty, which mean "everything"
//!                           ├─ effect      directions: rules without effect, isolation nobody wrote
//!                           └─ covered     rules inside other rules
//!                           ▼
//!                        Report: warnings by place
//! ```
//!
//! The rules that hold throughout:
//!
//! * What matches what is asked of the [`oracle`](crate::oracle); only subset questions (`covered`) are answered here.
//! * Manifests are rarely the whole cluster. "Matches nothing" is said only of namespaces whose pods are known, and never
//!   where an object was refused that might have matched.
//! * Work is bounded: lookups go through indices, and what is left is counted. When [`STEPS_MAX`] is used up the report
//!   says which kinds are incomplete; it never claims more than was looked at.

mod blocks;
mod cluster;
mod covered;
mod dns;
mod effect;
mod kind;
mod ports;
mod selection;
mod warning;
mod written;

pub use kind::{UnknownKind, WarningKind};
pub use warning::Warning;

use crate::load::{Field, Kind, Loaded, ObjectId, Sources, clip};
use cluster::Cluster;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};
use sluice_flow::{Direction, ObjectName};
use std::collections::{BTreeMap, BTreeSet};

/// Selectors evaluated against one object each, and rules compared with each other, in one run.
pub const STEPS_MAX: u64 = 20_000_000;

type Check = fn(&Cluster<'_>, &mut Findings<'_>);

/// Who looks for what. The first needs no search, so that its kinds are always whole.
const CHECKS: [(Check, &[WarningKind]); 7] = [
    (written::check, &[]),
    (effect::check, &[WarningKind::ImpliedIngress]),
    (selection::check, &[WarningKind::SelectsNothing, WarningKind::PeerMatchesNothing]),
    (ports::check, &[WarningKind::UndefinedNamedPort]),
    (blocks::check, &[WarningKind::IpBlockCoversPods]),
    (dns::check, &[WarningKind::DnsCutOff, WarningKind::DnsWithoutTcp]),
    (covered::check, &[WarningKind::CoveredRule]),
];

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// By file, line and column.
    pub warnings: Vec<Warning>,
    /// Kinds of which some may be missing, because the work was cut off at [`STEPS_MAX`].
    pub incomplete: BTreeSet<WarningKind>,
}

/// Looks for everything in [`WarningKind::ALL`]. `sources` are those of the same load.
///
/// ```
/// use sluice_policy::{lint, load};
/// let text = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p}, spec: {podSelector: {}, ingress: [{from: []}]}}";
/// let (loaded, sources) = load::load_with_sources(vec![("p.yaml".into(), Ok(text.into()))]);
/// let report = lint::lint(&loaded, &sources);
/// assert_eq!(report.warnings[0].kind, lint::WarningKind::EmptyPeers);
/// ```
pub fn lint(loaded: &Loaded, sources: &Sources) -> Report {
    lint_within(loaded, sources, STEPS_MAX)
}

/// [`lint`] with another bound on the work.
pub fn lint_within(loaded: &Loaded, sources: &Sources, steps_max: u64) -> Report {
    let snapshot = cluster::with_workloads(&loaded.snapshot, sources);
    let cluster = Cluster::new(&snapshot, loaded, sources, steps_max);
    let mut found = Findings { sources, report: Report::default(), cluster: &cluster };
    for (check, kinds) in CHECKS {
        check(&cluster, &mut found);
        if cluster.exhausted() {
            found.report.incomplete.extend(kinds);
        }
    }
    let mut report = found.report;
    let order = |warning: &Warning| (warning.file.clone(), warning.line, warning.column, warning.kind);
    report.warnings.sort_by_cached_key(order);
    report
}

/// Collects warnings and finds their places.
struct Findings<'a> {
    sources: &'a Sources,
    report: Report,
    cluster: &'a Cluster<'a>,
}

impl Findings<'_> {
    fn add(&mut self, kind: WarningKind, policy: &ObjectName, field: &Field, message: impl Into<String>, hint: Option<String>) {
        let object = ObjectId { kind: Kind::NetworkPolicy, namespace: policy.namespace.clone(), name: policy.name.clone() };
        // A policy without a tree was not given by this load.
        let Some(spot) = self.sources.spot(&object, field) else { return };
        self.report.warnings.push(Warning {
            kind,
            file: spot.file,
            line: spot.line,
            column: spot.column,
            object,
            field: clip(field.to_string()),
            message: clip(message.into()),
            hint: hint.map(clip),
            source_line: spot.source_line,
        });
    }

    /// Whether "there is none" may be said: not after the work was cut off.
    fn complete(&self) -> bool {
        !self.cluster.exhausted()
    }
}

/// A rule of a policy, with the field it stands in.
struct RuleView<'a> {
    field: Field,
    direction: Direction,
    peers: &'a [NetworkPolicyPeer],
    ports: &'a [NetworkPolicyPort],
}

impl RuleView<'_> {
    /// `from` or `to`.
    fn peers_field(&self) -> Field {
        self.field.key(peers_name(self.direction))
    }
}

fn peers_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    }
}

/// The rules in force of a policy: of the directions that it names.
fn rules_in_force<'a>(name: &'a ObjectName, policy: &'a NetworkPolicy) -> impl Iterator<Item = RuleView<'a>> {
    Direction::BOTH.into_iter().filter(|direction| crate::oracle::names_direction(policy, *direction)).flat_map(move |direction| {
        let rules = crate::oracle::rules(name, policy, direction);
        let list = Field::of("spec").key(&direction.to_string());
        let view = move |(index, rule): (usize, crate::oracle::Rule<'a>)| RuleView {
            field: list.index(index),
            direction,
            peers: rule.peers(),
            ports: rule.ports(),
        };
        rules.into_iter().enumerate().map(view).collect::<Vec<_>>()
    })
}

fn spec(policy: &NetworkPolicy) -> Option<&NetworkPolicySpec> {
    policy.spec.as_ref()
}

/// Counts of some things by name, shown as `a, b or 3 more`.
fn names<'n>(names: impl Iterator<Item = &'n ObjectName>) -> String {
    crate::oracle::listed(names.map(ObjectName::to_string))
}

/// `1 pod`, `3 pods`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

type Grouped<K, V> = BTreeMap<K, Vec<V>>;
