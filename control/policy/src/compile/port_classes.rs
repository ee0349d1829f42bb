//! Ports that no profile tells apart, over all profiles.

use super::CompileError;
use super::number::capacity;
use super::ports::{OTHERS, PORTS};
use super::sheet::sweep;
use super::slot::Slot;
use ahash::RandomState;
use sluice_table::{PortParts, ProfileParts};
use std::collections::HashMap;

/// Numbers port classes, and says what each profile calls them.
///
/// # Errors
/// More than the format holds.
pub(super) fn port_classes(slots: &[Slot], profiles: &mut [ProfileParts]) -> Result<PortParts, CompileError> {
    let mut known: HashMap<Vec<u16>, u16, RandomState> = HashMap::default();
    let mut intervals: Vec<(u32, u16)> = Vec::new();
    let mut beyond = 0;
    sweep(slots.iter().map(|slot| &slot.sheet), |start, numbers| {
        let next = known.len();
        let class = match known.get(numbers) {
            Some(&class) => class,
            None => {
                beyond = next + 1;
                known.insert(numbers.to_vec(), next as u16);
                next as u16
            }
        };
        intervals.push((start, class));
    });
    capacity("port classes", beyond, usize::from(u16::MAX))?;
    let at = |place: u32| intervals[intervals.partition_point(|interval| interval.0 <= place) - 1].1;
    let mut ports = PortParts { classes: known.len(), intervals: Default::default(), others: at(OTHERS) };
    for (protocol, list) in (0u32..).zip(&mut ports.intervals) {
        let (first, end) = (protocol * PORTS, (protocol + 1) * PORTS);
        list.push((0, at(first)));
        for &(start, class) in intervals.iter().filter(|interval| interval.0 > first && interval.0 < end) {
            if list.last().is_none_or(|&(_, last)| last != class) {
                list.push(((start - first) as u16, class));
            }
        }
    }
    for (profile, slot) in profiles.iter_mut().zip(slots) {
        profile.stride = slot.sheet.stride;
        profile.ports.clear();
        profile.ports.resize(known.len(), 0);
    }
    for (numbers, class) in &known {
        profiles.iter_mut().zip(numbers).for_each(|(profile, &number)| profile.ports[usize::from(*class)] = number);
    }
    Ok(ports)
}
