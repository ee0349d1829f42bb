//! What each command does and prints.

use crate::cli::{AgentArg, Cli, Command, Delete, Exec, LogOf, Logs, Make, Matrix, Output, Switch, Up};
use crate::{cluster_demo, demo, print};
use anstream::{eprintln, println};
use anyhow::{Context, Result};
use owo_colors::OwoColorize;
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use sluice_flow::Family;
use sluice_lab::{Change, ClusterConfig, Kind, Lab, LabConfig, MatrixRequest, ObjectRef, agents, pod, read_documents};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) fn run(cli: Cli) -> Result<ExitCode> {
    let usual = match cli.command {
        Command::Demo(_) => "demo",
        Command::ClusterDemo(_) => "clusterdemo",
        _ => "lab",
    };
    let name = cli.lab.as_deref().unwrap_or(usual);
    let json = cli.output == Output::Json;
    match cli.command {
        Command::Up(args) => up(name, json, args),
        Command::Apply(args) => {
            let documents = read_documents(&args.files)?;
            print_change(json, "applied", &Lab::open(name)?.apply(&documents)?)
        }
        Command::Delete(args) => delete(name, json, &args),
        Command::Exec(args) => exec(name, args),
        Command::Logs(args) => logs(name, &args),
        Command::Start(AgentArg { agent, node }) => {
            let start = Instant::now();
            on_nodes(name, node, |lab, node| lab.start_agent_on(node, agent.into()))?;
            done(json, &format!("{agent:?} serves after {}", short(start.elapsed())), json!({ "tookUs": micros(start.elapsed()) }))
        }
        Command::Restart(AgentArg { agent, node }) => {
            let start = Instant::now();
            on_nodes(name, node, |lab, node| lab.restart_agent_on(node, agent.into()))?;
            done(json, &format!("{agent:?} serves again after {}", short(start.elapsed())), json!({ "tookUs": micros(start.elapsed()) }))
        }
        Command::Kill(AgentArg { agent, node }) => {
            let ran = on_nodes(name, node, |lab, node| lab.kill_agent_on(node, agent.into()))?.contains(&true);
            done(json, &format!("{agent:?} {}", if ran { "killed" } else { "did not run" }), json!({ "killed": ran }))
        }
        Command::Outage(args) => {
            let on = args.state == Switch::On;
            Lab::open(name)?.outage(on)?;
            done(json, if on { "the API server is away" } else { "the API server is back" }, json!({ "outage": on }))
        }
        Command::Reboot { node } => {
            let start = Instant::now();
            Lab::open(name)?.reboot(&node)?;
            done(json, &format!("{node} is back after {}", short(start.elapsed())), json!({ "tookUs": micros(start.elapsed()) }))
        }
        Command::Down => {
            let removed = Lab::remove(name)?;
            let text = if removed.is_nothing() {
                format!("there is no lab {name}; nothing to remove")
            } else {
                format!("lab {name} removed: {} processes, {} network namespaces", removed.processes, removed.namespaces)
            };
            done(json, &text, serde_json::to_value(&removed)?)
        }
        Command::ServePod { pod, ports } => {
            sluice_lab::server::serve(&pod, &ports, announce)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::ServeDns { hosts } => {
            sluice_lab::dns::serve(hosts, announce)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Matrix(args) => matrix(name, json, args),
        Command::Status => status(name, json),
        Command::Demo(args) => demo::run(name, config(name, args.make)?, args.keep),
        Command::ClusterDemo(args) => cluster_demo::run(name, config(name, args.demo.make)?, args.demo.keep, args.next.as_deref()),
    }
}

/// Does something to one node, or to each.
fn on_nodes<T>(name: &str, node: Option<String>, work: impl Fn(&Lab, &str) -> Result<T>) -> Result<Vec<T>> {
    let lab = Lab::open(name)?;
    let nodes = match node {
        Some(node) => vec![node],
        None => lab.state()?.nodes.into_keys().collect(),
    };
    nodes.iter().map(|node| work(&lab, node)).collect()
}

/// Tells the lab that the ports are bound. Nothing is printed afterwards: the lab closes its end.
fn announce() {
    let mut stdout = std::io::stdout();
    let _ = writeln!(stdout, "{}", pod::READY);
    let _ = stdout.flush();
}

/// A configuration from the options that `up` and `demo` share. Signals undo what was begun instead of ending us.
pub(crate) fn config(name: &str, make: Make) -> Result<LabConfig> {
    let mut config = LabConfig::new(name);
    config.workers = make.workers;
    config.cpus = make.cpus;
    config.bin_dir = make.bin_dir;
    config.dataplane_args = make.dataplane_arg;
    config.control_args = make.control_arg;
    config.force = make.force;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&config.interrupted)).context("cannot watch for signals")?;
    }
    config.progress = Arc::new(progress);
    Ok(config)
}

