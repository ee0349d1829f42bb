//! The whole worker on a node in memory: every flow is sent as a frame through the hook that it leaves by and the hook that
//! it enters by, then its reply, then what the other end would open against it.

use super::engines;
use super::flow::{Until, Verdict};
use super::frame::{self, Surroundings};
use super::lines::{Fate, Fates, FrameLine, Way, fates_text};
use super::question::Question;
use super::state::State;
use crate::node::{self, GATEWAY_MAC, Node, NodeConfig, Origin};
use sluice_dataplane::worker::Established;
use sluice_flow::{Addr, Direction, DropReason, LocalEndpoint, ObjectName, PortIndex, Protocol};
use sluice_table::Table;
use std::collections::BTreeMap;
use std::sync::Arc;

const MS_NS: u64 = 1_000_000;
const FIRST_SPORT: u16 = 40_000;

/// A node, the time on it, and whom it knows.
pub(super) struct Engine {
    node: Node,
    now_ns: u64,
    attached: BTreeMap<PortIndex, LocalEndpoint>,
    sport: u16,
}

/// One crossing that did not go as it should.
pub(super) struct Wrong {
    pub(super) expected: String,
    pub(super) got: String,
}

fn mac(port: PortIndex) -> [u8; 6] {
    let [high, low] = port.0.to_be_bytes();
    [2, 0, 0, 1, high, low]
}

impl Engine {
    /// One worker serves; nothing is attached yet.
    pub(super) fn new(established: Established) -> Self {
        let node = Node::new(NodeConfig { established, ..NodeConfig::default() });
        Self { node, now_ns: 1_000_000 * MS_NS, attached: BTreeMap::new(), sport: FIRST_SPORT }
    }

    /// Every packet had one fate, every drop was counted once, and the hooks obey nothing that the worker does not know.
    pub(super) fn check(&self) -> Result<(), String> {
        self.node.check_accounts().and_then(|()| self.node.check_cache()).map_err(|disagreement| disagreement.to_string())
    }

    /// Connections that swaps have cut so far.
    pub(super) fn cut(&self) -> u64 {
        self.node.connections_cut()
    }

    pub(super) fn wait(&mut self, ms: u64) {
        self.now_ns += ms * MS_NS;
    }

    /// Attaches and detaches what the state says, as a runtime would before the next table exists.
    pub(super) fn attach(&mut self, state: &State) {
        let wanted: BTreeMap<PortIndex, LocalEndpoint> = state.endpoints().map(|endpoint| (endpoint.port, endpoint.clone())).collect();
        let gone: Vec<PortIndex> =
            self.attached.iter().filter(|(port, endpoint)| wanted.get(port) != Some(endpoint)).map(|(port, _)| *port).collect();
        for port in gone {
            self.node.remove_port(port);
            self.attached.remove(&port);
        }
        for (port, endpoint) in wanted {
            if !self.attached.contains_key(&port) {
                self.node.add_port(&endpoint, mac(port));
                self.attached.insert(port, endpoint);
            }
        }
        let addresses: Vec<Addr> = state.node.iter().map(|address| Addr::from(*address)).collect();
        self.node.set_node_addresses(&addresses, self.now_ns);
    }

    /// A new worker takes over what the hooks' cache remembers.
    pub(super) fn restart(&mut self) {
        self.node.restart_worker(0, self.now_ns);
    }

    pub(super) fn adopt(&mut self, table: Arc<Table>) {
        self.node.adopt(table, self.now_ns);
    }

