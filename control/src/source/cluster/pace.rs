//! How long to wait for a server, and between two tries.

use std::time::Duration;

/// See the module. The default suits a real server; tests with a thousand broken ones are in more of a hurry.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// After the first failure; it doubles from there, and half of it is drawn at random.
    pub retry_min: Duration,
    /// The longest delay between two tries.
    pub retry_max: Duration,
    /// Where a server asks for a pause and does not say how long.
    pub pause: Duration,
    /// A connection must be there after so long.
    pub connect_max: Duration,
    /// A server sends bookmarks every minute; what says nothing for longer is asked again.
    pub silence_max: Duration,
    /// A streamed list that says nothing for so long will not end: servers before 1.27 ignore the request for one.
    pub list_silence_max: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_secs(30),
            pause: Duration::from_secs(1),
            connect_max: Duration::from_secs(10),
            silence_max: Duration::from_secs(100),
            list_silence_max: Duration::from_secs(30),
        }
    }
}

impl Pace {
    /// What an answer of that status asks for at least.
    pub(super) fn pause(&self, code: u16, asked_s: Option<u32>) -> Duration {
        match asked_s.filter(|seconds| *seconds > 0) {
            Some(seconds) => Duration::from_secs(seconds.into()).min(self.retry_max),
            None if matches!(code, 429 | 503 | 504) => self.pause,
            None => Duration::ZERO,
        }
    }
}
