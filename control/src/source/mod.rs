//! Where objects come from: a directory of manifests, or an API server.
//!
//! Either reads on tasks or threads of its own and sends whole [`Reading`]s to the engine: what is in force of all it knows.
//! Nothing is sent as known before everything was read once, because unknown is not the same as absent.

pub(crate) mod cluster;
pub(crate) mod directory;
pub(crate) mod places;
mod truncation;

use crate::realized::Wanted;
use places::Places;
use sluice_flow::ObjectName;
use sluice_policy::Snapshot;
use sluice_wire::{ManifestProblem, WatchStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// What the source says.
#[derive(Debug, Default)]
pub(crate) struct Manifests {
    pub(crate) snapshot: Snapshot,
    /// Empty where objects come from a directory.
    pub(crate) places: Places,
    pub(crate) problems: Vec<ManifestProblem>,
    /// Where each policy in force was read, if it was a file.
    pub(crate) policy_files: BTreeMap<ObjectName, String>,
}

/// One reading of the source.
#[derive(Debug)]
pub(crate) struct Reading {
    /// Counts readings.
    pub(crate) sequence: u64,
    /// When the change was first noticed.
    pub(crate) changed_at: Instant,
    /// False until everything could be read once: before that nothing is known, which is not the same as nothing.
    pub(crate) is_complete: bool,
    /// What is in force of it, last good states included.
    pub(crate) manifests: Arc<Manifests>,
    /// One for each kind that is watched at an API server.
    pub(crate) watches: Vec<Watch>,
}

/// How the watch of one kind at an API server is.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    pub(crate) resource: &'static str,
    /// Whether verdicts depend on it.
    pub(crate) is_needed: bool,
    /// Those in force, or listed so far.
    pub(crate) objects: usize,
    pub(crate) is_listed: bool,
    /// How often all of it was listed.
    pub(crate) lists: u64,
    /// Up to which everything was told; empty before the first list.
    pub(crate) version: String,
    /// When the server said anything last, be it that nothing is new.
    pub(crate) heard: Instant,
    /// Why it is broken, and since when.
    pub(crate) trouble: Option<(String, Instant)>,
}

impl Watch {
    /// At this moment.
    pub(crate) fn status(&self) -> WatchStatus {
        let (trouble, since) = self.trouble.clone().unzip();
        WatchStatus {
            resource: self.resource.to_owned(),
            objects: self.objects as u64,
            listed: self.is_listed,
            lists: self.lists,
            version: self.version.clone(),
            heard_s: self.heard.elapsed().as_secs(),
            trouble,
            trouble_s: since.map_or(0, |since| since.elapsed().as_secs()),
        }
    }
}

/// Asks the source to read at once.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Directory(directory::Handle),
    Cluster(cluster::Handle),
}

impl Source {
    /// Reads at once, or takes in what has arrived; returns the sequence number of that reading, whose [`Reading`] is on its
    /// way by then. `None` when the source has ended. Blocks.
    pub(crate) fn read_now(&self) -> Option<u64> {
        match self {
            Self::Directory(handle) => handle.read_now(),
            Self::Cluster(handle) => handle.read_now(),
        }
    }

    /// Which state of a policy its source holds now, as far as it says.
    pub(crate) async fn newest(&self, policy: &ObjectName) -> Option<Wanted> {
        match self {
            // what was read is what it holds
            Self::Directory(_) => None,
            Self::Cluster(handle) => handle.newest(policy).await,
        }
    }
}

/// Logs problems when they appear and when they are gone, not at every reading.
pub(crate) fn log_problems(before: &[ManifestProblem], after: &[ManifestProblem]) {
    let key = |p: &ManifestProblem| (p.file.clone(), p.object.clone(), p.field.clone(), p.message.clone());
    let known: BTreeSet<_> = before.iter().map(key).collect();
    let left: BTreeSet<_> = after.iter().map(key).collect();
    for p in after.iter().filter(|p| !known.contains(&key(p))) {
        let object = p.object.as_deref().unwrap_or("");
        tracing::warn!(
            file = p.file,
            line = p.line,
            object,
            field = p.field,
            reason = p.message,
            in_force = p.in_force,
            "manifest refused"
        );
    }
    for p in before.iter().filter(|p| !left.contains(&key(p))) {
        tracing::info!(file = p.file, object = p.object.as_deref().unwrap_or(""), reason = p.message, "manifest problem gone");
    }
}
