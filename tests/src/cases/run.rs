//! One case, played step by step on every engine that has something to say about a step.

use super::flow::{Flow, Verdict};
use super::frame;
use super::images;
use super::lines::{Fate, FrameLine};
use super::question::Question;
use super::report::{Engine, Failure, Played};
use super::state::State;
use super::text::{Case, Step, What};
use super::worker::{self, Wrong};
use super::{engines, loader};
use sluice_dataplane::worker::Established;
use sluice_flow::{Addr, Direction, DropReason, ObjectName, PortIndex};
use sluice_table::Table;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// Plays a case from an empty node on.
pub fn play(case: &Case) -> Played {
    let keep = case.steps.iter().any(|step| matches!(step.what, What::Keep));
    let established = if keep { Established::Keep } else { Established::Enforce };
    let mut play = Play {
        case,
        state: State::default(),
        worker: worker::Engine::new(established),
        table: None,
        refused: BTreeSet::new(),
        without_table: case.steps.iter().any(|step| matches!(step.what, What::NoTable)),
        played: Played { file: case.file.clone(), line: case.line, title: case.title.clone(), met: [0; 4], failures: Vec::new() },
    };
    for step in &case.steps {
        if let Err(problem) = play.step(step) {
            // what follows would be about another state than the case means
            play.fail(step.line, Engine::Loader, "this step", "it can be carried out".to_owned(), problem, String::new());
            break;
        }
    }
    if let Err(disagreement) = play.worker.check() {
        let sound = "every packet has one fate, and the counters say the same".to_owned();
        play.fail(case.line, Engine::Worker, "the whole case", sound, disagreement, String::new());
    }
    play.played
}

/// Plays many, on all cores; the results stand in the order of the cases.
pub fn play_all(cases: &[Case]) -> Vec<Played> {
    let next = AtomicUsize::new(0);
    let results: Vec<OnceLock<Played>> = cases.iter().map(|_| OnceLock::new()).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(cases.len().max(1));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                // Relaxed: the counter hands out indices; each result is published by its cell
                while let Some((case, result)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|index| cases.get(index).zip(results.get(index)))
                {
                    result.get_or_init(|| play(case));
                }
            });
        }
    });
    results.into_iter().map(|result| result.into_inner().expect("every case was played")).collect()
}

struct Play<'a> {
    case: &'a Case,
    state: State,
    worker: worker::Engine,
    /// Of the present state; none after a change.
    table: Option<Arc<Table>>,
    without_table: bool,
    /// Files whose refusal the case has told of.
    refused: BTreeSet<PathBuf>,
    played: Played,
}

