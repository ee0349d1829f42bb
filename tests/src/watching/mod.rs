//! A control process in front of an API server that breaks in every way, from a seed.
//!
//! ```text
//!   recorded or random history ─▶ test API server ─faults─▶ sluice-control ─published images─▶ a dataplane that adopts
//! ```
//!
//! One number decides the cluster, its changes, the faults and where they strike. Whatever happened on the way, in the end
//! the published image must be, byte for byte, the one compiled from what the server then holds; and none may have been
//! published before every kind was listed once. Sockets and time are real, so that a seed's plan repeats and its timing
//! does not.

mod dataplane;
mod history;
mod plan;

use anyhow::{Context, Result, bail};
use dataplane::Dataplane;
use history::{History, KINDS};
use plan::{Act, Plan};
use sluice_apiserver::{Fault, Recording, Rule, Server};
use sluice_control::{ClusterOptions, Objects, Options, Pace};
use sluice_policy::compile;
use std::path::Path;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a run may take to come to its end once nothing goes wrong any more.
const CONVERGENCE_MAX: Duration = Duration::from_secs(30);
/// How long the lists of one kind fail at the start of some runs.
const HELD: Duration = Duration::from_millis(150);
/// The scenario of the recording.
const SCENARIO: &str = "scenario1";

/// How a seed ended.
#[derive(Debug)]
pub struct Run {
    /// Its number.
    pub seed: u64,
    /// What was done, in order.
    pub log: Vec<String>,
    /// Changes of objects.
    pub changes: u64,
    /// Faults that were ordered.
    pub faults: u64,
    /// Images that were published.
    pub tables: u64,
    /// What is wrong, if anything.
    pub failure: Option<String>,
}

/// Runs one seed on the present runtime.
pub async fn run(seed: u64, recording: &Recording) -> Run {
    let mut run = Run { seed, log: Vec::new(), changes: 0, faults: 0, tables: 0, failure: None };
    if let Err(error) = try_run(&mut run, recording).await {
        run.failure = Some(format!("{error:#}"));
    }
    run
}

async fn try_run(run: &mut Run, recording: &Recording) -> Result<()> {
    let mut plan = Plan::new(run.seed);
    let settings = plan.settings();
    run.log.push(format!("{settings:?}"));
    let server = Server::builder()
        .seed(run.seed)
        .tls(settings.tls)
        .history_max(settings.history_max)
        .streaming_lists(settings.streaming_lists)
        .expiry_as_status(settings.expiry_as_status)
        .bookmark_interval(Duration::from_millis(20))
        .system_namespaces(!settings.recorded)
        .start()
        .await?;
    let mut history = History::begin(server.store(), settings.recorded.then_some((recording, SCENARIO)), run.seed)?;
    let held = settings.held.map(|kind| server.faults().add(Rule::new(Fault::Status { code: 403, retry_after_s: None }).on(kind)));

    let directory = tempfile::tempdir()?;
    let listener = Dataplane::listen(directory.path())?;
    let (stop, stopped) = oneshot::channel::<()>();
    let options = options(&server, directory.path())?;
    let control = tokio::spawn(sluice_control::run(options, async { drop(stopped.await) }));
    let accepted = tokio::task::spawn_blocking(move || Dataplane::accept(&listener));
    let mut dataplane = tokio::time::timeout(CONVERGENCE_MAX, accepted).await.context("the control process does not come")???;
    dataplane.report(history.endpoints(1))?;

    if let Some(rule) = held {
        tokio::time::sleep(HELD).await;
        if dataplane.published().borrow().count > 0 {
            bail!("a table was published while {} could not be listed", settings.held.unwrap_or_default());
        }
        server.faults().remove(rule);
    }
    if settings.settled {
        let first = dataplane.published().wait_for(|last| last.count > 0);
        tokio::time::timeout(CONVERGENCE_MAX, first).await.context("there is no first table")??;
    }
    while let Some(act) = plan.next(history.remaining()) {
        run.log.push(format!("{act:?}"));
        match act {
            Act::Changes(count) => run.changes += history.advance(count)?,
            Act::Fault(rule) => {
                run.faults += 1;
                server.faults().add(rule);
            }
            Act::Cut => server.drop_connections(),
            Act::EndWatches => server.end_watches(),
            Act::Compact => server.store().compact(),
            Act::Outage(length) => {
                run.faults += 1;
                server.go_down().await?;
                run.changes += history.advance(length)?;
                server.come_back().await?;
            }
            Act::Wait(time) => tokio::time::sleep(time).await,
        }
    }
    server.faults().clear();
    dataplane.report(history.endpoints(2))?;

    let expected = history.snapshot(history.endpoints(2))?;
    let arrived = dataplane
        .published()
        .wait_for(|last| last.count > 0 && compile(&expected, last.generation).is_ok_and(|image| image[..] == last.image[..]));
    let arrived = tokio::time::timeout(CONVERGENCE_MAX, arrived).await.map(|arrived| arrived.map(|_| ()));
    run.tables = dataplane.published().borrow().count;
    arrived.context("the published table is not that of the server's objects")?.context("the control process hung up")?;
    drop(stop);
    control.await.context("the control process panicked")??;
    Ok(())
}

/// In a hurry: what a real server would be given seconds for.
fn options(server: &Server, directory: &Path) -> Result<Options> {
    let kubeconfig = directory.join("kubeconfig");
    std::fs::write(&kubeconfig, server.kubeconfig())?;
    let pace = Pace {
        retry_min: Duration::from_millis(2),
        retry_max: Duration::from_millis(100),
        pause: Duration::from_millis(20),
        connect_max: Duration::from_secs(2),
        silence_max: Duration::from_millis(400),
        list_silence_max: Duration::from_millis(600),
    };
    Ok(Options {
        objects: Objects::Cluster(ClusterOptions { kubeconfig: Some(kubeconfig), context: None, pace }),
        run_dir: directory.to_owned(),
        node_name: "node".to_owned(),
        admin: None,
        tell_status: false,
        quiet: Duration::from_millis(2),
        quiet_wait_max: Duration::from_millis(10),
        proof_wait: Duration::from_secs(5),
    })
}

/// The kinds whose first lists may be held up.
fn kinds() -> [&'static str; 4] {
    KINDS.map(|(plural, ..)| plural)
}
