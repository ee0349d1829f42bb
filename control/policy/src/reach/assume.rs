//! Addresses for pods that have none, so that they can be judged.
//!
//! A template has no address, and an ipBlock looks at nothing else. The choice is one that is true of most clusters:
//! an address that as few blocks as possible hold, and a private one among those. So a peer
//! `0.0.0.0/0 except 10.0.0.0/8` is "the world outside" and no such pod; one without excepts holds every pod. Who knows
//! better says where the pods live.

use super::blocks::{Blocks, address, family_of};
use super::{ReachError, State};
use crate::oracle::{Oracle, rules};
use crate::pod::{PodIp, PodIps};
use crate::{ObjectName, Snapshot};
use ipnet::IpNet;
use sluice_flow::{Direction, Family};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Where pods usually live: the first is preferred. Sources: RFC 1918, RFC 6598, RFC 4193; then anything at all.
const LIKELY: [&str; 7] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "0.0.0.0/0", "fd00::/8", "::/0"];

/// What was assumed about pods without an address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assumption {
    /// How many pods there are without an address, over all states; each counts once.
    pub pods: usize,
    /// The blocks that hold the addresses that were assumed, as their policies write them.
    pub inside: Vec<String>,
    /// Whether the addresses lie where the caller said.
    pub is_stated: bool,
}

/// A block with its excepts.
struct Block {
    cidr: IpNet,
    excepts: Vec<IpNet>,
}

impl Block {
    fn holds(&self, address: IpAddr) -> bool {
        self.cidr.contains(&address) && !self.excepts.iter().any(|except| except.contains(&address))
    }

    fn text(&self) -> String {
        let excepts: Vec<String> = self.excepts.iter().map(IpNet::to_string).collect();
        if excepts.is_empty() { self.cidr.to_string() } else { format!("{} except {}", self.cidr, excepts.join(", ")) }
    }
}

