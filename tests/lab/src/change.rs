//! Changing a running lab: objects written or removed, pods that follow, and how long it took to be in force.

use crate::agents;
use crate::cni::Chain;
use crate::lab::Lab;
use crate::pods::{Reconciled, Site};
use crate::state::State;
use crate::store::{Document, Kind, ObjectRef, parse_documents, read_documents};
use anyhow::{Context, Result, bail};
use sluice_policy::Snapshot;
use sluice_wire::{ControlStatus, DATAPLANE_SOCKET};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What a change did.
#[derive(Debug)]
pub struct Change {
    /// The objects written or removed.
    pub objects: Vec<ObjectRef>,
    /// From the last file's write to the adoption by all workers; `None` without agents.
    pub in_force_after: Option<Duration>,
    /// The control process afterwards; `None` without agents.
    pub status: Option<ControlStatus>,
    /// Pods that came and went.
    pub pods: Reconciled,
}

impl Lab {
    /// Writes manifests and waits until they are in force; attaches new pods.
    pub fn apply(&self, documents: &[Document]) -> Result<Change> {
        let _lock = self.layout.lock()?;
        let mut state = self.state()?;
        self.check_control(&state)?;
        let store = self.store();
        for document in documents {
            store.put(document)?;
        }
        let written = Instant::now();
        let status = self.settle_if_sluice(&state)?;
        let in_force_after = status.as_ref().map(|_| written.elapsed());
        self.finish_change(state_objects(documents), &mut state, in_force_after, status)
    }

    /// As [`Lab::apply`], from text.
    pub fn apply_yaml(&self, yaml: &str) -> Result<Change> {
        self.apply(&parse_documents(yaml)?)
    }

    /// As [`Lab::apply`], from files and directories.
    pub fn apply_files(&self, paths: &[PathBuf]) -> Result<Change> {
        self.apply(&read_documents(paths)?)
    }

    /// Removes objects and waits until that is in force. A pod's attachment goes before its manifest does, so that
    /// its policies hold to its end. Deleting a namespace deletes what is in it.
    ///
    /// # Errors
    ///
    /// An object is not there; then nothing is removed.
    pub fn delete(&self, objects: &[ObjectRef]) -> Result<Change> {
        let _lock = self.layout.lock()?;
        let mut state = self.state()?;
        self.check_control(&state)?;
        let store = self.store();
        let snapshot = store.snapshot();
        let mut all = Vec::new();
        for object in objects {
            if !is_there(&snapshot, object) {
                bail!("{object} not found");
            }
            match object.kind {
                Kind::Namespace => all.extend(store.in_namespace(&object.name.name)?),
                _ => all.push(object.clone()),
            }
        }
        all.sort_by(|a, b| b.cmp(a));
        all.dedup();
        self.with_site(&state.clone(), &|| Ok(()), &|_| {}, |site| {
            let pods = all.iter().filter(|object| object.kind == Kind::Pod);
            pods.into_iter().try_for_each(|object| site.detach(&mut state, &object.name))
        })?;
        for object in &all {
            store.remove(object)?;
        }
        let written = Instant::now();
        let status = self.settle_if_sluice(&state)?;
        let in_force_after = status.as_ref().map(|_| written.elapsed());
        let mut change = self.finish_change(all.clone(), &mut state, in_force_after, status)?;
        change.pods.detached = all.into_iter().filter(|o| o.kind == Kind::Pod).map(|o| o.name).collect();
        Ok(change)
    }

    /// CNI CHECK of a pod's attachment.
    ///
    /// # Errors
    ///
    /// What a plugin finds missing or changed.
    pub fn check_attachment(&self, pod: &str) -> Result<()> {
        let pod = self.pod(pod)?;
        self.with_site(&self.state()?, &|| Ok(()), &|_| {}, |site| site.check(&pod))
    }

    fn finish_change(
        &self,
        objects: Vec<ObjectRef>,
        state: &mut State,
        in_force_after: Option<Duration>,
        status: Option<ControlStatus>,
    ) -> Result<Change> {
        let pods = self.reconcile(state, &|| Ok(()), &|_| {})?;
        let settled = if pods == Reconciled::default() { None } else { self.settle_if_sluice(state)? };
        Ok(Change { objects, in_force_after, status: settled.or(status), pods })
    }

    /// A change is not begun when nobody would bring it into force.
    fn check_control(&self, state: &State) -> Result<()> {
        if !state.sluice {
            return Ok(());
        }
        agents::control_status(&self.layout).map(|_| ()).context("nothing was changed")
    }

    fn settle_if_sluice(&self, state: &State) -> Result<Option<ControlStatus>> {
        if state.sluice { agents::settle(&self.layout).map(Some) } else { Ok(None) }
    }

    pub(crate) fn reconcile(
        &self,
        state: &mut State,
        check: &(dyn Fn() -> Result<()> + Sync),
        progress: &(dyn Fn(&str) + Sync),
    ) -> Result<Reconciled> {
        self.with_site(&state.clone(), check, progress, |site| site.reconcile(state))
    }

    fn with_site<T>(
        &self,
        state: &State,
        check: &(dyn Fn() -> Result<()> + Sync),
        progress: &(dyn Fn(&str) + Sync),
        work: impl FnOnce(&Site<'_>) -> Result<T>,
    ) -> Result<T> {
        let (layout, store) = (&self.layout, self.store());
        let socket = layout.run_dir().join(DATAPLANE_SOCKET);
        let socket = state.sluice.then_some(socket.as_path());
        let chain = Chain::create(self.node(), &layout.cni(), &layout.ipam(), &state.bin_dir, socket)?;
        work(&Site { layout, chain: &chain, store: &store, check, progress })
    }
}

fn state_objects(documents: &[Document]) -> Vec<ObjectRef> {
    documents.iter().map(|document| document.object.clone()).collect()
}

fn is_there(snapshot: &Snapshot, object: &ObjectRef) -> bool {
    match object.kind {
        Kind::Namespace => snapshot.namespaces.contains_key(&object.name.name),
        Kind::Pod => snapshot.pods.contains_key(&object.name),
        Kind::Service => snapshot.services.contains_key(&object.name),
        Kind::NetworkPolicy => snapshot.policies.contains_key(&object.name),
    }
}
