//! `diff`: which pairs change their verdict between two states of manifests, and what is responsible.

use crate::Ending;
use crate::analysis::{Selection, families_text, listed, notes, progress, title};
use crate::arguments::Form;
use crate::matrix::{EndReport, RangeReport};
use crate::output::{count, json};
use anyhow::{Result, bail};
use clap::Args;
use owo_colors::OwoColorize;
use serde::Serialize;
use sluice_flow::Direction;
use sluice_policy::reach::{Change, Comparison, Families, PairChange, Reason, Sort, Standing, State, compare};
use std::io::Write;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct Request {
    /// A state: files or directories, separated by commas. Given twice: before, then after.
    #[arg(short = 'f', long = "filename", value_name = "PATH[,PATH]", required = true)]
    states: Vec<String>,
    #[command(flatten)]
    selection: Selection,
}

pub(crate) fn run(request: &Request, form: Form, out: &mut dyn Write) -> Result<Ending> {
    let [before, after] = &request.states[..] else {
        bail!("two states are compared, -f BEFORE -f AFTER; {} given (several paths of one state: -f a.yaml,b.yaml)", request.states.len());
    };
    let paths = |state: &str| state.split(',').map(PathBuf::from).collect::<Vec<_>>();
    let (before, after) = (request.selection.load_any(&paths(before))?, request.selection.load_any(&paths(after))?);
    if before.loaded.snapshot.pods.is_empty() && after.loaded.snapshot.pods.is_empty() {
        bail!("neither state has a pod or a workload, so there is nobody to reach anybody");
    }
    let comparison = compare(State::of(&before), State::of(&after), &request.selection.options(), progress())?;
    match form {
        Form::Json => json(out, &report(&comparison))?,
        Form::Table => print(&comparison, out)?,
    }
    Ok(if comparison.is_equal() { Ending::Ok } else { Ending::No })
}

