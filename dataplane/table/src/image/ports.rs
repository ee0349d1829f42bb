//! Port intervals → the starts that an image has.

use crate::format::PortStart;
use crate::parts::PortParts;

/// Of TCP, UDP, SCTP, and of all other protocols.
pub(super) fn starts(parts: &PortParts) -> Vec<PortStart> {
    let mut starts = Vec::new();
    for intervals in &parts.intervals {
        assert!(intervals.first().is_some_and(|first| first.0 == 0), "port intervals start at 0");
        assert!(intervals.is_sorted_by(|a, b| a.0 < b.0), "port intervals ascend");
        starts.extend(intervals.iter().map(|&(port, class)| PortStart { port, class }));
    }
    starts.push(PortStart { port: 0, class: parts.others });
    starts
}
