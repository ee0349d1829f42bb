//! The control process's socket: the CLI asks for status, policies and explanations.

use serde::{Deserialize, Serialize};
use sluice_flow::{Direction, ObjectName};

/// Requests to `RUN/control/control.sock`; each gets one [`FromControl`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum ToControl {
    /// State, problems, generations.
    Status,
    /// Each policy in force and what it selects here.
    Policies,
    /// Why a connection would pass or not.
    Explain {
        /// `ns/pod` or an address.
        src: String,
        /// `ns/pod` or an address.
        dst: String,
        /// Destination port, 0 for protocols without ports.
        port: u16,
        /// `TCP`, `UDP`, `SCTP`, `ICMP` or a number.
        protocol: String,
    },
    /// Whether a policy is in force here, and since when; answered once it is, or cannot be, or time is up.
    Realization {
        /// Which.
        policy: ObjectName,
        /// Its `metadata.generation` at least; without it, that of the newest state that its source holds.
        generation: Option<i64>,
        /// Give up after so long; 0 answers at once.
        timeout_ms: u64,
    },
    /// Answered once everything read so far is compiled and adopted by the dataplane, or failed.
    Settle {
        /// Give up after so long.
        timeout_ms: u64,
    },
}

/// Answers of the control process.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum FromControl {
    /// To [`ToControl::Status`] and [`ToControl::Settle`].
    Status(ControlStatus),
    /// To [`ToControl::Policies`].
    Policies {
        /// By name.
        policies: Vec<PolicyInfo>,
    },
    /// To [`ToControl::Explain`].
    Explanation(Explanation),
    /// To [`ToControl::Realization`].
    Realization(Realization),
    /// The request failed.
    Failed {
        /// Why, for people.
        reason: String,
    },
}

/// A manifest, or a part of one, that could not be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestProblem {
    /// The file.
    pub file: String,
    /// From 1; 0 where it does not apply.
    pub line: u32,
    /// From 1; 0 where it does not apply.
    pub column: u32,
    /// `NetworkPolicy ns/name` where it is known.
    pub object: Option<String>,
    /// `spec.ingress[0].from[1]`, empty where it does not apply.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// The right form.
    pub hint: Option<String>,
    /// What stays in force meanwhile.
    pub in_force: String,
}

/// The control process as a whole.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlStatus {
    /// Crate version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Since it started.
    pub uptime_s: u64,
    /// Where objects come from.
    pub source: String,
    /// Whether the dataplane is connected.
    pub dataplane_connected: bool,
    /// The last generation compiled, checked and sent.
    pub published_generation: u64,
    /// The last generation adopted by all workers.
    pub adopted_generation: u64,
    /// True when everything read so far is adopted.
    pub settled: bool,
    /// Why the last snapshot was not published, if it was not.
    pub last_failure: Option<String>,
    /// Counts of objects in force.
    pub namespaces: u64,
    /// Counts of objects in force.
    pub pods: u64,
    /// Counts of objects in force.
    pub policies: u64,
    /// Pods attached to this node.
    pub endpoints: u64,
    /// The last compilation.
    pub compile_us: u64,
    /// The last proof against the oracle.
    pub proof_us: u64,
    /// Comparisons made in that proof, those included that an equal one settled.
    pub comparisons: u64,
    /// Comparisons that make it whole.
    pub comparisons_required: u64,
    /// True while the table in force was published before its proof was finished.
    pub proof_pending: bool,
    /// Tables taken back because their proof failed behind the publication.
    pub rollbacks: u64,
    /// The last image.
    pub image_bytes: u64,
    /// From the last change's reading to its adoption.
    pub last_change_to_adopted_us: Option<u64>,
    /// Of an API server: one for each kind; empty for a directory.
    pub watches: Vec<WatchStatus>,
    /// What could not be used.
    pub problems: Vec<ManifestProblem>,
}

