//! Before an image is published, it is proved that its verdicts are the oracle's: all of them, not a sample.
//!
//! A verdict is a function of (endpoint, direction, remote address, protocol, port). That is 2^128 addresses times 196 609
//! ports for each endpoint; but the function factors, on the oracle's side by what Kubernetes lets a policy ask, on the
//! table's side by what a lookup does. The proof goes through all of each factor.
//!
//! ```text
//!            oracle                                                   table
//!  endpoint, direction ─▶ profile                        endpoint, direction ─▶ row of each class
//!  remote address ──────▶ unit = (region, group)         remote address ──────▶ class
//!  protocol, port ──────▶ cell                           protocol, port ──────▶ port class
//!       rule = expected(profile, unit, cell)                  rule = action(row of the class, port class)
//! ```
//!
//! # Why the three factors cover every packet
//!
//! * **Cells.** An entry of `ports` compares protocol and port with numbers: its own, or those that a destination gives to
//!   a name. Cells are cut at each such number and the one after it, so no entry tells two ports of a cell apart.
//!   Protocols without ports are matched by no entry, so they are one cell.
//! * **Units.** A peer looks at the remote address through its blocks, and at the pods that claim the address through
//!   their namespace and labels; a port name looks at what those pods call it. CIDRs are nested or disjoint, so the
//!   smallest CIDR around an address, its *region*, says which of all blocks and excepts hold it. Pods of one namespace
//!   that agree in every label that some peer asks for, and in every port name that some rule mentions, are one
//!   *identity*: nothing in the oracle can tell them apart. The identities that claim an address are its *group*. So two
//!   addresses of the same region and group get the same verdict from every rule. Units are not merged by what policies
//!   make of them; that is the compiler's business, and its mistakes would hide in it.
//! * **Profiles.** What remains of an endpoint's direction is which rules are asked, in which order, and for ingress what
//!   the pod's own ports are called.
//!
//! So asking one representative of each (profile, unit, cell) asks the oracle everything. The table is asked everything
//! because every address and every port is walked: each piece of the table's address space against each unit that meets
//! it, each of its 196 609 port entries against each cell, and the row of each endpoint's direction and class. What is
//! found equal once is not compared twice, not even in the next table where all that the outcome depends on is the same
//! again, byte by byte; that is the only saving, and the counts of [`Proof`] include what it covers.
//!
//! The oracle reads the raw objects with functions of its own; this module and the compiler share none that reads an
//! object. A [`Prover`] keeps what the oracle said for as long as the objects it was asked about are the same objects, and
//! finds by itself which are not: a compiler that overlooks a change does not make the proof overlook it.

mod blocks;
mod cells;
mod claims;
mod comparison;
mod counterexample;
mod expected;
mod interest;
mod matches;
mod people;
mod regions;
mod settled;
mod sides;
mod sweep;
#[cfg(test)]
mod tests;
mod units;
mod verify;

pub use counterexample::{Counterexample, WrongVerdict};

use crate::oracle::service_addresses;
use crate::pod::Pod;
use crate::snapshot::{Objects, Snapshot, same};
use interest::Interest;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use people::{Changed, People};
use sides::Sides;
use sluice_flow::{Addr, LocalEndpoint, ObjectName};
use sluice_table::Table;
use std::collections::BTreeSet;
use std::sync::Arc;
use units::Units;

/// How much of one factor was compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Factor {
    /// Comparisons made, those included that an equal one settled.
    pub done: u64,
    /// Comparisons that the factor has.
    pub required: u64,
}

/// What was proved. Everything agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Proof {
    /// Profiles × units × cells.
    pub verdicts: Factor,
    /// Endpoints × directions: present, isolated by the same policies, with the rows of their profile.
    pub endpoints: Factor,
    /// Pieces of the address space, port entries and service addresses.
    pub addresses: Factor,
    /// Units that there are.
    pub units: u64,
    /// Units that had to be asked anew; the oracle's answers for the others stood.
    pub units_asked: u64,
}

