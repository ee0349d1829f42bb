//! Running things inside a pod: its network namespace, and its own `/etc/resolv.conf` and `/etc/hosts`.
//!
//! The files are bound over the machine's in a private mount namespace that ends with the process, so nothing is left
//! to unmount and no other process sees them.

use crate::layout::Layout;
use crate::netns::NetNs;
use crate::process::{ProcessId, spawn_detached};
use crate::state::PodState;
use anyhow::{Context, Result, bail};
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use sluice_flow::ObjectName;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The line with which a server says that its ports are bound.
pub const READY: &str = "ready";

/// The files of one pod below `STATE/etc`.
pub fn etc_dir(layout: &Layout, pod: &ObjectName) -> PathBuf {
    layout.etc().join(format!("{}.{}", pod.namespace, pod.name))
}

/// Moves the calling thread into the pod, for good.
fn enter(layout: &Layout, pod: &ObjectName) -> Result<()> {
    NetNs::named(layout.pod_netns(pod)).enter()?;
    // SAFETY: NEWNS gives this thread its own mounts and working directory; the descriptor table stays shared, so
    // no other thread loses sight of a descriptor.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.context("cannot make a private mount namespace")?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).context("cannot make the mounts private")?;
    for name in ["resolv.conf", "hosts"] {
        let (source, target) = (etc_dir(layout, pod).join(name), Path::new("/etc").join(name));
        if source.exists() && target.exists() {
            mount_bind(&source, &target).with_context(|| format!("cannot bind {} over {}", source.display(), target.display()))?;
        }
    }
    Ok(())
}

fn on_thread_inside<T: Send>(layout: &Layout, pod: &ObjectName, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(layout, pod)?;
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Replaces this process by a command inside the pod; returns only on failure.
pub fn exec(layout: &Layout, pod: &ObjectName, command: &mut Command) -> anyhow::Error {
    match enter(layout, pod) {
        Ok(()) => anyhow::Error::new(command.exec()).context(format!("cannot run {}", command.get_program().to_string_lossy())),
        Err(error) => error,
    }
}

/// Runs a command inside the pod to its end and returns what it said.
pub fn output(layout: &Layout, pod: &ObjectName, command: &mut Command) -> Result<Output> {
    on_thread_inside(layout, pod, || {
        let program = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {program} in {pod}"))
    })
}

/// Starts a command inside the pod; its streams are as the caller set them.
pub fn spawn(layout: &Layout, pod: &ObjectName, command: &mut Command) -> Result<Child> {
    on_thread_inside(layout, pod, || {
        let program = command.get_program().to_string_lossy().into_owned();
        command.spawn().with_context(|| format!("cannot start {program} in {pod}"))
    })
}

/// Starts a pod's server and waits until its ports are bound.
pub fn start_server(layout: &Layout, bin_dir: &Path, pod: &PodState) -> Result<ProcessId> {
    let log = layout.logs().join("servers.log");
    let mut command = Command::new(bin_dir.join("sluice-lab"));
    if pod.dns {
        command.arg("serve-dns").arg(layout.dns_hosts());
    } else {
        command.arg("serve-pod").arg(pod.pod.to_string()).args(pod.served.iter().map(ToString::to_string));
    }
    let mut child = on_thread_inside(layout, &pod.pod, || spawn_detached(&mut command, &log, Some(Stdio::piped())))?;
    let process = ProcessId::of(child.id() as i32);
    let mut line = String::new();
    let stdout = child.stdout.take().context("a piped stdout is there")?;
    BufReader::new(stdout).read_line(&mut line).context("cannot hear from a server")?;
    match process {
        Some(process) if line.trim_end() == READY => Ok(process),
        _ => {
            let _ = child.kill();
            let _ = child.wait();
            bail!("the server of {} did not start:\n{}", pod.pod, crate::process::log_tail(&log, 5))
        }
    }
}
