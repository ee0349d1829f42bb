//! Which rules match a pod by a pod peer.
//!
//! ```text
//!   pod peer = scope (the policy's own namespace, or a namespace selector) and pod selector
//!
//!   kind ─▶ namespace ─▶ scopes it lies in ──────┐
//!        └▶ labels ────▶ pod selectors it meets ─┴▶ pairs ─▶ rules
//! ```
//!
//! Nobody asks every rule: selectors are found by labels, and rules by pairs.

use super::labels::{Label, Selectors, Texts};
use super::model::Model;
use super::pods::{Kind, KindId};
use super::rulebook::{Edited, RuleHandle};
use super::rules::{Namespaces, Peer, Rule};
use crate::snapshot::Objects;
use ahash::RandomState;
use imbl::ordmap::DiffItem;
use k8s_openapi::api::core::v1::Namespace;
use std::collections::{BTreeSet, HashMap};

/// The label that every namespace carries.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// Marks the scope that is one namespace.
const OWN: u32 = 1 << 31;

/// Scope and pod selector.
type Pair = (u32, u32);

#[derive(Debug)]
struct Space {
    labels: Vec<Label>,
    kinds: Vec<KindId>,
    /// Namespace selectors that match it, among the first `asked`.
    selected_by: Vec<u32>,
    asked: usize,
}

#[derive(Debug)]
struct Labelled {
    space: u32,
    labels: Box<[Label]>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Matching {
    texts: Texts,
    /// As of the last update.
    namespaces: Objects<String, Namespace>,
    spaces: Vec<Space>,
    space_ids: HashMap<String, u32, RandomState>,
    kinds: Vec<Labelled>,
    pod_selectors: Selectors,
    namespace_selectors: Selectors,
    rules: HashMap<Pair, Vec<RuleHandle>, RandomState>,
}

impl Matching {
    /// Follows namespaces and kinds; `dirty` gets the kinds that may be matched by other rules than before.
    pub(super) fn update(&mut self, model: &Model, dirty: &mut BTreeSet<KindId>) {
        let before = std::mem::replace(&mut self.namespaces, model.namespaces.clone());
        for difference in before.diff(&model.namespaces) {
            let (DiffItem::Add(name, _) | DiffItem::Remove(name, _) | DiffItem::Update { new: (name, _), .. }) = difference;
            if let Some(&id) = self.space_ids.get(name) {
                let labels = self.labels_of_namespace(name);
                let space = &mut self.spaces[id as usize];
                if space.labels != labels {
                    (space.labels, space.asked) = (labels, 0);
                    space.selected_by.clear();
                    dirty.extend(&space.kinds);
                }
            }
        }
        for kind in &model.pods.kinds[self.kinds.len()..] {
            self.add_kind(kind);
        }
    }

    fn add_kind(&mut self, kind: &Kind) {
        let space = self.space(&kind.namespace);
        let labels = kind.representative.labels().iter();
        let labels = labels.map(|(key, value)| (self.texts.number(key), self.texts.number(value))).collect();
        self.spaces[space as usize].kinds.push(self.kinds.len() as KindId);
        self.kinds.push(Labelled { space, labels });
    }

    fn space(&mut self, namespace: &str) -> u32 {
        if let Some(&id) = self.space_ids.get(namespace) {
            return id;
        }
        let id = self.spaces.len() as u32;
        let labels = self.labels_of_namespace(namespace);
        self.spaces.push(Space { labels, kinds: Vec::new(), selected_by: Vec::new(), asked: 0 });
        self.space_ids.insert(namespace.to_owned(), id);
        id
    }

    /// One that is only referred to has its name alone.
    fn labels_of_namespace(&mut self, name: &str) -> Vec<Label> {
        let labels = self.namespaces.get(name).and_then(|namespace| namespace.metadata.labels.as_ref());
        let others = labels.into_iter().flatten().filter(|(key, _)| *key != NAMESPACE_NAME);
        let all = others.map(|(key, value)| (key.as_str(), value.as_str())).chain([(NAMESPACE_NAME, name)]);
        all.map(|(key, value)| (self.texts.number(key), self.texts.number(value))).collect()
    }

    /// A rule comes into play or leaves it. `dirty` gets the kinds that it matches, unless all are dirty anyway.
    pub(super) fn enter(&mut self, handle: RuleHandle, rule: &Rule, dirty: Option<&mut BTreeSet<KindId>>) {
        let pairs = self.pairs_of_rule(rule);
        for &pair in &pairs {
            self.rules.entry(pair).or_default().push(handle);
        }
        self.mark(&pairs, dirty);
    }

