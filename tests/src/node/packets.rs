//! A packet's way through the hooks of one pod, and through the worker if a hook asks it.

use super::{FIRST_TRUNK_IFINDEX, Fate, Hook, Node, Offered, Origin, Ticket, UPLINK_IFINDEX};
use sluice_bpf::abi::{MARK_DEFERRED, TRUNK_BYTES, TrunkHeader};
use sluice_dataplane::kernel::hooks::{Action, Far, Near, Skb};
use sluice_flow::{Direction, DropReason, PortIndex};

impl Node {
    /// A packet leaves a pod; the worker answers at once.
    pub fn leaves(&mut self, port: PortIndex, frame: &[u8], now_ns: u64) -> Fate {
        self.settle(Hook::Leaving(port), frame, Origin::Pod { port, deferred: false }, now_ns)
    }

    /// A packet enters a pod; the workers answer at once.
    pub fn enters(&mut self, port: PortIndex, frame: &[u8], origin: Origin, now_ns: u64) -> Fate {
        self.settle(Hook::Entering(port), frame, origin, now_ns)
    }

    /// A packet goes out by the uplink; the worker answers at once.
    pub fn exits(&mut self, frame: &[u8], origin: Origin, now_ns: u64) -> Fate {
        self.settle(Hook::Exiting, frame, origin, now_ns)
    }

    /// Offers a packet and serves until its fate is known.
    ///
    /// # Panics
    /// Where packets offered earlier still wait: their answers would go nowhere.
    pub(super) fn settle(&mut self, hook: Hook, frame: &[u8], origin: Origin, now_ns: u64) -> Fate {
        assert_eq!(self.waiting(), 0, "earlier packets have been served");
        let mut offered = self.offer(hook, frame, origin, now_ns);
        loop {
            match offered {
                Offered::Done(fate) => return fate,
                Offered::Asked(ticket, worker) => {
                    let mut answers = self.serve(worker, now_ns);
                    let (answered, next) = answers.pop().expect("a batch of one has one answer");
                    assert_eq!(answered, ticket);
                    offered = next;
                }
            }
        }
    }

    /// Shows a packet to a hook.
    pub fn offer(&mut self, hook: Hook, frame: &[u8], origin: Origin, now_ns: u64) -> Offered {
        self.accounts.offered += 1;
        let ingress_ifindex = match origin {
            Origin::Node => 0,
            Origin::Uplink => UPLINK_IFINDEX,
            Origin::Pod { port, .. } => self.device(port),
        };
        let mark = if matches!(origin, Origin::Pod { deferred: true, .. }) { MARK_DEFERRED } else { 0 };
        let (ifindex, direction) = match hook {
            Hook::Leaving(port) => (self.device(port), Direction::Egress),
            Hook::Entering(port) => (self.device(port), Direction::Ingress),
            Hook::Exiting => (UPLINK_IFINDEX, Direction::Ingress),
        };
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.show(ticket, ifindex, direction, &Skb { frame, mark, ingress_ifindex, from_socket: origin == Origin::Node }, now_ns)
    }

    /// To the program of a device in this direction, which is seen from the pod behind it.
    fn show(&mut self, ticket: Ticket, ifindex: u32, direction: Direction, skb: &Skb<'_>, now_ns: u64) -> Offered {
        let action = match ifindex {
            UPLINK_IFINDEX => self.kernel.exiting(ifindex, skb, now_ns),
            _ => self.kernel.hook(ifindex, direction, skb, now_ns),
        };
        match action {
            Action::Pass { mark } => Offered::Done(self.passed(skb.frame.to_vec(), mark)),
            Action::Drop(reason) => Offered::Done(self.dropped(reason)),
            Action::Punt { frame } => self.punted(ticket, frame, now_ns),
            // what the tests of nodes send through two pods' hooks they carry themselves
            Action::Direct { frame, .. } => Offered::Done(self.passed(frame, 0)),
        }
    }

    fn device(&self, port: PortIndex) -> u32 {
        self.devices.get(&port).copied().unwrap_or(0)
    }

    fn punted(&mut self, ticket: Ticket, frame: Vec<u8>, now_ns: u64) -> Offered {
        let header: TrunkHeader = bytemuck::pod_read_unaligned(frame.first_chunk::<TRUNK_BYTES>().expect("a punt has its header"));
        let worker = header.worker;
        match self.kernel.far(u32::from(worker), &frame) {
            Far::Drop(reason) => Offered::Done(self.dropped(reason)),
            Far::Bounced => self.comes_back(ticket, worker, &frame, now_ns),
            Far::Worker => {
                let slot = &mut self.workers[usize::from(worker)];
                if slot.worker.as_mut().is_some_and(|worker| worker.io.push(ticket, frame)) {
                    return Offered::Asked(ticket, worker);
                }
                slot.overrun += 1;
                slot.shared.set_overrun(slot.overrun);
                Offered::Done(self.dropped(DropReason::WorkerOverrun))
            }
        }
    }

    /// What returns over the trunk goes through the near program and the hook that it came from. Only where a packet departs
    /// and enters a pod at once does that hook have another question.
    fn comes_back(&mut self, ticket: Ticket, worker: u16, frame: &[u8], now_ns: u64) -> Offered {
        let trunk = FIRST_TRUNK_IFINDEX + u32::from(worker);
        match self.kernel.near(trunk, frame) {
            Near::Drop(reason) => Offered::Done(self.dropped(reason)),
            Near::Redirect { ifindex, direction, mark, frame } => {
                self.show(ticket, ifindex, direction, &Skb { frame: &frame, mark, ingress_ifindex: trunk, from_socket: false }, now_ns)
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

    /// Lets a worker carry out its commands and serve one batch. Returns the fates of the packets it was asked about, or who
    /// is asked next.
    pub fn serve(&mut self, worker: u16, now_ns: u64) -> Vec<(Ticket, Offered)> {
        let slot = &mut self.workers[usize::from(worker)];
        slot.run_commands(now_ns);
        let Some(running) = &mut slot.worker else { return Vec::new() };
        running.run_batch(now_ns);
        let answers = running.io.take_answers();
        let mut fates = Vec::with_capacity(answers.len());
        for answer in answers {
            let fate = match answer.outcome {
                Ok(frame) => self.comes_back(answer.ticket, worker, &frame, now_ns),
                Err(reason) => Offered::Done(self.dropped(reason)),
            };
            fates.push((answer.ticket, fate));
        }
        fates
    }
}
