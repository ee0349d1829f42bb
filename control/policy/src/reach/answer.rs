//! Answers: what holds for each pair, with the rules behind it.
//!
//! What repeats is kept once: a large cluster has millions of pairs and few thousand different answers.

use super::ports::Ports;
use crate::ObjectName;
use crate::oracle::RuleRef;
use sluice_flow::Direction;
use std::collections::HashMap;
use std::hash::Hash;

/// Who may reach whom in one state.
#[derive(Debug, Default)]
pub struct Reach {
    /// Every pair that was judged, by source and destination. A single pod and itself are no pair, nor are two regions.
    pub pairs: Vec<Pair>,
    pub(super) cells: Interned<Cell>,
    pub(super) halves: Interned<Half>,
    pub(super) isolations: Interned<Isolation>,
}

/// A source and a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// Index of the end that opens the connection.
    pub from: u32,
    /// Index of the end that accepts it.
    pub to: u32,
    pub(super) cell: u32,
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
    pub(super) isolation: u32,
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

/// The two halves of a way, by number.
pub(super) type Halves = (Option<u32>, Option<u32>);

impl Reach {
    /// The ways of a pair, from its halves in IPv4 and IPv6.
    pub(super) fn ways(&self, answers: [Option<Halves>; 2]) -> Vec<Way> {
        let way = |families, (egress, ingress): Halves| {
            let of = |half: Option<u32>| half.map_or_else(Ports::all, |half| self.halves.get(half).allowed());
            Way { families, allowed: of(egress).and(&of(ingress)), egress, ingress }
        };
        match answers {
            [Some(v4), Some(v6)] if v4 == v6 => vec![way(Families::Both, v4)],
            [v4, v6] => v4.map(|halves| way(Families::V4, halves)).into_iter().chain(v6.map(|halves| way(Families::V6, halves))).collect(),
        }
    }
}

/// Each value once, by number.
#[derive(Debug)]
pub(super) struct Interned<T> {
    items: Vec<T>,
    numbers: HashMap<T, u32>,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self { items: Vec::new(), numbers: HashMap::new() }
    }
}

impl<T: Clone + Eq + Hash> Interned<T> {
    pub(super) fn add(&mut self, item: T) -> u32 {
        if let Some(&number) = self.numbers.get(&item) {
            return number;
        }
        let number = u32::try_from(self.items.len()).expect("pairs are bounded");
        self.items.push(item.clone());
        self.numbers.insert(item, number);
        number
    }

    pub(super) fn get(&self, number: u32) -> &T {
        &self.items[number as usize]
    }
}
