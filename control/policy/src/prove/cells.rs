//! The port space cut at every bound that some rule or named port draws, with nothing merged: inside a cell no entry of
//! any rule can tell two ports apart.

use super::people::Environment;
use super::sides::RuleInPlay;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sluice_flow::Protocol;
use sluice_table::Table;
use std::collections::BTreeSet;

/// A cell by one of its ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    /// [`None`]: every protocol without ports.
    pub(super) protocol: Option<Protocol>,
    pub(super) first: u16,
}

/// All cells: TCP's, UDP's, SCTP's, each ascending from port 0, and the one of all other protocols.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Cells(pub(super) Vec<Cell>);

/// A cell, a port class that the table gives some port of it, and that port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CellClass {
    pub(super) cell: usize,
    pub(super) class: usize,
    pub(super) port: u16,
}

/// Ports of three protocols, and all other protocols.
pub(super) const PORT_ENTRIES: u64 = 3 * 65_536 + 1;

impl Cells {
    /// `environments`: what named ports are at the pods that may be a destination.
    pub(super) fn of<'e>(rules: &[RuleInPlay], environments: impl Iterator<Item = &'e Environment>) -> Self {
        let mut numbers: BTreeSet<i32> = BTreeSet::new();
        let mut names: BTreeSet<&str> = BTreeSet::new();
        for entry in rules.iter().flat_map(|rule| rule.rule().ports()) {
            match &entry.port {
                Some(IntOrString::Int(first)) => numbers.extend([*first, entry.end_port.unwrap_or(*first).saturating_add(1)]),
                Some(IntOrString::String(name)) => drop(names.insert(name)),
                None => {}
            }
        }
        for (.., number) in environments.flatten().filter(|(name, ..)| names.contains(name.as_str())) {
            numbers.extend([*number, number.saturating_add(1)]);
        }
        let mut starts: BTreeSet<u16> = numbers.into_iter().filter_map(|number| u16::try_from(number).ok()).collect();
        starts.insert(0);
        let with_ports = Protocol::WITH_PORTS.into_iter();
        let mut cells: Vec<Cell> =
            with_ports.flat_map(|protocol| starts.iter().map(move |&first| Cell { protocol: Some(protocol), first })).collect();
        cells.push(Cell { protocol: None, first: 0 });
        Self(cells)
    }

    /// Which port classes the table gives the ports of each cell, every port asked.
    pub(super) fn classes(&self, table: &Table) -> Vec<CellClass> {
        let entries = table.port_class_entries();
        assert_eq!(entries.len(), PORT_ENTRIES as usize, "one for each port, and one for what has none");
        let (mut found, mut at) = (Vec::new(), 0);
        // of each class the last cell that was found to have it, counted from 1
        let mut seen = vec![0usize; table.port_classes()];
        for (cell, &Cell { protocol, first }) in self.0.iter().enumerate() {
            let end = match (protocol, self.0.get(cell + 1)) {
                (None, _) => entries.len(),
                (Some(protocol), Some(next)) if next.protocol == Some(protocol) => at + usize::from(next.first - first),
                (Some(_), _) => (at / 65_536 + 1) * 65_536,
            };
            for (port, &class) in (first..=u16::MAX).zip(&entries[at..end]) {
                let class = usize::from(class);
                if seen[class] != cell + 1 {
                    seen[class] = cell + 1;
                    found.push(CellClass { cell, class, port });
                }
            }
            at = end;
        }
        found
    }
}
