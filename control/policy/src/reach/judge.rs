//! Every pair of a survey's ends, judged by the oracle.

use super::answer::{Cell, Half, Interned, Isolation, Pair, Reach, Span};
use super::ends::{End, EndKind, Speaker, Survey};
use super::merge::merge_blocks;
use super::ports::{LAST, OTHER, place, question};
use super::{Options, PAIRS_MAX, PEERS_MAX, ReachError, State, ends};
use crate::ObjectName;
use crate::oracle::{Oracle, Rule, Side};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sluice_flow::{Direction, Family, Protocol};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Who may reach whom in `state`. `progress` is told how many of how many pairs are judged, now and then.
///
/// # Errors
/// When there are more than [`PAIRS_MAX`] pairs or their rules have more than [`PEERS_MAX`] peers, a selection finds nothing, or pods without an address find no room.
///
/// Cost: about a microsecond for each pair and each rule of its two ends.
pub fn reach(state: State<'_>, options: &Options, mut progress: impl FnMut(u64, u64)) -> Result<(Survey, Reach), ReachError> {
    let mut survey = ends::survey(&[state], options)?;
    let pairs = count_pairs(&survey)?;
    let mut reach = [judge(&survey, 0, &mut |done| progress(done, pairs))?];
    merge_blocks(&mut survey, &mut reach);
    let [reach] = reach;
    Ok((survey, reach))
}

impl Survey {
    fn wants(&self, from: usize, to: usize) -> bool {
        let (source, destination) = (&self.ends[from], &self.ends[to]);
        let is_itself = from == to && matches!(source.kind, EndKind::Pods { is_single: true, .. });
        (self.selected[from] || self.selected[to]) && (source.is_pods() || destination.is_pods()) && !is_itself
    }
}

/// Refuses more pairs than can be judged in good time.
pub(super) fn count_pairs(survey: &Survey) -> Result<u64, ReachError> {
    let (ends, pods) = (survey.ends.len() as u64, survey.ends.iter().filter(|end| end.is_pods()).count() as u64);
    let chosen = survey.selected.iter().filter(|selected| **selected).count() as u64;
    let pairs = (ends * ends - (ends - chosen) * (ends - chosen)).min(ends * ends - (ends - pods) * (ends - pods));
    if pairs > PAIRS_MAX {
        return Err(ReachError::TooManyPairs { ends: survey.ends.len(), pairs, max: PAIRS_MAX });
    }
    Ok(pairs)
}

/// Judges every pair of ends that the state of this index has.
pub(super) fn judge(survey: &Survey, state: usize, progress: &mut dyn FnMut(u64)) -> Result<Reach, ReachError> {
    let oracle = Oracle::new(&survey.snapshots[state]);
    let mut reach = Reach::default();
    let mut sides = |direction| -> Vec<Option<Asked<'_>>> {
        survey.ends.iter().map(|end| Asked::new(&oracle, end, state, direction, &mut reach.isolations)).collect()
    };
    let (leaving, entering) = (sides(Direction::Egress), sides(Direction::Ingress));
    count_peers(survey, &leaving, &entering)?;
    for (from, source) in survey.ends.iter().enumerate() {
        let Some(source) = &source.speakers[state] else { continue };
        for (to, destination) in survey.ends.iter().enumerate() {
            let Some(destination) = destination.speakers[state].as_ref().filter(|_| survey.wants(from, to)) else { continue };
            let answers = [Family::V4, Family::V6].map(|family| {
                let (src, dst) = (source.address(family)?, destination.address(family)?);
                let egress = leaving[from].as_ref().map(|asked| asked.half(&oracle, dst));
                let ingress = entering[to].as_ref().map(|asked| asked.half(&oracle, src));
                Some((egress.map(|half| reach.halves.add(half)), ingress.map(|half| reach.halves.add(half))))
            });
            let cell = Cell { ways: reach.ways(answers) };
            let index = |end: usize| u32::try_from(end).expect("pairs are bounded");
            let pair = Pair { from: index(from), to: index(to), cell: reach.cells.add(cell) };
            reach.pairs.push(pair);
        }
        progress(reach.pairs.len() as u64);
    }
    Ok(reach)
}

