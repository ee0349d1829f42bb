//! The end of every run: faults off, tables and workers whole. What the policy allows must now work from end to end, with
//! the right bytes; what it forbids must not answer at all.

use super::client::Kind;
use super::history::Question;
use super::host::{TCP_PORTS, UDP_PORTS};
use super::steps::{Steps, of_one_family, pair};
use super::world::{Broken, Links, MILLISECOND_NS, Place, SECOND_NS, World};
use sluice_flow::limits::CONNECTIONS_PER_PORT_MAX;
use sluice_flow::{Direction, Protocol};
use std::net::{IpAddr, SocketAddr};

const ATTEMPTS: usize = 10;
/// Long enough for stray state to be answered with a reset and a handshake to be repeated.
const PATIENCE_NS: u64 = 20 * SECOND_NS;

/// Something opened, and whether it must work.
struct Attempt {
    station: usize,
    /// Of that station's clients.
    client: usize,
    allowed: bool,
}

/// Runs until nothing moves any more.
fn settle(world: &mut World, for_ns: u64) -> Result<(), Broken> {
    let until_ns = world.now_ns + for_ns;
    while world.run_one(until_ns, &mut |_| Ok(()))? {}
    world.now_ns = world.now_ns.max(until_ns);
    Ok(())
}

/// Switches every fault off, and lets what was under way come to rest.
fn calm(world: &mut World) -> Result<(), Broken> {
    world.note(|| "faults off".to_owned());
    world.links = Links::default();
    world.node.kernel().cache_entries_max.set(usize::MAX);
    settle(world, 3 * SECOND_NS)?;
    // a new worker takes the new limits
    world.node.config_mut().connections_per_port_max = CONNECTIONS_PER_PORT_MAX;
    world.node.config_mut().receive_max = 2048;
    for worker in 0..world.stalled_until_ns.len() as u16 {
        world.restart(worker)?;
    }
    for station in &mut world.stations {
        station.host.restart();
    }
    world.publish(0)?;
    settle(world, SECOND_NS)?;
    match world.in_flight() {
        0 => Ok(()),
        moving => Err(format!("{moving} packets never came to rest")),
    }
}

pub(super) fn check(world: &mut World, steps: &mut Steps) -> Result<(), Broken> {
    calm(world)?;
    let mut attempts = Vec::new();
    let mut opened = vec![0; world.stations.len()];
    for attempt in 0..ATTEMPTS {
        let (from, to) = pair(world);
        let kind = [Kind::Tcp(2000), Kind::Tcp(500), Kind::Udp(2), Kind::Ping(2)][attempt % 4];
        let port = match kind {
            Kind::Tcp(_) | Kind::SlowTcp(_) => TCP_PORTS[attempt % TCP_PORTS.len()],
            Kind::Udp(_) => UDP_PORTS[0],
            Kind::Ping(_) => 0,
        };
        let addresses = &world.stations[to].host.addresses;
        let peer_ip = addresses[attempt % addresses.len()];
        let Some(own_ip) = of_one_family(&world.stations[from].host.addresses, peer_ip) else { continue };
        let allowed = allowed(world, (from, own_ip), (to, peer_ip), kind, port);
        let local_port = steps.fresh_port();
        let peer = SocketAddr::new(peer_ip, if port == 0 { 1 } else { port });
        if steps.connect(world, from, kind, peer, local_port)? {
            attempts.push(Attempt { station: from, client: opened[from], allowed });
            opened[from] += 1;
        }
        // one after another: every server has few sockets
        settle(world, 600 * MILLISECOND_NS)?;
    }
    settle(world, PATIENCE_NS)?;
    for attempt in &attempts {
        judge(world, attempt)?;
    }
    Ok(())
}

/// What the oracle says of both ends under the last generation.
fn allowed(world: &mut World, from: (usize, IpAddr), to: (usize, IpAddr), kind: Kind, dport: u16) -> bool {
    if world.stations[from.0].place == Place::Node || world.stations[to.0].place == Place::Node {
        return true;
    }
    let protocol = match (kind, to.1) {
        (Kind::Tcp(_) | Kind::SlowTcp(_), _) => Protocol::TCP,
        (Kind::Udp(_), _) => Protocol::UDP,
        (Kind::Ping(_), IpAddr::V4(_)) => Protocol::ICMP,
        (Kind::Ping(_), IpAddr::V6(_)) => Protocol::ICMPV6,
    };
    let ends = [(from.0, Direction::Egress, to.1), (to.0, Direction::Ingress, from.1)];
    ends.into_iter().all(|(station, direction, remote)| match world.stations[station].place {
        Place::Pod { port, .. } => {
            let generation = world.node.generation(world.node.owner(port));
            world.truth.history.allows(generation, Question { port, direction, remote, protocol, dport })
        }
        Place::Node | Place::Beyond => true,
    })
}

fn judge(world: &World, attempt: &Attempt) -> Result<(), Broken> {
    let progress = world.stations[attempt.station].host.progress().nth(attempt.client).expect("it was opened");
    let ends = format!("{:?} from {} to {}", progress.kind, progress.local, progress.peer);
    if attempt.allowed && !progress.complete() {
        return Err(format!("allowed, without faults, and incomplete: {ends}: {} came back", progress.echoed));
    }
    if !attempt.allowed && progress.answered() {
        return Err(format!("forbidden, and answered: {ends}"));
    }
    Ok(())
}
