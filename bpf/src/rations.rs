//! What the programs may begin by themselves, and what they tell of it: each port's room and share, and the workers' rings.

use crate::abi::{self, ENDINGS_MAX, Ending, OPENING_ADMITTED, OPENINGS_BYTES, Opening, Ration};
use crate::load::Loaded;
use crate::ring::Ring;
use libbpf_rs::{MapCore, ProgramInput};
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::Ordering;

impl Loaded {
    /// Gives each worker a ring for what the programs tell it, in place of an earlier process's. Nothing is admitted before a
    /// worker grants room; what was admitted until now has been written when this returns, so that a scan of the cache finds it.
    ///
    /// # Errors
    /// The kernel's reason.
    ///
    /// # Panics
    /// When a worker has one already.
    pub fn open_rings(&self, workers: u32) -> io::Result<()> {
        (0..abi::PORTS_MAX).for_each(|index| self.withdraw(index));
        for worker in 0..workers {
            let ring = Ring::create(OPENINGS_BYTES)?;
            let fd = ring.as_fd().as_raw_fd() as u32;
            // the kernel waits here for every program that looked at what was there before, also at the ports' room
            let map = &self.skeleton.maps.openings;
            map.update(&worker.to_ne_bytes(), &fd.to_ne_bytes(), libbpf_rs::MapFlags::ANY).map_err(io::Error::other)?;
            self.rings[worker as usize].set(ring).expect("a worker has one ring");
        }
        for index in 0..abi::PORTS_MAX {
            let made = self.rations.read(index).made;
            // Relaxed: nothing is made meanwhile
            self.rations.word(index, offset_of!(Ration, learned)).store(made, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes back what a port may still admit.
    fn withdraw(&self, index: usize) {
        let made = self.rations.read(index).made;
        // Relaxed: whoever has seen the room before is one of those that a worker hears of
        self.rations.word(index, offset_of!(Ration, may)).store(made, Ordering::Relaxed);
    }

    /// Lets a port begin anew: nothing is on its account, and it may admit nothing until its worker grants room.
    pub fn reset_ration(&self, index: usize) {
        self.withdraw(index);
        let (accounts, moments) = (0..offset_of!(Ration, made), offset_of!(Ration, asked_until_ns)..size_of::<Ration>());
        for offset in accounts.chain(moments).step_by(4) {
            // Relaxed: statistics, and a moment that is over
            self.rations.word(index, offset).store(0, Ordering::Relaxed);
        }
    }

    /// Has the programs drop a port's new connections until then where it has no room left, and one ask each time after it; 0 ends that.
    pub fn set_full(&self, index: usize, until_ns: u64) {
        // Relaxed: nothing hangs on its order; whole, since the programs exchange it for a later one
        self.rations.long(index, offset_of!(Ration, full_until_ns)).store(until_ns, Ordering::Relaxed);
    }

    /// Lets the programs hold so many connections of a port that its worker has not heard of.
    pub fn grant(&self, index: usize, room: u32) {
        // Relaxed: an older reading grants less
        let learned = self.rations.word(index, offset_of!(Ration, learned)).load(Ordering::Relaxed);
        // Relaxed: the programs count by it, nothing hangs on its order
        self.rations.word(index, offset_of!(Ration, may)).store(learned.wrapping_add(room), Ordering::Relaxed);
    }

    /// A worker's ring, once it has one.
    pub fn ring(&self, worker: u32) -> Option<&Ring> {
        self.rings.get(worker as usize)?.get()
    }

    /// What the programs told a worker and it has not heard yet; see [`Ring::consume`].
    pub fn openings(&self, worker: u32, mut each: impl FnMut(Opening)) {
        let Some(ring) = self.ring(worker) else { return };
        ring.consume(|opening: Opening| {
            if opening.kind == OPENING_ADMITTED && usize::from(opening.key.port) < abi::PORTS_MAX {
                // Relaxed: `grant` reads it in this thread, or a moment later
                self.rations.word(opening.key.port.into(), offset_of!(Ration, learned)).fetch_add(1, Ordering::Relaxed);
            }
            each(opening);
        });
    }

    /// Takes connections that closed out of the cache, each with both entries, [`ENDINGS_MAX`] at most, and says what they counted; one
    /// on whose ports another one has begun since stays. Cost: one system call.
    ///
    /// # Errors
    /// The kernel's reason; then nothing is said of any.
    pub fn end(&self, worker: u32, closed: &mut [Ending]) -> io::Result<()> {
        let first = worker as usize * ENDINGS_MAX;
        assert!(closed.len() <= ENDINGS_MAX, "{} endings", closed.len());
        closed.iter().zip(first..).for_each(|(ending, index)| self.endings.write(index, *ending));
        let mut what = [first as u32, closed.len() as u32];
        let input = ProgramInput { context_in: Some(bytemuck::bytes_of_mut(&mut what)), ..ProgramInput::default() };
        self.skeleton.progs.end.test_run(input).map_err(io::Error::other)?;
        closed.iter_mut().zip(first..).for_each(|(ending, index)| *ending = self.endings.read(index));
        Ok(())
    }
}
