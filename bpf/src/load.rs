//! Loads the programs, pins maps and links under the ABI version, and finds them again after a restart.
//!
//! ```text
//!  BPF_DIR/v2/maps/NAME            survive the process: verdicts stay in force
//!  BPF_DIR/v2/links/device-17-leaving, device-17-entering, exit-2-exiting, trunk-0-near, trunk-0-far, node-4-unjudged
//! ```
//!
//! A restarted dataplane loads its own programs on the pinned maps and swaps every link to them atomically, so no packet
//! ever meets an unhooked device. What a dataplane of another ABI version left is taken over: see [`crate::handover`].

use crate::abi::{
    Allowance, Config, Denial, Fragment, FragmentKey, Key, OPENING_ADMITTED, OPENINGS_BYTES, Opening, Port, Ration, WORKERS_MAX,
};
use crate::handover::{Directories, Handover, Step, take_over};
use crate::links::{
    Family, REPLACED, chain, link_ifindex, open_pinned, pin_native_xdp, pin_netfilter, pin_tcx, pin_xdp, program_id, update_link,
};
use crate::maps::{HashMapFd, Shared};
use crate::ring::Ring;
use crate::{ABI_VERSION, abi};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{Link, MapCore, OpenObject, ProgramMut};
use std::io;
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
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

/// The hooks one device can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hooks {
    /// Both hooks of a pod's veth. Named by the device: they stay on it, and drop, as long as it lives, whatever port it
    /// belongs to.
    Device,
    /// tcx at the egress of any other device, where what left its pod deferred departs.
    Exit,
    /// tcx at a trunk's near end.
    Near(u32),
    /// XDP at a trunk's far end.
    Far(u32),
    /// Native XDP on a NIC: what was denied before is dropped there.
    Uplink,
}

/// The loaded programs and their maps.
pub struct Loaded {
    skeleton: SluiceSkel<'static>,
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
    /// Devices with [`Hooks::Exit`].
    pub exits: HashMapFd<u32, u32>,
    /// Who opened connections of pods that were not isolated.
    pub origins: HashMapFd<Key, u64>,
    /// What holds for every source port, until the next table.
    pub allowances: HashMapFd<Key, Allowance>,
    /// By port index: what it has had of its share, and what the programs may admit.
    pub rations: Shared<Ration>,
    rings: [OnceLock<Ring>; WORKERS_MAX],
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
                reserved: [0; 4],
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

