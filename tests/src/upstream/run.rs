//! A lab in which rows are played.

use super::rows::{Expected, Matrix, Row, Stage, dir};
use super::sctp::Sctp;
use anyhow::{Context, Result};
use serde::Serialize;
use sluice_flow::{Family, Protocol};
use sluice_lab::{Document, Kind, Lab, ObjectRef, agents, parse_documents, probe, read_documents};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// A denial is a drop, so each costs this much.
const DENIED_AFTER: Duration = Duration::from_millis(500);
/// Upstream's own limit for a connection that should work.
const ALLOWED_WITHIN: Duration = Duration::from_secs(3);
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
/// Questions that are asked at once.
const AT_ONCE: usize = 40;

/// What came of a row.
#[derive(Debug, Clone, Serialize)]
pub struct Played {
    /// Upstream's number.
    pub number: u32,
    /// Upstream's title.
    pub title: String,
    /// Questions that were asked.
    pub probes: usize,
    /// From the last write to the adoption by all workers, of its slowest stage.
    pub in_force_ms: f64,
    /// With everything.
    pub took_s: f64,
    /// What was not as it should be; empty: the row passed.
    pub wrong: Vec<String>,
}

/// The pods, their services and their SCTP.
pub struct Suite<'a> {
    lab: &'a Lab,
    services: BTreeMap<String, Vec<IpAddr>>,
    originals: Vec<Document>,
    sctp: Sctp,
}

impl<'a> Suite<'a> {
    /// In a lab of `cluster.yaml`.
    ///
    /// # Errors
    /// The lab is not of it.
    pub fn new(lab: &'a Lab) -> Result<Self> {
        let originals = read_documents(&[dir().join("cluster.yaml")])?;
        let pods: Vec<String> = originals
            .iter()
            .filter(|document| document.object.kind == Kind::Pod)
            .map(|document| document.object.name.to_string())
            .collect();
        let service = |pod: &String| {
            let (namespace, name) = pod.split_once('/').context("namespace and name")?;
            Ok((pod.clone(), lab.service(&format!("{namespace}/s-{name}"))?.addresses))
        };
        let services = pods.iter().map(service).collect::<Result<_>>()?;
        let sctp = Sctp::start(lab, &pods)?;
        Ok(Self { lab, services, originals, sctp })
    }

    /// Plays a row, and puts everything back.
    ///
    /// # Errors
    /// The lab does not obey.
    pub fn play(&self, row: &Row) -> Result<Played> {
        let began = Instant::now();
        let mut played =
            Played { number: row.number, title: row.title.clone(), probes: 0, in_force_ms: 0.0, took_s: 0.0, wrong: Vec::new() };
        let mut made: Vec<ObjectRef> = Vec::new();
        for (index, stage) in row.stages.iter().enumerate() {
            let in_force = self.change(stage, &mut made).with_context(|| format!("row {}, stage {}", row.number, index + 1))?;
            played.in_force_ms = played.in_force_ms.max(in_force.as_secs_f64() * 1e3);
            for matrix in &stage.matrices {
                played.probes += 2 * matrix.cells.len();
                let place = if row.stages.len() > 1 { format!("stage {}, ", index + 1) } else { String::new() };
                let wrong = self.ask(matrix)?;
                played.wrong.extend(wrong.into_iter().map(|what| format!("{place}{}/{}: {what}", matrix.port, matrix.protocol)));
            }
        }
        let (policies, changed): (Vec<_>, Vec<_>) = made.into_iter().partition(|object| object.kind == Kind::NetworkPolicy);
        if !policies.is_empty() {
            self.lab.delete(&policies)?;
        }
        let restored: Vec<Document> = self.originals.iter().filter(|document| changed.contains(&document.object)).cloned().collect();
        if !restored.is_empty() {
            self.lab.apply(&restored)?;
        }
        played.took_s = began.elapsed().as_secs_f64();
        Ok(played)
    }

    fn change(&self, stage: &Stage, made: &mut Vec<ObjectRef>) -> Result<Duration> {
        let mut in_force = Duration::ZERO;
        let documents = parse_documents(&self.with_addresses(&stage.yaml)?)?;
        if !documents.is_empty() {
            made.extend(
                documents.iter().map(|document| document.object.clone()).filter(|object| !made.contains(object)).collect::<Vec<_>>(),
            );
            in_force = self.lab.apply(&documents)?.in_force_after.unwrap_or_default();
        }
        if !stage.deleted.is_empty() {
            in_force = in_force.max(self.lab.delete(&stage.deleted)?.in_force_after.unwrap_or_default());
            made.retain(|object| !stage.deleted.contains(object));
        }
        Ok(in_force)
    }

    /// `$xb4` and `$xb6` are where x/b is.
    fn with_addresses(&self, yaml: &str) -> Result<String> {
        let mut yaml = yaml.to_owned();
        for pod in self.services.keys() {
            for (family, digit) in FAMILIES.into_iter().zip(["4", "6"]) {
                let sign = format!("${}{digit}", pod.replace('/', ""));
                if yaml.contains(&sign) {
                    yaml = yaml.replace(&sign, &self.lab.pod_address(pod, family)?.to_string());
                }
            }
        }
        Ok(yaml)
    }

    /// All cells in both families, many at once; what is wrong of them.
    fn ask(&self, matrix: &Matrix) -> Result<Vec<String>> {
        let questions: Vec<(&Expected, Family)> =
            FAMILIES.into_iter().flat_map(|family| matrix.cells.iter().map(move |cell| (cell, family))).collect();
        let mut wrong = Vec::new();
        for some in questions.chunks(AT_ONCE) {
            let answers: Vec<Result<Option<String>>> = std::thread::scope(|scope| {
                let asked: Vec<_> = some.iter().map(|(cell, family)| scope.spawn(|| self.ask_one(matrix, cell, *family))).collect();
                asked.into_iter().map(|asked| asked.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
            });
            for answer in answers {
                wrong.extend(answer?);
            }
        }
        Ok(wrong)
    }

    fn ask_one(&self, matrix: &Matrix, cell: &Expected, family: Family) -> Result<Option<String>> {
        let Matrix { port, protocol, .. } = *matrix;
        let (src, dst) = (self.lab.pod_address(&cell.from, family)?, self.lab.pod_address(&cell.to, family)?);
        let told = agents::explain(self.lab.layout(), &src.to_string(), &dst.to_string(), port, &protocol.to_string())?;
        if told.allowed != cell.reached {
            return Ok(Some(format!(
                "{family:?} {} -> {}: the row says {}, the oracle the opposite",
                cell.from,
                cell.to,
                word(cell.reached)
            )));
        }
        let of_family = |address: &&IpAddr| address.is_ipv4() == (family == Family::V4);
        let address = self.services[&cell.to].iter().find(of_family).context("a service of both families")?;
        let service = SocketAddr::new(*address, port);
        let limit = if cell.reached { ALLOWED_WITHIN } else { DENIED_AFTER };
        let reached = match protocol {
            Protocol::TCP => self.lab.in_pod(&cell.from, || Ok(probe::tcp(service, limit).outcome.reached()))?,
            Protocol::UDP => self.lab.in_pod(&cell.from, || Ok(probe::udp(service, limit).outcome.reached()))?,
            _ => self.sctp.reaches(&cell.from, src, service, limit)?,
        };
        Ok((reached != cell.reached).then(|| {
            let (from, to) = (&cell.from, &cell.to);
            format!("{family:?} {from} -> {to} by {service}: should be {}, was {}", word(cell.reached), word(reached))
        }))
    }
}

fn word(reached: bool) -> &'static str {
    if reached { "reached" } else { "denied" }
}
