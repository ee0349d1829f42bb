//! Explanations: the oracle's words on the objects, beside what the table in force would do with the packet.

use crate::view::View;
use sluice_flow::{Addr, Protocol, Verdict};
use sluice_policy::oracle::{self, ExplainedHalf};
use sluice_table::Table;
use sluice_wire::{Explanation, HalfExplanation, NearestMiss};

/// Answers for the objects as last read; the table may be a step behind, and both are shown.
///
/// # Errors
/// For people: an unknown protocol, or an end that is no pod with an address.
pub(crate) fn explain(view: &View, src: &str, dst: &str, port: u16, protocol: &str) -> Result<Explanation, String> {
    let protocol = Protocol::from_name(protocol)
        .ok_or_else(|| format!("unknown protocol {protocol:?}; use TCP, UDP, SCTP, ICMP, ICMPv6 or a number"))?;
    let explained = oracle::explain(&view.snapshot, src, dst, port, protocol).map_err(|e| e.to_string())?;
    let half = |half: ExplainedHalf| half_explanation(half, view, protocol, port);
    Ok(Explanation {
        src: explained.src,
        dst: explained.dst,
        port: explained.port,
        allowed: explained.allowed,
        egress: explained.egress.map(half),
        ingress: explained.ingress.map(half),
        notes: explained.notes,
    })
}

fn half_explanation(half: ExplainedHalf, view: &View, protocol: Protocol, port: u16) -> HalfExplanation {
    let verdict = view.table.as_deref().and_then(|table| lookup(table, &half, protocol, port));
    let table_rule = match (verdict, view.table.as_deref()) {
        (Some(Verdict::Allow(id)), Some(table)) => table.rule(id).map(ToString::to_string),
        _ => None,
    };
    HalfExplanation {
        pod: half.pod,
        direction: half.direction,
        allowed: half.allowed,
        isolated: half.isolated,
        isolating: half.isolating,
        rule: half.rule,
        nearest_miss: half.nearest_miss.map(|(rule, failed)| NearestMiss { rule, failed }),
        table_allowed: verdict.map(Verdict::is_allow),
        table_rule,
    }
}

/// Asks the table the very question that a worker would ask; `None` where the pod is not attached here.
fn lookup(table: &Table, half: &ExplainedHalf, protocol: Protocol, port: u16) -> Option<Verdict> {
    let endpoint = table.names().endpoints.iter().find(|endpoint| endpoint.pod == half.pod)?;
    let port = if protocol.has_ports() { port } else { 0 };
    Some(table.lookup(endpoint.port, half.direction, Addr::from(half.remote), protocol, port))
}
