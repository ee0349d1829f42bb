//! The matrix as a page: one file that loads nothing, with the data as JSON inside.
//!
//! The page's script makes text nodes only, never markup, and the data cannot end its element: `<` is written as an
//! escape, so that no name or label is ever read as HTML.

use super::report::{Matrix, Miss};
use crate::analysis::{Openness, families_text, ports_text};
use anyhow::{Result, bail};
use serde::Serialize;
use sluice_flow::Direction;
use sluice_policy::reach::{DeclaredPort, EndKind, Half, Pair, Ports, Way};
use std::collections::{BTreeMap, HashMap};

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Rows that a browser shows without effort. Ninety thousand cells.
const ROWS_MAX: usize = 300;

/// Members of a row that the page names.
const MEMBERS_MAX: usize = 50;

/// Pairs up to which the page says which rule came nearest. Each says it in its own words, so beyond it would be too large.
const NEAR_PAIRS_MAX: usize = 20_000;

/// In place of a cell: no pair that policies judge.
const NO_PAIR: i64 = -1;
/// In place of a cell: a pod and itself.
const ITSELF: i64 = -2;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    sources: Vec<String>,
    notes: Vec<String>,
    ends: Vec<EndOnPage>,
    cells: Vec<CellOnPage>,
    halves: Vec<HalfOnPage>,
    misses: Vec<Miss>,
    /// For each source, the cell of each destination.
    rows: Vec<Vec<i64>>,
    /// For each source and destination, and each way of theirs, the misses of egress and ingress.
    near: Near,
}

