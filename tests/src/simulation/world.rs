//! Stacks, links, hooks and workers, and the one queue of events that moves them.
//!
//! ```text
//!   stack ─link─▶ leaving hook ─link─▶ entering hook ─link─▶ stack        every fate is checked by the truth
//!                      └─ worker's ring ─┘  served later, never, or by a successor
//! ```

use super::cluster::{Cluster, NODE, SERVICE, chance};
use super::facts::{Facts, Faults, Forged};
use super::history::History;
use super::host::Host;
use super::ledger::{Digest, Ledger, Trace};
use super::memory::Memory;
use super::plant::Plant;
use super::truth::Truth;
use super::words::{describe, fate_number, verb};
use crate::node::{Fate, GATEWAY_MAC, Hook, Node, NodeConfig, Offered, Origin, Route, Ticket};
use fastrand::Rng;
use sluice_bpf::abi::{CacheValue, Key};
use sluice_dataplane::worker::Established;
use sluice_flow::{Addr, Direction, Incarnation, ObjectName, PortIndex};
use sluice_table::Table;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

pub(super) const MILLISECOND_NS: u64 = 1_000_000;
pub(super) const SECOND_NS: u64 = 1000 * MILLISECOND_NS;

/// A packet on its way.
#[derive(Debug, Clone)]
pub(super) struct Packet {
    pub(super) frame: Vec<u8>,
    pub(super) forged: Option<Forged>,
}

pub(super) enum Event {
    /// A packet reaches a hook.
    Hook { hook: Hook, origin: Origin, packet: Packet },
    /// A packet reaches a stack.
    Deliver { station: usize, packet: Packet },
    /// A stack's timer.
    Poll { station: usize },
    /// A worker wakes.
    Serve { worker: u16 },
    /// Tables reach the workers.
    HandOver { table: Arc<Table> },
    /// The next of the seed's steps.
    Step,
    /// A dead worker's successor.
    Restart { worker: u16 },
    /// A pod's place is taken by another, or by itself again.
    Attach { station: usize },
}

/// Where a stack is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A pod of this node; the incarnation while it is registered.
    Pod { port: PortIndex, incarnation: Option<Incarnation> },
    /// The node itself.
    Node,
    /// Beyond the uplink: pods of other nodes, and the world.
    Beyond,
}

pub(super) struct Station {
    pub(super) host: Host,
    pub(super) place: Place,
    pub(super) mac: [u8; 6],
    /// Behind the address: pods here and elsewhere.
    pub(super) pod: Option<ObjectName>,
}

/// What the links do to packets.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Links {
    pub(super) loss_percent: u32,
    pub(super) duplicate_percent: u32,
    pub(super) late_percent: u32,
}

/// A packet about which a worker was asked.
pub(super) struct Asked {
    hook: Hook,
    origin: Origin,
    packet: Packet,
    incarnation: Option<Incarnation>,
}

/// What a run found to be wrong.
pub(super) type Broken = String;

pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) now_ns: u64,
    events: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    pub(super) node: Node,
    pub(super) cluster: Cluster,
    pub(super) truth: Truth,
    pub(super) stations: Vec<Station>,
    next_polls: Vec<u64>,
    pub(super) links: Links,
    pub(super) ledger: Ledger,
    pub(super) digest: Digest,
    pub(super) trace: Trace,
    pub(super) asked: HashMap<Ticket, Asked>,
    pub(super) generation: u64,
    pub(super) last_hand_over_ns: u64,
    pub(super) next_incarnation: u32,
    /// Until when a worker does nothing.
    pub(super) stalled_until_ns: Vec<u64>,
    pub(super) transmit_full: Vec<bool>,
    pub(super) plant: Option<Plant>,
    pub(super) packets_only: bool,
    /// For [`Plant::EpochNotRaised`].
    pub(super) stash: Vec<(Key, CacheValue)>,
    pub(super) events_done: u64,
    /// The last frame that passed a hook, for errors to quote.
    pub(super) last_passed: Vec<u8>,
}

