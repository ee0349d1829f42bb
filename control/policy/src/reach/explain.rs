//! Which rule came nearest where a pair is denied.

use super::answer::Pair;
use super::ends::Survey;
use super::ports::{Ports, question};
use crate::oracle::{NearMiss, Oracle, Side};
use sluice_flow::{Direction, Family};

/// Says which rule came nearest, for pairs of a survey.
#[derive(Debug)]
pub struct Explainer<'a> {
    survey: &'a Survey,
    oracle: Oracle<'a>,
    /// Egress and ingress of each end that is pods.
    sides: Vec<Option<[Side<'a>; 2]>>,
}

impl Explainer<'_> {
    /// Which rule came nearest to allowing the first of the `asked` ports, which `direction` denies. `None` where that
    /// end is no pod, or has no rule at all.
    pub fn nearest_miss(&self, pair: Pair, direction: Direction, family: Family, asked: &Ports) -> Option<NearMiss> {
        let (own, other, index) = match direction {
            Direction::Egress => (pair.from, pair.to, 0),
            Direction::Ingress => (pair.to, pair.from, 1),
        };
        let side = &self.sides[own as usize].as_ref()?[index];
        let remote = self.survey.ends[other as usize].speakers[0].as_ref()?.address(family)?;
        let (protocol, port) = question(asked.first_place()?, family == Family::V4);
        self.oracle.nearest_miss(side, remote, protocol, port)
    }
}

impl Survey {
    /// Prepares questions about the only state of this survey.
    pub fn explainer(&self) -> Explainer<'_> {
        let oracle = Oracle::new(&self.snapshots[0]);
        let sides = self.ends.iter().map(|end| {
            let pod = end.speakers[0].as_ref()?.pod.as_ref()?;
            Some([oracle.side(pod, Direction::Egress), oracle.side(pod, Direction::Ingress)])
        });
        let sides = sides.collect();
        Explainer { survey: self, oracle, sides }
    }
}
