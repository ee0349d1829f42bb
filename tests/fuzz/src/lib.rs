//! What the fuzz targets check, as functions from bytes; a panic, an abort or a time-out is a finding.
//!
//! | Target | Boundary | Promise |
//! |---|---|---|
//! | [`frame`] | a frame from a pod | our parser sees what two others see, and refuses only what it says it refuses |
//! | [`image`] | a compiled table | whatever is accepted answers every question and can be printed |
//! | [`manifests`] | a manifest directory | bounded; the same twice; whatever is valid compiles or is refused by name |
//! | [`cni`] | a runtime's call | an answer or an error of the specification; nothing half understood |
//! | [`sockets`] | a peer on a socket | bounded; the same messages however the bytes arrive in pieces |
//!
//! Memory is bounded by [`memory::bounded`]: work that allocates more aborts.
pub mod cni;
pub mod frame;
pub mod image;
pub mod manifests;
pub mod memory;
pub mod opinion;
pub mod sockets;