impl World {
    pub(super) fn new(rng: Rng, cluster: Cluster, config: NodeConfig, plant: Option<Plant>, trace: Trace) -> Self {
        let mut memory = Memory::default();
        memory.keep = config.established == Established::Keep && plant != Some(Plant::SwapKeepsForbidden);
        memory.reclaims = config.connections_per_port_max != NodeConfig::default().connections_per_port_max;
        let workers = usize::from(config.workers);
        let now_ns = 1000 * SECOND_NS;
        let mut node = Node::new(config);
        node.set_node_addresses(&NODE.map(Addr::from), now_ns);
        Self {
            rng,
            now_ns,
            events: BTreeMap::new(),
            next_event: 0,
            node,
            cluster,
            truth: Truth { history: History::default(), memory, services: vec![SERVICE.into()], node_addresses: NODE.to_vec() },
            stations: Vec::new(),
            next_polls: Vec::new(),
            links: Links::default(),
            ledger: Ledger::default(),
            digest: Digest::default(),
            trace,
            asked: HashMap::new(),
            generation: 0,
            last_hand_over_ns: 0,
            next_incarnation: 1,
            stalled_until_ns: vec![0; workers],
            transmit_full: vec![false; workers],
            plant,
            packets_only: false,
            stash: Vec::new(),
            events_done: 0,
            last_passed: Vec::new(),
        }
    }

    pub(super) fn add_station(&mut self, place: Place, addresses: &[IpAddr], pod: Option<ObjectName>) {
        let index = self.stations.len() as u8;
        let host = Host::new(addresses, self.rng.u64(..), self.now_ns);
        self.stations.push(Station { host, place, mac: [2, 0, 0, 0, 1, index], pod });
        self.next_polls.push(u64::MAX);
    }

    pub(super) fn at(&mut self, time_ns: u64, event: Event) {
        self.events.insert((time_ns, self.next_event), event);
        self.next_event += 1;
    }

    pub(super) fn after(&mut self, delay_ns: u64, event: Event) {
        self.at(self.now_ns + delay_ns, event);
    }

    pub(super) fn note(&mut self, say: impl FnOnce() -> String) {
        self.trace.note(self.now_ns, say);
    }

