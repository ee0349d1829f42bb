//! Waiting: for a change in a directory, for time, for a signal, whichever is first.

use super::edit::PLUGIN;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// A look without an event, should one have been lost.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Where there is no watch: the directory is not there yet, or the kernel has no more watches to give.
const LOOK_EVERY_UNWATCHED: Duration = Duration::from_secs(1);

/// Why a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woken {
    /// Something in the directories changed.
    Change,
    /// The time is over, or it is time for a look.
    Time,
    /// SIGTERM or SIGINT.
    Stop,
}

/// The directories, watched.
pub(super) struct Waiter {
    events: Receiver<Woken>,
    dirs: Vec<PathBuf>,
    watcher: Option<RecommendedWatcher>,
    watched: bool,
}

impl Waiter {
    /// Begins to watch. Whatever cannot be watched is looked at from time to time.
    pub(super) fn new(dirs: Vec<PathBuf>) -> Self {
        let (sender, events) = channel();
        let changes = sender.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                let _ = changes.send(Woken::Change);
            }
        });
        match Signals::new([SIGTERM, SIGINT]) {
            Ok(mut signals) => {
                std::thread::spawn(move || signals.forever().try_for_each(|_| sender.send(Woken::Stop)));
            }
            Err(error) => eprintln!("{PLUGIN}: cannot wait for signals: {error}"),
        }
        let mut waiter = Self { events, dirs, watcher: watcher.ok(), watched: false };
        waiter.watched = waiter.watch();
        waiter
    }

    /// Each time anew: a directory may have been replaced, and where there is a watch already this changes nothing.
    fn watch(&mut self) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        self.dirs.iter().all(|dir| watcher.watch(dir, RecursiveMode::NonRecursive).is_ok())
    }

    /// Waits, at most for so long.
    pub(super) fn wait(&mut self, limit: Duration) -> Woken {
        let watched_before = self.watched;
        self.watched = self.watch();
        if self.watched && !watched_before {
            // what changed until now went unseen
            return Woken::Change;
        }
        let limit = limit.min(if self.watched { LOOK_EVERY } else { LOOK_EVERY_UNWATCHED });
        match self.events.recv_timeout(limit) {
            Ok(woken) => woken,
            Err(RecvTimeoutError::Timeout) => Woken::Time,
            // neither watch nor signals: only time is left
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(limit);
                Woken::Time
            }
        }
    }

    /// Waits for so long whatever changes.
    pub(super) fn rest(&mut self, time: Duration) -> Woken {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Woken::Time;
            }
            if self.wait(left) == Woken::Stop {
                return Woken::Stop;
            }
        }
    }
}
