//! The walkthrough of a cluster: a policy on two nodes, a rollout, and whatever may fail, under traffic that counts every
//! packet.
//!
//! The lab plays the ReplicaSet; the API server is the test one, the agents, the plugins and the packets are real.

mod traffic;

use crate::commands::{end_progress, short};
use anstream::println;
use anyhow::{Context, Result, bail};
use owo_colors::OwoColorize;
use sluice_flow::Family;
use sluice_lab::probe::PROBE_TIMEOUT;
use sluice_lab::{Agent, ClusterConfig, Kind, Lab, LabConfig, ObjectRef};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use traffic::{Connections, Endpoints, Flows, addresses};

const PODS: &str = include_str!("../../demo/cluster.yaml");
const POLICY: &str = include_str!("../../demo/cluster-policy.yaml");
const CLIENT: &str = "shop/client";
const INTRUDER: &str = "shop/intruder";
const REPLICAS: usize = 2;
const AWAY: Duration = Duration::from_secs(3);

/// What a step needs.
struct Demo {
    lab: Lab,
    interrupted: Arc<std::sync::atomic::AtomicBool>,
    /// Of sluicectl.
    bin_dir: PathBuf,
    /// The web servers that run.
    replicas: Vec<String>,
    steps: usize,
    failed: Vec<usize>,
}

/// Plays all steps. `next`: another build of the dataplane, to be swapped in under traffic.
pub(crate) fn run(name: &str, mut config: LabConfig, keep: bool, next: Option<&Path>) -> Result<ExitCode> {
    let start = Instant::now();
    config.cluster = Some(ClusterConfig::default());
    let replicas: Vec<String> = (1..=REPLICAS).map(|index| replica(1, index)).collect();
    config.yaml = replicas.iter().map(|pod| web(pod)).fold(PODS.to_owned(), |yaml, pod| yaml + &pod);
    println!("{}", "Two nodes that follow an API server; a web server on each, a client, and an intruder.".bold());
    println!("{}", "Every number below is live traffic between network namespaces on this machine.\n".dimmed());
    let lab = Lab::up(&config);
    end_progress();
    let lab = lab?;
    println!("lab {name} is up after {}", short(start.elapsed()));
    let bin_dir = lab.state()?.bin_dir;
    let mut demo = Demo { lab, interrupted: config.interrupted.clone(), bin_dir, replicas, steps: 0, failed: Vec::new() };
    demo.show_pods()?;
    demo.without_policy()?;
    demo.with_policy()?;
    demo.rollout()?;
    demo.server_away()?;
    demo.control_away()?;
    if let Some(program) = next {
        demo.another_build(program)?;
    }
    println!();
    match demo.failed.as_slice() {
        [] => println!("{} all {} steps behaved, in {}", "✓".green().bold(), demo.steps, short(start.elapsed())),
        steps => println!("{} not as it should be: step {}", "✗".red().bold(), join(steps)),
    }
    let code = if demo.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if keep {
        demo.lab.detach()?;
        println!("{}", format!("the lab stays up; remove it with `sluice-lab --lab {name} down`").dimmed());
    } else {
        demo.lab.down()?;
        println!("{}", "the lab is removed; with --keep it stays up to be tried by hand".dimmed());
    }
    Ok(code)
}

fn join(steps: &[usize]) -> String {
    steps.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The name of a replica, as a ReplicaSet of that version of the Deployment would make it.
fn replica(version: u32, index: usize) -> String {
    format!("shop/web-v{version}-{index}")
}

fn web(pod: &str) -> String {
    let name = pod.trim_start_matches("shop/");
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: web}}}}\n\
         spec: {{containers: [{{name: c, image: nginx, ports: [{{containerPort: 80}}, {{containerPort: 80, protocol: UDP}}]}}]}}\n"
    )
}

impl Demo {
    fn step(&mut self, title: &str) -> Result<()> {
        // Relaxed: a lone flag set by a signal handler.
        if self.interrupted.load(Ordering::Relaxed) {
            bail!("interrupted; the lab is removed");
        }
        self.steps += 1;
        println!("\n{} {}", format!("Step {}", self.steps).bold().cyan(), title.bold());
        Ok(())
    }

