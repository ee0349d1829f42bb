//! What came out: for people as a table, for programs as JSON, both from the same values.

use super::Arguments;
use super::stages::{Stage, Stages};
use super::subject::{Memory, Step};
use crate::changes::Kind;
use crate::environment::Environment;
use crate::report::{Bound, Must, Promise, print_environment, print_musts};
use crate::stats::Summary;
use crate::took::Took;
use crate::workload::{Census, Workload};
use serde::Serialize;
use sluice_table::Table;
use std::time::Duration;

/// The whole run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    bench: &'static str,
    quick: bool,
    seed: u64,
    took_s: f64,
    environment: Environment,
    cpu: usize,
    musts: Vec<Must>,
    sections: Vec<Section>,
}

/// One workload. Times are in milliseconds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Section {
    pub(super) workload: Workload,
    census: Census,
    generated_ms: f64,
    image_bytes: u64,
    classes: usize,
    build: Stages,
    /// The time was over before all rounds were.
    build_cut: bool,
    memory: MemorySummary,
    changes: Vec<Changed>,
    /// The time was over before all changes were.
    changes_cut: bool,
}

/// Of the builds from scratch, in bytes.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct MemorySummary {
    /// The most of any round, the objects included.
    peak: u64,
    peak_beyond_objects: Option<u64>,
    /// What the compiler remembers, the most of any round: later rounds find room that the first left.
    retained: u64,
}

/// One kind of change.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Changed {
    kind: Kind,
    #[serde(flatten)]
    stages: Stages,
}

impl Section {
    pub(super) fn new(workload: Workload, census: Census, generated: Took) -> Self {
        Self {
            workload,
            census,
            generated_ms: generated.wall_ms,
            image_bytes: 0,
            classes: 0,
            build: Stages::default(),
            build_cut: false,
            memory: MemorySummary::default(),
            changes: super::KINDS.map(|kind| Changed { kind, stages: Stages::default() }).into(),
            changes_cut: false,
        }
    }

    pub(super) fn add_build(&mut self, step: &Step, memory: &Memory) {
        self.build.add(step);
        self.memory.peak = self.memory.peak.max(memory.peak);
        self.memory.peak_beyond_objects = self.memory.peak_beyond_objects.max(memory.peak_beyond_objects);
        self.memory.retained = self.memory.retained.max(memory.retained);
    }

    pub(super) fn set_table(&mut self, table: &Table, build_cut: bool) {
        (self.image_bytes, self.classes, self.build_cut) = (table.image_bytes(), table.classes(), build_cut);
    }

    pub(super) fn add_change(&mut self, kind: Kind, step: &Step) {
        for changed in self.changes.iter_mut().filter(|changed| changed.kind == kind) {
            changed.stages.add(step);
        }
    }

    pub(super) fn set_changes_cut(&mut self) {
        self.changes_cut = true;
    }

    /// What it is made of, before it is measured.
    pub(super) fn print_census(&self) {
        let Census { pods, label_sets, namespaces, policies, endpoints, .. } = self.census;
        println!(
            "\n{}: {pods} pods with {label_sets} label sets in {namespaces} namespaces, {policies} policies; \
             {endpoints} pods attached here; made in {:.0} ms",
            self.workload.name(),
            self.generated_ms
        );
    }

    /// Works out what building from scratch came to, and prints it.
    pub(super) fn finish_build(&mut self) {
        self.build.finish();
        let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
        let MemorySummary { peak, peak_beyond_objects, retained } = self.memory;
        println!("  image {}, {} address classes", megabytes(self.image_bytes), self.classes);
        println!(
            "  memory of a build from scratch: peak {}, {} of it beyond the objects; the compiler remembers {}",
            megabytes(peak),
            peak_beyond_objects.map_or_else(|| "unknown (the peak cannot be forgotten here)".to_owned(), megabytes),
            megabytes(retained)
        );
        println!(
            "  {:<26}{:<18}{:>5}   CPU ms:{:>10}{:>10}{:>10}{:>10}   wall ms:{:>10}{:>10}{:>10}",
            "", "", "count", "median", "min", "p99", "max", "median", "p99", "max"
        );
        print_stages("from scratch", &self.build);
    }

    /// The same of the changes.
    pub(super) fn finish_changes(&mut self) {
        self.changes.iter_mut().for_each(|changed| changed.stages.finish());
        self.changes.iter().for_each(|changed| print_stages(title(changed.kind), &changed.stages));
        if self.build_cut || self.changes_cut {
            println!("  stopped early, after the seconds that --seconds gives: {}", self.what_was_cut());
        }
    }

