//! One bug of each kind, by stage.

use super::super::model::Model;
use super::super::pods::NOBODY;
use super::super::rules::{Namespaces, Peer, PortSpec, Rule};
use super::super::selector::{Requirement, Selector};
use crate::ObjectName;
use sluice_flow::{Incarnation, Protocol};
use sluice_table::{Action, TableParts};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

fn nothing_in_model(_: &mut Model) {}
fn nothing_in_parts(_: &mut TableParts) {}

/// A name, and what it does to the two things that a stage hands on.
pub(super) type Bug = (&'static str, fn(&mut Model), fn(&mut TableParts));
type ModelBug = (&'static str, fn(&mut Model));
type PartsBug = (&'static str, fn(&mut TableParts));

pub(super) fn bugs() -> Vec<Bug> {
    let mut bugs: Vec<Bug> = Vec::new();
    bugs.extend(block_bugs().map(|(name, bug)| (name, bug, nothing_in_parts as fn(&mut TableParts))));
    bugs.extend(port_bugs().map(|(name, bug)| (name, bug, nothing_in_parts as fn(&mut TableParts))));
    bugs.extend(selector_bugs().map(|(name, bug)| (name, bug, nothing_in_parts as fn(&mut TableParts))));
    bugs.extend(identity_bugs().map(|(name, bug)| (name, bug, nothing_in_parts as fn(&mut TableParts))));
    bugs.extend(numbering_bugs().map(|(name, bug)| (name, nothing_in_model as fn(&mut Model), bug)));
    bugs
}

fn rules(model: &mut Model, mut edit: impl FnMut(&mut Rule)) {
    model.rules.iter_mut().for_each(|rule| edit(Arc::make_mut(rule)));
}

fn peers(model: &mut Model, mut edit: impl FnMut(&mut Peer)) {
    rules(model, |rule| rule.peers.iter_mut().flatten().for_each(&mut edit));
}

fn ranges(model: &mut Model, mut edit: impl FnMut(&mut Vec<(u128, u128)>)) {
    peers(model, |peer| {
        if let Peer::Block { ranges, .. } = peer {
            edit(ranges);
        }
    });
}

fn selectors(model: &mut Model, mut edit: impl FnMut(&mut Vec<Requirement>)) {
    peers(model, |peer| {
        if let Peer::Pods { namespaces, pods } = peer {
            edit(&mut pods.0);
            if let Namespaces::Selected(selector) = namespaces {
                edit(&mut selector.0);
            }
        }
    });
}

fn ports(model: &mut Model, mut edit: impl FnMut(&mut PortSpec)) {
    rules(model, |rule| rule.ports.iter_mut().flatten().for_each(&mut edit));
}

fn block_bugs() -> [ModelBug; 5] {
    [
        ("an except is forgotten", |model| ranges(model, |ranges| *ranges = vec![(ranges[0].0, ranges[ranges.len() - 1].1)])),
        ("an except ends one address early", |model| ranges(model, |ranges| ranges.iter_mut().skip(1).for_each(|range| range.0 -= 1))),
        ("an except begins one address late", |model| {
            ranges(model, |ranges| {
                let last = ranges.len() - 1;
                ranges[..last].iter_mut().for_each(|range| range.1 += 1);
            })
        }),
        ("a block loses its last address", |model| {
            ranges(model, |ranges| ranges.iter_mut().for_each(|range| range.1 -= u128::from(range.1 > range.0)))
        }),
        ("only the first of several peers counts", |model| rules(model, |rule| rule.peers.iter_mut().for_each(|peers| peers.truncate(1)))),
    ]
}

fn port_bugs() -> [ModelBug; 9] {
    fn range(model: &mut Model, edit: fn(&mut u16, &mut u16)) {
        ports(model, |port| {
            if let PortSpec::Range(_, first, last) = port {
                edit(first, last);
            }
        });
    }
    [
        ("endPort is ignored", |model| range(model, |first, last| *last = if *last == u16::MAX { *last } else { *first })),
        ("endPort is exclusive", |model| range(model, |first, last| *last -= u16::from(last > first))),
        ("a missing port means port 0", |model| range(model, |first, last| *last = if *last == u16::MAX { *first } else { *last })),
        ("port 65535 is lost", |model| range(model, |_, last| *last = (*last).min(u16::MAX - 1))),
        ("the protocol's default is UDP", |model| {
            ports(model, |port| {
                if let PortSpec::Range(protocol, ..) = port
                    && *protocol == Protocol::TCP
                {
                    *protocol = Protocol::UDP;
                }
            })
        }),
        ("a named port is lost at the selected pod", |model| {
            model.profiles.iter_mut().for_each(|profile| profile.named_ports = Arc::default())
        }),
        ("a named port is lost at the peer", |model| model.pods.kinds.iter_mut().for_each(|kind| kind.named_ports = Arc::default())),
        ("a named port is taken from another protocol", |model| {
            for kind in &mut model.pods.kinds {
                let named = &mut kind.named_ports;
                *named = Arc::new(named.iter().map(|((name, _), numbers)| ((name.clone(), Protocol::TCP), numbers.clone())).collect());
            }
        }),
        ("missing ports mean no port", |model| rules(model, |rule| rule.ports = Some(rule.ports.take().unwrap_or_default()))),
    ]
}

fn selector_bugs() -> [ModelBug; 9] {
    fn each(model: &mut Model, edit: fn(&mut Requirement)) {
        selectors(model, |requirements| requirements.iter_mut().for_each(edit));
    }
    [
        ("missing peers mean nobody", |model| rules(model, |rule| rule.peers = Some(rule.peers.take().unwrap_or_default()))),
        ("NotIn needs the key", |model| {
            selectors(model, |requirements| {
                let keys: Vec<_> = requirements
                    .iter()
                    .filter_map(|one| if let Requirement::NotIn(key, _) = one { Some(Requirement::Exists(key.clone())) } else { None })
                    .collect();
                requirements.extend(keys);
            })
        }),
        ("DoesNotExist means Exists", |model| {
            each(model, |one| {
                if let Requirement::DoesNotExist(key) = one {
                    *one = Requirement::Exists(key.clone());
                }
            })
        }),
        ("In takes its first value only", |model| {
            each(model, |one| {
                if let Requirement::In(_, values) = one {
                    *values = values.iter().take(1).cloned().collect();
                }
            })
        }),
        ("matchExpressions beside matchLabels are ignored", |model| selectors(model, |requirements| requirements.truncate(1))),
        ("a podSelector alone looks into all namespaces", |model| {
            peers(model, |peer| {
                if let Peer::Pods { namespaces, .. } = peer
                    && matches!(namespaces, Namespaces::Own(_))
                {
                    *namespaces = Namespaces::Selected(Selector(Vec::new()));
                }
            })
        }),
        ("a podSelector beside a namespaceSelector is ignored", |model| {
            peers(model, |peer| {
                if let Peer::Pods { namespaces: Namespaces::Selected(_), pods } = peer {
                    pods.0.clear();
                }
            })
        }),
        ("a namespaceSelector beside a podSelector is ignored", |model| {
            peers(model, |peer| {
                if let Peer::Pods { namespaces: Namespaces::Selected(selector), pods } = peer
                    && !pods.0.is_empty()
                {
                    selector.0.clear();
                }
            })
        }),
        ("an empty value counts as a missing label", |model| {
            each(model, |one| {
                if let Requirement::In(_, values) = one {
                    *values = values.iter().filter(|value| !value.is_empty()).cloned().collect::<BTreeSet<String>>();
                }
            })
        }),
    ]
}

fn identity_bugs() -> [ModelBug; 12] {
    fn lend(model: &mut Model, address: &str, pod: &str) {
        let pod = model.pods.objects[&ObjectName::parse(pod)].clone();
        let kind = model.pods.kinds.iter().position(|kind| kind.representative.metadata == pod.metadata).unwrap() as u32;
        let group = model.pods.group(vec![kind]);
        model.pods.put(address.parse().unwrap(), group);
    }
    [
        ("directions are swapped", |model| model.endpoints.iter_mut().for_each(|endpoint| endpoint.profiles.swap(0, 1))),
        ("the last of several policies is ignored", |model| {
            model.profiles.iter_mut().for_each(|profile| profile.rules.truncate(profile.rules.len().saturating_sub(1)))
        }),
        ("an isolated pod is not isolated", |model| model.endpoints[0].profiles[0] = None),
        ("a pod that nobody isolates is denied everything", |model| {
            let open = model.endpoints.iter_mut().find(|endpoint| endpoint.source.pod.name == "open").unwrap();
            open.profiles[0] = Some(0);
        }),
        ("a pod on its node's network is isolated", |model| {
            let agent = model.endpoints.iter_mut().find(|endpoint| endpoint.source.pod.name == "agent").unwrap();
            agent.profiles[1] = Some(0);
        }),
        ("the policies of another namespace's pod", |model| model.endpoints[0].profiles = model.endpoints[1].profiles),
        ("a pod's second address is lost", |model| model.pods.v6 = Default::default()),
        ("an address that two claim belongs to the first", |model| model.pods.groups.iter_mut().for_each(|kinds| kinds.truncate(1))),
        ("a completed pod keeps its address", |model| lend(model, "10.0.0.9", "x/db")),
        ("a node's address is taken for the pod on its network", |model| lend(model, "192.168.0.5", "x/db")),
        ("a pod stands one address beside its own", |model| {
            let (own, beside) = (IpAddr::from([10, 0, 1, 1]), IpAddr::from([10, 0, 1, 2]));
            let group = model.pods.group_at(own);
            model.pods.put(own, NOBODY);
            model.pods.put(beside, group);
        }),
        ("a service address is forgotten", |model| model.services.clear()),
    ]
}

fn numbering_bugs() -> [PartsBug; 16] {
    fn classes(parts: &mut TableParts, edit: impl Fn(u32) -> u32) {
        parts.v4_intervals.iter_mut().for_each(|one| one.1 = edit(one.1));
        parts.v6_intervals.iter_mut().for_each(|one| one.1 = edit(one.1));
        parts.v6_exact.iter_mut().for_each(|one| one.1 = edit(one.1));
    }
    fn row_numbers(parts: &mut TableParts, edit: impl Fn(u16) -> u16) {
        parts.profiles.iter_mut().flat_map(|profile| &mut profile.rows).for_each(|row| *row = edit(*row));
    }
    [
        ("a class does not fit its u8", |parts| classes(parts, |class| class & 0xff)),
        ("a row does not fit its u8", |parts| row_numbers(parts, |row| row & 0xff)),
        ("a port class does not fit its u8", |parts| {
            parts.ports.intervals.iter_mut().flatten().for_each(|one| one.1 &= 0xff);
        }),
        ("the rows of the other direction", |parts| parts.endpoints[0].profiles.swap(0, 1)),
        ("the rows of another endpoint", |parts| parts.endpoints[0].profiles = parts.endpoints[1].profiles),
        ("an IPv4 interval begins one address early", |parts| {
            let at = parts.v4_intervals.windows(2).rposition(|pair| pair[1].0 - pair[0].0 > 2).unwrap();
            parts.v4_intervals[at + 1].0 -= 1;
        }),
        ("an IPv6 interval begins one address late", |parts| parts.v6_intervals.last_mut().unwrap().0 += 1),
        ("a pod's IPv6 address is lost", |parts| parts.v6_exact.truncate(1)),
        ("an IPv6 address that is no pod's", |parts| {
            let (address, class) = parts.v6_exact[0];
            parts.v6_exact.push((address + (1 << 64), class));
            parts.v6_exact.sort_unstable();
        }),
        ("protocols without ports are judged as TCP 5432", |parts| {
            let tcp = &parts.ports.intervals[0];
            parts.ports.others = tcp[tcp.partition_point(|one| one.0 <= 5432) - 1].1;
        }),
        ("a range of ports begins one late", |parts| parts.ports.intervals[1].last_mut().unwrap().0 += 1),
        ("one cell of one row allows", |parts| {
            let mut actions = parts.profiles.iter_mut().flat_map(|profile| &mut profile.actions);
            let deny = actions.find(|action| **action == Action::Deny).unwrap();
            *deny = Action::Allow(sluice_flow::RuleId(0));
        }),
        ("rules have each other's names", |parts| parts.names.rules.swap(0, 1)),
        ("the incarnation of the pod before", |parts| {
            parts.endpoints[0].incarnation = Incarnation(0);
            parts.names.endpoints[0].incarnation = Incarnation(0);
        }),
        ("an endpoint is lost", |parts| {
            parts.endpoints.pop();
            parts.names.endpoints.pop();
        }),
        ("a policy that isolates is not named", |parts| drop(parts.names.endpoints[0].isolating_ingress.pop())),
    ]
}
