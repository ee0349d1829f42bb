//! Rules in play by a handle that outlasts a compilation: the id of a rule is its position among all rules and shifts when
//! another comes or goes, but what was concluded from a rule stays. A rule that is edited keeps its handle, so that who is
//! let through and through which ports are followed apart.

use super::model::Model;
use super::rules::{Peer, Rule};
use ahash::RandomState;
use sluice_flow::Direction;
use std::collections::HashMap;
use std::sync::Arc;

/// Given once, never to a rule of another place in a policy.
pub(super) type RuleHandle = u32;

/// What rows and columns need to know of a rule.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// `None` once it has left.
    pub(super) rule: Option<Arc<Rule>>,
    /// Given once to each rule with the ports that it opens.
    pub(super) opens: u32,
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
    /// How many [`Entry::opens`] were given.
    opens: u32,
}

/// A rule that says something else than before.
#[derive(Debug)]
pub(super) struct Edited {
    pub(super) handle: RuleHandle,
    pub(super) before: Arc<Rule>,
    pub(super) now: Arc<Rule>,
}

/// What [`RuleBook::update`] found.
#[derive(Debug, Default)]
pub(super) struct Turnover {
    pub(super) entered: Vec<(RuleHandle, Arc<Rule>)>,
    /// Ascending by [`Rule::place`].
    pub(super) left: Vec<(RuleHandle, Arc<Rule>)>,
    /// Those that let other peers through.
    pub(super) readdressed: Vec<Edited>,
    /// Those that open other ports.
    pub(super) reopened: Vec<RuleHandle>,
}

impl Turnover {
    /// Whether blocks of that family come or go.
    pub(super) fn concerns_blocks(&self, family_v6: bool) -> bool {
        let whole = self.entered.iter().chain(&self.left).map(|(_, rule)| rule);
        let rules = whole.chain(self.readdressed.iter().flat_map(|edited| [&edited.before, &edited.now]));
        let mut peers = rules.flat_map(|rule| rule.peers.iter().flatten());
        peers.any(|peer| matches!(peer, Peer::Block { v6, .. } if *v6 == family_v6))
    }
}

impl RuleBook {
    pub(super) fn update(&mut self, model: &Model) -> Turnover {
        let mut turnover = Turnover::default();
        let known: Vec<Option<RuleHandle>> = model.rules.iter().map(|rule| self.known.get(&address(rule)).copied()).collect();
        if known.len() == self.handles.len() && known.iter().zip(&self.handles).all(|(known, handle)| *known == Some(*handle)) {
            return turnover;
        }
        let mut stays = vec![false; self.entries.len()];
        known.iter().flatten().for_each(|&handle| stays[handle as usize] = true);
        for handle in std::mem::take(&mut self.handles) {
            if let Some(rule) = self.entries[handle as usize].rule.take_if(|_| !stays[handle as usize]) {
                self.known.remove(&address(&rule));
                turnover.left.push((handle, rule));
            }
        }
        self.handles.reserve(known.len());
        for (rule, known) in model.rules.iter().zip(known) {
            let handle = known.unwrap_or_else(|| self.take_in(rule, &mut turnover));
            self.handles.push(handle);
        }
        turnover.left.retain(|(handle, _)| self.entries[*handle as usize].rule.is_none());
        turnover
    }

    /// A rule that was not in play: that of an edited policy gets the handle of the one in whose place it is, if it is of
    /// the same sort.
    fn take_in(&mut self, rule: &Arc<Rule>, turnover: &mut Turnover) -> RuleHandle {
        let is_open = rule.peers.is_none();
        let has_named_ports = rule.has_named_ports();
        let asks_remote = has_named_ports && rule.direction == Direction::Egress;
        let place = turnover.left.binary_search_by(|(_, other)| other.place().cmp(&rule.place())).ok();
        let left = place.map(|at| &turnover.left[at]).filter(|(handle, _)| {
            let entry = &self.entries[*handle as usize];
            (entry.is_open, entry.has_named_ports) == (is_open, has_named_ports)
        });
        let handle = match left {
            Some((handle, before)) => {
                let (handle, entry) = (*handle, &mut self.entries[*handle as usize]);
                entry.rule = Some(Arc::clone(rule));
                if before.ports != rule.ports {
                    entry.opens = self.opens;
                    self.opens += 1;
                    turnover.reopened.push(handle);
                }
                if before.peers != rule.peers {
                    turnover.readdressed.push(Edited { handle, before: Arc::clone(before), now: Arc::clone(rule) });
                }
                handle
            }
            None => {
                let handle = self.entries.len() as RuleHandle;
                self.entries.push(Entry { rule: Some(Arc::clone(rule)), opens: self.opens, is_open, has_named_ports, asks_remote });
                self.opens += 1;
                turnover.entered.push((handle, Arc::clone(rule)));
                handle
            }
        };
        self.known.insert(address(rule), handle);
        handle
    }

    /// Rules in play with their handles, by id.
    pub(super) fn iter(&self) -> impl Iterator<Item = (RuleHandle, &Arc<Rule>)> {
        self.handles.iter().filter_map(|&handle| Some((handle, self.entries[handle as usize].rule.as_ref()?)))
    }
}

fn address(rule: &Arc<Rule>) -> usize {
    Arc::as_ptr(rule) as usize
}
