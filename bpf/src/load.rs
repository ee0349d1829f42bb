//! Loads the programs, pins maps and links under the ABI version, and finds them again after a restart. What puts the programs on
//! devices is in [`crate::attach`], what the programs may begin by themselves in [`crate::rations`].
//!
//! ```text
//!  BPF_DIR/v2/maps/NAME            survive the process: verdicts stay in force
//!  BPF_DIR/v2/links/device-17-leaving, device-17-entering, exit-2-exiting, trunk-0-near, trunk-0-far, node-4-unjudged
//! ```
//!
//! A restarted dataplane loads its own programs on the pinned maps and swaps every link to them atomically, so no packet
//! ever meets an unhooked device. What a dataplane of another ABI version left is taken over: see [`crate::handover`].

use crate::abi::{Allowance, Config, Denial, ENDINGS_MAX, Ending, Fragment, FragmentKey, Key, Port, Ration, WORKERS_MAX};
use crate::handover::{Directories, Handover, Step, take_over};
use crate::maps::{HashMapFd, Shared};
use crate::ring::Ring;
use crate::{ABI_VERSION, abi};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, OpenObject};
use std::io;
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

#[allow(missing_docs, unreachable_pub, unused_qualifications, unsafe_op_in_unsafe_fn)]
#[allow(clippy::all, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/sluice.skel.rs"));
}
use skeleton::{SluiceSkel, SluiceSkelBuilder};

/// Why the kernel's part could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{what}: {source}")]
    /// libbpf's reason.
    Bpf {
        /// Which step.
        what: String,
        /// Why.
        source: libbpf_rs::Error,
    },
    #[error("{what}: {source}")]
    /// The system's reason.
    Io {
        /// Which step.
        what: String,
        /// Why.
        source: io::Error,
    },
    #[error("{path} is not on a BPF file system; mount one with: mount -t bpf bpf /sys/fs/bpf")]
    /// Pins need bpffs.
    NoBpffs {
        /// The wanted directory.
        path: PathBuf,
    },
}

pub(crate) fn bpf(what: impl Into<String>) -> impl FnOnce(libbpf_rs::Error) -> LoadError {
    let what = what.into();
    move |source| LoadError::Bpf { what, source }
}

pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> LoadError {
    let what = what.into();
    move |source| LoadError::Io { what, source }
}

/// Where and how large.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// A directory on bpffs, of this dataplane alone.
    pub bpf_dir: PathBuf,
    /// Room of the verdict cache.
    pub cache_entries: u32,
    /// Room of the denial cache.
    pub denial_entries: u32,
    /// Room for remembered openers.
    pub origin_entries: u32,
    /// Pass packets while no worker serves.
    pub fail_open: bool,
    /// Every packet of an isolated pod goes to its worker.
    pub every_packet: bool,
    /// New flows of one port in a second; `None`: as many as there are.
    pub new_flows_per_second: Option<std::num::NonZeroU32>,
}

