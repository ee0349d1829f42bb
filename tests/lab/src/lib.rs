//! A cluster on one machine: network namespaces for pods, the real CNI plugins, the real agents.
//!
//! ```text
//!   manifests ─▶ STATE/manifests ◀── watches ── sluice-control ─┐
//!                                                               │ RUN/dataplane.sock
//!   node netns:  sluice-dataplane ◀──────────────────────────────┘
//!      │ veth pairs made by ptp + host-local, put under policy by sluice-cni
//!      ├── netns of default/frontend   serve-pod: HTTP and UDP echo on the declared ports
//!      ├── netns of default/backend
//!      └── netns of kube-system/coredns   serve-dns: names of services
//! ```
//!
//! The command `sluice-lab` and the end-to-end tests use the same [`Lab`]. Nothing leaves the machine: the node's
//! namespace has no uplink. Everything that a lab makes carries its name, so that it can be removed even when its
//! state is lost (see [`Lab::remove`]).

pub mod agents;
mod change;
mod cluster;
mod cni;
mod config;
pub mod dns;
mod lab;
mod matrix;
mod netns;
pub mod pod;
mod pods;
pub mod probe;
mod process;
pub mod server;
mod state;
mod store;
mod teardown;

pub use agents::Agent;
pub use change::Change;
pub use config::LabConfig;
pub use lab::Lab;
pub use matrix::{Cell, Matrix, MatrixRequest};
pub use netns::NetNs;
pub use pods::Reconciled;
pub use probe::{Outcome, Probe};
pub use process::{ProcessId, log_tail};
pub use state::{LabName, Layout, Phase, PodState, ServedPort, State, Transport};
pub use store::{Document, Kind, ObjectRef, Store, parse_documents, read_documents};
pub use teardown::Removed;
