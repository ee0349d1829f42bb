//! A whole node under random traffic and random faults, decided by one number.
//!
//! ```text
//!   seed ─▶ cluster, policies, stacks (smoltcp), limits, links, steps, faults, time
//!              │
//!              ▼
//!   stacks ⇄ links ⇄ node in memory (hooks, workers)      each fate ─▶ truth (oracle on the objects, memory of what passed)
//!              │                                           each step ─▶ counters, cache against workers
//!              ▼
//!   faults off: what is allowed completes with the right bytes, what is forbidden never answers
//! ```
//!
//! Nothing here reads a clock or a random source of the machine: a seed that fails once fails always, and
//! `sluice-simulate --first SEED --seeds 1 --trace` shows how. Source of every rule: the user documentation of verdicts,
//! by way of [`sluice_policy::Oracle`]; the table and the workers' connections are never asked what is right.

mod calm;
mod client;
mod cluster;
mod facts;
mod history;
mod host;
mod ledger;
mod life;
mod memory;
mod plant;
mod raw;
mod steps;
mod truth;
mod words;
mod world;

pub use ledger::Ledger;
pub use plant::Plant;

use crate::node::NodeConfig;
use cluster::{Cluster, NODE, chance, pick};
use fastrand::Rng;
use ledger::Trace;
use sluice_dataplane::worker::Established;
use sluice_flow::PortIndex;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use steps::Steps;
use world::{Broken, Event, Links, Place, World};

/// How a run is watched.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Events to remember in words; 0 makes a run faster.
    pub trace_events: usize,
    /// A fault that must be found.
    pub plant: Option<Plant>,
    /// Look at packets alone, never at the cache: what the cache shows early must show there, too.
    pub packets_only: bool,
}

/// What one seed came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The number that decided everything.
    pub seed: u64,
    /// Equal for equal runs.
    pub digest: u64,
    /// Events of the simulation.
    pub events: u64,
    /// Tables that came into force.
    pub generations: u64,
    /// Where the packets went.
    pub ledger: Ledger,
    /// What was wrong, if anything.
    pub violation: Option<Violation>,
    /// The last events, if they were asked for.
    pub trace: Vec<String>,
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// How many events had been carried out.
    pub event: u64,
    /// Simulated time, in nanoseconds.
    pub at_ns: u64,
    /// In words.
    pub what: String,
}

/// Runs one seed to its end, or to the first broken promise.
pub fn run(seed: u64, options: Options) -> Run {
    let mut rng = Rng::with_seed(seed);
    let config = config(&mut rng, options.plant);
    let cluster = Cluster::new(&mut rng);
    let mut world = World::new(rng, cluster, config, options.plant, Trace::keeping(options.trace_events));
    world.packets_only = options.packets_only;
    let violation = live(&mut world).err().map(|what| Violation { event: world.events_done, at_ns: world.now_ns, what });
    let World { digest, events_done: events, generation: generations, ledger, trace, .. } = world;
    Run { seed, digest: digest.0, events, generations, ledger, violation, trace: trace.into_lines() }
}

/// Limits are small in some seeds, so that they are met.
fn config(rng: &mut Rng, plant: Option<Plant>) -> NodeConfig {
    let mut config = NodeConfig { workers: rng.u16(1..4), seed: rng.u64(..), receive_max: 64, ..NodeConfig::default() };
    if chance(rng, 20) || plant == Some(Plant::SwapKeepsForbidden) {
        config.established = Established::Keep;
    }
    if chance(rng, 15) {
        config.cache_entries_max = rng.usize(6..40);
    }
    if chance(rng, 15) {
        config.connections_per_port_max = rng.usize(2..10);
    }
    if chance(rng, 25) {
        config.receive_max = rng.usize(1..4);
    }
    config
}

fn live(world: &mut World) -> Result<(), Broken> {
    populate(world)?;
    world.links = *pick(
        &mut world.rng,
        &[
            Links::default(),
            Links { loss_percent: 1, duplicate_percent: 1, late_percent: 3 },
            Links { loss_percent: 5, duplicate_percent: 5, late_percent: 10 },
            Links { loss_percent: 20, duplicate_percent: 10, late_percent: 20 },
        ],
    );
    let mut steps = Steps::new(world.rng.usize(20..45));
    world.after(world::MILLISECOND_NS * 10, Event::Step);
    while steps.left > 0 {
        if !world.run_one(u64::MAX, &mut |world| steps.take(world))? {
            return Err("the steps ended before their time".into());
        }
    }
    calm::check(world, &mut steps)?;
    let Ledger { sent, .. } = world.ledger;
    let (ended, moving) = (world.ledger.ended(), world.in_flight());
    if sent != ended + moving {
        return Err(format!("{sent} packets were sent, {ended} ended, {moving} are on their way: {:?}", world.ledger));
    }
    let counted = &world.node.accounts().dropped;
    if *counted != world.ledger.dropped {
        return Err(format!("the node dropped {counted:?}, the ledger says {:?}", world.ledger.dropped));
    }
    Ok(())
}

/// Pods here, pods of other nodes, the world outside, and the node itself.
fn populate(world: &mut World) -> Result<(), Broken> {
    let address = |net: [u8; 3], net6: u16, host: u8, families: u32| -> Vec<IpAddr> {
        let v4 = IpAddr::from(Ipv4Addr::new(net[0], net[1], net[2], host));
        let v6 = match net6 {
            0x2001 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(host)),
            subnet => Ipv6Addr::new(0xfd00, 0, 0, subnet, 0, 0, 0, u16::from(host)),
        };
        match families {
            0 => vec![v4],
            1 => vec![v6.into()],
            _ => vec![v4, v6.into()],
        }
    };
    for index in 0..world.rng.u16(2..5) {
        let families = world.rng.u32(0..8);
        let addresses = address([10, 0, 0], 0, 10 + index as u8, families);
        let name = world.cluster.add_pod(&mut world.rng, &addresses);
        world.add_station(Place::Pod { port: PortIndex(index), incarnation: None }, &addresses, Some(name));
    }
    let pods_here = world.stations.len();
    for index in 0..world.rng.u8(1..3) {
        let addresses = address([10, 0, 1], 1, 20 + index, 2);
        let name = world.cluster.add_pod(&mut world.rng, &addresses);
        world.add_station(Place::Beyond, &addresses, Some(name));
    }
    for index in 0..world.rng.u8(1..3) {
        world.add_station(Place::Beyond, &address([192, 0, 2], 0x2001, 10 + index, 2), None);
    }
    world.add_station(Place::Node, &NODE, None);
    for station in 0..pods_here {
        world.attach(station);
    }
    world.publish(world::MILLISECOND_NS)
}
