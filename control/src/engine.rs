//! The state of the control process and its only writer: one event after another, one compilation at a time.
//!
//! ```text
//!   Read, Endpoints ──▶ target ──differs from published──▶ making, proving ──▶ published ──Adopted──▶ in force
//!                                                            │            │
//!                                                            └─ failure ◀─┴─Refused       (the table in force stays)
//! ```
//!
//! A change does not wait for a long proof without end: after a time that the options give, the image is published and
//! its proof goes on behind it, if there is a proved table to go back to. Should the proof fail then, that one is
//! published again, under a new generation, and the failure shown.
//!
//! While one image is made, further changes only move the target; the next image is of the last target, so a storm of
//! edits costs one compilation after another and never a queue of them. An image that was made of a target that has
//! moved on is published all the same: it was the truth when it was read, and progress must not depend on silence.

use crate::admin::Metrics;
use crate::link::{LinkEvent, Publisher};
use crate::merge::Merger;
use crate::source::{Reading, log_problems};
use crate::view::{View, Views};
use crate::workshop::{Made, Proved, WorkError, Workshop};
use sluice_flow::{LocalEndpoint, ObjectName};
use sluice_policy::Snapshot;
use sluice_table::Table;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{oneshot, watch};

/// Everything that can happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// The directory was read.
    Read(Reading),
    /// From the dataplane or about it.
    Link(LinkEvent),
    /// An image was made; its proof has begun.
    Made(Arc<Made>),
    /// The time in which a proof of this generation delays its publication is over.
    ProofLate(u64),
    /// The work on a generation ended, with a proof or without an image.
    Proved(u64, Result<Proved, String>),
    /// Somebody wants to know whether events are still handled.
    Ping(oneshot::Sender<()>),
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
    proved: bool,
}

/// What is in the workshop.
#[derive(Debug)]
struct Work {
    generation: u64,
    candidate: Candidate,
    made: Option<Arc<Made>>,
}

/// Pods that are being started here and are in no object yet; whoever reads objects brings them at once.
pub(crate) type AwaitedPods = watch::Receiver<Arc<BTreeSet<ObjectName>>>;

/// See the module.
pub(crate) struct Engine {
    outbox: UnboundedSender<Event>,
    metrics: Metrics,
    awaited: watch::Sender<Arc<BTreeSet<ObjectName>>>,
    views: watch::Sender<Arc<View>>,
    view: View,
    publisher: Option<Publisher>,
    /// `None` until the dataplane told them for the first time.
    endpoints: Option<Vec<LocalEndpoint>>,
    /// Whether this connection has told its endpoints; before that nothing is published on it.
    endpoints_current: bool,
    merger: Merger,
    target: Option<Candidate>,
    workshop: Arc<Mutex<Workshop>>,
    proof_wait: Duration,
    work: Option<Work>,
    published: Option<Published>,
    /// What was published last with a finished proof.
    proved: Option<Candidate>,
    /// What was sent last, if its proof is not finished; it may be in force even where the dataplane left since.
    unproved: Option<Arc<Made>>,
    /// To be published again, because the proof of what followed it failed. It stays until something is published.
    rollback: Option<Candidate>,
    /// The snapshot that could not be published; it is not tried again until it changes.
    failed: Option<Arc<Snapshot>>,
    /// The highest generation that anyone has used.
    generation: u64,
}

impl Engine {
    /// The engine and where its views appear. `outbox` leads to the inbox that [`Engine::run`] reads.
    pub(crate) fn new(
        source: String,
        proof_wait: Duration,
        metrics: Metrics,
        awaited: watch::Sender<Arc<BTreeSet<ObjectName>>>,
        outbox: UnboundedSender<Event>,
    ) -> (Self, Views) {
        let view = View::empty(source);
        let (views, receiver) = watch::channel(Arc::new(view.clone()));
        let engine = Self {
            outbox,
            metrics,
            awaited,
            views,
            view,
            publisher: None,
            endpoints: None,
            endpoints_current: false,
            merger: Merger::default(),
            target: None,
            workshop: Arc::default(),
            proof_wait,
            work: None,
            published: None,
            proved: None,
            unproved: None,
            rollback: None,
            failed: None,
            generation: 0,
        };
        (engine, receiver)
    }

    /// Handles events for ever.
    pub(crate) async fn run(mut self, mut inbox: UnboundedReceiver<Event>) {
        while let Some(event) = inbox.recv().await {
            self.handle(event);
            self.advance();
            self.show();
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Read(reading) => self.read(reading),
            Event::Link(event) => self.link(event),
            Event::Made(made) => self.made(made),
            Event::ProofLate(generation) => self.proof_late(generation),
            Event::Proved(generation, outcome) => self.proved(generation, outcome),
            // it may have given up meanwhile
            Event::Ping(answer) => drop(answer.send(())),
        }
    }

