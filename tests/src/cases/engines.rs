//! The two engines that only judge: the oracle on the objects, the lookup on the bytes that the compiler made of them.

use super::question::{Half, Halves, Question};
use super::state::State;
use sluice_flow::{Addr, Direction, ObjectName, Verdict};
use sluice_policy::Oracle;
use sluice_policy::oracle::explain;
use sluice_table::Table;
use std::net::IpAddr;

/// The slow truth.
pub(super) fn oracle(state: &State, question: &Question) -> Halves {
    let oracle = Oracle::new(&state.snapshot);
    let half = |(pod, direction, remote): (&ObjectName, Direction, IpAddr)| {
        let judgement = oracle.judge(pod, direction, remote, question.protocol, question.port);
        Half {
            allowed: judgement.allowed,
            isolated: judgement.isolated,
            rule: judgement.allowed_by.map(|rule| rule.to_string()),
            isolating: judgement.isolating.iter().map(ObjectName::to_string).collect(),
        }
    };
    let [egress, ingress] = question.halves().map(|asked| asked.map(half));
    Halves { egress, ingress }
}

/// What the oracle says of flows that meet no policy, and its whole explanation of any.
pub(super) fn explained(state: &State, question: &Question) -> Result<(bool, String), String> {
    let text = |end: &(Option<ObjectName>, IpAddr)| end.1.to_string();
    let told = explain(&state.snapshot, &text(&question.src), &text(&question.dst), question.port, question.protocol);
    let told = told.map_err(|error| error.to_string())?;
    let mut lines = Vec::new();
    for half in [&told.egress, &told.ingress].into_iter().flatten() {
        let nearest = half.nearest_miss.as_ref().map(|(rule, failed)| format!("; nearest {rule}: {failed}")).unwrap_or_default();
        let isolating: Vec<String> = half.isolating.iter().map(ObjectName::to_string).collect();
        lines.push(match (&half.rule, half.isolated) {
            (Some(rule), _) => format!("{} of {}: allowed by {rule}", half.direction, half.pod),
            (None, false) => format!("{} of {}: not isolated", half.direction, half.pod),
            (None, true) => format!("{} of {}: denied, isolated by {}{nearest}", half.direction, half.pod, isolating.join(", ")),
        });
    }
    lines.extend(told.notes);
    Ok((told.allowed, lines.join("; ")))
}

/// The compiled table; it knows the pods of this node.
pub(super) fn table(state: &State, table: &Table, question: &Question) -> Halves {
    let half = |(pod, direction, remote): (&ObjectName, Direction, IpAddr)| {
        let port = state.endpoint(pod)?.port;
        let isolating = table.names().endpoint(port)?.isolating(direction);
        let verdict = table.lookup(port, direction, Addr::from(remote), question.protocol, question.port);
        let rule = match verdict {
            Verdict::Allow(rule) => Some(table.rule(rule).map_or_else(|| format!("a rule without a name, {rule:?}"), ToString::to_string)),
            _ => None,
        };
        let isolating = isolating.iter().map(ObjectName::to_string).collect();
        Some(Half { allowed: verdict.is_allow(), isolated: verdict != Verdict::NotIsolated, rule, isolating })
    };
    let [egress, ingress] = question.halves().map(|asked| asked.and_then(half));
    Halves { egress, ingress }
}
