//! What is published, when, and what comes back: events handed to the engine by hand, a real socket behind it.

use super::*;
use crate::source::Manifests;
use sluice_policy::load::load_str;
use sluice_policy::prove::Proof;
use sluice_wire::{Connection, ToDataplane};
use std::os::unix::net::UnixStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// An engine whose events are handed to it one by one, and the dataplane's end of its socket.
struct Rig {
    engine: Engine,
    inbox: UnboundedReceiver<Event>,
    dataplane: Connection,
    readings: u64,
}

impl Rig {
    fn new() -> Self {
        let (outbox, inbox) = unbounded_channel();
        let (engine, _views) = Engine::new("test".into(), Duration::ZERO, Metrics::default(), watch::channel(Arc::default()).0, outbox);
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut rig = Self { engine, inbox, dataplane: Connection::new(theirs), readings: 0 };
        rig.handle(Event::Link(LinkEvent::Connected(Publisher::new(Connection::new(ours)))));
        rig.handle(Event::Link(LinkEvent::Endpoints { endpoints: Vec::new(), generation: 0 }));
        rig
    }

    fn handle(&mut self, event: Event) {
        self.engine.handle(event);
        self.engine.advance();
        self.engine.show();
    }

    /// A reading of one policy of that name.
    fn read(&mut self, policy: &str) {
        let text =
            format!("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {policy}}}\nspec: {{podSelector: {{}}}}\n");
        let snapshot = load_str("p.yaml", &text).snapshot;
        self.readings += 1;
        let manifests =
            Arc::new(Manifests { snapshot, places: Default::default(), problems: Vec::new(), policy_files: Default::default() });
        self.handle(Event::Read(Reading {
            sequence: self.readings,
            changed_at: Instant::now(),
            is_complete: true,
            manifests,
            watches: Vec::new(),
        }));
    }

    /// Waits for the workshop; hands on the image, and returns its generation and the proof's outcome.
    async fn made(&mut self) -> (u64, Result<Proved, String>) {
        loop {
            match self.inbox.recv().await.unwrap() {
                Event::Made(made) => self.handle(Event::Made(made)),
                Event::Proved(generation, outcome) => return (generation, outcome),
                // tests say themselves when a proof is late
                _ => {}
            }
        }
    }

    /// The generation that the dataplane receives next.
    fn received(&mut self) -> u64 {
        match self.dataplane.recv::<ToDataplane>().unwrap().unwrap().0 {
            ToDataplane::Publish { generation, .. } => generation,
            other => panic!("{other:?}"),
        }
    }

    fn received_nothing(&mut self) {
        self.dataplane.set_nonblocking(true).unwrap();
        assert!(self.dataplane.recv::<ToDataplane>().unwrap().is_none());
        self.dataplane.set_nonblocking(false).unwrap();
    }

    /// The dataplane goes away and comes back with this generation in force.
    fn reconnect(&mut self, generation: u64) {
        self.handle(Event::Link(LinkEvent::Lost { reason: "test".into() }));
        self.connect(generation);
    }

    fn connect(&mut self, generation: u64) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.dataplane = Connection::new(theirs);
        self.handle(Event::Link(LinkEvent::Connected(Publisher::new(Connection::new(ours)))));
        self.handle(Event::Link(LinkEvent::Endpoints { endpoints: Vec::new(), generation }));
    }

    fn policy(&self) -> String {
        self.engine.published.as_ref().unwrap().candidate.snapshot.policies.keys().next().unwrap().name.clone()
    }
}

#[tokio::test]
async fn a_wrong_table_is_not_published() {
    let mut rig = Rig::new();
    rig.read("good");
    let (generation, outcome) = rig.made().await;
    assert!(outcome.is_ok(), "{outcome:?}");
    rig.handle(Event::Proved(generation, outcome));
    assert_eq!(rig.received(), generation);
    rig.read("bad");
    let (generation, _) = rig.made().await;
    rig.handle(Event::Proved(generation, Err("a counterexample".into())));
    rig.received_nothing();
    assert_eq!(rig.policy(), "good");
    assert_eq!(rig.engine.view.status.last_failure.as_deref(), Some("a counterexample"));
    assert!(rig.engine.view.failed && !rig.engine.view.status.settled && !rig.engine.view.status.proof_pending);
}

