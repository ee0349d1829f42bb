//! Response heads, bodies and chunks.

use super::wire::{Hangup, Wire};
use crate::clock::http_date;
use crate::status::ApiError;
use serde_json::Value;

/// Bodies up to this size get a Content-Length, larger ones are chunked, as Go's server does it.
const BUFFERED_MAX_BYTES: usize = 2048;
/// Chunks are collected up to this size before they are sent.
const FLUSH_BYTES: usize = 64 * 1024;

pub(crate) const JSON: &str = "application/json";
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

/// What the heads of all answers to one request say.
#[derive(Debug, Clone)]
pub(crate) struct Stamp {
    pub(crate) audit_id: String,
    pub(crate) date_s: i64,
    /// Whether the answer ends the connection.
    pub(crate) close: bool,
    /// Largest chunk of the body, for the fault that cuts events into several.
    pub(crate) chunk_max_bytes: Option<usize>,
}

/// Writes one response.
pub(crate) struct Responder<'a> {
    wire: Wire<'a>,
    stamp: Stamp,
    out: Vec<u8>,
}

impl<'a> Responder<'a> {
    pub(crate) fn new(wire: Wire<'a>, stamp: Stamp) -> Self {
        Self { wire, stamp, out: Vec::new() }
    }

    /// A whole response.
    pub(crate) async fn body(&mut self, code: u16, content_type: &str, extra: &[(&str, String)], body: &[u8]) -> Result<(), Hangup> {
        if body.len() > BUFFERED_MAX_BYTES {
            self.begin(code, content_type, extra);
            self.chunk(body).await?;
            return self.finish().await;
        }
        let length = ("Content-Length", body.len().to_string());
        self.head(code, content_type, extra, &length);
        self.out.extend_from_slice(body);
        self.flush().await
    }

    pub(crate) async fn json(&mut self, code: u16, value: &Value) -> Result<(), Hangup> {
        self.body(code, JSON, &[], format!("{value}\n").as_bytes()).await
    }

    pub(crate) async fn error(&mut self, error: &ApiError) -> Result<(), Hangup> {
        let retry = error.retry_after_s().map(|seconds| ("Retry-After", seconds.to_string()));
        let extra: Vec<_> = retry.into_iter().collect();
        self.body(error.code, JSON, &extra, format!("{}\n", error.to_status()).as_bytes()).await
    }

    /// Begins a chunked response; [`Responder::chunk`] and [`Responder::finish`] follow.
    pub(crate) fn begin(&mut self, code: u16, content_type: &str, extra: &[(&str, String)]) {
        self.head(code, content_type, extra, &("Transfer-Encoding", "chunked".to_owned()));
    }

    /// Adds a chunk; it may wait for [`Responder::flush`].
    pub(crate) async fn chunk(&mut self, bytes: &[u8]) -> Result<(), Hangup> {
        for part in bytes.chunks(self.stamp.chunk_max_bytes.unwrap_or(usize::MAX)) {
            self.out.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
            self.out.extend_from_slice(part);
            self.out.extend_from_slice(b"\r\n");
            if self.out.len() >= FLUSH_BYTES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Sends the first half of a chunk and hangs up.
    pub(crate) async fn half_chunk(&mut self, bytes: &[u8]) -> Hangup {
        self.out.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
        self.out.extend_from_slice(&bytes[..bytes.len() / 2]);
        // Whether the half arrives is as uncertain as with a real crash.
        let _ = self.flush().await;
        Hangup
    }

    pub(crate) async fn finish(&mut self) -> Result<(), Hangup> {
        self.out.extend_from_slice(b"0\r\n\r\n");
        self.flush().await
    }

    pub(crate) async fn flush(&mut self) -> Result<(), Hangup> {
        let sent = self.wire.send(&self.out).await;
        self.out.clear();
        sent
    }

    /// Sends bytes as they are, outside of any framing.
    pub(crate) async fn raw(&mut self, bytes: &[u8]) -> Result<(), Hangup> {
        self.wire.send(bytes).await
    }

    /// Resolves when the client is gone.
    pub(crate) async fn client_gone(&mut self) {
        self.wire.client_gone().await;
    }

    fn head(&mut self, code: u16, content_type: &str, extra: &[(&str, String)], framing: &(&str, String)) {
        let Stamp { audit_id, date_s, close, .. } = &self.stamp;
        let mut head = format!(
            "HTTP/1.1 {code} {}\r\nAudit-Id: {audit_id}\r\nCache-Control: no-cache, private\r\nContent-Type: {content_type}\r\n",
            reason_phrase(code)
        );
        let mut line = |name: &str, value: &str| head.extend([name, ": ", value, "\r\n"]);
        extra.iter().for_each(|(name, value)| line(name, value));
        if code != 401 {
            line("X-Kubernetes-Pf-Flowschema-Uid", "a68f15f3-d5ff-4963-a0ed-5277f4900003");
            line("X-Kubernetes-Pf-Prioritylevel-Uid", "0cb1c2ab-ad6d-48ad-9972-b5a688229197");
        }
        line("Date", &http_date(*date_s));
        line(framing.0, &framing.1);
        if *close {
            line("Connection", "close");
        }
        head.push_str("\r\n");
        self.out.extend_from_slice(head.as_bytes());
    }
}

fn reason_phrase(code: u16) -> &'static str {
    match code {
        200 => "OK",
        201 => "Created",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        409 => "Conflict",
        410 => "Gone",
        413 => "Request Entity Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Entity",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Unknown",
    }
}
