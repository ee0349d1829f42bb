//! Sets of ports, exact over all protocols.
//!
//! The port space is one line: 65,536 places for each protocol that has ports, in the order of
//! [`Protocol::WITH_PORTS`], and one last place for every other protocol, which rules cannot tell apart.

use sluice_flow::Protocol;
use std::fmt;

const WIDTH: u32 = 65_536;

/// The place of all protocols without ports.
pub(super) const OTHER: u32 = 3 * WIDTH;

/// The last place.
pub(super) const LAST: u32 = OTHER;

/// A set of places on the port line.
///
/// ```
/// use sluice_flow::Protocol;
/// use sluice_policy::reach::Ports;
/// assert!(Ports::all().contains(Protocol::ICMP, 0));
/// assert_eq!(Ports::all().to_string(), "all ports");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ports {
    /// First and last place of each run: ascending, with a gap between any two.
    runs: Vec<(u32, u32)>,
}

/// Ports of one protocol that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// `None`: all protocols without ports; then both numbers are 0.
    pub protocol: Option<Protocol>,
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
}

impl Ports {
    /// Every port of every protocol.
    pub fn all() -> Self {
        Self { runs: vec![(0, LAST)] }
    }

    /// One port.
    pub fn one(protocol: Protocol, port: u16) -> Self {
        let place = place(protocol, port);
        Self { runs: vec![(place, place)] }
    }

    /// From runs that ascend and do not overlap; runs that touch become one.
    pub(super) fn from_runs(runs: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut set = Self::default();
        for (first, last) in runs {
            debug_assert!(first <= last && last <= LAST && set.runs.last().is_none_or(|(_, before)| *before < first));
            match set.runs.last_mut() {
                Some((_, before)) if *before + 1 == first => *before = last,
                _ => set.runs.push((first, last)),
            }
        }
        set
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether it holds everything.
    pub fn is_all(&self) -> bool {
        self.runs == [(0, LAST)]
    }

    /// Whether it holds a port; the number does not matter where the protocol has none.
    pub fn contains(&self, protocol: Protocol, port: u16) -> bool {
        self.holds(place(protocol, port))
    }

    pub(super) fn holds(&self, place: u32) -> bool {
        let after = self.runs.partition_point(|(first, _)| *first <= place);
        after > 0 && self.runs[after - 1].1 >= place
    }

    /// What is in both.
    pub fn and(&self, other: &Self) -> Self {
        let (mut a, mut b) = (self.runs.iter().peekable(), other.runs.iter().peekable());
        let mut runs = Vec::new();
        while let (Some(&&(a_first, a_last)), Some(&&(b_first, b_last))) = (a.peek(), b.peek()) {
            let (first, last) = (a_first.max(b_first), a_last.min(b_last));
            if first <= last {
                runs.push((first, last));
            }
            if a_last <= b_last {
                a.next()
            } else {
                b.next()
            };
        }
        Self { runs }
    }

    /// What is in neither.
    pub fn not(&self) -> Self {
        let mut runs = Vec::new();
        let mut from = 0;
        for &(first, last) in &self.runs {
            if from < first {
                runs.push((from, first - 1));
            }
            from = last + 1;
        }
        if from <= LAST {
            runs.push((from, LAST));
        }
        Self { runs }
    }

    /// What is in this and not in the other.
    pub fn without(&self, other: &Self) -> Self {
        self.and(&other.not())
    }

    /// What is in either.
    pub fn or(&self, other: &Self) -> Self {
        self.not().and(&other.not()).not()
    }

    /// The ranges, protocol by protocol.
    pub fn ranges(&self) -> impl Iterator<Item = PortRange> + '_ {
        self.runs.iter().flat_map(|&(first, last)| ranges(first, last))
    }

    pub(super) fn runs(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.runs.iter().copied()
    }

    /// The first port of it alone.
    pub fn first(&self) -> Option<Self> {
        self.first_place().map(|place| Self { runs: vec![(place, place)] })
    }

    pub(super) fn first_place(&self) -> Option<u32> {
        self.runs.first().map(|(first, _)| *first)
    }
}

/// Splits a run at the borders of protocols.
pub(super) fn ranges(first: u32, last: u32) -> impl Iterator<Item = PortRange> {
    (first / WIDTH..=last / WIDTH).map(move |index| {
        let base = index * WIDTH;
        let number = |place: u32| u16::try_from(place).expect("a protocol is 65,536 places wide");
        match Protocol::WITH_PORTS.get(index as usize) {
            Some(&protocol) => {
                let (first, last) = (first.max(base) - base, last.min(base + WIDTH - 1) - base);
                PortRange { protocol: Some(protocol), first: number(first), last: number(last) }
            }
            None => PortRange { protocol: None, first: 0, last: 0 },
        }
    })
}

/// Where a port stands on the line.
pub(super) fn place(protocol: Protocol, port: u16) -> u32 {
    let index = Protocol::WITH_PORTS.iter().position(|one| *one == protocol);
    index.map_or(OTHER, |index| u32::try_from(index).expect("three protocols") * WIDTH + u32::from(port))
}

