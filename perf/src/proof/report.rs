//! What came out: for people as a table, for programs as JSON, both from the same values.

use super::naive::Naive;
use super::subject::Step;
use super::{Arguments, Plan};
use crate::changes::Kind;
use crate::environment::Environment;
use crate::report::{Must, Promise, print_environment};
use crate::stats::Summary;
use crate::took::Took;
use crate::workload::{Census, Scale};
use serde::Serialize;
use sluice_policy::prove::Proof;
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

/// One cluster. Times are in milliseconds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Section {
    scale: Scale,
    census: Census,
    generated_ms: f64,
    #[serde(skip)]
    plan: Plan,
    units: u64,
    verdicts: u64,
    comparisons: u64,
    from_scratch: Measured,
    naive: Option<Naive>,
    changes: Vec<Changed>,
}

/// One kind of change.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Changed {
    kind: Kind,
    #[serde(flatten)]
    measured: Measured,
}

/// All steps of one sort.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    /// The proof's time on the CPU. It computes and never waits, so this is what it takes of a free core.
    prove: Option<Summary>,
    /// By the wall's clock, which also runs while others have the core.
    prove_wall: Option<Summary>,
    compile: Option<Summary>,
    load: Option<Summary>,
    units_asked: Option<Summary>,
    prove_ms: Vec<f64>,
    #[serde(skip)]
    steps: Vec<Step>,
}

impl Measured {
    fn add(&mut self, step: &Step) {
        self.steps.push(*step);
        self.prove_ms.push(step.prove.cpu_ms);
        let all = |of: fn(&Step) -> f64| Summary::of(&self.steps.iter().map(of).collect::<Vec<_>>());
        self.prove = all(|step| step.prove.cpu_ms);
        self.prove_wall = all(|step| step.prove.wall_ms);
        self.compile = all(|step| step.compile.wall_ms);
        self.load = all(|step| step.load.wall_ms);
        self.units_asked = all(|step| step.proof.units_asked as f64);
    }
}

impl Section {
    pub(super) fn new(plan: Plan, census: Census, generated: Took) -> Self {
        let changes = Kind::OF_PODS.map(|kind| Changed { kind, measured: Measured::default() }).into();
        Self {
            scale: plan.scale,
            census,
            generated_ms: generated.wall_ms,
            plan,
            units: 0,
            verdicts: 0,
            comparisons: 0,
            from_scratch: Measured::default(),
            naive: None,
            changes,
        }
    }

    /// Adds a proof from scratch.
    pub(super) fn add_from_scratch(&mut self, step: &Step) {
        let Proof { units, verdicts, .. } = step.proof;
        (self.units, self.verdicts, self.comparisons) = (units, verdicts.required, step.proof.required());
        self.from_scratch.add(step);
    }

    /// Adds a proof after a change.
    pub(super) fn add_change(&mut self, kind: Kind, step: &Step) {
        for changed in self.changes.iter_mut().filter(|changed| changed.kind == kind) {
            changed.measured.add(step);
        }
    }

    /// How many verdicts a proof from scratch compares.
    pub(super) fn required(&self) -> u64 {
        self.verdicts
    }

    pub(super) fn set_naive(&mut self, naive: Naive) {
        println!("  a naive proof: {naive}");
        self.naive = Some(naive);
    }

    fn title(&self) -> String {
        format!("{} pods, {} policies", thousands(self.scale.pods), thousands(self.scale.policies))
    }

    /// What was generated and what its proof from scratch costs.
    pub(super) fn print_from_scratch(&self, table: &Table) {
        let Census { pods, label_sets, namespaces, services, policies, endpoints, local_namespaces } = self.census;
        println!(
            "\n{}: {pods} pods with {label_sets} label sets in {namespaces} namespaces, {policies} policies, {services} services;\n  \
             {endpoints} pods of {local_namespaces} namespaces attached here; made in {:.0} ms",
            self.title(),
            self.generated_ms
        );
        println!(
            "  table: {} rules in play, {} address classes, {} port classes, {:.2} MB, {:.2} MB of it names",
            table.names().rules.len(),
            table.classes(),
            table.port_classes(),
            table.image_bytes() as f64 / 1e6,
            (table.image_bytes() - table.hot_bytes()) as f64 / 1e6
        );
        println!("  proof: {} units, {} verdicts, {} comparisons in all", self.units, self.verdicts, self.comparisons);
        print_measured("from scratch", &self.from_scratch);
    }

    /// What changes cost.
    pub(super) fn finish(&self) {
        self.changes.iter().for_each(|changed| print_measured(changed.kind.title(), &changed.measured));
    }

    /// The worst median of the changes that the promise is about.
    fn worst_change(&self) -> Option<f64> {
        let promised = self.changes.iter().filter(|changed| changed.kind.is_promised());
        let medians = promised.map(|changed| changed.measured.prove.map(|prove| prove.median));
        // one that was not measured is no promise kept
        medians.collect::<Option<Vec<_>>>()?.into_iter().reduce(f64::max)
    }

    fn musts(&self) -> Vec<Must> {
        let from_scratch = self.from_scratch.prove.map(|prove| prove.median);
        let must = |name: &str, promise: Option<Promise>, measured: Option<f64>| {
            Some(Must::of(&format!("{}: {name}", self.title()), promise?, measured.unwrap_or(f64::INFINITY)))
        };
        let from_scratch = must("from scratch", self.plan.from_scratch, from_scratch);
        from_scratch.into_iter().chain(must("one pod changes", self.plan.change, self.worst_change())).collect()
    }

