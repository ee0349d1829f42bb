//! What happens to the node besides packets: tables come, workers die and come back, pods are attached.

use super::cluster::snapshot_with;
use super::history::Question;
use super::plant::Plant;
use super::truth::Truth;
use super::world::{Broken, Event, MILLISECOND_NS, Place, World};
use crate::node::Ticket;
use sluice_flow::{FlowKey, Incarnation, LocalEndpoint};
use sluice_policy::{Snapshot, compile};
use sluice_table::Table;
use std::collections::HashMap;
use std::sync::Arc;

impl World {
    /// Compiles the cluster as it is now; the workers get the table a little later.
    pub(super) fn publish(&mut self, delay_ns: u64) -> Result<(), Broken> {
        self.generation += 1;
        let generation = self.generation;
        let snapshot: Snapshot = snapshot_with(&self.cluster.snapshot, self.node.endpoints());
        let judged = self.plant.map_or_else(|| snapshot.clone(), |plant| plant.miscompiled(&snapshot));
        let image = compile(&judged, generation).map_err(|error| format!("generation {generation} has no table: {error}"))?;
        let table = Table::from_bytes(&image).map_err(|error| format!("generation {generation} is refused: {error}"))?;
        self.truth.history.add(generation, snapshot);
        self.note(|| format!("generation {generation} compiled, {} bytes", image.len()));
        let at_ns = self.last_hand_over_ns.max(self.now_ns + delay_ns) + 1;
        self.last_hand_over_ns = at_ns;
        self.at(at_ns, Event::HandOver { table: Arc::new(table) });
        Ok(())
    }

    pub(super) fn hand_over(&mut self, table: Arc<Table>) {
        self.node.hand_over(table);
        self.wake_all();
    }

    /// Every worker looks at its commands soon.
    pub(super) fn wake_all(&mut self) {
        for worker in 0..self.stalled_until_ns.len() as u16 {
            let delay_ns = self.rng.u64(0..2 * MILLISECOND_NS);
            let wake_ns = self.stalled_until_ns[usize::from(worker)].max(self.now_ns + delay_ns);
            self.at(wake_ns, Event::Serve { worker });
        }
    }

    pub(super) fn stop(&mut self, worker: u16) {
        let lost = self.node.stop_worker(worker);
        self.lose(lost);
    }

    pub(super) fn restart(&mut self, worker: u16) -> Result<(), Broken> {
        // what a faulty successor does not see
        let hides = matches!(self.plant, Some(Plant::RestartForgets | Plant::RestartCutsAll));
        let hidden = if hides { std::mem::take(&mut *self.node.kernel().cache.borrow_mut()) } else { HashMap::default() };
        let lost = self.node.restart_worker(worker, self.now_ns);
        if self.plant == Some(Plant::RestartForgets) {
            self.node.kernel().cache.borrow_mut().extend(hidden);
        }
        self.lose(lost);
        self.stalled_until_ns[usize::from(worker)] = 0;
        self.transmit_full[usize::from(worker)] = false;
        self.note(|| format!("worker {worker} restarted"));
        self.adopted(worker);
        self.check_cache()
    }

    fn lose(&mut self, tickets: Vec<Ticket>) {
        for ticket in tickets {
            self.asked.remove(&ticket);
            self.ledger.lost_with_worker += 1;
        }
    }

    /// Registers a pod's device, as a new use of its port.
    pub(super) fn attach(&mut self, station: usize) {
        let Place::Pod { port, .. } = self.stations[station].place else { return };
        let incarnation = Incarnation(self.next_incarnation);
        self.next_incarnation += 1;
        let at = &mut self.stations[station];
        at.place = Place::Pod { port, incarnation: Some(incarnation) };
        let pod = at.pod.clone().expect("a pod has a name");
        let uid = pod.name.clone();
        let endpoint = LocalEndpoint { port, incarnation, pod, uid, addresses: at.host.addresses.clone() };
        let mac = at.mac;
        self.node.add_port(&endpoint, mac);
        if let Some(plant) = self.plant {
            plant.after_attach(&self.node, port, std::mem::take(&mut self.stash));
        }
        self.note(|| format!("{} attached to port {} as incarnation {}", endpoint.pod, port.0, incarnation.0));
    }

    /// What the swap forbids is no longer promised.
    pub(super) fn adopted(&mut self, worker: u16) {
        let generation = self.node.generation(worker);
        self.note(|| format!("worker {worker} adopted generation {generation}"));
        self.digest.add(&generation.to_le_bytes());
        let Truth { history, memory, .. } = &mut self.truth;
        let workers = self.stalled_until_ns.len() as u16;
        memory.adopted(
            |port| port.0 % workers == worker,
            |flow: &FlowKey| {
                let question = Question {
                    port: flow.port,
                    direction: flow.direction,
                    remote: flow.remote().into(),
                    protocol: flow.protocol,
                    dport: flow.policy_port(),
                };
                history.allows(generation, question)
            },
        );
    }
}
