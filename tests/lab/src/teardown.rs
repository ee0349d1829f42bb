//! Removing a lab, also one that crashed, also one whose state is lost.
//!
//! What a lab leaves on a machine is found twice: by what it wrote down, and by its names. Every step is taken even
//! when an earlier one failed, and running it again is harmless. The order matters: processes first, since they keep
//! namespaces and maps alive; the state last, since without it a second attempt would know less.

use crate::agents::Agent;
use crate::layout::Layout;
use crate::netns::NetNs;
use crate::process::kill_inside;
use crate::state::State;
use anyhow::{Context, Result, bail};
use rustix::mount::{UnmountFlags, unmount};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What was removed.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Removed {
    /// Processes that had to be ended.
    pub processes: usize,
    /// Network namespaces.
    pub namespaces: usize,
    /// Mounts below the state directory.
    pub mounts: usize,
    /// Whether pinned BPF objects were there.
    pub bpf: bool,
    /// Whether there was a state directory.
    pub state: bool,
}

impl Removed {
    /// Nothing was there.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether anything of a lab's recorded processes still runs.
pub(crate) fn is_alive(state: &State) -> bool {
    let agents = state.nodes.values().flat_map(|node| [node.dataplane, node.control]);
    let servers = state.pods.values().map(|pod| pod.server).chain([state.api.as_ref().map(|api| api.process)]);
    agents.chain(servers).flatten().any(|process| process.is_alive())
}

/// Removes everything of the lab. The caller holds its lock.
///
/// # Errors
///
/// What could not be removed; everything else is gone.
pub(crate) fn remove(layout: &Layout) -> Result<Removed> {
    let mut removed = Removed::default();
    let mut errors = Vec::new();
    // A damaged state file must not keep the rest alive: names suffice.
    let state = layout.load().unwrap_or_default();
    let namespaces = match NetNs::with_prefix(&layout.netns_prefix()) {
        Ok(namespaces) => namespaces,
        Err(error) => {
            errors.push(error);
            Vec::new()
        }
    };
    if let Some(state) = &state {
        removed.processes += end_recorded(state);
    }
    removed.processes += kill_inside(&identities(layout, &namespaces));
    for mount in mounts_below(&layout.root).into_iter().rev() {
        match unmount(&mount, UnmountFlags::DETACH).with_context(|| format!("cannot unmount {}", mount.display())) {
            Ok(()) => removed.mounts += 1,
            Err(error) => errors.push(error),
        }
    }
    for namespace in &namespaces {
        match namespace.delete() {
            Ok(()) => removed.namespaces += 1,
            Err(error) => errors.push(error),
        }
    }
    for dir in layout.bpf_dirs() {
        removed.bpf = true;
        errors.extend(remove_dir(&dir).err());
    }
    if errors.is_empty() {
        match remove_dir(&layout.root) {
            Ok(state) => removed.state = state,
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        let errors: Vec<String> = errors.iter().map(|error| format!("{error:#}")).collect();
        bail!("lab {} is not wholly removed:\n{}", layout.name, errors.join("\n"));
    }
    Ok(removed)
}

/// Ends the recorded processes; control first, so that it does not see its dataplane go.
fn end_recorded(state: &State) -> usize {
    let agents = Agent::ALL.into_iter().rev().flat_map(|agent| state.nodes.values().filter_map(move |node| agent.process(node)));
    let servers: Vec<_> = state.pods.values().filter_map(|pod| pod.server).chain(state.api.as_ref().map(|api| api.process)).collect();
    let mut ended = 0;
    for agent in agents {
        if agent.is_alive() {
            Agent::stop(agent);
            ended += 1;
        }
    }
    for server in &servers {
        ended += usize::from(server.signal(rustix::process::Signal::KILL));
    }
    for server in servers {
        if !server.wait_gone(Duration::from_secs(2)) {
            server.kill();
        }
    }
    ended
}

/// All namespaces of the lab, with those that the dataplanes keep for the far ends of their trunks.
fn identities(layout: &Layout, namespaces: &[NetNs]) -> BTreeSet<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let mut identities: BTreeSet<(u64, u64)> = namespaces.iter().filter_map(|ns| ns.identity().ok()).collect();
    let far = mounts_below(&layout.root).into_iter().filter(|mount| mount.ends_with("netns-far"));
    identities.extend(far.filter_map(|far| fs::metadata(far).ok()).map(|meta| (meta.dev(), meta.ino())));
    identities
}

/// Mount points below a directory, outer ones first. Source: proc(5), mountinfo, fifth field.
pub(crate) fn mounts_below(root: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = text.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| point.starts_with(root)).collect()
}

/// True when it was there.
pub(crate) fn remove_dir(path: &Path) -> Result<bool> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
}
