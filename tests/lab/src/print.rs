//! How grids, states and explanations look to people.

use anstream::println;
use owo_colors::OwoColorize;
use sluice_lab::probe::Outcome;
use sluice_lab::{Agent, Cell, Matrix, ProcessId, ServedPort, State};
use sluice_wire::{ControlStatus, DataplaneStatus, Explanation, HalfExplanation, PortInfo};

/// One grid for each of `ports`, or one of everything that was tried.
pub(crate) fn matrix(matrix: &Matrix, ports: &[ServedPort]) {
    if ports.is_empty() {
        println!("{}", "TCP ports that each pod serves; rows try columns".bold());
        grid(matrix, |_| true);
    }
    for port in ports {
        println!("{} {}", port.bold(), "rows try columns".dimmed());
        grid(matrix, |cell| cell.port == *port);
    }
    println!("{} reached   {} no answer   {} refused: reached, nobody listens", "✓".green(), "✗".red(), "r".yellow());
    let wrong: Vec<&Cell> = matrix.cells.iter().filter(|cell| cell.is_wrong()).collect();
    for cell in &wrong {
        let should = if cell.expected == Some(true) { "should be allowed" } else { "should be denied" };
        println!("{} {} → {} {}: {}, {should}", "!".red().bold(), cell.from, cell.to, cell.port, cell.seen);
    }
    match &matrix.without_expectation {
        Some(why) => println!("{}", format!("not compared with the policies: {why}").dimmed()),
        None if wrong.is_empty() => println!("{}", format!("all {} as the policies say", matrix.cells.len()).green()),
        None => println!("{}", format!("{} of {} are not as the policies say", wrong.len(), matrix.cells.len()).red().bold()),
    }
}

fn grid(matrix: &Matrix, of_grid: impl Fn(&Cell) -> bool) {
    let width = matrix.pods.iter().map(|pod| pod.to_string().len()).max().unwrap_or(0);
    let columns: String = (1..=matrix.pods.len()).map(|n| format!("{n:>5}")).collect();
    println!("{:width$}     {}", "", columns.dimmed());
    for (row, from) in matrix.pods.iter().enumerate() {
        let mut line = format!("{:<width$} {:>3} ", from.to_string(), row + 1);
        for to in &matrix.pods {
            let cells: Vec<&Cell> = matrix.cells.iter().filter(|c| c.from == *from && c.to == *to && of_grid(c)).collect();
            line.push_str(&symbol(&cells));
        }
        println!("{line}");
    }
}

/// Five columns wide; the padding goes before the colour codes, which have no width on the screen.
fn symbol(cells: &[&Cell]) -> String {
    let reached = cells.iter().filter(|cell| cell.reached).count();
    let (text, colour) = match cells {
        [] => ("·".to_owned(), None),
        _ if reached == 0 => ("✗".to_owned(), Some(owo_colors::AnsiColors::Red)),
        _ if reached < cells.len() => (format!("{reached}/{}", cells.len()), Some(owo_colors::AnsiColors::Yellow)),
        _ if cells.iter().any(|cell| cell.seen == Outcome::Refused) => ("r".to_owned(), Some(owo_colors::AnsiColors::Yellow)),
        _ => ("✓".to_owned(), Some(owo_colors::AnsiColors::Green)),
    };
    let wrong = cells.iter().any(|cell| cell.is_wrong());
    let text = format!("{text}{}", if wrong { "!" } else { "" });
    let padding = " ".repeat(5usize.saturating_sub(text.chars().count()));
    match colour {
        Some(_) if wrong => format!("{padding}{}", text.red().bold()),
        Some(colour) => format!("{padding}{}", text.color(colour)),
        None => format!("{padding}{text}"),
    }
}

/// Both halves of an explanation, each with what decided it.
pub(crate) fn explanation(explanation: &Explanation, indent: &str) {
    println!("{indent}{} → {} {}: {}", explanation.src, explanation.dst, explanation.port, verdict(explanation.allowed));
    if let Some(half) = &explanation.egress {
        self::half(half, "leaving", indent);
    }
    if let Some(half) = &explanation.ingress {
        self::half(half, "entering", indent);
    }
    for note in &explanation.notes {
        println!("{indent}  {}", note.dimmed());
    }
}

