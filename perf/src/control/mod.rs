//! The control process in front of a large cluster.
//!
//! ```text
//!   this program: test API server ◀─ watches ─ sluice-control ─ tables ─▶ this program: a dataplane that adopts
//!                                                             └─ then ──▶ sluice-dataplane ◀─ ADD ─ sluice-cni
//! ```

mod attach;
mod cluster;
mod node;
mod report;

use crate::cli::Control as Arguments;
use crate::environment::{CpuTime, Environment};
use crate::progress::{end_progress, progress};
use crate::report::{Destination, Outcome, print_doubts};
use crate::workload::Workload;
use anyhow::{Context, Result, ensure};
use attach::Node;
use cluster::{Churn, Starts, fill};
use node::{Awaited, Dataplane, Process, definitions};
use report::{Figures, Report, Reporter};
use sluice_apiserver::{Resource, Server};
use sluice_flow::{Addr, PortIndex};
use sluice_policy::Snapshot;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

/// The first table must come within this time.
const START_MAX: Duration = Duration::from_secs(300);
/// Pods that start here, one after another.
const STARTS: usize = 200;
const REPORTER_WINDOW: Duration = Duration::from_secs(15);
/// What is under way when changes end must be seen within this time.
const END_MAX: Duration = Duration::from_secs(30);

/// Runs the bench.
///
/// # Errors
///
/// Something cannot be started, a table is wrong, or a change is never seen.
pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    let destination = Destination::new(arguments.out.as_ref(), arguments.check)?;
    let (mut environment, ticks, start) = (Environment::read(), CpuTime::now(), Instant::now());
    print_doubts(&environment);
    let (workload, seconds) = if arguments.quick { (Workload::S1, 2) } else { (arguments.workload, arguments.seconds) };
    let window = Duration::from_secs(seconds.into());

    progress(&format!("making {}", workload.name()));
    let snapshot = workload.generate(arguments.seed)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut builder = Server::builder();
    for definition in definitions()? {
        builder = builder.resource(Resource::from_crd(&definition).context("a definition without a resource")?);
    }
    let server = runtime.block_on(builder.start())?;
    progress("filling the API server");
    let services = if arguments.quick { 0 } else { arguments.services };
    fill(server.store(), &snapshot, services, arguments.pod_bytes as usize)?;
    let mut churn = Churn::new(server.store().clone(), &snapshot, arguments.pod_bytes as usize, arguments.seed)?;
    let endpoints = snapshot.endpoints.clone();
    let sizes = report::Sizes::of(&snapshot, server.store())?;
    let node_name = node_of(&snapshot)?;
    drop(snapshot);

    // as on a node, where it is /run
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
    let kubeconfig = directory.path().join("kubeconfig");
    std::fs::write(&kubeconfig, server.kubeconfig())?;
    let listener = sluice_wire::Listener::bind(&directory.path().join(sluice_wire::DATAPLANE_SOCKET))?;
    progress("starting sluice-control");
    let started = Instant::now();
    // as the chart starts it
    let arguments_of_agent = ["--tell-status", "--node-name", &node_name];
    let process = Process::start(directory.path(), &kubeconfig, &arguments_of_agent, "control.log")?;
    let dataplane = Dataplane::accept(&listener, endpoints.clone())?;
    wait(START_MAX, || dataplane.look(|seen| seen.tables > 0)).context("no table came")?;
    let start_to_enforced = started.elapsed();
    let start_cpu = process.cpu_time()?;
    let mut figures = Figures { start_to_enforced, start_cpu, ..Figures::default() };

    progress("nothing happens");
    // what the start left behind is given back
    std::thread::sleep(window.min(Duration::from_secs(10)));
    let before = process.cpu_time()?;
    std::thread::sleep(window);
    figures.idle_cpu_percent = percent(process.cpu_time()? - before, window);
    figures.steady_bytes = process.memory("VmRSS")?;

    progress(&format!("{} changes a second", arguments.rate));
    let (before, tables_before) = (process.cpu_time()?, dataplane.look(|seen| seen.tables));
    let stormed = storm(&mut churn, arguments.rate, window, |address, since| {
        figures.changes += 1;
        address.into_iter().for_each(|address| dataplane.await_change(Awaited { address, since }));
    })?;
    figures.storm_cpu_percent = percent(process.cpu_time()? - before, stormed);
    wait(END_MAX, || dataplane.awaited() == 0).context("changes were never seen in a table")?;
    dataplane.look(|seen| {
        figures.tables = seen.tables - tables_before;
        figures.image_bytes = seen.image_bytes;
        std::mem::swap(&mut figures.delays, &mut seen.delays);
    });
    progress("pods start here");
    let first_free = PortIndex(endpoints.len() as u16);
    let mut starts = Starts::of(&churn);
    let count = if arguments.quick { 5 } else { STARTS };
    figures.starts = starts.each(count, first_free, |endpoint, meanwhile| dataplane.start_pod(endpoint, END_MAX, meanwhile))?;
    match Node::lacks() {
        Some(reason) => eprintln!("sluice-perf: ADD through a real dataplane is NOT MEASURED: {reason}"),
        None => {
            progress("the real dataplane, and its pods");
            drop((dataplane, listener));
            let mut node = Node::start(directory.path())?;
            for endpoint in &endpoints {
                let device = node.device()?;
                node.add(endpoint, device, || Ok(()))?;
            }
            let device = node.device()?;
            progress("pods are attached");
            figures.adds = starts.each(count, first_free, |endpoint, meanwhile| {
                let took = node.add(endpoint, device, meanwhile)?;
                node.del(endpoint, device)?;
                Ok(took)
            })?;
        }
    }
    figures.peak_bytes = process.memory("VmHWM")?;
    figures.after_bytes = process.memory("VmRSS")?;
    progress("the reporter");
    figures.reporter = Some(measure_reporter(directory.path(), &kubeconfig, &mut churn, arguments.rate, window.min(REPORTER_WINDOW))?);
    end_progress();
    ensure!(!figures.delays.is_empty(), "no change could be seen");
    environment.finish(ticks);
    let report = Report::new(environment, arguments, workload, sizes, figures, start.elapsed());
    report.print();
    destination.finish(&report, report.musts_hold())
}

