//! Changing a running lab: objects written or removed, pods that follow, and how long it took to be in force.

use crate::agents;
use crate::api::Place;
use crate::cni::Chain;
use crate::kubelet::{self, Kubelet};
use crate::lab::Lab;
use crate::layout::ONLY_NODE;
use crate::objects::{Mark, Objects};
use crate::pods::{Reconciled, Site};
use crate::state::State;
use crate::store::{Document, Kind, ObjectRef, in_namespace, parse_documents, read_documents};
use anyhow::{Context, Result, bail};
use serde_json::json;
use sluice_flow::ObjectName;
use sluice_policy::Snapshot;
use sluice_wire::ControlStatus;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What a change did.
#[derive(Debug)]
pub struct Change {
    /// The objects written or removed.
    pub objects: Vec<ObjectRef>,
    /// From the last write to the adoption by all workers of all nodes; `None` without agents.
    pub in_force_after: Option<Duration>,
    /// Each node's part of that.
    pub on_nodes: BTreeMap<String, Duration>,
    /// The control process afterwards, of the first node; `None` without agents.
    pub status: Option<ControlStatus>,
    /// Pods that came and went.
    pub pods: Reconciled,
}

/// When a change was in force, by node, and what its control process says.
pub(crate) type Settled = BTreeMap<String, (Duration, ControlStatus)>;

/// How patiently to work on pods.
pub(crate) struct SiteOptions<'a> {
    /// Fails once the user wants to stop.
    pub(crate) check: &'a (dyn Fn() -> Result<()> + Sync),
    /// Told what is being done.
    pub(crate) progress: &'a (dyn Fn(&str) + Sync),
}

impl Default for SiteOptions<'_> {
    /// To the end, and silently.
    fn default() -> Self {
        Self { check: &|| Ok(()), progress: &|_| {} }
    }
}

impl Lab {
    /// Writes objects and waits until they are in force; attaches new pods.
    pub fn apply(&self, documents: &[Document]) -> Result<Change> {
        let _lock = self.layout.lock()?;
        let mut state = self.state()?;
        self.check_control(&state)?;
        self.objects(&state)?.put(documents)?;
        let settled = self.settle_all(&state)?;
        self.finish_change(state_objects(documents), &mut state, settled)
    }

    /// As [`Lab::apply`], from text.
    pub fn apply_yaml(&self, yaml: &str) -> Result<Change> {
        self.apply(&parse_documents(yaml)?)
    }

    /// As [`Lab::apply`], from files and directories.
    pub fn apply_files(&self, paths: &[PathBuf]) -> Result<Change> {
        self.apply(&read_documents(paths)?)
    }

    /// Writes objects and waits for nothing: whoever is there to hear of them will.
    pub fn write(&self, documents: &[Document]) -> Result<()> {
        let _lock = self.layout.lock()?;
        self.objects(&self.state()?)?.put(documents)
    }

    /// Removes an object that is no pod and waits for nothing.
    pub fn erase(&self, object: &ObjectRef) -> Result<()> {
        let _lock = self.layout.lock()?;
        self.objects(&self.state()?)?.remove(object)
    }

    /// Removes objects and waits until that is in force. A pod's attachment goes before its object does, so that
    /// its policies hold to its end. Deleting a namespace deletes what is in it.
    ///
    /// # Errors
    ///
    /// An object is not there; then nothing is removed.
    pub fn delete(&self, objects: &[ObjectRef]) -> Result<Change> {
        let _lock = self.layout.lock()?;
        let mut state = self.state()?;
        self.check_control(&state)?;
        let source = self.objects(&state)?;
        let all = with_content(&source.snapshot()?, objects)?;
        self.with_site(&state.clone(), SiteOptions::default(), |site| {
            for pod in all.iter().filter(|object| object.kind == Kind::Pod) {
                source.begin_removal(&pod.name)?;
                site.detach(&mut state, &pod.name)?;
            }
            Ok(())
        })?;
        all.iter().try_for_each(|object| source.remove(object))?;
        let settled = self.settle_all(&state)?;
        let mut change = self.finish_change(all.clone(), &mut state, settled)?;
        change.pods.detached = all.into_iter().filter(|o| o.kind == Kind::Pod).map(|o| o.name).collect();
        Ok(change)
    }

    /// Takes a pod's sandbox away, whatever its object says: the first half of what [`Lab::delete`] does to a pod, or the
    /// second one, when the object was erased before.
    pub fn take_sandbox(&self, pod: &str) -> Result<()> {
        let _lock = self.layout.lock()?;
        let mut state = self.state()?;
        let pod = ObjectName::parse(pod);
        self.with_site(&state.clone(), SiteOptions::default(), |site| site.detach(&mut state, &pod))
    }

    /// Writes a pod's phase, as the kubelet does when its containers have ended. Its sandbox stays until the next change.
    ///
    /// # Errors
    ///
    /// No such pod; a lab without an API server.
    pub fn set_phase(&self, pod: &str, phase: &str) -> Result<()> {
        self.api()?.patch_status(&Place::pod(&ObjectName::parse(pod)), &json!({ "phase": phase })).map(|_| ())
    }

