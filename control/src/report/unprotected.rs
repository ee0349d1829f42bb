//! Pods of this node that a policy selects and that nobody put under policy: they ran before the plugin was in the chain, or
//! were left unmanaged. An event on each says so, where the owner of the pod looks.

use super::around;
use super::events::{Events, Warning};
use crate::identify::stands_on;
use crate::view::{View, Views};
use imbl::ordmap::DiffItem;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::Reporter;
use sluice_flow::{Direction, ObjectName};
use sluice_policy::pod::Pod;
use sluice_policy::{Objects, Oracle, Snapshot};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(5);
/// A pod's object and its attachment come by different ways; so long the one may be ahead of the other.
const GRACE: Duration = Duration::from_secs(10);
/// Events at once, and how soon one more may follow: five thousand nodes may have the same trouble.
const BURST: u32 = 10;
const REFILL: Duration = Duration::from_secs(30);

/// Tells it for ever.
pub(super) async fn tell(client: Client, node: String, views: Views) {
    let reporter = Reporter { controller: "sluice.network/agent".into(), instance: Some(node.clone()) };
    let mut events = Events::new(client, reporter, BURST, REFILL);
    let mut watched = Watched { node, ..Watched::default() };
    loop {
        tokio::time::sleep(LOOK).await;
        let view = views.borrow().clone();
        events.tell(&watched.look(&view, Instant::now())).await;
    }
}

#[derive(Debug, Default)]
struct Watched {
    node: String,
    pods: Objects<ObjectName, Pod>,
    /// Those of `pods` that run here.
    here: BTreeSet<ObjectName>,
    /// Those of `here` that policies select and nobody attached.
    since: BTreeMap<ObjectName, Instant>,
}

impl Watched {
    /// What is to be said now. Cost: that of the pods that changed since the last look, and of the policies of those that
    /// are not attached.
    fn look(&mut self, view: &View, now: Instant) -> Vec<Warning> {
        // without a dataplane, and before it was first heard, who is attached is not known
        if !view.status.dataplane_connected || !view.was_settled {
            self.since.clear();
            return Vec::new();
        }
        self.follow(&view.snapshot.pods);
        let attached: BTreeSet<&ObjectName> = view.snapshot.endpoints.iter().map(|endpoint| &endpoint.pod).collect();
        let outside: Vec<&ObjectName> = self.here.iter().filter(|name| !attached.contains(name)).collect();
        let selected = selecting(&view.snapshot, &outside);
        self.since.retain(|name, _| selected.contains_key(name));
        let mut warnings = Vec::new();
        for (name, policies) in selected {
            let since = *self.since.entry(name.clone()).or_insert(now);
            if now.duration_since(since) >= GRACE {
                warnings.push(self.warning(&name, &policies));
            }
        }
        warnings
    }

    fn follow(&mut self, pods: &Objects<ObjectName, Pod>) {
        for difference in self.pods.diff(pods) {
            match difference {
                DiffItem::Add(name, pod) | DiffItem::Update { new: (name, pod), .. } if runs_on(pod, &self.node) => {
                    self.here.insert(name.clone());
                }
                DiffItem::Add(name, _) | DiffItem::Update { new: (name, _), .. } | DiffItem::Remove(name, _) => {
                    self.here.remove(name);
                }
            }
        }
        self.pods = pods.clone();
    }

    fn warning(&self, pod: &ObjectName, policies: &[String]) -> Warning {
        let uid = self.pods.get(pod).and_then(|pod| pod.metadata.uid.as_deref()).map(str::to_owned);
        let regarding = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(pod.namespace.clone()),
            name: Some(pod.name.clone()),
            uid,
            ..ObjectReference::default()
        };
        let note = format!(
            "not attached on node {}, so the policies that select this pod are not enforced on it: {}. Start it anew; `sluicectl get endpoints` on the node tells more",
            self.node,
            policies.join(", ")
        );
        Warning { regarding, reason: "NotEnforced", note, action: "Attach" }
    }
}

/// Before it runs, the plugin may still be at work.
fn runs_on(pod: &Pod, node: &str) -> bool {
    stands_on(pod, node) && pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

/// The policies that isolate each of these pods; pods that none isolates are left out.
fn selecting(all: &Snapshot, pods: &[&ObjectName]) -> BTreeMap<ObjectName, Vec<String>> {
    if pods.is_empty() {
        return BTreeMap::new();
    }
    let here = around(all, pods.iter().copied());
    let oracle = Oracle::new(&here);
    let isolating = |&pod: &&ObjectName| {
        let sides = Direction::BOTH.map(|direction| oracle.side(pod, direction));
        let policies: BTreeSet<String> = sides.iter().flat_map(|side| side.isolating()).map(ToString::to_string).collect();
        (!policies.is_empty()).then(|| (pod.clone(), policies.into_iter().collect()))
    };
    pods.iter().filter_map(isolating).collect()
}