    /// Sends a flow, and all that follows from its verdict. `None`: it never crosses a hook of this node.
    pub(super) fn flow(
        &mut self,
        state: &State,
        question: &Question,
        verdict: &Verdict,
        until: Option<&Until>,
    ) -> Result<Option<Vec<Wrong>>, String> {
        let itself = question.src.0.is_some() && question.src.0 == question.dst.0;
        if itself || question.halves().iter().flatten().all(|(pod, ..)| state.endpoint(pod).is_none()) {
            return Ok(None);
        }
        self.sport = if self.sport == u16::MAX { FIRST_SPORT } else { self.sport + 1 };
        let sport = self.sport;
        let mut wrong = Vec::new();
        if let Some(until) = until {
            wrong.extend(self.until(state, question, sport, until)?);
            return Ok(Some(wrong));
        }
        let denied = |direction| matches!(verdict, Verdict::Deny(halves, _) if halves.contains(&direction));
        let fates = self.cross(state, question, &opener(question, sport))?;
        wrong.extend(fates.iter().filter_map(|(direction, fate)| {
            let right = match fate {
                Fate::Drop(reason) => denied(*direction) && *reason == DropReason::PolicyDenied,
                Fate::Pass | Fate::Deferred => !denied(*direction),
            };
            let expected = if denied(*direction) { "drop policy_denied" } else { "pass" };
            (!right).then(|| Wrong { expected: format!("{direction}: {expected}"), got: format!("{direction}: {}", word(fate)) })
        }));
        if wrong.is_empty() && !matches!(verdict, Verdict::Deny(..)) {
            wrong.extend(self.answers(state, question, sport)?);
            if *verdict != Verdict::Exempt && matches!(question.protocol, Protocol::TCP | Protocol::ICMP | Protocol::ICMPV6) {
                wrong.extend(self.opened_back(state, question, sport)?);
            }
        }
        Ok(Some(wrong))
    }

    /// What is not built yet is dropped at the first hook that judges, by this name.
    fn until(&mut self, state: &State, question: &Question, sport: u16, until: &Until) -> Result<Option<Wrong>, String> {
        let fates = self.cross(state, question, &opener(question, sport))?;
        let drops: Vec<_> = fates.iter().filter(|(_, fate)| matches!(fate, Fate::Drop(_))).collect();
        let as_said = !drops.is_empty() && drops.iter().all(|(_, fate)| *fate == Fate::Drop(until.reason));
        let got = fates.iter().map(|(direction, fate)| format!("{direction}: {}", word(fate))).collect::<Vec<_>>().join(", ");
        let expected = format!("drop {} until {}", until.reason, until.feature);
        Ok((!as_said).then_some(Wrong { expected, got }))
    }

    /// The reply of an allowed flow passes both ways back.
    fn answers(&mut self, state: &State, question: &Question, sport: u16) -> Result<Vec<Wrong>, String> {
        let back = Question { src: question.dst.clone(), dst: question.src.clone(), ..question.clone() };
        let fates = self.cross(state, &back, &answer(question, sport))?;
        let stopped = fates.iter().filter(|(_, fate)| matches!(fate, Fate::Drop(_)));
        let wrong = |(direction, fate): &(Direction, Fate)| Wrong {
            expected: format!("{direction}: the reply passes"),
            got: format!("{direction}: {}", word(fate)),
        };
        Ok(stopped.map(wrong).collect())
    }

    /// The same ports in the other direction are a new connection: what the oracle says of it holds.
    fn opened_back(&mut self, state: &State, question: &Question, sport: u16) -> Result<Vec<Wrong>, String> {
        let back = question.reversed(if question.protocol == Protocol::TCP { sport } else { 0 });
        let truth = engines::oracle(state, &back);
        let packet = match back.protocol {
            Protocol::TCP => packet(&back, &format!("tcp({}, {sport}, S)", question.port)),
            _ => packet(&back, &format!("ping({sport})")),
        };
        let fates = self.cross(state, &back, &packet)?;
        let allowed = |direction| match direction {
            Direction::Egress => truth.egress.as_ref().is_none_or(|half| half.allowed),
            Direction::Ingress => truth.ingress.as_ref().is_none_or(|half| half.allowed),
        };
        let disagrees = fates.iter().filter(|(direction, fate)| allowed(*direction) == matches!(fate, Fate::Drop(_)));
        let wrong = |(direction, fate): &(Direction, Fate)| Wrong {
            expected: format!("{direction} of the reverse connection: {}", if allowed(*direction) { "pass" } else { "drop" }),
            got: format!("{direction}: {}", word(fate)),
        };
        Ok(disagrees.map(wrong).collect())
    }

