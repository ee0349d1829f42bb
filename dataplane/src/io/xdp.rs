//! AF_XDP frames: one socket on the single queue of a trunk's far end (xsk-rs).
//!
//! ```text
//!   fill ring ─▶ kernel ─▶ rx ring ─▶ batch ─┬─ forward ─▶ tx ring ─▶ kernel ─▶ completion ring ─┐
//!      ▲                                     └─ drop ─▶ free frames ◀────────────────────────────┘
//!      └───────────────────────────────────────────────────┘
//! ```
//!
//! Every buffer is in exactly one of these places. A frame is forwarded in place: it goes out of the buffers it came in. One that
//! is longer than a buffer lies in several, whose descriptors follow each other in both rings; the worker sees a copy in one
//! piece, of which only the trunk header is written back.

use super::{Fate, PacketIo};
use sluice_flow::limits::BATCH_MAX;
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};
use xsk_rs::config::{BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem};

/// Chunks hold a whole trunk frame of usual MTUs: above about 1790 bytes of MTU, 2 kB would not do.
const FRAME_BYTES: u32 = 4096;
const FRAMES: u32 = 4096;
/// Rings below 512 lose a third of a burst on veth (measured); what one port may ask at once (`SLUICE_ASKED_AT_ONCE`) is a quarter.
const RING: u32 = 2048;
/// A device and queue stay busy for 16–20 ms after their last socket closed (measured).
const BIND_RETRY_MAX: Duration = Duration::from_secs(2);

/// Why a socket could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum XdpError {
    #[error("AF_XDP memory: {0}")]
    /// UMEM.
    Umem(String),
    #[error("AF_XDP socket on {interface}: {reason}")]
    /// Bind.
    Socket {
        /// The trunk's far end.
        interface: String,
        /// Why.
        reason: String,
    },
}

/// The backend of one worker.
#[derive(Debug)]
pub struct XdpIo {
    umem: Umem,
    rx: RxQueue,
    tx: TxQueue,
    fill: FillQueue,
    completion: CompQueue,
    free: Vec<FrameDesc>,
    /// Descriptors of the present batch, and behind them the beginning of a frame whose rest has not come.
    batch: Vec<FrameDesc>,
    /// The frames of the present batch: where their descriptors are in it.
    frames: Vec<Range<usize>>,
    /// What the rx ring gives, for a moment.
    taken: Vec<FrameDesc>,
    /// A frame of several buffers in one piece.
    whole: Vec<u8>,
    out: Vec<FrameDesc>,
    fd: RawFd,
}

/// Of a frame that is sent anew, for each buffer: room enough behind what the kernel keeps free in front (256 bytes).
const PIECE_BYTES: usize = 3072;
/// More of the same frame follows (linux/if_xdp.h, XDP_PKT_CONTD).
const CONTINUED: u32 = 1;