impl Play<'_> {
    fn step(&mut self, step: &Step) -> Result<(), String> {
        match &step.what {
            What::Put(object) => {
                self.state.put(object)?;
                self.refused.remove(&object.file());
                self.changed();
            }
            What::Delete(file) => {
                self.state.delete(file)?;
                self.changed();
            }
            What::Forget(pod) => {
                self.state.forget(pod)?;
                self.changed();
            }
            What::Attach(pod, addresses) => {
                self.state.attach(pod, addresses)?;
                self.changed();
            }
            What::Node(addresses) => {
                self.state.node.clone_from(addresses);
                self.changed();
            }
            What::Keep | What::NoTable => {}
            What::Restart => {
                self.state.restart();
                self.worker.restart();
                self.changed();
            }
            What::Cut(connections) => {
                self.in_force()?;
                match self.worker.cut() {
                    cut if cut == *connections => self.met(Engine::Worker),
                    cut => self.fail(step.line, Engine::Worker, "connections cut", connections.to_string(), cut.to_string(), String::new()),
                }
            }
            What::Wait { ms } => self.worker.wait(*ms),
            What::Flows(flows) => {
                self.in_force()?;
                flows.iter().try_for_each(|flow| self.flow(flow))?;
            }
            What::Frames(lines) => {
                self.in_force()?;
                lines.iter().try_for_each(|line| self.frames(line))?;
            }
            What::Refused(file, wanted) => {
                let found = loader::refused(self.state.loaded(), file, wanted);
                self.refused.insert(file.clone());
                self.told(Engine::Loader, &file.display().to_string(), found);
            }
            What::Stored(policy, wanted) => {
                let found = loader::stored(&self.state.snapshot, policy, wanted);
                self.told(Engine::Loader, &policy.to_string(), found);
            }
            What::Images(lines) => {
                for line in lines {
                    let got = images::verdict(&mut self.state, &line.damage).map_err(|why| format!("line {}: {why}", line.line))?;
                    match got.contains(&line.refusal) {
                        true => self.met(Engine::Table),
                        false => self.fail(line.line, Engine::Table, &line.damage, line.refusal.clone(), got, String::new()),
                    }
                }
            }
        }
        Ok(())
    }

    fn changed(&mut self) {
        self.table = None;
    }

    /// Brings the present state into force: sandboxes first, then the table, as a node does.
    fn in_force(&mut self) -> Result<Arc<Table>, String> {
        if let Some(table) = &self.table {
            return Ok(table.clone());
        }
        // a case that does not know of a refusal would pass for the wrong reason
        let untold = self.state.loaded().errors.iter().find(|error| !self.refused.contains(&error.file));
        if let Some(error) = untold {
            return Err(format!("the case does not say that this is refused: {error}"));
        }
        let table = self.state.table()?;
        self.worker.attach(&self.state);
        if !self.without_table {
            self.worker.adopt(table.clone());
        }
        self.table = Some(table.clone());
        Ok(table)
    }

    fn flow(&mut self, flow: &Flow) -> Result<(), String> {
        let table = self.in_force()?;
        let questions = Question::all(flow, &self.state).map_err(|why| format!("line {}: {why}", flow.line))?;
        for question in questions {
            let oracle = engines::oracle(&self.state, &question);
            if flow.verdict == Verdict::Exempt {
                let (allowed, why) = engines::explained(&self.state, &question)?;
                self.verdict(flow, &question, Engine::Oracle, allowed, &why);
            } else {
                self.verdict(flow, &question, Engine::Oracle, oracle.agree(&flow.verdict), &oracle.to_string());
                let halves = engines::table(&self.state, &table, &question);
                if halves.egress.is_some() || halves.ingress.is_some() {
                    self.verdict(flow, &question, Engine::Table, halves.agree(&flow.verdict), &halves.to_string());
                }
            }
            let crossed = self.worker.flow(&self.state, &question, &flow.verdict, flow.until.as_ref());
            match crossed.map_err(|why| format!("line {}: {why}", flow.line))? {
                None => {}
                Some(wrong) if wrong.is_empty() => self.met(Engine::Worker),
                Some(wrong) => {
                    for Wrong { expected, got } in wrong {
                        let because = self.because(&question);
                        self.fail(flow.line, Engine::Worker, &question.to_string(), expected, got, because);
                    }
                }
            }
        }
        Ok(())
    }

    fn verdict(&mut self, flow: &Flow, question: &Question, engine: Engine, right: bool, got: &str) {
        if right {
            return self.met(engine);
        }
        let because = self.because(question);
        self.fail(flow.line, engine, &question.to_string(), flow.verdict.to_string(), got.to_owned(), because);
    }

    fn because(&self, question: &Question) -> String {
        engines::explained(&self.state, question).map_or_else(|why| why, |(_, why)| why)
    }

    fn frames(&mut self, line: &FrameLine) -> Result<(), String> {
        let located = |why: String| format!("line {}: {why}", line.line);
        let parsed = self.worker.frame(&self.state, &line.pod, line.direction, &numbered(&line.layers)).map_err(located)?;
        match self.worker.frames(&self.state, line).map_err(located)? {
            None => self.met(Engine::Worker),
            Some(Wrong { expected, got }) => {
                let because = match sluice_flow::parse_frame(&parsed) {
                    Ok(packet) => format!("the frame is {packet:?}"),
                    Err(refusal) => format!("the parser refuses it: {refusal}"),
                };
                self.fail(line.line, Engine::Worker, &format!("{} {}", line.pod, line.text), expected, got, because);
            }
        }
        line.like.as_ref().map_or(Ok(()), |like| self.alike(line, &parsed, like).map_err(located))
    }

    /// The frame has the key of the plain packet, of which oracle and table say the same as the worker.
    fn alike(&mut self, line: &FrameLine, bytes: &[u8], like: &[frame::Layer]) -> Result<(), String> {
        let plain = self.worker.frame(&self.state, &line.pod, line.direction, &numbered(like))?;
        let plain = sluice_flow::parse_frame(&plain).map_err(|refusal| format!("the plain packet is refused: {refusal}"))?;
        let Ok(packet) = sluice_flow::parse_frame(bytes) else { return Ok(()) };
        let key = |packet: &sluice_flow::Packet| (packet.src, packet.dst, packet.protocol, packet.sport, packet.dport);
        if key(&packet) != key(&plain) {
            let (expected, got) = (format!("judged as {plain:?}"), format!("judged as {packet:?}"));
            self.fail(line.line, Engine::Worker, &line.text, expected, got, String::new());
            return Ok(());
        }
        let allowed = match line.outcome.as_slice() {
            [(_, Fate::Pass)] => true,
            [(_, Fate::Drop(DropReason::PolicyDenied))] => false,
            _ => return Err("only a packet that passes or is denied is judged as another".to_owned()),
        };
        let port = if packet.protocol.has_ports() { packet.dport } else { 0 };
        let (remote, index) = (if line.direction == Direction::Egress { packet.dst } else { packet.src }, self.port(&line.pod)?);
        let oracle = sluice_policy::Oracle::new(&self.state.snapshot);
        let judged = oracle.judge(&line.pod, line.direction, remote.into(), packet.protocol, port).allowed;
        let found = self.in_force()?.lookup(index, line.direction, Addr::from(std::net::IpAddr::from(remote)), packet.protocol, port);
        for (engine, says) in [(Engine::Oracle, judged), (Engine::Table, found.is_allow())] {
            match says == allowed {
                true => self.met(engine),
                false => self.fail(line.line, engine, &line.text, format!("allowed: {allowed}"), format!("allowed: {says}"), String::new()),
            }
        }
        Ok(())
    }

    fn port(&self, pod: &ObjectName) -> Result<PortIndex, String> {
        Ok(self.state.endpoint(pod).ok_or_else(|| format!("{pod} is not attached here"))?.port)
    }

    fn told(&mut self, engine: Engine, asked: &str, found: Vec<loader::Found>) {
        for loader::Found { line, wrong } in found {
            match wrong {
                None => self.met(engine),
                Some((expected, got)) => self.fail(line, engine, asked, expected, got, String::new()),
            }
        }
    }

    fn met(&mut self, engine: Engine) {
        self.played.met[engine as usize] += 1;
    }

    fn fail(&mut self, line: u32, engine: Engine, asked: &str, expected: String, got: String, because: String) {
        let (file, asked) = (self.case.file.clone(), asked.to_owned());
        self.played.failures.push(Failure { file, line, engine, asked, expected, got, because });
    }
}

/// The first of the frames that the layers stand for.
fn numbered(layers: &[frame::Layer]) -> Vec<frame::Layer> {
    layers.iter().map(|layer| layer.numbered(0)).collect()
}
