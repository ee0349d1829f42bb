//! A packet's way through the hooks of one pod, and through the worker if a hook asks it.

use super::{FIRST_TRUNK_IFINDEX, Fate, Node, Offered, Origin, Ticket, UPLINK_IFINDEX};
use sluice_bpf::abi::MARK_DEFERRED;
use sluice_dataplane::kernel::hooks::{Action, Far, Near, Skb};
use sluice_flow::{Direction, DropReason, PortIndex};

impl Node {
    /// A packet leaves a pod; the worker answers at once.
    pub fn leaves(&mut self, port: PortIndex, frame: &[u8], now_ns: u64) -> Fate {
        let origin = Origin::Pod { port, deferred: false };
        self.settle(port, Direction::Egress, frame, origin, now_ns)
    }

    /// A packet enters a pod; the worker answers at once.
    pub fn enters(&mut self, port: PortIndex, frame: &[u8], origin: Origin, now_ns: u64) -> Fate {
        self.settle(port, Direction::Ingress, frame, origin, now_ns)
    }

    /// Offers a packet and serves until its fate is known.
    ///
    /// # Panics
    /// Where packets offered earlier still wait: their answers would go nowhere.
    pub(super) fn settle(&mut self, port: PortIndex, direction: Direction, frame: &[u8], origin: Origin, now_ns: u64) -> Fate {
        assert_eq!(self.waiting(), 0, "earlier packets have been served");
        match self.offer(port, direction, frame, origin, now_ns) {
            Offered::Done(fate) => fate,
            Offered::Asked(ticket) => {
                let mut answers = self.serve(self.owner(port), now_ns);
                let (answered, fate) = answers.pop().expect("a batch of one has one answer");
                assert_eq!(answered, ticket);
                fate
            }
        }
    }

    /// Shows a packet to a pod's hook.
    pub fn offer(&mut self, port: PortIndex, direction: Direction, frame: &[u8], origin: Origin, now_ns: u64) -> Offered {
        self.accounts.offered += 1;
        let ingress_ifindex = match origin {
            Origin::Node => 0,
            Origin::Uplink => UPLINK_IFINDEX,
            Origin::Pod { port, .. } => self.device(port),
        };
        let mark = if matches!(origin, Origin::Pod { deferred: true, .. }) { MARK_DEFERRED } else { 0 };
        let skb = Skb { frame, mark, ingress_ifindex, from_socket: origin == Origin::Node };
        match self.kernel.hook(self.device(port), direction, &skb, now_ns) {
            Action::Pass { mark } => Offered::Done(self.passed(frame.to_vec(), mark)),
            Action::Drop(reason) => Offered::Done(self.dropped(reason)),
            Action::Punt { frame } => self.punted(self.owner(port), frame, now_ns),
        }
    }

    fn device(&self, port: PortIndex) -> u32 {
        self.devices.get(&port).copied().unwrap_or(0)
    }

    fn punted(&mut self, worker: u16, frame: Vec<u8>, now_ns: u64) -> Offered {
        match self.kernel.far(u32::from(worker), &frame) {
            Far::Drop(reason) => Offered::Done(self.dropped(reason)),
            Far::Bounced => Offered::Done(self.comes_back(worker, &frame, now_ns)),
            Far::Worker => {
                let ticket = Ticket(self.next_ticket);
                self.next_ticket += 1;
                let slot = &mut self.workers[usize::from(worker)];
                if slot.worker.as_mut().is_some_and(|worker| worker.io.push(ticket, frame)) {
                    return Offered::Asked(ticket);
                }
                slot.overrun += 1;
                slot.shared.set_overrun(slot.overrun);
                Offered::Done(self.dropped(DropReason::WorkerOverrun))
            }
        }
    }

    /// What returns over the trunk goes through the near program and the hook that it came from.
    fn comes_back(&mut self, worker: u16, frame: &[u8], now_ns: u64) -> Fate {
        let trunk = FIRST_TRUNK_IFINDEX + u32::from(worker);
        match self.kernel.near(trunk, frame) {
            Near::Drop(reason) => self.dropped(reason),
            Near::Redirect { ifindex, direction, mark, frame } => {
                let skb = Skb { frame: &frame, mark, ingress_ifindex: trunk, from_socket: false };
                match self.kernel.hook(ifindex, direction, &skb, now_ns) {
                    Action::Pass { mark } => self.passed(frame, mark),
                    Action::Drop(reason) => self.dropped(reason),
                    Action::Punt { .. } => panic!("a judged packet is asked about again: it would loop"),
                }
            }
        }
    }

    fn passed(&mut self, frame: Vec<u8>, mark: u32) -> Fate {
        let fate = if mark & MARK_DEFERRED != 0 { Fate::Deferred(frame) } else { Fate::Passed(frame) };
        self.accounts.note(&fate);
        fate
    }

    fn dropped(&mut self, reason: DropReason) -> Fate {
        let fate = Fate::Dropped(reason);
        self.accounts.note(&fate);
        fate
    }

    /// Lets a worker carry out its commands and serve one batch. Returns the fates of the packets it was asked about.
    pub fn serve(&mut self, worker: u16, now_ns: u64) -> Vec<(Ticket, Fate)> {
        let slot = &mut self.workers[usize::from(worker)];
        slot.run_commands(now_ns);
        let Some(running) = &mut slot.worker else { return Vec::new() };
        running.run_batch(now_ns);
        let answers = running.io.take_answers();
        let mut fates = Vec::with_capacity(answers.len());
        for answer in answers {
            let fate = match answer.outcome {
                Ok(frame) => self.comes_back(worker, &frame, now_ns),
                Err(reason) => self.dropped(reason),
            };
            fates.push((answer.ticket, fate));
        }
        fates
    }
}