impl XdpIo {
    /// Binds to queue 0 of `interface`, which must be visible in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`XdpError`]; a device that is still busy is retried for two seconds.
    pub fn bind(interface: &str) -> Result<Self, XdpError> {
        let umem_error = |error: &dyn std::fmt::Display| XdpError::Umem(error.to_string());
        let ring = QueueSize::new(RING).map_err(|e| umem_error(&e))?;
        let config = UmemConfig::builder()
            .frame_size(FrameSize::new(FRAME_BYTES).map_err(|e| umem_error(&e))?)
            .fill_queue_size(ring)
            .comp_queue_size(ring)
            .build()
            .map_err(|e| umem_error(&e))?;
        let frames = NonZeroU32::new(FRAMES).expect("a constant above 0");
        let (umem, mut free) = Umem::new(config, frames, false).map_err(|e| umem_error(&e))?;
        let socket_error = |reason: String| XdpError::Socket { interface: interface.into(), reason };
        let name: Interface = interface.parse().map_err(|e| socket_error(format!("{e}")))?;
        let config = SocketConfig::builder()
            .rx_queue_size(ring)
            .tx_queue_size(ring)
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .bind_flags(BindFlags::XDP_COPY | BindFlags::XDP_USE_NEED_WAKEUP | BindFlags::XDP_USE_SG)
            .build();
        let started = Instant::now();
        let (tx, rx, queues) = loop {
            // SAFETY: our own program is attached to the device; libxdp is told not to load one, so it has none to free twice.
            match unsafe { Socket::new(config, &umem, &name, 0) } {
                Ok(socket) => break socket,
                Err(_) if started.elapsed() < BIND_RETRY_MAX => std::thread::sleep(Duration::from_micros(200)),
                Err(error) => return Err(socket_error(error.to_string())),
            }
        };
        let (mut fill, completion) = queues.ok_or_else(|| socket_error("no fill and completion ring".into()))?;
        let given: Vec<FrameDesc> = free.drain(..RING as usize).collect();
        // SAFETY: the descriptors are of this UMEM and were just taken out of the free list.
        unsafe { fill.produce(&given) };
        let fd = rx.fd().as_raw_fd();
        let taken = vec![free[0]; BATCH_MAX];
        Ok(Self {
            umem,
            rx,
            tx,
            fill,
            completion,
            free,
            batch: Vec::with_capacity(2 * BATCH_MAX),
            frames: Vec::with_capacity(BATCH_MAX),
            taken,
            whole: Vec::new(),
            out: Vec::with_capacity(2 * BATCH_MAX),
            fd,
        })
    }

    /// The socket, to be put into the XSKMAP and polled.
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket lives as long as self.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }

    /// Whether the kernel waits for a system call before it fills more frames.
    pub fn needs_wakeup(&self) -> bool {
        self.fill.needs_wakeup()
    }

    /// Frames dropped for want of room in the rx ring or of buffers, since the socket was bound. Source: linux/if_xdp.h,
    /// `xdp_statistics`.
    pub fn overrun(&self) -> u64 {
        self.rx.fd().xdp_statistics().map_or(0, |statistics| statistics.rx_dropped() + statistics.rx_ring_full())
    }

    fn reclaim(&mut self) {
        let mut done = [self.taken[0]; BATCH_MAX];
        loop {
            // SAFETY: the ring and the descriptors belong to this UMEM.
            let count = unsafe { self.completion.consume(&mut done) };
            self.free.extend_from_slice(&done[..count]);
            if count < BATCH_MAX {
                break;
            }
        }
        let want = (self.fill.nb_free(RING) as usize).min(self.free.len());
        if want >= BATCH_MAX / 4 {
            let from = self.free.len() - want;
            // SAFETY: free frames are in no ring; those that were produced leave the free list.
            let produced = unsafe { self.fill.produce(&self.free[from..]) };
            if produced > 0 {
                self.free.truncate(from);
            }
        }
    }

    /// Copy mode sends only inside a system call, and one call sends at most a budget: again until the ring is empty.
    fn flush(&mut self) -> io::Result<()> {
        for _ in 0..64 {
            if self.tx.nb_free_exact() == RING {
                break;
            }
            self.tx.wakeup()?;
        }
        Ok(())
    }
}

impl XdpIo {
    /// The bytes of one buffer; empty where the descriptor does not lie in one chunk of the memory.
    fn bytes_of(&mut self, at: usize) -> &mut [u8] {
        let descriptor = &mut self.batch[at];
        let end = descriptor.addr().saturating_add(descriptor.lengths().data());
        let chunk_end = (descriptor.addr() / FRAME_BYTES as usize + 1) * FRAME_BYTES as usize;
        if end > chunk_end || end > (FRAMES * FRAME_BYTES) as usize {
            return &mut [];
        }
        // SAFETY: the buffer was handed to us by the rx ring, was checked to lie in one chunk of the UMEM, and is in no ring now.
        let data = unsafe { self.umem.data_mut(descriptor) };
        let (pointer, len) = {
            let mut data = data;
            let contents = data.contents_mut();
            (contents.as_mut_ptr(), contents.len())
        };
        // SAFETY: the same bytes, for as long as self is borrowed; nobody else holds the descriptor.
        unsafe { std::slice::from_raw_parts_mut(pointer, len) }
    }

