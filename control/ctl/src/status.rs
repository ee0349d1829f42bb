//! `status`: both processes side by side. Either may be down; the other's half is still worth showing.

use crate::Ending;
use crate::arguments::{Form, StatusOptions};
use crate::client::{Client, unexpected};
use crate::output::{Columns, age, count, json, micros};
use anyhow::{Result, bail};
use owo_colors::OwoColorize;
use serde::Serialize;
use sluice_wire::{
    ControlStatus, DataplaneStatus, FromControl, FromDataplane, ManifestProblem, Preceded, Straight, ToControl, ToDataplane, UplinkStatus,
    WatchStatus,
};
use std::io::Write;
use std::time::{Duration, Instant};

/// Between two looks while waiting for a process that is not there.
const POLL: Duration = Duration::from_millis(100);

#[derive(Debug, Serialize)]
struct Node {
    ready: bool,
    dataplane: Process<DataplaneStatus>,
    control: Process<ControlStatus>,
}

/// `{"status": ...}` or `{"error": "..."}`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum Process<T> {
    Status(T),
    Error(String),
}

impl<T> Process<T> {
    fn of(asked: Result<T>) -> Self {
        asked.map_or_else(|error| Self::Error(format!("{error:#}")), Self::Status)
    }

    fn status(&self) -> Option<&T> {
        match self {
            Self::Status(status) => Some(status),
            Self::Error(_) => None,
        }
    }
}

pub(crate) fn run(client: &Client, options: &StatusOptions, form: Form, out: &mut dyn Write) -> Result<Ending> {
    let node = if options.wait { wait(client, options.timeout) } else { look(client, &ToControl::Status) };
    match form {
        Form::Json => json(out, &node)?,
        Form::Table => print(&node, out)?,
    }
    match (&node.dataplane, &node.control) {
        _ if options.wait => Ok(if node.ready { Ending::Ok } else { Ending::No }),
        (Process::Error(_), Process::Error(_)) => bail!("neither process answers"),
        _ => Ok(Ending::Ok),
    }
}

/// Ready: every worker judges by a table of everything that was read.
fn look(client: &Client, question: &ToControl) -> Node {
    // Control first: where it waits for an adoption, the dataplane is asked after it.
    let control = Process::of(client.control(question).and_then(|answer| match answer {
        FromControl::Status(status) => Ok(status),
        _ => unexpected(),
    }));
    let dataplane = Process::of(client.dataplane(&ToDataplane::Status).and_then(|answer| match answer {
        (FromDataplane::Status(status), _) => Ok(status),
        _ => unexpected(),
    }));
    let workers_ready = dataplane.status().is_some_and(|s| s.enforcing && !s.workers.is_empty() && s.workers.iter().all(|w| w.alive));
    let ready = workers_ready && control.status().is_some_and(|status| status.settled);
    Node { ready, dataplane, control }
}

fn wait(client: &Client, timeout: Duration) -> Node {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let node = look(client, &ToControl::Settle { timeout_ms });
        if node.ready || Instant::now() >= deadline {
            return node;
        }
        std::thread::sleep(POLL.min(deadline.saturating_duration_since(Instant::now())));
    }
}

fn print(node: &Node, out: &mut dyn Write) -> Result<()> {
    match &node.dataplane {
        Process::Error(error) => writeln!(out, "{} {}  {error}", "DATAPLANE".bold(), "down".red().bold())?,
        Process::Status(status) => print_dataplane(status, out)?,
    }
    writeln!(out)?;
    match &node.control {
        Process::Error(error) => {
            writeln!(out, "{}   {}  {error}", "CONTROL".bold(), "down".red().bold())?;
            writeln!(out, "  the dataplane goes on with the table it has; changes of manifests wait")?;
        }
        Process::Status(status) => print_control(status, out)?,
    }
    Ok(())
}

/// Switches enforcement, and says what that means.
pub(crate) fn enforce(client: &Client, on: bool, form: Form, out: &mut dyn Write) -> Result<()> {
    client.dataplane(&ToDataplane::Enforce { on })?;
    match (form, on) {
        (Form::Json, _) => writeln!(out, "{}", serde_json::json!({ "enforcing": on }))?,
        (Form::Table, true) => writeln!(out, "hooks are on every pod: policy is enforced")?,
        (Form::Table, false) => {
            writeln!(out, "{}: everything passes until `sluicectl enforce on` or a restart", "NOT ENFORCING".red().bold())?
        }
    }
    Ok(())
}

/// Switches the offload, and says what that means.
pub(crate) fn offload(client: &Client, on: bool, form: Form, out: &mut dyn Write) -> Result<()> {
    client.dataplane(&ToDataplane::Offload { on })?;
    match (form, on) {
        (Form::Json, _) => writeln!(out, "{}", serde_json::json!({ "offload": on }))?,
        (Form::Table, true) => writeln!(out, "the verdict cache decides in the kernel")?,
        (Form::Table, false) => writeln!(out, "workers see every packet until `sluicectl offload on` or a restart")?,
    }
    Ok(())
}

