//! Recordings of a real server: read from their archive, served byte by byte, or fed into a store.

mod archive;
mod capture;
mod feed;
mod recording;
mod serve;

pub use archive::RecordingError;
pub use capture::{Capture, WatchEvent};
pub use feed::Feed;
pub use recording::{History, Recording};
pub(crate) use serve::Replay;
pub use serve::Speed;
