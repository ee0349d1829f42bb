//! Every pair of a survey's ends, judged by the oracle.
//!
//! What repeats is kept once: a large cluster has millions of pairs and few thousand different answers.

use super::ends::{End, EndKind, Speaker, Survey};
use super::merge::merge_blocks;
use super::ports::{LAST, OTHER, Ports, place, question};
use super::{Options, PAIRS_MAX, ReachError, State, ends};
use crate::ObjectName;
use crate::oracle::{NearMiss, Oracle, Rule, RuleRef, Side};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sluice_flow::{Direction, Family, Protocol};
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;

/// Who may reach whom in one state.
#[derive(Debug, Default)]
pub struct Reach {
    /// Every pair that was judged, by source and destination. A single pod and itself are no pair, nor are two regions.
    pub pairs: Vec<Pair>,
    cells: Interned<Cell>,
    halves: Interned<Half>,
    isolations: Interned<Isolation>,
}

/// A source and a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// Index of the end that opens the connection.
    pub from: u32,
    /// Index of the end that accepts it.
    pub to: u32,
    cell: u32,
}

/// What holds between two ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cell {
    /// One for each answer: a single one where both families agree, none where the ends share no family.
    pub ways: Vec<Way>,
}

/// The families that an answer is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Families {
    /// IPv4; the other is not shared, or has its own answer.
    V4,
    /// IPv6; likewise.
    V6,
    /// Both alike.
    Both,
}

/// Both halves of the answer for some families.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Way {
    /// Which.
    pub families: Families,
    /// What both halves allow.
    pub allowed: Ports,
    egress: Option<u32>,
    ingress: Option<u32>,
}

/// What one end's policies say about the other end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Half {
    isolation: u32,
    /// What is allowed: ascending, disjoint, neighbours by different rules.
    pub spans: Vec<Span>,
}

/// Ports that are allowed by one rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    pub(super) first: u32,
    pub(super) last: u32,
    /// Which of [`Isolation::rules`] allows first; `None` where nothing isolates.
    pub rule: Option<u32>,
}

/// The policies that speak at one end in one direction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Isolation {
    /// Of the connection, seen from the end.
    pub direction: Direction,
    /// The policies that isolate it, by name; empty: everything is allowed.
    pub isolating: Vec<ObjectName>,
    /// All their rules, in order.
    pub rules: Vec<RuleRef>,
}

impl Half {
    /// What is allowed.
    pub fn allowed(&self) -> Ports {
        Ports::from_runs(self.spans.iter().map(|span| (span.first, span.last)))
    }

    /// The span that holds a place.
    pub(super) fn span_at(&self, place: u32) -> Option<&Span> {
        self.spans.iter().find(|span| (span.first..=span.last).contains(&place))
    }
}

impl Span {
    /// Its ports.
    pub fn ports(&self) -> Ports {
        Ports::from_runs([(self.first, self.last)])
    }
}

impl Reach {
    /// What holds for a pair.
    pub fn cell(&self, pair: Pair) -> &Cell {
        self.cells.get(pair.cell)
    }

    /// A number for what holds for a pair: equal answers have equal numbers, from 0.
    pub fn cell_index(&self, pair: Pair) -> usize {
        pair.cell as usize
    }

    /// All different answers, by number.
    pub fn cells(&self) -> impl Iterator<Item = &Cell> {
        self.cells.items.iter()
    }

    /// What the end in this direction says; `None` where that end is no pod.
    pub fn half(&self, way: &Way, direction: Direction) -> Option<&Half> {
        let index = match direction {
            Direction::Egress => way.egress,
            Direction::Ingress => way.ingress,
        };
        index.map(|index| self.halves.get(index))
    }

    /// The policies behind a half.
    pub fn isolation(&self, half: &Half) -> &Isolation {
        self.isolations.get(half.isolation)
    }

    /// Gives ends their new numbers; pairs of an end without one disappear. The order of ends stays.
    pub(super) fn renumber(&mut self, numbers: &[Option<u32>]) {
        let renumbered = |pair: &Pair| Some(Pair { from: numbers[pair.from as usize]?, to: numbers[pair.to as usize]?, ..*pair });
        self.pairs = self.pairs.iter().filter_map(renumbered).collect();
    }

    /// The pair of two ends, if it was judged.
    pub fn pair(&self, from: usize, to: usize) -> Option<Pair> {
        let key = |pair: &Pair| (pair.from as usize, pair.to as usize);
        self.pairs.binary_search_by_key(&(from, to), key).ok().map(|index| self.pairs[index])
    }
}

/// Who may reach whom in `state`. `progress` is told how many of how many pairs are judged, now and then.
///
/// # Errors
/// When there are more than [`PAIRS_MAX`] pairs, a selection finds nothing, or pods without an address find no room.
///
/// Cost: about a microsecond for each pair and each rule of its two ends.
pub fn reach(state: State<'_>, options: &Options, mut progress: impl FnMut(u64, u64)) -> Result<(Survey, Reach), ReachError> {
    let mut survey = ends::survey(&[state], options)?;
    let pairs = count_pairs(&survey)?;
    let mut reach = [judge(&survey, 0, &mut |done| progress(done, pairs))];
    merge_blocks(&mut survey, &mut reach);
    let [reach] = reach;
    Ok((survey, reach))
}