fn up() -> String {
    "up".green().bold().to_string()
}

fn print_dataplane(s: &DataplaneStatus, out: &mut dyn Write) -> Result<()> {
    writeln!(
        out,
        "{} {}  version {}, ABI {}, pid {}, since {}",
        "DATAPLANE".bold(),
        up(),
        s.version,
        s.abi_version,
        s.pid,
        age(s.uptime_s)
    )?;
    match s.generation {
        0 => writeln!(out, "  table        {}: no traffic of any pod passes", "none".red())?,
        generation => {
            let kept = age(s.generation_age_s);
            writeln!(out, "  table        generation {generation}, {} bytes, in force for {kept}", s.image_bytes)?;
        }
    }
    if let Some(taken) = &s.taken_over {
        let from: Vec<String> = taken.abi_versions.iter().map(ToString::to_string).collect();
        let (entries, from) = (count(taken.entries, "entry", "entries"), from.join(", "));
        writeln!(out, "  taken over   {entries} from ABI {from} in {} us, {} left out", taken.took_us, taken.skipped)?;
        for unreadable in &taken.unreadable {
            writeln!(out, "               {}", unreadable.yellow())?;
        }
    }
    if !s.enforcing {
        writeln!(out, "  enforcement  {}: the hooks were taken off; put them back with: sluicectl enforce on", "OFF".red().bold())?;
    }
    if let Some(refused) = &s.last_refused {
        writeln!(out, "  refused      {}", refused.red())?;
    }
    if let Some(trouble) = &s.storage_trouble {
        writeln!(out, "  storage      {}; it is in force, and lost if this process ends", trouble.red())?;
    }
    let control = if s.control_connected { "connected".to_owned() } else { "not connected".yellow().to_string() };
    writeln!(out, "  control      {control}")?;
    let fail_open = if s.fail_open { "on".yellow().to_string() } else { "off".to_owned() };
    let offload = if s.every_packet { "off: workers see every packet".yellow().to_string() } else { "on".to_owned() };
    writeln!(out, "  established  {}, fail-open {fail_open}, offload {offload}", s.established)?;
    let straight = match s.straight {
        Straight::Nothing => "nothing",
        Straight::Udp => "UDP",
        Straight::UdpAndTcp => "UDP and TCP",
        Straight::UdpSinceTcpIsTracked => {
            "UDP; TCP as well once net.netfilter.nf_conntrack_tcp_be_liberal, nf_conntrack_tcp_ignore_invalid_rst and nf_conntrack_tcp_loose are 1"
        }
    };
    writeln!(out, "  straight     {straight}")?;
    let cache = count(s.cache_entries, "entry", "entries");
    writeln!(
        out,
        "  cache        {cache}, {} hits ({} of them direct), {} punts, {} connections admitted, {} packets of pods not isolated",
        s.cache_hits, s.direct, s.punts, s.admitted, s.not_isolated
    )?;
    for uplink in &s.uplinks {
        let UplinkStatus { device, rx_queues, tx_queues, .. } = uplink;
        let mode = match &uplink.trouble {
            None if uplink.runs => format!("native XDP, {} packets dropped there", s.uplink_drops),
            None => "attached".to_owned(),
            Some(trouble) => trouble.yellow().to_string(),
        };
        let zero_copy = if uplink.zero_copy { "can zero-copy" } else { "no zero-copy" };
        writeln!(out, "  uplink       {device}: {mode}; {rx_queues} rx and {tx_queues} tx queues, {zero_copy}")?;
    }
    let dropped: u64 = s.drops.iter().map(|drop| drop.packets).sum();
    writeln!(out, "  ports        {}; {dropped} packets dropped (sluicectl get drops)", s.ports)?;
    print_found(s, out)?;
    for Preceded { device, program } in &s.preceded {
        let word = "PRECEDED".red();
        let preceded = word.bold();
        writeln!(
            out,
            "  chain        {preceded}: on {device} program {program} sees packets before policy does (bpftool prog show id {program})"
        )?;
    }
    let headers = [
        "  WORKER",
        "CPU",
        "TRUNK",
        "#GENERATION",
        "#PORTS",
        "#CONNECTIONS",
        "#RECEIVED",
        "#FORWARDED",
        "#DROPPED",
        "#CUT",
        "STATE",
        "WAITS",
        "#CPU",
    ];
    let mut columns = Columns::new(&headers);
    for w in &s.workers {
        columns.row([
            format!("  {}", w.worker),
            w.cpu.map(|cpu| cpu.to_string()).unwrap_or_default(),
            w.trunk.clone(),
            w.generation.to_string(),
            w.ports.to_string(),
            w.connections.to_string(),
            w.received.to_string(),
            w.forwarded.to_string(),
            w.dropped.to_string(),
            w.connections_cut.to_string(),
            if w.alive { "alive" } else { "dead" }.to_owned(),
            w.wait.clone(),
            format!("{:.1} s", w.cpu_us as f64 / 1e6),
        ]);
    }
    columns.print(out, "  no workers")
}

