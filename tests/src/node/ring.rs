//! One worker's frames: the socket's two rings, with a ticket on each frame so that every fate is known by name.

use sluice_dataplane::io::{Fate, PacketIo};
use sluice_flow::DropReason;
use sluice_flow::limits::BATCH_MAX;
use std::collections::VecDeque;

/// Names a packet that a worker was asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What a worker made of a packet: the frame as it went back onto the trunk, or why it did not.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) ticket: Ticket,
    pub(super) outcome: Result<Vec<u8>, DropReason>,
}

/// A socket in memory.
#[derive(Debug)]
pub(super) struct Ring {
    waiting: VecDeque<(Ticket, Vec<u8>)>,
    batch: Vec<(Ticket, Vec<u8>)>,
    answers: Vec<Answer>,
    /// Frames that wait here before the next one is an overrun.
    pub(super) receive_max: usize,
    /// Frames one batch may send.
    pub(super) transmit_max: usize,
}

impl Ring {
    pub(super) fn new(receive_max: usize) -> Self {
        Self { waiting: VecDeque::new(), batch: Vec::new(), answers: Vec::new(), receive_max, transmit_max: usize::MAX }
    }

    /// False: no room.
    pub(super) fn push(&mut self, ticket: Ticket, frame: Vec<u8>) -> bool {
        let room = self.waiting.len() < self.receive_max;
        if room {
            self.waiting.push_back((ticket, frame));
        }
        room
    }

    pub(super) fn take_answers(&mut self) -> Vec<Answer> {
        std::mem::take(&mut self.answers)
    }

    /// Frames not received yet.
    pub(super) fn waiting(&self) -> impl Iterator<Item = Ticket> {
        self.waiting.iter().map(|(ticket, _)| *ticket)
    }
}

impl PacketIo for Ring {
    fn receive(&mut self) -> usize {
        assert!(self.batch.is_empty(), "the previous batch is committed");
        let count = self.waiting.len().min(BATCH_MAX);
        self.batch.extend(self.waiting.drain(..count));
        count
    }

    fn frame_mut(&mut self, index: usize) -> &mut [u8] {
        &mut self.batch[index].1
    }

    fn write_header(&mut self, index: usize, header: impl FnOnce(&mut [u8])) {
        header(&mut self.batch[index].1);
    }

    fn send(&mut self, _: &[u8]) -> bool {
        panic!("nothing is held here")
    }

    fn commit(&mut self, fates: &[Fate]) -> usize {
        assert_eq!(fates.len(), self.batch.len(), "one fate for each frame");
        let (mut sent, mut unsent) = (0, 0);
        for ((ticket, frame), fate) in self.batch.drain(..).zip(fates) {
            let outcome = match fate {
                Fate::Drop(reason) => Err(*reason),
                // its worker is told to hold none, see `Node::new_worker`
                Fate::Held => panic!("a packet that waits has no fate yet"),
                Fate::Forward if sent >= self.transmit_max => {
                    unsent += 1;
                    Err(DropReason::TransmitFull)
                }
                Fate::Forward => {
                    sent += 1;
                    Ok(frame)
                }
            };
            self.answers.push(Answer { ticket, outcome });
        }
        unsent
    }
}
