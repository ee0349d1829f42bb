//! The programs' places: which hooks a device carries, their pinned links, and who stands before and behind them.

use crate::links::{
    Family, REPLACED, chain, link_ifindex, open_pinned, pin_native_xdp, pin_netfilter, pin_tcx, pin_xdp, program_id, update_link,
};
use crate::load::{LoadError, Loaded, system};
use libbpf_rs::{Link, ProgramMut};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

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

impl Loaded {
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