fn half(half: &HalfExplanation, verb: &str, indent: &str) {
    println!("{indent}  {verb} {}: {}, {}", half.pod, verdict(half.allowed), reason(half));
    if let (false, Some(miss)) = (half.allowed, &half.nearest_miss) {
        println!("{indent}    nearest: {}, but {}", miss.rule, miss.failed);
    }
    if half.table_allowed.is_some_and(|table| table != half.allowed) {
        println!("{indent}    {}", "the table in force says otherwise".red().bold());
    }
}

fn reason(half: &HalfExplanation) -> String {
    if !half.isolated {
        return format!("no policy isolates it for {}", half.direction);
    }
    match &half.rule {
        Some(rule) => format!("by {rule}"),
        None => {
            let policies: Vec<String> = half.isolating.iter().map(ToString::to_string).collect();
            format!("isolated by {}", policies.join(", "))
        }
    }
}

/// `allowed` or `denied`, coloured.
pub(crate) fn verdict(allowed: bool) -> String {
    if allowed { "allowed".green().to_string() } else { "denied".red().to_string() }
}

/// What `status` knows of one node.
pub(crate) struct NodeStatus {
    pub(crate) name: String,
    pub(crate) dataplane: Option<Result<DataplaneStatus, String>>,
    pub(crate) control: Option<Result<ControlStatus, String>>,
    pub(crate) ports: Vec<PortInfo>,
}

/// Agents first, then pods, node by node.
pub(crate) fn status(name: &str, state: &State, nodes: &[NodeStatus]) {
    println!("lab {}: {:?}, {} pods", name.bold(), state.phase, state.pods.len());
    if !state.sluice {
        println!("  {}", "without policy enforcement (--no-sluice)".yellow());
    }
    if let Some(api) = &state.api {
        let said = if api.process.is_alive() { format!("pid {}", api.process.pid) } else { "dead".red().to_string() };
        println!("  {:<10} {said}", "apiserver");
    }
    let width = state.pods.keys().map(String::len).max().unwrap_or(0);
    for node in nodes {
        if state.api.is_some() {
            println!("{}", node.name.bold());
        }
        agents(state, node);
        for (name, pod) in state.pods.iter().filter(|(_, pod)| pod.node == node.name) {
            let addresses: Vec<String> = pod.addresses.iter().map(ToString::to_string).collect();
            let served: Vec<String> = pod.served.iter().map(ToString::to_string).collect();
            let policy = node.ports.iter().find(|port| port.endpoint.pod == pod.pod);
            let policy = policy.map_or(String::new(), |port| format!("{:?}, {} connections", port.state, port.connections));
            let server = if pod.server.is_some_and(ProcessId::is_alive) { String::new() } else { " server dead".red().to_string() };
            println!("  {name:<width$}  {:<26} {:<16} {policy}{server}", addresses.join(" "), served.join(" "));
        }
    }
}

fn agents(state: &State, node: &NodeStatus) {
    let Some(processes) = state.nodes.get(&node.name) else { return };
    for agent in Agent::ALL.into_iter().filter(|_| state.sluice) {
        let said = match agent {
            Agent::Dataplane => node.dataplane.as_ref().map(|answer| answer.as_ref().map(dataplane_line)),
            Agent::Control => node.control.as_ref().map(|answer| answer.as_ref().map(control_line)),
        };
        let process = match agent.process(processes) {
            Some(process) if process.is_alive() => format!("pid {}", process.pid),
            Some(process) => format!("{} (was pid {})", "dead".red(), process.pid),
            None => "stopped".yellow().to_string(),
        };
        match said {
            Some(Ok(line)) => println!("  {:<10} {process}, {line}", agent.name()),
            Some(Err(error)) => println!("  {:<10} {process}, {}", agent.name(), error.red()),
            None => println!("  {:<10} {process}", agent.name()),
        }
    }
    if let Some(Ok(control)) = &node.control {
        for problem in &control.problems {
            println!("  {} {}:{}: {}", "problem".red(), problem.file, problem.line, problem.message);
        }
    }
}

fn dataplane_line(status: &DataplaneStatus) -> String {
    let alive = status.workers.iter().filter(|worker| worker.alive).count();
    format!(
        "generation {}, {alive}/{} workers, {} ports, {} hits, {} punts",
        status.generation,
        status.workers.len(),
        status.ports,
        status.cache_hits,
        status.punts
    )
}

fn control_line(status: &ControlStatus) -> String {
    let state = match &status.last_failure {
        Some(failure) => failure.red().to_string(),
        None if status.settled => "everything in force".green().to_string(),
        None => format!("published {}, adopted {}", status.published_generation, status.adopted_generation),
    };
    format!("{} policies, {state}", status.policies)
}