/// One line that overwrites itself on a terminal, and only the steps elsewhere.
fn progress(step: &str) {
    if std::io::stderr().is_terminal() {
        std::eprint!("\r\x1b[K  {step}");
    }
}

/// Ends the progress line.
pub(crate) fn end_progress() {
    if std::io::stderr().is_terminal() {
        std::eprint!("\r\x1b[K");
    }
}

fn up(name: &str, json: bool, args: Up) -> Result<ExitCode> {
    let start = Instant::now();
    let mut config = config(name, args.make)?;
    config.manifests = args.files;
    config.sluice = !args.no_sluice;
    config.cluster = args.api_server.then(|| {
        let usual = ClusterConfig::default();
        ClusterConfig {
            nodes: args.nodes.map_or(usual.nodes, usize::from),
            status_delay: Duration::from_millis(args.status_delay_ms),
            paths: args.paths,
        }
    });
    let lab = Lab::up(&config);
    end_progress();
    let lab = lab?;
    let state = lab.state()?;
    let status = if state.sluice { Some(lab.settle()?) } else { None };
    lab.detach()?;
    if json {
        println!("{}", serde_json::to_string_pretty(&state)?);
        return Ok(ExitCode::SUCCESS);
    }
    for problem in status.iter().flat_map(|status| &status.problems) {
        eprintln!("{} {}:{}: {}", "warning:".yellow(), problem.file, problem.line, problem.message);
    }
    let enforced = match &status {
        Some(status) => format!("{} policies in force", status.policies),
        None => "without policy enforcement".into(),
    };
    let nodes = if state.api.is_some() { format!("{} nodes, ", state.nodes.len()) } else { String::new() };
    println!("lab {} is up after {}: {nodes}{} pods, {enforced}", name.bold(), short(start.elapsed()), state.pods.len());
    let flag = if name == "lab" { String::new() } else { format!("--lab {name} ") };
    let example = state.pods.values().find(|pod| !pod.dns).map_or("default/POD".into(), |pod| pod.pod.to_string());
    println!(
        "  who reaches whom   sluice-lab {flag}matrix\n  run a command      sluice-lab {flag}exec {example} -- COMMAND\n  remove it          sluice-lab {flag}down"
    );
    Ok(ExitCode::SUCCESS)
}

fn delete(name: &str, json: bool, args: &Delete) -> Result<ExitCode> {
    let lab = Lab::open(name)?;
    let objects: Vec<ObjectRef> = match &args.kind {
        Some(kind) => {
            let kind: Kind = kind.parse()?;
            args.names.iter().map(|name| ObjectRef::new(kind, name)).collect()
        }
        None => read_documents(&args.files)?.into_iter().map(|document| document.object).collect(),
    };
    print_change(json, "deleted", &lab.delete(&objects)?)
}

