//! Who reaches whom under some manifests, asked in one line and answered by the oracle and by the compiled table.

use crate::vectors::engine::{Engine, Question, load};
use anyhow::{Context, Result, bail, ensure};
use sluice_flow::{Direction, Protocol};
use sluice_policy::load::load_str;
use sluice_policy::{ObjectName, Oracle, Snapshot};
use std::net::IpAddr;

/// Pods that a text speaks of and does not define: `ns/name label=value label=value`, at 10.0.0.1, 10.0.0.2, ...
pub fn pods(lines: &[&str]) -> String {
    let pod = |(index, line): (usize, &&str)| {
        let mut words = line.split_whitespace();
        let name = ObjectName::parse(words.next().unwrap_or_default());
        let labels: Vec<String> = words.filter_map(|word| word.split_once('=')).map(|(key, value)| format!("{key}: \"{value}\"")).collect();
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {}, namespace: {}, labels: {{{}}}}}\nspec: {{containers: [{{name: c}}]}}\n\
             status: {{phase: Running, podIP: 10.0.0.{}}}\n",
            name.name,
            name.namespace,
            labels.join(", "),
            index + 1
        )
    };
    lines.iter().enumerate().map(pod).collect()
}

/// The state that manifests make.
///
/// # Errors
/// Any complaint of the loader.
pub fn state(manifests: &str) -> Result<Snapshot> {
    let loaded = load_str("walkthrough.yaml", manifests);
    match loaded.errors.first() {
        None => Ok(loaded.snapshot),
        Some(error) => bail!("{error}"),
    }
}

/// Asks `a/client -> b/web 80`, `web -> 8.8.8.8 53/UDP`: pods (of namespace `default` without one) or addresses, and a
/// port. Oracle and table must agree.
///
/// # Errors
/// A question that cannot be read, names no pod, or is answered differently.
pub fn reaches(snapshot: &Snapshot, question: &str) -> Result<bool> {
    let words: Vec<&str> = question.split_whitespace().collect();
    let [src, "->", dst, port] = words[..] else { bail!("{question:?} is not of the form `a -> b 80`") };
    let (port, protocol) = port.split_once('/').unwrap_or((port, "TCP"));
    let (port, protocol) = (port.parse()?, Protocol::from_name(protocol).context("no such protocol")?);
    let (from, to) = (end(snapshot, src)?, end(snapshot, dst)?);
    let mut answers = [Engine::Oracle, Engine::Table].map(|engine| (engine, true));
    for (engine, allowed) in &mut answers {
        let judge = load(*engine, snapshot).map_err(anyhow::Error::msg)?;
        let half =
            |pod: Option<usize>, direction, remote| pod.is_none_or(|pod| judge.allows(Question { pod, direction, remote, protocol, port }));
        *allowed = half(from.0, Direction::Egress, to.1) && half(to.0, Direction::Ingress, from.1);
    }
    ensure!(answers[0].1 == answers[1].1, "{question}: the oracle says {}, the table {}", answers[0].1, answers[1].1);
    Ok(answers[0].1)
}

/// A pod by its number in name order, and the address.
fn end(snapshot: &Snapshot, text: &str) -> Result<(Option<usize>, IpAddr)> {
    if let Ok(address) = text.parse() {
        return Ok((None, address));
    }
    let name = ObjectName::parse(text);
    let index = snapshot.pods.keys().position(|pod| *pod == name).with_context(|| format!("there is no pod {name}"))?;
    let address = Oracle::new(snapshot).addresses_of(&name).first().copied().context("it has no address")?;
    Ok((Some(index), address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_answered_for_both_ends() {
        let policy = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: x}\n\
                      spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}]}\n";
        let snapshot = state(&format!("{}{policy}", pods(&["x/web app=web", "x/db app=db", "client"]))).unwrap();
        for (question, allowed) in [
            ("x/db -> x/web 80", true),
            ("x/db -> x/web 80/UDP", false),
            ("client -> x/web 80", false),
            ("x/web -> 8.8.8.8 53/UDP", true),
            ("8.8.8.8 -> x/web 80", false),
        ] {
            assert_eq!(reaches(&snapshot, question).unwrap(), allowed, "{question}");
        }
        assert!(reaches(&snapshot, "nobody -> x/web 80").is_err() && reaches(&snapshot, "x/db x/web 80").is_err());
    }
}