/// By `source,destination`: for each way, the numbers of the misses of egress and ingress.
type Near = BTreeMap<String, Vec<[Option<usize>; 2]>>;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EndOnPage {
    name: String,
    namespace: Option<String>,
    kind: &'static str,
    about: String,
    members: Vec<String>,
    member_count: usize,
    ports: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CellOnPage {
    openness: Openness,
    text: String,
    ways: Vec<WayOnPage>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WayOnPage {
    families: &'static str,
    text: String,
    egress: Option<usize>,
    ingress: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
struct HalfOnPage {
    isolating: Vec<String>,
    spans: Vec<(String, Option<String>)>,
}

/// The page as text.
pub(super) fn page(matrix: &Matrix<'_>, sources: &[String]) -> Result<String> {
    let rows = matrix.survey.ends.len();
    if rows > ROWS_MAX {
        bail!(
            "a page of {rows} rows would be unreadable; choose at most {ROWS_MAX} with --namespace or --pod and --inside, or group with --by class"
        );
    }
    // Inside a script element only `</script` and `<!--` mean anything, and neither exists without `<`.
    let data = serde_json::to_string(&collect(matrix, sources))?.replace('<', "\\u003c");
    let mut page = String::with_capacity(TEMPLATE.len() + STYLE.len() + SCRIPT.len() + data.len());
    let mut rest = TEMPLATE;
    // One pass over the template: what is filled in is never searched for markers.
    for (marker, text) in [("{{style}}", STYLE), ("{{data}}", &data), ("{{script}}", SCRIPT)] {
        let (before, after) = rest.split_once(marker).expect("the template has each marker once, in this order");
        page.push_str(before);
        page.push_str(text);
        rest = after;
    }
    page.push_str(rest);
    Ok(page)
}

fn collect(matrix: &Matrix<'_>, sources: &[String]) -> Page {
    let mut halves = Numbered::default();
    let ways = |way: &Way, halves: &mut Numbered<HalfOnPage>| {
        let mut number = |direction| matrix.reach.half(way, direction).map(|half| halves.add(half_on_page(matrix, half)));
        WayOnPage {
            families: families_text(way.families),
            text: way.allowed.to_string(),
            egress: number(Direction::Egress),
            ingress: number(Direction::Ingress),
        }
    };
    let cells = matrix.reach.cells().map(|cell| CellOnPage {
        openness: Openness::of(&cell.ways),
        text: ports_text(&cell.ways, Ports::to_string),
        ways: cell.ways.iter().map(|way| ways(way, &mut halves)).collect(),
    });
    let cells = cells.collect();
    let mut notes = matrix.notes.clone();
    let (near, misses) = if matrix.reach.pairs.len() <= NEAR_PAIRS_MAX {
        near(matrix)
    } else {
        notes.push(format!("nearest misses are left out beyond {NEAR_PAIRS_MAX} pairs: choose some, or ask sluicectl explain -f"));
        (Near::new(), Vec::new())
    };
    let count = matrix.survey.ends.len();
    let number = |from: usize, to: usize| match matrix.reach.pair(from, to) {
        Some(pair) => i64::try_from(matrix.reach.cell_index(pair)).expect("a page is small"),
        None if from == to && matches!(matrix.survey.ends[from].kind, EndKind::Pods { is_single: true, .. }) => ITSELF,
        None => NO_PAIR,
    };
    Page {
        sources: sources.to_vec(),
        notes,
        ends: (0..count).map(|index| end_on_page(matrix, index)).collect(),
        cells,
        halves: halves.items,
        misses,
        rows: (0..count).map(|from| (0..count).map(|to| number(from, to)).collect()).collect(),
        near,
    }
}

/// The nearest misses of all pairs that have some.
fn near(matrix: &Matrix<'_>) -> (Near, Vec<Miss>) {
    let explainer = matrix.survey.explainer();
    let mut misses = Numbered::default();
    let mut near = Near::new();
    for &pair in &matrix.reach.pairs {
        let mut number = |way: &Way, direction| matrix.miss(&explainer, pair, way, direction).map(|miss| misses.add(miss));
        let ways = matrix.reach.cell(pair).ways.iter();
        let numbers: Vec<[Option<usize>; 2]> = ways.map(|way| [number(way, Direction::Egress), number(way, Direction::Ingress)]).collect();
        if numbers.iter().flatten().any(Option::is_some) {
            let Pair { from, to, .. } = pair;
            near.insert(format!("{from},{to}"), numbers);
        }
    }
    (near, misses.items)
}

fn half_on_page(matrix: &Matrix<'_>, half: &Half) -> HalfOnPage {
    let isolation = matrix.reach.isolation(half);
    let spans = half.spans.iter().map(|span| {
        let rule = span.rule.map(|rule| isolation.rules[rule as usize].to_string());
        (span.ports().to_string(), rule)
    });
    HalfOnPage { isolating: isolation.isolating.iter().map(ToString::to_string).collect(), spans: by_rule(spans.collect()) }
}

/// One line for each rule, in the order of its first port.
fn by_rule(spans: Vec<(String, Option<String>)>) -> Vec<(String, Option<String>)> {
    let mut lines: Vec<(String, Option<String>)> = Vec::new();
    for (ports, rule) in spans {
        match lines.iter_mut().find(|line| line.1 == rule) {
            Some(line) => line.0 = format!("{} {ports}", line.0),
            None => lines.push((ports, rule)),
        }
    }
    lines
}

fn end_on_page(matrix: &Matrix<'_>, index: usize) -> EndOnPage {
    let end = &matrix.survey.ends[index];
    let port = |port: &DeclaredPort| {
        let name = port.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        format!("{}/{}{name}", port.port, port.protocol)
    };
    let (kind, about, members, member_count) = match &end.kind {
        EndKind::Pods { pods, workload, .. } => {
            let names = pods.iter().take(MEMBERS_MAX).map(ToString::to_string).collect();
            let about = workload.map_or(String::new(), str::to_owned);
            ("pods", about, names, pods.len())
        }
        EndKind::Blocks(nets) => {
            let about = "addresses that are no pod's and in no smaller block here".to_owned();
            ("blocks", about, nets.iter().take(MEMBERS_MAX).map(ToString::to_string).collect(), nets.len())
        }
        EndKind::Elsewhere => {
            let about = "every other address that is no pod's".to_owned();
            ("elsewhere", about, Vec::new(), 0)
        }
    };
    EndOnPage {
        name: end.name.clone(),
        namespace: end.namespace().map(str::to_owned),
        kind,
        about,
        members,
        member_count,
        ports: end.ports().iter().map(port).collect(),
    }
}

/// Each value once.
#[derive(Debug)]
struct Numbered<T> {
    items: Vec<T>,
    numbers: HashMap<T, usize>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self { items: Vec::new(), numbers: HashMap::new() }
    }
}

impl<T: Clone + Eq + std::hash::Hash> Numbered<T> {
    fn add(&mut self, item: T) -> usize {
        if let Some(&number) = self.numbers.get(&item) {
            return number;
        }
        self.items.push(item.clone());
        self.numbers.insert(item, self.items.len() - 1);
        self.items.len() - 1
    }
}