/// The port to ask about for a place. Protocols without ports are represented by ICMP of the family.
pub(super) fn question(place: u32, is_ipv4: bool) -> (Protocol, u16) {
    let index = (place / WIDTH) as usize;
    match Protocol::WITH_PORTS.get(index) {
        Some(&protocol) => (protocol, u16::try_from(place % WIDTH).expect("below 65,536")),
        None => (if is_ipv4 { Protocol::ICMP } else { Protocol::ICMPV6 }, 0),
    }
}

/// `80,443/TCP 53/UDP`, `all TCP`, `all ports except 22/TCP`, `none`: whichever of the set and its complement is the
/// shorter to say.
impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        if self.is_all() {
            return f.write_str("all ports");
        }
        let rest = self.not();
        if self.holds(OTHER) && Protocol::WITH_PORTS.iter().all(|&protocol| !self.in_protocol(protocol).is_empty()) {
            return write!(f, "all ports except {}", Listed(&rest));
        }
        Listed(self).fmt(f)
    }
}

impl Ports {
    fn in_protocol(&self, protocol: Protocol) -> Vec<PortRange> {
        self.ranges().filter(|range| range.protocol == Some(protocol)).collect()
    }
}

/// A set as a list, never as a complement.
struct Listed<'a>(&'a Ports);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for protocol in Protocol::WITH_PORTS {
            let ranges = self.0.in_protocol(protocol);
            if ranges.is_empty() {
                continue;
            }
            f.write_str(separator)?;
            separator = " ";
            if let [PortRange { first: 0, last: u16::MAX, .. }] = ranges[..] {
                write!(f, "all {protocol}")?;
                continue;
            }
            for (index, PortRange { first, last, .. }) in ranges.iter().enumerate() {
                let comma = if index == 0 { "" } else { "," };
                match first == last {
                    true => write!(f, "{comma}{first}")?,
                    false => write!(f, "{comma}{first}-{last}")?,
                }
            }
            write!(f, "/{protocol}")?;
        }
        if self.0.holds(OTHER) {
            write!(f, "{separator}other protocols")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> Ports {
        let mut ports = Ports::default();
        for part in text.split_whitespace() {
            let (range, protocol) = part.split_once('/').unwrap();
            let protocol = Protocol::from_name(protocol).unwrap();
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last) = (first.parse().unwrap(), last.parse().unwrap());
            ports = ports.or(&Ports::from_runs([(place(protocol, first), place(protocol, last))]));
        }
        ports
    }

    #[test]
    fn a_set_is_said_the_short_way() {
        for (ports, expected) in [
            (set("443/tcp 80/tcp 53/udp"), "80,443/TCP 53/UDP"),
            (set("0-65535/tcp"), "all TCP"),
            (set("1-1023/tcp 0/icmp"), "1-1023/TCP other protocols"),
            (set("22/tcp").not(), "all ports except 22/TCP"),
            (set("0-65535/tcp 0-65535/udp"), "all TCP all UDP"),
            (set("0/icmp").not(), "all TCP all UDP all SCTP"),
            (set("65535/tcp 0/udp"), "65535/TCP 0/UDP"),
            (Ports::all(), "all ports"),
            (Ports::default(), "none"),
        ] {
            assert_eq!(ports.to_string(), expected);
        }
    }

    #[test]
    fn runs_are_split_where_protocols_end() {
        let ranges: Vec<_> = Ports::all().ranges().map(|range| (range.protocol, range.first, range.last)).collect();
        let full = |protocol| (Some(protocol), 0, u16::MAX);
        assert_eq!(ranges, [full(Protocol::TCP), full(Protocol::UDP), full(Protocol::SCTP), (None, 0, 0)]);
    }

    /// Against plain sets of places, on sets made of few runs around the borders of protocols.
    #[test]
    fn the_algebra_is_that_of_sets() {
        use proptest::prelude::*;
        let runs = proptest::collection::vec((0..5u32, 0..4u32, 0..4u32), 0..5).prop_map(|picked| {
            let near = |border: u32, offset: u32| (border * WIDTH + offset).saturating_sub(2).min(LAST);
            picked.into_iter().map(|(border, a, b)| (near(border.min(3), a.min(b)), near(border.min(3), a.max(b)))).collect::<Vec<_>>()
        });
        let build = |runs: &[(u32, u32)]| runs.iter().fold(Ports::default(), |set, run| set.or(&Ports::from_runs([*run])));
        proptest!(|(a in runs.clone(), b in runs)| {
            let (x, y) = (build(&a), build(&b));
            let held = |runs: &[(u32, u32)], place: u32| runs.iter().any(|(first, last)| (*first..=*last).contains(&place));
            for place in (0..4).flat_map(|border| (border * WIDTH).saturating_sub(4)..=(border * WIDTH + 4).min(LAST)) {
                let (in_a, in_b) = (held(&a, place), held(&b, place));
                prop_assert_eq!(x.holds(place), in_a);
                prop_assert_eq!(x.and(&y).holds(place), in_a && in_b);
                prop_assert_eq!(x.or(&y).holds(place), in_a || in_b);
                prop_assert_eq!(x.without(&y).holds(place), in_a && !in_b);
                prop_assert_eq!(x.not().holds(place), !in_a);
            }
            prop_assert_eq!(x.not().not(), x);
        });
    }
}
