//! The matrix for scripts. Pairs are written one by one: there may be millions.

use crate::analysis::{Openness, families_text, ports_text};
use anyhow::Result;
use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};
use sluice_flow::{Direction, Family};
use sluice_policy::reach::{DeclaredPort, End, EndKind, Explainer, Families, Half, Pair, Ports, Reach, Survey, Way};
use std::io::Write;

/// What was computed.
pub(super) struct Matrix<'a> {
    pub(super) survey: &'a Survey,
    pub(super) reach: &'a Reach,
    pub(super) notes: Vec<String>,
}

impl<'a> Matrix<'a> {
    pub(super) fn ends(&self, pair: Pair) -> (&'a End, &'a End) {
        (&self.survey.ends[pair.from as usize], &self.survey.ends[pair.to as usize])
    }

    pub(super) fn openness(&self, pair: Pair) -> Openness {
        Openness::of(&self.reach.cell(pair).ways)
    }

    /// The rule that came nearest where `direction` denies something that a reader may want: all of it, or a port that
    /// the destination declares.
    pub(super) fn miss(&self, explainer: &Explainer<'_>, pair: Pair, way: &Way, direction: Direction) -> Option<Miss> {
        let half = self.reach.half(way, direction)?;
        let denied = half.allowed().not();
        let declared = self.ends(pair).1.ports().iter().map(|port| Ports::one(port.protocol, port.port));
        let wanted = declared.fold(Ports::default(), |all, one| all.or(&one)).and(&denied);
        let asked = match (wanted.is_empty(), half.spans.is_empty()) {
            (false, _) => wanted,
            (true, true) => Ports::one(sluice_flow::Protocol::TCP, 80),
            (true, false) => return None,
        };
        let family = if way.families == Families::V6 { Family::V6 } else { Family::V4 };
        let asked = asked.first()?;
        let miss = explainer.nearest_miss(pair, direction, family, &asked)?;
        Some(Miss { asked: asked.to_string(), rule: miss.rule.to_string(), failed: miss.failed })
    }
}

/// The rule that came nearest to allowing something.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub(super) struct Miss {
    /// The port that was asked about.
    pub(super) asked: String,
    pub(super) rule: String,
    pub(super) failed: String,
}

/// Prints the whole matrix as one object.
pub(super) fn json(matrix: &Matrix<'_>, out: &mut dyn Write) -> Result<()> {
    struct Report<'a>(&'a Matrix<'a>);
    impl Serialize for Report<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let Self(matrix) = self;
            let mut report = serializer.serialize_struct("Matrix", 3)?;
            report.serialize_field("ends", &matrix.survey.ends.iter().map(EndReport::of).collect::<Vec<_>>())?;
            report.serialize_field("pairs", &Pairs(matrix))?;
            report.serialize_field("notes", &matrix.notes)?;
            report.end()
        }
    }
    crate::output::json(out, &Report(matrix))
}

struct Pairs<'a>(&'a Matrix<'a>);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let explainer = self.0.survey.explainer();
        serializer.collect_seq(self.0.reach.pairs.iter().map(|pair| PairReport::of(self.0, &explainer, *pair)))
    }
}

/// A row.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndReport<'a> {
    name: &'a str,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pods: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cidrs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<DeclaredReport<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DeclaredReport<'a> {
    protocol: String,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

impl<'a> EndReport<'a> {
    pub(crate) fn of(end: &'a End) -> Self {
        let (kind, workload, pods) = match &end.kind {
            EndKind::Pods { pods, workload, .. } => ("pods", *workload, pods.iter().map(ToString::to_string).collect()),
            EndKind::Blocks(_) => ("blocks", None, Vec::new()),
            EndKind::Elsewhere => ("elsewhere", None, Vec::new()),
        };
        let declared =
            |port: &'a DeclaredPort| DeclaredReport { protocol: port.protocol.to_string(), port: port.port, name: port.name.as_deref() };
        let cidrs = match &end.kind {
            EndKind::Blocks(nets) => nets.iter().map(ToString::to_string).collect(),
            EndKind::Pods { .. } | EndKind::Elsewhere => Vec::new(),
        };
        Self { name: &end.name, kind, namespace: end.namespace(), workload, pods, cidrs, ports: end.ports().iter().map(declared).collect() }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PairReport<'a> {
    from: &'a str,
    to: &'a str,
    verdict: Openness,
    ports: String,
    ways: Vec<WayReport>,
}

/// What holds in some families.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WayReport {
    families: &'static str,
    allowed: Vec<RangeReport>,
    egress: Option<HalfReport>,
    ingress: Option<HalfReport>,
}

/// Ports of one protocol; `other` is every protocol without ports.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RangeReport {
    protocol: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<u16>,
}

impl RangeReport {
    pub(crate) fn all(ports: &Ports) -> Vec<Self> {
        let report = |range: sluice_policy::reach::PortRange| match range.protocol {
            Some(protocol) => Self { protocol: protocol.to_string(), first: Some(range.first), last: Some(range.last) },
            None => Self { protocol: "other".to_owned(), first: None, last: None },
        };
        ports.ranges().map(report).collect()
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct HalfReport {
    isolated: bool,
    isolating: Vec<String>,
    allowed: Vec<SpanReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nearest_miss: Option<Miss>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SpanReport {
    ports: String,
    rule: Option<String>,
}

impl<'a> PairReport<'a> {
    fn of(matrix: &Matrix<'a>, explainer: &Explainer<'_>, pair: Pair) -> Self {
        let ways = &matrix.reach.cell(pair).ways;
        let (from, to) = matrix.ends(pair);
        let way = |way: &Way| {
            let half = |direction| {
                let miss = matrix.miss(explainer, pair, way, direction);
                matrix.reach.half(way, direction).map(|half| HalfReport::of(matrix.reach, half, miss))
            };
            WayReport {
                families: families_text(way.families),
                allowed: RangeReport::all(&way.allowed),
                egress: half(Direction::Egress),
                ingress: half(Direction::Ingress),
            }
        };
        Self {
            from: &from.name,
            to: &to.name,
            verdict: matrix.openness(pair),
            ports: ports_text(ways, Ports::to_string),
            ways: ways.iter().map(way).collect(),
        }
    }
}

impl HalfReport {
    fn of(reach: &Reach, half: &Half, nearest_miss: Option<Miss>) -> Self {
        let isolation = reach.isolation(half);
        let span = |span: &sluice_policy::reach::Span| SpanReport {
            ports: span.ports().to_string(),
            rule: span.rule.map(|rule| isolation.rules[rule as usize].to_string()),
        };
        Self {
            isolated: !isolation.isolating.is_empty(),
            isolating: isolation.isolating.iter().map(ToString::to_string).collect(),
            allowed: half.spans.iter().map(span).collect(),
            nearest_miss,
        }
    }
}