/// Says which rule came nearest, for pairs of a survey.
#[derive(Debug)]
pub struct Explainer<'a> {
    survey: &'a Survey,
    oracle: Oracle<'a>,
    /// Egress and ingress of each end that is pods.
    sides: Vec<Option<[Side<'a>; 2]>>,
}

impl Explainer<'_> {
    /// Which rule came nearest to allowing the first of the `asked` ports, which `direction` denies. `None` where that
    /// end is no pod, or has no rule at all.
    pub fn nearest_miss(&self, pair: Pair, direction: Direction, family: Family, asked: &Ports) -> Option<NearMiss> {
        let (own, other, index) = match direction {
            Direction::Egress => (pair.from, pair.to, 0),
            Direction::Ingress => (pair.to, pair.from, 1),
        };
        let side = &self.sides[own as usize].as_ref()?[index];
        let remote = self.survey.ends[other as usize].speakers[0].as_ref()?.address(family)?;
        let (protocol, port) = question(asked.first_place()?, family == Family::V4);
        self.oracle.nearest_miss(side, remote, protocol, port)
    }
}

impl Survey {
    /// Prepares questions about the only state of this survey.
    pub fn explainer(&self) -> Explainer<'_> {
        let oracle = Oracle::new(&self.snapshots[0]);
        let sides = self.ends.iter().map(|end| {
            let pod = end.speakers[0].as_ref()?.pod.as_ref()?;
            Some([oracle.side(pod, Direction::Egress), oracle.side(pod, Direction::Ingress)])
        });
        let sides = sides.collect();
        Explainer { survey: self, oracle, sides }
    }

    fn wants(&self, from: usize, to: usize) -> bool {
        let (source, destination) = (&self.ends[from], &self.ends[to]);
        let is_itself = from == to && matches!(source.kind, EndKind::Pods { is_single: true, .. });
        (self.selected[from] || self.selected[to]) && (source.is_pods() || destination.is_pods()) && !is_itself
    }
}

/// Refuses more pairs than can be judged in good time.
pub(super) fn count_pairs(survey: &Survey) -> Result<u64, ReachError> {
    let (ends, pods) = (survey.ends.len() as u64, survey.ends.iter().filter(|end| end.is_pods()).count() as u64);
    let chosen = survey.selected.iter().filter(|selected| **selected).count() as u64;
    let pairs = (ends * ends - (ends - chosen) * (ends - chosen)).min(ends * ends - (ends - pods) * (ends - pods));
    if pairs > PAIRS_MAX {
        return Err(ReachError::TooManyPairs { ends: survey.ends.len(), pairs, max: PAIRS_MAX });
    }
    Ok(pairs)
}

/// Judges every pair of ends that the state of this index has.
pub(super) fn judge(survey: &Survey, state: usize, progress: &mut dyn FnMut(u64)) -> Reach {
    let oracle = Oracle::new(&survey.snapshots[state]);
    let mut reach = Reach::default();
    let mut sides = |direction| -> Vec<Option<Asked<'_>>> {
        survey.ends.iter().map(|end| Asked::new(&oracle, end, state, direction, &mut reach.isolations)).collect()
    };
    let (leaving, entering) = (sides(Direction::Egress), sides(Direction::Ingress));
    for (from, source) in survey.ends.iter().enumerate() {
        let Some(source) = &source.speakers[state] else { continue };
        for (to, destination) in survey.ends.iter().enumerate() {
            let Some(destination) = destination.speakers[state].as_ref().filter(|_| survey.wants(from, to)) else { continue };
            let mut answers = [Family::V4, Family::V6].map(|family| {
                let (src, dst) = (source.address(family)?, destination.address(family)?);
                let egress = leaving[from].as_ref().map(|asked| asked.half(&oracle, dst));
                let ingress = entering[to].as_ref().map(|asked| asked.half(&oracle, src));
                Some((egress.map(|half| reach.halves.add(half)), ingress.map(|half| reach.halves.add(half))))
            });
            let cell = Cell { ways: reach.ways(&mut answers) };
            let index = |end: usize| u32::try_from(end).expect("pairs are bounded");
            let pair = Pair { from: index(from), to: index(to), cell: reach.cells.add(cell) };
            reach.pairs.push(pair);
        }
        progress(reach.pairs.len() as u64);
    }
    reach
}

/// The two halves of a way, by number.
type Halves = (Option<u32>, Option<u32>);

