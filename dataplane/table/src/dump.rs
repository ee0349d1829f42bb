//! A table for people: who may reach whom, read back from the very bytes the workers use, with names.

use crate::inspect::{Profile, V4Stretch};
use crate::parts::Action;
use crate::table::Table;
use serde::Serialize;
use sluice_flow::{Addr, Direction, ObjectName, PortIndex, Protocol, RuleId};
use std::collections::{BTreeMap, BTreeSet};
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
    /// Directions of endpoints that differ in what they allow.
    pub profiles: usize,
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
                        allows: allows(table, endpoint.port.0, direction, &members),
                    })
                    .collect(),
            })
            .collect();
        Self {
            generation: table.generation(),
            image_bytes: table.image_bytes(),
            classes: table.classes,
            port_classes: table.port_classes,
            profiles: profiles(table),
            rules: table.names().rules.iter().map(ToString::to_string).collect(),
            endpoints,
        }
    }
}

/// The allows of one direction, grouped by rule and ports.
fn allows(table: &Table, port: u16, direction: Direction, members: &[Vec<String>]) -> Vec<Allow> {
    let Some(profile) = table.profile(PortIndex(port), direction) else { return Vec::new() };
    let mut classes_of_row: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
    for (class, row) in profile.rows_of_classes().into_iter().enumerate() {
        classes_of_row.entry(row).or_default().push(class);
    }
    let mut grouped: BTreeMap<(RuleId, Vec<String>), Vec<usize>> = BTreeMap::new();
    for (row, classes) in classes_of_row {
        let actions: Vec<Action> = (0..table.port_classes).map(|port_class| profile.action(row, port_class)).collect();
        let rules: BTreeSet<RuleId> =
            actions.iter().filter_map(|action| if let Action::Allow(rule) = action { Some(*rule) } else { None }).collect();
        for rule in rules {
            let ports = ports_with(table, |port_class| actions[port_class] == Action::Allow(rule));
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
            let rule = table.rule(rule).map_or_else(|| format!("rule {}", rule.0), ToString::to_string);
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
    let intervals = table.v6_intervals();
    let around = |address: u128| intervals[intervals.partition_point(|interval| interval.0 <= address) - 1].1;
    let mut single = |address: u128, class: usize| members[class].push(name(Addr(address.to_be_bytes()).into()));
    let mut in_blocks = BTreeSet::new();
    table.v6_blocks(|first, classes| {
        in_blocks.insert(first);
        for (address, &class) in (first..).zip(classes) {
            if class as usize != around(address) {
                single(address, class as usize);
            }
        }
    });
    table
        .v6_singles()
        .filter(|address| !in_blocks.contains(&(address & !0xff)))
        .for_each(|address| single(address, table.v6_class(address)));
    for (index, &(start, class)) in intervals.iter().enumerate() {
        let last = intervals.get(index + 1).map_or(u128::MAX, |next| next.0 - 1);
        members[class].push(range(Addr(start.to_be_bytes()), Addr(last.to_be_bytes())));
    }
    // names first, because they say more
    members.iter_mut().for_each(|members| members.sort_by_cached_key(|member| (!member.contains('('), member.clone())));
    members
}

fn v4_intervals(table: &Table) -> Vec<(u32, u32, usize)> {
    let mut out: Vec<(u32, u32, usize)> = Vec::new();
    let mut push = |first: u32, last: u32, class: usize| match out.last_mut() {
        Some(previous) if previous.2 == class => previous.1 = last,
        _ => out.push((first, last, class)),
    };
    table.v4_stretches(|stretch| match stretch {
        V4Stretch::Same { first, last, class } => push(first, last, class),
        V4Stretch::Each { first, classes } => (first..).zip(classes).for_each(|(address, &class)| push(address, address, class as usize)),
    });
    out
}

/// How many there are.
fn profiles(table: &Table) -> usize {
    let all = table.names().endpoints.iter().flat_map(|endpoint| Direction::BOTH.map(|direction| table.profile(endpoint.port, direction)));
    let mut distinct: Vec<Profile<'_>> = Vec::new();
    for profile in all.flatten() {
        if distinct.iter().all(|known| !known.is(&profile)) {
            distinct.push(profile);
        }
    }
    distinct.len()
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "TABLE generation {} · {} bytes · {} endpoints · {} address classes · {} port classes · {} profiles · {} rules",
            self.generation,
            self.image_bytes,
            self.endpoints.len(),
            self.classes,
            self.port_classes,
            self.profiles,
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
