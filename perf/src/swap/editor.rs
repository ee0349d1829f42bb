//! Images out of edits: a cluster that changes a thousand times a second, compiled after so many changes.
//!
//! Half of the edits between two images undo what the half before did, so that the cluster stays as large as it is; one edits
//! the marker.

use super::check::{Answers, Questions, ensure_distinct};
use super::marker::{Marker, word};
use crate::changes::{Changes, Edit, Kind};
use crate::took::Took;
use anyhow::{Context, Result, ensure};
use sluice_policy::Snapshot;
use sluice_policy::compile::Compiler;
use sluice_policy::prove::Prover;
use sluice_table::{Image, Table};
use std::sync::Arc;

/// An image, and what its table must answer.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) generation: u64,
    pub(super) image: Image,
    pub(super) answers: Arc<Answers>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Editor {
    snapshot: Snapshot,
    compiler: Compiler,
    prover: Prover,
    changes: Changes,
    marker: Marker,
    undo: Vec<Edit>,
    generation: u64,
    drawn: usize,
}

/// Pods come and go, fewer get new labels, few policies change.
const MIX: [Kind; 10] = [
    Kind::Address,
    Kind::Address,
    Kind::Labels,
    Kind::Address,
    Kind::PolicyPorts,
    Kind::Address,
    Kind::Class,
    Kind::Address,
    Kind::PolicyPeers,
    Kind::Address,
];

impl Editor {
    /// Compiles the cluster once.
    ///
    /// # Errors
    ///
    /// It has no table, or no place for a marker.
    pub(super) fn new(snapshot: Snapshot, seed: u64) -> Result<Self> {
        let mut compiler = Compiler::new();
        let table = Table::from_bytes(&compiler.compile(&snapshot, 1).context("compiling")?).context("loading the image")?;
        let marker = Marker::find(&snapshot, &table)?;
        let free_node = snapshot.pods.len().div_ceil(snapshot.endpoints.len().max(1));
        let changes = Changes::of(&snapshot, free_node, seed).editing(&table);
        Ok(Self { snapshot, compiler, prover: Prover::new(), changes, marker, undo: Vec::new(), generation: 0, drawn: 0 })
    }

    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    pub(super) fn marker(&self) -> &Marker {
        &self.marker
    }

    /// Makes so many edits, then an image of what stands, and says how long the compilation took.
    ///
    /// # Errors
    ///
    /// There is no table, or its marker says something else.
    pub(super) fn make(&mut self, edits: usize, questions: &Questions, is_proved: bool) -> Result<(Made, Took)> {
        self.generation += 1;
        for edit in std::mem::take(&mut self.undo).into_iter().rev() {
            edit.apply(&mut self.snapshot);
        }
        for _ in 0..(edits / 2).max(1) {
            let kind = MIX[self.drawn % MIX.len()];
            self.drawn += 1;
            // a small cluster may have no policy in play
            let edit = self.changes.draw(kind, &self.snapshot).or_else(|_| self.changes.draw(Kind::Address, &self.snapshot))?;
            let undo = edit.apply(&mut self.snapshot);
            self.undo.push(undo);
        }
        let (name, policy) = self.marker.policy(self.generation);
        self.snapshot.policies.insert(name, policy);
        let (image, took) = Took::of(|| self.compiler.compile(&self.snapshot, self.generation));
        let image = image.context("compiling")?;
        let table = Table::from_bytes(&image).context("loading the image")?;
        if is_proved {
            self.prover.prove(&self.snapshot, &table).context("the table is wrong")?;
        }
        let (found, wanted) = (self.marker.read(&table), word(self.generation));
        ensure!(found == wanted, "generation {}: the marker says {found:#x}, not {wanted:#x}", self.generation);
        let answers = Arc::new(Answers::of(&table, questions));
        Ok((Made { generation: self.generation, image, answers }, took))
    }

    /// So many images that can be published in turn, again and again.
    ///
    /// # Errors
    ///
    /// As [`Self::make`], or two in a row cannot be told apart.
    pub(super) fn ring(&mut self, images: usize, edits: usize, questions: &Questions, step: impl Fn(usize)) -> Result<Vec<Made>> {
        assert!(images.is_multiple_of(2), "the marker's first half must also differ between the last and the first");
        let mut ring = Vec::with_capacity(images);
        for image in 0..images {
            step(image);
            ring.push(self.make(edits, questions, true)?.0);
        }
        for (one, next) in ring.iter().zip(ring.iter().cycle().skip(1)) {
            ensure_distinct(&one.answers, &next.answers)?;
        }
        Ok(ring)
    }
}