/// Pods that nobody told of, if there are any.
fn print_found(s: &DataplaneStatus, out: &mut dyn Write) -> Result<()> {
    let choice = &s.existing_pods;
    let more = "(sluicectl get endpoints)";
    if s.found_closed > 0 {
        let found = count(s.found_closed, "running pod", "running pods");
        writeln!(
            out,
            "  existing     {}: {found} that nothing passes to or from, --existing-pods={choice} {more}",
            "CLOSED".yellow().bold()
        )?;
    }
    if s.found_unmanaged > 0 {
        let found = count(s.found_unmanaged, "running pod", "running pods");
        writeln!(out, "  existing     {}: {found} that no policy holds for, --existing-pods={choice} {more}", "UNMANAGED".red().bold())?;
    }
    Ok(())
}

fn print_control(s: &ControlStatus, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "{}   {}  version {}, pid {}, since {}", "CONTROL".bold(), up(), s.version, s.pid, age(s.uptime_s))?;
    writeln!(out, "  source       {}", s.source)?;
    let dataplane = if s.dataplane_connected { "connected".to_owned() } else { "not connected".yellow().to_string() };
    writeln!(out, "  dataplane    {dataplane}")?;
    let settled = match s.settled {
        true => "everything read is in force".green().to_string(),
        false => "not everything read is in force".yellow().to_string(),
    };
    writeln!(out, "  generations  published {}, adopted {}: {settled}", s.published_generation, s.adopted_generation)?;
    if let Some(failure) = &s.last_failure {
        writeln!(out, "  {}      {failure}", "failure".red().bold())?;
    }
    writeln!(
        out,
        "  objects      {}, {}, {}, {}",
        count(s.namespaces, "namespace", "namespaces"),
        count(s.pods, "pod", "pods"),
        count(s.policies, "policy", "policies"),
        count(s.endpoints, "endpoint here", "endpoints here"),
    )?;
    if s.image_bytes > 0 {
        let (compile, proof) = (micros(s.compile_us), micros(s.proof_us));
        let proof = match s.proof_pending {
            true => "published before its proof is finished".yellow().to_string(),
            false => format!("proved in {proof} ({} of {} comparisons)", s.comparisons, s.comparisons_required),
        };
        writeln!(out, "  last image   {} bytes, compiled in {compile}, {proof}", s.image_bytes)?;
    }
    if s.rollbacks > 0 {
        writeln!(
            out,
            "  {}    {} wrong after publication and taken back",
            "rollbacks".red().bold(),
            count(s.rollbacks, "table", "tables")
        )?;
    }
    if let Some(us) = s.last_change_to_adopted_us {
        writeln!(out, "  last change  in force {} after it was noticed", micros(us))?;
    }
    print_watches(&s.watches, out)?;
    print_problems(&s.problems, out)
}

/// How each kind is followed, where objects come from an API server.
fn print_watches(watches: &[WatchStatus], out: &mut dyn Write) -> Result<()> {
    if watches.is_empty() {
        return Ok(());
    }
    let mut columns = Columns::new(&["  WATCH", "#OBJECTS", "#LISTS", "#HEARD", "STATE"]);
    for w in watches {
        let state = match (&w.trouble, w.listed) {
            (Some(trouble), _) => format!("{} for {}: {trouble}", "broken".red(), age(w.trouble_s)),
            (None, false) => "listing".yellow().to_string(),
            (None, true) => "following".to_owned(),
        };
        columns.row([format!("  {}", w.resource), w.objects.to_string(), w.lists.to_string(), age(w.heard_s), state]);
    }
    columns.print(out, "")
}

/// Each problem as compilers print theirs: place, object, field, message; then the hint and what stays in force.
pub(crate) fn print_problems(problems: &[ManifestProblem], out: &mut dyn Write) -> Result<()> {
    if !problems.is_empty() {
        writeln!(out, "\n{}", "PROBLEMS".red().bold())?;
    }
    for p in problems {
        let mut place = p.file.clone();
        if p.line > 0 {
            place += &format!(":{}:{}", p.line, p.column);
        }
        let parts = [p.object.as_deref().unwrap_or(""), &p.field, &p.message];
        let text: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        writeln!(out, "  {}: {}", place.bold(), text.join(": "))?;
        if let Some(hint) = &p.hint {
            writeln!(out, "    hint: {hint}")?;
        }
        writeln!(out, "    in force: {}", p.in_force)?;
    }
    Ok(())
}
