//! Links of programs: attached and pinned, found again, swapped, and where they stand in their chains.

use crate::load::{LoadError, system};
use libbpf_rs::{AsRawLibbpf, Link, ProgramMut};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

/// Attaches to a device, first in its chain, and pins the link.
pub(crate) fn pin_tcx(program: &ProgramMut<'_>, ifindex: u32, path: &Path) -> Result<(), LoadError> {
    // before all others: whatever stands behind us sees only what policy allows
    let options =
        libbpf_sys::bpf_tcx_opts { sz: size_of::<libbpf_sys::bpf_tcx_opts>() as _, flags: libbpf_sys::BPF_F_BEFORE, ..Default::default() };
    // SAFETY: the program is loaded and outlives the call; the options are complete and sized.
    let link = unsafe { libbpf_sys::bpf_program__attach_tcx(program.as_libbpf_object().as_ptr(), ifindex as i32, &options) };
    pin(link, path, &format!("ifindex {ifindex}"))
}

/// A netfilter program's protocol family.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Family {
    V4,
    V6,
}

/// Links with this name's end are replaced as a whole; see `Loaded::guard_node`.
pub(crate) const REPLACED: &str = "-unjudged";

impl Family {
    /// The one in a link's name.
    pub(crate) fn of_link(name: &str) -> Self {
        if name.contains('6') { Self::V6 } else { Self::V4 }
    }

    pub(crate) fn link_name(self) -> String {
        let number = match self {
            Self::V4 => 4,
            Self::V6 => 6,
        };
        format!("node-{number}{REPLACED}")
    }
}

/// Behind source translation, which is at 100. Two programs cannot have one priority: an earlier process's may have another.
const LAST_PRIORITIES: std::ops::Range<i32> = 300..308;

/// Attaches at the end of postrouting in the calling thread's network namespace, and pins the link.
pub(crate) fn pin_netfilter(program: &ProgramMut<'_>, family: Family, path: &Path) -> Result<(), LoadError> {
    let pf = match family {
        Family::V4 => libc::NFPROTO_IPV4,
        Family::V6 => libc::NFPROTO_IPV6,
    };
    let mut link = std::ptr::null_mut();
    // that an earlier process's has a priority is no news for people
    let said = libbpf_rs::set_print(None);
    for priority in LAST_PRIORITIES {
        let options = libbpf_sys::bpf_netfilter_opts {
            sz: size_of::<libbpf_sys::bpf_netfilter_opts>() as _,
            pf: pf as u32,
            hooknum: libc::NF_INET_POST_ROUTING as u32,
            priority,
            ..Default::default()
        };
        // SAFETY: the program is loaded and outlives the call; the options are complete and sized.
        link = unsafe { libbpf_sys::bpf_program__attach_netfilter(program.as_libbpf_object().as_ptr(), &options) };
        if !link.is_null() || io::Error::last_os_error().raw_os_error() != Some(libc::EBUSY) {
            break;
        }
    }
    let error = io::Error::last_os_error();
    libbpf_rs::set_print(said);
    if link.is_null() {
        return Err(system("attach to the end of postrouting")(error));
    }
    pin(link, path, "postrouting")
}

/// Attaches to a device and pins the link.
pub(crate) fn pin_xdp(program: &ProgramMut<'_>, ifindex: u32, path: &Path) -> Result<(), LoadError> {
    // SAFETY: the program is loaded and outlives the call.
    let link = unsafe { libbpf_sys::bpf_program__attach_xdp(program.as_libbpf_object().as_ptr(), ifindex as i32) };
    pin(link, path, &format!("ifindex {ifindex}"))
}

/// Attaches to a NIC in its driver's own mode, or not at all, and pins the link.
pub(crate) fn pin_native_xdp(program: &ProgramMut<'_>, ifindex: u32, path: &Path) -> Result<(), LoadError> {
    let options = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as _,
        flags: libbpf_sys::XDP_FLAGS_DRV_MODE,
        ..Default::default()
    };
    // SAFETY: the program is loaded and outlives the call; the options are complete and sized.
    let fd = unsafe { libbpf_sys::bpf_link_create(program.as_fd().as_raw_fd(), ifindex as i32, libbpf_sys::BPF_XDP, &options) };
    if fd < 0 {
        return Err(system(format!("attach to ifindex {ifindex} in native mode"))(io::Error::from_raw_os_error(-fd)));
    }
    // SAFETY: the descriptor was just returned by the kernel, and nobody else owns it.
    let link = unsafe { OwnedFd::from_raw_fd(fd) };
    let c_path = std::ffi::CString::new(path.to_string_lossy().as_bytes()).expect("paths have no NUL");
    // SAFETY: the descriptor is open, the path ends with NUL.
    let pinned = unsafe { libbpf_sys::bpf_obj_pin(link.as_raw_fd(), c_path.as_ptr()) };
    if pinned != 0 {
        return Err(system(format!("pin a link at {}", path.display()))(io::Error::from_raw_os_error(-pinned)));
    }
    Ok(())
}