    /// Runs the next event if it is due by `until_ns`; false: there is none.
    pub(super) fn run_one(&mut self, until_ns: u64, step: &mut dyn FnMut(&mut Self) -> Result<(), Broken>) -> Result<bool, Broken> {
        let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= until_ns) else { return Ok(false) };
        let ((time_ns, _), event) = entry.remove_entry();
        self.now_ns = self.now_ns.max(time_ns);
        self.events_done += 1;
        match event {
            Event::Hook { hook, origin, packet } => self.at_hook(hook, origin, packet)?,
            Event::Deliver { station, packet } => self.deliver(station, &packet)?,
            Event::Poll { station } => self.poll(station)?,
            Event::Serve { worker } => self.serve(worker)?,
            Event::HandOver { table } => self.hand_over(table),
            Event::Step => step(self)?,
            Event::Restart { worker } => self.restart(worker)?,
            Event::Attach { station } => {
                self.attach(station);
                self.publish(MILLISECOND_NS)?;
            }
        }
        self.node.check_accounts().map_err(|wrong| wrong.to_string())?;
        Ok(true)
    }

    /// Puts a packet on a link towards its next hop.
    pub(super) fn send(&mut self, event: impl Fn(Packet) -> Event, packet: Packet) {
        let Links { loss_percent, duplicate_percent, late_percent } = self.links;
        let copies = 1 + usize::from(chance(&mut self.rng, duplicate_percent));
        self.ledger.sent += copies as u64 - 1;
        self.ledger.duplicated += copies as u64 - 1;
        for _ in 0..copies {
            if chance(&mut self.rng, loss_percent) {
                self.ledger.lost += 1;
                self.note(|| "  lost on the way".to_owned());
                continue;
            }
            let late_ns = if chance(&mut self.rng, late_percent) { self.rng.u64(0..800) * MILLISECOND_NS } else { 0 };
            let delay_ns = 50_000 + self.rng.u64(0..200_000) + late_ns;
            self.after(delay_ns, event(packet.clone()));
        }
    }

    /// A new packet leaves a station.
    pub(super) fn launch(&mut self, station: usize, packet: Packet) {
        self.ledger.sent += 1;
        match self.stations[station].place {
            Place::Pod { port, .. } => {
                let origin = Origin::Pod { port, deferred: false };
                self.send(move |packet| Event::Hook { hook: Hook::Leaving(port), origin, packet }, packet);
            }
            Place::Node => self.towards(Origin::Node, packet),
            Place::Beyond => self.towards(Origin::Uplink, packet),
        }
    }

    /// The node routes a packet that no hook stands in front of any more.
    fn towards(&mut self, origin: Origin, mut packet: Packet) {
        match self.node.route(&packet.frame) {
            Route::Pod(port) => {
                packet.frame = self.node.addressed_to(port, packet.frame);
                self.send(move |packet| Event::Hook { hook: Hook::Entering(port), origin, packet }, packet);
            }
            Route::Uplink if matches!(origin, Origin::Pod { deferred: true, .. }) => {
                self.send(move |packet| Event::Hook { hook: Hook::Exiting, origin, packet }, packet);
            }
            Route::Node | Route::Uplink => {
                let address = crate::node::destination(&packet.frame).map(IpAddr::from);
                let found = self.stations.iter().position(|station| {
                    !matches!(station.place, Place::Pod { .. }) && address.is_some_and(|address| station.host.addresses.contains(&address))
                });
                match found {
                    Some(station) => self.send(move |packet| Event::Deliver { station, packet }, packet),
                    None => self.ledger.delivered += 1,
                }
            }
        }
    }

    fn deliver(&mut self, station: usize, packet: &Packet) -> Result<(), Broken> {
        self.ledger.delivered += 1;
        self.stations[station].host.receive(packet.frame[14..].to_vec());
        self.poll(station)
    }

    /// Runs a stack; what it sends goes onto its link.
    pub(super) fn poll(&mut self, station: usize) -> Result<(), Broken> {
        let sent = self.stations[station].host.poll(self.now_ns);
        for packet in sent {
            let ethertype = if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
            let frame = [&GATEWAY_MAC[..], &self.stations[station].mac, &ethertype, &packet].concat();
            self.launch(station, Packet { frame, forged: None });
        }
        if let Some(wrong) = self.stations[station].host.progress().find_map(|progress| progress.corrupt.as_ref()) {
            return Err(format!("a stack received what nobody sent it: {wrong}"));
        }
        let next = self.stations[station].host.next_poll_ns(self.now_ns);
        if let Some(next) = next
            .map(|next| next.max(self.now_ns + 1000))
            .filter(|next| self.next_polls[station] > *next || self.next_polls[station] <= self.now_ns)
        {
            self.next_polls[station] = next;
            self.at(next, Event::Poll { station });
        }
        Ok(())
    }

    fn incarnation(&self, port: PortIndex) -> Option<Incarnation> {
        self.stations.iter().find_map(|station| match station.place {
            Place::Pod { port: own, incarnation } if own == port => incarnation,
            _ => None,
        })
    }

    fn at_hook(&mut self, hook: Hook, origin: Origin, packet: Packet) -> Result<(), Broken> {
        let (port, direction) = judged_at(hook, origin);
        let worker = self.node.owner(port);
        let incarnation = self.incarnation(port);
        let held = self.node.worker(worker).map(|worker| worker.connections().count(port));
        let faults = Faults {
            worker_dead: self.node.worker(worker).is_none(),
            ring_full: self.node.waiting_for(worker) >= self.node.config().receive_max,
            quota_full: held.is_none_or(|held| held >= self.node.config().connections_per_port_max),
            ..Faults::default()
        };
        let is_exit = hook == Hook::Exiting;
        let undo = self.plant.filter(|_| !is_exit).and_then(|plant| plant.before_offer(&self.node, port, direction, &packet.frame));
        let offered = self.node.offer(hook, &packet.frame, origin, self.now_ns);
        if let Some(key) = undo {
            self.node.kernel().cache.borrow_mut().remove(&key);
        }
        self.offered(Asked { hook, origin, packet, incarnation }, false, offered, faults)
    }

    /// A packet's fate is known, or the next worker is asked.
    fn offered(&mut self, asked: Asked, waited: bool, offered: Offered, faults: Faults) -> Result<(), Broken> {
        match offered {
            Offered::Done(fate) => self.settle(asked, waited, fate, faults),
            Offered::Asked(ticket, worker) => {
                let (port, direction) = judged_at(asked.hook, asked.origin);
                self.note(|| format!("  asked: {}", describe(port, direction, &asked.packet.frame)));
                self.asked.insert(ticket, asked);
                let delay_ns = self.rng.u64(5_000..200_000);
                let wake_ns = self.stalled_until_ns[usize::from(worker)].max(self.now_ns + delay_ns);
                self.at(wake_ns, Event::Serve { worker });
                Ok(())
            }
        }
    }

    fn serve(&mut self, worker: u16) -> Result<(), Broken> {
        if self.now_ns < self.stalled_until_ns[usize::from(worker)] {
            return Ok(());
        }
        let waiting = self.node.waiting_for(worker);
        let cache_entries = self.node.kernel().cache.borrow().len();
        let held = |world: &Self, port| world.node.worker(worker).map_or(0, |worker| worker.connections().count(port));
        let ports: Vec<PortIndex> = self.node.endpoints().iter().map(|endpoint| endpoint.port).collect();
        let held_before: HashMap<PortIndex, usize> = ports.into_iter().map(|port| (port, held(self, port))).collect();
        let generation = self.node.generation(worker);
        let before = self.plant.map(|plant| plant.before_commands(&self.node));
        let answers = self.node.serve(worker, self.now_ns);
        if self.node.generation(worker) != generation {
            if let (Some(plant), Some(before)) = (self.plant, before) {
                plant.after_adoption(&self.node, &before);
            }
            self.adopted(worker);
        }
        if let Some(plant) = self.plant {
            plant.after_serve(&self.node);
        }
        for (ticket, offered) in answers {
            let asked = self.asked.remove(&ticket).ok_or("a worker answered what it was not asked")?;
            let (port, config) = (judged_at(asked.hook, asked.origin).0, self.node.config());
            let faults = Faults {
                transmit_full: self.transmit_full[usize::from(worker)],
                cache_full: cache_entries + 2 * waiting > self.node.kernel().cache_entries_max.get(),
                quota_full: held_before.get(&port).is_some_and(|held| held + waiting > config.connections_per_port_max),
                ..Faults::default()
            };
            self.offered(asked, true, offered, faults)?;
        }
        self.check_cache()
    }

    pub(super) fn check_cache(&self) -> Result<(), Broken> {
        if self.packets_only {
            return Ok(());
        }
        self.node.check_cache().map_err(|wrong| wrong.to_string())
    }

    /// A packet's fate at a hook is known: it is checked, and the packet goes on or ends.
    fn settle(&mut self, asked: Asked, waited: bool, fate: Fate, faults: Faults) -> Result<(), Broken> {
        let Asked { hook, origin, packet, incarnation } = asked;
        let (port, direction) = judged_at(hook, origin);
        let facts = Facts {
            port,
            direction,
            incarnation: self.incarnation(port),
            asked: if waited { incarnation } else { None },
            generation: self.node.generation(self.node.owner(port)),
            from_node: origin == Origin::Node,
            departs: hook == Hook::Exiting,
            forged: packet.forged,
            now_ns: self.now_ns,
            faults,
        };
        self.note(|| format!("{} {} (generation {})", verb(&fate), describe(port, direction, &packet.frame), facts.generation));
        self.digest.add(&self.now_ns.to_le_bytes());
        self.digest.add(&[port.0 as u8, direction as u8, fate_number(&fate)]);
        self.digest.add(&packet.frame);
        let checked = self.truth.check(&facts, &packet.frame, &fate);
        checked.map_err(|wrong| format!("{} {}: {wrong}", verb(&fate), describe(port, direction, &packet.frame)))?;
        let (frame, deferred) = match fate {
            Fate::Dropped(reason) => {
                *self.ledger.dropped.entry(reason).or_default() += 1;
                return Ok(());
            }
            Fate::Passed(frame) => (frame, false),
            Fate::Deferred(frame) => (frame, true),
        };
        self.last_passed.clone_from(&frame);
        let packet = Packet { frame, ..packet };
        match hook {
            Hook::Leaving(port) => self.towards(Origin::Pod { port, deferred }, packet),
            Hook::Exiting => self.towards(Origin::Pod { port, deferred: false }, packet),
            Hook::Entering(port) => {
                let at = self.stations.iter().position(|station| matches!(station.place, Place::Pod { port: own, .. } if own == port));
                let station = at.expect("every port has had a station");
                self.send(move |packet| Event::Deliver { station, packet }, packet);
            }
        }
        Ok(())
    }

    /// Packets that are still on their way or wait for a worker.
    pub(super) fn in_flight(&self) -> u64 {
        let moving = self.events.values().filter(|event| matches!(event, Event::Hook { .. } | Event::Deliver { .. }));
        moving.count() as u64 + self.asked.len() as u64
    }
}

/// Whose policy is asked at a hook, and which half of it.
fn judged_at(hook: Hook, origin: Origin) -> (PortIndex, Direction) {
    match (hook, origin) {
        (Hook::Entering(port), _) => (port, Direction::Ingress),
        (Hook::Leaving(port), _) | (Hook::Exiting, Origin::Pod { port, .. }) => (port, Direction::Egress),
        (Hook::Exiting, _) => panic!("only what left a pod is shown to the uplink's hook"),
    }
}
