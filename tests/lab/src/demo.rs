//! The walkthrough: two pods, three policies, and at each step live traffic, the verdict and its reason.
//!
//! A well-known lesson of NetworkPolicy: deny by default, allow one direction at both of its ends, find that names no
//! longer resolve, and allow DNS. Its manifests are in `demo/`, as people write them.

use crate::commands::{end_progress, short};
use crate::print;
use anstream::println;
use anyhow::{Result, bail};
use owo_colors::OwoColorize;
use sluice_flow::Family;
use sluice_lab::{Lab, LabConfig, Probe, agents};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Instant;

const PODS: &str = include_str!("../demo/0-pods.yaml");
const DNS: &str = "kube-system/coredns";

/// A manifest as it lies in the repository.
struct Manifest {
    file: &'static str,
    yaml: &'static str,
}

/// Which of the four attempts succeed. The order is that of [`ATTEMPTS`].
struct Step {
    title: &'static str,
    apply: Option<Manifest>,
    expected: [bool; 4],
    why: &'static [(&'static str, &'static str, u16, &'static str)],
}

/// Source, destination, and whether the destination is named.
const ATTEMPTS: [(&str, &str, bool); 4] =
    [("frontend", "backend", true), ("frontend", "backend", false), ("backend", "frontend", true), ("backend", "frontend", false)];

const STEPS: [Step; 6] = [
    Step { title: "No policy: everybody reaches everybody", apply: None, expected: [true; 4], why: &[("frontend", "backend", 80, "TCP")] },
    Step {
        title: "Deny by default: both directions are cut",
        apply: Some(Manifest { file: "demo/1-default-deny.yaml", yaml: include_str!("../demo/1-default-deny.yaml") }),
        expected: [false; 4],
        why: &[("frontend", "backend", 80, "TCP")],
    },
    Step {
        title: "frontend may send to backend: not enough, backend does not let it in",
        apply: Some(Manifest { file: "demo/2-frontend.yaml", yaml: include_str!("../demo/2-frontend.yaml") }),
        expected: [false; 4],
        why: &[("frontend", "backend", 80, "TCP")],
    },
    Step {
        title: "backend may receive from frontend: works by address, but the name does not resolve",
        apply: Some(Manifest { file: "demo/3-backend.yaml", yaml: include_str!("../demo/3-backend.yaml") }),
        expected: [false, true, false, false],
        why: &[("frontend", "backend", 80, "TCP"), ("frontend", DNS, 53, "UDP")],
    },
    Step {
        title: "Everybody may ask DNS: the name works too",
        apply: Some(Manifest { file: "demo/4-default-deny-dns.yaml", yaml: include_str!("../demo/4-default-deny-dns.yaml") }),
        expected: [true, true, false, false],
        why: &[("frontend", DNS, 53, "UDP")],
    },
    Step {
        title: "The other direction stays shut, by name and by address: allowing one way is not allowing both",
        apply: None,
        expected: [true, true, false, false],
        why: &[("backend", "frontend", 80, "TCP")],
    },
];

/// Plays all steps. Success only if each behaved.
pub(crate) fn run(name: &str, mut config: LabConfig, keep: bool) -> Result<ExitCode> {
    let start = Instant::now();
    config.yaml = PODS.into();
    println!("{}", "Two pods, frontend and backend, each a web server with a service of its name.".bold());
    println!("{}", "Every line below is live traffic between network namespaces on this machine.\n".dimmed());
    let lab = Lab::up(&config);
    end_progress();
    let lab = lab?;
    println!("lab {name} is up after {}", short(start.elapsed()));
    let mut failed = Vec::new();
    for (index, step) in STEPS.iter().enumerate() {
        // Relaxed: a lone flag set by a signal handler.
        if config.interrupted.load(Ordering::Relaxed) {
            bail!("interrupted; the lab is removed");
        }
        if !play(&lab, index + 1, step)? {
            failed.push((index + 1).to_string());
        }
    }
    println!();
    match failed.as_slice() {
        [] => println!("{} all {} steps behaved, in {}", "✓".green().bold(), STEPS.len(), short(start.elapsed())),
        steps => println!("{} not as it should be: step {}", "✗".red().bold(), steps.join(", ")),
    }
    if keep {
        lab.detach()?;
        next(name);
    } else {
        lab.down()?;
        println!("{}", "the lab is removed; with --keep it stays up to be tried by hand".dimmed());
    }
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn play(lab: &Lab, number: usize, step: &Step) -> Result<bool> {
    println!("\n{} {}", format!("Step {number}").bold().cyan(), step.title.bold());
    if let Some(manifest) = &step.apply {
        println!("  apply {}", manifest.file.bold());
        for line in manifest.yaml.lines() {
            println!("    {}", line.dimmed());
        }
        let change = lab.apply_yaml(manifest.yaml)?;
        if let Some(took) = change.in_force_after {
            println!("  in force after {}", short(took).bold());
        }
    }
    let behaved = attempt_all(lab, &step.expected)?;
    for (src, dst, port, protocol) in step.why {
        match agents::explain(lab.layout(), &qualified(src), &qualified(dst), *port, protocol) {
            Ok(explanation) => print::explanation(&explanation, "  why  "),
            Err(error) => println!("  why  {}", format!("{error:#}").red()),
        }
    }
    Ok(behaved)
}

fn qualified(pod: &str) -> String {
    if pod.contains('/') { pod.into() } else { format!("default/{pod}") }
}

/// All four at once: what is shut takes a second to show.
fn attempt_all(lab: &Lab, expected: &[bool; 4]) -> Result<bool> {
    let probes: Vec<Result<(String, Probe)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = ATTEMPTS.iter().map(|attempt| scope.spawn(|| probe(lab, attempt))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let mut behaved = true;
    for (((from, _, _), expected), probe) in ATTEMPTS.iter().zip(expected).zip(probes) {
        let (target, probe) = probe?;
        let reached = probe.outcome.reached();
        behaved &= reached == *expected;
        let mark = if reached { "✓".green().to_string() } else { "✗".red().to_string() };
        let seen = format!("{} ({})", probe.outcome, short(probe.took));
        let expectation = match (expected, reached == *expected) {
            (_, true) => "as expected".dimmed().to_string(),
            (true, false) => "expected to be open".red().bold().to_string(),
            (false, false) => "expected to be shut".red().bold().to_string(),
        };
        println!("  {mark} {from:<8} → {target:<20} {seen:<58} {expectation}");
    }
    Ok(behaved)
}

fn probe(lab: &Lab, (from, to, by_name): &(&str, &str, bool)) -> Result<(String, Probe)> {
    let host = if *by_name { (*to).to_owned() } else { lab.pod_address(to, Family::V4)?.to_string() };
    let url = format!("http://{host}");
    let probe = lab.probe_http(&qualified(from), &url)?;
    Ok((url, probe))
}

fn next(name: &str) {
    let lab = format!("sluice-lab --lab {name}");
    println!("\n{}", "The lab stays up. Try next:".bold());
    for (command, what) in [
        ("exec frontend -- curl -s backend", "a request from inside a pod"),
        ("matrix --all --port 80/TCP --port 53/UDP", "who reaches whom"),
        ("delete networkpolicy backend", "shut the door again"),
        ("kill dataplane", "what a crash does to open connections: nothing"),
        ("start dataplane", "and new ones work again"),
        ("status", "what runs"),
        ("down", "remove everything"),
    ] {
        println!("  {:<72} {}", format!("{lab} {command}"), what.dimmed());
    }
}
