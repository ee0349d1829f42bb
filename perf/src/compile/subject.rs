//! One cluster whose states go all the way from objects to a table that is proved, with two clocks at each stage.

use crate::memory;
use crate::proof::Naive;
use crate::took::Took;
use anyhow::{Context, Result, ensure};
use sluice_policy::Snapshot;
use sluice_policy::compile::Compiler;
use sluice_policy::prove::Prover;
use sluice_table::seal::{self, Sealer};
use sluice_table::{Image, Table};
use std::os::fd::AsFd;

/// One state from objects to proof.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) compile: Took,
    /// Into a memfd, and sealed.
    pub(super) write: Took,
    /// Out of it again, validated and loaded as the dataplane does.
    pub(super) adopt: Took,
    /// `None` where a sample was compared instead.
    pub(super) prove: Option<Took>,
}

/// What a build from scratch needs, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    /// Most that was resident, the objects included.
    pub(super) peak: u64,
    /// Most that was resident beyond the objects; `None` where the peak cannot be forgotten.
    pub(super) peak_beyond_objects: Option<u64>,
    /// What the compiler remembers afterwards.
    pub(super) retained: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) snapshot: Snapshot,
    pub(super) table: Table,
    compiler: Compiler,
    sealer: Sealer,
    judge: Judge,
}

/// Who says that a table is right. Not to be left out: a time of a wrong table would mean nothing.
#[derive(Debug)]
enum Judge {
    /// All verdicts.
    Prover(Box<Prover>),
    /// So many packets.
    Sample(usize),
}

/// Packets that the oracle is asked about where there is no proof.
const SAMPLE: usize = 2000;

impl Judge {
    fn new(is_proved: bool) -> Self {
        if is_proved { Self::Prover(Box::default()) } else { Self::Sample(SAMPLE) }
    }

    /// How long a proof took.
    fn judge(&mut self, snapshot: &Snapshot, table: &Table) -> Result<Option<Took>> {
        match self {
            Self::Prover(prover) => {
                let (proof, took) = Took::of(|| prover.prove(snapshot, table));
                let proof = proof.context("the table is wrong")?;
                ensure!(proof.done() == proof.required(), "the proof left {} comparisons out", proof.required() - proof.done());
                Ok(Some(took))
            }
            // another sample for each table
            Self::Sample(packets) => Naive::measure(snapshot, table, *packets, 0, table.generation()).map(|_| None),
        }
    }
}

impl Subject {
    /// From scratch. `is_proved`: whether all verdicts are compared, or those of a sample.
    ///
    /// # Errors
    ///
    /// As [`Self::step`].
    pub(super) fn new(snapshot: Snapshot, is_proved: bool) -> Result<(Self, Step, Memory)> {
        let (mut compiler, mut judge) = (Compiler::new(), Judge::new(is_proved));
        let before = memory::resident_bytes()?;
        let is_forgotten = memory::forget_peak();
        let (image, compile) = Took::of(|| compiler.compile(&snapshot, 1));
        let (image, peak) = (image.context("compiling")?, memory::peak_bytes()?);
        let after = memory::resident_bytes()?;
        let memory = Memory {
            peak,
            peak_beyond_objects: is_forgotten.then(|| peak.saturating_sub(before)),
            retained: after.saturating_sub(before + image.len() as u64),
        };
        let mut sealer = Sealer::new("sluice-table");
        let (table, step) = publish(&snapshot, image, compile, &mut sealer, &mut judge, 1)?;
        Ok((Self { snapshot, table, compiler, sealer, judge }, step, memory))
    }

    /// The snapshot as it is now, with everything remembered of the state before.
    ///
    /// # Errors
    ///
    /// The snapshot has no table, it cannot be shared, or it is wrong: then a time would mean nothing.
    pub(super) fn step(&mut self) -> Result<Step> {
        let generation = self.table.generation() + 1;
        let (image, compile) = Took::of(|| self.compiler.compile(&self.snapshot, generation));
        let (table, step) = publish(&self.snapshot, image.context("compiling")?, compile, &mut self.sealer, &mut self.judge, generation)?;
        self.table = table;
        Ok(step)
    }

    /// Forgets everything but the objects.
    pub(super) fn into_snapshot(self) -> Snapshot {
        self.snapshot
    }
}

fn publish(
    snapshot: &Snapshot,
    image: Image,
    compile: Took,
    sealer: &mut Sealer,
    judge: &mut Judge,
    generation: u64,
) -> Result<(Table, Step)> {
    let (memfd, write) = Took::of(|| sealer.seal(&image));
    let memfd = memfd.context("writing the image")?;
    // as the product does once the image is sent
    sealer.prepare(image.len());
    let (table, adopt) = Took::of(|| Table::from_bytes(&seal::read_sealed(memfd.as_fd())?));
    let table = table.context("loading the image")?;
    ensure!(table.generation() == generation, "generation {} came back as {}", generation, table.generation());
    let prove = judge.judge(snapshot, &table)?;
    Ok((table, Step { compile, write, adopt, prove }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Workload;

    #[test]
    fn every_stage_takes_time_and_the_next_table_has_the_next_generation() {
        let (mut subject, step, memory) = Subject::new(Workload::S1.generate(1).unwrap(), true).unwrap();
        assert!([step.compile, step.write, step.adopt, step.prove.unwrap()].iter().all(|took| took.wall_ms > 0.0), "{step:?}");
        assert!(memory.peak > memory.retained, "{memory:?}");
        subject.step().unwrap();
        assert_eq!(subject.table.generation(), 2);
    }
    #[test]
    fn without_a_proof_a_wrong_table_is_found_by_the_sample() {
        let snapshot = Workload::S1.generate(1).unwrap();
        let (subject, step, _) = Subject::new(snapshot.clone(), false).unwrap();
        assert!(step.prove.is_none());
        let other = Snapshot { policies: Default::default(), ..snapshot };
        assert!(
            Judge::new(false).judge(&subject.snapshot, &Table::from_bytes(&Compiler::new().compile(&other, 1).unwrap()).unwrap()).is_err()
        );
    }
}
