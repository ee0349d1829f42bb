//! Explanations: the oracle's words on the objects, beside what the table in force would do with the packet.

use crate::view::View;
use sluice_flow::{Addr, Protocol, Verdict};
use sluice_policy::oracle::{self, ExplainedHalf};
use sluice_table::Table;
use sluice_wire::{Explanation, HalfExplanation, NearestMiss};
use std::net::IpAddr;

/// Backends of a service that are named.
const BACKENDS_MAX: usize = 8;

/// Answers for the objects as last read; the table may be a step behind, and both are shown.
///
/// # Errors
/// For people: an unknown protocol, or an end that is no pod with an address.
pub(crate) fn explain(view: &View, src: &str, dst: &str, port: u16, protocol: &str) -> Result<Explanation, String> {
    let protocol = Protocol::from_name(protocol)
        .ok_or_else(|| format!("unknown protocol {protocol:?}; use TCP, UDP, SCTP, ICMP, ICMPv6 or a number"))?;
    let explained = oracle::explain(&view.snapshot, src, dst, port, protocol).map_err(|e| e.to_string())?;
    let mut notes = explained.notes;
    notes.extend(placed(view, [src, dst]));
    let half = |half: ExplainedHalf| half_explanation(half, view, protocol, port);
    Ok(Explanation {
        src: explained.src,
        dst: explained.dst,
        port: explained.port,
        allowed: explained.allowed,
        egress: explained.egress.map(half),
        ingress: explained.ingress.map(half),
        notes,
    })
}

/// What the API server says of the addresses that were asked for.
fn placed(view: &View, ends: [&str; 2]) -> Vec<String> {
    let Some(manifests) = &view.manifests else { return Vec::new() };
    let mut notes = Vec::new();
    for address in ends.into_iter().filter_map(|end| end.parse::<IpAddr>().ok()).map(|address| address.to_canonical()) {
        if let Some(node) = manifests.places.node_at(address) {
            notes.push(format!("{address} is an address of node {node}: of other nodes' pods it is matched by ipBlocks only"));
        }
        if let Some(service) = oracle::service_at(&view.snapshot, address) {
            let backends: Vec<String> = manifests.places.backends(service).iter().map(ToString::to_string).collect();
            let shown = backends.iter().take(BACKENDS_MAX).cloned().collect::<Vec<_>>().join(", ");
            notes.push(match backends.len() {
                0 => format!("{service} has no backend at present"),
                more if more > BACKENDS_MAX => format!("{service} goes to {shown} and {} more", more - BACKENDS_MAX),
                _ => format!("{service} goes to {shown}"),
            });
        }
    }
    notes
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
