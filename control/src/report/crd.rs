//! What the agents write to the API server: one object for each node, and for each policy one that tells on how many nodes
//! it is in force.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, CustomResourceExt};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Nothing is asked for: these objects only tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "sluice.network",
    version = "v1alpha1",
    kind = "NodeStatus",
    plural = "nodestatuses",
    doc = "What Sluice enforces on a node. Written by the node's agent.",
    status = "NodeReport",
    printcolumn = r#"{"name":"Table","type":"integer","description":"The generation of the table in force when this was written","jsonPath":".status.generation"}"#,
    printcolumn = r#"{"name":"Pods","type":"integer","description":"Pods of this node under policy","jsonPath":".status.pods"}"#,
    printcolumn = r#"{"name":"Policies","type":"integer","description":"Policies in force that select them","jsonPath":".status.policyCount"}"#,
    printcolumn = r#"{"name":"Version","type":"string","jsonPath":".status.version"}"#,
    printcolumn = r#"{"name":"Seen","type":"date","jsonPath":".status.observedAt"}"#
)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeStatusSpec {}

/// A node, as its agent sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct NodeReport {
    /// Of the agent.
    pub(crate) version: String,
    /// Of the table in force when this was written; tables that change nothing for this node's pods are not told.
    pub(crate) generation: i64,
    /// Pods attached to this node.
    pub(crate) pods: i32,
    /// How many policies in force select them.
    pub(crate) policy_count: i32,
    /// Those policies, by namespace and name.
    pub(crate) policies: BTreeMap<String, BTreeMap<String, PolicyHere>>,
    /// When this was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "moment")]
    pub(crate) observed_at: Option<Time>,
}

/// The state of a policy that is in force on a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PolicyHere {
    /// Of the NetworkPolicy.
    pub(crate) uid: String,
    /// Its `metadata.generation`.
    pub(crate) generation: i64,
}

/// Nothing is asked for: these objects only tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "sluice.network",
    version = "v1alpha1",
    kind = "PolicyStatus",
    plural = "policystatuses",
    shortname = "polstat",
    namespaced,
    doc = "On how many nodes the NetworkPolicy of the same name is in force. Written by Sluice's reporter.",
    status = "PolicyReport",
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Nodes","type":"string","description":"In force on so many of the nodes that host selected pods","jsonPath":".status.nodes"}"#,
    printcolumn = r#"{"name":"Generation","type":"integer","description":"Of the NetworkPolicy","jsonPath":".status.observedGeneration"}"#,
    printcolumn = r#"{"name":"Since","type":"date","jsonPath":".status.since"}"#,
    printcolumn = r#"{"name":"Message","type":"string","priority":1,"jsonPath":".status.message"}"#
)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PolicyStatusSpec {}

/// A policy across the cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PolicyReport {
    /// `metadata.generation` of the NetworkPolicy that this is about.
    pub(crate) observed_generation: i64,
    /// How far it is.
    pub(crate) phase: Phase,
    /// Nodes that host pods which it selects.
    pub(crate) desired_nodes: i32,
    /// Those of them on which that generation, or a later one, is in force.
    pub(crate) current_nodes: i32,
    /// Both, as `2/3`.
    pub(crate) nodes: String,
    /// Since when phase and generation are these.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "moment")]
    pub(crate) since: Option<Time>,
    /// What keeps it from being in force everywhere.
    pub(crate) message: String,
}

/// How far a policy is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub(crate) enum Phase {
    /// In force on some of the nodes, or on none yet.
    #[default]
    Realizing,
    /// In force on every node that hosts a pod which it selects.
    Realized,
    /// Its newest state cannot be represented; the last good one stays.
    Refused,
}

/// A time, as the API server writes it down.
fn moment(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time", "nullable": true})
}

/// The definitions, as YAML.
///
/// # Errors
/// Never in a build whose tests pass.
pub fn definitions() -> Result<String, serde_json::Error> {
    // JSON is YAML, and one document each is all that is needed
    let documents = [serde_json::to_string_pretty(&NodeStatus::crd())?, serde_json::to_string_pretty(&PolicyStatus::crd())?];
    Ok(documents.map(|document| format!("---\n{document}\n")).concat())
}
