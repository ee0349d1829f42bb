//! Whether a fate was right, by the oracle's reading of the objects and a plain memory of what passed.
//!
//! ```text
//!   passed   ⇒ some rule of the documentation lets it pass under the generation in force at that hook, at that moment
//!   dropped  ⇒ its reason names something that is true, and nothing that was promised to live was hurt
//! ```
//!
//! Neither the table nor the worker's connections are looked at: openers that passed are remembered here, for each use of
//! a port, in the hook's own view. The memory errs to the safe side where the dataplane may know less (a worker that died,
//! a full table): then nothing is promised, but what passes must still have been allowed.

use super::facts::{Facts, Faults};
use super::history::{History, Question};
use super::memory::{Memory, Track};
use crate::node::Fate;
use sluice_flow::{Direction, DropReason, FlowKey, IcmpClass, IcmpError, Incarnation, Kind, parse_frame};
use std::net::IpAddr;

/// What was wrong with a fate.
pub(super) type Wrong = String;

pub(super) struct Truth {
    pub(super) history: History,
    pub(super) memory: Memory,
    pub(super) services: Vec<IpAddr>,
    pub(super) node_addresses: Vec<IpAddr>,
}

/// One packet at one hook under one generation.
struct Case<'a> {
    truth: &'a mut Truth,
    facts: &'a Facts,
    flow: FlowKey,
    kind: Kind,
    /// For each direction.
    isolated: [bool; 2],
}

impl Truth {
    /// Judges a fate and remembers it.
    pub(super) fn check(&mut self, facts: &Facts, frame: &[u8], fate: &Fate) -> Result<(), Wrong> {
        if let Fate::Dropped(reason) = fate
            && let Some(answer) = self.dropped_by_circumstance(facts, *reason)
        {
            // the worker let it pass, and remembers so, before there was no room to send it
            let let_pass = *reason == DropReason::TransmitFull && answer.is_ok();
            let went_on = |truth: &mut Self| {
                let passed = truth.check(facts, frame, &Fate::Passed(Vec::new()));
                passed.or_else(|_| truth.check(facts, frame, &Fate::Deferred(Vec::new())))
            };
            return if let_pass { went_on(self) } else { self.doubt(facts, frame, *reason, answer) };
        }
        if !self.known(facts) {
            return Err("the table in force does not know this pod".into());
        }
        let isolated = Direction::BOTH.map(|direction| self.history.isolated(facts.generation, facts.port, direction));
        if let Some(forged) = facts.forged
            && (!forged.isolated_only || isolated.contains(&true))
        {
            return if *fate == Fate::Dropped(forged.reason) {
                Ok(())
            } else {
                Err(format!("a forged frame: {}", forged.reason.meaning()))
            };
        }
        let Some((flow, kind)) = flow_at(facts, frame) else {
            // a worker that was asked parses, whether or not the pod still is isolated when it does
            let judged = !facts.from_node && (isolated.contains(&true) || facts.asked.is_some());
            let refused = parse_frame(frame).err().map(|error| Fate::Dropped(error.0));
            let right = if judged { Some(fate) == refused.as_ref() } else { !matches!(fate, Fate::Dropped(_)) };
            return if right { Ok(()) } else { Err("not what becomes of a frame that nobody can parse".into()) };
        };
        let mut case = Case { truth: self, facts, flow, kind, isolated };
        match fate {
            Fate::Passed(_) | Fate::Deferred(_) if facts.departs => case.departed(matches!(fate, Fate::Deferred(_))),
            Fate::Dropped(reason) if facts.departs => case.stopped(*reason),
            Fate::Passed(_) | Fate::Deferred(_) => case.passed(matches!(fate, Fate::Deferred(_))),
            Fate::Dropped(reason) => case.dropped(*reason),
        }
    }

    /// A refused write costs the connection its state, so nothing of it is promised any more.
    fn doubt(&mut self, facts: &Facts, frame: &[u8], reason: DropReason, answer: Result<(), Wrong>) -> Result<(), Wrong> {
        if reason == DropReason::CacheWriteFailed
            && let (Some(incarnation), Some((flow, _))) = (facts.incarnation, flow_at(facts, frame))
        {
            self.memory.doubt(incarnation, &flow);
        }
        answer
    }

    fn known(&self, facts: &Facts) -> bool {
        facts.incarnation.is_some_and(|incarnation| self.history.knows(facts.generation, facts.port, incarnation))
    }

