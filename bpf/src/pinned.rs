//! A pinned map of any version: its records' layouts, and its records as bytes.

use crate::layout::{Layout, Misfit};
use crate::maps::{MapError, scan_bytes};
use libbpf_rs::btf::Btf;
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapInfo, MapType};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

/// Why a pinned map could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("open: {0}")]
    Open(libbpf_rs::Error),
    #[error("it is a map of type {0:?}")]
    Kind(MapType),
    #[error("read its types: {0}")]
    Types(io::Error),
    #[error(transparent)]
    Misfit(#[from] Misfit),
    #[error("its records have {found} bytes, its type has {typed}")]
    Length { found: usize, typed: usize },
    #[error(transparent)]
    Map(#[from] MapError),
}

/// An open one.
#[derive(Debug)]
pub(crate) struct PinnedMap {
    handle: MapHandle,
    name: &'static str,
    pub(crate) key: Layout,
    pub(crate) value: Layout,
}

impl PinnedMap {
    pub(crate) fn open(maps: &Path, name: &'static str) -> Result<Self, Unreadable> {
        let handle = MapHandle::from_pinned_path(maps.join(name)).map_err(Unreadable::Open)?;
        // others hold more than one value for a key, or none
        if !matches!(handle.map_type(), MapType::Hash | MapType::LruHash | MapType::Array) {
            return Err(Unreadable::Kind(handle.map_type()));
        }
        let info = MapInfo::new(handle.as_fd()).map_err(Unreadable::Open)?.info;
        if info.btf_id == 0 {
            return Err(Misfit::Untyped.into());
        }
        let btf = kernel_btf(info.btf_id).map_err(Unreadable::Types)?;
        let (key, value) = (Layout::of(&btf, info.btf_key_type_id)?, Layout::of(&btf, info.btf_value_type_id)?);
        for (layout, found) in [(&key, info.key_size), (&value, info.value_size)] {
            if layout.bytes() != found as usize {
                return Err(Unreadable::Length { found: found as usize, typed: layout.bytes() });
            }
        }
        Ok(Self { handle, name, key, value })
    }

    /// Every record; see [`scan_bytes`].
    pub(crate) fn scan(&self, each: impl FnMut(&[u8], &[u8])) -> Result<(), MapError> {
        scan_bytes(self.handle.as_fd(), self.name, self.key.bytes(), self.value.bytes(), each)
    }

    /// The sum over CPUs of each number of a per-CPU array, or the numbers of a plain one.
    pub(crate) fn sums(maps: &Path, name: &str) -> Result<Vec<u64>, libbpf_rs::Error> {
        let handle = MapHandle::from_pinned_path(maps.join(name))?;
        let number = |bytes: &Vec<u8>| bytes.first_chunk::<8>().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        (0..handle.max_entries())
            .map(|index| {
                let key = index.to_ne_bytes();
                let of_cpus = match handle.map_type().is_percpu() {
                    true => handle.lookup_percpu(&key, MapFlags::ANY)?.unwrap_or_default(),
                    false => handle.lookup(&key, MapFlags::ANY)?.into_iter().collect(),
                };
                Ok(of_cpus.iter().map(number).sum())
            })
            .collect()
    }
}

/// Type information that the kernel keeps. The library opens it from a file only, so it goes through one in memory.
fn kernel_btf(id: u32) -> io::Result<Btf<'static>> {
    // SAFETY: a plain request; the result is owned here and freed below.
    let loaded = unsafe { libbpf_sys::btf__load_from_kernel_by_id(id) };
    if loaded.is_null() {
        return Err(io::Error::last_os_error());
    }
    let mut len = 0;
    // SAFETY: `loaded` is valid until it is freed below; the length is written to a local.
    let data = unsafe { libbpf_sys::btf__raw_data(loaded, &mut len) };
    let bytes = match data.is_null() {
        true => Err(io::Error::other("type information without data")),
        // SAFETY: libbpf says that `len` bytes are there, until the object is freed; they are copied before.
        false => Ok(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len as usize) }.to_vec()),
    };
    // SAFETY: it came from libbpf, is freed once, and nothing of it is used any more.
    unsafe { libbpf_sys::btf__free(loaded) };
    let mut file = std::fs::File::from(rustix::fs::memfd_create("sluice-btf", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(&bytes?)?;
    Btf::from_path(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(io::Error::other)
}
