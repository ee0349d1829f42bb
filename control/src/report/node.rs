//! Tells the API server what is in force on this node.
//!
//! Only policies that select a pod of this node are named, so that a change of a policy is told by the nodes that it
//! concerns. What did not change is told again every few minutes, so that a node that fell silent can be seen.

use super::crd::{NodeReport, NodeStatus, NodeStatusSpec, PolicyHere};
use super::{around, put};
use crate::view::{View, Views};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client};
use sluice_flow::Direction;
use sluice_policy::Oracle;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// Between two writes at least.
const PAUSE: Duration = Duration::from_secs(1);
/// What did not change is told again after so long.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(300);
/// After a write that failed.
const RETRY: Duration = Duration::from_secs(10);

/// Tells it for ever; ends with the engine.
pub(super) async fn tell(client: Client, node: String, mut views: Views) {
    let api: Api<NodeStatus> = Api::all(client);
    let mut told: Option<NodeReport> = None;
    let mut again = Instant::now();
    let mut is_well = true;
    loop {
        let view = views.borrow_and_update().clone();
        let report = report(&view);
        // a node that enforces nothing yet has nothing to tell
        let is_news = told.as_ref().is_none_or(|told| !says_the_same(told, &report));
        let is_due = view.table.is_some() && (Instant::now() >= again || is_news);
        if is_due {
            match write(&api, &node, &report).await {
                Ok(()) => {
                    if !std::mem::replace(&mut is_well, true) {
                        tracing::info!(node, "the node's status is told again");
                    }
                    (told, again) = (Some(report), Instant::now() + HEARTBEAT.mul_f64(0.8 + 0.4 * fastrand::f64()));
                }
                Err(error) => {
                    if std::mem::replace(&mut is_well, false) {
                        tracing::warn!(node, %error, "cannot tell the node's status; policy is enforced all the same");
                    }
                    (told, again) = (None, Instant::now() + RETRY.mul_f64(0.5 + fastrand::f64()));
                    sleep(RETRY).await;
                }
            }
        }
        sleep(PAUSE).await;
        // what is due, or a change, whatever comes first
        if let Ok(Err(_)) = timeout_at(again, views.changed()).await {
            return;
        }
    }
}

async fn write(api: &Api<NodeStatus>, node: &str, report: &NodeReport) -> kube::Result<()> {
    let status = NodeReport { observed_at: Some(Time(Timestamp::now())), ..report.clone() };
    put(api, NodeStatus { status: Some(status), ..NodeStatus::new(node, NodeStatusSpec::default()) }).await
}

/// Every change anywhere in the cluster makes another table here, which is no reason to write.
fn says_the_same(told: &NodeReport, report: &NodeReport) -> bool {
    NodeReport { generation: report.generation, ..told.clone() } == *report
}

/// What this state says of the node.
pub(super) fn report(view: &View) -> NodeReport {
    let all = &view.snapshot;
    let local = all.endpoints.iter().filter(|endpoint| all.knows(endpoint));
    let pods: BTreeSet<_> = local.map(|endpoint| &endpoint.pod).collect();
    let here = around(all, pods.iter().copied());
    let oracle = Oracle::new(&here);
    let mut policies: BTreeMap<String, BTreeMap<String, PolicyHere>> = BTreeMap::new();
    for pod in &pods {
        for side in Direction::BOTH.map(|direction| oracle.side(pod, direction)) {
            for name in side.isolating() {
                let Some((policy, _)) = view.realized.get(name) else { continue };
                let here = PolicyHere {
                    uid: policy.metadata.uid.clone().unwrap_or_default(),
                    generation: policy.metadata.generation.unwrap_or_default(),
                };
                policies.entry(name.namespace.clone()).or_default().insert(name.name.clone(), here);
            }
        }
    }
    NodeReport {
        version: view.status.version.clone(),
        generation: i64::try_from(view.status.adopted_generation).unwrap_or(i64::MAX),
        pods: pods.len() as i32,
        policy_count: policies.values().map(BTreeMap::len).sum::<usize>() as i32,
        policies,
        observed_at: None,
    }
}