/// Refuses rules that are too long for the number of pairs.
fn count_peers(survey: &Survey, leaving: &[Option<Asked<'_>>], entering: &[Option<Asked<'_>>]) -> Result<(), ReachError> {
    let (ends, chosen) = (survey.ends.len(), survey.selected.iter().filter(|selected| **selected).count());
    let sides = leaving.iter().zip(&survey.selected).chain(entering.iter().zip(&survey.selected));
    let peers = sides.map(|(asked, selected)| {
        let others = if *selected { ends } else { chosen };
        asked.as_ref().map_or(0, |asked| asked.side.peers() as u64 * others as u64)
    });
    let peers = peers.sum();
    if peers > PEERS_MAX { Err(ReachError::TooManyPeers { peers, max: PEERS_MAX }) } else { Ok(()) }
}

/// One pod's policies in one direction, ready to be asked.
struct Asked<'a> {
    pod: &'a ObjectName,
    side: Side<'a>,
    isolation: u32,
    direction: Direction,
}

impl<'a> Asked<'a> {
    fn new(oracle: &Oracle<'a>, end: &'a End, state: usize, direction: Direction, isolations: &mut Interned<Isolation>) -> Option<Self> {
        let Some(Speaker { pod: Some(pod), .. }) = &end.speakers[state] else { return None };
        let side = oracle.side(pod, direction);
        let isolating = side.isolating().cloned().collect();
        let rules = side.rules().iter().map(Rule::name).collect();
        let isolation = isolations.add(Isolation { direction, isolating, rules });
        Some(Self { pod, side, isolation, direction })
    }

    /// What the policies say about connections with `remote`: one question for each stretch of ports between bounds.
    fn half(&self, oracle: &Oracle<'a>, remote: IpAddr) -> Half {
        let isolation = self.isolation;
        if !self.side.isolated() {
            let span = Span { first: 0, last: LAST, rule: None };
            let is_known = oracle.allows(&self.side, remote, Protocol::TCP, 0);
            return Half { isolation, spans: is_known.then_some(span).into_iter().collect() };
        }
        // No other rule can allow anything, so no other rule's bounds matter. Most pairs end here.
        let matching: Vec<&Rule<'_>> = self.side.rules().iter().filter(|rule| oracle.peers_match(rule, remote)).collect();
        if matching.is_empty() {
            return Half { isolation, spans: Vec::new() };
        }
        let mut spans: Vec<Span> = Vec::new();
        let bounds = self.bounds(oracle, &matching, remote);
        for (index, &first) in bounds.iter().enumerate() {
            let last = bounds.get(index + 1).map_or(LAST, |next| next - 1);
            let (protocol, port) = question(first, remote.is_ipv4());
            let Some(rule) = oracle.first_allowing(&self.side, remote, protocol, port) else { continue };
            let number = self.side.rules().iter().position(|one| std::ptr::eq(one, rule)).expect("a rule of this side");
            let rule = Some(u32::try_from(number).expect("rules of one pod fit"));
            match spans.last_mut().filter(|before| before.last + 1 == first && before.rule == rule) {
                Some(before) => before.last = last,
                None => spans.push(Span { first, last, rule }),
            }
        }
        Half { isolation, spans }
    }

    /// The places where a verdict may change: where a protocol begins, and where an entry's ports begin and end.
    fn bounds(&self, oracle: &Oracle<'a>, rules: &[&Rule<'_>], remote: IpAddr) -> Vec<u32> {
        let mut bounds: BTreeSet<u32> = Protocol::WITH_PORTS.into_iter().map(|protocol| place(protocol, 0)).collect();
        bounds.insert(OTHER);
        let mut add = |protocol, first: i32, last: i32| {
            bounds.extend(u16::try_from(first).ok().map(|port| place(protocol, port)));
            bounds.extend(u16::try_from(last).ok().map(|port| place(protocol, port) + 1));
        };
        for entry in rules.iter().flat_map(|rule| rule.ports()) {
            let Some(protocol) = Protocol::from_name(entry.protocol.as_deref().unwrap_or("TCP")) else { continue };
            match (&entry.port, entry.end_port) {
                (None, _) => {}
                (Some(IntOrString::Int(first)), last) => add(protocol, *first, last.unwrap_or(*first)),
                (Some(IntOrString::String(name)), _) => {
                    let destinations = match self.direction {
                        Direction::Ingress => vec![self.pod],
                        Direction::Egress => oracle.pods_at(remote).to_vec(),
                    };
                    let numbers = destinations.into_iter().flat_map(|pod| oracle.named_ports(pod, name, protocol));
                    numbers.for_each(|number| add(protocol, number, number));
                }
            }
        }
        bounds.into_iter().collect()
    }
}
