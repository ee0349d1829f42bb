//! One end of a socket: whole messages in, whole messages out, a file descriptor with either.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_flow::limits::MESSAGE_BYTES_MAX;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a message could not be exchanged. The connection is useless afterwards.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("cannot connect to {path}: {source}")]
    /// Nobody listens, or permission is missing.
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    #[error("socket: {0}")]
    /// The system's reason.
    Io(#[from] io::Error),
    #[error("message of {len} bytes exceeds the limit of {max}")]
    /// The peer is broken or is not ours.
    TooLong {
        /// Announced.
        len: usize,
        /// [`MESSAGE_BYTES_MAX`].
        max: usize,
    },
    #[error("message not understood: {0}")]
    /// Not JSON of the expected form.
    Format(#[from] serde_json::Error),
    #[error("the other side closed the connection")]
    /// End of stream.
    Closed,
}

/// Who is at the other end, from the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Its process; 0 where that is in another container, whose numbers mean nothing here.
    pub pid: i32,
    /// Its effective user; 0 is root.
    pub uid: u32,
}

/// A connected socket. `recv` returns `Ok(None)` only in non-blocking mode, when no whole message is there yet.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    received: Vec<u8>,
    fd: Option<OwnedFd>,
}

const HEADER: usize = 4;

impl Connection {
    /// Connects to a listening socket.
    pub fn connect(path: &Path) -> Result<Self, WireError> {
        let stream = UnixStream::connect(path).map_err(|source| WireError::Connect { path: path.into(), source })?;
        Ok(Self::new(stream))
    }