    /// Drops for which the packet itself does not matter; `None`: it does.
    fn dropped_by_circumstance(&self, facts: &Facts, reason: DropReason) -> Option<Result<(), Wrong>> {
        let holds = |so: bool, otherwise: &str| Some(if so { Ok(()) } else { Err(format!("dropped as {reason}, but {otherwise}")) });
        let Faults { worker_dead, ring_full, transmit_full, cache_full, quota_full } = facts.faults;
        match reason {
            DropReason::NoPort => holds(facts.incarnation.is_none(), "the port is registered"),
            DropReason::ExitUnjudged => holds(facts.departs && facts.incarnation.is_none(), "its port is registered"),
            DropReason::PortClosed | DropReason::EndpointUnknown => holds(!self.known(facts), "the table in force knows the pod"),
            DropReason::StalePort => holds(facts.asked.is_some() && facts.asked != facts.incarnation, "the port is the same"),
            DropReason::NoTable => holds(facts.generation == 0, "a table is in force"),
            DropReason::NoWorker => holds(worker_dead, "the worker serves"),
            DropReason::WorkerOverrun => holds(ring_full, "there is room"),
            DropReason::TransmitFull => holds(transmit_full, "there is room"),
            DropReason::CacheWriteFailed => holds(cache_full, "there is room"),
            DropReason::ConnectionsFull => holds(quota_full, "there is room"),
            DropReason::Internal | DropReason::TrunkHeader | DropReason::WrongWorker => holds(false, "this must never happen"),
            _ => None,
        }
    }
}

fn flow_at(facts: &Facts, frame: &[u8]) -> Option<(FlowKey, Kind)> {
    let packet = parse_frame(frame).ok()?;
    let Facts { port, direction, departs, .. } = *facts;
    let sluice_flow::Packet { protocol, src, dst, sport, dport, kind, fragment: _ } = packet;
    Some((FlowKey { port, direction, departs, protocol, src, dst, sport, dport }, kind))
}