/// Copies of the states in which every pod that can have an address has one. A pod gets the same address in each state.
pub(super) fn assume(states: &[State<'_>], blocks: &Blocks, cidrs: &[IpNet]) -> Result<(Vec<Snapshot>, Assumption), ReachError> {
    let mut taken: BTreeSet<IpAddr> = BTreeSet::new();
    let lacking: Vec<BTreeSet<ObjectName>> = states
        .iter()
        .map(|state| {
            let oracle = Oracle::new(state.snapshot);
            taken.extend(oracle.addresses());
            state.snapshot.pods.keys().filter(|pod| oracle.is_peer(pod) && oracle.addresses_of(pod).is_empty()).cloned().collect()
        })
        .collect();
    let pods: BTreeSet<&ObjectName> = lacking.iter().flatten().collect();
    let mut assumption = Assumption { pods: pods.len(), inside: Vec::new(), is_stated: !cidrs.is_empty() };
    let written = written_blocks(states);
    let mut given: BTreeMap<&ObjectName, PodIps> = BTreeMap::new();
    for family in families(blocks, &taken, cidrs).into_iter().filter(|_| !pods.is_empty()) {
        let addresses = choose(family, blocks, &written, cidrs, &mut taken, pods.len())?;
        let holding = written.iter().filter(|block| addresses.iter().any(|address| block.holds(*address)));
        assumption.inside.extend(holding.map(Block::text));
        for (pod, address) in pods.iter().zip(addresses) {
            given.entry(pod).or_default().push(PodIp { ip: address.to_string().into() });
        }
    }
    let mut snapshots: Vec<Snapshot> = states.iter().map(|state| state.snapshot.clone()).collect();
    for (snapshot, lacking) in snapshots.iter_mut().zip(&lacking) {
        for name in lacking {
            let (pod, addresses) = (snapshot.pods.get_mut(name).expect("it lacks an address"), given.get(name));
            Arc::make_mut(pod).status.get_or_insert_default().pod_ips = addresses.cloned();
        }
    }
    Ok((snapshots, assumption))
}

/// A copy of one state in which every pod that can have an address has one, for questions about single pairs.
///
/// # Errors
/// [`ReachError`] when `pod_cidrs` have no room for all of them.
pub fn with_addresses(snapshot: &Snapshot, pod_cidrs: &[IpNet]) -> Result<(Snapshot, Assumption), ReachError> {
    let state = State { snapshot, workloads: &BTreeMap::new() };
    let (mut snapshots, assumption) = assume(&[state], &Blocks::of([snapshot]), pod_cidrs)?;
    Ok((snapshots.remove(0), assumption))
}

/// Each block once, in the order of its text.
fn written_blocks(states: &[State<'_>]) -> Vec<Block> {
    let mut blocks = BTreeSet::new();
    for (name, policy) in states.iter().flat_map(|state| &state.snapshot.policies) {
        for rule in Direction::BOTH.into_iter().flat_map(|direction| rules(name, policy, direction)) {
            for block in rule.peers().iter().filter_map(|peer| peer.ip_block.as_ref()) {
                let Ok(cidr) = block.cidr.parse() else { continue };
                blocks.insert((cidr, block.except.iter().flatten().filter_map(|except| except.parse().ok()).collect::<Vec<IpNet>>()));
            }
        }
    }
    blocks.into_iter().map(|(cidr, excepts)| Block { cidr, excepts }).collect()
}

/// Those that the caller names, else those of the pods that have addresses, else IPv4, and IPv6 where a policy speaks
/// of it.
fn families(blocks: &Blocks, taken: &BTreeSet<IpAddr>, cidrs: &[IpNet]) -> Vec<Family> {
    let is_used = |family: Family| {
        if !cidrs.is_empty() {
            cidrs.iter().any(|cidr| family_of(cidr.addr()) == family)
        } else if !taken.is_empty() {
            taken.iter().any(|address| family_of(*address) == family)
        } else {
            family == Family::V4 || blocks.mentioned(family).next().is_some()
        }
    };
    [Family::V4, Family::V6].into_iter().filter(|family| is_used(*family)).collect()
}

/// `count` addresses that are not taken, in as few blocks as possible and best all in one region.
fn choose(
    family: Family,
    blocks: &Blocks,
    written: &[Block],
    cidrs: &[IpNet],
    taken: &mut BTreeSet<IpAddr>,
    count: usize,
) -> Result<Vec<IpAddr>, ReachError> {
    let likely = LIKELY.iter().map(|text| text.parse().expect("a CIDR"));
    let within = if cidrs.is_empty() { likely.collect() } else { cidrs.to_vec() };
    let mut stretches = Vec::new();
    for (preference, cidr) in within.iter().filter(|cidr| family_of(cidr.addr()) == family).enumerate() {
        for (first, last) in blocks.stretches(*cidr) {
            let holding = written.iter().filter(|block| block.holds(address(family, first))).count();
            let is_tight = last - first < (count + taken.len()) as u128;
            stretches.push((holding, is_tight, preference, first, last));
        }
    }
    stretches.sort_unstable();
    let mut chosen = Vec::with_capacity(count);
    for (.., first, last) in stretches {
        for number in first..=last {
            if chosen.len() == count {
                return Ok(chosen);
            }
            let address = address(family, number);
            if taken.insert(address) {
                chosen.push(address);
            }
        }
    }
    let room = || within.iter().map(IpNet::to_string).collect::<Vec<_>>().join(", ");
    if chosen.len() == count { Ok(chosen) } else { Err(ReachError::NoRoom(room())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::load_cluster_str;

    /// The address that a lone template gets under an egress policy with these blocks.
    fn assumed(ip_blocks: &str, cidrs: &[&str]) -> (String, Vec<String>) {
        let text = format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web}}, spec: {{template: {{spec: {{containers: [{{name: c}}]}}}}}}}}\n---\n\
             {{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p}}, \
             spec: {{podSelector: {{}}, ingress: [{{from: [{ip_blocks}]}}]}}}}"
        );
        let cluster = load_cluster_str("test.yaml", &text);
        assert!(cluster.loaded.errors.is_empty(), "{:?}", cluster.loaded.errors);
        let states = [State::of(&cluster)];
        let cidrs: Vec<IpNet> = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
        let (snapshots, assumption) = assume(&states, &Blocks::of([&cluster.loaded.snapshot]), &cidrs).unwrap();
        let addresses = Oracle::new(&snapshots[0]).addresses_of(&ObjectName::parse("default/web"));
        (addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" "), assumption.inside)
    }

    #[test]
    fn a_pod_without_an_address_is_where_the_fewest_blocks_are() {
        let block = |cidr: &str, excepts: &str| format!("{{ipBlock: {{cidr: {cidr}, except: [{excepts}]}}}}");
        for (blocks, cidrs, expected, inside) in [
            (String::new(), vec![], "10.0.0.0", vec![]),
            (block("10.0.0.0/8", ""), vec![], "172.16.0.0", vec![]),
            (block("0.0.0.0/0", ""), vec![], "10.0.0.0", vec!["0.0.0.0/0"]),
            (block("0.0.0.0/0", "192.168.0.0/16"), vec![], "192.168.0.0", vec![]),
            (block("10.0.0.0/8", ""), vec!["10.244.0.0/16"], "10.244.0.0", vec!["10.0.0.0/8"]),
            (block("10.244.0.0/17", ""), vec!["10.244.0.0/16"], "10.244.128.0", vec![]),
            (block("::/0", "fd00::/8"), vec![], "10.0.0.0 fd00::", vec![]),
        ] {
            assert_eq!(assumed(&blocks, &cidrs), (expected.to_owned(), inside.iter().map(|&text| text.to_owned()).collect()), "{blocks}");
        }
    }

    #[test]
    fn too_small_a_range_is_refused() {
        let taken = &mut BTreeSet::from(["10.0.0.1".parse().unwrap()]);
        let refused = choose(Family::V4, &Blocks::of([]), &[], &["10.0.0.0/31".parse().unwrap()], taken, 2);
        assert_eq!(refused.unwrap_err().to_string(), "10.0.0.0/31 has no room for the pods without an address");
    }
}
