//! What each rule let through: counts of connections that are over, and connections that a table cut.
//!
//! The kernel counts packets and bytes of a connection in its cache entries. When the connection is forgotten, its entries are
//! taken out with their last counts, which are added to those of the rule that allowed it; where a hook begins another one on its
//! ports, it tells them. Rules are numbered anew by each table, so before another one comes into force the counts go over to the
//! rules' names.

use super::Worker;
use crate::conntrack::Connection;
use crate::io::PacketIo;
use crate::kernel::{Kernel, key_of};
use sluice_bpf::abi::{CacheValue, Ending, Key};
use sluice_flow::{FlowKey, Incarnation, RuleId, TcpFlags};
use sluice_table::Table;
use std::collections::{BTreeMap, HashMap};

/// Of connections that are over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// How many.
    pub connections: u64,
    /// Both directions, counted in the kernel.
    pub packets: u64,
    /// Both directions, counted in the kernel.
    pub bytes: u64,
}

impl Counts {
    /// The sum.
    pub fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// A connection that a table cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// Of its first packet.
    pub flow: FlowKey,
    /// Which use of the port.
    pub incarnation: Incarnation,
    /// The rule that had allowed it.
    pub rule: Option<String>,
    /// The table.
    pub generation: u64,
}

/// Of one table that many at most are listed; all are counted.
pub(super) const CUTS_MAX: usize = 256;
/// Between two times that the counts are shown to the keeper.
const SHOW_EVERY_NS: u64 = 1_000_000_000;
/// Rules of all tables that are told apart.
const NAMES_MAX: usize = 16_384;
const OTHERS: &str = "(rules beyond the first 16384)";

/// Counts of rules, by number for the table in force, by name for those before.
#[derive(Debug, Default)]
pub(super) struct Rules {
    numbered: HashMap<Option<RuleId>, Counts>,
    pub(super) named: BTreeMap<String, Counts>,
    /// The keeper has not seen all of it.
    has_news: bool,
    next_show_ns: u64,
}

/// A rule's name; of what no rule had to allow, that.
pub(crate) fn name_of(table: Option<&Table>, rule: Option<RuleId>) -> String {
    let rule = rule.and_then(|rule| table.and_then(|table| table.rule(rule)));
    rule.map_or_else(|| "(no rule: not isolated, judged where it departs, or cut)".to_owned(), ToString::to_string)
}

impl Rules {
    fn note(&mut self, rule: Option<RuleId>, values: &[Option<CacheValue>], is_over: bool) {
        self.has_news = true;
        let counts = self.numbered.entry(rule).or_default();
        counts.connections += u64::from(is_over);
        for value in values.iter().flatten() {
            counts.packets += value.packets;
            counts.bytes += value.bytes;
        }
    }

    /// Counts a connection whose entries others have taken the places of.
    pub(super) fn note_over(&mut self, rule: Option<RuleId>, packets: u64, bytes: u64) {
        self.has_news = true;
        self.numbered.entry(rule).or_default().add(&Counts { connections: 1, packets, bytes });
    }

    /// Moves everything to the rules' names in this table. Cost: a name for each rule that was counted since the last time.
    pub(super) fn settle(&mut self, table: Option<&Table>) {
        for (rule, counts) in self.numbered.drain() {
            let name = name_of(table, rule);
            let is_kept = self.named.len() < NAMES_MAX || self.named.contains_key(&name);
            self.named.entry(if is_kept { name } else { OTHERS.to_owned() }).or_default().add(&counts);
        }
    }
}

/// Of original and reply.
fn entry_keys(original: &FlowKey, connection: &Connection) -> [Key; 2] {
    [*original, original.reversed()].map(|flow| key_of(&flow, connection.incarnation))
}

impl<I: PacketIo, K: Kernel> Worker<I, K> {
    /// Forgets a connection and both its entries; what they counted is its rule's.
    pub(super) fn end(&mut self, original: &FlowKey, connection: &Connection) {
        self.connections.remove(original);
        self.take_entries(original, connection);
    }

    /// Takes the entries of a connection that is forgotten already.
    pub(super) fn take_entries(&mut self, original: &FlowKey, connection: &Connection) {
        let values = entry_keys(original, connection).map(|key| self.kernel.cache_take(&key));
        self.rules.note(connection.rule, &values, true);
    }

    /// Forgets connections of which the hooks told that they closed, but for those on whose ports they have begun others since, of
    /// which the worker has not heard yet.
    pub(super) fn end_closed(&mut self, closed: &[(FlowKey, Connection)]) {
        let ending = |(flow, connection): &(FlowKey, Connection)| {
            let key = key_of(flow, connection.incarnation);
            Ending { key, again: 0, packets: 0, bytes: 0 }
        };
        let mut endings: Vec<Ending> = closed.iter().map(ending).collect();
        self.kernel.end_closed(self.config.worker, &mut endings);
        for ((flow, connection), ending) in closed.iter().zip(&endings) {
            // the end of one may have been told twice
            if ending.again == 0 && self.connections.remove(flow).is_some() {
                self.rules.note_over(connection.rule, ending.packets, ending.bytes);
            }
        }
    }

    /// Counts for its rule what the entries say of a connection that another one replaces on the same ports.
    pub(super) fn count_replaced(&mut self, original: &FlowKey, connection: &Connection) {
        let keys = entry_keys(original, connection);
        if self.pending.has(&keys[0]) {
            // the entries are this batch's, and its first packet has counted what stood there before
            return;
        }
        let values = keys.map(|key| self.kernel.cache_get(&key));
        let has_ended = values.iter().flatten().any(|value| value.tcp_flags & (TcpFlags::FIN | TcpFlags::RST) != 0);
        self.rules.note(connection.rule, &values, has_ended);
    }

    /// Shows the keeper what was counted, now and then, and only where it does not look at that moment.
    pub(super) fn show_rules(&mut self, now_ns: u64) {
        if now_ns < self.rules.next_show_ns || !self.rules.has_news {
            return;
        }
        self.rules.next_show_ns = now_ns + SHOW_EVERY_NS;
        self.rules.settle(self.table.as_deref());
        self.rules.has_news = !self.shared.show_rules(&self.rules.named);
    }
}
