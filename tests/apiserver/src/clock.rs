//! The server's clock: the machine's, or one that only moves when it is told to, so that a seed gives the same bytes.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// 2026-01-01T00:00:00Z: where a manual clock begins.
pub const MANUAL_START_S: i64 = 1_767_225_600;

/// Seconds since the epoch.
#[derive(Debug)]
pub enum Clock {
    /// The machine's clock.
    System,
    /// A clock that stands still between calls of [`Clock::advance`].
    Manual(AtomicI64),
}

impl Clock {
    /// A manual clock at [`MANUAL_START_S`].
    pub fn manual() -> Self {
        Self::Manual(AtomicI64::new(MANUAL_START_S))
    }

    /// Now, in seconds since the epoch.
    pub fn now_s(&self) -> i64 {
        match self {
            Self::System => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs() as i64),
            // Relaxed: the value stands alone, it publishes nothing else.
            Self::Manual(now_s) => now_s.load(Ordering::Relaxed),
        }
    }

    /// Moves a manual clock; the machine's clock stays as it is.
    pub fn advance(&self, seconds: i64) {
        if let Self::Manual(now_s) = self {
            now_s.fetch_add(seconds, Ordering::Relaxed);
        }
    }
}

/// `2026-11-21T01:34:20Z`, as in `metadata.creationTimestamp`.
pub(crate) fn rfc3339(epoch_s: i64) -> String {
    let at = Civil::of(epoch_s);
    format!("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", at.year, at.month, at.day, at.hour, at.minute, at.second)
}

/// `Sat, 21 Nov 2026 01:34:18 GMT`, as in the `Date` header.
pub(crate) fn http_date(epoch_s: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let at = Civil::of(epoch_s);
    let day = DAYS[epoch_s.div_euclid(86_400).rem_euclid(7) as usize];
    let month = MONTHS[at.month as usize - 1];
    format!("{day}, {:02} {month} {:04} {:02}:{:02}:{:02} GMT", at.day, at.year, at.hour, at.minute, at.second)
}

/// A point of time as a calendar writes it, UTC.
struct Civil {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Civil {
    /// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
    fn of(epoch_s: i64) -> Self {
        let (days, second_of_day) = (epoch_s.div_euclid(86_400), epoch_s.rem_euclid(86_400));
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        Self {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month,
            day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
            hour: second_of_day / 3_600,
            minute: second_of_day / 60 % 60,
            second: second_of_day % 60,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_the_server_writes_them() {
        assert_eq!(rfc3339(MANUAL_START_S), "2026-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_795_224_858), "2026-11-21T01:34:18Z");
        assert_eq!(http_date(1_795_224_858), "Sat, 21 Nov 2026 01:34:18 GMT");
        assert_eq!(http_date(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual();
        clock.advance(5);
        assert_eq!(clock.now_s(), MANUAL_START_S + 5);
    }
}