    /// Through the source's leaving hook and the destination's entering hook, each by itself: a denial at one end does not
    /// hide the other's.
    fn cross(&mut self, state: &State, question: &Question, layers: &str) -> Result<Vec<(Direction, Fate)>, String> {
        let mut fates = Vec::new();
        for (pod, direction, _) in question.halves().into_iter().flatten() {
            if state.endpoint(pod).is_some() {
                let from = question.src.0.as_ref().filter(|_| direction == Direction::Ingress);
                let origin = self.origin(state, question.src.1, from);
                fates.push((direction, self.send(state, pod, direction, origin, &frame::read(layers)?)?));
            }
        }
        Ok(fates)
    }

    fn origin(&self, state: &State, src: std::net::IpAddr, pod: Option<&ObjectName>) -> Origin {
        match pod.and_then(|pod| state.endpoint(pod)) {
            Some(endpoint) => Origin::Pod { port: endpoint.port, deferred: false },
            None if state.node.contains(&src) => Origin::Node,
            None => Origin::Uplink,
        }
    }

    fn send(
        &mut self,
        state: &State,
        pod: &ObjectName,
        direction: Direction,
        origin: Origin,
        layers: &[frame::Layer],
    ) -> Result<Fate, String> {
        let frame = self.frame(state, pod, direction, layers)?;
        let port = state.endpoint(pod).ok_or_else(|| format!("{pod} is not attached here"))?.port;
        let fate = match direction {
            Direction::Egress => self.node.leaves(port, &frame, self.now_ns),
            Direction::Ingress => self.node.enters(port, &frame, origin, self.now_ns),
        };
        Ok(fate_of(&fate))
    }

    /// What left the pod deferred goes out by the uplink.
    fn exit(&mut self, state: &State, pod: &ObjectName, layers: &[frame::Layer]) -> Result<Fate, String> {
        let frame = self.frame(state, pod, Direction::Egress, layers)?;
        let port = state.endpoint(pod).ok_or_else(|| format!("{pod} is not attached here"))?.port;
        Ok(fate_of(&self.node.exits(&frame, Origin::Pod { port, deferred: true }, self.now_ns)))
    }

    /// The kernel's connection tracking knows where a packet came from before its source became what it is.
    fn translate(&self, state: &State, line: &FrameLine, layers: &[frame::Layer], before: std::net::IpAddr) -> Result<(), String> {
        let frame = self.frame(state, &line.pod, line.direction, layers)?;
        let packet = sluice_flow::parse_frame(&frame).map_err(|refusal| format!("translated, but refused: {refusal}"))?;
        let tuple = (packet.protocol.0, packet.src, packet.dst, packet.sport, packet.dport);
        self.node.kernel().translated.borrow_mut().insert(tuple, Addr::from(before));
        Ok(())
    }

    /// The bytes of a frame at a pod's hook.
    pub(super) fn frame(&self, state: &State, pod: &ObjectName, direction: Direction, layers: &[frame::Layer]) -> Result<Vec<u8>, String> {
        let own = mac(state.endpoint(pod).ok_or_else(|| format!("{pod} is not attached here"))?.port);
        let leaves = direction == Direction::Egress;
        let mac_of = |name: &str| match name {
            "gateway" => Ok(GATEWAY_MAC),
            "broadcast" => Ok([0xff; 6]),
            pod => state.endpoint(&ObjectName::parse(pod)).map(|endpoint| mac(endpoint.port)).ok_or_else(|| format!("who is {pod}?")),
        };
        let around = Surroundings {
            macs: if leaves { (own, GATEWAY_MAC) } else { (GATEWAY_MAC, own) },
            pod: &pod.to_string(),
            leaves,
            address: &|name, v4| state.address(name, v4),
            mac: &mac_of,
        };
        frame::encode(layers, &around)
    }

