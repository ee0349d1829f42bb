//! Rules of one pod and direction as cells that do not overlap, which a set of the kernel demands: addresses from … to, one
//! protocol or all, ports from … to.

use super::super::flat::FlatRule;
use std::collections::{BTreeMap, BTreeSet};

/// Addresses, protocol (`None` for all), ports; each with both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) addresses: (u32, u32),
    pub(super) protocol: Option<u8>,
    pub(super) ports: (u16, u16),
}

type Ports = Vec<(Option<u8>, u16, u16)>;

/// The same addresses and ports, none twice. Neighbouring addresses with the same ports are one.
pub(super) fn cells(rules: &[FlatRule]) -> Vec<Cell> {
    let last = |rule: &FlatRule| rule.prefix | u32::MAX.checked_shr(rule.length.into()).unwrap_or(0);
    let mut begins: BTreeMap<u64, Vec<&FlatRule>> = BTreeMap::new();
    let mut ends: BTreeMap<u64, Vec<&FlatRule>> = BTreeMap::new();
    for rule in rules {
        begins.entry(rule.prefix.into()).or_default().push(rule);
        ends.entry(u64::from(last(rule)) + 1).or_default().push(rule);
    }
    let borders: BTreeSet<u64> = begins.keys().chain(ends.keys()).copied().collect();
    let borders: Vec<u64> = borders.into_iter().collect();
    let mut active: BTreeMap<(u8, u16, u16), usize> = BTreeMap::new();
    let mut stretches: Vec<((u32, u32), Ports)> = Vec::new();
    for pair in borders.windows(2) {
        let key = |rule: &&FlatRule| (rule.protocol, rule.first, rule.last);
        for rule in ends.get(&pair[0]).into_iter().flatten() {
            let count = active.get_mut(&key(rule)).expect("it began before");
            *count -= 1;
            if *count == 0 {
                active.remove(&key(rule));
            }
        }
        for rule in begins.get(&pair[0]).into_iter().flatten() {
            *active.entry(key(rule)).or_default() += 1;
        }
        let (ports, addresses) = (merged(active.keys()), (pair[0] as u32, (pair[1] - 1) as u32));
        match stretches.last_mut() {
            Some((before, same)) if *same == ports && before.1 + 1 == addresses.0 => before.1 = addresses.1,
            _ if !ports.is_empty() => stretches.push((addresses, ports)),
            _ => {}
        }
    }
    let cell = |addresses| move |(protocol, first, last)| Cell { addresses, protocol, ports: (first, last) };
    stretches.into_iter().flat_map(|(addresses, ports)| ports.into_iter().map(cell(addresses))).collect()
}

/// Ascending by protocol and first port; all protocols come first, and swallow the others.
fn merged<'k>(keys: impl Iterator<Item = &'k (u8, u16, u16)>) -> Ports {
    let mut ports: Ports = Vec::new();
    for &(protocol, first, last) in keys {
        let protocol = if protocol == 0 { None } else { Some(protocol) };
        match ports.last_mut() {
            Some((None, ..)) => break,
            Some((before, _, end)) if *before == protocol && u32::from(first) <= u32::from(*end) + 1 => *end = (*end).max(last),
            _ => ports.push((protocol, first, last)),
        }
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(prefix: u32, length: u8, protocol: u8, first: u16, last: u16) -> FlatRule {
        FlatRule { prefix, length, protocol, first, last }
    }

    #[test]
    fn cells_say_what_the_rules_say_and_none_meets_another() {
        let mut random = crate::random::SplitMix::new(5);
        for _ in 0..200 {
            let mut draw = |end: usize| random.below(end) as u32;
            let rules: Vec<FlatRule> = (0..draw(8) + 1)
                .map(|_| {
                    let (length, first) = (28 + draw(5) as u8, draw(6) as u16);
                    let address = 0x0a00_0000 | draw(16);
                    let prefix = address & u32::MAX.checked_shl(u32::from(32 - length)).unwrap_or(0);
                    match draw(6) {
                        0 => rule(prefix, length, 0, 0, u16::MAX),
                        protocol => rule(prefix, length, if protocol < 4 { 6 } else { 17 }, first, first + draw(3) as u16),
                    }
                })
                .collect();
            let cells = cells(&rules);
            for address in 0x0a00_0000..0x0a00_0010 {
                for (protocol, port) in [1, 6, 17].into_iter().flat_map(|protocol| (0..10).map(move |port| (protocol, port))) {
                    let within = |rule: &&FlatRule| {
                        (address ^ rule.prefix).leading_zeros() >= u32::from(rule.length)
                            && (rule.protocol == 0 || rule.protocol == protocol)
                            && (rule.first..=rule.last).contains(&port)
                    };
                    let holding = cells.iter().filter(|cell| {
                        (cell.addresses.0..=cell.addresses.1).contains(&address)
                            && cell.protocol.is_none_or(|of| of == protocol)
                            && (cell.ports.0..=cell.ports.1).contains(&port)
                    });
                    assert_eq!(holding.count(), usize::from(rules.iter().any(|rule| within(&rule))), "{rules:?}: {cells:?}");
                }
            }
        }
    }

    #[test]
    fn the_whole_space_is_one_cell() {
        let all = [rule(0, 0, 0, 0, u16::MAX), rule(0x0a00_0000, 8, 6, 80, 80)];
        assert_eq!(cells(&all), [Cell { addresses: (0, u32::MAX), protocol: None, ports: (0, u16::MAX) }]);
        assert_eq!(cells(&[]), []);
    }
}
