//! HTTP/1.1 by hand, because faults need every byte, chunk and reset in hand.
//!
//! [`connection`] reads requests off a socket, [`wire`] sends bytes under the faults of the request, [`response`] makes
//! heads and chunks of them.

pub(crate) mod connection;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod wire;

/// A request head may have this many bytes.
pub(crate) const HEAD_MAX_BYTES: usize = 64 * 1024;
/// A request body may have this many bytes; the real server's limit.
pub(crate) const BODY_MAX_BYTES: usize = 3 * 1024 * 1024;
/// A request may have this many headers.
pub(crate) const HEADERS_MAX: usize = 100;
