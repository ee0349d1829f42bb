//! Which rules have a peer that matches a region, and which one that matches a group of pods: the oracle's own questions,
//! each asked once of one representative.

use super::expected::{RuleBits, set};
use super::people::{GroupId, People};
use super::regions::{RegionId, Regions};
use super::sides::{RuleInPlay, RuleIndex};
use crate::oracle::{block_holds, peer_labels_match, peer_namespace_matches};
use crate::snapshot::Snapshot;
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicyPeer};
use std::collections::HashMap;

/// A pod peer: of which rule, and which of its peers.
type PodPeer = (RuleIndex, usize);

/// A block as it is written, and the rules that have a peer with it.
type AskedBlock<'r> = (&'r IPBlock, Vec<RuleIndex>);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Matches {
    pub(super) regions: Regions,
    words: usize,
    /// Rules without peers match everything.
    every_peer: RuleBits,
    by_region: Vec<RuleBits>,
    /// Pod peers without a namespaceSelector, by their policy's namespace.
    own: HashMap<String, Vec<PodPeer>>,
    /// Pod peers with a namespaceSelector, those with equal ones together.
    selecting: Vec<Vec<PodPeer>>,
    /// Pod peers that look into a namespace, as far as it was asked.
    by_namespace: HashMap<String, Vec<PodPeer>>,
    by_group: HashMap<GroupId, RuleBits>,
}

impl Matches {
    /// Reads all peers and answers for all regions; groups are answered when asked.
    pub(super) fn of(rules: &[RuleInPlay]) -> Self {
        let words = rules.len().div_ceil(64);
        let mut matches = Self { words, every_peer: vec![0; words], ..Self::default() };
        let mut selecting: HashMap<String, Vec<PodPeer>> = HashMap::new();
        // equal blocks are asked once for all rules that have them
        let mut blocks: HashMap<(&str, &[String]), AskedBlock<'_>> = HashMap::new();
        for (index, rule) in (0..).zip(rules) {
            let peers = rule.rule().peers();
            if peers.is_empty() {
                set(&mut matches.every_peer, index);
            }
            for (position, peer) in peers.iter().enumerate() {
                match (&peer.ip_block, &peer.namespace_selector) {
                    // the API refuses a peer with both; the oracle lets it match nothing
                    (Some(_), Some(_)) => {}
                    (Some(_), None) if peer.pod_selector.is_some() => {}
                    (Some(block), None) => {
                        let key = (block.cidr.as_str(), block.except.as_deref().unwrap_or_default());
                        blocks.entry(key).or_insert_with(|| (block, Vec::new())).1.push(index);
                    }
                    (None, Some(selector)) => selecting.entry(format!("{selector:?}")).or_default().push((index, position)),
                    (None, None) => matches.own.entry(rule.policy.namespace.clone()).or_default().push((index, position)),
                }
            }
        }
        matches.selecting = selecting.into_values().collect();
        matches.ask_regions(blocks.into_values().collect());
        matches
    }

    fn ask_regions(&mut self, blocks: Vec<AskedBlock<'_>>) {
        let parse = |text: &str| text.parse::<IpNet>().ok().map(|net| net.trunc());
        let mut nets: Vec<IpNet> = Vec::new();
        let mut of_cidr: HashMap<IpNet, Vec<usize>> = HashMap::new();
        for (index, (block, _)) in blocks.iter().enumerate() {
            nets.extend(block.except.iter().flatten().filter_map(|text| parse(text)));
            let Some(cidr) = parse(&block.cidr) else { continue };
            nets.push(cidr);
            of_cidr.entry(cidr).or_default().push(index);
        }
        nets.sort_unstable();
        nets.dedup();
        self.regions = Regions::of(&nets);
        for region in &self.regions.regions {
            let mut bits = self.every_peer.clone();
            // a block holds an address only if its CIDR does, so no other block needs to be asked
            let candidates = region.nets.iter().filter_map(|&net| of_cidr.get(&nets[net as usize])).flatten();
            for (block, rules) in candidates.map(|&index| &blocks[index]).filter(|(block, _)| block_holds(block, region.representative)) {
                debug_assert!(!block.cidr.is_empty());
                rules.iter().for_each(|&rule| set(&mut bits, rule));
            }
            self.by_region.push(bits);
        }
    }

    /// The rules with a peer that matches a region's address carried by a group.
    pub(super) fn of_unit(
        &mut self,
        snapshot: &Snapshot,
        rules: &[RuleInPlay],
        people: &People,
        region: RegionId,
        group: GroupId,
    ) -> RuleBits {
        if !self.by_group.contains_key(&group) {
            let bits = self.ask_group(snapshot, rules, people, group);
            self.by_group.insert(group, bits);
        }
        self.by_region[region as usize].iter().zip(&self.by_group[&group]).map(|(region, group)| region | group).collect()
    }

    fn ask_group(&mut self, snapshot: &Snapshot, rules: &[RuleInPlay], people: &People, group: GroupId) -> RuleBits {
        let mut bits = vec![0; self.words];
        let identities = people.groups[group as usize].iter().map(|&identity| &people.identities[identity as usize]);
        let Some(first) = identities.clone().next() else { return bits };
        for &(index, position) in self.looking_into(snapshot, rules, &first.namespace) {
            let rule = rules[index as usize].rule();
            let peer = &rule.peers()[position];
            // every pod that claims the address must match, and all of them by this one peer
            let others = || identities.clone().skip(1).all(|other| looks_into(snapshot, &rules[index as usize], peer, &other.namespace));
            if identities.clone().all(|identity| peer_labels_match(peer, &identity.representative)) && others() {
                set(&mut bits, index);
            }
        }
        bits
    }

    fn looking_into(&mut self, snapshot: &Snapshot, rules: &[RuleInPlay], namespace: &str) -> &[PodPeer] {
        if !self.by_namespace.contains_key(namespace) {
            let looks = |&(index, position): &PodPeer| {
                let rule = &rules[index as usize];
                looks_into(snapshot, rule, &rule.rule().peers()[position], namespace)
            };
            let own = self.own.get(namespace).into_iter().flatten().filter(|peer| looks(peer));
            // those with equal selectors look into the same namespaces
            let selecting = self.selecting.iter().filter(|peers| looks(&peers[0])).flatten();
            let peers = own.chain(selecting).copied().collect();
            self.by_namespace.insert(namespace.to_owned(), peers);
        }
        &self.by_namespace[namespace]
    }
}

fn looks_into(snapshot: &Snapshot, rule: &RuleInPlay, peer: &NetworkPolicyPeer, namespace: &str) -> bool {
    let object = snapshot.namespaces.get(namespace).map(|object| &**object);
    peer_namespace_matches(&rule.policy.namespace, peer, namespace, object)
}
