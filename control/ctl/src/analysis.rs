//! What `matrix` and `diff` have in common: manifests in, whole or not at all, and what a reader must know of the answer.

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use owo_colors::OwoColorize;
use sluice_flow::ObjectName;
use sluice_policy::load::{ClusterManifests, load_cluster_paths};
use sluice_policy::reach::{Assumption, EndKind, Grouping, Options, Ports, Survey, Way};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Work that takes longer shows its progress on a terminal.
const PATIENCE: Duration = Duration::from_millis(700);

/// Names listed in a note before it says how many more there are.
const LISTED_MAX: usize = 3;

#[derive(Debug, Args)]
pub(crate) struct Selection {
    /// Only pairs with an end in this namespace; may be repeated.
    #[arg(short, long = "namespace", value_name = "NS")]
    namespaces: Vec<String>,
    /// Only pairs with this pod or workload at an end; may be repeated.
    #[arg(long = "pod", value_name = "NS/NAME", value_parser = crate::arguments::pod)]
    pods: Vec<ObjectName>,
    /// Leave out what is not chosen: only pairs among the chosen ones, and with the outside.
    #[arg(long)]
    inside: bool,
    /// What shares a row.
    #[arg(long, value_enum, default_value = "auto", value_name = "WHAT")]
    by: By,
    /// Where pods live that have no address in the manifests; may be repeated. Without it they are assumed to be outside
    /// of every ipBlock that leaves room outside.
    #[arg(long = "pod-cidr", value_name = "CIDR", value_parser = cidr)]
    pod_cidrs: Vec<ipnet::IpNet>,
    /// Go on without the objects that have problems. The answer is then about other policies than the manifests mean.
    #[arg(long)]
    ignore_errors: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    /// Workloads while there are few, then classes.
    Auto,
    /// Pods of one workload that no policy can tell apart.
    Workload,
    /// All pods of a namespace that no policy can tell apart.
    Class,
}

pub(crate) fn cidr(text: &str) -> Result<ipnet::IpNet, String> {
    text.parse().map_err(|_| format!("{text:?} is no CIDR such as 10.244.0.0/16"))
}

impl Selection {
    pub(crate) fn options(&self) -> Options {
        let grouping = match self.by {
            By::Auto => Grouping::Auto,
            By::Workload => Grouping::Workload,
            By::Class => Grouping::Class,
        };
        Options {
            grouping,
            pod_cidrs: self.pod_cidrs.clone(),
            namespaces: self.namespaces.clone(),
            pods: self.pods.clone(),
            inside: self.inside,
        }
    }

    /// Reads one state. Half of a set of policies would make a picture that misleads, so problems end it.
    pub(crate) fn load(&self, paths: &[PathBuf]) -> Result<ClusterManifests> {
        let cluster = self.load_any(paths)?;
        if cluster.loaded.snapshot.pods.is_empty() {
            let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            bail!("there is no pod and no workload in {}, so nobody to reach anybody", paths.join(", "));
        }
        Ok(cluster)
    }

    /// The same, for a state that may be empty.
    pub(crate) fn load_any(&self, paths: &[PathBuf]) -> Result<ClusterManifests> {
        let cluster = load_cluster_paths(paths);
        let errors: Vec<String> = cluster.loaded.errors.iter().map(ToString::to_string).collect();
        match errors.is_empty() {
            true => {}
            false if self.ignore_errors => {
                let title = "warning:".yellow().bold().to_string();
                writeln!(anstream::stderr(), "{title} judged without what has problems:\n{}\n", errors.join("\n"))?;
            }
            false => bail!("the manifests have problems (--ignore-errors goes on without these objects):\n{}", errors.join("\n")),
        }
        Ok(cluster)
    }
}

/// Tells a terminal how far the work is, if it takes its time.
pub(crate) fn progress() -> impl FnMut(u64, u64) {
    let started = Instant::now();
    let (is_terminal, mut shown) = (std::io::stderr().is_terminal(), None);
    move |done, total| {
        let percent = done * 100 / total.max(1);
        let is_late = is_terminal && started.elapsed() > PATIENCE && shown != Some(percent);
        if is_late || (shown.is_some() && done == total) {
            shown = Some(percent);
            let end = if done == total { "\r\u{1b}[K" } else { "" };
            let _ = write!(std::io::stderr(), "\rjudging {total} pairs: {percent} %{end}");
        }
    }
}

/// Where pods without an address were taken to be; `None` where every pod has one.
pub(crate) fn assumed(assumption: &Assumption) -> Option<String> {
    let pods = match assumption.pods {
        0 => return None,
        1 => "1 pod or template has".to_owned(),
        more => format!("{more} pods or templates have"),
    };
    let place = match (&assumption.inside[..], assumption.is_stated) {
        ([], true) => "as --pod-cidr says, outside of every ipBlock".to_owned(),
        ([], false) => "assumed outside of every ipBlock; --pod-cidr says where they are".to_owned(),
        (blocks, true) => format!("as --pod-cidr says, inside {}", listed(blocks)),
        (blocks, false) => format!("assumed inside {} only; --pod-cidr says where they are", listed(blocks)),
    };
    Some(format!("{pods} no address in the manifests: {place}"))
}

/// What a reader must know to read the answer right.
pub(crate) fn notes(survey: &Survey) -> Vec<String> {
    let mut notes: Vec<String> = assumed(&survey.assumption).into_iter().collect();
    if !survey.host_network.is_empty() {
        let pods: Vec<String> = survey.host_network.iter().map(ToString::to_string).collect();
        let verb = if pods.len() == 1 {
            "uses its node's network: an address like others, which no policy selects"
        } else {
            "use their node's network: addresses like others, which no policy selects"
        };
        notes.push(format!("{} {verb}", listed(&pods)));
    }
    if survey.by_class {
        notes.push("a row is all pods of a namespace that no policy can tell apart; --by workload shows each workload".to_owned());
    }
    notes
}

pub(crate) fn listed(names: &[String]) -> String {
    match names.len().saturating_sub(LISTED_MAX) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names[..LISTED_MAX].join(", ")),
    }
}

/// `shop/web (3 pods)`: the name with how many it stands for.
pub(crate) fn title(end: &sluice_policy::reach::End) -> String {
    match &end.kind {
        EndKind::Pods { pods, .. } if pods.len() > 1 => format!("{} ({} pods)", end.name, pods.len()),
        _ => end.name.clone(),
    }
}

/// How much of a pair is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Openness {
    /// Every port in every family that the ends share.
    Open,
    /// Some ports.
    Some,
    /// No port.
    Closed,
}

impl Openness {
    pub(crate) fn of(ways: &[Way]) -> Self {
        if ways.iter().all(|way| way.allowed.is_empty()) {
            Self::Closed
        } else if ways.iter().all(|way| way.allowed.is_all()) {
            Self::Open
        } else {
            Self::Some
        }
    }
}

/// Ports of a pair in words, family by family where they differ.
pub(crate) fn ports_text(ways: &[Way], words: impl Fn(&Ports) -> String) -> String {
    match ways {
        [] => "no shared address family".to_owned(),
        [way] => words(&way.allowed),
        ways => {
            let text = |way: &Way| format!("{}: {}", families_text(way.families), words(&way.allowed));
            ways.iter().map(text).collect::<Vec<_>>().join(", ")
        }
    }
}

pub(crate) fn families_text(families: sluice_policy::reach::Families) -> &'static str {
    use sluice_policy::reach::Families;
    match families {
        Families::V4 => "IPv4",
        Families::V6 => "IPv6",
        Families::Both => "IPv4 and IPv6",
    }
}