fn print(comparison: &Comparison, out: &mut dyn Write) -> Result<()> {
    for (sort, heading) in [(Sort::NewlyAllowed, "Newly allowed"), (Sort::NewlyDenied, "Newly denied"), (Sort::OtherPorts, "Other ports")] {
        let pairs: Vec<&PairChange> = comparison.pairs.iter().filter(|pair| pair.sort == sort).collect();
        if !pairs.is_empty() {
            writeln!(out, "{} ({})", heading.bold(), pairs.len())?;
            pairs.iter().try_for_each(|pair| print_pair(comparison, pair, out))?;
            writeln!(out)?;
        }
    }
    let ends = &comparison.survey.ends;
    for (state, sign, heading) in [(0, "-", "Only before"), (1, "+", "Only after")] {
        let names: Vec<String> = comparison.only_in(state).map(|index| title(&ends[index])).collect();
        if !names.is_empty() {
            writeln!(out, "{} ({})", heading.bold(), names.len())?;
            names.iter().try_for_each(|name| writeln!(out, "  {sign} {name}"))?;
            writeln!(out)?;
        }
    }
    let compared = count(comparison.compared as u64, "pair", "pairs");
    match comparison.pairs.len() {
        0 => writeln!(out, "No verdict changes ({compared} compared on every port)")?,
        changed => writeln!(out, "{changed} of {compared} change")?,
    }
    for note in notes(&comparison.survey) {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}

fn print_pair(comparison: &Comparison, pair: &PairChange, out: &mut dyn Write) -> Result<()> {
    let ends = &comparison.survey.ends;
    for change in &pair.changes {
        let family = if change.families == Families::Both { "" } else { families_text(change.families) };
        let gap = if family.is_empty() { "" } else { "  " };
        let line = format!("{} → {}  {}{gap}{family}", title(&ends[pair.from]), title(&ends[pair.to]), change.ports);
        let line = if change.allowed { format!("+ {line}").green().to_string() } else { format!("- {line}").red().to_string() };
        writeln!(out, "  {line}")?;
        for reason in &change.reasons {
            writeln!(out, "      {}", reason_text(change, reason))?;
        }
        if change.reasons.is_empty() {
            writeln!(out, "      the ends share {family} {}", if change.allowed { "now" } else { "no more" })?;
        }
    }
    Ok(())
}

/// `ingress: allowed now by shop/web ingress[0]; before: isolated by shop/deny, no rule allowed`
fn reason_text(change: &Change, reason: &Reason) -> String {
    let verdict = if change.allowed { "allowed" } else { "denied" };
    format!("{}: {verdict} now{}; before: {}", reason.direction, standing_now(&reason.after), standing_before(&reason.before))
}

fn standing_now(standing: &Standing) -> String {
    match standing {
        Standing::NotIsolated => ", no policy isolates it any more".to_owned(),
        Standing::Allowed(rule) => format!(" by {rule}"),
        Standing::Denied(policies) => format!(", isolated by {} and no rule allows", names(policies)),
    }
}

fn standing_before(standing: &Standing) -> String {
    match standing {
        Standing::NotIsolated => "not isolated".to_owned(),
        Standing::Allowed(rule) => format!("allowed by {rule}"),
        Standing::Denied(policies) => format!("isolated by {}, no rule allowed", names(policies)),
    }
}

fn names(policies: &[sluice_flow::ObjectName]) -> String {
    listed(&policies.iter().map(ToString::to_string).collect::<Vec<_>>())
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    changed: bool,
    pairs_compared: usize,
    pairs: Vec<PairReport<'a>>,
    only_before: Vec<EndReport<'a>>,
    only_after: Vec<EndReport<'a>>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PairReport<'a> {
    from: &'a str,
    to: &'a str,
    change: &'static str,
    changes: Vec<ChangeReport>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ChangeReport {
    allowed: bool,
    families: &'static str,
    ports: String,
    ranges: Vec<RangeReport>,
    reasons: Vec<ReasonReport>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReasonReport {
    direction: Direction,
    before: StandingReport,
    after: StandingReport,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct StandingReport {
    allowed: bool,
    rule: Option<String>,
    isolating: Vec<String>,
}

fn report(comparison: &Comparison) -> Report<'_> {
    let ends = &comparison.survey.ends;
    let only = |state| comparison.only_in(state).map(|index| EndReport::of(&ends[index])).collect();
    let pair = |pair: &PairChange| PairReport {
        from: &ends[pair.from].name,
        to: &ends[pair.to].name,
        change: match pair.sort {
            Sort::NewlyAllowed => "newlyAllowed",
            Sort::NewlyDenied => "newlyDenied",
            Sort::OtherPorts => "otherPorts",
        },
        changes: pair.changes.iter().map(ChangeReport::of).collect(),
    };
    Report {
        changed: !comparison.is_equal(),
        pairs_compared: comparison.compared,
        pairs: comparison.pairs.iter().map(pair).collect(),
        only_before: only(0),
        only_after: only(1),
        notes: notes(&comparison.survey),
    }
}

impl ChangeReport {
    fn of(change: &Change) -> Self {
        let reason = |reason: &Reason| ReasonReport {
            direction: reason.direction,
            before: StandingReport::of(&reason.before),
            after: StandingReport::of(&reason.after),
        };
        Self {
            allowed: change.allowed,
            families: families_text(change.families),
            ports: change.ports.to_string(),
            ranges: RangeReport::all(&change.ports),
            reasons: change.reasons.iter().map(reason).collect(),
        }
    }
}

impl StandingReport {
    fn of(standing: &Standing) -> Self {
        match standing {
            Standing::NotIsolated => Self { allowed: true, ..Self::default() },
            Standing::Allowed(rule) => Self { allowed: true, rule: Some(rule.to_string()), ..Self::default() },
            Standing::Denied(policies) => Self { isolating: policies.iter().map(ToString::to_string).collect(), ..Self::default() },
        }
    }
}
