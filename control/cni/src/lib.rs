//! The chained CNI plugin: it adds policy to pods whose veths some other plugin made.
//!
//! ```text
//!   runtime ──stdin: config + prevResult, env: CNI_*──▶ sluice-cni ──AddPort──▶ RUN/dataplane.sock
//!           ◀──stdout: prevResult untouched, or an error──         ◀─PortAdded─ (a table that knows the pod is adopted)
//! ```
//!
//! ADD is the gate that closes the window at a pod's start: it returns success only when every worker judges by a
//! table that knows the pod, and otherwise fails with a reason before anything was changed. DEL succeeds with
//! everything down, because a runtime that cannot delete a sandbox retries for ever.
//!
//! Source: CNI specification 1.0.0 and 1.1.0 (containernetworking/cni, SPEC.md).
//!
//! Without a runtime's `CNI_COMMAND` it is a program for people and installers: [`install`].
//!
//! A library, so that everything that is read from outside can be fuzzed: [`Request::read`]. The program is [`run`].
#![forbid(unsafe_code)]

mod attachment;
mod command;
mod config;
mod dataplane;
mod error;
#[cfg(feature = "install")]
pub mod install;
mod invocation;
mod link;
mod request;

pub use attachment::Described;
pub use command::run;
pub use config::{CONFIG_BYTES_MAX, Config, ValidAttachment, version_of};
pub use error::{CniError, Code};
pub use invocation::{Attachment, Environment, PodIdentity};
pub use request::{Addition, Examination, Question, Request};