impl Proof {
    /// All comparisons made.
    pub fn done(&self) -> u64 {
        self.verdicts.done + self.endpoints.done + self.addresses.done
    }

    /// All comparisons that make the proof whole.
    pub fn required(&self) -> u64 {
        self.verdicts.required + self.endpoints.required + self.addresses.required
    }
}

/// Proves one table after another against the snapshots they were compiled from.
///
/// ```
/// use sluice_policy::{Snapshot, compile, prove::Prover};
/// use sluice_table::Table;
/// let snapshot = Snapshot::default();
/// let table = Table::from_bytes(&compile(&snapshot, 1).unwrap()).unwrap();
/// let proof = Prover::new().prove(&snapshot, &table).unwrap();
/// assert_eq!(proof.done(), proof.required());
/// ```
#[derive(Debug, Default)]
pub struct Prover {
    policies: Objects<ObjectName, NetworkPolicy>,
    namespaces: Objects<String, Namespace>,
    services: Objects<ObjectName, Service>,
    /// As numbers, ascending.
    service_addresses: Vec<u128>,
    attached: Vec<(LocalEndpoint, Option<Arc<Pod>>)>,
    interest: Arc<Interest>,
    people: People,
    sides: Sides,
    units: Units,
}

/// What a look at the snapshot found changed.
#[derive(Debug)]
struct Change {
    people: Changed,
    /// Rules in play, or what selectors say of namespaces.
    peers: bool,
    profiles: bool,
}

impl Prover {
    /// One that knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Compares `table` with the oracle on `snapshot`, from which it was compiled.
    ///
    /// Cost: the first time about (pods) + (profiles × units); afterwards one step for each piece of the table, and the
    /// oracle's time for what changed.
    ///
    /// # Errors
    /// The first difference; the prover stays usable.
    pub fn prove(&mut self, snapshot: &Snapshot, table: &Table) -> Result<Proof, Counterexample> {
        let change = self.look(snapshot);
        let asked = self.units.update(snapshot, &self.sides, &mut self.people, &change);
        verify::verify(snapshot, table, &self.sides, &self.service_addresses, &mut self.units, asked)
    }

    /// Follows the snapshot, by what it does not share with the last.
    fn look(&mut self, snapshot: &Snapshot) -> Change {
        let policies_same = same(&self.policies, &snapshot.policies);
        if !policies_same {
            self.policies = snapshot.policies.clone();
            let interest = Interest::of(snapshot);
            if interest != *self.interest {
                self.interest = Arc::new(interest);
            }
        }
        let namespaces_same = same(&self.namespaces, &snapshot.namespaces);
        if !namespaces_same {
            self.namespaces = snapshot.namespaces.clone();
        }
        if !same(&self.services, &snapshot.services) {
            self.services = snapshot.services.clone();
            let addresses: BTreeSet<u128> =
                self.services.values().flat_map(|service| service_addresses(service)).map(|ip| Addr::from(ip).to_u128()).collect();
            self.service_addresses = addresses.into_iter().collect();
        }
        let people = self.people.update(snapshot, &self.interest);
        let attached = || snapshot.endpoints.iter().map(|endpoint| (endpoint, snapshot.pods.get(&endpoint.pod)));
        let attached_same = self.attached.len() == snapshot.endpoints.len()
            && self
                .attached
                .iter()
                .zip(attached())
                .all(|((endpoint, pod), (now, object))| endpoint == now && pod.as_ref().map(Arc::as_ptr) == object.map(Arc::as_ptr));
        let (mut rules_same, mut profiles_same) = (true, true);
        if !policies_same || !attached_same || people == Changed::All {
            self.attached = attached().map(|(endpoint, pod)| (endpoint.clone(), pod.cloned())).collect();
            let sides = Sides::of(snapshot, &self.interest);
            rules_same = sides.has_rules_of(&self.sides);
            profiles_same = sides.profiles == self.sides.profiles;
            self.sides = sides;
        }
        Change { people, peers: !rules_same || !namespaces_same, profiles: !profiles_same }
    }
}
