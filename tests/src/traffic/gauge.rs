//! What arrived, when, and how long it was silent in between; read while traffic runs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Nanoseconds since this process first asked.
pub fn now_ns() -> u64 {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    BEGIN.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// Arrivals of one receiver. One thread notes, others read; each value stands alone, hence Relaxed throughout.
#[derive(Debug, Default)]
pub struct Gauge {
    arrived: AtomicU64,
    last_ns: AtomicU64,
    longest_silence_ns: AtomicU64,
}

impl Gauge {
    /// So many more packets or bytes arrived just now.
    pub fn note(&self, more: u64) {
        let now = now_ns();
        let last = self.last_ns.swap(now, Ordering::Relaxed);
        if last != 0 {
            self.longest_silence_ns.fetch_max(now.saturating_sub(last), Ordering::Relaxed);
        }
        self.arrived.fetch_add(more, Ordering::Relaxed);
    }

    /// Packets or bytes so far.
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// When the last one arrived, by [`now_ns`]; 0 before the first.
    pub fn last_ns(&self) -> u64 {
        self.last_ns.load(Ordering::Relaxed)
    }

    /// The longest time between two arrivals.
    pub fn longest_silence(&self) -> Duration {
        Duration::from_nanos(self.longest_silence_ns.load(Ordering::Relaxed))
    }

    /// Forgets the silences so far.
    pub fn restart_silence(&self) {
        self.longest_silence_ns.store(0, Ordering::Relaxed);
    }

    /// How many arrive while we wait.
    pub fn during(&self, time: Duration) -> u64 {
        let before = self.arrived();
        std::thread::sleep(time);
        self.arrived() - before
    }
}

/// Tells threads to end: when asked, and when a failing test drops it.
#[derive(Debug, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(super) fn now(&self) {
        // Relaxed: a lone flag; the threads are joined afterwards
        self.0.store(true, Ordering::Relaxed);
    }

    /// For the thread to look at.
    pub(super) fn flag(&self) -> Arc<AtomicBool> {
        self.0.clone()
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.now();
    }
}
