//! A network namespace without a name: nothing of it can be left over, and nothing in it reaches a real device.

use anyhow::{Context, Result, anyhow, bail};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

/// The kernel keeps it as long as this is open.
#[derive(Debug)]
pub(super) struct Namespace(File);

/// A device whose other end is down: whatever is sent through it is freed at once, on the sender's core. Packets have one
/// next hop, so that there is one neighbour and not one for each address.
const DEVICE: [&[&str]; 6] = [
    &["link", "set", "lo", "up"],
    &["link", "add", "bench0", "type", "veth", "peer", "name", "bench1"],
    &["link", "set", "bench0", "up"],
    &["addr", "add", "192.0.2.1/32", "dev", "bench0"],
    &["neigh", "add", "192.0.2.2", "lladdr", "02:00:00:00:00:02", "dev", "bench0", "nud", "permanent"],
    &["route", "add", "default", "via", "192.0.2.2", "dev", "bench0", "onlink"],
];

impl Namespace {
    /// # Errors
    ///
    /// This process may not make one, or `ip` is missing.
    pub(super) fn new() -> Result<Self> {
        let thread = std::thread::spawn(|| {
            // SAFETY: this thread only: it shares no file descriptors table, and ends below.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("a network namespace (needs root)")?;
            File::open("/proc/thread-self/ns/net").context("/proc/thread-self/ns/net")
        });
        let namespace = Self(thread.join().map_err(|_| anyhow!("the namespace's thread panicked"))??);
        namespace.inside(|| DEVICE.iter().try_for_each(|arguments| run("ip", arguments, "")))?;
        Ok(namespace)
    }

    /// Does `work` there, in a thread of its own; programs that it starts are there too.
    ///
    /// # Errors
    ///
    /// Those of `work`.
    pub(super) fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).context("entering the namespace")?;
                work()
            });
            thread.join().map_err(|_| anyhow!("the namespace's thread panicked"))?
        })
    }

    /// Hands `text` to nft.
    ///
    /// # Errors
    ///
    /// It is missing, or refuses something.
    pub(super) fn nft(&self, text: &str) -> Result<()> {
        self.inside(|| run("nft", &["-f", "-"], text))
    }
}

fn run(program: &str, arguments: &[&str], input: &str) -> Result<()> {
    let piped = || Stdio::piped();
    let child = Command::new(program).args(arguments).stdin(piped()).stdout(Stdio::null()).stderr(piped()).spawn();
    let mut child = child.with_context(|| format!("{program} (Debian: nftables, iproute2)"))?;
    let mut stdin = child.stdin.take().context("its input")?;
    // it may end before it has read everything; what it says then counts
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().with_context(|| program.to_owned())?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let first: String = said.lines().next().unwrap_or_default().chars().take(200).collect();
        bail!("{program} {}: {first}", arguments.join(" "));
    }
    Ok(())
}
