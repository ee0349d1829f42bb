//! One step of a case: every decided cell of every grid.
//!
//! A cell is decided where it holds `.` (allowed) or `X` (blocked). The other characters say that there is no truth to
//! compare with: `-` was not probed, `N` and `P` ask for a port that the destination does not serve or name, and `?` is
//! the other half of such a cell.
//!
//! In a few random clusters an address of the external grids is also some pod's. Those grids' truth is about a world
//! where it is no pod's, so they are asked in a state where such pods have no address; nothing else in an external grid
//! depends on a pod's address.

use super::engine::{Engine, Judge, Question, load};
use super::schema::{Grid, Step};
use sluice_flow::{Direction, Protocol};
use sluice_policy::{ObjectName, Snapshot};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// A cell where an engine and the truth disagree.
#[derive(Debug, Clone)]
pub struct Difference {
    /// `v4-006`.
    pub case: String,
    /// From 0.
    pub step: usize,
    /// Which grid.
    pub grid: &'static str,
    /// Who was asked.
    pub engine: Engine,
    /// `x/a (10.244.1.10) -> y/b (10.244.2.33) 80/TCP`.
    pub connection: String,
    /// `ingress`, `egress` or `combined`.
    pub half: &'static str,
    /// The truth.
    pub expected_allowed: bool,
    /// What the engine says at the destination.
    pub ingress: String,
    /// What the engine says at the source.
    pub egress: String,
    /// What the oracle says at both ends.
    pub oracle: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |allowed| if allowed { "allowed" } else { "denied" };
        let (expected, got) = (word(self.expected_allowed), word(!self.expected_allowed));
        writeln!(f, "{} step {}, {}: {}", self.case, self.step, self.grid, self.connection)?;
        writeln!(f, "  {}: expected {expected}, the {} says {got}", self.half, self.engine.name())?;
        writeln!(f, "  {} at the source: {}; at the destination: {}", self.engine.name(), self.egress, self.ingress)?;
        write!(f, "  oracle {}", self.oracle)
    }
}

/// What came of one step.
#[derive(Debug, Default)]
pub(super) struct StepResult {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) differences: Vec<Difference>,
}

/// Compares `step` on each engine. At most `differences_max` differences are put into words.
///
/// # Errors
/// Says what is wrong with the step: a grid that does not fit its axes, an unknown pod, port or character, or a state
/// that an engine refuses.
pub(super) fn compare(case: &str, index: usize, step: &Step, engines: &[Engine], differences_max: usize) -> Result<StepResult, String> {
    let snapshot = step.snapshot();
    let pods: BTreeMap<ObjectName, (usize, IpAddr)> = {
        let addresses: BTreeMap<_, _> = step.pods.iter().map(|pod| (pod.object_name(), pod.ip)).collect();
        snapshot.pods.keys().enumerate().map(|(i, name)| (name.clone(), (i, addresses[name]))).collect()
    };
    let outside = without_external_addresses(step, &snapshot);
    let mut result = StepResult::default();
    for &engine in engines {
        let load = |snapshot| load(engine, snapshot).map_err(|problem| format!("{} engine: {problem}", engine.name()));
        let (judge, external) = (load(&snapshot)?, outside.as_ref().map(load).transpose()?);
        for (name, grid) in step.grids() {
            let axes = Axes::new(grid, &pods).map_err(|problem| format!("grid {name}: {problem}"))?;
            let (snapshot, judge) = match (axes.is_external(), &outside, &external) {
                (true, Some(snapshot), Some(judge)) => (snapshot, judge),
                _ => (&snapshot, &judge),
            };
            axes.walk(grid, judge.as_ref(), |cell, wrong| {
                if wrong.is_empty() {
                    result.passed += 1;
                    return;
                }
                result.failed += 1;
                for &(half, expected_allowed) in wrong {
                    if result.differences.len() < differences_max {
                        let mut difference = describe(snapshot, judge.as_ref(), engine, &cell);
                        difference = Difference { case: case.to_owned(), step: index, grid: name, ..difference };
                        result.differences.push(Difference { half, expected_allowed, ..difference });
                    }
                }
            })
            .map_err(|problem| format!("grid {name}: {problem}"))?;
        }
    }
    Ok(result)
}

/// The state in which the addresses of the external grids are no pod's; `None` if they never were.
fn without_external_addresses(step: &Step, snapshot: &Snapshot) -> Option<Snapshot> {
    let external = |address: IpAddr| {
        let ends = step.external_ingress.sources.iter().chain(&step.external_egress.dests);
        ends.into_iter().any(|text| text.parse() == Ok(address))
    };
    let mut snapshot = snapshot.clone();
    let mut changed = false;
    for pod in step.pods.iter().filter(|pod| external(pod.ip)) {
        if let Some(object) = snapshot.pods.get_mut(&pod.object_name()) {
            std::sync::Arc::make_mut(object).status = None;
            changed = true;
        }
    }
    changed.then_some(snapshot)
}

/// A row's or a column's head: a pod, or an address that is none.
struct End {
    text: String,
    pod: Option<usize>,
    address: IpAddr,
}

