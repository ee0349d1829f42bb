//! One pod's life: object, sandbox, ADD, everybody at once, DEL, gone.

use super::host::Host;
use super::knock::{Knocked, Target, knock};
use anyhow::{Context, Result, bail};
use serde_json::json;
use sluice_flow::{Family, ObjectName};
use sluice_lab::{Attachment, Chain, Lab, NetNs, Place, prepare_pod_netns};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::mpsc::channel;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Places of newcomers, behind those of the lab's own pods.
const FIRST_SLOT: u32 = 100;
const SLOTS: u32 = 8;
const COLOURS: [&str; 2] = ["red", "blue"];
/// What is on its way to a shut port when everything allowed was answered.
const SETTLE: Duration = Duration::from_millis(10);

/// A pod that is there already.
struct Neighbour {
    name: String,
    netns: NetNs,
    addresses: [IpAddr; 2],
    colour: &'static str,
}

/// Where newcomers arrive.
pub struct Street<'a> {
    lab: &'a Lab,
    node: &'static str,
    chain: Chain,
    neighbours: Vec<Neighbour>,
    free: Mutex<BTreeSet<u32>>,
}

/// What one start showed.
#[derive(Debug)]
pub struct Started {
    pub(super) allowed: usize,
    pub(super) forbidden: usize,
    pub(super) lost: Vec<String>,
    pub(super) arrived: Vec<String>,
    pub(super) policy_took: Duration,
    pub(super) add_took: Duration,
    pub(super) first_packet: Duration,
}

impl<'a> Street<'a> {
    /// On a node, with the pods `ns/…-red` and `ns/…-blue` as neighbours.
    ///
    /// # Errors
    /// One of them is not there.
    pub fn new(lab: &'a Lab, node: &'static str, neighbours: &[&str]) -> Result<Self> {
        let neighbour = |name: &&str| {
            let colour = COLOURS.into_iter().find(|colour| name.ends_with(colour)).context("a neighbour has a colour")?;
            let addresses = [lab.pod_address(name, Family::V4)?, lab.pod_address(name, Family::V6)?];
            Ok(Neighbour { name: (*name).to_owned(), netns: lab.pod_netns(name), addresses, colour })
        };
        Ok(Self {
            lab,
            node,
            chain: lab.chain(node)?,
            neighbours: neighbours.iter().map(neighbour).collect::<Result<_>>()?,
            free: Mutex::new((FIRST_SLOT..FIRST_SLOT + SLOTS).collect()),
        })
    }

    /// A pod comes, is watched, and goes. Colours and families take turns.
    ///
    /// # Errors
    /// ADD or DEL failed, the server did not answer.
    pub fn start(&self, number: usize) -> Result<Started> {
        let slot = self.slots().pop_first().context("no place is free")?;
        let started = self.start_in(number, slot);
        self.slots().insert(slot);
        started
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, BTreeSet<u32>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_in(&self, number: usize, slot: u32) -> Result<Started> {
        let colour = COLOURS[number % 2];
        let family = [Family::V4, Family::V6][number / 2 % 2];
        let pod = ObjectName::new("x", format!("p{number}"));
        let place = Place::pod(&pod);
        let api = self.lab.api()?;
        let object = api.put(
            &place,
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": { "namespace": pod.namespace, "name": pod.name, "labels": { "colour": colour, "role": "newcomer" } },
                "spec": { "nodeName": self.node, "containers": [{ "name": "c", "image": "i" }] },
            }),
        )?;
        let uid = object["metadata"]["uid"].as_str().context("the server gives uids")?.to_owned();
        let netns = self.lab.pod_netns(&pod.to_string());
        netns.create()?;
        prepare_pod_netns(&netns)?;
        let attachment = Attachment { container_id: format!("{number:064x}"), pod, uid, netns: netns.clone(), slot };
        let started = self.watch(&attachment, colour, family);
        self.chain.del(&attachment)?;
        netns.delete()?;
        api.delete(&place, 0)?;
        started
    }

    fn watch(&self, attachment: &Attachment, colour: &'static str, family: Family) -> Result<Started> {
        let name = format!("{} ({colour})", attachment.pod);
        let host = Host::open(&attachment.netns, name.clone())?;
        let index = usize::from(family == Family::V6);
        let targets: Vec<Target> = self.neighbours.iter().map(|neighbour| neighbour.as_target(colour, index)).collect();
        let (release, released) = channel::<()>();
        let (own, others, returned, add) = std::thread::scope(|scope| -> Result<_> {
            let (name, targets) = (&name, &targets);
            let inside = scope.spawn(move || -> Result<Option<Knocked>> {
                attachment.netns.enter()?;
                // an ADD that failed releases nobody
                if released.recv().is_err() { Ok(None) } else { knock(name, targets).map(Some) }
            });
            let began = Instant::now();
            let attached = self.chain.add(attachment);
            let returned = Instant::now();
            if attached.is_ok() {
                release.send(()).context("the newcomer's thread ended early")?;
            }
            drop(release);
            let attached = attached?;
            let is_wanted = |address: &&IpAddr| address.is_ipv4() == (family == Family::V4);
            let address = attached.addresses.iter().find(is_wanted).copied().context("ADD gave no address of a family")?;
            let mut threads = Vec::new();
            for neighbour in &self.neighbours {
                let target = Target { name: name.clone(), address, is_allowed: neighbour.colour == colour };
                threads.push(scope.spawn(move || neighbour.netns.run(|| knock(&neighbour.name, &[target]))));
            }
            let others = threads.into_iter().map(join).collect::<Result<Vec<Knocked>>>()?;
            let own = join(inside)?.context("the newcomer sent nothing")?;
            Ok((own, others, returned, (attached.policy_took, returned - began)))
        })?;
        std::thread::sleep(SETTLE);
        let arrived = host.close();
        let first = own.first_packet.context("the newcomer has somebody to turn to")?;
        let all: Vec<Knocked> = others.into_iter().chain([own]).collect();
        Ok(Started {
            allowed: all.iter().map(|knocked| knocked.allowed).sum(),
            forbidden: all.iter().map(|knocked| knocked.forbidden).sum(),
            lost: all.into_iter().flat_map(|knocked| knocked.lost).collect(),
            arrived,
            policy_took: add.0,
            add_took: add.1,
            first_packet: first.saturating_duration_since(returned),
        })
    }
}

impl Neighbour {
    fn as_target(&self, colour: &str, family: usize) -> Target {
        Target { name: self.name.clone(), address: self.addresses[family], is_allowed: self.colour == colour }
    }
}

fn join<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    match thread.join() {
        Ok(outcome) => outcome,
        Err(_) => bail!("a thread of a start panicked"),
    }
}