    fn print_rows(&self) {
        println!("{}", self.title());
        print_row("from scratch", self.plan.from_scratch, &self.from_scratch);
        for changed in &self.changes {
            let promise = self.plan.change.filter(|_| changed.kind.is_promised());
            print_row(changed.kind.title(), promise, &changed.measured);
        }
        if let (Some(naive), Some(prove)) = (self.naive, self.from_scratch.prove) {
            let times = naive.extrapolated_s * 1e3 / prove.median;
            println!("  naive, from scratch: {naive}: {times:.0} times as long");
        }
    }
}

fn print_measured(title: &str, measured: &Measured) {
    let (Some(prove), Some(wall), Some(asked)) = (measured.prove, measured.prove_wall, measured.units_asked) else {
        println!("  {title:<24} not measured: no such change was found");
        return;
    };
    println!(
        "  {title:<24} {:>3} times: median {:.2} ms, quartiles {:.2}–{:.2}, 95 % interval {:.2}–{:.2}; by the wall {:.2}; {:.0} units asked",
        prove.count, prove.median, prove.q1, prove.q3, prove.low95, prove.high95, wall.median, asked.median
    );
}

fn print_row(title: &str, promise: Option<Promise>, measured: &Measured) {
    let Measured { prove: Some(prove), prove_wall: Some(wall), compile: Some(compile), load: Some(load), .. } = measured else {
        println!("  {title:<24}{:>29}", "not measured");
        return;
    };
    let bound = |of: fn(Promise) -> f64| promise.map_or("–".into(), |promise| format!("{} {:.0}", promise.bound.sign(), of(promise)));
    let result = promise.map_or("informs only", |promise| Must::of(title, promise, prove.median).result());
    println!(
        "  {title:<24}{:>8}{:>8}{:>10.2}{:>10.2}{:>10.2}{:>10.2}{:>10.2}{:>10.2}   {result}",
        bound(|promise| promise.must),
        bound(|promise| promise.aim),
        prove.median,
        prove.p99,
        prove.max,
        wall.median,
        compile.median,
        load.median,
    );
}

impl Report {
    pub(super) fn new(environment: Environment, arguments: &Arguments, cpu: usize, sections: Vec<Section>, took: Duration) -> Self {
        let musts = sections.iter().flat_map(Section::musts).collect();
        let (quick, seed) = (arguments.quick, arguments.seed);
        Self { bench: "proof", quick, seed, took_s: took.as_secs_f64(), environment, cpu, musts, sections }
    }

    /// Whether the promises are kept.
    pub(super) fn musts_hold(&self) -> bool {
        Must::all_hold(&self.musts)
    }

    /// The table and the machine.
    pub(super) fn print(&self) {
        println!(
            "\n{:<26}{:>8}{:>8}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}   result",
            "proof, ms of one core", "must", "aim", "measured", "p99", "max", "wall", "compile", "load"
        );
        self.sections.iter().for_each(Section::print_rows);
        println!(
            "\nmeasured: CPU time of the proof, median; wall: the same by the wall's clock, which others' use of the core lengthens;\n\
             compile, load: medians of what comes before, by the wall's clock and not part of the proof"
        );
        if self.musts.is_empty() {
            println!("no promise is about this cluster");
        }
        print_environment(&self.environment, self.quick, Duration::from_secs_f64(self.took_s));
        println!("one thread on CPU {}; seed {}", self.cpu, self.seed);
    }
}

fn thousands(count: usize) -> String {
    if count >= 1000 && count.is_multiple_of(1000) { format!("{}k", count / 1000) } else { count.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Bound;

    fn step(prove_ms: f64) -> Step {
        let took = Took { wall_ms: prove_ms, cpu_ms: prove_ms };
        Step { compile: took, load: took, prove: took, proof: Proof::default() }
    }

    fn section() -> Section {
        let scale = Scale::of(10_000, 1_000, 110);
        let promise = |must, aim| Some(Promise { bound: Bound::AtMost, must, aim });
        let census = Census { pods: 0, label_sets: 0, namespaces: 0, services: 0, policies: 0, endpoints: 0, local_namespaces: 0 };
        Section::new(Plan { scale, from_scratch: promise(500.0, 100.0), change: promise(8.0, 2.0) }, census, step(0.0).prove)
    }

    #[test]
    fn a_change_is_judged_by_the_worst_kind_that_was_promised() {
        let mut section = section();
        section.add_from_scratch(&step(50.0));
        for (kind, ms) in [(Kind::Address, 1.0), (Kind::Labels, 3.0), (Kind::Class, 2.0), (Kind::Endpoint, 50.0)] {
            section.add_change(kind, &step(ms));
        }
        let musts = section.musts();
        assert_eq!(musts.iter().map(|must| (must.must_met, must.aim_met)).collect::<Vec<_>>(), [(true, true), (true, false)]);
    }

    #[test]
    fn what_was_not_measured_is_not_kept() {
        let mut section = section();
        section.add_from_scratch(&step(50.0));
        section.add_change(Kind::Address, &step(1.0));
        assert!(!Must::all_hold(&section.musts()));
    }
}
