//! What the fuzz targets check, as functions from bytes; a panic is a finding.
//!
//! | Target | Boundary | Promise |
//! |---|---|---|
//! | [`frame`] | a frame from a pod | our parser sees what two others see, and refuses only what it says it refuses |
pub mod frame;
pub mod opinion;
