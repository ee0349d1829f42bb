//! On what machine a figure was measured, and how quiet it was.

use anyhow::{Context, Result, ensure};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

/// The machine and the build.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Environment {
    /// As in `/proc/cpuinfo`.
    pub(crate) cpu_model: String,
    /// Of its flags those that vector code and the clock ask for.
    pub(crate) cpu_flags: Vec<String>,
    /// Peers that this program was built with.
    pub(crate) features: Vec<&'static str>,
    /// CPUs that this process may use.
    pub(crate) cores: usize,
    /// `uname -sr`.
    pub(crate) kernel: String,
    /// What the source was built from, with `-dirty` where it differs from the commit.
    pub(crate) commit: String,
    /// `release` or `debug`.
    pub(crate) build: String,
    /// The first line of `iperf3 --version`, where the bench uses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) iperf3: Option<String>,
    /// One, five and fifteen minutes, before the run.
    pub(crate) load_before: String,
    /// After the run.
    pub(crate) load_after: String,
    /// Share of the CPU time that others used just before the run, when it did nothing yet.
    pub(crate) others_before_percent: f64,
    /// Just after the run.
    pub(crate) others_after_percent: f64,
    /// Of all CPU time during the run, the share that the hypervisor gave to others.
    pub(crate) steal_percent: f64,
}

impl Environment {
    /// Reads everything that is known before the run.
    pub(crate) fn read() -> Self {
        let (uname, cpuinfo) = (rustix::system::uname(), fs::read_to_string("/proc/cpuinfo").unwrap_or_default());
        let features = [("bpf", cfg!(feature = "bpf")), ("dpdk", cfg!(feature = "dpdk"))];
        Self {
            cpu_model: cpu_model(&cpuinfo),
            cpu_flags: cpu_flags(&cpuinfo),
            features: features.into_iter().filter(|(_, built)| *built).map(|(name, _)| name).collect(),
            cores: allowed_cpus().len(),
            kernel: format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy()),
            commit: commit().unwrap_or_else(|| "unknown".into()),
            build: if cfg!(debug_assertions) { "debug" } else { "release" }.into(),
            iperf3: None,
            load_before: load(),
            load_after: String::new(),
            others_before_percent: others_percent(),
            others_after_percent: 0.0,
            steal_percent: 0.0,
        }
    }

    /// Adds what is known after the run.
    pub(crate) fn finish(&mut self, before: CpuTime) {
        self.load_after = load();
        self.steal_percent = CpuTime::now().since(before).steal_percent();
        self.others_after_percent = others_percent();
    }

    /// Whether others keep this machine from measuring well.
    pub(crate) fn is_busy(&self) -> bool {
        self.others_before_percent > 10.0
    }
}

/// What the machine does while this program sleeps.
fn others_percent() -> f64 {
    let before = CpuTime::now();
    std::thread::sleep(Duration::from_millis(500));
    CpuTime::now().since(before).busy_percent()
}

/// CPUs that this process may use, in ascending order.
pub(crate) fn allowed_cpus() -> BTreeSet<usize> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return BTreeSet::from([0]) };
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// Stays on one core: a chosen one, or the last, which has the fewest interrupts.
///
/// # Errors
///
/// This process may not use that core.
pub(crate) fn pin(chosen: Option<usize>) -> Result<usize> {
    let allowed = allowed_cpus();
    let cpu = chosen.or_else(|| allowed.last().copied()).context("no CPU is allowed")?;
    ensure!(allowed.contains(&cpu), "CPU {cpu} is not among those allowed: {allowed:?}");
    stay_on(cpu)?;
    Ok(cpu)
}

/// This thread stays on that core.
///
/// # Errors
///
/// The kernel does not let it.
pub(crate) fn stay_on(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("cannot stay on CPU {cpu}"))
}

/// `MemAvailable`: what can be had without swapping. Source: proc_meminfo(5).
///
/// # Errors
///
/// `/proc` is not as it should be.
pub(crate) fn memory_available() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).context("/proc/meminfo has no MemAvailable")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().context("MemAvailable")?;
    Ok(kilobytes << 10)
}

/// How long this thread has been on a CPU.
pub(crate) fn thread_time() -> Duration {
    time_of(ClockId::ThreadCPUTime)
}

/// How long all threads of this process, together, have been on CPUs.
pub(crate) fn process_time() -> Duration {
    time_of(ClockId::ProcessCPUTime)
}

fn time_of(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

/// Clock ticks of all CPUs since boot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CpuTime {
    total: u64,
    idle: u64,
    steal: u64,
}

impl CpuTime {
    pub(crate) fn now() -> Self {
        Self::parse(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    /// user nice system idle iowait irq softirq steal; guest time behind them is part of user. Source: proc_stat(5).
    fn parse(stat: &str) -> Self {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
        let ticks: Vec<u64> = line.split_ascii_whitespace().take(8).map(|word| word.parse().unwrap_or(0)).collect();
        let of = |index: usize| ticks.get(index).copied().unwrap_or(0);
        Self { total: ticks.iter().sum(), idle: of(3) + of(4), steal: of(7) }
    }

    fn since(self, before: Self) -> Self {
        Self {
            total: self.total.saturating_sub(before.total),
            idle: self.idle.saturating_sub(before.idle),
            steal: self.steal.saturating_sub(before.steal),
        }
    }

    fn busy_percent(self) -> f64 {
        if self.total == 0 { 0.0 } else { 100.0 * (self.total - self.idle.min(self.total)) as f64 / self.total as f64 }
    }

    fn steal_percent(self) -> f64 {
        if self.total == 0 { 0.0 } else { 100.0 * self.steal as f64 / self.total as f64 }
    }
}

fn cpu_model(cpuinfo: &str) -> String {
    let value = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    value.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, model)| model.trim().to_owned())
}

fn cpu_flags(cpuinfo: &str) -> Vec<String> {
    const TELLING: [&str; 9] =
        ["sse4_2", "avx2", "avx512f", "avx512bw", "avx512vl", "avx512_vbmi", "constant_tsc", "nonstop_tsc", "hypervisor"];
    let line = cpuinfo.lines().find_map(|line| line.strip_prefix("flags")?.split_once(": "));
    let flags = line.map_or("", |(_, flags)| flags).split(' ');
    flags.filter(|flag| TELLING.contains(flag)).map(str::to_owned).collect()
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Of the tree this program was built from; a copied binary says `unknown`.
fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR")]).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let head = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { head } else { format!("{head}-dirty") })
}

/// What a program says of itself; `None` where it is missing.
pub(crate) fn first_line_of(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steal_is_the_eighth_field_and_guest_time_is_not_counted_twice() {
        let before = CpuTime::parse("cpu  100 0 100 700 0 0 0 100 50 0\ncpu0 1 1 1 1 1 1 1 1\n");
        let after = CpuTime::parse("cpu  200 0 200 1000 0 0 0 200 90 0\n");
        let during = after.since(before);
        assert_eq!((during.total, during.idle, during.steal), (600, 300, 100));
        assert_eq!(during.busy_percent(), 50.0);
        assert!((during.steal_percent() - 16.67).abs() < 0.01);
    }

    #[test]
    fn the_model_is_read_from_the_first_cpu() {
        assert_eq!(cpu_flags("flags\t\t: fpu avx2 sse4_2x hypervisor\nflags\t\t: avx512f\n"), ["avx2", "hypervisor"]);
        assert_eq!(cpu_model("processor\t: 0\nmodel name\t: AMD EPYC\nmodel name\t: other\n"), "AMD EPYC");
    }
}
