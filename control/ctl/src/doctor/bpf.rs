//! The four calls of bpf(2) that a look at tcx needs. The loader of the dataplane would bring libbpf and its build into the CLI.
#![allow(unsafe_code)]

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const PROG_LOAD: u32 = 5;
const PROG_GET_FD_BY_ID: u32 = 13;
const OBJ_GET_INFO_BY_FD: u32 = 15;
const PROG_QUERY: u32 = 16;
const LINK_CREATE: u32 = 28;
const PROG_TYPE_SCHED_CLS: u32 = 3;

/// Where a program stands at a device. Source: linux/bpf.h, `bpf_attach_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Hook {
    Ingress = 46,
    Egress = 47,
}

/// Programs at a hook that a query can show.
const PROGRAMS_MAX: usize = 64;

/// `mov32 r0, -1 (TCX_NEXT); exit`. Source: Linux, Documentation/bpf/instruction-set.rst.
const NEXT: [u64; 2] = [0xffff_ffff_0000_00b4, 0x0000_0000_0000_0095];

/// Part of `union bpf_attr`, as each command reads it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log: [u32; 2],
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    hook: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Link {
    program: u32,
    ifindex: u32,
    hook: u32,
    flags: u32,
    relative: u32,
    padding: u32,
    revision: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Query {
    ifindex: u32,
    hook: u32,
    flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
    other_arrays: [u64; 3],
    revision: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    fd: u32,
    bytes: u32,
    info: u64,
}

/// The head of `struct bpf_prog_info`, up to the name.
#[repr(C)]
#[derive(Clone, Copy)]
struct ProgramInfo {
    before: [u64; 8],
    name: [u8; 16],
}

/// # Safety
/// `T` must be laid out as `command` reads it, and every address in it must be valid for what the command does with it.
unsafe fn call<T: Copy>(command: u32, attribute: &mut T) -> io::Result<i32> {
    // SAFETY: the caller vouches for the attribute; its size goes along, so the kernel reads and writes nothing beyond it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn number(fd: &OwnedFd) -> u32 {
    u32::try_from(fd.as_raw_fd()).expect("an open descriptor is not negative")
}

/// Loads a program that lets everything on, and attaches it; it is gone when the links are dropped.
pub(super) fn attach(ifindex: u32, hook: Hook) -> io::Result<OwnedFd> {
    let license = c"GPL";
    // SAFETY: all zeroes is a value of this struct of integers.
    let empty: Load = unsafe { zeroed() };
    let mut load = Load {
        kind: PROG_TYPE_SCHED_CLS,
        instructions: NEXT.len() as u32,
        code: NEXT.as_ptr() as u64,
        license: license.as_ptr() as u64,
        hook: hook as u32,
        ..empty
    };
    // SAFETY: laid out as BPF_PROG_LOAD's attribute; code and license live through the call.
    let program = owned(unsafe { call(PROG_LOAD, &mut load) }?);
    let mut link = Link { program: number(&program), ifindex, hook: hook as u32, flags: 0, relative: 0, padding: 0, revision: 0 };
    // SAFETY: laid out as BPF_LINK_CREATE's attribute for tcx; it holds no address.
    Ok(owned(unsafe { call(LINK_CREATE, &mut link) }?))
}

/// The programs at a device's hook in the order in which packets meet them.
pub(super) fn programs(ifindex: u32, hook: Hook) -> io::Result<Vec<u32>> {
    let mut ids = [0u32; PROGRAMS_MAX];
    // SAFETY: all zeroes is a value of this struct of integers.
    let empty: Query = unsafe { zeroed() };
    let mut query = Query { ifindex, hook: hook as u32, ids: ids.as_mut_ptr() as u64, count: PROGRAMS_MAX as u32, ..empty };
    // SAFETY: laid out as BPF_PROG_QUERY's attribute; `ids` has room for the `count` that it says, and lives through the call.
    unsafe { call(PROG_QUERY, &mut query) }?;
    Ok(ids[..PROGRAMS_MAX.min(query.count as usize)].to_vec())
}

/// A program's name, as its author gave it, cut to 15 bytes.
pub(super) fn name(id: u32) -> io::Result<String> {
    let mut by_id = ById { id, next: 0, flags: 0 };
    // SAFETY: laid out as BPF_PROG_GET_FD_BY_ID's attribute; it holds no address.
    let program = owned(unsafe { call(PROG_GET_FD_BY_ID, &mut by_id) }?);
    let mut info = ProgramInfo { before: [0; 8], name: [0; 16] };
    let mut ask = Info { fd: number(&program), bytes: size_of::<ProgramInfo>() as u32, info: std::ptr::from_mut(&mut info) as u64 };
    // SAFETY: laid out as BPF_OBJ_GET_INFO_BY_FD's attribute; `info` has the length that it says, and lives through the call.
    unsafe { call(OBJ_GET_INFO_BY_FD, &mut ask) }?;
    Ok(String::from_utf8_lossy(&info.name).trim_end_matches('\0').to_owned())
}
