//! What a seed does to its world: connections, strays, swaps, deaths, stalls, full tables, pods that come and go, and time.

use super::client::Kind;
use super::cluster::{SERVICE, chance, pick};
use super::host::{TCP_PORTS, UDP_PORTS};
use super::raw;
use super::world::{Broken, Event, MILLISECOND_NS, Packet, Place, SECOND_NS, World};
use crate::live::frames::Link;
use crate::node::{GATEWAY_MAC, Hook, Origin};
use sluice_dataplane::kernel::flow_of;
use sluice_dataplane::worker::Command;
use sluice_flow::Incarnation;
use std::net::{IpAddr, SocketAddr};

/// Ports without any server: a stack resets, or says so by ICMP.
const CLOSED_PORT: u16 = 5353;

/// What a world remembers between its steps.
pub(super) struct Steps {
    pub(super) left: usize,
    next_local_port: u16,
    /// Ends of what was opened.
    opened: Vec<(SocketAddr, SocketAddr)>,
}

impl Steps {
    pub(super) fn new(left: usize) -> Self {
        Self { left, next_local_port: 40_000, opened: Vec::new() }
    }

    fn local_port(&mut self) -> u16 {
        self.next_local_port += 1;
        self.next_local_port
    }

    /// One step; then time passes until the next.
    pub(super) fn take(&mut self, world: &mut World) -> Result<(), Broken> {
        match world.rng.u32(0..40) {
            0..14 => self.open(world)?,
            14..22 => (0..3).for_each(|_| self.stray(world)),
            22..24 => forge(world),
            24..30 => {
                let edit = world.cluster.edit(&mut world.rng);
                world.note(|| edit);
                let delay_ns = world.rng.u64(0..20) * MILLISECOND_NS;
                world.publish(delay_ns)?;
            }
            30..32 => replace_pod(world)?,
            32..36 => disturb_worker(world)?,
            36 => scan(world),
            37 => {
                let on = !world.transmit_full[0];
                world.transmit_full[0] = on;
                world.node.set_transmit_max(0, if on { 0 } else { usize::MAX });
                world.note(|| format!("worker 0's transmit ring is full: {on}"));
            }
            _ => {}
        }
        self.left -= 1;
        if self.left > 0 {
            let gap_ns = match world.rng.u32(0..20) {
                0 => *pick(&mut world.rng, &[11, 35, 70, 130]) * SECOND_NS,
                1..4 => world.rng.u64(200..3000) * MILLISECOND_NS,
                _ => world.rng.u64(0..60) * MILLISECOND_NS,
            };
            world.after(gap_ns, Event::Step);
        }
        Ok(())
    }

    /// A stack opens something towards another.
    fn open(&mut self, world: &mut World) -> Result<(), Broken> {
        let (from, to) = pair(world);
        let kind = match world.rng.u32(0..10) {
            0..3 => Kind::Tcp(world.rng.usize(1..3000)),
            3..6 => Kind::SlowTcp(world.rng.usize(500..3000)),
            6..8 => Kind::Udp(world.rng.usize(1..6)),
            _ => Kind::Ping(world.rng.usize(1..5)),
        };
        let port = match kind {
            _ if chance(&mut world.rng, 8) => CLOSED_PORT,
            Kind::Tcp(_) | Kind::SlowTcp(_) => *pick(&mut world.rng, &TCP_PORTS),
            _ => UDP_PORTS[0],
        };
        let local_port = self.local_port();
        let address = *pick(&mut world.rng, &world.stations[to].host.addresses);
        self.connect(world, from, kind, SocketAddr::new(address, port), local_port)?;
        Ok(())
    }

    /// False: the two are not of one family.
    pub(super) fn connect(
        &mut self,
        world: &mut World,
        from: usize,
        kind: Kind,
        peer: SocketAddr,
        local_port: u16,
    ) -> Result<bool, Broken> {
        let now_ns = world.now_ns;
        let opened = world.stations[from].host.open(kind, peer, local_port, now_ns);
        if opened {
            let own = world.stations[from].host.address_like(peer.ip()).expect("it was opened");
            self.opened.push((SocketAddr::new(own, local_port), peer));
            world.note(|| format!("[{own}]:{local_port} opens {kind:?} to {peer}"));
            world.poll(from)?;
        }
        Ok(opened)
    }

    /// A port for a fresh connection.
    pub(super) fn fresh_port(&mut self) -> u16 {
        self.local_port()
    }

    /// A packet out of place, often on the ports of a connection that exists, in either direction.
    fn stray(&mut self, world: &mut World) {
        let (mut from, to) = pair(world);
        let peer_ip = *pick(&mut world.rng, &world.stations[to].host.addresses);
        let Some(own_ip) = world.stations[from].host.address_like(peer_ip) else { return };
        let (any_port, server_port) = (world.rng.u16(2000..60_000), *pick(&mut world.rng, &[80, 8080, 53, 443]));
        let (mut src, mut dst) = (SocketAddr::new(own_ip, any_port), SocketAddr::new(peer_ip, server_port));
        let on_a_connection = !self.opened.is_empty() && chance(&mut world.rng, 60);
        if on_a_connection {
            let newest = self.opened.len().saturating_sub(4);
            (src, dst) = *pick(&mut world.rng, &self.opened[newest..]);
            if chance(&mut world.rng, 50) {
                (src, dst) = (dst, src);
            }
            let Some(station) = world.stations.iter().position(|station| station.host.addresses.contains(&src.ip())) else { return };
            from = station;
        }
        if src.is_ipv4() && chance(&mut world.rng, 25) {
            dst = SocketAddr::new(SERVICE.into(), 80);
        }
        let link = Link { pod: world.stations[from].mac, gateway: GATEWAY_MAC };
        let quoted = world.last_passed.clone();
        let frame = match on_a_connection || chance(&mut world.rng, 70) {
            true => raw::stray(&mut world.rng, link, src, dst, &quoted),
            false => raw::datagram(&mut world.rng, link, src.ip(), dst),
        };
        if let Some(frame) = frame {
            world.note(|| "a stray:".to_owned());
            world.launch(from, Packet { frame, forged: None });
        }
    }
}

