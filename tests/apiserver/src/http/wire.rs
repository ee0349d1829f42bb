//! Bytes to the client, under the faults that cut, reset and slow them.

use super::connection::Connection;
use std::time::Duration;

/// How often a slow stream gets its share of bytes.
const SLICE: Duration = Duration::from_millis(20);

/// Faults below HTTP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct WireFaults {
    /// Close the connection after this many bytes of the response, head included.
    pub(crate) close_after_bytes: Option<usize>,
    /// Reset it after this many.
    pub(crate) reset_after_bytes: Option<usize>,
    /// Send no faster than this.
    pub(crate) bytes_per_second: Option<u32>,
}

/// No more bytes: the client left, or a fault ended the connection. Nothing is owed to the client any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hangup;

pub(crate) struct Wire<'a> {
    connection: &'a mut Connection,
    faults: WireFaults,
    sent_bytes: usize,
}

impl<'a> Wire<'a> {
    pub(crate) fn new(connection: &'a mut Connection, faults: WireFaults) -> Self {
        Self { connection, faults, sent_bytes: 0 }
    }

    /// Sends all of `bytes`, or as many as the faults let through.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), Hangup> {
        let ends = [self.faults.close_after_bytes, self.faults.reset_after_bytes].into_iter().flatten().min();
        let allowed = ends.map_or(bytes.len(), |end| bytes.len().min(end.saturating_sub(self.sent_bytes)));
        self.send_paced(&bytes[..allowed]).await?;
        self.sent_bytes += allowed;
        if ends.is_some_and(|end| self.sent_bytes >= end) {
            return Err(if self.faults.reset_after_bytes == ends { self.reset() } else { Hangup });
        }
        Ok(())
    }

    async fn send_paced(&mut self, bytes: &[u8]) -> Result<(), Hangup> {
        let Some(bytes_per_second) = self.faults.bytes_per_second else {
            return self.connection.send(bytes).await.map_err(|_| Hangup);
        };
        let slice_bytes = (bytes_per_second as usize * SLICE.as_millis() as usize / 1000).max(1);
        let pause = SLICE.max(Duration::from_secs(1) / bytes_per_second.max(1));
        for slice in bytes.chunks(slice_bytes) {
            self.connection.send(slice).await.map_err(|_| Hangup)?;
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    /// Ends the connection by a reset.
    pub(crate) fn reset(&self) -> Hangup {
        if let Err(error) = self.connection.arm_reset() {
            tracing::warn!(%error, "no reset: the socket refused SO_LINGER");
        }
        Hangup
    }

    /// Resolves when the client is gone.
    pub(crate) async fn client_gone(&mut self) {
        self.connection.client_gone().await;
    }
}
