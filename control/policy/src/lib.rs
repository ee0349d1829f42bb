//! Kubernetes objects → snapshot → table, beside the slow truth that checks it.
//!
//! ```text
//!   manifests ──load──▶ Snapshot ──compile──▶ image bytes (sluice-table)
//!   API server ────────▶    │                      │
//!                           └──────oracle──────────┴──prove: every verdict agrees, or the image is not published
//! ```
//!
//! Pure: no clock, no I/O (the loader reads only the paths it is given). `compile` is deterministic: the same snapshot
//! gives the same bytes. The oracle reads the raw objects and shares no normalising code with the compiler.
#![forbid(unsafe_code)]

pub mod compile;
pub mod lint;
pub mod load;
pub mod oracle;
pub mod pod;
pub mod prove;
pub mod reach;
pub mod snapshot;

pub use compile::{CompileError, compile};
pub use oracle::Oracle;
pub use sluice_flow::{LocalEndpoint, ObjectName};
pub use snapshot::{Objects, Snapshot};
