//! The I/O seam: a batch of frames in, a fate for each out.

mod memory;
#[cfg(feature = "kernel")]
mod xdp;

pub use memory::MemoryIo;
use sluice_flow::DropReason;
#[cfg(feature = "kernel")]
pub use xdp::{XdpError, XdpIo};

/// What becomes of a received frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Back to where it came from, as it now is in its buffer.
    Forward,
    /// Nowhere, and why. The worker counts the reason; a backend only gives up the frame.
    Drop(DropReason),
    /// Nowhere now: the worker has a copy, and may [`PacketIo::send`] it later.
    Held,
}

/// A source and sink of frames. A backend owns its buffers; a worker only looks at one batch at a time.
pub trait PacketIo {
    /// Takes up to [`sluice_flow::limits::BATCH_MAX`] frames and says how many; the previous batch must be committed.
    fn receive(&mut self) -> usize;

    /// A frame of the present batch in one piece, with its trunk header. Empty where the backend delivered a broken descriptor.
    /// What is written to it may be a copy's: see [`PacketIo::write_header`].
    fn frame_mut(&mut self, index: usize) -> &mut [u8];

    /// Writes to the trunk header as it will be sent.
    fn write_header(&mut self, index: usize, header: impl FnOnce(&mut [u8]));

    /// Sends a frame that was held, behind everything committed before; between batches only. False where there is no room.
    fn send(&mut self, frame: &[u8]) -> bool;

    /// Ends the batch: one fate for each frame. Returns how many frames could not be sent for want of room.
    fn commit(&mut self, fates: &[Fate]) -> usize;
}
