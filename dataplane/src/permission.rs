//! Who may ask the dataplane for what, by the user at the other end of the socket (SO_PEERCRED).
//!
//! ```text
//!   root           everything
//!   control user   become the control process, publish tables; look
//!   others         look, where the socket's mode lets them in at all
//! ```
//!
//! A control process reads what others write (manifests, an API server's answers), so it is the one to expect trouble from: it
//! gets a user of its own, which can hand over a table and nothing else. A table that is wrong is still the table; ports,
//! hooks and files stay root's.

use nix::unistd::{Group, User};
use sluice_wire::ToDataplane;
use std::str::FromStr;

/// The user and group of a control process that is not root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlUser {
    /// May publish; owns the directory of the control socket.
    pub uid: u32,
    /// Group of that directory and of the dataplane's socket.
    pub gid: u32,
}

/// Why a user cannot be the control user.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ControlUserError {
    /// A name that this machine does not know.
    #[error("this machine has no {what} {name:?}: make it (see deploy/systemd/sluice.sysusers), or give a number")]
    Unknown {
        /// User or group.
        what: &'static str,
        /// As given.
        name: String,
    },
    /// A number without a group of its own.
    #[error("uid {0} is no user of this machine, so its group must be given too: {0}:GID")]
    NoGroup(u32),
    /// The number that means "leave as it is" to chown(2).
    #[error("4294967295 is no user or group")]
    Reserved,
    /// The system's user database failed.
    #[error("the user database cannot be read: {0}")]
    Database(#[from] nix::errno::Errno),
}

/// `UID[:GID]`, numbers or names; without a group, the user's own.
impl FromStr for ControlUser {
    type Err = ControlUserError;

    fn from_str(text: &str) -> Result<Self, ControlUserError> {
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        let known = match user.parse::<u32>() {
            Ok(uid) => User::from_uid(uid.into())?,
            Err(_) => User::from_name(user)?,
        };
        let uid = match (&known, user.parse()) {
            (_, Ok(uid)) => uid,
            (Some(known), _) => known.uid.as_raw(),
            (None, _) => return Err(ControlUserError::Unknown { what: "user", name: user.to_owned() }),
        };
        let gid = match group {
            Some(group) => gid_of(group)?,
            None => known.ok_or(ControlUserError::NoGroup(uid))?.gid.as_raw(),
        };
        if uid == u32::MAX || gid == u32::MAX { Err(ControlUserError::Reserved) } else { Ok(Self { uid, gid }) }
    }
}

fn gid_of(text: &str) -> Result<u32, ControlUserError> {
    if let Ok(gid) = text.parse() {
        return Ok(gid);
    }
    let group = Group::from_name(text)?.ok_or_else(|| ControlUserError::Unknown { what: "group", name: text.to_owned() })?;
    Ok(group.gid.as_raw())
}

/// Why this user may not make this request; `None` if it may.
pub fn refusal(request: &ToDataplane, uid: u32, control: Option<ControlUser>) -> Option<String> {
    if uid == 0 {
        return None;
    }
    match request {
        ToDataplane::Status
        | ToDataplane::Ports
        | ToDataplane::Found
        | ToDataplane::Connections { .. }
        | ToDataplane::Rules
        | ToDataplane::Cuts
        | ToDataplane::Table
        | ToDataplane::CheckPort { .. } => None,
        ToDataplane::Control { .. } | ToDataplane::Publish { .. } | ToDataplane::Identify { .. } => match control {
            Some(control) if control.uid == uid => None,
            Some(control) => Some(format!("uid {uid} may not publish tables: only root and uid {} may (--control-user)", control.uid)),
            None => Some(format!("uid {uid} may not publish tables: only root may, unless the dataplane has --control-user {uid}")),
        },
        ToDataplane::AddPort(_) | ToDataplane::DelPort { .. } | ToDataplane::Enforce { .. } | ToDataplane::Offload { .. } => {
            Some(format!("uid {uid} may not change ports or enforcement: only root may"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_flow::ObjectName;
    use sluice_wire::AddPort;

    fn every_request() -> [(ToDataplane, &'static str); 15] {
        let (container_id, ifname) = (String::new(), String::new());
        let add = AddPort {
            container_id: container_id.clone(),
            ifname: ifname.clone(),
            pod: ObjectName::new("x", "a"),
            uid: String::new(),
            host_ifindex: 1,
            host_ifname: String::new(),
            mac: [0; 6],
            addresses: Vec::new(),
            network: String::new(),
            deadline_ms: 1,
        };
        [
            (ToDataplane::Control { wire_version: 1 }, "publish"),
            (ToDataplane::Publish { generation: 1, image_bytes: 1 }, "publish"),
            (ToDataplane::AddPort(add), "change"),
            (ToDataplane::DelPort { container_id: container_id.clone(), ifname: ifname.clone(), host_ifindex: None }, "change"),
            (ToDataplane::Identify { identities: Vec::new() }, "publish"),
            (ToDataplane::Found, "look"),
            (ToDataplane::Enforce { on: false }, "change"),
            (ToDataplane::Offload { on: false }, "change"),
            (ToDataplane::CheckPort { container_id, ifname, host_ifindex: None, addresses: Vec::new() }, "look"),
            (ToDataplane::Status, "look"),
            (ToDataplane::Ports, "look"),
            (ToDataplane::Rules, "look"),
            (ToDataplane::Cuts, "look"),
            (ToDataplane::Connections { pod: None, max: 1 }, "look"),
            (ToDataplane::Table, "look"),
        ]
    }

    #[test]
    fn root_may_everything_the_control_user_publish_and_others_look() {
        let control = ControlUser { uid: 65532, gid: 65532 };
        for (uid, control, may) in [
            (0, None, &["look", "publish", "change"][..]),
            (0, Some(control), &["look", "publish", "change"]),
            (65532, Some(control), &["look", "publish"]),
            (65533, Some(control), &["look"]),
            (65532, None, &["look"]),
        ] {
            for (request, kind) in every_request() {
                let refusal = refusal(&request, uid, control);
                assert_eq!(refusal.is_none(), may.contains(&kind), "uid {uid}, {control:?}: {request:?}: {refusal:?}");
                assert!(refusal.is_none_or(|reason| reason.contains(&uid.to_string()) && reason.contains("only root")));
            }
        }
    }

    #[test]
    fn users_are_numbers_or_names_and_bring_their_group() {
        for (text, expected) in [
            ("65532:65533", Ok(ControlUser { uid: 65532, gid: 65533 })),
            ("0", Ok(ControlUser { uid: 0, gid: 0 })),
            ("root", Ok(ControlUser { uid: 0, gid: 0 })),
            ("root:7", Ok(ControlUser { uid: 0, gid: 7 })),
            ("7:root", Ok(ControlUser { uid: 7, gid: 0 })),
            ("3999999999", Err(ControlUserError::NoGroup(3_999_999_999))),
            ("4294967295:1", Err(ControlUserError::Reserved)),
            ("1:4294967295", Err(ControlUserError::Reserved)),
            ("no-such-user", Err(ControlUserError::Unknown { what: "user", name: "no-such-user".into() })),
            ("1:no-such-group", Err(ControlUserError::Unknown { what: "group", name: "no-such-group".into() })),
            ("", Err(ControlUserError::Unknown { what: "user", name: String::new() })),
            ("1:", Err(ControlUserError::Unknown { what: "group", name: String::new() })),
            ("-1:1", Err(ControlUserError::Unknown { what: "user", name: "-1".into() })),
        ] {
            assert_eq!(text.parse::<ControlUser>(), expected, "{text:?}");
        }
    }
}
