//! Hearing that links or routes changed. What changed is asked for anew: messages may be lost, the kernel's state is not.

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Multicast groups. Source: linux/rtnetlink.h, `enum rtnetlink_groups`.
const LINK: u32 = 1;
const IPV4_ROUTE: u32 = 7;
const IPV6_ROUTE: u32 = 11;

/// A socket that becomes readable with every change of links and routes of its namespace.
#[derive(Debug)]
pub struct LinkEvents {
    socket: Socket,
}

impl LinkEvents {
    /// Listens in the calling thread's network namespace.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        for group in [LINK, IPV4_ROUTE, IPV6_ROUTE] {
            socket.add_membership(group)?;
        }
        socket.set_non_blocking(true)?;
        Ok(Self { socket })
    }

    /// Takes everything that was said; true if there was anything, also where the kernel had to drop some of it.
    pub fn take(&self) -> bool {
        let mut heard = false;
        let mut buffer = vec![0u8; 32_768];
        loop {
            match self.socket.recv(&mut &mut buffer[..], 0) {
                Ok(_) => heard = true,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => heard = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return heard,
            }
        }
    }
}

impl AsFd for LinkEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