    /// One line of a result, and whether it is as it should be.
    fn result(&mut self, good: bool, text: &str) {
        let mark = if good { "✓".green().to_string() } else { "✗".red().bold().to_string() };
        println!("  {mark} {text}");
        if !good && self.failed.last() != Some(&self.steps) {
            self.failed.push(self.steps);
        }
    }

    fn show_pods(&self) -> Result<()> {
        for pod in self.lab.state()?.pods.values().filter(|pod| pod.pod.namespace == "shop") {
            let addresses: Vec<String> = pod.addresses.iter().map(ToString::to_string).collect();
            println!("  {:<18} on {}  {}", pod.pod.to_string(), pod.node.bold(), addresses.join("  ").dimmed());
        }
        Ok(())
    }

    /// Tries every web server from both pods, in both families.
    fn attempts(&mut self, intruder_may: bool) -> Result<()> {
        for (from, may) in [(CLIENT, true), (INTRUDER, intruder_may)] {
            for to in self.replicas.clone() {
                let mut reached = Vec::new();
                for family in [Family::V4, Family::V6] {
                    let host = match family {
                        Family::V4 => self.lab.pod_address(&to, family)?.to_string(),
                        Family::V6 => format!("[{}]", self.lab.pod_address(&to, family)?),
                    };
                    reached.push(self.lab.probe_http(from, &format!("http://{host}"))?.outcome.reached());
                }
                let (own, other) = (self.lab.pod(from)?.node, self.lab.pod(&to)?.node);
                let way = if own == other { format!("within {own}") } else { format!("{own} to {other}") };
                let said = if reached.iter().all(|reached| *reached) { "reached over IPv4 and IPv6" } else { "no answer" };
                let good = reached.iter().all(|reached| *reached == may);
                self.result(good, &format!("{from:<13} → {to:<13} {way:<15} {said}"));
            }
        }
        Ok(())
    }

    /// What sluicectl says on the destination's node.
    fn explain(&self, from: &str, to: &str) -> Result<()> {
        let layout = self.lab.at(&self.lab.pod(to)?.node);
        let mut command = Command::new(self.bin_dir.join("sluicectl"));
        command.arg("--run-dir").arg(layout.run_dir()).args(["explain", from, to, "80"]);
        let output = command.output().context("cannot run sluicectl")?;
        println!("  {}", format!("sluicectl explain {from} {to} 80").bold());
        for line in String::from_utf8_lossy(&output.stdout).lines().chain(String::from_utf8_lossy(&output.stderr).lines()) {
            println!("    {}", line.dimmed());
        }
        Ok(())
    }

    /// A web server that does not run beside the client.
    fn on_another_node(&self) -> Result<String> {
        let own = self.lab.pod(CLIENT)?.node;
        for pod in &self.replicas {
            if self.lab.pod(pod)?.node != own {
                return Ok(pod.clone());
            }
        }
        bail!("every web server runs on {own}");
    }

    fn without_policy(&mut self) -> Result<()> {
        self.step("No policy: everybody reaches everybody, across nodes too")?;
        self.attempts(true)
    }

    fn with_policy(&mut self) -> Result<()> {
        self.step("A policy is written to the API server")?;
        println!("  apply {}", "demo/cluster-policy.yaml".bold());
        for line in POLICY.lines() {
            println!("    {}", line.dimmed());
        }
        let change = self.lab.apply_yaml(POLICY)?;
        for (node, took) in &change.on_nodes {
            println!("  in force on {node} after {}", short(*took).bold());
        }
        self.attempts(false)?;
        let other = self.on_another_node()?;
        self.explain(CLIENT, &other)?;
        self.explain(INTRUDER, &other)
    }

