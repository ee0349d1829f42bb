//! Numbers and switches of a server.

use std::time::Duration;

/// What a server does when neither the request nor a fault says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Time between the bookmarks of a watch that asked for them.
    pub(crate) bookmark_interval: Duration,
    /// Length of a watch that names none.
    pub(crate) watch_timeout: Duration,
    /// Whether `sendInitialEvents` is served.
    pub(crate) streaming_lists: bool,
    /// Whether a watch from a version that is gone is refused with 410 as its status, instead of ended with an event.
    pub(crate) expiry_as_status: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bookmark_interval: Duration::from_secs(60),
            watch_timeout: Duration::from_secs(1800),
            streaming_lists: true,
            expiry_as_status: false,
        }
    }
}
