//! Network namespaces: made and named through iproute2, entered by threads.
//!
//! A namespace belongs to a *thread*. [`NetNs::run`] therefore gives each piece of work a fresh thread that joins the
//! namespace and ends with the work; processes started there inherit it. Nothing has to run between fork and exec,
//! so no unsafe code is needed, and the mount namespace stays the machine's own: an agent started this way still sees
//! the bpffs, which `ip netns exec` would hide behind its private `/sys`.

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where iproute2 and container runtimes keep named network namespaces.
const NETNS_DIR: &str = "/run/netns";

/// A named network namespace, existing or not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetNs {
    name: String,
}

impl NetNs {
    /// Names a namespace; nothing is created.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// Its name, as in `ip netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that keeps it alive and that `CNI_NETNS` names.
    pub fn path(&self) -> PathBuf {
        Path::new(NETNS_DIR).join(&self.name)
    }

    /// Whether the file is there.
    pub fn exists(&self) -> bool {
        self.path().exists()
    }

    /// Creates it with its loopback device up.
    pub fn create(&self) -> Result<()> {
        ip(&["netns", "add", &self.name])?;
        ip(&["-n", &self.name, "link", "set", "lo", "up"])
    }

    /// Removes the name; the kernel frees the namespace when no process is left in it. Succeeds when there is none.
    pub fn delete(&self) -> Result<()> {
        if !self.exists() {
            return Ok(());
        }
        ip(&["netns", "del", &self.name])
    }

    /// Device and inode: what `/proc/PID/ns/net` of a process inside it resolves to.
    pub fn identity(&self) -> Result<(u64, u64)> {
        let path = self.path();
        let meta = std::fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok((meta.dev(), meta.ino()))
    }

    /// Moves the calling thread into the namespace, for good. Only for a thread that is about to end or to `exec`.
    pub fn enter(&self) -> Result<()> {
        let path = self.path();
        let file = File::open(&path).with_context(|| format!("network namespace {} is gone", path.display()))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("cannot enter the network namespace {}; is this root?", self.name))
    }

    /// Runs `work` on a thread inside the namespace and waits for it. A panic of the work is passed on.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter()?;
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Writes `net.*` sysctls of the namespace, given as paths below `/proc/sys/net`. A missing key is an error, so
    /// that a kernel without it is noticed here and not as a packet lost later.
    pub fn set_sysctls(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            for (key, value) in settings {
                let path = Path::new("/proc/sys/net").join(key);
                std::fs::write(&path, value).with_context(|| format!("cannot set {} = {value} in {}", path.display(), self.name))?;
            }
            Ok(())
        })
    }

    /// All namespaces whose name starts with `prefix`, sorted; also those of a lab whose state is lost.
    pub fn with_prefix(prefix: &str) -> Result<Vec<Self>> {
        let entries = match std::fs::read_dir(NETNS_DIR) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("cannot list {NETNS_DIR}")),
        };
        let mut found: Vec<Self> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with(prefix))
            .map(Self::named)
            .collect();
        found.sort();
        Ok(found)
    }
}

/// Runs `ip` of iproute2 and turns its complaint into our error.
pub(crate) fn ip(args: &[&str]) -> Result<()> {
    iproute2("ip", args)
}

/// The same of `bridge`.
pub(crate) fn bridge(args: &[&str]) -> Result<()> {
    iproute2("bridge", args)
}

fn iproute2(program: &str, args: &[&str]) -> Result<()> {
    let output = Command::new(program).args(args).output().with_context(|| format!("cannot run `{program}`; is iproute2 installed?"))?;
    if !output.status.success() {
        bail!("`{program} {}` failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