    fn rollout(&mut self) -> Result<()> {
        self.step("A rollout: every web server is replaced, under connections of the client and of the intruder")?;
        let endpoints: Endpoints = Arc::new(Mutex::new(addresses(&self.lab, &self.replicas)?));
        let client = Connections::start(&self.lab, CLIENT, endpoints.clone(), PROBE_TIMEOUT)?;
        let intruder = Connections::start(&self.lab, INTRUDER, endpoints.clone(), Duration::from_millis(100))?;
        for index in 0..REPLICAS {
            let (old, new) = (self.replicas[index].clone(), replica(2, index + 1));
            let start = Instant::now();
            self.lab.apply_yaml(&web(&new))?;
            self.replicas[index].clone_from(&new);
            *endpoints.lock().unwrap_or_else(PoisonError::into_inner) = addresses(&self.lab, &self.replicas)?;
            println!("  {new} runs on {} after {}", self.lab.pod(&new)?.node, short(start.elapsed()));
            // Who was told of the old one before has time to be done with it.
            std::thread::sleep(Duration::from_millis(500));
            self.lab.delete(&[ObjectRef::new(Kind::Pod, &old)])?;
            println!("  {old} is gone");
        }
        let (made, failed) = client.finish()?;
        let (tried, shut) = intruder.finish()?;
        self.result(failed == 0 && made > 0, &format!("{made} connections of the client, {failed} failed"));
        self.result(tried == shut && tried > 0, &format!("{tried} attempts of the intruder, {} got through", tried - shut));
        Ok(())
    }

    /// Established flows and new connections while something happens.
    fn under_traffic(&mut self, happening: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
        let endpoints: Endpoints = Arc::new(Mutex::new(addresses(&self.lab, &self.replicas)?));
        let flows = Flows::start(&self.lab, CLIENT, &self.replicas)?;
        let client = Connections::start(&self.lab, CLIENT, endpoints.clone(), PROBE_TIMEOUT)?;
        let intruder = Connections::start(&self.lab, INTRUDER, endpoints, Duration::from_millis(100))?;
        happening(&self.lab)?;
        std::thread::sleep(Duration::from_millis(300));
        let ((made, failed), (tried, shut), (sent, lost)) = (client.finish()?, intruder.finish()?, flows.finish()?);
        self.result(lost == 0 && sent > 0, &format!("{sent} datagrams of established flows, {lost} lost"));
        self.result(failed == 0 && made > 0, &format!("{made} new connections of the client, {failed} failed"));
        self.result(tried == shut && tried > 0, &format!("{tried} attempts of the intruder, {} got through", tried - shut));
        Ok(())
    }

    fn server_away(&mut self) -> Result<()> {
        self.step("The API server is away")?;
        self.under_traffic(|lab| {
            lab.outage(true)?;
            std::thread::sleep(AWAY);
            lab.outage(false)?;
            println!("  away for {}, and back", short(AWAY));
            lab.settle().map(|_| ())
        })
    }

    fn control_away(&mut self) -> Result<()> {
        self.step("kill -9 of the control process on both nodes")?;
        self.under_traffic(|lab| {
            let nodes: Vec<String> = lab.state()?.nodes.into_keys().collect();
            nodes.iter().try_for_each(|node| lab.kill_agent_on(node, Agent::Control).map(|_| ()))?;
            std::thread::sleep(AWAY);
            nodes.iter().try_for_each(|node| lab.start_agent_on(node, Agent::Control))?;
            println!("  dead for {}, and back", short(AWAY));
            lab.settle().map(|_| ())
        })
    }

    /// Established flows go on in the kernel; new ones wait while nobody serves, which a client sees as a slower connection.
    fn another_build(&mut self, program: &Path) -> Result<()> {
        self.step("The dataplane of node2 is replaced by another build, and back")?;
        let flows = Flows::start(&self.lab, CLIENT, &self.replicas)?;
        for (program, name) in [(Some(program), program.display().to_string()), (None, "the lab's own build".to_owned())] {
            let start = Instant::now();
            self.lab.restart_dataplane_from("node2", program)?;
            println!("  {name} serves after {}", short(start.elapsed()));
            std::thread::sleep(Duration::from_secs(1));
            self.attempts(false)?;
        }
        let (sent, lost) = flows.finish()?;
        self.result(lost == 0 && sent > 0, &format!("{sent} datagrams of established flows, {lost} lost"));
        Ok(())
    }
}
