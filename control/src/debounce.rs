//! When to read a directory that keeps changing: once it is quiet, but not later than a bound, so that a directory
//! that never becomes quiet is still followed.

use std::time::{Duration, Instant};

/// How many quiet periods a change may wait at most.
const WINDOWS_MAX: u32 = 10;

/// Time is an argument, so that the rule can be tested without waiting.
#[derive(Debug)]
pub(crate) struct Debounce {
    window: Duration,
    pending: Option<Pending>,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    first: Instant,
    last: Instant,
}

impl Debounce {
    pub(crate) fn new(window: Duration) -> Self {
        Self { window, pending: None }
    }

    /// Something changed.
    pub(crate) fn changed(&mut self, now: Instant) {
        let first = self.pending.map_or(now, |pending| pending.first);
        self.pending = Some(Pending { first, last: now });
    }

    /// When to read, if anything changed.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.pending.map(|p| (p.last + self.window).min(p.first + self.window * WINDOWS_MAX))
    }

    /// Forgets what was pending because it is read now; returns when the first change was seen.
    pub(crate) fn take(&mut self) -> Option<Instant> {
        self.pending.take().map(|pending| pending.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_read_once_and_a_storm_not_later_than_the_bound() {
        let ms = Duration::from_millis;
        let start = Instant::now();
        let mut debounce = Debounce::new(ms(20));
        assert_eq!(debounce.due(), None);
        debounce.changed(start);
        debounce.changed(start + ms(5));
        assert_eq!(debounce.due(), Some(start + ms(25)));
        for at in (10..1000).step_by(10) {
            debounce.changed(start + ms(at));
        }
        assert_eq!(debounce.due(), Some(start + ms(200)));
        assert_eq!(debounce.take(), Some(start));
        assert_eq!(debounce.due(), None);
    }
}