    /// Gives each worker a ring for what the programs tell it, in place of an earlier process's. Nothing is admitted before a
    /// worker grants room; what was admitted until now has been written when this returns, so that a scan of the cache finds it.
    ///
    /// # Errors
    /// The kernel's reason.
    ///
    /// # Panics
    /// When a worker has one already.
    pub fn open_rings(&self, workers: u32) -> io::Result<()> {
        (0..abi::PORTS_MAX).for_each(|index| self.withdraw(index));
        for worker in 0..workers {
            let ring = Ring::create(OPENINGS_BYTES)?;
            let fd = ring.as_fd().as_raw_fd() as u32;
            // the kernel waits here for every program that looked at what was there before, also at the ports' room
            let map = &self.skeleton.maps.openings;
            map.update(&worker.to_ne_bytes(), &fd.to_ne_bytes(), libbpf_rs::MapFlags::ANY).map_err(io::Error::other)?;
            self.rings[worker as usize].set(ring).expect("a worker has one ring");
        }
        for index in 0..abi::PORTS_MAX {
            let made = self.rations.read(index).made;
            // Relaxed: nothing is made meanwhile
            self.rations.word(index, offset_of!(Ration, learned)).store(made, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes back what a port may still admit.
    fn withdraw(&self, index: usize) {
        let made = self.rations.read(index).made;
        // Relaxed: whoever has seen the room before is one of those that a worker hears of
        self.rations.word(index, offset_of!(Ration, may)).store(made, Ordering::Relaxed);
    }

    /// Lets a port begin anew: nothing is on its account, and it may admit nothing until its worker grants room.
    pub fn reset_ration(&self, index: usize) {
        self.withdraw(index);
        let (accounts, moments) = (0..offset_of!(Ration, made), offset_of!(Ration, asked_until_ns)..size_of::<Ration>());
        for offset in accounts.chain(moments).step_by(4) {
            // Relaxed: statistics, and a moment that is over
            self.rations.word(index, offset).store(0, Ordering::Relaxed);
        }
    }

    /// Has the programs drop a port's new connections until then, for want of room.
    pub fn set_full(&self, index: usize, until_ns: u64) {
        for (word, offset) in [until_ns as u32, (until_ns >> 32) as u32].into_iter().zip([0, 4]) {
            // Relaxed: half of it read for a moment lets a few packets ask, or drops them, as others are
            self.rations.word(index, offset_of!(Ration, full_until_ns) + offset).store(word, Ordering::Relaxed);
        }
    }

    /// Lets the programs hold so many connections of a port that its worker has not heard of.
    pub fn grant(&self, index: usize, room: u32) {
        // Relaxed: an older reading grants less
        let learned = self.rations.word(index, offset_of!(Ration, learned)).load(Ordering::Relaxed);
        // Relaxed: the programs count by it, nothing hangs on its order
        self.rations.word(index, offset_of!(Ration, may)).store(learned.wrapping_add(room), Ordering::Relaxed);
    }

    /// A worker's ring, once it has one.
    pub fn ring(&self, worker: u32) -> Option<&Ring> {
        self.rings.get(worker as usize)?.get()
    }

    /// What the programs told a worker and it has not heard yet; see [`Ring::consume`].
    pub fn openings(&self, worker: u32, mut each: impl FnMut(Opening)) {
        let Some(ring) = self.ring(worker) else { return };
        ring.consume(|opening: Opening| {
            if opening.kind == OPENING_ADMITTED && usize::from(opening.key.port) < abi::PORTS_MAX {
                // Relaxed: `grant` reads it in this thread, or a moment later
                self.rations.word(opening.key.port.into(), offset_of!(Ration, learned)).fetch_add(1, Ordering::Relaxed);
            }
            each(opening);
        });
    }

    pub(crate) fn link_path(&self, name: &str) -> PathBuf {
        self.directory.join("links").join(name)
    }

    /// Puts the program at the end of the node's postrouting that lets nothing deferred leave unjudged. The kernel cannot swap
    /// such a link's program, so ours comes first and then an earlier process's goes.
    ///
    /// # Errors
    /// The kernel's reason.
    pub fn guard_node(&self) -> Result<(), LoadError> {
        for family in [Family::V4, Family::V6] {
            let (path, coming) = (self.link_path(&family.link_name()), self.link_path(&format!("{}-coming", family.link_name())));
            // of a process that died here
            let _ = std::fs::remove_file(&coming);
            pin_netfilter(&self.skeleton.progs.unjudged, family, &coming)?;
            std::fs::rename(&coming, &path).map_err(system(format!("pin a link at {}", path.display())))?;
        }
        Ok(())
    }

    /// Takes that program off: what deferred packets there are may leave by any device.
    pub fn unguard_node(&self) {
        for family in [Family::V4, Family::V6] {
            let _ = std::fs::remove_file(self.link_path(&family.link_name()));
        }
    }

    /// Points every link that an earlier process pinned to this process's programs.
    pub(crate) fn swap_pinned_links(&self) -> Result<(), LoadError> {
        let links = self.directory.join("links");
        for entry in std::fs::read_dir(&links).map_err(system("list pinned links"))? {
            self.swap_pinned_link(&entry.map_err(system("list pinned links"))?.path())?;
        }
        Ok(())
    }

    /// Points one pinned link to this process's program of its name. A link whose device is gone is removed: `false`.
    pub(crate) fn swap_pinned_link(&self, path: &Path) -> Result<bool, LoadError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(program) = self.program_named(&name) else { return Ok(false) };
        let Err(error) = update_link(path, program) else { return Ok(true) };
        // a link whose device vanished is defunct: nothing passes there any more. Any other one still enforces.
        match Link::open(path).ok().and_then(|link| link_ifindex(&link)) {
            None => drop(std::fs::remove_file(path)),
            Some(_) => return Err(LoadError::Bpf { what: format!("swap the program of {name}"), source: error }),
        }
        Ok(false)
    }

    /// The program that a link of this name runs, none for a name that is not ours.
    pub(crate) fn program_named(&self, link: &str) -> Option<BorrowedFd<'_>> {
        let programs = &self.skeleton.progs;
        let program = match link.rsplit_once('-')?.1 {
            "leaving" => &programs.leaving,
            "entering" => &programs.entering,
            "exiting" => &programs.exiting,
            "near" => &programs.near,
            "far" => &programs.far,
            "uplink" => &programs.uplink,
            _ => return None,
        };
        Some(program.as_fd())
    }

    /// Attaches a device's hooks, first in their chain, and pins the links. Links that are there already stay: they were
    /// swapped to this process's programs when it started.
    ///
    /// # Errors
    /// The kernel's reason; hooks that are on stay on.
    pub fn attach(&self, hooks: Hooks, ifindex: u32) -> Result<(), LoadError> {
        let programs = &self.skeleton.progs;
        match hooks {
            Hooks::Device => {
                self.attach_tcx(&programs.leaving, ifindex, &format!("device-{ifindex}-leaving"))?;
                self.attach_tcx(&programs.entering, ifindex, &format!("device-{ifindex}-entering"))
            }
            Hooks::Exit => self.attach_tcx(&programs.exiting, ifindex, &format!("exit-{ifindex}-exiting")),
            Hooks::Near(worker) => self.attach_tcx(&programs.near, ifindex, &format!("trunk-{worker}-near")),
            Hooks::Far(worker) => self.attach_xdp(&programs.far, ifindex, &format!("trunk-{worker}-far")),
            Hooks::Uplink => match self.missing(ifindex, &format!("uplink-{ifindex}-uplink")) {
                None => Ok(()),
                Some(path) => pin_native_xdp(&programs.uplink, ifindex, &path),
            },
        }
    }

    /// Whether all of a device's links are pinned and still belong to `ifindex`.
    pub fn attached(&self, hooks: Hooks, ifindex: u32) -> bool {
        link_names(hooks, ifindex).iter().all(|name| {
            let path = self.link_path(name);
            open_pinned(&path).is_some_and(|link| link_ifindex(&link) == Some(ifindex))
        })
    }

    /// Programs that stand in front of ours on a device, by the kernel's numbers; none where ours is first or is not there.
    ///
    /// # Errors
    /// The kernel's reason.
    pub fn in_front(&self, hooks: Hooks, ifindex: u32) -> io::Result<Vec<u32>> {
        let programs = &self.skeleton.progs;
        let ours = match hooks {
            Hooks::Device => vec![
                (libbpf_sys::BPF_TCX_INGRESS, program_id(programs.leaving.as_fd())?),
                (libbpf_sys::BPF_TCX_EGRESS, program_id(programs.entering.as_fd())?),
            ],
            Hooks::Exit => vec![(libbpf_sys::BPF_TCX_EGRESS, program_id(programs.exiting.as_fd())?)],
            Hooks::Near(_) | Hooks::Far(_) | Hooks::Uplink => Vec::new(),
        };
        let mut in_front = Vec::new();
        for (place, own) in ours {
            let chain = chain(ifindex, place)?;
            let before = chain.iter().position(|program| *program == own).unwrap_or(0);
            in_front.extend_from_slice(&chain[..before]);
        }
        Ok(in_front)
    }

    /// Whether ours is the last program that sees what leaves the pod behind this device.
    ///
    /// # Errors
    /// The kernel's reason.
    pub fn is_last_to_see_leaving(&self, ifindex: u32) -> io::Result<bool> {
        let own = program_id(self.skeleton.progs.leaving.as_fd())?;
        Ok(chain(ifindex, libbpf_sys::BPF_TCX_INGRESS)?.last() == Some(&own))
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

    /// Takes a device's hooks off. Traffic of that device passes unjudged from here on.
    pub fn detach(&self, hooks: Hooks, ifindex: u32) {
        for name in link_names(hooks, ifindex) {
            let path = self.link_path(&name);
            if let Some(link) = open_pinned(&path) {
                let _ = link.detach();
            }
            let _ = std::fs::remove_file(path);
        }
    }

    /// Where to pin a link that is not there yet; `None` where it is.
    fn missing(&self, ifindex: u32, name: &str) -> Option<PathBuf> {
        let path = self.link_path(name);
        if let Some(link) = open_pinned(&path) {
            if link_ifindex(&link) == Some(ifindex) {
                return None;
            }
            let _ = link.detach();
        }
        let _ = std::fs::remove_file(&path);
        Some(path)
    }

    /// Unpins the links of devices that are gone.
    pub fn sweep(&self) {
        for entry in std::fs::read_dir(self.directory.join("links")).into_iter().flatten().flatten() {
            let of_the_node = entry.file_name().to_string_lossy().ends_with(REPLACED);
            if !of_the_node && Link::open(entry.path()).is_ok_and(|link| link_ifindex(&link).is_none()) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    fn attach_tcx(&self, program: &ProgramMut<'_>, ifindex: u32, name: &str) -> Result<(), LoadError> {
        self.missing(ifindex, name).map_or(Ok(()), |path| pin_tcx(program, ifindex, &path))
    }

    fn attach_xdp(&self, program: &ProgramMut<'_>, ifindex: u32, name: &str) -> Result<(), LoadError> {
        self.missing(ifindex, name).map_or(Ok(()), |path| pin_xdp(program, ifindex, &path))
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

fn link_names(hooks: Hooks, ifindex: u32) -> Vec<String> {
    match hooks {
        Hooks::Device => vec![format!("device-{ifindex}-leaving"), format!("device-{ifindex}-entering")],
        Hooks::Exit => vec![format!("exit-{ifindex}-exiting")],
        Hooks::Near(worker) => vec![format!("trunk-{worker}-near")],
        Hooks::Far(worker) => vec![format!("trunk-{worker}-far")],
        Hooks::Uplink => vec![format!("uplink-{ifindex}-uplink")],
    }
}
