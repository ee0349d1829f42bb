//! One question to the dataplane, one answer, with the failures of each kept apart: not there, broken, refused.

use crate::error::{CniError, Code};
use sluice_wire::{Connection, FromDataplane, ToDataplane, WireError};
use std::io;
use std::path::Path;
use std::time::Duration;

/// How long an answer may take that needs no new table.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Connects, asks and waits at most `patience`.
///
/// # Errors
/// Try again later when nobody listens or answers in time, I/O when the connection breaks, refused with the
/// dataplane's own words when it answers [`FromDataplane::Failed`].
pub(crate) fn ask(socket: &Path, question: &ToDataplane, patience: Duration) -> Result<FromDataplane, CniError> {
    let unreachable = |e: WireError| CniError::new(Code::TryAgainLater, "the dataplane cannot be reached", e.to_string());
    let broken = |e: WireError| match e {
        WireError::Io(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            let details = format!("no answer within {} ms", patience.as_millis());
            CniError::new(Code::TryAgainLater, "the dataplane does not answer", details)
        }
        other => CniError::io("the dataplane's answer was lost", other),
    };
    let mut connection = Connection::connect(socket).map_err(unreachable)?;
    connection.set_receive_timeout(Some(patience)).map_err(broken)?;
    connection.set_send_timeout(Some(ANSWER_MAX)).map_err(broken)?;
    match connection.call(question).map_err(broken)? {
        (FromDataplane::Failed { reason }, _) => Err(CniError::new(Code::Refused, "refused by the dataplane", reason)),
        (answer, _) => Ok(answer),
    }
}

/// The answer was valid but belongs to another question.
pub(crate) fn unexpected(answer: &FromDataplane) -> CniError {
    let details = serde_json::to_string(answer).unwrap_or_else(|e| e.to_string());
    CniError::io("the dataplane answered another question", details)
}
