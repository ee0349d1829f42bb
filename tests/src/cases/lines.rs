//! Lines of `frames` and `images`: what is sent or damaged, and what should become of it.

use super::flow::reason_of;
use super::frame;
use super::text::object;
use sluice_flow::{Direction, DropReason, ObjectName};
use std::net::IpAddr;

/// A line of `frames`: `x/web leaves | LAYERS | OUTCOME`.
#[derive(Debug, Clone)]
pub(super) struct FrameLine {
    pub(super) line: u32,
    pub(super) pod: ObjectName,
    pub(super) direction: Direction,
    pub(super) way: Way,
    pub(super) repeat: usize,
    pub(super) layers: Vec<frame::Layer>,
    pub(super) text: String,
    pub(super) outcome: Fates,
    /// The plain packet as which it is judged.
    pub(super) like: Option<Vec<frame::Layer>>,
}

/// Which hook of the node a frame meets, and how it came there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Leaves,
    Enters,
    /// It left another pod deferred.
    EntersDeferred,
    /// Its source was this before the node translated it.
    EntersFrom(IpAddr),
    /// It left the pod deferred, and goes out by the uplink.
    Exits,
}

/// How many frames of a line meet which fate.
pub(super) type Fates = Vec<(usize, Fate)>;

/// What becomes of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// It goes on to where it was going.
    Pass,
    /// It goes on, to this node or to be judged where it departs.
    Deferred,
    Drop(DropReason),
}

/// A line of `images`: `DAMAGE: REFUSAL`.
#[derive(Debug, Clone)]
pub(super) struct ImageLine {
    pub(super) line: u32,
    pub(super) damage: String,
    pub(super) refusal: String,
}

impl FrameLine {
    pub(super) fn read(line: u32, text: &str) -> Result<Self, String> {
        let columns: Vec<&str> = text.split('|').map(str::trim).collect();
        let [hook, layers, outcome] = columns.as_slice() else { return Err("expected POD leaves|enters | LAYERS | OUTCOME".to_owned()) };
        let (pod, direction, way) = match hook.split_once(' ').map(|(pod, way)| (pod, way.trim())) {
            Some((pod, "leaves")) => (pod, Direction::Egress, Way::Leaves),
            Some((pod, "enters")) => (pod, Direction::Ingress, Way::Enters),
            Some((pod, "enters deferred")) => (pod, Direction::Ingress, Way::EntersDeferred),
            Some((pod, "exits")) => (pod, Direction::Egress, Way::Exits),
            Some((pod, way)) if way.starts_with("enters from ") => {
                let origin = way["enters from ".len()..].parse().map_err(|_| format!("{way:?}: expected an address"))?;
                (pod, Direction::Ingress, Way::EntersFrom(origin))
            }
            _ => return Err(format!("{hook:?}: expected `x/web leaves`, `enters`, `enters deferred`, `enters from ADDRESS` or `exits`")),
        };
        let (repeat, layers) = match layers.split_once(" x ") {
            Some((count, layers)) => (count.trim().parse().map_err(|_| format!("{count:?} is no number of frames"))?, layers),
            None => (1, *layers),
        };
        let (outcome, like) = match outcome.split_once(" as ") {
            Some((outcome, like)) => (outcome, Some(frame::read(like)?)),
            None => (*outcome, None),
        };
        Ok(Self {
            line,
            pod: object(pod)?,
            direction,
            way,
            repeat,
            layers: frame::read(layers)?,
            text: layers.to_owned(),
            outcome: fates(outcome, repeat)?,
            like,
        })
    }
}

/// `passes`, `drop malformed`, `deferred`; of many frames `8192 pass, 808 drop connections_full`.
fn fates(text: &str, frames: usize) -> Result<Fates, String> {
    let mut fates = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (count, fate) = match part.split_once(' ').and_then(|(count, fate)| Some((count.parse().ok()?, fate))) {
            Some((count, fate)) => (count, fate),
            None => (frames, part),
        };
        let fate = match fate.strip_prefix("drop ") {
            Some(reason) => Fate::Drop(reason_of(reason)?),
            None if matches!(fate, "pass" | "passes") => Fate::Pass,
            None if fate == "deferred" => Fate::Deferred,
            None => return Err(format!("{fate:?}: expected `passes`, `deferred` or `drop REASON`")),
        };
        fates.push((count, fate));
    }
    if fates.iter().map(|(count, _)| count).sum::<usize>() != frames {
        return Err(format!("{text:?} does not account for {frames} frames"));
    }
    fates.sort_by_key(|(_, fate)| *fate);
    Ok(fates)
}

/// Fates in words.
pub(super) fn fates_text(fates: &Fates) -> String {
    let word = |fate: &Fate| match fate {
        Fate::Pass => "pass".to_owned(),
        Fate::Deferred => "deferred".to_owned(),
        Fate::Drop(reason) => format!("drop {reason}"),
    };
    let one = |(count, fate): &(usize, Fate)| if fates.len() == 1 { word(fate) } else { format!("{count} {}", word(fate)) };
    fates.iter().map(one).collect::<Vec<_>>().join(", ")
}

impl ImageLine {
    pub(super) fn read(line: u32, text: &str) -> Result<Self, String> {
        let (damage, refusal) = text.split_once(": ").ok_or("expected DAMAGE: REFUSAL")?;
        Ok(Self { line, damage: damage.trim().to_owned(), refusal: refusal.trim().to_owned() })
    }
}