fn print_change(json: bool, verb: &str, change: &Change) -> Result<ExitCode> {
    if json {
        let value = json!({
            "objects": change.objects.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "inForceAfterUs": change.in_force_after.map(micros),
            "nodesUs": change.on_nodes.iter().map(|(node, took)| (node, micros(*took))).collect::<std::collections::BTreeMap<_, _>>(),
            "attached": change.pods.attached,
            "detached": change.pods.detached,
            "control": change.status,
        });
        return done(true, "", value);
    }
    for object in &change.objects {
        println!("{object} {}", verb.green());
    }
    for pod in &change.pods.attached {
        println!("pod {pod} attached");
    }
    for pod in &change.pods.detached {
        println!("pod {pod} detached");
    }
    if let (Some(took), Some(status)) = (change.in_force_after, &change.status) {
        if change.on_nodes.len() > 1 {
            let nodes: Vec<String> = change.on_nodes.iter().map(|(node, took)| format!("{node} {}", short(*took))).collect();
            println!("in force after {} ({})", short(took).bold(), nodes.join(", "));
        } else {
            println!("in force after {} (generation {})", short(took).bold(), status.adopted_generation);
        }
        for problem in &status.problems {
            eprintln!("{} {}:{}: {}", "warning:".yellow(), problem.file, problem.line, problem.message);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn exec(name: &str, args: Exec) -> Result<ExitCode> {
    let lab = Lab::open(name)?;
    let pod = lab.pod(&args.pod)?.pod;
    let (program, rest) = args.command.split_first().context("no command given")?;
    Err(pod::exec(lab.layout(), &pod, std::process::Command::new(program).args(rest)))
}

fn matrix(name: &str, json: bool, args: Matrix) -> Result<ExitCode> {
    let request = MatrixRequest {
        ports: args.ports,
        family: if args.family == 6 { Family::V6 } else { Family::V4 },
        timeout: Duration::from_millis(args.timeout_ms),
        with_dns: args.all,
    };
    let matrix = Lab::open(name)?.matrix(&request)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&matrix)?);
    } else {
        print::matrix(&matrix, &request.ports);
    }
    let wrong = matrix.cells.iter().any(|cell| cell.is_wrong());
    Ok(if wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn status(name: &str, json: bool) -> Result<ExitCode> {
    let lab = Lab::open(name)?;
    let state = lab.state()?;
    let text = |error: anyhow::Error| format!("{error:#}");
    let on_node = |node: &String| {
        let layout = lab.at(node);
        print::NodeStatus {
            name: node.clone(),
            dataplane: state.sluice.then(|| agents::dataplane_status(&layout).map_err(text)),
            control: state.sluice.then(|| agents::control_status(&layout).map_err(text)),
            // Without a dataplane there are no ports to tell of, and its own line says so.
            ports: if state.sluice { agents::ports(&layout).unwrap_or_default() } else { Vec::new() },
        }
    };
    let nodes: Vec<print::NodeStatus> = state.nodes.keys().map(on_node).collect();
    if json {
        let nodes: std::collections::BTreeMap<String, Value> = nodes
            .into_iter()
            .map(|node| {
                let said = json!({
                    "ports": node.ports, "dataplane": node.dataplane.and_then(Result::ok), "control": node.control.and_then(Result::ok),
                });
                (node.name, said)
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&json!({ "lab": name, "state": state, "nodes": nodes }))?);
    } else {
        print::status(name, &state, &nodes);
    }
    Ok(ExitCode::SUCCESS)
}

fn logs(name: &str, args: &Logs) -> Result<ExitCode> {
    let lab = Lab::open(name)?;
    let state = lab.state()?;
    let agent = |of, agent: &'static str| state.nodes.keys().map(move |node| (of, node.clone(), agent));
    let agents = agent(LogOf::Dataplane, "dataplane").chain(agent(LogOf::Control, "control"));
    let mut files: Vec<(LogOf, PathBuf)> = agents.map(|(of, node, agent)| (of, lab.at(&node).agent_log(agent))).collect();
    files.push((LogOf::Servers, lab.layout().logs().join("servers.log")));
    files.push((LogOf::Apiserver, lab.layout().logs().join("apiserver.log")));
    for (_, path) in files.iter().filter(|(of, path)| args.of.is_none_or(|wanted| wanted == *of) && path.exists()) {
        println!("{}", format!("== {}", path.display()).dimmed());
        println!("{}", sluice_lab::log_tail(path, args.tail));
    }
    Ok(ExitCode::SUCCESS)
}

fn done(json: bool, text: &str, value: Value) -> Result<ExitCode> {
    if json {
        println!("{}", serde_json::to_string_pretty(&value)?);
    } else {
        println!("{text}");
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

/// A duration as people say it.
pub(crate) fn short(duration: Duration) -> String {
    match duration.as_micros() {
        us @ 0..1_000 => format!("{us} µs"),
        us @ 1_000..10_000 => format!("{:.1} ms", us as f64 / 1e3),
        us @ 10_000..1_000_000 => format!("{} ms", us / 1000),
        us => format!("{:.1} s", us as f64 / 1e6),
    }
}
