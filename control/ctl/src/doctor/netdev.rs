//! What devices can do with XDP, asked of the kernel's generic netlink family `netdev`. Only reads.
//!
//! Source: Linux, Documentation/netlink/specs/netdev.yaml, and linux/genetlink.h for the family's number.

use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};
use std::collections::BTreeMap;
use std::io;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
/// Length, type, flags, sequence, port; then command, version and two reserved bytes.
const HEADERS: usize = 16 + 4;

/// `NETDEV_XDP_ACT_...`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct XdpFeatures(u64);

impl XdpFeatures {
    #[cfg(test)]
    pub(super) fn of(bits: u64) -> Self {
        Self(bits)
    }

    /// Native XDP: before an skb exists.
    pub(super) fn native(self) -> bool {
        self.0 & 1 != 0
    }

    /// AF_XDP sockets without a copy.
    pub(super) fn zero_copy(self) -> bool {
        self.0 & 8 != 0
    }
}

/// The features of every device, by index.
///
/// # Errors
/// The kernel has no such family (before 6.3), or netlink is not allowed.
pub(super) fn xdp_features() -> io::Result<BTreeMap<u32, XdpFeatures>> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let name = attribute(CTRL_ATTR_FAMILY_NAME, b"netdev\0");
    let answer = ask(&socket, GENL_ID_CTRL, NLM_F_REQUEST, CTRL_CMD_GETFAMILY, &name)?;
    let family = answer.iter().flat_map(|body| attributes(body)).find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID);
    let family = family.and_then(|(_, value)| Some(u16::from_ne_bytes(*value.first_chunk()?)));
    let family = family.ok_or_else(|| io::Error::other("the kernel has no netdev family"))?;
    let answer = ask(&socket, family, NLM_F_REQUEST | NLM_F_DUMP, NETDEV_CMD_DEV_GET, &[])?;
    Ok(answer.iter().filter_map(|body| device(body)).collect())
}

fn device(body: &[u8]) -> Option<(u32, XdpFeatures)> {
    let find = |wanted: u16| attributes(body).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let ifindex = u32::from_ne_bytes(*find(NETDEV_A_DEV_IFINDEX)?.first_chunk()?);
    let features = u64::from_ne_bytes(*find(NETDEV_A_DEV_XDP_FEATURES)?.first_chunk()?);
    Some((ifindex, XdpFeatures(features)))
}

/// Asks, and returns the attributes of each message of the answer.
fn ask(socket: &Socket, family: u16, flags: u16, command: u8, attributes: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let mut request = Vec::new();
    request.extend(((HEADERS + attributes.len()) as u32).to_ne_bytes());
    request.extend(family.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend(1u32.to_ne_bytes());
    request.extend(0u32.to_ne_bytes());
    request.extend([command, 1, 0, 0]);
    request.extend(attributes);
    socket.send(&request, 0)?;
    let mut bodies = Vec::new();
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = bytes.as_slice();
        while let Some((kind, body, next)) = message(rest) {
            match kind {
                NLMSG_DONE => return Ok(bodies),
                NLMSG_ERROR => {
                    let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                    return if code == 0 { Ok(bodies) } else { Err(io::Error::from_raw_os_error(-code)) };
                }
                _ => bodies.push(body.get(4..).unwrap_or_default().to_vec()),
            }
            rest = next;
        }
        if flags & NLM_F_DUMP == 0 {
            return Ok(bodies);
        }
    }
}

/// One message: its type, what stands behind the first header, and the rest of the bytes.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let body = bytes.get(16..len)?;
    Some((kind, body, bytes.get(aligned(len)..).unwrap_or_default()))
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = 4 + value.len();
    let mut bytes = Vec::new();
    bytes.extend((len as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(aligned(len), 0);
    bytes
}

/// Types and values, for as long as they are whole.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?);
        let value = bytes.get(4..len)?;
        bytes = bytes.get(aligned(len)..).unwrap_or_default();
        Some((kind & 0x3fff, value))
    })
}

fn aligned(len: usize) -> usize {
    len.div_ceil(4) * 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_of_this_machine_tells_its_features() {
        let features = xdp_features().unwrap();
        // lo is there, and has no native XDP
        assert_eq!(features.get(&1), Some(&XdpFeatures(0)), "{features:?}");
    }

    #[test]
    fn broken_answers_end_and_panic_nowhere() {
        let whole = [attribute(1, &7u32.to_ne_bytes()), attribute(3, &9u64.to_ne_bytes())].concat();
        assert_eq!(device(&whole), Some((7, XdpFeatures(9))));
        for cut in 0..whole.len() {
            assert_eq!(device(&whole[..cut]), None);
        }
        for bytes in [&[0; 32][..], &[255; 32], &[4, 0, 0, 0, 0]] {
            assert!(message(bytes).is_none());
            assert!(attributes(bytes).count() <= 8);
        }
    }
}
