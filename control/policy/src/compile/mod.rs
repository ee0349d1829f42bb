//! Snapshot → image. Pure and deterministic: the same snapshot and generation give the same bytes.
//!
//! ```text
//!  pods ──▶ kinds, groups of addresses ─┐     policies ──▶ rules and profiles of this node's pods
//!                                       │                   │              (local)
//!          (pods, crowd, identity)      ▼                   ▼
//!                      matching: which rules match a kind   blocks: which rules cover an interval
//!                                       └─────────┬─────────┘
//!                      columns: what each profile lets through, over rows of ports
//!                                                 │
//!                      peers: every address falls into one atom, every atom has a column
//!                                                 │
//!                      number: columns that say the same are a class; sheet: rows over the ports that they tell apart
//!                                                 │
//!                      output: TableParts, or what changed of them ──▶ image (sluice-table)
//! ```
//!
//! A *profile* is one direction of endpoints that the same policies isolate and whose named ports resolve alike; a *row*
//! says for one profile and one set of matching rules what each port gets. Two atoms are the same class exactly if every
//! profile has the same row for both, so the table's size follows what rules can tell apart, not how many there are.
//!
//! A [`Compiler`] keeps what every stage made and each stage finds by itself what differs, so that a small change costs
//! little. What it remembers never shows: rows are numbered by what they say and classes by their rows, both only among
//! those in use, so the bytes depend on the snapshot alone. Every stage forgets all once it remembers much more than is in
//! use.

mod address;
mod blocks;
mod columns;
mod content;
mod crowd;
mod identity;
mod labels;
mod local;
mod matching;
mod model;
mod number;
mod order;
mod output;
mod peers;
mod pods;
mod port_classes;
mod ports;
mod rulebook;
mod rules;
mod selector;
mod sheet;
mod sides;
mod slot;
mod sorted;
#[cfg(test)]
mod tests;

use crate::snapshot::Snapshot;
use columns::Columns;
use local::Local;
use model::Model;
use number::{Numbers, Renumbered, capacity};
use output::Output;
use peers::{Atoms, Moved};
use sluice_flow::LocalEndpoint;
use sluice_flow::limits::PORTS_MAX;
use sluice_table::{Image, TableParts};

/// Why a snapshot has no table. Nothing of it is published; the previous table stays.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CompileError {
    #[error("{count} {what} exceed the table format's limit of {max}")]
    /// The format cannot represent it.
    Capacity {
        /// What there is too much of.
        what: &'static str,
        /// How many.
        count: usize,
        /// The limit.
        max: usize,
    },
    #[error("{object}: {field}: {reason}")]
    /// An object that cannot be represented exactly; it should have been refused when it was read.
    Object {
        /// `NetworkPolicy ns/name`.
        object: String,
        /// The field.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    #[error("port {port} is claimed by {first} and {second}")]
    /// The dataplane's report contradicts itself.
    DuplicatePort {
        /// The index.
        port: u16,
        /// One pod.
        first: String,
        /// The other.
        second: String,
    },
}

/// Compiles one snapshot after another, reading only what changed in between.
///
/// ```
/// use sluice_policy::{Snapshot, compile, compile::Compiler};
/// let (mut compiler, snapshot) = (Compiler::new(), Snapshot::default());
/// assert_eq!(compiler.compile(&snapshot, 1), compile(&snapshot, 1));
/// assert_eq!(compiler.compile(&snapshot, 2), compile(&snapshot, 2));
/// ```
#[derive(Debug, Default)]
pub struct Compiler {
    model: Model,
    local: Local,
    columns: Columns,
    atoms: Atoms,
    numbers: Numbers,
    output: Output,
}

/// Looks at, and in tests changes, what one stage hands to the next.
trait Stages {
    /// After the objects were read.
    fn model(&self, _: &mut Model) {}
    /// After everything was numbered.
    fn parts(&self, _: &mut TableParts) {}
}

/// Nothing in between.
struct Straight;

impl Stages for Straight {}

impl Compiler {
    /// One that remembers nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same bytes as [`compile`], sooner. Objects are known again by their pointers, see [`Snapshot::share`].
    ///
    /// # Errors
    /// As [`compile`]; the compiler stays usable.
    pub fn compile(&mut self, snapshot: &Snapshot, generation: u64) -> Result<Image, CompileError> {
        let (renumbered, moved) = self.update(snapshot, &Straight)?;
        self.output.follow(&self.model, &self.numbers, &self.atoms, renumbered, &moved);
        Ok(self.output.image(generation))
    }

    /// Everything but the image.
    fn update(&mut self, snapshot: &Snapshot, stages: &impl Stages) -> Result<(Renumbered, Moved), CompileError> {
        self.model.follow(snapshot);
        self.local.update(&mut self.model, snapshot)?;
        stages.model(&mut self.model);
        let moved = self.atoms.update(&mut self.model, &mut self.columns);
        match self.numbers.update(&self.model, &self.columns, &self.atoms.uses) {
            Ok(renumbered) => Ok((renumbered, moved)),
            Err(refused) => {
                // what moved is known to nobody else
                (self.numbers, self.output) = Default::default();
                Err(refused)
            }
        }
    }

    fn parts(&mut self, snapshot: &Snapshot, stages: &impl Stages) -> Result<TableParts, CompileError> {
        self.update(snapshot, stages)?;
        let mut parts = output::parts(&self.model, &self.numbers, &self.atoms);
        stages.parts(&mut parts);
        // a writer was not told
        self.output = Output::default();
        Ok(parts)
    }
}

/// Compiles a snapshot from scratch. Cost: one reading of each pod, and for each distinct set of matching rules one row at
/// each profile that knows one of them.
///
/// # Errors
/// [`CompileError`]: beyond the format's limits, or an object the API server would not have stored.
pub fn compile(snapshot: &Snapshot, generation: u64) -> Result<Image, CompileError> {
    Compiler::new().compile(snapshot, generation)
}

/// The table before it becomes bytes, for tools that look at it as data.
///
/// # Errors
/// As [`compile`].
pub fn compile_parts(snapshot: &Snapshot) -> Result<TableParts, CompileError> {
    Compiler::new().parts(snapshot, &Straight)
}

fn check_ports(endpoints: &[LocalEndpoint]) -> Result<(), CompileError> {
    capacity("ports", endpoints.iter().map(|e| usize::from(e.port.0) + 1).max().unwrap_or(0), PORTS_MAX)?;
    let mut by_port: Vec<&LocalEndpoint> = endpoints.iter().collect();
    by_port.sort_by_key(|endpoint| endpoint.port);
    match by_port.windows(2).find(|pair| pair[0].port == pair[1].port) {
        Some(pair) => {
            Err(CompileError::DuplicatePort { port: pair[0].port.0, first: pair[0].pod.to_string(), second: pair[1].pod.to_string() })
        }
        None => Ok(()),
    }
}