    /// CNI CHECK of a pod's attachment.
    ///
    /// # Errors
    ///
    /// What a plugin finds missing or changed.
    pub fn check_attachment(&self, pod: &str) -> Result<()> {
        let pod = self.pod(pod)?;
        self.with_site(&self.state()?, SiteOptions::default(), |site| site.check(&pod))
    }

    /// The plugins of a node, for a test that plays the container runtime itself.
    pub fn chain(&self, node: &str) -> Result<Chain> {
        let state = self.state()?;
        Chain::create(&self.at(node), state.node(node)?, &state.bin_dir, state.sluice)
    }

    /// Waits until everything written so far is in force on every node; returns what the first one's control process says.
    pub fn settle(&self) -> Result<ControlStatus> {
        let settled = self.settle_all(&self.state()?)?;
        settled.into_values().next().map(|(_, status)| status).context("the lab has no agents")
    }

    fn finish_change(&self, objects: Vec<ObjectRef>, state: &mut State, settled: Settled) -> Result<Change> {
        let on_nodes: BTreeMap<String, Duration> = settled.iter().map(|(node, (after, _))| (node.clone(), *after)).collect();
        let pods = self.reconcile(state, &|| Ok(()), &|_| {})?;
        let settled = if pods == Reconciled::default() { settled } else { self.settle_all(state)? };
        let status = settled.into_values().next().map(|(_, status)| status);
        Ok(Change { objects, in_force_after: on_nodes.values().max().copied(), on_nodes, status, pods })
    }

    /// A change is not begun when nobody would bring it into force.
    fn check_control(&self, state: &State) -> Result<()> {
        let mut nodes = state.nodes.keys().filter(|_| state.sluice);
        nodes.try_for_each(|node| agents::control_status(&self.at(node)).map(|_| ()).context("nothing was changed"))
    }

    /// Waits on all nodes at once; on none without agents.
    pub(crate) fn settle_all(&self, state: &State) -> Result<Settled> {
        if !state.sluice {
            return Ok(Settled::new());
        }
        let written = Instant::now();
        let mark = self.mark(state)?;
        let on_node = |node: &str, mark: &Mark| -> Result<(String, (Duration, ControlStatus))> {
            let status = agents::settle_up_to(&self.at(node), mark);
            let status = if node == ONLY_NODE { status? } else { status.with_context(|| node.to_owned())? };
            Ok((node.to_owned(), (written.elapsed(), status)))
        };
        std::thread::scope(|scope| {
            let waits: Vec<_> = state.nodes.keys().map(|node| scope.spawn(|| on_node(node, &mark))).collect();
            waits.into_iter().map(|wait| wait.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        })
    }

    pub(crate) fn reconcile(
        &self,
        state: &mut State,
        check: &(dyn Fn() -> Result<()> + Sync),
        progress: &(dyn Fn(&str) + Sync),
    ) -> Result<Reconciled> {
        let objects = self.objects(state)?;
        let mut snapshot = objects.snapshot()?;
        if let Objects::Server(api) = &objects
            && kubelet::schedule(api, &snapshot, state)?
        {
            snapshot = objects.snapshot()?;
        }
        self.with_site(&state.clone(), SiteOptions { check, progress }, |site| site.reconcile(state, &snapshot))
    }

    pub(crate) fn with_site<T>(&self, state: &State, options: SiteOptions<'_>, work: impl FnOnce(&Site<'_>) -> Result<T>) -> Result<T> {
        let chain = |(name, node)| Ok((String::clone(name), Chain::create(&self.at(name), node, &state.bin_dir, state.sluice)?));
        let chains = state.nodes.iter().map(chain).collect::<Result<BTreeMap<_, _>>>()?;
        let kubelet = match &state.api {
            Some(api) => Some(Kubelet { api: self.api()?, status_delay: Duration::from_millis(api.status_delay_ms) }),
            None => None,
        };
        work(&Site { layout: &self.layout, chains: &chains, kubelet, check: options.check, progress: options.progress })
    }
}

fn state_objects(documents: &[Document]) -> Vec<ObjectRef> {
    documents.iter().map(|document| document.object.clone()).collect()
}

/// The objects, and everything in those of them that are namespaces; in the order in which they go.
fn with_content(snapshot: &Snapshot, objects: &[ObjectRef]) -> Result<Vec<ObjectRef>> {
    let mut all = Vec::new();
    for object in objects {
        if !is_there(snapshot, object) {
            bail!("{object} not found");
        }
        match object.kind {
            Kind::Namespace => all.extend(in_namespace(snapshot, &object.name.name)),
            _ => all.push(object.clone()),
        }
    }
    all.sort_by(|a, b| b.cmp(a));
    all.dedup();
    Ok(all)
}

fn is_there(snapshot: &Snapshot, object: &ObjectRef) -> bool {
    match object.kind {
        Kind::Namespace => snapshot.namespaces.contains_key(&object.name.name),
        Kind::Pod => snapshot.pods.contains_key(&object.name),
        Kind::Service => snapshot.services.contains_key(&object.name),
        Kind::NetworkPolicy => snapshot.policies.contains_key(&object.name),
    }
}
