//! A test API server: the Kubernetes API protocol over HTTP/1.1, as kube-apiserver 1.36 speaks it, in one process.
//!
//! ```text
//! client ── http ── api ── store ── script      requests in, answers and watches out; changes from a seed
//!            │       │       │
//!         faults   auth    replay               what goes wrong; who may ask; recordings of a real server
//! ```
//!
//! Shapes of answers, errors and watch events are those of recordings of a real server, which come with the crate
//! and can be replayed byte by byte. Whatever is drawn by lot, from uids to faults, comes from seeds.
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use sluice_apiserver::{Fault, Rule, Server, Verb};
//! let server = Server::builder().seed(7).start().await.unwrap();
//! server.store().put(serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}})).unwrap();
//! server.faults().add(Rule::new(Fault::EndAfter(3)).on("pods").verb(Verb::Watch).nth(1));
//! println!("{}", server.kubeconfig());
//! # });
//! ```

#![forbid(unsafe_code)]

mod api;
mod auth;
mod clock;
mod faults;
mod http;
mod kubeconfig;
mod listener;
mod manifests;
mod query;
mod replay;
mod resource;
mod script;
mod selector;
mod server;
mod settings;
mod status;
mod store;
mod tls;

pub use auth::{Auth, USER};
pub use clock::{Clock, MANUAL_START_S};
pub use faults::{Fault, Faults, Rule, RuleId, Verb};
pub use manifests::{ManifestError, Manifests};
pub use replay::{Capture, Feed, History, Recording, RecordingError, Speed, WatchEvent};
pub use resource::{Registry, Resource, ResourceId};
pub use script::{Change, Script, Size};
pub use server::{Builder, Server, StartError};
pub use status::ApiError;
pub use store::{DeleteOptions, Deleted, Object, Part, Place, Store};
