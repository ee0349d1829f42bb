//! What the reports of all benches share: promises and what became of them, the machine, where the report goes.

use crate::environment::Environment;
use anyhow::{Context, Result};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Every must was met, or nobody asked.
    Held,
    /// One was not, under `--check`.
    MustMissed,
    /// The user did not want to wait.
    Interrupted,
}

/// On which side of its bounds a good figure lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Bound {
    /// More is better.
    AtLeast,
    /// Less is better.
    AtMost,
}

impl Bound {
    /// `≥` or `≤`.
    pub(crate) fn sign(self) -> char {
        match self {
            Self::AtLeast => '≥',
            Self::AtMost => '≤',
        }
    }

    fn holds(self, measured: f64, limit: f64) -> bool {
        match self {
            Self::AtLeast => measured >= limit,
            Self::AtMost => measured <= limit,
        }
    }
}

/// A promise about a figure.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Promise {
    /// Which side is good.
    pub(crate) bound: Bound,
    /// Beyond it is a failure.
    pub(crate) must: f64,
    /// What we want.
    pub(crate) aim: f64,
}

/// A promise and what became of it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Must {
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) promise: Promise,
    pub(crate) measured: f64,
    pub(crate) must_met: bool,
    pub(crate) aim_met: bool,
    /// The 95 % interval is wider than the distance to the must: nothing was shown, so the must is not met.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) not_measurable: bool,
}

impl Must {
    pub(crate) fn of(name: &str, promise: Promise, measured: f64) -> Self {
        let met = |limit| promise.bound.holds(measured, limit);
        let (must_met, aim_met) = (met(promise.must), met(promise.aim));
        Self { name: name.to_owned(), promise, measured, must_met, aim_met, not_measurable: false }
    }

    /// The same of a median whose 95 % interval is this wide.
    pub(crate) fn within(self, interval: f64) -> Self {
        match interval > (self.measured - self.promise.must).abs() {
            true => Self { must_met: false, aim_met: false, not_measurable: true, ..self },
            false => self,
        }
    }

    /// In the words of the table's last column.
    pub(crate) fn result(&self) -> &'static str {
        match (self.must_met, self.aim_met) {
            _ if self.not_measurable => "not measurable here",
            (true, true) => "must and aim met",
            (true, false) => "must met, aim missed",
            (false, _) => "MUST MISSED",
        }
    }

    /// Every promise that was measured is kept, and one was.
    pub(crate) fn all_hold(musts: &[Self]) -> bool {
        !musts.is_empty() && musts.iter().all(|must| must.must_met)
    }
}

/// Where the JSON goes, and whether a missed must is a failure.
#[derive(Debug)]
pub(crate) struct Destination {
    out: Option<PathBuf>,
    check: bool,
}

impl Destination {
    /// The environment variables `OUT` and `CHECK` stand for options that were not given.
    ///
    /// # Errors
    ///
    /// The file cannot be written: said now, and not after minutes.
    pub(crate) fn new(out: Option<&PathBuf>, check: bool) -> Result<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let out = out.cloned().or_else(|| set("OUT").map(PathBuf::from));
        let check = check || set("CHECK").is_some_and(|value| value != "0");
        if let Some(out) = &out {
            std::fs::OpenOptions::new().create(true).append(true).open(out).with_context(|| format!("cannot write {}", out.display()))?;
        }
        Ok(Self { out, check })
    }

    /// Writes the report and says how the run ended.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(crate) fn finish(&self, report: &impl Serialize, musts_hold: bool) -> Result<Outcome> {
        if let Some(out) = &self.out {
            let text = serde_json::to_string_pretty(report).context("the report as JSON")? + "\n";
            std::fs::write(out, text).with_context(|| format!("cannot write {}", out.display()))?;
            println!("written to {}", out.display());
        }
        Ok(if self.check && !musts_hold { Outcome::MustMissed } else { Outcome::Held })
    }
}

/// The promises, as every bench ends.
pub(crate) fn print_musts(bench: &str, musts: &[Must]) {
    println!("\n{bench:<58}{:>10}{:>10}{:>12}   result", "must", "aim", "measured");
    for must in musts {
        let Promise { bound, must: limit, aim } = must.promise;
        let bounded = |limit: f64| format!("{} {limit}", bound.sign());
        let measured = if must.measured.is_finite() { format!("{:.3}", must.measured) } else { "–".to_owned() };
        let beside = if must.measured.is_finite() { "" } else { "; not measured" };
        println!("{:<58}{:>10}{:>10}{measured:>12}   {}{beside}", must.name, bounded(limit), bounded(aim), must.result());
    }
    if musts.is_empty() {
        println!("no promise is about what was measured");
    }
}

/// The two lines about the machine below a table.
pub(crate) fn print_environment(environment: &Environment, quick: bool, took: Duration) {
    println!(
        "\n{}, {} cores, {}; commit {}, {} build{}{}\n\
         load {} before, {} after; others' CPU time {:.0} % before, {:.0} % after; steal {:.1} %; {:.0} s",
        environment.cpu_model,
        environment.cores,
        environment.kernel,
        environment.commit,
        environment.build,
        if quick { ", quick" } else { "" },
        environment.iperf3.as_ref().map(|version| format!("; {version}")).unwrap_or_default(),
        environment.load_before,
        environment.load_after,
        environment.others_before_percent,
        environment.others_after_percent,
        environment.steal_percent,
        took.as_secs_f64(),
    );
}

/// Says what makes the figures doubtful, before they are measured.
pub(crate) fn print_doubts(environment: &Environment) {
    if environment.build == "debug" {
        println!("note: this is a debug build; its figures do not count");
    }
    if environment.is_busy() {
        println!("note: others use {:.0} % of this machine's CPU time; expect noise", environment.others_before_percent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_interval_cannot_show_is_not_passed() {
        let promise = Promise { bound: Bound::AtLeast, must: 0.95, aim: 1.0 };
        for (measured, interval, met) in [(0.98, 0.02, true), (0.98, 0.04, false), (0.9, 0.01, false)] {
            let must = Must::of("figure", promise, measured).within(interval);
            assert_eq!((must.must_met, must.not_measurable), (met, interval > 0.03), "{must:?}");
        }
    }

    #[test]
    fn a_promise_is_judged_on_its_side() {
        for (bound, measured, must_met, aim_met) in [
            (Bound::AtMost, 1.0, true, true),
            (Bound::AtMost, 4.0, true, false),
            (Bound::AtMost, 8.1, false, false),
            (Bound::AtLeast, 1.0, false, false),
            (Bound::AtLeast, 8.0, true, true),
        ] {
            let (must, aim) = if bound == Bound::AtMost { (8.0, 2.0) } else { (2.0, 8.0) };
            let judged = Must::of("figure", Promise { bound, must, aim }, measured);
            assert_eq!((judged.must_met, judged.aim_met), (must_met, aim_met), "{judged:?}");
            assert_eq!(Must::all_hold(&[judged]), must_met);
        }
        assert!(!Must::all_hold(&[]), "nothing measured is nothing held");
    }
}