/// How one kind is followed at an API server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WatchStatus {
    /// `pods`.
    pub resource: String,
    /// Those in force; before the first list is complete, those listed so far.
    pub objects: u64,
    /// Whether it was listed once. Nothing is published before all are.
    pub listed: bool,
    /// How often all of it was listed: once, unless the server or its history was lost.
    pub lists: u64,
    /// The resourceVersion up to which everything is taken in; empty before the first list.
    pub version: String,
    /// Seconds since the server said anything, be it that nothing is new.
    pub heard_s: u64,
    /// Why it is broken; what was known of it stays in force meanwhile.
    pub trouble: Option<String>,
    /// For how many seconds.
    pub trouble_s: u64,
}

/// How far a policy is on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RealizationState {
    /// All workers judge by it.
    Realized,
    /// It is known, or the server holds a newer state of it, and that is not in force yet.
    Pending,
    /// Its newest state cannot be represented.
    Refused,
    /// There is no such policy, as far as this node knows.
    Unknown,
}

/// A policy on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Realization {
    /// Its name.
    pub policy: ObjectName,
    /// See there.
    pub state: RealizationState,
    /// `metadata.generation` of the state in force; absent where none is, or where it came from a manifest.
    pub generation: Option<i64>,
    /// Of the newest state that is known here.
    pub known_generation: Option<i64>,
    /// Since when the state in force is, milliseconds since 1970; at least since then, where control was restarted.
    pub since_ms: Option<u64>,
    /// The table in force.
    pub table_generation: u64,
    /// Why it is refused.
    pub problem: Option<ManifestProblem>,
    /// Why the last table was not published, if it was not.
    pub failure: Option<String>,
}

/// One policy in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyInfo {
    /// Its name.
    pub policy: ObjectName,
    /// `Ingress`, `Egress` or both.
    pub types: Vec<String>,
    /// Ingress rules.
    pub ingress_rules: u32,
    /// Egress rules.
    pub egress_rules: u32,
    /// Pods of the cluster that it selects.
    pub selected_pods: Vec<ObjectName>,
    /// Those of them attached to this node.
    pub local_pods: u32,
    /// Where it was read.
    pub file: Option<String>,
    /// See [`Realization::state`].
    pub state: RealizationState,
    /// See [`Realization::since_ms`].
    pub since_ms: Option<u64>,
}

/// Why a connection passes or not: both ends' halves.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The source as understood.
    pub src: String,
    /// The destination as understood.
    pub dst: String,
    /// `80/TCP`.
    pub port: String,
    /// Both halves allow.
    pub allowed: bool,
    /// Judged at the source pod; absent when the source is no pod.
    pub egress: Option<HalfExplanation>,
    /// Judged at the destination pod; absent when the destination is no pod.
    pub ingress: Option<HalfExplanation>,
    /// What a reader should know, such as "self-traffic is always allowed".
    pub notes: Vec<String>,
}

/// One end's verdict and its reason.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HalfExplanation {
    /// Whose policy judged.
    pub pod: ObjectName,
    /// In which direction.
    pub direction: Direction,
    /// The verdict by the raw objects.
    pub allowed: bool,
    /// False when no policy isolates the pod in this direction.
    pub isolated: bool,
    /// The policies that isolate it.
    pub isolating: Vec<ObjectName>,
    /// The first rule that allows it.
    pub rule: Option<String>,
    /// If denied: the rule that came nearest.
    pub nearest_miss: Option<NearestMiss>,
    /// The verdict of the published table; absent when the pod is not attached here.
    pub table_allowed: Option<bool>,
    /// The table's rule, as the dataplane would report it.
    pub table_rule: Option<String>,
}

/// A rule that would have allowed the connection but for one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NearestMiss {
    /// `ns/policy ingress[0]`.
    pub rule: String,
    /// What failed, in words: `the port: rule allows 80/TCP, the packet is 81/TCP`.
    pub failed: String,
}