    /// See [`Self::enter`].
    pub(super) fn leave(&mut self, handle: RuleHandle, rule: &Rule, dirty: Option<&mut BTreeSet<KindId>>) {
        let pairs = self.pairs_of_rule(rule);
        self.withdraw(handle, &pairs);
        self.mark(&pairs, dirty);
    }

    fn withdraw<'p>(&mut self, handle: RuleHandle, pairs: impl IntoIterator<Item = &'p Pair>) {
        for pair in pairs {
            if let Some(rules) = self.rules.get_mut(pair) {
                rules.retain(|&other| other != handle);
                if rules.is_empty() {
                    self.rules.remove(pair);
                }
            }
        }
    }

    /// A rule lets other peers through. `dirty`: see [`Self::enter`]; whom it matches by a peer that stays is not concerned.
    pub(super) fn readdress(&mut self, Edited { handle, before, now }: &Edited, dirty: Option<&mut BTreeSet<KindId>>) {
        let (before, now) = (self.pairs_of_rule(before), self.pairs_of_rule(now));
        let (gone, new): (Vec<Pair>, Vec<Pair>) = (before.difference(&now).copied().collect(), now.difference(&before).copied().collect());
        self.withdraw(*handle, &gone);
        for &pair in &new {
            self.rules.entry(pair).or_default().push(*handle);
        }
        self.mark(gone.iter().chain(&new), dirty);
    }

    fn pairs_of_rule(&mut self, rule: &Rule) -> BTreeSet<Pair> {
        let mut pairs = BTreeSet::new();
        for peer in rule.peers.iter().flatten() {
            if let Peer::Pods { namespaces, pods } = peer {
                let scope = match namespaces {
                    Namespaces::Own(name) => OWN | self.space(name),
                    Namespaces::Selected(selector) => self.namespace_selectors.number(selector, &mut self.texts),
                };
                pairs.insert((scope, self.pod_selectors.number(pods, &mut self.texts)));
            }
        }
        pairs
    }

    fn mark<'p>(&self, pairs: impl IntoIterator<Item = &'p Pair>, dirty: Option<&mut BTreeSet<KindId>>) {
        let Some(dirty) = dirty else { return };
        for &(scope, selector) in pairs {
            let lies_in = |(id, space): &(u32, &Space)| match scope & OWN {
                0 => self.namespace_selectors.matches(scope, &space.labels),
                _ => scope == OWN | id,
            };
            let kinds = (0u32..).zip(&self.spaces).filter(lies_in).flat_map(|(_, space)| &space.kinds);
            dirty.extend(kinds.filter(|&&kind| self.pod_selectors.matches(selector, &self.kinds[kind as usize].labels)));
        }
    }

    /// The rules of which one peer matches all of `kinds`, ascending: two peers that match one each do not add up.
    pub(super) fn rules_of(&mut self, kinds: &[KindId]) -> Vec<RuleHandle> {
        let Some((&first, others)) = kinds.split_first() else { return Vec::new() };
        let mut pairs = self.pairs_of_kind(first);
        for &other in others.iter().filter(|&&other| other != first) {
            let others: BTreeSet<Pair> = self.pairs_of_kind(other).into_iter().collect();
            pairs.retain(|pair| others.contains(pair));
        }
        let mut rules: Vec<RuleHandle> = pairs.iter().flat_map(|pair| &self.rules[pair]).copied().collect();
        rules.sort_unstable();
        rules.dedup();
        rules
    }

    /// Pairs that match a kind and that some rule asks for.
    fn pairs_of_kind(&mut self, kind: KindId) -> Vec<Pair> {
        let Labelled { space, labels } = &self.kinds[kind as usize];
        let (own, space) = (OWN | space, &mut self.spaces[*space as usize]);
        if space.asked != self.namespace_selectors.len() {
            self.namespace_selectors.matching(&space.labels, &mut space.selected_by);
            space.asked = self.namespace_selectors.len();
        }
        let mut selectors = Vec::with_capacity(16);
        self.pod_selectors.matching(labels, &mut selectors);
        let scopes = space.selected_by.iter().copied().chain([own]);
        let pairs = scopes.flat_map(|scope| selectors.iter().map(move |&selector| (scope, selector)));
        pairs.filter(|pair| self.rules.contains_key(pair)).collect()
    }

    /// How much is remembered.
    pub(super) fn weight(&self) -> usize {
        self.texts.len() + self.spaces.len() + self.pod_selectors.len() + self.namespace_selectors.len()
    }
}
