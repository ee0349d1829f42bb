//! Target `sockets`: a peer's bytes through the real connection, over a socket pair.
//!
//! The first byte says which of the four messages is expected, whether the bytes are a stream of their own or the body of
//! one message with its true length before it, and into how large pieces they are cut.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_wire::{Connection, FromControl, FromDataplane, ToControl, ToDataplane, WireError};
use std::fmt::Debug;
use std::io::Write;
use std::os::unix::net::UnixStream;

/// Of a peer that announces much and sends little: the connection's buffer, and messages of at most this input.
const MEMORY_MAX: usize = 8 << 20;
/// What a socket takes without a reader.
const STREAM_BYTES_MAX: usize = 64 << 10;

/// Of a long stream, so that one run takes no more than some milliseconds.
const PIECES_MAX: usize = 256;

/// Receives everything in one piece and in many, and compares.
pub fn check(data: &[u8]) {
    let Some((&how, body)) = data.split_first() else { return };
    let body = &body[..body.len().min(STREAM_BYTES_MAX)];
    let stream = if how & 4 == 0 { [&(body.len() as u32).to_le_bytes(), body].concat() } else { body.to_vec() };
    let piece_bytes = [1, 3, 7, 64, 1000, 16_384, 16_385, STREAM_BYTES_MAX][usize::from(how >> 3 & 7)];
    match how & 3 {
        0 => check_as::<ToDataplane>(&stream, piece_bytes),
        1 => check_as::<FromDataplane>(&stream, piece_bytes),
        2 => check_as::<ToControl>(&stream, piece_bytes),
        _ => check_as::<FromControl>(&stream, piece_bytes),
    }
}

fn check_as<T: Serialize + DeserializeOwned + Debug>(stream: &[u8], piece_bytes: usize) {
    crate::memory::bounded(MEMORY_MAX, || {
        let whole = receive::<T>(stream, STREAM_BYTES_MAX + 4);
        let pieces = receive::<T>(stream, piece_bytes);
        assert_eq!(format!("{whole:?}"), format!("{pieces:?}"), "pieces of {piece_bytes}");
        assert!(!whole.1.is_empty(), "the end has a reason");
        whole.0.iter().for_each(round_trip);
    });
}

/// The messages before the end, and the end's reason.
fn receive<T: DeserializeOwned>(stream: &[u8], piece_bytes: usize) -> (Vec<T>, String) {
    let (mut peer, ours) = UnixStream::pair().expect("a socket pair");
    let mut connection = Connection::new(ours);
    connection.set_nonblocking(true).expect("a socket");
    let mut messages = Vec::new();
    for piece in stream.chunks(piece_bytes.max(stream.len() / PIECES_MAX)) {
        peer.write_all(piece).expect("the socket has room");
        if let Err(end) = drain(&mut connection, &mut messages) {
            return (messages, end.to_string());
        }
    }
    drop(peer);
    let end = drain(&mut connection, &mut messages).expect_err("nobody is there any more");
    (messages, end.to_string())
}

fn drain<T: DeserializeOwned>(connection: &mut Connection, messages: &mut Vec<T>) -> Result<(), WireError> {
    while let Some((message, fd)) = connection.recv()? {
        assert!(fd.is_none(), "nobody sent a descriptor");
        messages.push(message);
    }
    Ok(())
}

/// What was understood can be said again and is understood alike.
fn round_trip<T: Serialize + DeserializeOwned>(message: &T) {
    let said = serde_json::to_value(message).expect("plain data");
    let again: T = serde_json::from_value(said.clone()).unwrap_or_else(|error| panic!("{said}: {error}"));
    assert_eq!(serde_json::to_value(&again).expect("plain data"), said);
}