    fn what_was_cut(&self) -> &'static str {
        match (self.build_cut, self.changes_cut) {
            (true, true) => "from scratch and changes",
            (true, false) => "from scratch",
            (false, _) => "changes",
        }
    }

    /// The worst median among these kinds; one that was not measured is no promise kept.
    fn worst(&self, kinds: &[Kind]) -> f64 {
        let median = |kind: &Kind| {
            let changed = self.changes.iter().find(|changed| changed.kind == *kind)?;
            Some(changed.stages.published.cpu?.median)
        };
        kinds.iter().map(median).collect::<Option<Vec<f64>>>().into_iter().flatten().reduce(f64::max).unwrap_or(f64::NAN)
    }

    fn musts(&self) -> Vec<Must> {
        let must = |name: &str, must, aim, measured| {
            Must::of(&format!("{} {name}, ms", self.workload.name()), Promise { bound: Bound::AtMost, must, aim }, measured)
        };
        let build = self.build.compile.cpu.map_or(f64::NAN, |cpu| cpu.median);
        match self.workload {
            Workload::S3 => vec![
                must("full build", 250.0, 50.0, build),
                must("pod with known labels, to published image", 1.0, 0.1, self.worst(&[Kind::Address])),
                must("new label set, to published image", 5.0, 0.5, self.worst(&[Kind::Labels, Kind::Class])),
                must("one policy edited, to published image", 20.0, 2.0, self.worst(&[Kind::PolicyPorts, Kind::PolicyPeers])),
            ],
            Workload::S4 => vec![must("full build", 1700.0, 200.0, build)],
            _ => Vec::new(),
        }
    }
}

/// As in the report; here labels count as new whether or not they need a class.
fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::Address => "pod with known labels",
        Kind::Class => "labels mixed anew",
        other => other.title(),
    }
}

fn print_stages(title: &str, stages: &Stages) {
    if stages.compile.cpu.is_none() {
        println!("  {title:<26}not measured: no such change was found, or no time left");
    }
    for (row, (name, Stage { cpu, wall, .. })) in stages.named().into_iter().enumerate() {
        let title = if row == 0 { title } else { "" };
        // a stage that was left out
        let (Some(Summary { count, median, min, p99, max, .. }), Some(wall)) = (cpu, wall) else { continue };
        println!(
            "  {title:<26}{name:<18}{count:>5}          {median:>10.3}{min:>10.3}{p99:>10.3}{max:>10.3}           {:>10.3}{:>10.3}{:>10.3}",
            wall.median, wall.p99, wall.max
        );
    }
}

impl Report {
    pub(super) fn new(environment: Environment, arguments: &Arguments, cpu: usize, sections: Vec<Section>, took: Duration) -> Self {
        let musts = sections.iter().flat_map(Section::musts).collect();
        let (quick, seed) = (arguments.quick, arguments.seed);
        Self { bench: "compile", quick, seed, took_s: took.as_secs_f64(), environment, cpu, musts, sections }
    }

    /// Whether the promises are kept.
    pub(super) fn musts_hold(&self) -> bool {
        Must::all_hold(&self.musts)
    }

    /// The promises and the machine.
    pub(super) fn print(&self) {
        print_musts("compile", &self.musts);
        println!(
            "\nmeasured: CPU time, median, of the worst kind of its sort; a published image is compiled, written into a memfd and sealed;\n\
             where it is not proved in time, the proof comes on top (see the stages)"
        );
        print_environment(&self.environment, self.quick, Duration::from_secs_f64(self.took_s));
        println!("one thread on CPU {}; seed {}", self.cpu, self.seed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(workload: Workload) -> Section {
        let census = Census { pods: 0, label_sets: 0, namespaces: 0, services: 0, policies: 0, endpoints: 0, local_namespaces: 0 };
        Section::new(workload, census, Took::default())
    }

    fn step(compile_ms: f64) -> Step {
        let took = |ms| Took { wall_ms: ms * 2.0, cpu_ms: ms };
        Step { compile: took(compile_ms), write: took(0.5), adopt: took(9.0), prove: Some(took(9.0)) }
    }

    #[test]
    fn a_sort_of_change_is_judged_by_its_worst_kind_up_to_the_sealed_image() {
        let mut section = section(Workload::S3);
        let memory = Memory { peak: 1, peak_beyond_objects: None, retained: 1 };
        section.add_build(&step(100.0), &memory);
        for (kind, ms) in
            [(Kind::Address, 0.4), (Kind::Labels, 0.1), (Kind::Class, 5.0), (Kind::PolicyPorts, 1.0), (Kind::PolicyPeers, 9.0)]
        {
            section.add_change(kind, &step(ms));
        }
        section.finish_build();
        section.finish_changes();
        let musts = section.musts();
        assert_eq!(musts.iter().map(|must| must.measured).collect::<Vec<_>>(), [100.0, 0.9, 5.5, 9.5]);
        assert_eq!(musts.iter().map(|must| must.must_met).collect::<Vec<_>>(), [true, true, false, true]);
    }

    #[test]
    fn what_was_not_measured_is_not_kept() {
        let mut section = section(Workload::S3);
        section.finish_build();
        section.finish_changes();
        assert!(section.musts().iter().all(|must| !must.must_met), "{:?}", section.musts());
    }
}
