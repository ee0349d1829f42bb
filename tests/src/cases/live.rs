//! What of a case can be asked in a real cluster: its policies as they follow one another, and its flows between pods over
//! TCP and UDP, and frames that leave a pod and are dropped. Pods get their addresses from the cluster, so a case that speaks of addresses is not asked.

use super::flow::{Asked, End, Flow, Verdict};
use super::frame::{self, Surroundings};
use super::lines::{Fate, FrameLine, Way};
use super::objects::Object;
use super::text::{Case, Step, What};
use sluice_flow::{DropReason, ObjectName, Protocol};
use std::net::IpAddr;
use std::path::PathBuf;

/// A case for real pods.
#[derive(Debug, Clone)]
pub struct LiveCase {
    /// Where it stands.
    pub file: PathBuf,
    /// Where it begins.
    pub line: u32,
    /// Its promise.
    pub title: String,
    /// Namespaces and pods, in YAML documents.
    pub cluster: String,
    /// Policies and flows, in order.
    pub steps: Vec<LiveStep>,
}

/// One step of it.
#[derive(Debug, Clone)]
pub enum LiveStep {
    /// A policy is written, in YAML.
    Apply(String),
    /// A policy is deleted.
    Delete(ObjectName),
    /// These flows are tried, in both families.
    Flows(Vec<LiveFlow>),
    /// These frames leave their pods by a raw socket, in this order.
    Frames(Vec<LiveFrame>),
}

/// A frame that leaves a pod and should go no further.
#[derive(Debug, Clone)]
pub struct LiveFrame {
    /// The expectation's line.
    pub line: u32,
    /// Whose device it leaves by.
    pub pod: String,
    /// As the case has it.
    pub text: String,
    /// Sent so often.
    pub repeat: usize,
    /// Dropped under this name; what passes is sent only because what follows may depend on it.
    pub reason: Option<DropReason>,
    layers: Vec<frame::Layer>,
}

impl LiveFrame {
    /// Its bytes. `address` tells an address of a pod or of `node` in IPv4 or not, `mac` that of a pod or of `gateway`.
    ///
    /// # Errors
    /// The frame names what is not there.
    pub fn bytes(
        &self,
        index: usize,
        address: &dyn Fn(&str, bool) -> Result<IpAddr, String>,
        mac: &dyn Fn(&str) -> Result<[u8; 6], String>,
    ) -> Result<Vec<u8>, String> {
        let layers: Vec<frame::Layer> = self.layers.iter().map(|layer| layer.numbered(index)).collect();
        let macs = (mac(&self.pod)?, mac("gateway")?);
        frame::encode(&layers, &Surroundings { macs, pod: &self.pod, leaves: true, address, mac })
    }
}

/// A connection between two pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveFlow {
    /// The expectation's line.
    pub line: u32,
    /// `x/client`.
    pub src: String,
    /// `x/web`.
    pub dst: String,
    /// TCP or else UDP.
    pub tcp: bool,
    /// The destination's.
    pub port: u16,
    /// Whether it is reached.
    pub reached: bool,
}

/// The cases marked `live`.
///
/// # Errors
/// A marked case that a real cluster cannot play, and why.
pub fn live_cases(cases: &[Case]) -> Result<Vec<LiveCase>, String> {
    cases.iter().filter(|case| case.live).map(live_case).collect()
}

impl Case {
    /// How many flows the live test tries, in each family.
    pub(super) fn live_flows(&self) -> u64 {
        let flows = self.steps.iter().filter(|_| self.live).filter_map(|step| match &step.what {
            What::Flows(flows) => Some(flows.iter().flat_map(live_flows).count() as u64),
            What::Frames(lines) => Some(lines.iter().filter_map(live_frame).filter(|frame| frame.reason.is_some()).count() as u64),
            _ => None,
        });
        flows.sum()
    }
}

fn live_case(case: &Case) -> Result<LiveCase, String> {
    let here = |step: &Step, why: &str| format!("{}:{}: a live case {why}", case.file.display(), step.line);
    let mut live =
        LiveCase { file: case.file.clone(), line: case.line, title: case.title.clone(), cluster: String::new(), steps: Vec::new() };
    for step in &case.steps {
        match &step.what {
            What::Put(object @ (Object::Namespace { .. } | Object::Pod(_))) if live.steps.is_empty() => {
                live.cluster.push_str("---\n");
                live.cluster.push_str(&object.manifest(&[], false));
                live.cluster.push('\n');
            }
            What::Put(object @ (Object::Policy { .. } | Object::Manifest { .. })) => {
                live.steps.push(LiveStep::Apply(object.manifest(&[], false)))
            }
            What::Delete(file) => {
                let name = file.strip_prefix("policy").ok().and_then(|name| name.to_str()?.strip_suffix(".yaml"));
                live.steps.push(LiveStep::Delete(ObjectName::parse(name.ok_or_else(|| here(step, "deletes policies only"))?)));
            }
            What::Frames(lines) => {
                let frames: Option<Vec<LiveFrame>> = lines.iter().map(live_frame).collect();
                let frames = frames.ok_or_else(|| here(step, "has frames that leave pods, and one fate for each line"))?;
                live.steps.push(LiveStep::Frames(frames));
            }
            What::Flows(flows) => live.steps.push(LiveStep::Flows(flows.iter().flat_map(live_flows).collect())),
            // the loader's own answer is the same there
            What::Node(_) | What::Stored(..) => {}
            _ => return Err(here(step, "has pods, then policies, flows and frames, nothing else")),
        }
    }
    Ok(live)
}

fn live_frame(line: &FrameLine) -> Option<LiveFrame> {
    let reason = match line.outcome.as_slice() {
        [(_, Fate::Drop(reason))] => Some(*reason),
        [_] => None,
        _ => return None,
    };
    let FrameLine { line: number, pod, text, repeat, layers, .. } = line;
    let (pod, text, layers) = (pod.to_string(), text.clone(), layers.clone());
    (line.way == Way::Leaves).then_some(LiveFrame { line: *number, pod, text, repeat: *repeat, reason, layers })
}

/// Those between two pods on a port that both ends of the cluster know.
fn live_flows(flow: &Flow) -> Vec<LiveFlow> {
    let (End::Pod(src, None), End::Pod(dst, None)) = (&flow.src, &flow.dst) else { return Vec::new() };
    let one = |asked: &Asked| match *asked {
        Asked::Port(protocol @ (Protocol::TCP | Protocol::UDP), port) => Some(LiveFlow {
            line: flow.line,
            src: src.to_string(),
            dst: dst.to_string(),
            tcp: protocol == Protocol::TCP,
            port,
            reached: !matches!(flow.verdict, Verdict::Deny(..)),
        }),
        _ => None,
    };
    flow.asked.iter().filter_map(one).collect()
}
