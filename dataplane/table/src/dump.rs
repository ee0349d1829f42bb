//! A table for people: who may reach whom, read back from the very bytes the workers use, with names.

use crate::format::LEAF;
use crate::table::Table;
use serde::Serialize;
use sluice_flow::{Addr, Direction, ObjectName, Protocol, RuleId};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// Everything worth printing of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dump {
    /// The generation.
    pub generation: u64,
    /// Size of the image.
    pub image_bytes: u64,
    /// Address classes.
    pub classes: usize,
    /// Port classes.
    pub port_classes: usize,
    /// Distinct rows.
    pub rows: usize,
    /// Rules, by id.
    pub rules: Vec<String>,
    /// Endpoints, by port.
    pub endpoints: Vec<EndpointDump>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointDump {
    /// Its port index.
    pub port: u16,
    /// Which use of it.
    pub incarnation: u32,
    /// The pod.
    pub pod: ObjectName,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Ingress, egress.
    pub directions: Vec<DirectionDump>,
}

/// One direction of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectionDump {
    /// Which.
    pub direction: Direction,
    /// False: everything is allowed.
    pub isolated: bool,
    /// By which policies.
    pub isolating: Vec<ObjectName>,
    /// What is allowed; everything else is denied.
    pub allows: Vec<Allow>,
}

/// Some peers, some ports, and the rule that allows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Allow {
    /// Peers: pods by name, else address ranges.
    pub peers: Vec<String>,
    /// `TCP 80`, `UDP 1-1023`, `any`.
    pub ports: Vec<String>,
    /// Which rule.
    pub rule: String,
}

const PEERS_SHOWN_MAX: usize = 12;

impl Dump {
    /// Reads it out of a table. Cost: the whole table; not for a packet path.
    pub fn of(table: &Table) -> Self {
        let members = class_members(table);
        let endpoints = table
            .names()
            .endpoints
            .iter()
            .map(|endpoint| EndpointDump {
                port: endpoint.port.0,
                incarnation: endpoint.incarnation.0,
                pod: endpoint.pod.clone(),
                addresses: endpoint.addresses.clone(),
                directions: Direction::BOTH
                    .into_iter()
                    .map(|direction| DirectionDump {
                        direction,
                        isolated: table.isolated(endpoint.port, direction),
                        isolating: endpoint.isolating(direction).to_vec(),
                        allows: allows(table, usize::from(endpoint.port.0), direction, &members),
                    })
                    .collect(),
            })
            .collect();
        Self {
            generation: table.generation(),
            image_bytes: table.image_bytes(),
            classes: table.classes,
            port_classes: table.port_classes,
            rows: table.actions.len() / table.port_classes,
            rules: table.names().rules.iter().map(ToString::to_string).collect(),
            endpoints,
        }
    }
}

/// The allows of one direction, grouped by rule and ports.
fn allows(table: &Table, port: usize, direction: Direction, members: &[Vec<String>]) -> Vec<Allow> {
    let entry = &table.endpoints[port];
    let rows = entry.rows[direction as usize];
    if rows == crate::format::NOT_ISOLATED {
        return Vec::new();
    }
    let mut classes_of_row: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
    for class in 0..table.classes {
        classes_of_row.entry(table.row_of_class[rows as usize + class]).or_default().push(class);
    }
    let mut grouped: BTreeMap<(u32, Vec<String>), Vec<usize>> = BTreeMap::new();
    for (row, classes) in classes_of_row {
        let actions = &table.actions[usize::from(row) * table.port_classes..][..table.port_classes];
        let mut rules: Vec<u32> = actions.iter().copied().filter(|&action| action != 0).collect();
        rules.sort_unstable();
        rules.dedup();
        for rule in rules {
            let ports = ports_with(table, |port_class| actions[port_class] == rule);
            grouped.entry((rule, ports)).or_default().extend(&classes);
        }
    }
    let mut allows: Vec<Allow> = grouped
        .into_iter()
        .map(|((rule, ports), mut classes)| {
            classes.sort_unstable();
            let all = classes.len() == table.classes;
            let peers =
                if all { vec!["every peer".to_owned()] } else { classes.iter().flat_map(|&class| members[class].clone()).collect() };
            let rule = table.rule(RuleId(rule - 1)).map_or_else(|| format!("rule {}", rule - 1), ToString::to_string);
            Allow { peers, ports, rule }
        })
        .filter(|allow| !allow.peers.is_empty())
        .collect();
    allows.sort_by(|a, b| (&a.rule, &a.ports, &a.peers).cmp(&(&b.rule, &b.ports, &b.peers)));
    allows
}