impl Reach {
    fn ways(&self, answers: &mut [Option<Halves>; 2]) -> Vec<Way> {
        let way = |families, (egress, ingress): Halves| {
            let of = |half: Option<u32>| half.map_or_else(Ports::all, |half| self.halves.get(half).allowed());
            Way { families, allowed: of(egress).and(&of(ingress)), egress, ingress }
        };
        match *answers {
            [Some(v4), Some(v6)] if v4 == v6 => vec![way(Families::Both, v4)],
            [v4, v6] => v4.map(|halves| way(Families::V4, halves)).into_iter().chain(v6.map(|halves| way(Families::V6, halves))).collect(),
        }
    }
}

/// One pod's policies in one direction, ready to be asked.
struct Asked<'a> {
    pod: &'a ObjectName,
    side: Side<'a>,
    isolation: u32,
    direction: Direction,
}

impl<'a> Asked<'a> {
    fn new(oracle: &Oracle<'a>, end: &'a End, state: usize, direction: Direction, isolations: &mut Interned<Isolation>) -> Option<Self> {
        let Some(Speaker { pod: Some(pod), .. }) = &end.speakers[state] else { return None };
        let side = oracle.side(pod, direction);
        let isolating = side.isolating().cloned().collect();
        let rules = side.rules().iter().map(Rule::name).collect();
        let isolation = isolations.add(Isolation { direction, isolating, rules });
        Some(Self { pod, side, isolation, direction })
    }

    /// What the policies say about connections with `remote`: one question for each stretch of ports between bounds.
    fn half(&self, oracle: &Oracle<'a>, remote: IpAddr) -> Half {
        let isolation = self.isolation;
        if !self.side.isolated() {
            let span = Span { first: 0, last: LAST, rule: None };
            let is_known = oracle.allows(&self.side, remote, Protocol::TCP, 0);
            return Half { isolation, spans: is_known.then_some(span).into_iter().collect() };
        }
        // No other rule can allow anything, so no other rule's bounds matter. Most pairs end here.
        let matching: Vec<&Rule<'_>> = self.side.rules().iter().filter(|rule| oracle.peers_match(rule, remote)).collect();
        if matching.is_empty() {
            return Half { isolation, spans: Vec::new() };
        }
        let mut spans: Vec<Span> = Vec::new();
        let bounds = self.bounds(oracle, &matching, remote);
        for (index, &first) in bounds.iter().enumerate() {
            let last = bounds.get(index + 1).map_or(LAST, |next| next - 1);
            let (protocol, port) = question(first, remote.is_ipv4());
            let Some(rule) = oracle.first_allowing(&self.side, remote, protocol, port) else { continue };
            let number = self.side.rules().iter().position(|one| std::ptr::eq(one, rule)).expect("a rule of this side");
            let rule = Some(u32::try_from(number).expect("rules of one pod fit"));
            match spans.last_mut().filter(|before| before.last + 1 == first && before.rule == rule) {
                Some(before) => before.last = last,
                None => spans.push(Span { first, last, rule }),
            }
        }
        Half { isolation, spans }
    }

    /// The places where a verdict may change: where a protocol begins, and where an entry's ports begin and end.
    fn bounds(&self, oracle: &Oracle<'a>, rules: &[&Rule<'_>], remote: IpAddr) -> Vec<u32> {
        let mut bounds: BTreeSet<u32> = Protocol::WITH_PORTS.into_iter().map(|protocol| place(protocol, 0)).collect();
        bounds.insert(OTHER);
        let mut add = |protocol, first: i32, last: i32| {
            bounds.extend(u16::try_from(first).ok().map(|port| place(protocol, port)));
            bounds.extend(u16::try_from(last).ok().map(|port| place(protocol, port) + 1));
        };
        for entry in rules.iter().flat_map(|rule| rule.ports()) {
            let Some(protocol) = Protocol::from_name(entry.protocol.as_deref().unwrap_or("TCP")) else { continue };
            match (&entry.port, entry.end_port) {
                (None, _) => {}
                (Some(IntOrString::Int(first)), last) => add(protocol, *first, last.unwrap_or(*first)),
                (Some(IntOrString::String(name)), _) => {
                    let destinations = match self.direction {
                        Direction::Ingress => vec![self.pod],
                        Direction::Egress => oracle.pods_at(remote).to_vec(),
                    };
                    let numbers = destinations.into_iter().flat_map(|pod| oracle.named_ports(pod, name, protocol));
                    numbers.for_each(|number| add(protocol, number, number));
                }
            }
        }
        bounds.into_iter().collect()
    }
}

/// Each value once, by number.
#[derive(Debug)]
struct Interned<T> {
    items: Vec<T>,
    numbers: HashMap<T, u32>,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self { items: Vec::new(), numbers: HashMap::new() }
    }
}

impl<T: Clone + Eq + Hash> Interned<T> {
    fn add(&mut self, item: T) -> u32 {
        if let Some(&number) = self.numbers.get(&item) {
            return number;
        }
        let number = u32::try_from(self.items.len()).expect("pairs are bounded");
        self.items.push(item.clone());
        self.numbers.insert(item, number);
        number
    }

    fn get(&self, number: u32) -> &T {
        &self.items[number as usize]
    }
}