impl Case<'_> {
    fn allows(&mut self, flow: &FlowKey) -> bool {
        let question = Question {
            port: flow.port,
            direction: flow.direction,
            remote: IpAddr::from(flow.remote()),
            protocol: flow.protocol,
            dport: flow.policy_port(),
        };
        self.truth.history.allows(self.facts.generation, question)
    }

    fn incarnation(&self) -> Incarnation {
        self.facts.incarnation.expect("the table knows it")
    }

    fn track(&self, flow: &FlowKey) -> Option<Track> {
        self.truth.memory.track(self.incarnation(), flow)
    }

    fn isolated_here(&self) -> bool {
        self.isolated[self.facts.direction as usize]
    }

    /// Whether a connection that this packet would have opened has a right to go on.
    fn alive(&mut self, original: &FlowKey) -> bool {
        let Some(track) = self.track(original) else { return false };
        if track.timed_out(original.protocol, self.facts.now_ns) {
            return false;
        }
        // no rule is needed towards this node, nor for the way back
        let by_rules = |case: &mut Self| case.allows(original) && (!track.picked_up || case.allows(&original.reversed()));
        self.truth.memory.keep || self.ends_at_node(original) || by_rules(self)
    }

    /// Whether it has been promised that a packet of this connection passes.
    fn promised(&mut self, original: &FlowKey) -> bool {
        let Some(track) = self.track(original) else { return false };
        track.promised(original.protocol, self.facts.now_ns, self.truth.memory.reclaims) && self.alive(original)
    }

    fn either_way(&mut self, test: fn(&mut Self, &FlowKey) -> bool) -> bool {
        let flow = self.flow;
        test(self, &flow) || test(self, &flow.reversed())
    }

    fn both_ways(&mut self) -> bool {
        let flow = self.flow;
        self.allows(&flow) && self.allows(&flow.reversed())
    }

    fn ends_at_node(&self, flow: &FlowKey) -> bool {
        flow.direction == Direction::Egress && self.truth.node_addresses.contains(&IpAddr::from(flow.dst))
    }

    fn to_node(&self) -> bool {
        self.ends_at_node(&self.flow)
    }

    fn to_service(&self) -> bool {
        self.facts.direction == Direction::Egress && self.truth.services.contains(&IpAddr::from(self.flow.dst))
    }

    /// The flow of the packet that an error quotes: it crossed this port the other way.
    fn quoted(&self, error: &IcmpError) -> FlowKey {
        FlowKey {
            direction: self.facts.direction.reversed(),
            protocol: error.protocol,
            src: error.src,
            dst: error.dst,
            sport: error.sport,
            dport: error.dport,
            ..self.flow
        }
    }

    /// Whether an error goes to whom it concerns.
    fn told(&self, error: &IcmpError) -> bool {
        let to_its_sender = error.src == self.flow.dst;
        to_its_sender && (self.facts.direction == Direction::Ingress || error.dst == self.flow.src)
    }

    /// Whether an error is about a connection that the dataplane is sure to track.
    fn about_a_tracked_one(&mut self, error: &IcmpError) -> bool {
        let quoted = self.quoted(error);
        let connections = [quoted, quoted.reversed()];
        self.told(error) && connections.iter().any(|one| self.track(one).is_some_and(|track| track.tracked) && self.promised(one))
    }

    fn passed(&mut self, deferred: bool) -> Result<(), Wrong> {
        if self.facts.from_node {
            return Ok(());
        }
        if deferred && !self.to_node() && !self.to_service() {
            return Err("deferred, but neither to this node nor to a service".into());
        }
        let tracked = self.isolated.contains(&true);
        if self.to_service() && self.isolated_here() && !deferred && !self.answers() {
            return Err("it went on to a service as if that were where it ends".into());
        }
        if tracked && !self.to_node() && !deferred && !self.permitted() {
            return Err(format!("nothing allows it: {:?} {:?}", self.flow, self.kind));
        }
        let alive_reply = !self.flow.protocol.is_opened_explicitly() && {
            let reversed = self.flow.reversed();
            self.alive(&reversed)
        };
        let (flow, kind, now_ns, incarnation) = (self.flow, self.kind, self.facts.now_ns, self.incarnation());
        self.truth.memory.passed(incarnation, flow, kind, tracked, alive_reply, now_ns);
        Ok(())
    }

    /// What left deferred is judged where it departs by what it is there, and by nothing else.
    fn departed(&mut self, deferred: bool) -> Result<(), Wrong> {
        if deferred {
            return Err("still deferred where it departs".into());
        }
        let flow = self.flow;
        let right = !self.isolated_here() || self.allows(&flow) || (self.truth.memory.keep && self.alive(&flow));
        if !right {
            return Err(format!("nothing allows where it goes: {flow:?} {:?}", self.kind));
        }
        let (kind, now_ns, incarnation, tracked) = (self.kind, self.facts.now_ns, self.incarnation(), self.isolated_here());
        self.truth.memory.passed(incarnation, flow, kind, tracked, false, now_ns);
        Ok(())
    }

    fn stopped(&mut self, reason: DropReason) -> Result<(), Wrong> {
        let flow = self.flow;
        let right = match reason {
            DropReason::PolicyDenied => self.isolated_here() && !self.allows(&flow),
            // what it answers or quotes is not as its pod knows it
            DropReason::ReplyToNothing => self.isolated_here() && self.kind == Kind::Icmp(IcmpClass::Reply),
            DropReason::IcmpErrorUntracked => self.isolated_here() && matches!(self.kind, Kind::IcmpError(_)),
            _ => false,
        };
        if right { Ok(()) } else { Err(format!("stopped where it departs as {reason}: {flow:?} {:?}", self.kind)) }
    }

    /// Whether the packet answers, or is an error about what somebody else sent.
    fn answers(&self) -> bool {
        let reversed = self.flow.reversed();
        self.track(&reversed).is_some() || matches!(self.kind, Kind::IcmpError(_) | Kind::Icmp(IcmpClass::Reply))
    }

    /// Whether some rule of the documentation lets the packet pass.
    fn permitted(&mut self) -> bool {
        let flow = self.flow;
        match self.kind {
            // where swaps let connections live, a repeated opener belongs to the connection that it began
            Kind::Tcp(flags) | Kind::Sctp(flags) if flags.opens() => self.allows(&flow) || (self.truth.memory.keep && self.alive(&flow)),
            Kind::Tcp(_) | Kind::Sctp(_) => self.either_way(Self::alive) || self.both_ways(),
            Kind::Icmp(IcmpClass::Reply) => !self.isolated_here() || self.allows(&flow) || self.alive(&flow.reversed()),
            Kind::IcmpError(error) => {
                let (quoted, told) = (self.quoted(&error), self.told(&error));
                let picked_up = error.protocol.is_opened_explicitly() && self.allows(&quoted) && self.allows(&quoted.reversed());
                !self.isolated_here() || (told && (self.alive(&quoted) || self.alive(&quoted.reversed()) || picked_up))
            }
            Kind::Udp | Kind::Icmp(_) | Kind::Other => self.allows(&flow) || self.either_way(Self::alive),
        }
    }

    fn dropped(&mut self, reason: DropReason) -> Result<(), Wrong> {
        let flow = self.flow;
        let right = match reason {
            DropReason::PolicyDenied | DropReason::MidFlowUnknown if self.to_service() && self.isolated_here() && !self.answers() => {
                return Err(format!("{reason}: nobody knows yet where a packet to a service will go"));
            }
            _ if self.facts.from_node || self.to_node() => return Err(format!("{reason}: between a pod and its node everything passes")),
            DropReason::PolicyDenied => match self.kind {
                Kind::Tcp(flags) | Kind::Sctp(flags) if flags.opens() => !self.allows(&flow),
                Kind::Tcp(_) | Kind::Sctp(_) => !self.both_ways() && !self.either_way(Self::promised),
                Kind::IcmpError(_) => false,
                _ => !self.allows(&flow) && !self.promised(&flow.reversed()),
            },
            DropReason::MidFlowUnknown => {
                let mid_flow = self.kind.flags().is_some_and(|flags| !flags.opens());
                mid_flow && (!self.both_ways() && !self.either_way(Self::promised))
            }
            DropReason::ReplyToNothing => {
                self.kind == Kind::Icmp(IcmpClass::Reply) && self.isolated_here() && !self.promised(&flow.reversed())
            }
            DropReason::IcmpErrorUntracked => match self.kind {
                Kind::IcmpError(error) => self.isolated_here() && !self.about_a_tracked_one(&error),
                _ => false,
            },
            _ => false,
        };
        if right { Ok(()) } else { Err(format!("dropped as {reason}, which it does not deserve: {flow:?} {:?}", self.kind)) }
    }
}
