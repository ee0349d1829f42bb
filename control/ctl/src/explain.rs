//! `explain`: one connection, both halves, in words.

use crate::Ending;
use crate::analysis::assumed;
use crate::arguments::{Form, Question};
use crate::client::{Client, unexpected};
use crate::output::json;
use anyhow::{Result, anyhow, bail};
use owo_colors::OwoColorize;
use sluice_flow::Direction;
use sluice_policy::load::load_cluster_paths;
use sluice_policy::oracle::{self, ExplainedHalf};
use sluice_policy::reach::with_addresses;
use sluice_wire::{Explanation, FromControl, HalfExplanation, NearestMiss, ToControl};
use std::io::Write;

pub(crate) fn run(client: &Client, question: &Question, form: Form, out: &mut dyn Write) -> Result<Ending> {
    let explanation = if question.manifests.is_empty() { ask(client, question)? } else { compute(question)? };
    match form {
        Form::Json => json(out, &explanation)?,
        Form::Table => print(&explanation, out)?,
    }
    Ok(if explanation.allowed { Ending::Ok } else { Ending::No })
}

fn ask(client: &Client, question: &Question) -> Result<Explanation> {
    let request = ToControl::Explain {
        src: question.src.clone(),
        dst: question.dst.clone(),
        port: question.port.port,
        protocol: question.port.protocol_name(),
    };
    match client.control(&request)? {
        FromControl::Explanation(explanation) => Ok(explanation),
        _ => unexpected(),
    }
}

/// From manifests, whole or not at all: an answer that silently leaves a refused policy out would mislead.
fn compute(question: &Question) -> Result<Explanation> {
    let cluster = load_cluster_paths(&question.manifests);
    let loaded = cluster.loaded;
    if !loaded.errors.is_empty() {
        let errors: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
        bail!("the manifests have problems:\n{}", errors.join("\n"));
    }
    let (port, protocol) = (question.port.port, question.port.protocol);
    // what runs nowhere yet has no address, and is judged all the same, as in `matrix`
    let (snapshot, assumption) = with_addresses(&loaded.snapshot, &question.pod_cidrs)?;
    let mut explained = oracle::explain(&snapshot, &question.src, &question.dst, port, protocol).map_err(|e| anyhow!("{e}"))?;
    explained.notes.extend(assumed(&assumption));
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

fn half(half: ExplainedHalf) -> HalfExplanation {
    HalfExplanation {
        pod: half.pod,
        direction: half.direction,
        allowed: half.allowed,
        isolated: half.isolated,
        isolating: half.isolating,
        rule: half.rule,
        nearest_miss: half.nearest_miss.map(|(rule, failed)| NearestMiss { rule, failed }),
        table_allowed: None,
        table_rule: None,
    }
}

fn print(e: &Explanation, out: &mut dyn Write) -> Result<()> {
    let headline = if e.allowed { "ALLOWED".green().bold().to_string() } else { "DENIED".red().bold().to_string() };
    writeln!(out, "{headline}  {} -> {}  {}", e.src, e.dst, e.port)?;
    for half in [&e.egress, &e.ingress].into_iter().flatten() {
        print_half(half, out)?;
    }
    if !e.notes.is_empty() {
        writeln!(out)?;
    }
    for note in &e.notes {
        writeln!(out, "  note: {note}")?;
    }
    Ok(())
}

fn print_half(half: &HalfExplanation, out: &mut dyn Write) -> Result<()> {
    let (verb, title) = match half.direction {
        Direction::Egress => ("leaving", "egress"),
        Direction::Ingress => ("entering", "ingress"),
    };
    let verdict = if half.allowed { "allowed".green().to_string() } else { "denied".red().to_string() };
    writeln!(out, "\n  {verb} {} ({title}): {verdict}", half.pod.bold())?;
    let isolating: Vec<String> = half.isolating.iter().map(ToString::to_string).collect();
    match &half.rule {
        _ if !half.isolated && half.allowed => writeln!(out, "    not isolated: no policy selects it for {title}")?,
        _ if !half.isolated => writeln!(out, "    the pod is not known, so nothing is allowed")?,
        Some(rule) => {
            writeln!(out, "    allowed by policy {rule}")?;
            writeln!(out, "    isolated by {}", isolating.join(", "))?;
        }
        None => writeln!(out, "    default deny: isolated by {}, and no rule allows it", isolating.join(", "))?,
    }
    if let Some(miss) = &half.nearest_miss {
        writeln!(out, "    nearest miss {}: {}", miss.rule, miss.failed)?;
    }
    match (half.table_allowed, &half.table_rule) {
        (None, _) => {}
        (Some(true), Some(rule)) => writeln!(out, "    live table allows it by {rule}{}", agreement(half))?,
        (Some(true), None) => writeln!(out, "    live table allows it, not isolated{}", agreement(half))?,
        (Some(false), _) => writeln!(out, "    live table denies it{}", agreement(half))?,
    }
    Ok(())
}

/// The table in force may be a step behind the objects, or ahead of nothing: say so where it matters.
fn agreement(half: &HalfExplanation) -> String {
    match half.table_allowed == Some(half.allowed) {
        true => String::new(),
        false => format!(" {}", "- differs: a change is not in force yet, see sluicectl status".yellow()),
    }
}
