//! One expectation about a flow, in a line:
//!
//! ```text
//!   x/client -> x/web 80/TCP: allow by x/p ingress[0]
//!   x/a -> x/web 80/TCP, ping: deny ingress by x/deny
//!   203.0.113.9 -> x/web 80/TCP: allow; worker drops vlan_unsupported until tags
//! ```
//!
//! An end is a pod, an address, a pod under one of its addresses (`x/web@fd00::1`) or `node`. Between two pods the
//! question is asked in every address family that both have, so no case forgets IPv6.

use sluice_flow::{Direction, DropReason, ObjectName, Protocol};
use std::fmt;
use std::net::IpAddr;

/// One end as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// A pod, under each of its addresses or one of them.
    Pod(ObjectName, Option<IpAddr>),
    /// An address; nobody's policy is asked there.
    Address(IpAddr),
    /// The node that hosts the pods.
    Node,
}

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// A port of a protocol that has ports.
    Port(Protocol, u16),
    /// ICMP or ICMPv6, whichever the family has.
    Ping,
    /// Any other protocol by number.
    Other(Protocol),
}

impl Asked {
    /// The protocol and port that policies see.
    pub(super) fn in_family(self, v4: bool) -> (Protocol, u16) {
        match self {
            Self::Port(protocol, port) => (protocol, port),
            Self::Ping if v4 => (Protocol::ICMP, 0),
            Self::Ping => (Protocol::ICMPV6, 0),
            Self::Other(protocol) => (protocol, 0),
        }
    }
}

/// What the policies should say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Both halves allow; the rules named are exactly those of the isolated halves. `None`: whichever.
    Allow(Option<Vec<String>>),
    /// Allowed although it never meets a policy: to itself, or between a pod and its node.
    Exempt,
    /// These halves deny and no other; isolated by exactly these policies, where they are named.
    Deny(Vec<Direction>, Option<Vec<String>>),
}

/// What the worker does today instead, and the feature that will end it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Until {
    pub(super) reason: DropReason,
    pub(super) feature: String,
}

/// A line of `flows`.
#[derive(Debug, Clone)]
pub(super) struct Flow {
    pub(super) line: u32,
    pub(super) src: End,
    pub(super) dst: End,
    pub(super) asked: Vec<Asked>,
    pub(super) verdict: Verdict,
    pub(super) until: Option<Until>,
}

impl Flow {
    pub(super) fn read(line: u32, text: &str) -> Result<Self, String> {
        let (question, answer) = text.split_once(": ").ok_or("expected SRC -> DST WHAT: VERDICT")?;
        let (src, rest) = question.split_once(" -> ").ok_or("expected SRC -> DST before the colon")?;
        let (dst, asked) = rest.trim().split_once(' ').ok_or("expected what is sent after DST, such as 80/TCP")?;
        let (verdict, until) = match answer.split_once("; worker drops ") {
            Some((verdict, until)) => (verdict, Some(Until::read(until)?)),
            None => (answer, None),
        };
        let asked = asked.split(',').map(|one| asked_of(one.trim())).collect::<Result<_, _>>()?;
        Ok(Self { line, src: end(src.trim())?, dst: end(dst)?, asked, verdict: Verdict::read(verdict.trim())?, until })
    }
}

impl Until {
    fn read(text: &str) -> Result<Self, String> {
        let (reason, feature) = text.split_once(" until ").ok_or("expected: worker drops REASON until FEATURE")?;
        Ok(Self { reason: reason_of(reason.trim())?, feature: feature.trim().to_owned() })
    }
}

impl Verdict {
    fn read(text: &str) -> Result<Self, String> {
        let list = |names: &str| names.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>();
        if let Some(rules) = text.strip_prefix("allow by ") {
            return Ok(Self::Allow(Some(list(rules))));
        }
        match text {
            "allow" => return Ok(Self::Allow(None)),
            "allow, not isolated" => return Ok(Self::Allow(Some(Vec::new()))),
            "allow, itself" | "allow, its node" => return Ok(Self::Exempt),
            _ => {}
        }
        let rest = text.strip_prefix("deny ").ok_or_else(|| format!("{text:?} is neither allow nor deny egress|ingress|both"))?;
        let (halves, policies) = match rest.split_once(" by ") {
            Some((halves, policies)) => (halves, Some(list(policies))),
            None => (rest, None),
        };
        let halves = match halves {
            "ingress" => vec![Direction::Ingress],
            "egress" => vec![Direction::Egress],
            "both" => Direction::BOTH.to_vec(),
            other => return Err(format!("{other:?}: a denial is of egress, ingress or both")),
        };
        Ok(Self::Deny(halves, policies))
    }
}

