//! Who is asked: the oracle on the objects, or the lookup on the bytes that the compiler made of them.

use sluice_flow::limits::PORTS_MAX;
use sluice_flow::{Addr, Direction, Incarnation, LocalEndpoint, PortIndex, Protocol, Verdict};
use sluice_policy::oracle::Side;
use sluice_policy::{ObjectName, Oracle, Snapshot};
use sluice_table::Table;
use std::net::IpAddr;

/// An engine by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The slow truth.
    Oracle,
    /// The compiled table.
    Table,
}

impl Engine {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Oracle => "oracle",
            Engine::Table => "table",
        }
    }
}

/// One question at one pod. `pod` counts the pods of the snapshot in name order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question {
    pub(crate) pod: usize,
    pub(crate) direction: Direction,
    pub(crate) remote: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

/// An engine with one state loaded.
pub(crate) trait Judge {
    fn allows(&self, question: Question) -> bool;
    /// The reason in words, for a difference.
    fn reason(&self, question: Question) -> String;
}

/// Loads `snapshot` into `engine`.
pub(crate) fn load<'a>(engine: Engine, snapshot: &'a Snapshot) -> Result<Box<dyn Judge + 'a>, String> {
    Ok(match engine {
        Engine::Oracle => Box::new(OracleJudge::new(snapshot)),
        Engine::Table => Box::new(TableJudge::new(snapshot)?),
    })
}

struct OracleJudge<'a> {
    oracle: Oracle<'a>,
    /// For each pod its ingress and its egress side.
    sides: Vec<[Side<'a>; 2]>,
    pods: Vec<&'a ObjectName>,
}

impl<'a> OracleJudge<'a> {
    fn new(snapshot: &'a Snapshot) -> Self {
        let oracle = Oracle::new(snapshot);
        let pods: Vec<_> = snapshot.pods.keys().collect();
        let sides = pods.iter().map(|pod| Direction::BOTH.map(|direction| oracle.side(pod, direction))).collect();
        Self { oracle, sides, pods }
    }
}

impl Judge for OracleJudge<'_> {
    fn allows(&self, Question { pod, direction, remote, protocol, port }: Question) -> bool {
        self.oracle.allows(&self.sides[pod][direction as usize], remote, protocol, port)
    }

    fn reason(&self, Question { pod, direction, remote, protocol, port }: Question) -> String {
        let judgement = self.oracle.judge(self.pods[pod], direction, remote, protocol, port);
        if let Some(rule) = judgement.allowed_by {
            return format!("allowed by {rule}");
        }
        if !judgement.isolated {
            return "not isolated".to_owned();
        }
        let policies: Vec<String> = judgement.isolating.iter().map(ObjectName::to_string).collect();
        let miss = judgement.nearest_miss.map(|miss| format!("; nearest {}: {}", miss.rule, miss.failed));
        format!("isolated by {}{}", policies.join(", "), miss.unwrap_or_default())
    }
}

/// Tables that together make every pod of the snapshot a local one.
struct TableJudge {
    tables: Vec<Table>,
}

impl TableJudge {
    fn new(snapshot: &Snapshot) -> Result<Self, String> {
        let pods: Vec<_> = snapshot.pods.keys().collect();
        let oracle = Oracle::new(snapshot);
        let tables = pods.chunks(PORTS_MAX).map(|chunk| {
            let mut snapshot = snapshot.clone();
            let endpoint = |(port, pod): (usize, &&ObjectName)| LocalEndpoint {
                port: PortIndex(port as u16),
                incarnation: Incarnation(1),
                pod: (*pod).clone(),
                uid: String::new(),
                addresses: oracle.addresses_of(pod),
            };
            snapshot.endpoints = chunk.iter().enumerate().map(endpoint).collect();
            let image = sluice_policy::compile(&snapshot, 1).map_err(|error| format!("compile: {error}"))?;
            Table::from_bytes(&image).map_err(|error| format!("the compiler's image is refused: {error}"))
        });
        Ok(Self { tables: tables.collect::<Result<_, _>>()? })
    }

    fn lookup(&self, Question { pod, direction, remote, protocol, port }: Question) -> Verdict {
        let index = PortIndex((pod % PORTS_MAX) as u16);
        self.tables[pod / PORTS_MAX].lookup(index, direction, Addr::from(remote), protocol, port)
    }
}

impl Judge for TableJudge {
    fn allows(&self, question: Question) -> bool {
        self.lookup(question).is_allow()
    }

    fn reason(&self, question: Question) -> String {
        match self.lookup(question) {
            Verdict::NotIsolated => "not isolated".to_owned(),
            Verdict::Deny => "denied".to_owned(),
            Verdict::Allow(id) => match self.tables[question.pod / PORTS_MAX].rule(id) {
                Some(rule) => format!("allowed by {} {}[{}]", rule.policy, rule.direction, rule.index),
                None => format!("allowed by a rule without a name, {}", id.0),
            },
        }
    }
}