#[tokio::test]
async fn a_late_proof_goes_on_behind_the_publication() {
    let mut rig = Rig::new();
    rig.read("first");
    let (first, outcome) = rig.made().await;
    rig.handle(Event::ProofLate(first));
    rig.received_nothing();
    rig.handle(Event::Proved(first, outcome));
    assert_eq!(rig.received(), first, "with no proved table to go back to, a late one waits for its proof");
    rig.read("second");
    let (second, outcome) = rig.made().await;
    rig.handle(Event::ProofLate(second));
    assert_eq!(rig.received(), second);
    assert!(rig.engine.view.status.proof_pending);
    rig.handle(Event::Proved(second, outcome));
    rig.received_nothing();
    assert!(!rig.engine.view.status.proof_pending);
    assert_eq!((rig.policy().as_str(), rig.engine.view.status.rollbacks), ("second", 0));
}

#[tokio::test]
async fn a_difference_found_behind_the_publication_rolls_back() {
    let (mut rig, bad) = sent_before_its_proof().await;
    rig.handle(Event::Proved(bad, Err("a counterexample".into())));
    assert_rolled_back(&mut rig, bad).await;
    let status = &rig.engine.view.status;
    assert!(!status.proof_pending && !status.settled);
    assert!(status.last_failure.as_ref().unwrap().contains("taken back: a counterexample"));
    // what failed is not tried again, and what comes next is
    rig.read("better");
    let (next, outcome) = rig.made().await;
    rig.handle(Event::Proved(next, outcome));
    assert_eq!((rig.received(), rig.policy().as_str()), (next, "better"));
    assert_eq!(rig.engine.view.status.last_failure, None);
}

#[tokio::test]
async fn equal_readings_are_one_state_and_their_objects_stay_the_same() {
    let mut rig = Rig::new();
    rig.read("same");
    let (generation, outcome) = rig.made().await;
    let whole = outcome.as_ref().map(|proved| proved.proof.done()).unwrap();
    assert_ne!(whole, Proof::default().done());
    rig.handle(Event::Proved(generation, outcome));
    rig.received();
    rig.read("same");
    rig.received_nothing();
    assert!(rig.engine.work.is_none());
}

/// A rig in which a proved table was followed by one that was sent before its proof; the latter's generation.
async fn sent_before_its_proof() -> (Rig, u64) {
    let mut rig = Rig::new();
    rig.read("good");
    let (first, outcome) = rig.made().await;
    rig.handle(Event::Proved(first, outcome));
    rig.received();
    rig.read("bad");
    let (bad, _) = rig.made().await;
    rig.handle(Event::ProofLate(bad));
    assert_eq!(rig.received(), bad);
    (rig, bad)
}

/// The next image is of the policy that was proved.
async fn assert_rolled_back(rig: &mut Rig, bad: u64) {
    let (back, outcome) = rig.made().await;
    rig.handle(Event::Proved(back, Ok(outcome.unwrap())));
    assert_eq!(rig.received(), back);
    assert!(back > bad, "generations rise");
    assert_eq!((rig.policy().as_str(), rig.engine.view.status.rollbacks), ("good", 1));
}

#[tokio::test]
async fn a_difference_found_while_the_dataplane_is_away_rolls_back_when_it_returns() {
    let (mut rig, bad) = sent_before_its_proof().await;
    rig.handle(Event::Link(LinkEvent::Lost { reason: "test".into() }));
    rig.handle(Event::Proved(bad, Err("a counterexample".into())));
    rig.connect(bad);
    assert_rolled_back(&mut rig, bad).await;
}

#[tokio::test]
async fn a_rollback_that_met_no_dataplane_is_made_again() {
    let (mut rig, bad) = sent_before_its_proof().await;
    rig.handle(Event::Proved(bad, Err("a counterexample".into())));
    let (unsent, outcome) = rig.made().await;
    rig.handle(Event::Link(LinkEvent::Lost { reason: "test".into() }));
    rig.handle(Event::Proved(unsent, outcome));
    rig.reconnect(bad);
    assert_rolled_back(&mut rig, bad).await;
}

#[tokio::test]
async fn what_was_sent_is_not_proved_by_the_proof_of_one_made_anew() {
    let (mut rig, bad) = sent_before_its_proof().await;
    let sent = rig.engine.work.as_ref().unwrap().made.clone().unwrap();
    let (image, table) = (sent.image.clone(), Arc::clone(&sent.table));
    rig.handle(Event::Made(Arc::new(Made { generation: bad, image, table, compile: sent.compile })));
    let proved = Proved { proof: Proof::default(), time: Duration::ZERO };
    rig.handle(Event::Proved(bad, Ok(proved)));
    let (next, outcome) = rig.made().await;
    rig.handle(Event::Proved(next, outcome));
    assert_eq!(rig.received(), next);
    assert!(next > bad && !rig.engine.view.status.proof_pending);
}
