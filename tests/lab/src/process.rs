//! Processes of the lab that outlive the command which started them, and how to end exactly those.
//!
//! A pid alone proves nothing: it may have been reused since it was written down. A [`ProcessId`] therefore holds the
//! start time too, and the signal goes through a pidfd that was opened *before* the start time was compared, so that
//! no foreign process is ever hit.

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// One process for the whole life of the machine: pid and start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// As in `/proc/PID`.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`: clock ticks since boot.
    pub start_ticks: u64,
}

impl ProcessId {
    /// The process that has this pid now; `None` when there is none, or only its zombie.
    pub fn of(pid: i32) -> Option<Self> {
        let (process, state) = Self::read(pid)?;
        (!matches!(state, 'Z' | 'X')).then_some(process)
    }

    fn read(pid: i32) -> Option<(Self, char)> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command name is in parentheses and may hold anything, so the fields are counted from the last one.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let start_ticks = fields.nth(18)?.parse().ok()?;
        Some((Self { pid, start_ticks }, state))
    }

    /// This very process.
    pub fn current() -> Self {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        Self::of(pid).expect("a running process has a stat file")
    }

    /// Whether it still runs.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// A descriptor of this process and of no other; its zombie counts.
    fn open(self) -> Option<OwnedFd> {
        let pidfd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        Self::read(self.pid).is_some_and(|(process, _)| process == self).then_some(pidfd)
    }

    /// Sends a signal to this process and to no other. True when it was there to receive it.
    pub fn signal(self, signal: Signal) -> bool {
        self.is_alive() && self.open().is_some_and(|pidfd| pidfd_send_signal(&pidfd, signal).is_ok())
    }

    /// Waits until its last thread has ended, and with it its sockets; false when it has not within `limit`.
    pub fn wait_gone(self, limit: Duration) -> bool {
        let Some(pidfd) = self.open() else { return true };
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
                Ok(ready) => return ready > 0,
                Err(Errno::INTR) => {}
                Err(_) => return !self.is_alive(),
            }
        }
    }

    /// SIGKILL, and waits until it is gone; a child of ours is reaped.
    pub fn kill(self) -> bool {
        self.signal(Signal::KILL);
        let gone = self.wait_gone(Duration::from_secs(5));
        self.reap();
        gone
    }

    /// SIGTERM, and SIGKILL where that is not heeded within `grace`.
    pub fn terminate(self, grace: Duration) -> bool {
        self.signal(Signal::TERM);
        let gone = self.wait_gone(grace) || self.kill();
        self.reap();
        gone
    }

    fn reap(self) {
        if let (Some(pid), None) = (Pid::from_raw(self.pid), Self::of(self.pid)) {
            // ECHILD, where it is not our child, is the common and harmless answer.
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
}

/// Starts a process that outlives this one: its own process group, so that Ctrl-C at the terminal does not reach it,
/// no input, and its output at the end of `log`. It joins the network namespace of the calling thread.
pub(crate) fn spawn_detached(command: &mut Command, log: &Path, stdout: Option<Stdio>) -> Result<std::process::Child> {
    let file = open_log(log)?;
    let stdout = match stdout {
        Some(stdout) => stdout,
        None => Stdio::from(file.try_clone().context("cannot duplicate a descriptor")?),
    };
    command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::from(file)).process_group(0);
    command.spawn().with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))
}

fn open_log(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).open(path).with_context(|| format!("cannot open the log {}", path.display()))
}

/// Kills every process whose main thread is in one of the namespaces (device and inode of each), except this one.
/// Such a process was started through the lab, as a container's processes are: it ends with its pod. Several rounds,
/// since a process may be forking meanwhile. Returns how many were killed.
pub(crate) fn kill_inside(namespaces: &BTreeSet<(u64, u64)>) -> usize {
    let own = ProcessId::current();
    let mut killed = 0;
    for _ in 0..5 {
        let victims: Vec<ProcessId> = running().filter(|process| *process != own && is_inside(*process, namespaces)).collect();
        if victims.is_empty() {
            break;
        }
        for victim in &victims {
            killed += usize::from(victim.signal(Signal::KILL));
        }
        for victim in victims {
            victim.wait_gone(Duration::from_secs(2));
        }
    }
    killed
}

fn running() -> impl Iterator<Item = ProcessId> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| ProcessId::of(entry.file_name().to_str()?.parse().ok()?))
}

fn is_inside(process: ProcessId, namespaces: &BTreeSet<(u64, u64)>) -> bool {
    fs::metadata(format!("/proc/{}/ns/net", process.pid)).is_ok_and(|meta| namespaces.contains(&(meta.dev(), meta.ino())))
}

/// The last `lines` lines of a log, for the error that says why an agent is not there.
pub fn log_tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_pid_is_another_process() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let id = ProcessId::of(child.id() as i32).unwrap();
        let earlier = ProcessId { start_ticks: id.start_ticks - 1, ..id };
        assert!(!earlier.is_alive());
        assert!(!earlier.signal(Signal::KILL));
        assert!(id.is_alive());
        assert!(id.kill());
        assert!(!id.is_alive());
        let _ = child.wait();
    }
}