/// What a device's driver can do with XDP. Source: linux/netdev.h, `netdev_xdp_act`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XdpFeatures {
    /// Programs run in the driver, before there is an skb.
    pub native: bool,
    /// AF_XDP sockets without a copy.
    pub zero_copy: bool,
    /// A program is attached in native mode.
    pub runs_native: bool,
}

const NATIVE: u64 = 1;
const ZERO_COPY: u64 = 8;

/// Asks the kernel about a device.
///
/// # Errors
/// The kernel's reason.
pub fn xdp_features(ifindex: u32) -> io::Result<XdpFeatures> {
    let mut options = libbpf_sys::bpf_xdp_query_opts { sz: size_of::<libbpf_sys::bpf_xdp_query_opts>() as _, ..Default::default() };
    // SAFETY: the options are complete and sized; libbpf writes no more than they hold.
    let result = unsafe { libbpf_sys::bpf_xdp_query(ifindex as i32, 0, &mut options) };
    if result != 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    Ok(XdpFeatures {
        native: options.feature_flags & NATIVE != 0,
        zero_copy: options.feature_flags & ZERO_COPY != 0,
        runs_native: options.drv_prog_id != 0,
    })
}

fn pin(link: *mut libbpf_sys::bpf_link, path: &Path, place: &str) -> Result<(), LoadError> {
    if link.is_null() {
        let error = io::Error::last_os_error();
        return Err(system(format!("attach {} to {place}", path.file_name().unwrap_or_default().display()))(error));
    }
    let c_path = std::ffi::CString::new(path.to_string_lossy().as_bytes()).expect("paths have no NUL");
    // SAFETY: the link was just returned by libbpf and is not null.
    let pinned = unsafe { libbpf_sys::bpf_link__pin(link, c_path.as_ptr()) };
    // SAFETY: as above; destroying the handle of a pinned link leaves it attached.
    unsafe { libbpf_sys::bpf_link__destroy(link) };
    if pinned != 0 {
        return Err(system(format!("pin a link at {}", path.display()))(io::Error::from_raw_os_error(-pinned)));
    }
    Ok(())
}

/// Points a link to another program, in one step for the packets that meet it.
pub(crate) fn update_link(path: &Path, program: BorrowedFd<'_>) -> Result<(), libbpf_rs::Error> {
    let link = Link::open(path)?;
    // SAFETY: both descriptors are open for the length of the call; no options are given.
    let result = unsafe { libbpf_sys::bpf_link_update(link.as_fd().as_raw_fd(), program.as_raw_fd(), std::ptr::null()) };
    if result == 0 { Ok(()) } else { Err(libbpf_rs::Error::from_raw_os_error(-result)) }
}

/// The programs of a device at this place, in the order in which they see packets.
pub(crate) fn chain(ifindex: u32, place: u32) -> io::Result<Vec<u32>> {
    let mut programs = [0u32; 64];
    let mut options = libbpf_sys::bpf_prog_query_opts {
        sz: size_of::<libbpf_sys::bpf_prog_query_opts>() as _,
        prog_ids: programs.as_mut_ptr(),
        ..Default::default()
    };
    options.__bindgen_anon_1.count = programs.len() as u32;
    // SAFETY: the options are complete and sized; the kernel writes no more numbers than it is told there is room for.
    let result = unsafe { libbpf_sys::bpf_prog_query_opts(ifindex as i32, place, &mut options) };
    if result != 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    // SAFETY: the kernel has written how many there are into this member.
    let count = unsafe { options.__bindgen_anon_1.count };
    Ok(programs[..(count as usize).min(programs.len())].to_vec())
}

/// The kernel's number of a program.
pub(crate) fn program_id(program: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut len = size_of_val(&info) as u32;
    // SAFETY: the descriptor is open; `info` is plain data and `len` its size.
    let result = unsafe { libbpf_sys::bpf_prog_get_info_by_fd(program.as_raw_fd(), &mut info, &mut len) };
    if result == 0 { Ok(info.id) } else { Err(io::Error::from_raw_os_error(-result)) }
}

/// A pinned link, where there is one. Asked first, because libbpf reports a missing pin on its own.
pub(crate) fn open_pinned(path: &Path) -> Option<Link> {
    path.exists().then(|| Link::open(path).ok()).flatten()
}

/// The device a link is attached to, `None` once the device is gone.
pub(crate) fn link_ifindex(link: &Link) -> Option<u32> {
    let mut info = libbpf_sys::bpf_link_info::default();
    let mut len = size_of_val(&info) as u32;
    // SAFETY: the descriptor is open; `info` is plain data and `len` its size.
    let result = unsafe { libbpf_sys::bpf_link_get_info_by_fd(link.as_fd().as_raw_fd(), &mut info, &mut len) };
    if result != 0 {
        return None;
    }
    let ifindex = match info.type_ {
        // SAFETY: the kernel fills the member that the type names.
        libbpf_sys::BPF_LINK_TYPE_TCX => unsafe { info.__bindgen_anon_1.tcx.ifindex },
        // SAFETY: as above.
        libbpf_sys::BPF_LINK_TYPE_XDP => unsafe { info.__bindgen_anon_1.xdp.ifindex },
        _ => 0,
    };
    (ifindex != 0).then_some(ifindex)
}