/// Where the pods run that are attached here.
fn node_of(snapshot: &Snapshot) -> Result<String> {
    let pod = snapshot.endpoints.first().and_then(|endpoint| snapshot.pods.get(&endpoint.pod)).context("no pod is attached here")?;
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    Ok(node.unwrap_or("node").to_owned())
}

/// The reporter beside the agent: until it has told of every policy, then with nothing to do, then while pods change.
fn measure_reporter(directory: &Path, kubeconfig: &Path, churn: &mut Churn, rate: u32, window: Duration) -> Result<Reporter> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let started = Instant::now();
    let process = Process::start(directory, kubeconfig, &["--report", "--metrics-bind-address", &address], "reporter.log")?;
    let policies = churn.policies()?;
    wait(START_MAX, || churn.reports().is_ok_and(|reports| reports >= policies)).context("the reporter does not tell of every policy")?;
    let start = started.elapsed();
    std::thread::sleep(Duration::from_secs(2));
    let before = process.cpu_time()?;
    std::thread::sleep(window);
    let idle_cpu_percent = percent(process.cpu_time()? - before, window);
    let before = process.cpu_time()?;
    let stormed = storm(churn, rate, window, |_, _| {})?;
    let storm_cpu_percent = percent(process.cpu_time()? - before, stormed);
    Ok(Reporter { start, idle_cpu_percent, storm_cpu_percent, peak_bytes: process.memory("VmHWM")? })
}

/// Changes at this rate for so long; how long it really was. Each change is told, with the address by which it can be seen.
fn storm(churn: &mut Churn, rate: u32, window: Duration, mut told: impl FnMut(Option<Addr>, Instant)) -> Result<Duration> {
    let begun = Instant::now();
    let mut next = begun;
    while begun.elapsed() < window {
        let since = Instant::now();
        told(churn.step()?, since);
        next += Duration::from_secs(1) / rate;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(begun.elapsed())
}

fn percent(cpu: Duration, of: Duration) -> f64 {
    100.0 * cpu.as_secs_f64() / of.as_secs_f64()
}

/// How long it took until it was so.
fn wait(patience: Duration, is_so: impl Fn() -> bool) -> Result<Duration> {
    let started = Instant::now();
    while !is_so() {
        ensure!(started.elapsed() < patience, "waited {} s", patience.as_secs());
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(started.elapsed())
}
