//! Rows while addresses are classified: lists of openings in deciding order.
//!
//! All ports stand on one line: those of TCP, of UDP, of SCTP, and one place for whatever has no ports.

use super::identity::NamedPorts;
use super::rulebook::{Entry, RuleHandle};
use super::rules::PortSpec;
use super::sides::{NO_NAMES, NamedId, Names};
use ahash::RandomState;
use sluice_flow::Protocol;
use std::collections::HashMap;

/// Ports of each protocol that has some.
pub(super) const PORTS: u32 = 1 << 16;
/// Where protocols without ports stand: the last place of the line.
pub(super) const OTHERS: u32 = PORTS * Protocol::WITH_PORTS.len() as u32;

/// One opening of a row: the rule allows what stands on the line from `first` to `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Opening {
    pub(super) first: u32,
    pub(super) last: u32,
    pub(super) rule: RuleHandle,
}

impl Opening {
    fn everything(rule: RuleHandle) -> Self {
        Self { first: 0, last: OTHERS, rule }
    }

    fn of(protocol: Protocol, first: u16, last: u16, rule: RuleHandle) -> Self {
        let at = Protocol::WITH_PORTS.iter().position(|&with_ports| with_ports == protocol).expect("a protocol with ports");
        let from = at as u32 * PORTS;
        Self { first: from + u32::from(first), last: from + u32::from(last), rule }
    }
}

/// Rows by number of first use.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// By handles of rules.
    rows: Vec<Vec<Opening>>,
    row_of_openings: HashMap<Vec<Opening>, u32, RandomState>,
    /// By what the rules that allow open, and the named ports they resolve in, where they ask for some.
    row_of_allowing: HashMap<Box<[u32]>, u32, RandomState>,
    /// The question at hand, kept for its memory: handles, and what is known by them.
    allowing: Vec<RuleHandle>,
    asked: Vec<u32>,
}

impl Rows {
    /// The row for these matching rules, in deciding order; named ports resolve in `destination`, the pod at the receiving
    /// end.
    pub(super) fn row(
        &mut self,
        entries: &[Entry],
        allowing: impl Iterator<Item = RuleHandle>,
        destination: NamedId,
        names: &Names,
    ) -> u32 {
        self.allowing.clear();
        self.allowing.extend(allowing);
        self.asked.clear();
        self.asked.extend(self.allowing.iter().map(|&rule| entries[rule as usize].opens));
        let asks = self.allowing.iter().any(|&rule| entries[rule as usize].has_named_ports);
        self.asked.push(if asks { destination } else { NO_NAMES });
        if let Some(&row) = self.row_of_allowing.get(&*self.asked) {
            return row;
        }
        let mut openings = Vec::new();
        for &rule in &self.allowing {
            match entries[rule as usize].rule.as_ref().and_then(|rule| rule.ports.as_ref()) {
                None => {
                    openings.push(Opening::everything(rule));
                    // whatever comes after it decides nothing
                    break;
                }
                Some(specs) => specs.iter().for_each(|spec| open(spec, rule, names.ports(destination), &mut openings)),
            }
        }
        let next = self.rows.len() as u32;
        let row = *self.row_of_openings.entry(openings).or_insert_with_key(|openings| {
            self.rows.push(openings.clone());
            next
        });
        self.row_of_allowing.insert(self.asked.as_slice().into(), row);
        row
    }

    /// How many questions are remembered.
    pub(super) fn len(&self) -> usize {
        self.row_of_allowing.len()
    }

    /// How many rows there are.
    pub(super) fn count(&self) -> usize {
        self.rows.len()
    }

    /// A row's openings, in deciding order.
    pub(super) fn openings(&self, row: u32) -> &[Opening] {
        &self.rows[row as usize]
    }
}

fn open(spec: &PortSpec, rule: u32, destination: &NamedPorts, openings: &mut Vec<Opening>) {
    match spec {
        PortSpec::Range(protocol, first, last) => openings.push(Opening::of(*protocol, *first, *last, rule)),
        PortSpec::Named(protocol, name) => {
            let numbers = destination.get(&(name.clone(), *protocol));
            openings.extend(numbers.into_iter().flatten().map(|&number| Opening::of(*protocol, number, number, rule)));
        }
    }
}