    fn read(&mut self, reading: Reading) {
        self.view.read_sequence = reading.sequence;
        log_problems(&self.view.status.problems, &reading.manifests.problems);
        self.view.status.problems.clone_from(&reading.manifests.problems);
        self.view.watches = reading.watches;
        if reading.is_complete {
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
                self.metrics.failed("dataplane");
                tracing::error!(generation, reason, "refused by the dataplane; the table in force stays");
                self.unproved.take_if(|sent| sent.generation == generation);
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
        let change_to_adopted = published.candidate.changed_at.elapsed();
        self.metrics.adopted(change_to_adopted);
        let change_to_adopted_us = micros(change_to_adopted);
        self.view.table = Some(Arc::clone(&published.table));
        self.view.realized.adopt(&published.candidate.snapshot.policies, SystemTime::now());
        self.view.status.last_change_to_adopted_us = Some(change_to_adopted_us);
        tracing::info!(generation, adopt_us, connections_cut, change_to_adopted_us, "adopted");
    }

    fn made(&mut self, made: Arc<Made>) {
        let Some(work) = self.work.as_mut().filter(|work| work.generation == made.generation) else { return };
        self.metrics.compiled(made.compile);
        self.view.status.compile_us = micros(made.compile);
        self.view.status.image_bytes = made.image.len() as u64;
        let is_first = work.made.replace(made).is_none();
        if is_first {
            let (generation, wait, outbox) = (work.generation, self.proof_wait, self.outbox.clone());
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                let _ = outbox.send(Event::ProofLate(generation));
            });
        }
    }

    fn proof_late(&mut self, generation: u64) {
        // with no proved table to go back to, it waits
        let Some(work) = self.work.as_ref().filter(|work| work.generation == generation && self.proved.is_some()) else { return };
        let (Some(made), candidate) = (work.made.clone(), work.candidate.clone()) else { return };
        tracing::warn!(generation, waited_ms = self.proof_wait.as_millis() as u64, "published before its proof is finished");
        self.publish(&made, candidate, None);
    }

    fn proved(&mut self, generation: u64, outcome: Result<Proved, String>) {
        let Some(work) = self.work.take_if(|work| work.generation == generation) else { return };
        let sent = self.unproved.take_if(|sent| sent.generation == generation);
        match outcome {
            Ok(proved) => self.right(work, proved, sent),
            Err(reason) => self.wrong(work, reason, sent.is_some()),
        }
    }

    /// The proof is finished. `sent`: the image that it went on behind.
    fn right(&mut self, work: Work, proved: Proved, sent: Option<Arc<Made>>) {
        let status = &mut self.view.status;
        self.metrics.proved(proved.time);
        status.proof_us = micros(proved.time);
        status.comparisons = proved.proof.done();
        status.comparisons_required = proved.proof.required();
        let Some(made) = work.made else { return };
        let Some(sent) = sent else { return self.publish(&made, work.candidate, Some(proved)) };
        let generation = work.generation;
        if !Arc::ptr_eq(&sent, &made) {
            // The proof is of an image made anew; the one that was sent is wrong, and its generation is used.
            tracing::error!(generation, "published before its proof was finished, and wrong; the one made anew follows");
            self.metrics.failed("rollback");
            self.view.status.rollbacks += 1;
            self.published = None;
            self.rollback = Some(work.candidate);
            return;
        }
        if let Some(published) = self.published.as_mut().filter(|published| published.generation == generation) {
            tracing::info!(generation, proof_us = micros(proved.time), "proved behind its publication");
            published.proved = true;
            self.proved = Some(published.candidate.clone());
        }
    }

    /// There is no image, or a wrong one.
    fn wrong(&mut self, work: Work, reason: String, was_sent: bool) {
        let generation = work.generation;
        if self.rollback.as_ref().is_some_and(|rollback| Arc::ptr_eq(&rollback.snapshot, &work.candidate.snapshot)) {
            self.rollback = None;
        }
        if !was_sent {
            self.metrics.failed("compile_or_proof");
            tracing::error!(generation, reason, "not published; the table in force stays");
            return self.fail(work.candidate.snapshot, reason);
        }
        tracing::error!(generation, reason, "published before its proof was finished, and wrong; the last proved table comes back");
        self.metrics.failed("rollback");
        self.view.status.rollbacks += 1;
        self.published = None;
        self.rollback = self.proved.clone();
        self.fail(work.candidate.snapshot, format!("generation {generation} was taken back: {reason}"));
    }

    fn publish(&mut self, made: &Arc<Made>, candidate: Candidate, proved: Option<Proved>) {
        let status = &mut self.view.status;
        // A dataplane that came meanwhile may be ahead of this number, and one that left takes nothing.
        let publisher = self.publisher.as_mut().filter(|_| self.endpoints_current && made.generation > status.adopted_generation);
        let Some(publisher) = publisher else { return };
        match publisher.publish(made.generation, &made.image) {
            Ok(()) => {
                tracing::info!(
                    generation = made.generation,
                    rules = made.table.names().rules.len(),
                    endpoints = candidate.snapshot.endpoints.len(),
                    image_bytes = made.image.len(),
                    compile_us = micros(made.compile),
                    proof_us = proved.map(|proved| micros(proved.time)),
                    comparisons = proved.map(|proved| proved.proof.done()),
                    comparisons_required = proved.map(|proved| proved.proof.required()),
                    "published"
                );
                self.metrics.published();
                status.published_generation = made.generation;
                // A failure stays in view for as long as it keeps what was read from being in force.
                if self.target.as_ref().is_some_and(|target| Arc::ptr_eq(&target.snapshot, &candidate.snapshot)) {
                    status.last_failure = None;
                    self.failed = None;
                }
                if proved.is_some() {
                    self.proved = Some(candidate.clone());
                }
                self.unproved = proved.is_none().then(|| Arc::clone(made));
                self.rollback = None;
                let (generation, table) = (made.generation, Arc::clone(&made.table));
                self.published = Some(Published { generation, table, candidate, adopted: false, proved: proved.is_some() });
            }
            Err(error) => {
                tracing::warn!(generation = made.generation, %error, "cannot publish");
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
        let mut merged = self.merger.merge(&manifests.snapshot, endpoints);
        let unknown = endpoints.iter().filter(|endpoint| !merged.knows(endpoint)).map(|endpoint| endpoint.pod.clone());
        let unknown: BTreeSet<ObjectName> = unknown.collect();
        if !unknown.is_empty() {
            // no table has a row for them; one more that has none would only keep the next one waiting, which has
            let known = std::mem::take(&mut merged.endpoints).into_iter().filter(|endpoint| merged.knows(endpoint)).collect();
            merged.endpoints = known;
        }
        self.awaited.send_if_modified(|awaited| {
            let is_news = **awaited != unknown;
            if is_news {
                *awaited = Arc::new(unknown);
            }
            is_news
        });
        if self.target.as_ref().is_some_and(|target| target.snapshot.is_same(&merged)) {
            return;
        }
        if let Some(published) = self.published.as_ref().filter(|published| published.candidate.snapshot.is_same(&merged)) {
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

    /// Starts the next work if there is any.
    fn advance(&mut self) {
        if self.work.is_some() || !self.endpoints_current {
            return;
        }
        let wanted = self.target.as_ref().filter(|target| !self.is_failed(target) && !self.is_published(target)).cloned();
        let Some(candidate) = self.rollback.clone().or(wanted) else { return };
        self.generation += 1;
        let (generation, snapshot) = (self.generation, Arc::clone(&candidate.snapshot));
        self.work = Some(Work { generation, candidate, made: None });
        let (workshop, outbox) = (Arc::clone(&self.workshop), self.outbox.clone());
        tokio::task::spawn_blocking(move || {
            let work = std::panic::AssertUnwindSafe(|| work(&workshop, &snapshot, generation, &outbox));
            let outcome = std::panic::catch_unwind(work).unwrap_or_else(|_| Err("the compiler panicked; see the log".to_owned()));
            let _ = outbox.send(Event::Proved(generation, outcome));
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
        let is_pending = self.published.as_ref().is_some_and(|published| !published.proved);
        let status = &mut self.view.status;
        status.proof_pending = is_pending;
        status.dataplane_connected = self.publisher.is_some();
        status.settled = is_current && is_adopted && self.work.is_none() && status.dataplane_connected;
        self.view.was_settled |= status.settled;
        status.namespaces = self.view.snapshot.namespaces.len() as u64;
        status.pods = self.view.snapshot.pods.len() as u64;
        status.policies = self.view.snapshot.policies.len() as u64;
        status.endpoints = self.endpoints.as_ref().map_or(0, Vec::len) as u64;
        self.views.send_replace(Arc::new(self.view.clone()));
    }
}

/// One round in the workshop. After a panic in it, it starts with nothing remembered.
fn work(workshop: &Mutex<Workshop>, snapshot: &Snapshot, generation: u64, outbox: &UnboundedSender<Event>) -> Result<Proved, String> {
    let was_left_by_panic = workshop.is_poisoned();
    workshop.clear_poison();
    let mut workshop = workshop.lock().unwrap_or_else(PoisonError::into_inner);
    if was_left_by_panic {
        *workshop = Workshop::default();
    }
    let text = |error: WorkError| error.to_string();
    let made = Arc::new(workshop.make(snapshot, generation).map_err(text)?);
    let tell = |made: Arc<Made>| drop(outbox.send(Event::Made(made)));
    tell(Arc::clone(&made));
    workshop.prove(snapshot, &made, tell).map_err(text)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
