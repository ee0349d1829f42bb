//! One client connection: plain or TLS, with the bytes that came ahead of their turn.

use super::request::{Framing, Request, RequestError, parse_head};
use super::{BODY_MAX_BYTES, HEAD_MAX_BYTES};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A stream whose TCP socket can be reached, for resets.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send {
    fn tcp(&self) -> &TcpStream;
}

impl Transport for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Transport for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

pub(crate) struct Connection {
    transport: Box<dyn Transport>,
    /// Bytes that were read and not used yet: the rest of a request, or requests sent ahead.
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(transport: Box<dyn Transport>) -> Self {
        Self { transport, buffer: Vec::new() }
    }

    /// The next request; `None` when the client is done.
    pub(crate) async fn request(&mut self) -> Result<Option<Request>, RequestError> {
        let (mut request, framing, head_bytes) = loop {
            if let Some(parsed) = parse_head(&self.buffer)? {
                break parsed;
            }
            if self.buffer.len() > HEAD_MAX_BYTES {
                return Err(RequestError::HeadTooLarge);
            }
            if self.fill().await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(RequestError::Truncated) };
            }
        };
        self.buffer.drain(..head_bytes);
        if request.expects_continue && self.buffer.is_empty() {
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        request.body = match framing {
            Framing::Length(bytes) => self.take(bytes).await?,
            Framing::Chunked => self.chunks().await?,
        };
        Ok(Some(request))
    }

    async fn chunks(&mut self) -> Result<Vec<u8>, RequestError> {
        let mut body = Vec::new();
        loop {
            let (header_bytes, chunk_bytes) = loop {
                match httparse::parse_chunk_size(&self.buffer).map_err(|_| RequestError::Malformed("chunk size"))? {
                    httparse::Status::Complete((header, chunk)) => break (header, chunk as usize),
                    httparse::Status::Partial => self.more().await?,
                }
            };
            if body.len().saturating_add(chunk_bytes) > BODY_MAX_BYTES {
                return Err(RequestError::BodyTooLarge);
            }
            self.buffer.drain(..header_bytes);
            body.extend(self.take(chunk_bytes).await?);
            if self.take(2).await? != b"\r\n" {
                return Err(RequestError::Malformed("chunk end"));
            }
            if chunk_bytes == 0 {
                return Ok(body);
            }
        }
    }

    async fn take(&mut self, bytes: usize) -> Result<Vec<u8>, RequestError> {
        if bytes > BODY_MAX_BYTES {
            return Err(RequestError::BodyTooLarge);
        }
        while self.buffer.len() < bytes {
            self.more().await?;
        }
        Ok(self.buffer.drain(..bytes).collect())
    }

    async fn more(&mut self) -> Result<(), RequestError> {
        if self.fill().await? == 0 { Err(RequestError::Truncated) } else { Ok(()) }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.transport.read_buf(&mut self.buffer).await
    }

    /// Resolves when the client is gone. Requests that it sends ahead are kept, up to the limits of one.
    pub(crate) async fn client_gone(&mut self) {
        while self.buffer.len() <= HEAD_MAX_BYTES + BODY_MAX_BYTES {
            if !matches!(self.fill().await, Ok(read) if read > 0) {
                return;
            }
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.transport.write_all(bytes).await?;
        self.transport.flush().await
    }

    /// Ends the connection in order.
    pub(crate) async fn shutdown(&mut self) {
        // The client may be gone already, and then there is nobody to tell.
        let _ = self.transport.shutdown().await;
    }

    /// Makes the coming drop a reset instead of an orderly end.
    pub(crate) fn arm_reset(&self) -> io::Result<()> {
        self.transport.tcp().set_zero_linger()
    }
}