/// Two stations, at least one of them a pod of this node.
pub(super) fn pair(world: &mut World) -> (usize, usize) {
    let count = world.stations.len();
    loop {
        let (a, b) = (world.rng.usize(0..count), world.rng.usize(0..count));
        let is_pod = |index: usize| matches!(world.stations[index].place, Place::Pod { .. });
        if a != b && (is_pod(a) || is_pod(b)) {
            return (a, b);
        }
    }
}

/// A pod lies about who it is, or sends what is not served.
fn forge(world: &mut World) {
    let (from, to) = pair(world);
    let Place::Pod { port, .. } = world.stations[from].place else { return };
    if chance(&mut world.rng, 8) {
        let (frame, forged) = raw::misrouted(Link { pod: world.stations[from].mac, gateway: GATEWAY_MAC });
        world.ledger.sent += 1;
        let origin = Origin::Uplink;
        return world.send(move |packet| Event::Hook { hook: Hook::Entering(port), origin, packet }, Packet { frame, forged });
    }
    let victim = SocketAddr::new(*pick(&mut world.rng, &world.stations[to].host.addresses), 53);
    let link = Link { pod: world.stations[from].mac, gateway: GATEWAY_MAC };
    if let Some((frame, forged)) = raw::forged(&mut world.rng, link, &world.stations[from].host.addresses, victim) {
        world.note(|| "a forgery:".to_owned());
        world.launch(from, Packet { frame, forged });
    }
}

/// A pod's device is unregistered; a little later the same pod is attached anew, or another one takes its place and address.
fn replace_pod(world: &mut World) -> Result<(), Broken> {
    let (station, _) = pair(world);
    let Place::Pod { port, incarnation: Some(_) } = world.stations[station].place else { return Ok(()) };
    if let Some(plant) = world.plant {
        world.stash = plant.before_removal(&world.node, port);
    }
    world.node.remove_port(port);
    world.truth.memory.forget_port(port);
    world.stations[station].place = Place::Pod { port, incarnation: None };
    world.note(|| format!("port {} removed", port.0));
    world.wake_all();
    if chance(&mut world.rng, 50) {
        let old = world.stations[station].pod.clone().expect("a pod has a name");
        world.cluster.remove_pod(&old);
        let addresses = world.stations[station].host.addresses.clone();
        let name = world.cluster.add_pod(&mut world.rng, &addresses);
        world.note(|| format!("{name} has the address of {old}"));
        world.stations[station].pod = Some(name);
        world.stations[station].host.restart();
    }
    world.publish(MILLISECOND_NS)?;
    let delay_ns = world.rng.u64(1..300) * MILLISECOND_NS;
    world.after(delay_ns, Event::Attach { station });
    Ok(())
}

fn disturb_worker(world: &mut World) -> Result<(), Broken> {
    let worker = world.rng.u16(0..world.stalled_until_ns.len() as u16);
    match world.rng.u32(0..4) {
        0 => world.restart(worker)?,
        1 => {
            world.note(|| format!("worker {worker} dies"));
            world.stop(worker);
            let delay_ns = world.rng.u64(1..2000) * MILLISECOND_NS;
            world.after(delay_ns, Event::Restart { worker });
        }
        _ => {
            let until_ns = world.now_ns + world.rng.u64(10..500) * MILLISECOND_NS;
            world.note(|| format!("worker {worker} stalls"));
            world.stalled_until_ns[usize::from(worker)] = until_ns;
            world.at(until_ns, Event::Serve { worker });
        }
    }
    Ok(())
}

/// What the keeper does now and then: it hands idle entries to their workers, who look again.
fn scan(world: &mut World) {
    const SHORTEST_NS: u64 = 60 * SECOND_NS;
    let now_ns = world.now_ns;
    for (key, value) in world.node.kernel().cache_entries() {
        let idle = now_ns.saturating_sub(value.last_seen_ns) > value.timeout_ns.min(SHORTEST_NS);
        if let (true, Some(flow)) = (idle, flow_of(&key)) {
            let owner = world.node.owner(flow.port);
            world.node.command(owner, Command::Expire(vec![(flow, Incarnation(key.incarnation))]));
        }
    }
    world.note(|| "the cache is scanned for idle connections".to_owned());
    world.wake_all();
}

/// For the liveness check: what a pod may reach.
pub(super) fn of_one_family(addresses: &[IpAddr], like: IpAddr) -> Option<IpAddr> {
    addresses.iter().copied().find(|address| address.is_ipv4() == like.is_ipv4())
}
