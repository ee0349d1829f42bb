//! The state of the control process and its only writer: one event after another, one compilation at a time.
//!
//! ```text
//!   Read, Endpoints ──▶ target ──differs from published──▶ proving ──▶ published ──Adopted──▶ in force
//!                                                            │            │
//!                                                            └─ failure ◀─┴─Refused       (the table in force stays)
//! ```
//!
//! While one image is made, further changes only move the target; the next image is of the last target, so a storm of
//! edits costs one compilation after another and never a queue of them. An image that was made of a target that has
//! moved on is published all the same: it was the truth when it was read, and progress must not depend on silence.

use crate::link::{LinkEvent, Publisher};
use crate::merge::Merger;
use crate::prove::{Proved, prove};
use crate::source::{Reading, log_problems};
use crate::view::{View, Views};
use sluice_flow::LocalEndpoint;
use sluice_policy::Snapshot;
use sluice_table::Table;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;

/// Everything that can happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// The directory was read.
    Read(Reading),
    /// From the dataplane or about it.
    Link(LinkEvent),
    /// A compilation ended.
    Proved(Candidate, Result<Proved, String>),
}

/// What a compilation was started from.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    snapshot: Arc<Snapshot>,
    /// When the oldest change in it was noticed.
    changed_at: Instant,
}

/// An image that the dataplane was sent.
#[derive(Debug, Clone)]
struct Published {
    generation: u64,
    table: Arc<Table>,
    candidate: Candidate,
    adopted: bool,
}

/// See the module.
pub(crate) struct Engine {
    outbox: UnboundedSender<Event>,
    views: watch::Sender<Arc<View>>,
    view: View,
    publisher: Option<Publisher>,
    /// `None` until the dataplane told them for the first time.
    endpoints: Option<Vec<LocalEndpoint>>,
    /// Whether this connection has told its endpoints; before that nothing is published on it.
    endpoints_current: bool,
    merger: Merger,
    target: Option<Candidate>,
    proving: bool,
    published: Option<Published>,
    /// The snapshot that could not be published; it is not tried again until it changes.
    failed: Option<Arc<Snapshot>>,
    /// The highest generation that anyone has used.
    generation: u64,
}

impl Engine {
    /// The engine and where its views appear. `outbox` leads to the inbox that [`Engine::run`] reads.
    pub(crate) fn new(source: String, outbox: UnboundedSender<Event>) -> (Self, Views) {
        let view = View::empty(source);
        let (views, receiver) = watch::channel(Arc::new(view.clone()));
        let engine = Self {
            outbox,
            views,
            view,
            publisher: None,
            endpoints: None,
            endpoints_current: false,
            merger: Merger::default(),
            target: None,
            proving: false,
            published: None,
            failed: None,
            generation: 0,
        };
        (engine, receiver)
    }

    /// Handles events for ever.
    pub(crate) async fn run(mut self, mut inbox: UnboundedReceiver<Event>) {
        while let Some(event) = inbox.recv().await {
            match event {
                Event::Read(reading) => self.read(reading),
                Event::Link(event) => self.link(event),
                Event::Proved(candidate, outcome) => self.proved(candidate, outcome),
            }
            self.advance();
            self.show();
        }
    }

    fn read(&mut self, reading: Reading) {
        self.view.read_sequence = reading.sequence;
        log_problems(&self.view.status.problems, &reading.manifests.problems);
        self.view.status.problems.clone_from(&reading.manifests.problems);
        if reading.was_listed {
            self.view.manifests = Some(reading.manifests);
        }
        self.retarget(reading.changed_at);
    }

