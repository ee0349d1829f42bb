//! The comparison itself.

use super::cells::PORT_ENTRIES;
use super::comparison::Comparison;
use super::regions::{address_of, is_mapped};
use super::settled::{Reading, Wanted};
use super::sides::{RuleIndex, Side, Sides};
use super::sweep::{Found, UnitClass, Walk};
use super::units::Units;
use super::{Counterexample, Factor, Proof, WrongVerdict};
use crate::snapshot::Snapshot;
use sluice_flow::limits::PORTS_MAX;
use sluice_flow::{Addr, Direction, Incarnation, ObjectName, PortIndex};
use sluice_table::Table;
use std::collections::HashMap;

pub(super) fn verify(
    snapshot: &Snapshot,
    table: &Table,
    sides: &Sides,
    services: &[u128],
    units: &mut Units,
    units_asked: u64,
) -> Result<Proof, Counterexample> {
    let endpoints = check_endpoints(sides, table)?;
    let services = check_services(services, table)?;
    let found = sweep(table, units);
    let cell_classes = units.cells.classes(table);
    let in_use = found.in_use() as u64;
    let rules = rules_of_table(table, sides);
    let reading = Reading { cell_classes: &cell_classes, rules: &rules };
    if !agrees(table, sides, units, &found.pairs, reading) {
        return Err(first_difference(snapshot, table, sides, units, reading));
    }
    let verdicts = in_use * sides.profiles.len() as u64 * units.cells.0.len() as u64;
    let addresses = found.pieces + PORT_ENTRIES + services;
    Ok(Proof {
        verdicts: Factor { done: verdicts, required: verdicts },
        endpoints: Factor { done: endpoints, required: endpoints },
        addresses: Factor { done: addresses, required: addresses },
        units: in_use,
        units_asked: units_asked.min(in_use),
    })
}

/// Whether every class of every unit has the rows it should have, in every run.
fn agrees(table: &Table, sides: &Sides, units: &mut Units, pairs: &[UnitClass], reading: Reading<'_>) -> bool {
    let wanted = wanted(table, sides, units, pairs);
    let mut comparison = Comparison::new(table, sides, reading);
    let same = units.settled.strike(reading, &comparison.seen(), &wanted);
    (0..comparison.len()).for_each(|run| comparison.remember(run, units.settled.equal(run, &same)));
    let agrees = same.left.iter().all(|one| comparison.difference(units, one.column, one.class as usize).is_none())
        && same.runs_left.iter().all(|&run| wanted.iter().all(|one| comparison.agrees_in(run, units, one.column, one.class as usize)));
    if agrees {
        units.settled.keep(reading, &comparison.seen(), &wanted, units.expected.columns.len(), same);
    }
    agrees
}

/// What must be equal, by class, because the rows of neighbouring classes lie side by side.
fn wanted(table: &Table, sides: &Sides, units: &mut Units, pairs: &[UnitClass]) -> Vec<Wanted> {
    let mut next = vec![0u32; table.classes() + 1];
    pairs.iter().for_each(|pair| next[pair.class + 1] += 1);
    for class in 0..table.classes() {
        next[class + 1] += next[class];
    }
    let mut wanted = vec![Wanted { class: 0, column: 0 }; pairs.len()];
    for pair in pairs {
        let at = &mut next[pair.class];
        wanted[*at as usize] = Wanted { class: pair.class as u32, column: units.column(sides, pair.unit) };
        *at += 1;
    }
    let by_class = wanted.chunk_by_mut(|one, other| one.class == other.class);
    by_class.filter(|same| same.len() > 1).for_each(<[Wanted]>::sort_unstable);
    wanted.dedup();
    wanted
}

/// The difference to show: the same one whatever tables were proved before.
fn first_difference(snapshot: &Snapshot, table: &Table, sides: &Sides, units: &mut Units, reading: Reading<'_>) -> Counterexample {
    let mut comparison = Comparison::new(table, sides, reading);
    for pair in sweep(table, units).pairs {
        let column = units.column(sides, pair.unit);
        if let Some((run, different)) = comparison.difference(units, column, pair.class) {
            let cell = units.cells.0[different.cell];
            let wrong = WrongVerdict::of(snapshot, table, (run.endpoint, run.direction), pair.address, (cell, different.port));
            return Counterexample::Verdict(Box::new(wrong));
        }
    }
    unreachable!("another order of the same comparisons found a difference")
}

