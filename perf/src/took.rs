//! How long something took, by two clocks.

use crate::environment::process_time;
use serde::Serialize;
use std::time::Instant;

/// How long something took by the wall's clock, and how much time all threads of this process spent on CPUs meanwhile:
/// work that is spread over threads is not made to look cheaper.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Took {
    pub(crate) wall_ms: f64,
    pub(crate) cpu_ms: f64,
}

impl Took {
    /// Does `work` and says how long it took.
    pub(crate) fn of<T>(work: impl FnOnce() -> T) -> (T, Self) {
        let (cpu, wall) = (process_time(), Instant::now());
        let result = work();
        let (wall, cpu) = (wall.elapsed(), process_time().saturating_sub(cpu));
        (result, Self { wall_ms: wall.as_secs_f64() * 1e3, cpu_ms: cpu.as_secs_f64() * 1e3 })
    }

    /// One after the other.
    pub(crate) fn and(self, next: Self) -> Self {
        Self { wall_ms: self.wall_ms + next.wall_ms, cpu_ms: self.cpu_ms + next.cpu_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn sleep_is_time_of_the_wall_only() {
        let ((), slept) = Took::of(|| std::thread::sleep(Duration::from_millis(60)));
        assert!(slept.wall_ms >= 60.0, "{slept:?}");
        let twice = slept.and(slept);
        assert_eq!((twice.wall_ms, twice.cpu_ms), (slept.wall_ms * 2.0, slept.cpu_ms * 2.0));
    }

    #[test]
    fn work_of_other_threads_counts() {
        let work = || {
            let start = crate::environment::thread_time();
            while crate::environment::thread_time().saturating_sub(start) < Duration::from_millis(30) {
                std::hint::spin_loop();
            }
        };
        let ((), took) = Took::of(|| std::thread::scope(|scope| drop([scope.spawn(work), scope.spawn(work)].map(|t| t.join()))));
        assert!(took.cpu_ms >= 60.0, "{took:?}");
    }
}
