//! Sets of rules and sets of named ports, as numbers: what a column is made from.

use super::identity::NamedPorts;
use super::rulebook::{Entry, RuleHandle};
use ahash::RandomState;
use std::collections::HashMap;
use std::sync::Arc;

pub(super) type RuleSetId = u32;
/// The set without rules.
pub(super) const NO_RULES: RuleSetId = 0;

#[derive(Debug)]
pub(super) struct RuleSet {
    /// Ascending.
    pub(super) rules: Arc<[RuleHandle]>,
    /// Whether one of them asks for named ports of the remote.
    pub(super) asks_remote: bool,
}

/// Sets of rules by number of first use.
#[derive(Debug)]
pub(super) struct RuleSets {
    pub(super) all: Vec<RuleSet>,
    ids: HashMap<Arc<[RuleHandle]>, RuleSetId, RandomState>,
}

impl Default for RuleSets {
    fn default() -> Self {
        let none: Arc<[RuleHandle]> = Arc::default();
        Self { all: vec![RuleSet { rules: Arc::clone(&none), asks_remote: false }], ids: [(none, NO_RULES)].into_iter().collect() }
    }
}

impl RuleSets {
    pub(super) fn number(&mut self, rules: &[RuleHandle], entries: &[Entry]) -> RuleSetId {
        if let Some(&id) = self.ids.get(rules) {
            return id;
        }
        let (id, rules): (_, Arc<[RuleHandle]>) = (self.all.len() as RuleSetId, rules.into());
        let asks_remote = rules.iter().any(|&rule| entries[rule as usize].asks_remote);
        self.all.push(RuleSet { rules: Arc::clone(&rules), asks_remote });
        self.ids.insert(rules, id);
        id
    }

    pub(super) fn holds(&self, set: RuleSetId, rule: RuleHandle) -> bool {
        self.all[set as usize].rules.binary_search(&rule).is_ok()
    }
}

pub(super) type NamedId = u32;
/// Of whoever names no port.
pub(super) const NO_NAMES: NamedId = 0;

/// Named ports by number of first use.
#[derive(Debug)]
pub(super) struct Names {
    all: Vec<Arc<NamedPorts>>,
    ids: HashMap<Arc<NamedPorts>, NamedId, RandomState>,
}

impl Default for Names {
    fn default() -> Self {
        Self { all: vec![Arc::default()], ids: [(Arc::default(), NO_NAMES)].into_iter().collect() }
    }
}

impl Names {
    pub(super) fn number(&mut self, ports: &Arc<NamedPorts>) -> NamedId {
        if let Some(&id) = self.ids.get(ports) {
            return id;
        }
        let id = self.all.len() as NamedId;
        self.all.push(Arc::clone(ports));
        self.ids.insert(Arc::clone(ports), id);
        id
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn ports(&self, id: NamedId) -> &NamedPorts {
        &self.all[id as usize]
    }
}

/// What all of several pods offer.
pub(super) fn intersection(ports: &NamedPorts, other: &NamedPorts) -> NamedPorts {
    let mut common = ports.clone();
    for (key, numbers) in &mut common {
        numbers.retain(|number| other.get(key).is_some_and(|others| others.contains(number)));
    }
    common.retain(|_, numbers| !numbers.is_empty());
    common
}
