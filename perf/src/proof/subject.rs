//! One cluster whose states are compiled, loaded and proved, one after another, with a clock at each step.

use crate::took::Took;
use anyhow::{Context, Result};
use sluice_policy::Snapshot;
use sluice_policy::compile::Compiler;
use sluice_policy::prove::{Proof, Prover};
use sluice_table::Table;

/// One state from objects to proof.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) compile: Took,
    pub(super) load: Took,
    pub(super) prove: Took,
    pub(super) proof: Proof,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) snapshot: Snapshot,
    pub(super) table: Table,
    compiler: Compiler,
    prover: Prover,
}

impl Subject {
    /// Compiles and proves `snapshot` from scratch.
    ///
    /// # Errors
    ///
    /// As [`Self::step`].
    pub(super) fn new(snapshot: Snapshot) -> Result<(Self, Step)> {
        let (mut compiler, mut prover) = (Compiler::new(), Prover::new());
        let (step, table) = step(&snapshot, &mut compiler, &mut prover, 1)?;
        Ok((Self { snapshot, table, compiler, prover }, step))
    }

    /// Compiles, loads and proves the snapshot as it is now, with everything remembered of the state before.
    ///
    /// # Errors
    ///
    /// The snapshot has no table, or the table is wrong: then a time would mean nothing.
    pub(super) fn step(&mut self) -> Result<Step> {
        let generation = self.table.generation() + 1;
        let (step, table) = step(&self.snapshot, &mut self.compiler, &mut self.prover, generation)?;
        self.table = table;
        Ok(step)
    }

    /// Forgets everything but the objects.
    pub(super) fn into_snapshot(self) -> Snapshot {
        self.snapshot
    }
}

fn step(snapshot: &Snapshot, compiler: &mut Compiler, prover: &mut Prover, generation: u64) -> Result<(Step, Table)> {
    let (image, compile) = Took::of(|| compiler.compile(snapshot, generation));
    let image = image.context("compiling")?;
    let (table, load) = Took::of(|| Table::from_bytes(&image));
    let table = table.context("loading the image")?;
    let (proof, prove) = Took::of(|| prover.prove(snapshot, &table));
    let proof = proof.context("the table is wrong")?;
    Ok((Step { compile, load, prove, proof }, table))
}
