//! What the agents tell the API server, and what the reporter makes of it.
//!
//! ```text
//!   sluice-control on each node ── NodeStatus: policies in force there ──┐
//!                                                                        ▼
//!   sluice-control --report, one in a cluster ◀── watches ──────── API server ──▶ kubectl get policystatuses
//!        └── PolicyStatus: in force on 2/3 nodes; Events on objects that cannot be represented ──▲
//! ```
//!
//! Agents write events too, on pods of their node that policies select and nobody attached.
//!
//! A node writes one object, and only when what concerns it changes, so that five thousand nodes do not write at every
//! change of a policy. Which nodes a policy concerns, the reporter knows by itself: it follows pods and policies as an
//! agent does, so that a policy that no node has heard of yet is never shown as realised. Nothing that is enforced depends on
//! any of this.

mod cluster;
mod crd;
mod events;
mod node;
mod problems;
mod progress;
mod selected;
mod unprotected;

pub(crate) use cluster::report;
pub use crd::definitions;
pub(crate) use progress::Progress;

use crate::view::Views;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_flow::ObjectName;
use sluice_policy::{Objects, Snapshot};
use std::collections::BTreeSet;
use std::fmt::Debug;

/// Who owns the fields that are written.
const FIELD_MANAGER: &str = "sluice";

/// What an agent tells of its node, for ever; ends with the engine.
pub(crate) async fn tell(client: Client, node: String, views: Views) {
    tokio::select! {
        () = node::tell(client.clone(), node.clone(), views.clone()) => {}
        () = unprotected::tell(client, node, views) => {}
    }
}

/// Creates or updates an object and its status by server-side apply. The status is a subresource, which a write of the object
/// leaves alone.
async fn put<K>(api: &Api<K>, object: K) -> kube::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
{
    let (name, parameters) = (object.name_any(), PatchParams::apply(FIELD_MANAGER).force());
    match api.patch_status(&name, &parameters, &Patch::Apply(&object)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            api.patch(&name, &parameters, &Patch::Apply(&object)).await?;
            api.patch_status(&name, &parameters, &Patch::Apply(&object)).await.map(|_| ())
        }
        outcome => outcome.map(|_| ()),
    }
}

/// What tells which policies isolate these pods: their own objects and their namespaces' policies. Cost: that of these,
/// however large the cluster is.
fn around<'p>(all: &Snapshot, pods: impl Iterator<Item = &'p ObjectName> + Clone) -> Snapshot {
    let namespaces: BTreeSet<&str> = pods.clone().map(|pod| pod.namespace.as_str()).collect();
    Snapshot {
        namespaces: all.namespaces.clone(),
        policies: namespaces.iter().flat_map(|namespace| of_namespace(&all.policies, namespace)).collect(),
        pods: pods.filter_map(|name| Some((name.clone(), all.pods.get(name)?.clone()))).collect(),
        ..Snapshot::default()
    }
}

/// The objects of one namespace. Cost: that of these.
fn of_namespace<V>(objects: &Objects<ObjectName, V>, namespace: &str) -> Objects<ObjectName, V> {
    let range = objects.range(ObjectName::new(namespace, "")..).take_while(|(name, _)| name.namespace == namespace);
    range.map(|(name, object)| (name.clone(), object.clone())).collect()
}