    fn link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Connected(publisher) => {
                tracing::info!("dataplane connected");
                self.publisher = Some(publisher);
                self.endpoints_current = false;
            }
            LinkEvent::Endpoints { endpoints, generation } => {
                if !self.endpoints_current {
                    // A dataplane that just came may hold an older table or none, whatever was published before.
                    self.endpoints_current = true;
                    self.published = None;
                    self.failed = None;
                    self.view.status.adopted_generation = generation;
                }
                self.generation = self.generation.max(generation);
                tracing::debug!(endpoints = endpoints.len(), generation, "endpoints");
                self.endpoints = Some(endpoints);
                self.retarget(Instant::now());
            }
            LinkEvent::Adopted { generation, adopt_us, connections_cut } => self.adopted(generation, adopt_us, connections_cut),
            LinkEvent::Refused { generation, reason } => {
                tracing::error!(generation, reason, "refused by the dataplane; the table in force stays");
                if let Some(published) = self.published.take_if(|p| p.generation == generation) {
                    self.fail(published.candidate.snapshot, format!("generation {generation} was refused by the dataplane: {reason}"));
                }
            }
            LinkEvent::Lost { reason } => {
                tracing::warn!(reason, "dataplane lost; it goes on with its last table, or its successor starts with that");
                self.publisher = None;
                self.endpoints_current = false;
                self.published = None;
            }
        }
    }

    fn adopted(&mut self, generation: u64, adopt_us: u64, connections_cut: u64) {
        self.view.status.adopted_generation = generation;
        self.generation = self.generation.max(generation);
        let Some(published) = self.published.as_mut().filter(|p| p.generation == generation) else {
            tracing::info!(generation, adopt_us, connections_cut, "adopted; a newer one is under way");
            return;
        };
        published.adopted = true;
        let change_to_adopted_us = micros(published.candidate.changed_at.elapsed());
        self.view.table = Some(Arc::clone(&published.table));
        self.view.status.last_change_to_adopted_us = Some(change_to_adopted_us);
        tracing::info!(generation, adopt_us, connections_cut, change_to_adopted_us, "adopted");
    }

    fn proved(&mut self, candidate: Candidate, outcome: Result<Proved, String>) {
        self.proving = false;
        let proved = match outcome {
            Ok(proved) => proved,
            Err(reason) => {
                tracing::error!(reason, "not published; the table in force stays");
                return self.fail(candidate.snapshot, reason);
            }
        };
        let status = &mut self.view.status;
        status.compile_us = micros(proved.compile);
        status.check_us = micros(proved.check);
        status.checks = proved.report.done;
        status.checks_required = proved.report.required;
        status.image_bytes = proved.image.len() as u64;
        // A dataplane that came meanwhile may be ahead of this number, and one that left takes nothing.
        let publisher = self.publisher.as_ref().filter(|_| self.endpoints_current && proved.generation > status.adopted_generation);
        let Some(publisher) = publisher else { return };
        match publisher.publish(proved.generation, &proved.image) {
            Ok(()) => {
                tracing::info!(
                    generation = proved.generation,
                    rules = proved.table.names().rules.len(),
                    endpoints = candidate.snapshot.endpoints.len(),
                    image_bytes = proved.image.len(),
                    compile_us = micros(proved.compile),
                    check_us = micros(proved.check),
                    checks_done = proved.report.done,
                    checks_required = proved.report.required,
                    "published"
                );
                status.published_generation = proved.generation;
                status.last_failure = None;
                self.failed = None;
                self.published = Some(Published { generation: proved.generation, table: proved.table, candidate, adopted: false });
            }
            Err(error) => {
                tracing::warn!(generation = proved.generation, %error, "cannot publish");
                self.publisher = None;
                self.endpoints_current = false;
            }
        }
    }

    /// Moves the target to what is known now. An equal snapshot is the same target, so that nothing is made twice.
    fn retarget(&mut self, changed_at: Instant) {
        let (Some(manifests), Some(endpoints)) = (&self.view.manifests, &self.endpoints) else {
            if let Some(manifests) = &self.view.manifests {
                self.view.snapshot = Arc::new(manifests.snapshot.clone());
            }
            return;
        };
        let merged = self.merger.merge(&manifests.snapshot, endpoints);
        if self.target.as_ref().is_some_and(|target| *target.snapshot == merged) {
            return;
        }
        if let Some(published) = self.published.as_ref().filter(|published| *published.candidate.snapshot == merged) {
            // Undone before it was published; what failed in between is nobody's concern any more.
            self.target = Some(published.candidate.clone());
            self.view.snapshot = Arc::clone(&published.candidate.snapshot);
            self.view.status.last_failure = None;
            self.failed = None;
            return;
        }
        // A change that is still on its way keeps its age: it is the one that somebody waits for.
        let waiting = self.target.as_ref().filter(|target| !self.is_published(target) && !self.is_failed(target));
        let changed_at = waiting.map_or(changed_at, |target| target.changed_at);
        let snapshot = Arc::new(merged);
        self.view.snapshot = Arc::clone(&snapshot);
        self.target = Some(Candidate { snapshot, changed_at });
    }

    /// Starts the next compilation if there is one to make.
    fn advance(&mut self) {
        let Some(target) = &self.target else { return };
        if self.proving || !self.endpoints_current || self.is_failed(target) || self.is_published(target) {
            return;
        }
        self.generation += 1;
        self.proving = true;
        let (generation, candidate, outbox) = (self.generation, target.clone(), self.outbox.clone());
        tokio::task::spawn_blocking(move || {
            let work = std::panic::AssertUnwindSafe(|| prove(&candidate.snapshot, generation));
            let outcome = std::panic::catch_unwind(work).unwrap_or_else(|_| Err("the compiler panicked; see the log".to_owned()));
            let _ = outbox.send(Event::Proved(candidate, outcome));
        });
    }

    fn fail(&mut self, snapshot: Arc<Snapshot>, reason: String) {
        self.view.status.last_failure = Some(reason);
        self.failed = Some(snapshot);
    }

    fn is_failed(&self, target: &Candidate) -> bool {
        self.failed.as_ref().is_some_and(|failed| Arc::ptr_eq(failed, &target.snapshot))
    }

    fn is_published(&self, target: &Candidate) -> bool {
        self.published.as_ref().is_some_and(|published| Arc::ptr_eq(&published.candidate.snapshot, &target.snapshot))
    }

    /// Leaves the view of this moment.
    fn show(&mut self) {
        let is_current = self.target.as_ref().is_some_and(|target| self.is_published(target));
        self.view.failed = self.target.as_ref().is_some_and(|target| self.is_failed(target));
        let is_adopted = self.published.as_ref().is_some_and(|published| published.adopted);
        let status = &mut self.view.status;
        status.dataplane_connected = self.publisher.is_some();
        status.settled = is_current && is_adopted && !self.proving && status.dataplane_connected;
        status.namespaces = self.view.snapshot.namespaces.len() as u64;
        status.pods = self.view.snapshot.pods.len() as u64;
        status.policies = self.view.snapshot.policies.len() as u64;
        status.endpoints = self.endpoints.as_ref().map_or(0, Vec::len) as u64;
        self.views.send_replace(Arc::new(self.view.clone()));
    }
}

fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
