//! Rules in play by a handle that outlasts a compilation: the id of a rule is its position among all rules and shifts when
//! another comes or goes, but what was concluded from a rule stays.

use super::model::Model;
use super::rules::{Peer, Rule};
use ahash::RandomState;
use sluice_flow::Direction;
use std::collections::HashMap;
use std::sync::Arc;

/// Given once, never to another rule.
pub(super) type RuleHandle = u32;

/// What rows and columns need to know of a rule.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// `None` once it has left.
    pub(super) rule: Option<Arc<Rule>>,
    /// It allows every peer.
    pub(super) is_open: bool,
    pub(super) has_named_ports: bool,
    /// It is an egress rule with named ports, so that the remote's named ports matter.
    pub(super) asks_remote: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct RuleBook {
    pub(super) entries: Vec<Entry>,
    /// Handles by rule id.
    pub(super) handles: Vec<RuleHandle>,
    /// Of those in play, by the rule's address, which is nobody else's while the entry holds it.
    known: HashMap<usize, RuleHandle, RandomState>,
}

/// What [`RuleBook::update`] found.
#[derive(Debug, Default)]
pub(super) struct Turnover {
    pub(super) entered: Vec<(RuleHandle, Arc<Rule>)>,
    pub(super) left: Vec<(RuleHandle, Arc<Rule>)>,
}

impl Turnover {
    /// Whether blocks of that family come or go.
    pub(super) fn concerns_blocks(&self, family_v6: bool) -> bool {
        let peers = self.entered.iter().chain(&self.left).flat_map(|(_, rule)| rule.peers.iter().flatten());
        peers.into_iter().any(|peer| matches!(peer, Peer::Block { v6, .. } if *v6 == family_v6))
    }
}

impl RuleBook {
    pub(super) fn update(&mut self, model: &Model) -> Turnover {
        let mut turnover = Turnover::default();
        let is_same = |(handle, rule): (&RuleHandle, &Arc<Rule>)| {
            self.entries[*handle as usize].rule.as_ref().is_some_and(|known| Arc::ptr_eq(known, rule))
        };
        if self.handles.len() == model.rules.len() && self.handles.iter().zip(&model.rules).all(is_same) {
            return turnover;
        }
        let mut handles = Vec::with_capacity(model.rules.len());
        for rule in &model.rules {
            let next = self.entries.len() as RuleHandle;
            let handle = *self.known.entry(Arc::as_ptr(rule) as usize).or_insert(next);
            if handle == next {
                let has_named_ports = rule.has_named_ports();
                let asks_remote = has_named_ports && rule.direction == Direction::Egress;
                self.entries.push(Entry { rule: Some(Arc::clone(rule)), is_open: rule.peers.is_none(), has_named_ports, asks_remote });
                turnover.entered.push((handle, Arc::clone(rule)));
            }
            handles.push(handle);
        }
        let mut stays = vec![false; self.entries.len()];
        handles.iter().for_each(|&handle| stays[handle as usize] = true);
        for handle in std::mem::replace(&mut self.handles, handles) {
            if let Some(rule) = self.entries[handle as usize].rule.take_if(|_| !stays[handle as usize]) {
                self.known.remove(&(Arc::as_ptr(&rule) as usize));
                turnover.left.push((handle, rule));
            }
        }
        turnover
    }

    /// Rules in play with their handles, by id.
    pub(super) fn iter(&self) -> impl Iterator<Item = (RuleHandle, &Arc<Rule>)> {
        self.handles.iter().filter_map(|&handle| Some((handle, self.entries[handle as usize].rule.as_ref()?)))
    }
}
