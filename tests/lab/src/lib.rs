//! A cluster on one machine: network namespaces for pods and nodes, the real CNI plugins, the real agents.
//!
//! ```text
//!   manifests ─▶ STATE/manifests ◀── watches ── sluice-control ─┐
//!                                                               │ RUN/dataplane.sock
//!   node netns:  sluice-dataplane ◀──────────────────────────────┘
//!      │ veth pairs made by ptp + host-local, put under policy by sluice-cni
//!      ├── netns of default/frontend   serve-pod: HTTP and UDP echo on the declared ports
//!      ├── netns of default/backend
//!      └── netns of kube-system/coredns   serve-dns: names of services
//!
//!   with an API server:
//!   manifests ─▶ sluice-apiserver ◀── follow ── sluice-control of node1, of node2 ...
//!                 underlay netns ══ uplinks ══ node netns, each with agents, run directory, pins and pods of its own
//! ```
//!
//! The command `sluice-lab` and the end-to-end tests use the same [`Lab`]. Nothing leaves the machine: the nodes'
//! namespaces have no way out. Everything that a lab makes carries its name, so that it can be removed even when its
//! state is lost (see [`Lab::remove`]).

pub mod agents;
mod api;
mod change;
mod cluster;
mod cni;
mod config;
pub mod dns;
mod kubelet;
mod lab;
mod layout;
mod matrix;
mod netns;
mod nodes;
mod objects;
pub mod pod;
mod pods;
pub mod probe;
mod process;
mod running;
pub mod server;
mod services;
mod state;
mod store;
mod teardown;
mod underlay;

pub use agents::Agent;
pub use api::{ApiClient, Place};
pub use change::Change;
pub use cni::{Attached, Attachment, Chain};
pub use config::{ClusterConfig, LabConfig, Paths};
pub use lab::Lab;
pub use layout::{LabName, Layout, ONLY_NODE};
pub use matrix::{Cell, Matrix, MatrixRequest};
pub use netns::NetNs;
pub use pods::{Reconciled, prepare_pod_netns};
pub use probe::{Outcome, Probe};
pub use process::{ProcessId, log_tail};
pub use services::Frontend;
pub use state::{ApiState, NodeState, Phase, PodState, ServedPort, State, Transport};
pub use store::{Document, Kind, ObjectRef, Store, parse_documents, read_documents};
pub use teardown::Removed;
