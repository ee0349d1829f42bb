//! The trunks: one single-queue veth pair for each worker, its far end in a private network namespace.
//!
//! ```text
//!   node's namespace                 RUN/netns-far (kept by a bind mount, so it survives this process)
//!   sluice-n0 (tcx near) ══════════ sluice-f0 (XDP far, the AF_XDP socket of worker 0)
//! ```
//!
//! The far ends are out of everybody's sight: nothing else can send into a trunk. The near end does neither IPv6 nor ARP,
//! and completes checksums itself (`tx off`), because XDP sees frames after that. It receives by NAPI (`gro on`): what the far
//! end's program redirects to it, a punt that found no worker, is otherwise lost without a trace.

use crate::netlink::{Link, Netlink, inside};
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// MTU of the trunks: the longest packet of a pod with both headers in front of it.
pub const TRUNK_MTU: u32 = 9300;

/// One worker's trunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trunk {
    /// Its worker.
    pub worker: u32,
    /// Name of the end in the node's namespace.
    pub near: String,
    /// Its index there.
    pub near_ifindex: u32,
    /// Name of the end in the private namespace.
    pub far: String,
    /// Its index there.
    pub far_ifindex: u32,
}

/// The private namespace.
#[derive(Debug)]
pub struct FarNamespace {
    file: File,
}

impl FarNamespace {
    /// Where it is mounted.
    pub fn path(run_dir: &Path) -> PathBuf {
        run_dir.join("netns-far")
    }

    /// Finds it, or makes it.
    pub fn open(run_dir: &Path) -> Result<Self> {
        let path = Self::path(run_dir);
        let is_namespace = |path: &Path| rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type == libc::NSFS_MAGIC);
        if !is_namespace(&path) {
            File::create(&path).with_context(|| format!("create {}", path.display()))?;
            let made = std::thread::scope(|scope| {
                let thread = scope.spawn(|| -> io::Result<()> {
                    use rustix::mount::mount_bind;
                    use rustix::thread::UnshareFlags;
                    // SAFETY: this thread holds no file system or namespace state that another one relies on, and ends here.
                    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
                    mount_bind("/proc/thread-self/ns/net", &path)?;
                    Ok(())
                });
                thread.join().expect("the thread does not panic")
            });
            made.with_context(|| format!("make the trunks' network namespace at {} (needs CAP_SYS_ADMIN)", path.display()))?;
        }
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        Ok(Self { file })
    }

    /// Its descriptor.
    pub fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Unmounts it; the trunks go with the namespace.
    pub fn remove(run_dir: &Path) {
        let path = Self::path(run_dir);
        let _ = rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH);
        let _ = std::fs::remove_file(path);
    }
}

/// Finds a worker's trunk, or makes it. `sysctls` is a `/proc/sys/net` that can be written; it shows the network namespace of
/// whoever looks, so it serves both ends.
pub fn ensure(worker: u32, far_namespace: &FarNamespace, sysctls: &Path) -> Result<Trunk> {
    let (near, far) = (format!("sluice-n{worker}"), format!("sluice-f{worker}"));
    let mut netlink = Netlink::open()?;
    let far_link = |far: &str| inside(far_namespace.fd(), || Netlink::open()?.link_by_name(far));
    let usable =
        |near: &Link, far: &Option<Link>| near.is_veth && near.mtu == TRUNK_MTU && far.as_ref().map(|far| far.index) == near.peer_index;
    if let Some(found) = netlink.link_by_name(&near)?
        && !usable(&found, &far_link(&far)?)
    {
        netlink.delete(found.index).with_context(|| format!("remove the unusable trunk {near}"))?;
    }
    if netlink.link_by_name(&near)?.is_none() {
        netlink
            .add_veth(&near, &far, far_namespace.fd(), TRUNK_MTU)
            .with_context(|| format!("make the trunk {near} (needs CAP_NET_ADMIN)"))?;
    }
    let near_link = netlink.link_by_name(&near)?.with_context(|| format!("trunk {near} vanished"))?;
    disable_ipv6(sysctls, &near)?;
    switch(&near, ETHTOOL_STXCSUM, false).with_context(|| format!("ethtool -K {near} tx off"))?;
    switch(&near, ETHTOOL_SGRO, true).with_context(|| format!("ethtool -K {near} gro on"))?;
    netlink.set_up_noarp(near_link.index)?;
    let far_link = inside(far_namespace.fd(), || {
        let mut netlink = Netlink::open()?;
        let link = netlink.link_by_name(&far)?.ok_or_else(|| io::Error::other(format!("{far} vanished")))?;
        disable_ipv6(sysctls, &far)?;
        netlink.set_up_noarp(link.index)?;
        Ok(link)
    })
    .with_context(|| format!("set up {far}"))?;
    if !usable(&near_link, &Some(far_link.clone())) {
        bail!("trunk {near} is not connected to {far}");
    }
    Ok(Trunk { worker, near, near_ifindex: near_link.index, far, far_ifindex: far_link.index })
}

/// Removes trunks that no worker serves any more.
pub fn remove_from(first_unused: u32) -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    for worker in first_unused..sluice_flow::limits::WORKERS_MAX as u32 {
        if let Some(link) = netlink.link_by_name(&format!("sluice-n{worker}"))? {
            netlink.delete(link.index)?;
        }
    }
    Ok(())
}

fn disable_ipv6(sysctls: &Path, interface: &str) -> io::Result<()> {
    let path = sysctls.join("ipv6/conf").join(interface).join("disable_ipv6");
    std::fs::write(&path, "1").or_else(|error| match error.kind() {
        // a kernel without IPv6
        io::ErrorKind::NotFound if sysctls.join("core").is_dir() => Ok(()),
        io::ErrorKind::ReadOnlyFilesystem => Err(io::Error::new(
            error.kind(),
            format!("{}: {error}; mount the node's /proc/sys/net into the container and name it with --proc-sys-net", path.display()),
        )),
        kind => Err(io::Error::new(kind, format!("{}: {error}", path.display()))),
    })
}

const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_SGRO: u32 = 0x2c;

/// An offload on or off, by ioctl. Source: linux/ethtool.h.
fn switch(interface: &str, command: u32, on: bool) -> io::Result<()> {
    #[repr(C)]
    struct EthtoolValue {
        command: u32,
        data: u32,
    }
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    let mut value = EthtoolValue { command, data: u32::from(on) };
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(&mut value).cast();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
    // SAFETY: request and value live through the call, which writes at most to both.
    let result = unsafe { libc::ioctl(fd, libc::SIOCETHTOOL as _, &mut request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