    /// Wraps a connected stream.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, received: Vec::new(), fd: None }
    }

    /// Blocking or not; see [`Connection::recv`].
    pub fn set_nonblocking(&self, on: bool) -> Result<(), WireError> {
        Ok(self.stream.set_nonblocking(on)?)
    }

    /// Bounds a blocking receive; a time-out is an [`WireError::Io`] of kind `WouldBlock`.
    pub fn set_receive_timeout(&self, timeout: Option<Duration>) -> Result<(), WireError> {
        Ok(self.stream.set_read_timeout(timeout)?)
    }

    /// Bounds a blocking send likewise.
    pub fn set_send_timeout(&self, timeout: Option<Duration>) -> Result<(), WireError> {
        Ok(self.stream.set_write_timeout(timeout)?)
    }

    /// A second handle on the same socket, for a thread that only sends.
    pub fn try_clone(&self) -> Result<Self, WireError> {
        Ok(Self::new(self.stream.try_clone()?))
    }

    /// Wakes a thread that is blocked on this socket, with [`WireError::Closed`].
    pub fn shutdown(&self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Result<PeerCredentials, WireError> {
        // not rustix: its pid cannot be 0, which the kernel says of a peer outside of this process's PID namespace
        let peer = nix::sys::socket::getsockopt(&self.stream, nix::sys::socket::sockopt::PeerCredentials).map_err(io::Error::from)?;
        Ok(PeerCredentials { pid: peer.pid(), uid: peer.uid() })
    }

    /// Sends one whole message, with a descriptor if given. Always blocks until the kernel has taken all of it.
    pub fn send<T: Serialize>(&self, message: &T, fd: Option<BorrowedFd<'_>>) -> Result<(), WireError> {
        let body = serde_json::to_vec(message)?;
        if body.len() > MESSAGE_BYTES_MAX {
            return Err(WireError::TooLong { len: body.len(), max: MESSAGE_BYTES_MAX });
        }
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&body);
        let mut rest = &bytes[..];
        let mut fd = fd;
        while !rest.is_empty() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let fds;
            if let Some(fd) = fd {
                fds = [fd];
                assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)), "space for one descriptor");
            }
            match sendmsg(&self.stream, &[IoSlice::new(rest)], &mut ancillary, SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    rest = &rest[sent..];
                    fd = None;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    let mut poll = [rustix::event::PollFd::new(&self.stream, rustix::event::PollFlags::OUT)];
                    let limit = rustix::time::Timespec { tv_sec: 5, tv_nsec: 0 };
                    let ready = rustix::event::poll(&mut poll, Some(&limit)).map_err(io::Error::from)?;
                    if ready == 0 {
                        return Err(io::Error::from(io::ErrorKind::TimedOut).into());
                    }
                }
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        Ok(())
    }

    /// Receives one whole message and the descriptor that came with it.
    pub fn recv<T: DeserializeOwned>(&mut self) -> Result<Option<(T, Option<OwnedFd>)>, WireError> {
        loop {
            if let Some(message) = self.take_message()? {
                return Ok(Some((message, self.fd.take())));
            }
            let mut buffer = [0u8; 16384];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let read = match recvmsg(&self.stream, &mut [IoSliceMut::new(&mut buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Ok(message) => message.bytes,
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) if self.is_nonblocking() => return Ok(None),
                Err(error) => return Err(io::Error::from(error).into()),
            };
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = message {
                    for fd in fds {
                        self.fd = Some(fd);
                    }
                }
            }
            if read == 0 {
                return Err(WireError::Closed);
            }
            self.received.extend_from_slice(&buffer[..read]);
        }
    }

    /// Sends a request and waits for its answer (blocking mode).
    pub fn call<Q: Serialize, A: DeserializeOwned>(&mut self, request: &Q) -> Result<(A, Option<OwnedFd>), WireError> {
        self.send(request, None)?;
        self.recv()?.ok_or(WireError::Closed)
    }

    fn is_nonblocking(&self) -> bool {
        rustix::fs::fcntl_getfl(&self.stream).is_ok_and(|flags| flags.contains(rustix::fs::OFlags::NONBLOCK))
    }

    fn take_message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, WireError> {
        let Some(header) = self.received.first_chunk::<HEADER>() else { return Ok(None) };
        let len = u32::from_le_bytes(*header) as usize;
        if len > MESSAGE_BYTES_MAX {
            return Err(WireError::TooLong { len, max: MESSAGE_BYTES_MAX });
        }
        if self.received.len() < HEADER + len {
            return Ok(None);
        }
        let message = serde_json::from_slice(&self.received[HEADER..HEADER + len])?;
        self.received.drain(..HEADER + len);
        Ok(Some(message))
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// A listening socket, mode 0660, removed when dropped. A live owner of the same path is never displaced.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Binds. A socket file that nobody serves any more is replaced; one that answers is an error of kind `AddrInUse`.
    pub fn bind(path: &Path) -> Result<Self, WireError> {
        if UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{} is served by another process", path.display())).into());
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io::Error::new(error.kind(), format!("cannot remove the old {}: {error}", path.display())).into());
            }
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(|e| io::Error::new(e.kind(), format!("cannot bind {}: {e}", path.display())))?;
        let listener = Self { listener, path: path.into() };
        set_mode(path)?;
        Ok(listener)
    }

    /// Accepts without blocking once [`Listener::set_nonblocking`] was called.
    pub fn accept(&self) -> Result<Option<Connection>, WireError> {
        match self.listener.accept() {
            Ok((stream, _)) => Ok(Some(Connection::new(stream))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Blocking or not.
    pub fn set_nonblocking(&self, on: bool) -> Result<(), WireError> {
        Ok(self.listener.set_nonblocking(on)?)
    }
}

/// The directory may be another user's, who may have put a link to a file of ours in the socket's place by now: so nothing is
/// followed, and nothing but a socket gets the mode.
fn set_mode(path: &Path) -> Result<(), WireError> {
    use rustix::fs::{FileType, Mode, OFlags, fstat, open};
    let file = open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).map_err(io::Error::from)?;
    if FileType::from_raw_mode(fstat(&file).map_err(io::Error::from)?.st_mode) != FileType::Socket {
        return Err(io::Error::other(format!("{} was replaced while it was bound", path.display())).into());
    }
    let opened = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(std::fs::set_permissions(opened, std::os::unix::fs::PermissionsExt::from_mode(0o660))?)
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_whole_and_carry_a_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = Listener::bind(&path).unwrap();
        assert!(matches!(Listener::bind(&path), Err(WireError::Io(e)) if e.kind() == io::ErrorKind::AddrInUse));
        let file = tempfile::tempfile().unwrap();
        let client = Connection::connect(&path).unwrap();
        // the probe of the second bind is the first connection in the queue
        let _probe = listener.accept().unwrap().unwrap();
        let mut server = listener.accept().unwrap().unwrap();
        let long = "x".repeat(100_000);
        let sender = std::thread::spawn({
            let long = long.clone();
            move || client.send(&long, Some(file.as_fd())).and_then(|()| client.send(&7u32, None))
        });
        let (text, fd) = server.recv::<String>().unwrap().unwrap();
        assert_eq!(text, long);
        assert!(fd.is_some());
        let (number, fd) = server.recv::<u32>().unwrap().unwrap();
        assert_eq!((number, fd.is_none()), (7, true));
        sender.join().unwrap().unwrap();
        assert!(matches!(server.recv::<u32>(), Err(WireError::Closed)));
    }

    #[test]
    fn a_socket_is_open_to_its_group_and_a_link_in_its_place_is_not_followed() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("s"), dir.path().join("other"));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        let _listener = Listener::bind(&path).unwrap();
        assert_eq!(mode(&path), 0o660);
        std::fs::write(&other, "root's").unwrap();
        std::fs::set_permissions(&other, PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(set_mode(&path).unwrap_err().to_string().contains("was replaced"));
        assert!(set_mode(&other).unwrap_err().to_string().contains("was replaced"));
        assert_eq!(mode(&other), 0o600);
    }

    #[test]
    fn an_absurd_length_is_refused_without_allocating() {
        let (a, b) = UnixStream::pair().unwrap();
        io::Write::write_all(&mut &a, &u32::MAX.to_le_bytes()).unwrap();
        assert!(matches!(Connection::new(b).recv::<u32>(), Err(WireError::TooLong { .. })));
    }
}
