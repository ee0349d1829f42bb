//! A flow's line → questions, one for each family and protocol, and whether an engine's answer is the expected one.

use super::flow::{Asked, End, Flow, Verdict};
use super::state::State;
use sluice_flow::{Direction, ObjectName, Protocol};
use std::net::IpAddr;

/// One connection. A pod's policy is asked where the pod is named.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) src: (Option<ObjectName>, IpAddr),
    pub(super) dst: (Option<ObjectName>, IpAddr),
    pub(super) protocol: Protocol,
    pub(super) port: u16,
}

/// What one pod's policies say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Half {
    pub(super) allowed: bool,
    pub(super) isolated: bool,
    pub(super) rule: Option<String>,
    pub(super) isolating: Vec<String>,
}

/// What an engine says: a half for each end whose policies it knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Halves {
    pub(super) egress: Option<Half>,
    pub(super) ingress: Option<Half>,
}

impl Question {
    /// Every question of a line.
    pub(super) fn all(flow: &Flow, state: &State) -> Result<Vec<Self>, String> {
        let (sources, destinations) = (ends(&flow.src, state)?, ends(&flow.dst, state)?);
        let mut questions = Vec::new();
        for &asked in &flow.asked {
            for src in &sources {
                let same_family = destinations.iter().filter(|dst| dst.1.is_ipv4() == src.1.is_ipv4());
                questions.extend(same_family.map(|dst| Self::of(src.clone(), dst.clone(), asked)));
            }
        }
        if questions.is_empty() {
            return Err(format!("{} and {} share no address family", flow.src, flow.dst));
        }
        Ok(questions)
    }

    fn of(src: (Option<ObjectName>, IpAddr), dst: (Option<ObjectName>, IpAddr), asked: Asked) -> Self {
        let (protocol, port) = asked.in_family(src.1.is_ipv4());
        Self { src, dst, protocol, port }
    }

    /// The pods whose policies are asked, with the other end as they see it.
    pub(super) fn halves(&self) -> [Option<(&ObjectName, Direction, IpAddr)>; 2] {
        [
            self.src.0.as_ref().map(|pod| (pod, Direction::Egress, self.dst.1)),
            self.dst.0.as_ref().map(|pod| (pod, Direction::Ingress, self.src.1)),
        ]
    }

    /// The connection that the destination would open back, to a port of the source.
    pub(super) fn reversed(&self, port: u16) -> Self {
        Self { src: self.dst.clone(), dst: self.src.clone(), protocol: self.protocol, port }
    }
}

impl std::fmt::Display for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = |(pod, address): &(Option<ObjectName>, IpAddr)| match pod {
            Some(pod) => format!("{pod} ({address})"),
            None => address.to_string(),
        };
        write!(f, "{} -> {} ", end(&self.src), end(&self.dst))?;
        if self.protocol.has_ports() { write!(f, "{}/{}", self.port, self.protocol) } else { write!(f, "{}", self.protocol) }
    }
}

fn ends(end: &End, state: &State) -> Result<Vec<(Option<ObjectName>, IpAddr)>, String> {
    let named = |pod: &ObjectName, addresses: Vec<IpAddr>| addresses.into_iter().map(|address| (Some(pod.clone()), address)).collect();
    let found: Vec<_> = match end {
        End::Pod(pod, Some(address)) => named(pod, vec![*address]),
        End::Pod(pod, None) => named(pod, state.addresses_of(pod)),
        End::Address(address) => vec![(None, *address)],
        End::Node => state.node.iter().map(|address| (None, *address)).collect(),
    };
    if found.is_empty() { Err(format!("{end} has no address")) } else { Ok(found) }
}

impl Halves {
    pub(super) fn allowed(&self) -> bool {
        self.present().all(|(_, half)| half.allowed)
    }

    fn present(&self) -> impl Iterator<Item = (Direction, &Half)> {
        let egress = self.egress.as_ref().map(|half| (Direction::Egress, half));
        egress.into_iter().chain(self.ingress.as_ref().map(|half| (Direction::Ingress, half)))
    }

    /// Whether this is the expected verdict, as far as the engine knows the ends.
    pub(super) fn agree(&self, verdict: &Verdict) -> bool {
        match verdict {
            Verdict::Exempt => true,
            Verdict::Allow(rules) => {
                let mut found: Vec<&str> = self.present().filter_map(|(_, half)| half.rule.as_deref()).collect();
                found.sort_unstable();
                let expected = |rules: &Vec<String>| {
                    let asked = |rule: &&str| self.present().any(|(direction, _)| rule.contains(&format!(" {direction}[")));
                    let mut expected: Vec<&str> = rules.iter().map(String::as_str).filter(asked).collect();
                    expected.sort_unstable();
                    let isolated = self.present().filter(|(_, half)| half.isolated).count();
                    expected == found && isolated == found.len()
                };
                self.allowed() && rules.as_ref().is_none_or(expected)
            }
            Verdict::Deny(halves, policies) => {
                let as_said = self.present().all(|(direction, half)| half.allowed != halves.contains(&direction));
                let whole = halves.iter().all(|direction| self.present().any(|(present, _)| present == *direction));
                let mut found: Vec<&str> = self
                    .present()
                    .filter(|(_, half)| !half.allowed)
                    .flat_map(|(_, half)| half.isolating.iter().map(String::as_str))
                    .collect();
                found.sort_unstable();
                found.dedup();
                let expected = |policies: &Vec<String>| {
                    let mut expected: Vec<&str> = policies.iter().map(String::as_str).collect();
                    expected.sort_unstable();
                    if whole { found == expected } else { found.iter().all(|policy| expected.contains(policy)) }
                };
                as_said && policies.as_ref().is_none_or(expected)
            }
        }
    }
}

impl std::fmt::Display for Halves {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut first = true;
        for (direction, half) in self.present() {
            let why = match (&half.rule, half.isolated, half.allowed) {
                (Some(rule), ..) => format!("allowed by {rule}"),
                (None, false, true) => "not isolated".to_owned(),
                (None, true, true) => format!("allowed although isolated by {}", half.isolating.join(", ")),
                (None, ..) => format!("denied, isolated by {}", half.isolating.join(", ")),
            };
            write!(f, "{}{direction} {why}", if first { "" } else { "; " })?;
            first = false;
        }
        if first { f.write_str("no end is judged") } else { Ok(()) }
    }
}
