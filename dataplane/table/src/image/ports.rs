//! Port intervals → pages. Most pages say the same for all their ports, and equal ones are one.

use crate::format::{PAGE, PORT_PAGES};
use crate::parts::PortParts;
use std::collections::HashMap;

/// Which page each 256 ports have, and the pages.
pub(super) fn pages(parts: &PortParts) -> (Vec<u16>, Vec<u16>) {
    let mut classes: Vec<u16> = Vec::with_capacity(PORT_PAGES * PAGE);
    for intervals in &parts.intervals {
        assert!(intervals.first().is_some_and(|first| first.0 == 0), "port intervals start at 0");
        assert!(intervals.is_sorted_by(|a, b| a.0 < b.0), "port intervals ascend");
        for (index, &(start, class)) in intervals.iter().enumerate() {
            let end = intervals.get(index + 1).map_or(65536, |next| usize::from(next.0));
            classes.resize(classes.len() + end - usize::from(start), class);
        }
    }
    classes.resize(PORT_PAGES * PAGE, parts.others);
    let mut known: HashMap<&[u16], u16> = HashMap::new();
    let mut pages = Vec::new();
    let page_of = classes.chunks(PAGE).map(|page| {
        let next = known.len() as u16;
        *known.entry(page).or_insert_with(|| {
            pages.extend_from_slice(page);
            next
        })
    });
    let page_of = page_of.collect();
    (page_of, pages)
}
