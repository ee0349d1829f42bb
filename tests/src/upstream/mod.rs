//! The rows of Kubernetes' own NetworkPolicy suite on live traffic, through ClusterIPs, in both families, over TCP, UDP and SCTP.
//!
//! ```text
//!   cases/upstream/NN-*.yaml ─▶ rows.rs   stages: what to apply or delete, and who reaches whom then
//!                                run.rs   a lab with a service for each pod; every question of a stage at once
//!                                sctp.rs  INIT and INIT ACK by frames, where the kernel has no SCTP
//! ```

mod rows;
mod run;
mod sctp;

pub use rows::{Expected, Matrix, Row, Stage, dir, rows};
pub use run::{Played, Suite};
