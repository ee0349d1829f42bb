//! The control process as a child, and the dataplane that it talks to.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use sluice_flow::{Addr, Direction, LocalEndpoint, PortIndex, Protocol};
use sluice_table::Table;
use sluice_table::seal::read_sealed;
use sluice_wire::{Connection, FromDataplane, Listener, ToDataplane};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A binary beside this one.
///
/// # Errors
///
/// It is not there.
pub(super) fn program(name: &str) -> Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name(name);
    ensure!(program.exists(), "{} is missing; build it with: cargo build --release -p {name}", program.display());
    Ok(program)
}

/// The resources that control writes, one JSON document each.
///
/// # Errors
///
/// It does not print them.
pub(super) fn definitions() -> Result<Vec<Value>> {
    let output = Command::new(program("sluice-control")?).arg("--definitions").output().context("sluice-control --definitions")?;
    let text = String::from_utf8(output.stdout)?;
    let documents = text.split("---\n").filter(|document| !document.trim().is_empty());
    documents.map(|document| Ok(serde_json::from_str(document)?)).collect()
}

/// A running `sluice-control`; killed when dropped.
pub(super) struct Process {
    child: Child,
}

impl Process {
    /// Starts the one beside this program; its log goes to that file of the directory.
    ///
    /// # Errors
    ///
    /// It is not there, or cannot be started.
    pub(super) fn start(directory: &Path, kubeconfig: &Path, arguments: &[&str], log: &str) -> Result<Self> {
        let mut command = Command::new(program("sluice-control")?);
        command.arg("--kubernetes").arg("--kubeconfig").arg(kubeconfig).arg("--run-dir").arg(directory).args(arguments);
        let log = File::create(directory.join(log))?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().context("cannot start sluice-control")?;
        Ok(Self { child })
    }

    /// CPU time so far, user and system. Source: proc_pid_stat(5).
    pub(super) fn cpu_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).context("sluice-control is gone")?;
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        // utime and stime are fields 14 and 15; the name was the second
        let ticks = ticks(11) + ticks(12);
        Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
    }

    /// Bytes of memory: `VmRSS` now, `VmHWM` at its peak. Source: proc_pid_status(5).
    pub(super) fn memory(&self, field: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).context("sluice-control is gone")?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).context("no such field")?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().context("kilobytes")?;
        Ok(kilobytes << 10)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // it may be gone already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A change that will be seen in a table.
#[derive(Debug)]
pub(super) struct Awaited {
    /// Who may then reach the first port.
    pub(super) address: Addr,
    pub(super) since: Instant,
}

/// A pod that is being attached.
#[derive(Debug)]
struct Starting {
    port: PortIndex,
    since: Instant,
    took: Option<Duration>,
}

/// What came of the tables.
#[derive(Debug, Default)]
pub(super) struct Seen {
    starting: Option<Starting>,
    pub(super) tables: u64,
    generation: u64,
    awaited: VecDeque<Awaited>,
    pub(super) delays: Vec<Duration>,
    pub(super) image_bytes: usize,
}

/// Adopts every table at once.
pub(super) struct Dataplane {
    seen: Arc<Mutex<Seen>>,
    connection: Connection,
    endpoints: Vec<LocalEndpoint>,
}

impl Dataplane {
    /// Blocks until the control process comes.
    pub(super) fn accept(listener: &Listener, endpoints: Vec<LocalEndpoint>) -> Result<Self> {
        let mut incoming = listener.accept()?.context("nobody came")?;
        let (hello, _) = incoming.recv::<ToDataplane>()?.context("it hung up")?;
        if !matches!(hello, ToDataplane::Control { .. }) {
            bail!("it began with {hello:?}");
        }
        let connection = incoming.try_clone()?;
        connection.send(&FromDataplane::Endpoints { endpoints: endpoints.clone(), generation: 0 }, None)?;
        let seen = Arc::<Mutex<Seen>>::default();
        let kept = Arc::clone(&seen);
        std::thread::Builder::new().name("dataplane".into()).spawn(move || adopt_all(incoming, &kept))?;
        Ok(Self { seen, connection, endpoints })
    }

    pub(super) fn look<T>(&self, of: impl FnOnce(&mut Seen) -> T) -> T {
        of(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn await_change(&self, awaited: Awaited) {
        self.look(|seen| seen.awaited.push_back(awaited));
    }

    /// A pod is attached beside the others: how long it takes until a table that knows it is here. `meanwhile` happens at the
    /// same moment. The pod goes again.
    ///
    /// # Errors
    ///
    /// It is in no table within `patience`, or the control process is gone.
    pub(super) fn start_pod(
        &self,
        endpoint: &LocalEndpoint,
        patience: Duration,
        meanwhile: impl FnOnce() -> Result<()>,
    ) -> Result<Duration> {
        let mut endpoints = self.endpoints.clone();
        endpoints.push(endpoint.clone());
        self.look(|seen| seen.starting = Some(Starting { port: endpoint.port, since: Instant::now(), took: None }));
        self.report(endpoints)?;
        meanwhile()?;
        let begun = Instant::now();
        let took = loop {
            if let Some(took) = self.look(|seen| seen.starting.as_ref().and_then(|starting| starting.took)) {
                break took;
            }
            ensure!(begun.elapsed() < patience, "{} is in no table after {} s", endpoint.pod, patience.as_secs());
            std::thread::sleep(Duration::from_micros(200));
        };
        self.look(|seen| seen.starting = None);
        self.report(self.endpoints.clone())?;
        Ok(took)
    }

    fn report(&self, endpoints: Vec<LocalEndpoint>) -> Result<()> {
        let generation = self.look(|seen| seen.generation);
        Ok(self.connection.send(&FromDataplane::Endpoints { endpoints, generation }, None)?)
    }

    /// How many changes have not been seen yet.
    pub(super) fn awaited(&self) -> usize {
        self.look(|seen| seen.awaited.len())
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        self.connection.shutdown();
    }
}

fn adopt_all(mut connection: Connection, seen: &Mutex<Seen>) {
    while let Ok(Some((ToDataplane::Publish { generation, .. }, Some(fd)))) = connection.recv::<ToDataplane>() {
        let image = read_sealed(fd.as_fd()).expect("published images are sealed");
        let table = Table::from_bytes(&image).expect("published images are sound");
        let now = Instant::now();
        let adopted = FromDataplane::Adopted { generation, adopt_us: 1, connections_cut: 0 };
        if connection.send(&adopted, None).is_err() {
            return;
        }
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.tables += 1;
        seen.generation = generation;
        if let Some(starting) = &mut seen.starting
            && starting.took.is_none()
            && table.endpoint(starting.port).is_some()
        {
            starting.took = Some(now.duration_since(starting.since));
        }
        seen.image_bytes = image.len();
        let Seen { awaited, delays, .. } = &mut *seen;
        awaited.retain(|change| {
            let is_there = table.lookup(PortIndex(0), Direction::Ingress, change.address, Protocol::TCP, 80).is_allow();
            if is_there {
                delays.push(now.duration_since(change.since));
            }
            !is_there
        });
    }
}