/// The ports whose class is wanted, as ranges.
fn ports_with(table: &Table, wanted: impl Fn(usize) -> bool) -> Vec<String> {
    let mut out = Vec::new();
    let other = wanted(table.port_class_of(Protocol(0), 0));
    let mut whole = 0;
    for protocol in Protocol::WITH_PORTS {
        let mut start = None;
        for port in 0..=65536u32 {
            let inside = port <= 65535 && wanted(table.port_class_of(protocol, port as u16));
            match (inside, start) {
                (true, None) => start = Some(port),
                (false, Some(first)) => {
                    start = None;
                    out.push(match (first, port - 1) {
                        (0, 65535) => {
                            whole += 1;
                            protocol.to_string()
                        }
                        (first, last) if first == last => format!("{protocol} {first}"),
                        (first, last) => format!("{protocol} {first}-{last}"),
                    });
                }
                _ => {}
            }
        }
    }
    match (other, whole) {
        (true, 3) => vec!["any".to_owned()],
        (true, _) => {
            out.push("other protocols".to_owned());
            out
        }
        _ => out,
    }
}

/// For each class its addresses, as pods' names where known, else as ranges.
fn class_members(table: &Table) -> Vec<Vec<String>> {
    let mut members = vec![Vec::new(); table.classes];
    let name = |address: IpAddr| match table.names().pod_at(address) {
        Some(pod) => format!("{pod} ({address})"),
        None => address.to_string(),
    };
    let range = |first: Addr, last: Addr| match first == last {
        true => name(first.into()),
        false => format!("{first}-{last}"),
    };
    for (first, last, class) in v4_intervals(table) {
        members[class].push(range(Addr::v4(first.to_be_bytes()), Addr::v4(last.to_be_bytes())));
    }
    for slot in table.v6_exact.iter().filter(|slot| slot.class_plus_one != 0) {
        members[(slot.class_plus_one - 1) as usize].push(name(Addr(slot.address).into()));
    }
    for (index, (&start, &class)) in table.v6_starts.iter().zip(&table.v6_classes).enumerate() {
        let last = table.v6_starts.get(index + 1).map_or(u128::MAX, |next| next - 1);
        members[usize::from(class)].push(range(Addr(start.to_be_bytes()), Addr(last.to_be_bytes())));
    }
    members.iter_mut().for_each(|members| members.sort());
    members
}

fn v4_intervals(table: &Table) -> Vec<(u32, u32, usize)> {
    let mut out: Vec<(u32, u32, usize)> = Vec::new();
    let mut push = |first: u32, last: u32, class: usize| match out.last_mut() {
        Some(previous) if previous.2 == class => previous.1 = last,
        _ => out.push((first, last, class)),
    };
    for (high, &l1) in (0u32..).zip(&table.v4_l1) {
        let base = high << 16;
        if l1 & LEAF != 0 {
            push(base, base | 0xffff, (l1 & !LEAF) as usize);
            continue;
        }
        for middle in 0..256u32 {
            let base = base | middle << 8;
            let l2 = table.v4_l2[l1 as usize * 256 + middle as usize];
            if l2 & LEAF != 0 {
                push(base, base | 0xff, (l2 & !LEAF) as usize);
                continue;
            }
            for low in 0..256u32 {
                push(base | low, base | low, usize::from(table.v4_l3[l2 as usize * 256 + low as usize]));
            }
        }
    }
    out
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "TABLE generation {} · {} bytes · {} endpoints · {} address classes · {} port classes · {} rows · {} rules",
            self.generation,
            self.image_bytes,
            self.endpoints.len(),
            self.classes,
            self.port_classes,
            self.rows,
            self.rules.len()
        )?;
        for endpoint in &self.endpoints {
            let addresses: Vec<String> = endpoint.addresses.iter().map(ToString::to_string).collect();
            writeln!(
                f,
                "\nENDPOINT {} · port {} · incarnation {} · {}",
                endpoint.pod,
                endpoint.port,
                endpoint.incarnation,
                addresses.join(", ")
            )?;
            for direction in &endpoint.directions {
                if !direction.isolated {
                    writeln!(f, "  {:8} not isolated: everything is allowed", direction.direction)?;
                    continue;
                }
                let by: Vec<String> = direction.isolating.iter().map(ToString::to_string).collect();
                writeln!(f, "  {:8} isolated by {}", direction.direction, by.join(", "))?;
                for allow in &direction.allows {
                    let mut peers = allow.peers.iter().take(PEERS_SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
                    if allow.peers.len() > PEERS_SHOWN_MAX {
                        peers += &format!(" and {} more", allow.peers.len() - PEERS_SHOWN_MAX);
                    }
                    writeln!(f, "           allow  {:24} {}   ({})", allow.ports.join(", "), peers, allow.rule)?;
                }
                writeln!(f, "           deny   everything else")?;
            }
        }
        Ok(())
    }
}
