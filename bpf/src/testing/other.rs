//! A dataplane of the ABI version that this build is not, as its process leaves a node when it dies: programs, maps and
//! links, pinned. With the feature `abi-next` that is the present version, without it the next one.

pub use crate::abi::other::{CacheValue, Denial, Generation, Key, Port};

use crate::ABI_VERSION;
use crate::links::{Family, pin_netfilter, pin_tcx, pin_xdp, update_link};
use bytemuck::Pod;
use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, ObjectBuilder, ProgramMut};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

static OTHER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sluice_other.o"));

/// Its version.
pub const VERSION: u32 = if cfg!(feature = "abi-next") { ABI_VERSION - 1 } else { ABI_VERSION + 1 };

/// How the compiler laid out a struct of its header.
///
/// # Panics
/// When no map holds it.
pub fn layout(name: &str) -> crate::Layout {
    super::layout_in(OTHER, name)
}

/// The other version's dataplane.
#[derive(Debug)]
pub struct Other {
    object: Object,
    /// `BPF_DIR/vN`.
    pub directory: PathBuf,
}

impl Other {
    /// Loads its programs and pins its maps, or finds them again.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn load(bpf_dir: &Path, entries: u32) -> Self {
        let directory = bpf_dir.join(format!("v{VERSION}"));
        for part in ["maps", "links"] {
            std::fs::create_dir_all(directory.join(part)).expect("bpffs");
        }
        let mut open = ObjectBuilder::default().open_memory(OTHER).expect("the object is ours");
        for mut map in open.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            if ["cache", "denials", "origins"].contains(&name.as_str()) {
                map.set_max_entries(entries).expect("before loading");
            }
            if !name.contains('.') {
                map.set_pin_path(directory.join("maps").join(&name)).expect("before loading");
            }
        }
        Self { object: open.load().expect("the verifier accepts the programs"), directory }
    }

    /// A map.
    ///
    /// # Panics
    /// When there is none of this name.
    pub fn map(&self, name: &str) -> MapHandle {
        MapHandle::from_pinned_path(self.directory.join("maps").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Writes a record.
    ///
    /// # Panics
    /// When the map does not take it.
    pub fn put<K: Pod, V: Pod>(&self, map: &str, key: &K, value: &V) {
        let taken = self.map(map).update(bytemuck::bytes_of(key), bytemuck::bytes_of(value), MapFlags::ANY);
        taken.unwrap_or_else(|error| panic!("{map}: {error}"));
    }

    /// Reads a record.
    ///
    /// # Panics
    /// When the map cannot be read.
    pub fn get<K: Pod, V: Pod>(&self, map: &str, key: &K) -> Option<V> {
        let found = self.map(map).lookup(bytemuck::bytes_of(key), MapFlags::ANY).unwrap_or_else(|error| panic!("{map}: {error}"));
        found.map(|value| bytemuck::pod_read_unaligned(&value))
    }

    /// Lets every CPU count so many packets under a counter.
    ///
    /// # Panics
    /// When the map does not take it.
    pub fn count(&self, counter: u32, packets: u64) -> u64 {
        let counters = self.map("counters");
        let mut values = counters.lookup_percpu(&counter.to_ne_bytes(), MapFlags::ANY).expect("a lookup").expect("an array's entry");
        values.iter_mut().for_each(|value| *value = packets.to_ne_bytes().to_vec());
        counters.update_percpu(&counter.to_ne_bytes(), &values, MapFlags::ANY).expect("an update");
        packets * values.len() as u64
    }

    fn program(&self, link: &str) -> ProgramMut<'_> {
        let name = link.rsplit_once('-').expect("a link's name").1;
        self.object.progs_mut().find(|program| program.name() == name).unwrap_or_else(|| panic!("program {name}"))
    }

    /// Attaches the program that a link of this name runs, and pins the link; `ifindex` means nothing where it is the node's.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn attach(&self, link: &str, ifindex: u32) {
        let path = self.directory.join("links").join(link);
        let attached = match link.rsplit_once('-').expect("a link's name").1 {
            "far" => pin_xdp(&self.program(link), ifindex, &path),
            "unjudged" => pin_netfilter(&self.program(link), Family::of_link(link), &path),
            _ => pin_tcx(&self.program(link), ifindex, &path),
        };
        attached.unwrap_or_else(|error| panic!("{link}: {error}"));
    }

    /// Takes a link from our version, as an interrupted takeover by the other one would have.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn take(&self, ours: &Path, link: &str) {
        update_link(&ours.join("links").join(link), self.program(link).as_fd()).unwrap_or_else(|error| panic!("{link}: {error}"));
        std::fs::rename(ours.join("links").join(link), self.directory.join("links").join(link)).expect("bpffs renames");
    }
}