/// The loaded programs and their maps.
pub struct Loaded {
    pub(crate) skeleton: SluiceSkel<'static>,
    pub(crate) directory: PathBuf,
    handover: Option<Handover>,
    /// One record.
    pub config: Shared<Config>,
    /// By port index.
    pub ports: Shared<Port>,
    /// ifindex → port index.
    pub port_of_ifindex: HashMapFd<u32, u32>,
    /// Address of a port, IPv4 mapped → port index.
    pub port_of_address: HashMapFd<[u8; 16], u32>,
    /// The verdict cache.
    pub cache: HashMapFd<Key, abi::CacheValue>,
    /// The denial cache.
    pub denials: HashMapFd<Key, Denial>,
    /// What first fragments said that the cache let pass.
    pub fragments: HashMapFd<FragmentKey, Fragment>,
    /// Devices with [`crate::Hooks::Exit`].
    pub exits: HashMapFd<u32, u32>,
    /// Who opened connections of pods that were not isolated.
    pub origins: HashMapFd<Key, u64>,
    /// What holds for every source port, until the next table.
    pub allowances: HashMapFd<Key, Allowance>,
    /// By port index: what it has had of its share, and what the programs may admit.
    pub rations: Shared<Ration>,
    pub(crate) endings: Shared<Ending>,
    pub(crate) rings: [OnceLock<Ring>; WORKERS_MAX],
    /// far ifindex → worker.
    pub worker_of_trunk: HashMapFd<u32, u32>,
    /// By counter: what other versions had counted.
    pub(crate) counted_before: HashMapFd<u32, u64>,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Loaded {
    /// Loads the programs onto new or pinned maps, swaps all pinned links to them, and takes over from other versions.
    ///
    /// # Errors
    /// [`LoadError`]; whatever enforced before still does.
    pub fn new(options: &LoadOptions) -> Result<Self, LoadError> {
        Self::new_watched(options, &mut |_| Ok(()))
    }

    /// As [`Loaded::new`], and tells `watch` of every step of a takeover; where that fails, everything stays as it is then, as
    /// if this process had died. For tests.
    ///
    /// # Errors
    /// As [`Loaded::new`], and those of `watch`.
    pub fn new_watched(options: &LoadOptions, watch: &mut dyn FnMut(&Step) -> io::Result<()>) -> Result<Self, LoadError> {
        let directories = Directories::find(&options.bpf_dir)?;
        let mut loaded = Self::load(options, directories.workplace())?;
        loaded.handover = take_over(&mut loaded, &directories, watch)?;
        Ok(loaded)
    }

    /// What was taken over from other versions, where there were any.
    pub fn handover(&self) -> Option<&Handover> {
        self.handover.as_ref()
    }

    fn load(options: &LoadOptions, directory: PathBuf) -> Result<Self, LoadError> {
        let maps = directory.join("maps");
        for path in [&maps, &directory.join("links")] {
            std::fs::create_dir_all(path).map_err(|error| match error.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound => LoadError::NoBpffs { path: path.clone() },
                _ => system(format!("create {}", path.display()))(error),
            })?;
        }
        let storage: &'static mut MaybeUninit<OpenObject> = Box::leak(Box::new(MaybeUninit::uninit()));
        let mut open = SluiceSkelBuilder::default().open(storage).map_err(bpf("open the BPF programs"))?;
        open.maps.cache.set_max_entries(options.cache_entries).map_err(bpf("size the cache"))?;
        open.maps.denials.set_max_entries(options.denial_entries).map_err(bpf("size the denials"))?;
        open.maps.origins.set_max_entries(options.origin_entries).map_err(bpf("size the origins"))?;
        for mut map in open.open_object_mut().maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            // the compiler's own sections (.rodata, .bss) are not shared between incarnations
            if !name.contains('.') {
                map.set_pin_path(maps.join(&name)).map_err(bpf(format!("pin map {name}")))?;
            }
        }
        let skeleton = open.load().map_err(bpf(
            "load the BPF programs (needs CAP_BPF and CAP_NET_ADMIN, kernel 6.6 or newer, and bpffs; maps pinned by a dataplane with other sizes must be removed first)",
        ))?;
        let duplicate = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map_err(system("duplicate a map descriptor"));
        let maps = &skeleton.maps;
        let config = Shared::map(maps.config.as_fd(), 1).map_err(system("map the configuration"))?;
        config.write(
            0,
            Config {
                abi_version: ABI_VERSION,
                fail_open: u32::from(options.fail_open),
                new_flow_ns: options.new_flows_per_second.map_or(0, |rate| (1_000_000_000 / rate).max(1)),
                every_packet: u32::from(options.every_packet),
                direct_tcp: 0,
                tracked: 0,
                reserved: [0; 2],
            },
        );
        let ports = Shared::map(maps.ports.as_fd(), abi::PORTS_MAX).map_err(system("map the ports"))?;
        Ok(Self {
            config,
            ports,
            port_of_ifindex: HashMapFd::new(duplicate(maps.port_of_ifindex.as_fd())?, "port_of_ifindex"),
            port_of_address: HashMapFd::new(duplicate(maps.port_of_address.as_fd())?, "port_of_address"),
            cache: HashMapFd::new(duplicate(maps.cache.as_fd())?, "cache"),
            denials: HashMapFd::new(duplicate(maps.denials.as_fd())?, "denials"),
            fragments: HashMapFd::new(duplicate(maps.fragments.as_fd())?, "fragments"),
            exits: HashMapFd::new(duplicate(maps.exits.as_fd())?, "exits"),
            origins: HashMapFd::new(duplicate(maps.origins.as_fd())?, "origins"),
            allowances: HashMapFd::new(duplicate(maps.allowances.as_fd())?, "allowances"),
            endings: Shared::map(maps.endings.as_fd(), WORKERS_MAX * ENDINGS_MAX).map_err(system("map the endings"))?,
            rations: Shared::map(maps.rations.as_fd(), abi::PORTS_MAX).map_err(system("map the ports' rations"))?,
            rings: [const { OnceLock::new() }; WORKERS_MAX],
            worker_of_trunk: HashMapFd::new(duplicate(maps.worker_of_trunk.as_fd())?, "worker_of_trunk"),
            counted_before: HashMapFd::new(duplicate(maps.counted_before.as_fd())?, "counted_before"),
            skeleton,
            directory,
            handover: None,
        })
    }

    /// Delivers a worker's punts to this socket from now on.
    pub fn set_socket(&self, worker: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        let fd = socket.as_raw_fd() as u32;
        let map = &self.skeleton.maps.sockets;
        map.update(&worker.to_ne_bytes(), &fd.to_ne_bytes(), libbpf_rs::MapFlags::ANY).map_err(io::Error::other)
    }

    /// Whether every packet of an isolated pod goes to its worker from now on.
    pub fn set_every_packet(&self, every_packet: bool) {
        // Relaxed: nothing else hangs on it
        self.config.word(0, offset_of!(Config, every_packet)).store(u32::from(every_packet), Ordering::Relaxed);
    }

    /// Whether it does.
    pub fn sends_every_packet(&self) -> bool {
        self.config.read(0).every_packet != 0
    }

    /// Whether TCP too goes straight from one pod's device to another's from now on.
    pub fn set_direct_tcp(&self, direct: bool) {
        // Relaxed: nothing else hangs on it
        self.config.word(0, offset_of!(Config, direct_tcp)).store(u32::from(direct), Ordering::Relaxed);
    }

    /// Whether the kernel tracks connections here, from now on: then nobody else remembers who opened those of TCP.
    pub fn set_tracked(&self, tracked: bool) {
        // Relaxed: nothing else hangs on it
        self.config.word(0, offset_of!(Config, tracked)).store(u32::from(tracked), Ordering::Relaxed);
    }

    /// Names another worker for a port. Its trunk is another field.
    pub fn set_worker(&self, index: usize, worker: u16) {
        self.set_beside(index, offset_of!(Port, worker), |slot| slot.worker = worker);
    }

    /// Changes a field that is less than a word. Beside it in the word is only what its one writer, the keeper, writes.
    fn set_beside(&self, index: usize, field: usize, change: impl FnOnce(&mut Port)) {
        let at = field / 4 * 4;
        let mut slot = self.ports.read(index);
        change(&mut slot);
        let word = bytemuck::bytes_of(&slot)[at..at + 4].try_into().expect("four bytes");
        self.ports.publish(index, at, u32::from_ne_bytes(word));
    }

    /// The longest IP packet that may be brought straight to a port's device from another one; 0: none, nor from there.
    pub fn set_direct_mtu(&self, index: usize, direct_mtu: u16) {
        self.set_beside(index, offset_of!(Port, direct_mtu), |slot| slot.direct_mtu = direct_mtu);
    }

    /// All counters, summed over CPUs and versions.
    pub fn counters(&self) -> Vec<u64> {
        (0..abi::COUNTERS as u32)
            .map(|index| {
                let found = self.skeleton.maps.counters.lookup_percpu(&index.to_ne_bytes(), libbpf_rs::MapFlags::ANY);
                let values = found.ok().flatten().unwrap_or_default();
                let counted: u64 = values.iter().filter_map(|value| value.first_chunk::<8>()).map(|bytes| u64::from_ne_bytes(*bytes)).sum();
                counted + self.counted_before.get(&index).unwrap_or(0)
            })
            .collect()
    }
}
