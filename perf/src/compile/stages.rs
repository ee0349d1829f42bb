//! The stages of steps of one sort, as they were measured.

use super::subject::Step;
use crate::stats::Summary;
use crate::took::Took;
use serde::Serialize;

/// One stage of all steps of a sort, in milliseconds.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stage {
    /// On CPUs. A stage computes and never waits, so this is what it takes of a free core.
    pub(super) cpu: Option<Summary>,
    /// By the wall's clock, which also runs while others have the core.
    pub(super) wall: Option<Summary>,
    cpu_ms: Vec<f64>,
    wall_ms: Vec<f64>,
}

impl Stage {
    fn add(&mut self, took: Took) {
        self.cpu_ms.push(took.cpu_ms);
        self.wall_ms.push(took.wall_ms);
    }

    fn finish(&mut self) {
        (self.cpu, self.wall) = (Summary::of(&self.cpu_ms), Summary::of(&self.wall_ms));
    }
}

/// All steps of one sort.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stages {
    pub(super) compile: Stage,
    /// Write and seal.
    pub(super) write: Stage,
    /// Compile, write and seal.
    pub(super) published: Stage,
    /// Validate and load.
    pub(super) adopt: Stage,
    pub(super) prove: Stage,
}

impl Stages {
    pub(super) fn add(&mut self, step: &Step) {
        self.compile.add(step.compile);
        self.write.add(step.write);
        self.published.add(step.compile.and(step.write));
        self.adopt.add(step.adopt);
        step.prove.into_iter().for_each(|took| self.prove.add(took));
    }

    /// Works out the summaries. Cost: a bootstrap for each stage, so once.
    pub(super) fn finish(&mut self) {
        let Self { compile, write, published, adopt, prove } = self;
        [compile, write, published, adopt, prove].into_iter().for_each(Stage::finish);
    }

    /// As in the report.
    pub(super) fn named(&self) -> [(&'static str, &Stage); 5] {
        [
            ("compile", &self.compile),
            ("write, seal", &self.write),
            ("= published image", &self.published),
            ("validate, load", &self.adopt),
            ("prove", &self.prove),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_image_is_compiled_and_written_in_the_same_step() {
        let took = |ms| Took { wall_ms: ms + 1.0, cpu_ms: ms };
        let mut stages = Stages::default();
        for (compile, write) in [(1.0, 30.0), (2.0, 20.0), (30.0, 1.0)] {
            stages.add(&Step { compile: took(compile), write: took(write), adopt: took(0.0), prove: None });
        }
        stages.finish();
        // the medians of compile and write, 2 and 20, are not of one step
        let published = stages.published.cpu.unwrap();
        assert_eq!((published.min, published.median, published.max), (22.0, 31.0, 31.0));
        assert_eq!(stages.published.wall.unwrap().median, 33.0);
    }
}