struct Axes {
    sources: Vec<End>,
    dests: Vec<End>,
    ports: Vec<(Protocol, u16)>,
}

struct Cell<'a> {
    src: &'a End,
    dst: &'a End,
    protocol: Protocol,
    port: u16,
}

impl Cell<'_> {
    fn egress(&self) -> Option<Question> {
        let Self { src, dst, protocol, port } = *self;
        Some(Question { pod: src.pod?, direction: Direction::Egress, remote: dst.address, protocol, port })
    }

    fn ingress(&self) -> Option<Question> {
        let Self { src, dst, protocol, port } = *self;
        Some(Question { pod: dst.pod?, direction: Direction::Ingress, remote: src.address, protocol, port })
    }
}

impl Axes {
    fn new(grid: &Grid, pods: &BTreeMap<ObjectName, (usize, IpAddr)>) -> Result<Self, String> {
        let end = |text: &String| match (text.parse(), pods.get(&ObjectName::parse(text))) {
            (Ok(address), _) => Ok(End { text: text.clone(), pod: None, address }),
            (_, Some(&(pod, address))) => Ok(End { text: format!("{text} ({address})"), pod: Some(pod), address }),
            _ => Err(format!("{text} is neither an address nor a pod of this step")),
        };
        let port = |text: &String| {
            let (protocol, port) = text.split_once('/')?;
            Some((Protocol::from_name(protocol)?, port.parse().ok()?))
        };
        Ok(Self {
            sources: grid.sources.iter().map(end).collect::<Result<_, _>>()?,
            dests: grid.dests.iter().map(end).collect::<Result<_, _>>()?,
            ports: grid
                .ports
                .iter()
                .map(|text| port(text).ok_or_else(|| format!("{text} is no protocol/port")))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Whether one side of the grid is addresses that are no pod.
    fn is_external(&self) -> bool {
        [&self.sources, &self.dests].iter().any(|ends| ends.iter().any(|end| end.pod.is_none()))
    }

    /// Visits each cell that is decided in some half, with the halves in which the engine disagrees and their truth.
    fn walk<'a>(&'a self, grid: &Grid, judge: &dyn Judge, mut visit: impl FnMut(Cell<'a>, &[(&'static str, bool)])) -> Result<(), String> {
        let width = self.dests.len() * self.ports.len();
        let layers = [("ingress", &grid.ingress), ("egress", &grid.egress), ("combined", &grid.combined)];
        for (name, rows) in layers {
            if rows.len() != self.sources.len() || rows.iter().any(|row| row.len() != width) {
                return Err(format!("{name} is not {} strings of {width} characters", self.sources.len()));
            }
        }
        let mut wrong = Vec::new();
        for (i, src) in self.sources.iter().enumerate() {
            let rows = layers.map(|(name, rows)| (name, rows[i].as_bytes()));
            for column in 0..width {
                let mut truths = [None; 3];
                for (truth, (_, row)) in truths.iter_mut().zip(rows) {
                    *truth = decided(row[column])?;
                }
                if truths == [None; 3] {
                    continue;
                }
                let (protocol, port) = self.ports[column % self.ports.len()];
                let cell = Cell { src, dst: &self.dests[column / self.ports.len()], protocol, port };
                let ingress = cell.ingress().is_none_or(|question| judge.allows(question));
                let egress = cell.egress().is_none_or(|question| judge.allows(question));
                wrong.clear();
                for ((truth, (name, _)), got) in truths.iter().zip(rows).zip([ingress, egress, ingress && egress]) {
                    wrong.extend(truth.filter(|truth| *truth != got).map(|truth| (name, truth)));
                }
                visit(cell, &wrong);
            }
        }
        Ok(())
    }
}

fn decided(character: u8) -> Result<Option<bool>, String> {
    match character {
        b'.' => Ok(Some(true)),
        b'X' => Ok(Some(false)),
        b'-' | b'N' | b'P' | b'?' => Ok(None),
        other => Err(format!("unknown cell {:?}", char::from(other))),
    }
}

/// The cell in words; the caller adds where it was found.
fn describe(snapshot: &Snapshot, judge: &dyn Judge, engine: Engine, cell: &Cell<'_>) -> Difference {
    let reason = |judge: &dyn Judge, question: Option<Question>| match question {
        Some(question) => judge.reason(question),
        None => "no pod".to_owned(),
    };
    let oracle = match load(Engine::Oracle, snapshot) {
        Ok(oracle) => {
            let (egress, ingress) = (reason(&*oracle, cell.egress()), reason(&*oracle, cell.ingress()));
            format!("at the source: {egress}; at the destination: {ingress}")
        }
        Err(problem) => problem,
    };
    Difference {
        case: String::new(),
        step: 0,
        grid: "",
        engine,
        connection: format!("{} -> {} {}/{}", cell.src.text, cell.dst.text, cell.port, cell.protocol),
        half: "",
        expected_allowed: false,
        ingress: reason(judge, cell.ingress()),
        egress: reason(judge, cell.egress()),
        oracle,
    }
}
