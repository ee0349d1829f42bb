//! What an operator installs, looked at without a cluster.
//!
//! ```text
//!   values ─▶ helm template ─▶ documents ─▶ schemas of a recorded API server · typed kinds · what its validation adds
//!                                       └─▶ rights, capabilities, flags: equal to what the programs need and know
//! ```
//!
//! Renders are those of a real helm ([`Helm`]), schemas those that a real API server published ([`Schemas`]).

mod containerfile;
mod documents;
mod flags;
mod helm;
mod renders;
mod rules;
mod schema;
mod typed;
mod values;

pub use containerfile::{Containerfile, Instruction};
pub use documents::{Documents, strings, text};
pub use flags::{Refusal, first_refusal};
pub use helm::{Helm, RenderError};
pub use renders::{ALL_AT_ONCE, every_render, render};
pub use rules::broken_rules;
pub use schema::Schemas;
pub use typed::{unknown_fields, violations};
pub use values::{Key, keys};

use std::path::PathBuf;

/// The repository's `deploy` folder.
pub fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy"))
}

/// A file of it.
///
/// # Panics
/// When it cannot be read: it is part of the repository.
pub fn read(path: &str) -> String {
    let path = folder().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