/// A drop reason by its name.
pub(super) fn reason_of(name: &str) -> Result<DropReason, String> {
    DropReason::ALL.iter().copied().find(|reason| reason.name() == name).ok_or_else(|| format!("{name:?} is no drop reason"))
}

fn end(text: &str) -> Result<End, String> {
    if text == "node" {
        return Ok(End::Node);
    }
    if let Ok(address) = text.parse() {
        return Ok(End::Address(address));
    }
    let (pod, address) = match text.split_once('@') {
        Some((pod, address)) => (pod, Some(address.parse().map_err(|_| format!("{address:?} is no address"))?)),
        None => (text, None),
    };
    if !pod.contains('/') {
        return Err(format!("{text:?} is neither namespace/pod, nor an address, nor `node`"));
    }
    Ok(End::Pod(ObjectName::parse(pod), address))
}

fn asked_of(text: &str) -> Result<Asked, String> {
    if text == "ping" {
        return Ok(Asked::Ping);
    }
    if let Some(number) = text.strip_prefix("protocol ") {
        return Ok(Asked::Other(Protocol(number.parse().map_err(|_| format!("{number:?} is no protocol number"))?)));
    }
    let port = text.split_once('/').and_then(|(port, protocol)| Some((port.parse().ok()?, Protocol::from_name(protocol)?)));
    match port {
        Some((port, protocol)) if protocol.has_ports() => Ok(Asked::Port(protocol, port)),
        _ => Err(format!("{text:?} is neither 80/TCP, nor ping, nor protocol 47")),
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(pod, None) => write!(f, "{pod}"),
            Self::Pod(pod, Some(address)) => write!(f, "{pod}@{address}"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Node => f.write_str("node"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow(None) => f.write_str("allow"),
            Self::Allow(Some(rules)) if rules.is_empty() => f.write_str("allow, not isolated"),
            Self::Allow(Some(rules)) => write!(f, "allow by {}", rules.join(", ")),
            Self::Exempt => f.write_str("allow, whatever the policies"),
            Self::Deny(halves, policies) => {
                let word = if let [half] = halves.as_slice() { half.to_string() } else { "both".to_owned() };
                write!(f, "deny {word}")?;
                policies.as_ref().map_or(Ok(()), |policies| write!(f, " by {}", policies.join(", ")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_is_meant() {
        let flow = Flow::read(7, "x/a -> x/web@fd00::1 80/TCP, ping, protocol 47: deny both by x/p, x/q").unwrap();
        assert_eq!(flow.dst, End::Pod(ObjectName::new("x", "web"), Some("fd00::1".parse().unwrap())));
        assert_eq!(flow.asked, [Asked::Port(Protocol::TCP, 80), Asked::Ping, Asked::Other(Protocol(47))]);
        assert_eq!(flow.verdict, Verdict::Deny(Direction::BOTH.to_vec(), Some(vec!["x/p".to_owned(), "x/q".to_owned()])));
        let later = Flow::read(1, "fd00::9 -> x/web 9/SCTP: allow by x/p ingress[0]; worker drops vlan_unsupported until tags").unwrap();
        assert_eq!(later.verdict.to_string(), "allow by x/p ingress[0]");
        assert_eq!(later.until, Some(Until { reason: DropReason::Vlan, feature: "tags".to_owned() }));
    }

    #[test]
    fn what_is_no_expectation_says_why() {
        for (line, why) in [
            ("x/a -> x/b 80/TCP", "VERDICT"),
            ("x/a x/b 80/TCP: allow", "SRC -> DST"),
            ("x/a -> x/b: allow", "after DST"),
            ("a -> x/b 80/TCP: allow", "neither namespace/pod"),
            ("x/a -> x/b 80/ICMP: allow", "neither 80/TCP"),
            ("x/a -> x/b 80/TCP: allowed", "neither allow"),
            ("x/a -> x/b 80/TCP: deny", "neither allow"),
            ("x/a -> x/b 80/TCP: deny ingres", "egress, ingress or both"),
            ("x/a -> x/b 80/TCP: allow; worker drops nothing until X", "no drop reason"),
        ] {
            let error = Flow::read(1, line).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}
