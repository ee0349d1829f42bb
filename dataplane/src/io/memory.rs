//! Frames in memory: for tests and simulation.

use super::{Fate, PacketIo};
use sluice_flow::limits::BATCH_MAX;
use std::collections::VecDeque;

/// Two queues of frames.
#[derive(Debug, Default)]
pub struct MemoryIo {
    /// What the worker will receive.
    pub incoming: VecDeque<Vec<u8>>,
    /// What it forwarded, as it left the worker.
    pub outgoing: VecDeque<Vec<u8>>,
    /// Frames `outgoing` takes before it is full; `None` for no limit.
    pub room: Option<usize>,
    batch: Vec<Vec<u8>>,
}

impl PacketIo for MemoryIo {
    fn receive(&mut self) -> usize {
        assert!(self.batch.is_empty(), "the previous batch is committed");
        let count = self.incoming.len().min(BATCH_MAX);
        self.batch = self.incoming.drain(..count).collect();
        count
    }

    fn frame_mut(&mut self, index: usize) -> &mut [u8] {
        &mut self.batch[index]
    }

    fn write_header(&mut self, index: usize, header: impl FnOnce(&mut [u8])) {
        header(&mut self.batch[index]);
    }

    fn commit(&mut self, fates: &[Fate]) -> usize {
        assert_eq!(fates.len(), self.batch.len(), "one fate for each frame");
        let mut unsent = 0;
        for (frame, fate) in self.batch.drain(..).zip(fates) {
            match fate {
                Fate::Forward if self.room.is_some_and(|room| self.outgoing.len() >= room) => unsent += 1,
                Fate::Forward => self.outgoing.push_back(frame),
                Fate::Drop(_) | Fate::Held => {}
            }
        }
        unsent
    }

    fn send(&mut self, frame: &[u8]) -> bool {
        let has_room = self.room.is_none_or(|room| self.outgoing.len() < room);
        if has_room {
            self.outgoing.push_back(frame.to_vec());
        }
        has_room
    }
}