/// By the table's rule id: the rule in play of that name.
fn rules_of_table(table: &Table, sides: &Sides) -> Vec<Option<RuleIndex>> {
    let in_play: HashMap<(&ObjectName, Direction, usize), RuleIndex> =
        sides.rules.iter().zip(0..).map(|(rule, index)| ((&rule.policy, rule.direction, rule.index), index)).collect();
    let names = table.names().rules.iter();
    names.map(|name| in_play.get(&(&name.policy, name.direction, name.index as usize)).copied()).collect()
}

/// The same endpoints, isolated by the same policies.
fn check_endpoints(sides: &Sides, table: &Table) -> Result<u64, Counterexample> {
    let mut by_port: Vec<Option<&Side>> = vec![None; PORTS_MAX];
    for side in &sides.sides {
        by_port[usize::from(side.endpoint.port.0)] = Some(side);
    }
    for (port, side) in (0..).zip(by_port) {
        let expected = side.map(|side| (Some(&side.endpoint.pod), side.endpoint.incarnation));
        let name = || table.names().endpoint(PortIndex(port)).map(|endpoint| &endpoint.pod);
        let found = table.endpoint(PortIndex(port)).map(|incarnation| (name(), incarnation));
        if expected != found {
            let text = |end: Option<(Option<&ObjectName>, Incarnation)>| match end {
                None => "nothing".to_owned(),
                Some((None, _)) => "a nameless endpoint".to_owned(),
                Some((Some(pod), incarnation)) => format!("{pod} (incarnation {})", incarnation.0),
            };
            return Err(Counterexample::Endpoint { port, expected: text(expected), found: text(found) });
        }
        for direction in side.into_iter().flat_map(|_| Direction::BOTH) {
            check_isolation(side.expect("iterated only where there is one"), direction, table)?;
        }
    }
    Ok(PORTS_MAX as u64 + 2 * sides.sides.len() as u64)
}

fn check_isolation(side: &Side, direction: Direction, table: &Table) -> Result<(), Counterexample> {
    let endpoint = &side.endpoint;
    let names = table.names().endpoint(endpoint.port).map_or(&[][..], |names| names.isolating(direction));
    let expected = side.directions[direction as usize].as_ref().map_or(&[][..], |(policies, _)| policies);
    let isolated = table.isolated(endpoint.port, direction);
    if expected == names && isolated != names.is_empty() {
        return Ok(());
    }
    let list = |names: &[ObjectName]| names.iter().map(ObjectName::to_string).collect::<Vec<_>>().join(", ");
    let mut found = list(names);
    if isolated == names.is_empty() {
        found = format!("{found}; its rows say isolated: {isolated}");
    }
    Err(Counterexample::Isolation { pod: endpoint.pod.clone(), direction, expected: list(expected), found })
}

/// The same addresses are services'.
fn check_services(expected: &[u128], table: &Table) -> Result<u64, Counterexample> {
    let found = table.services();
    if expected != found {
        let (is, is_not) = ("a service's", "an ordinary one");
        let missing = expected.iter().find(|address| found.binary_search(address).is_err());
        let (&number, expected, found) = match missing {
            Some(address) => (address, is, is_not),
            None => (found.iter().find(|address| expected.binary_search(address).is_err()).expect("they differ"), is_not, is),
        };
        return Err(Counterexample::Service { address: Addr(number.to_be_bytes()).into(), expected, found });
    }
    Ok(expected.len() as u64)
}

/// Meets every unit with every class that the table gives an address of it, as far as a lookup can ask for it.
fn sweep(table: &Table, units: &mut Units) -> Found {
    let mut found = Found::new(units.units.len());
    units.v4.sweep_v4(table, &units.v4_pieces, &mut found);
    // IPv6 looks for single addresses first, so those are asked one by one and the intervals as if there were none: a wrong
    // class is refused even where single addresses hide it
    let mut walk = Walk::new(units.v6_pieces.iter().copied(), &mut found, |number| address_of(number, true));
    table.v6_intervals().into_iter().for_each(|(first, class)| walk.piece(first, class));
    walk.finish();
    units.v6.sweep_v6(table, &units.v6_pieces, &mut found);
    // a region has either no such address or no other
    found.pairs.retain(|pair| !is_mapped(pair.address));
    found
}
