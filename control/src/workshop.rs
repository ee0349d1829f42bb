//! Snapshot → image → proof that its verdicts are the oracle's. CPU-bound; runs on the blocking pool.
//!
//! Compiler and prover remember what they made of each object, each for itself, so that a small change costs little. If
//! the proof finds a difference in an image that was made from memory, all memory is dropped and the image is made once
//! more from scratch: a mistake in remembering must neither pass nor hold up policy. What differs even then is refused.

use sluice_policy::compile::Compiler;
use sluice_policy::prove::{Counterexample, Proof, Prover};
use sluice_policy::{CompileError, Snapshot};
use sluice_table::{Image, ImageError, Table};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An image and the table in it, not yet proved.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) generation: u64,
    pub(crate) image: Image,
    pub(crate) table: Arc<Table>,
    pub(crate) compile: Duration,
}

/// An image may be published: it agrees with the oracle in everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Proved {
    pub(crate) proof: Proof,
    pub(crate) time: Duration,
}

/// Why there is no image, for people.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkError {
    #[error("cannot compile: {0}")]
    Compile(#[from] CompileError),
    #[error("the compiled image is damaged: {0}")]
    Image(#[from] ImageError),
    #[error("the table would be wrong, so it is refused\n{0}")]
    Wrong(#[from] Counterexample),
}

/// Compiler and prover with what they remember.
#[derive(Debug, Default)]
pub(crate) struct Workshop {
    compiler: Compiler,
    prover: Prover,
    /// Whether anything was made before, so that the next image is made from memory.
    remembers: bool,
    /// Whether the last image was.
    from_memory: bool,
}

impl Workshop {
    /// Compiles, and validates the bytes as the dataplane will.
    pub(crate) fn make(&mut self, snapshot: &Snapshot, generation: u64) -> Result<Made, WorkError> {
        let started = Instant::now();
        self.from_memory = std::mem::replace(&mut self.remembers, true);
        let image = self.compiler.compile(snapshot, generation)?;
        let table = Arc::new(Table::from_bytes(&image)?);
        Ok(Made { generation, image, table, compile: started.elapsed() })
    }

    /// Proves what was made last. On a difference in an image made from memory, hands another one, made from scratch, to
    /// `remade` and proves that.
    pub(crate) fn prove(&mut self, snapshot: &Snapshot, made: &Made, remade: impl FnOnce(Arc<Made>)) -> Result<Proved, WorkError> {
        match self.prove_once(snapshot, made) {
            Err(counterexample) if self.from_memory => {
                tracing::error!(%counterexample, "a table made from memory was wrong; made anew from scratch");
                *self = Self::default();
                let made = Arc::new(self.make(snapshot, made.generation)?);
                remade(Arc::clone(&made));
                Ok(self.prove_once(snapshot, &made)?)
            }
            outcome => Ok(outcome?),
        }
    }

    fn prove_once(&mut self, snapshot: &Snapshot, made: &Made) -> Result<Proved, Counterexample> {
        let started = Instant::now();
        let proof = self.prover.prove(snapshot, &made.table)?;
        Ok(Proved { proof, time: started.elapsed() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_policy::load::load_str;

    #[test]
    fn only_a_wrong_table_made_from_memory_is_made_anew_whether_or_not_that_memory_was_proved() {
        let (is, was) = (load_str("s.yaml", SERVICE).snapshot, Snapshot::default());
        let mut workshop = Workshop::default();
        // a stale image stands for what a mistake in remembering would make
        let first = workshop.make(&was, 1).unwrap();
        workshop.prove(&is, &first, |_| panic!("it was made from scratch")).unwrap_err();
        let second = workshop.make(&was, 2).unwrap();
        let mut remade = None;
        workshop.prove(&is, &second, |made| remade = Some(made)).unwrap();
        assert!(remade.is_some_and(|made| made.generation == 2));
    }

    const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n";
}