    /// Gives descriptors to the kernel, all or none. What it does not send at once goes with the next.
    fn produce(&mut self) -> bool {
        // SAFETY: the buffers are ours since the rx ring or the free list gave them, and leave our hands here.
        let sent = unsafe { self.tx.produce(&self.out) };
        if sent < self.out.len() {
            self.free.extend_from_slice(&self.out);
        }
        // where it fails the frames stay in the ring and go with the next batch
        let _ = self.flush();
        sent == self.out.len()
    }

    /// A frame of several buffers in one piece: a copy. Empty where one of them is broken.
    fn gather(&mut self, pieces: Range<usize>) -> &mut [u8] {
        let mut whole = std::mem::take(&mut self.whole);
        whole.clear();
        for at in pieces {
            let bytes = self.bytes_of(at);
            if bytes.is_empty() {
                whole.clear();
                break;
            }
            whole.extend_from_slice(bytes);
        }
        self.whole = whole;
        &mut self.whole
    }
}

impl PacketIo for XdpIo {
    fn receive(&mut self) -> usize {
        self.reclaim();
        debug_assert!(self.frames.is_empty(), "the last batch was committed");
        // SAFETY: the descriptors are overwritten by those of received buffers of this UMEM.
        let received = unsafe { self.rx.consume(&mut self.taken) };
        let mut begin = 0;
        for descriptor in &self.taken[..received] {
            self.batch.push(*descriptor);
            if !descriptor.has_more_frames() {
                self.frames.push(begin..self.batch.len());
                begin = self.batch.len();
            }
        }
        self.frames.len()
    }

    fn frame_mut(&mut self, index: usize) -> &mut [u8] {
        let pieces = self.frames[index].clone();
        if pieces.len() == 1 { self.bytes_of(pieces.start) } else { self.gather(pieces) }
    }

    fn write_header(&mut self, index: usize, header: impl FnOnce(&mut [u8])) {
        let first = self.frames[index].start;
        header(self.bytes_of(first));
    }

    fn commit(&mut self, fates: &[Fate]) -> usize {
        assert_eq!(fates.len(), self.frames.len(), "one fate for each frame");
        self.out.clear();
        let (mut sent_frames, mut used) = (0, 0);
        for (pieces, fate) in self.frames.iter().zip(fates) {
            used = pieces.end;
            let pieces = &mut self.batch[pieces.clone()];
            match fate {
                Fate::Forward => {
                    let last = pieces.len() - 1;
                    for (at, descriptor) in pieces.iter_mut().enumerate() {
                        descriptor.set_options(if at < last { CONTINUED } else { 0 });
                    }
                    self.out.extend_from_slice(pieces);
                    sent_frames += 1;
                }
                Fate::Drop(_) | Fate::Held => self.free.extend_from_slice(pieces),
            }
        }
        self.batch.drain(..used);
        self.frames.clear();
        if self.out.is_empty() {
            return 0;
        }
        if self.produce() { 0 } else { sent_frames }
    }

    fn send(&mut self, frame: &[u8]) -> bool {
        self.reclaim();
        let pieces = frame.len().div_ceil(PIECE_BYTES);
        let Some(from) = self.free.len().checked_sub(pieces).filter(|_| pieces > 0) else { return false };
        self.out.clear();
        self.out.extend(self.free.drain(from..));
        for (at, (descriptor, bytes)) in self.out.iter_mut().zip(frame.chunks(PIECE_BYTES)).enumerate() {
            // SAFETY: the buffer was in the free list, so it is in no ring, and nobody else holds it.
            let mut data = unsafe { self.umem.data_mut(descriptor) };
            let mut cursor = data.cursor();
            cursor.set_pos(0);
            if cursor.write_all(bytes).is_err() {
                self.free.extend_from_slice(&self.out);
                return false;
            }
            descriptor.set_options(if at + 1 < pieces { CONTINUED } else { 0 });
        }
        self.produce()
    }
}
