//! When to take up what keeps changing: once it is quiet, but not later than a bound, so that a source that never becomes
//! quiet is still followed.

use std::time::{Duration, Instant};

/// Time is an argument, so that the rule can be tested without waiting.
#[derive(Debug)]
pub(crate) struct Debounce {
    quiet: Duration,
    wait_max: Duration,
    pending: Option<Pending>,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    first: Instant,
    last: Instant,
}

impl Debounce {
    /// A change waits until nothing changed for `quiet`, and never longer than `wait_max`.
    pub(crate) fn new(quiet: Duration, wait_max: Duration) -> Self {
        Self { quiet, wait_max, pending: None }
    }

    /// Something changed.
    pub(crate) fn changed(&mut self, now: Instant) {
        let first = self.pending.map_or(now, |pending| pending.first);
        self.pending = Some(Pending { first, last: now });
    }

    /// When to read, if anything changed.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.pending.map(|p| (p.last + self.quiet).min(p.first + self.wait_max))
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
        let mut debounce = Debounce::new(ms(20), ms(200));
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