    /// Sends the frames of a line in order; what became of them, if that is not what it says.
    pub(super) fn frames(&mut self, state: &State, line: &FrameLine) -> Result<Option<Wrong>, String> {
        let mut met: BTreeMap<Fate, usize> = BTreeMap::new();
        for index in 0..line.repeat {
            let layers: Vec<frame::Layer> = line.layers.iter().map(|layer| layer.numbered(index)).collect();
            let origin = self.frame_origin(state, line, &layers);
            if let Way::EntersFrom(before) = line.way {
                self.translate(state, line, &layers, before)?;
            }
            let fate = match line.way {
                Way::Exits => self.exit(state, &line.pod, &layers)?,
                _ => self.send(state, &line.pod, line.direction, origin, &layers)?,
            };
            *met.entry(fate).or_default() += 1;
        }
        let met: Fates = met.into_iter().map(|(fate, count)| (count, fate)).collect();
        Ok((met != line.outcome).then(|| Wrong { expected: fates_text(&line.outcome), got: fates_text(&met) }))
    }

    /// By whom the packet's source says that it was sent; a source that is nobody's comes over the uplink.
    fn frame_origin(&self, state: &State, line: &FrameLine, layers: &[frame::Layer]) -> Origin {
        let Ok(bytes) = self.frame(state, &line.pod, line.direction, layers) else { return Origin::Uplink };
        let Ok(packet) = sluice_flow::parse_frame(&bytes) else { return Origin::Uplink };
        let src = std::net::IpAddr::from(packet.src);
        let sender = state.endpoints().find(|endpoint| endpoint.addresses.contains(&src));
        match self.origin(state, src, sender.map(|endpoint| &endpoint.pod)) {
            Origin::Pod { port, .. } => Origin::Pod { port, deferred: line.way == Way::EntersDeferred },
            // translated on its way through, not made here
            Origin::Node if matches!(line.way, Way::EntersFrom(_)) => Origin::Uplink,
            other => other,
        }
    }
}

fn fate_of(fate: &node::Fate) -> Fate {
    match fate {
        node::Fate::Passed(_) => Fate::Pass,
        node::Fate::Deferred(_) => Fate::Deferred,
        node::Fate::Dropped(reason) => Fate::Drop(*reason),
    }
}

fn word(fate: &Fate) -> String {
    fates_text(&vec![(1, *fate)])
}

fn packet(question: &Question, transport: &str) -> String {
    let ip = if question.src.1.is_ipv4() { "ipv4" } else { "ipv6" };
    format!("{ip}(src={}, dst={}) {transport}", question.src.1, question.dst.1)
}

/// The first packet of a connection.
fn opener(question: &Question, sport: u16) -> String {
    let port = question.port;
    let transport = match question.protocol {
        Protocol::TCP => format!("tcp({sport}, {port}, S)"),
        Protocol::UDP => format!("udp({sport}, {port}) data(4)"),
        Protocol::SCTP => format!("sctp({sport}, {port}) chunk(1)"),
        Protocol::ICMP | Protocol::ICMPV6 => format!("ping({sport})"),
        Protocol(other) => format!("protocol({other}) data(8)"),
    };
    packet(question, &transport)
}

/// The first packet back.
fn answer(question: &Question, sport: u16) -> String {
    let port = question.port;
    let transport = match question.protocol {
        Protocol::TCP => format!("tcp({port}, {sport}, SA)"),
        Protocol::UDP => format!("udp({port}, {sport}) data(4)"),
        Protocol::SCTP => format!("sctp({port}, {sport}) chunk(2)"),
        Protocol::ICMP | Protocol::ICMPV6 => format!("pong({sport})"),
        Protocol(other) => format!("protocol({other}) data(8)"),
    };
    let back = Question { src: question.dst.clone(), dst: question.src.clone(), ..question.clone() };
    packet(&back, &transport)
}
