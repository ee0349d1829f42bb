//! All that goes wrong with one request, sorted by where it happens.

use super::{Fault, StreamFaults};
use crate::http::wire::WireFaults;
use crate::status::ApiError;
use std::time::Duration;

/// An answer instead of the right one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Status(ApiError),
    Hang,
    Close,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) answer: Option<Answer>,
    pub(crate) delay: Duration,
    pub(crate) wire: WireFaults,
    pub(crate) stream: StreamFaults,
    pub(crate) chunk_max_bytes: Option<usize>,
    pub(crate) clock_skew_s: i64,
    pub(crate) no_streaming_lists: bool,
}

impl Plan {
    pub(super) fn add(&mut self, fault: &Fault) {
        match *fault {
            Fault::Status { code, retry_after_s } => self.answer = Some(Answer::Status(ApiError::of_code(code, retry_after_s))),
            Fault::Hang => self.answer = Some(Answer::Hang),
            Fault::Close => self.answer = Some(Answer::Close),
            Fault::DelayMs(milliseconds) => self.delay = Duration::from_millis(milliseconds),
            Fault::CloseAfterBytes(bytes) => self.wire.close_after_bytes = Some(bytes),
            Fault::ResetAfterBytes(bytes) => self.wire.reset_after_bytes = Some(bytes),
            Fault::Slow(bytes_per_second) => self.wire.bytes_per_second = Some(bytes_per_second),
            Fault::ChunkBytes(bytes) => self.chunk_max_bytes = Some(bytes.max(1)),
            Fault::ClockSkewS(seconds) => self.clock_skew_s += seconds,
            Fault::NoStreamingLists => self.no_streaming_lists = true,
            Fault::ExpireAfter(events) => self.stream.expire_after = Some(events),
            Fault::EndAfter(events) => self.stream.end_after = Some(events),
            Fault::CutInEvent(event) => self.stream.cut_in = Some(event),
            Fault::Duplicate(event) => self.stream.duplicate = Some(event),
            Fault::Swap(event) => self.stream.swap = Some(event),
            Fault::DropBookmarks => self.stream.drop_bookmarks = true,
            Fault::Silent => self.stream.silent = true,
        }
    }
}
