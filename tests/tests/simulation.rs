//! The simulation itself: it is deterministic, it meets what it says it meets, and it finds what is planted.
//! `sluice-simulate` runs the many seeds.

use sluice_flow::DropReason;
use sluice_tests::simulation::{Ledger, Options, Plant, Run, run};
use std::process::{Command, Output};

fn plain(seed: u64) -> Run {
    run(seed, Options::default())
}

#[test]
fn a_seed_does_the_same_each_time() {
    for seed in 0..4 {
        let traced = run(seed, Options { trace_events: 1000, ..Options::default() });
        let again = run(seed, Options { trace_events: 1000, ..Options::default() });
        assert_eq!(traced, again);
        assert_eq!(plain(seed).digest, traced.digest, "watching changes nothing");
        assert!(!traced.trace.is_empty());
    }
    assert_ne!(plain(0).digest, plain(1).digest);
}

/// What is never met is never checked.
#[test]
fn every_way_to_drop_a_packet_is_met() {
    let expected: Vec<DropReason> = DropReason::ALL.iter().copied().filter(|reason| !is_out_of_reach(*reason)).collect();
    let mut ledger = Ledger::default();
    let missing =
        |ledger: &Ledger| -> Vec<DropReason> { expected.iter().copied().filter(|reason| !ledger.dropped.contains_key(reason)).collect() };
    for seed in 1000..1400 {
        let run = plain(seed);
        assert_eq!(run.violation, None, "seed {seed}");
        ledger.add(&run.ledger);
        if seed > 1040 && missing(&ledger).is_empty() {
            break;
        }
    }
    assert_eq!(missing(&ledger), []);
    for (what, count) in [
        ("delivered", ledger.delivered),
        ("lost", ledger.lost),
        ("doubled", ledger.duplicated),
        ("lost with a worker", ledger.lost_with_worker),
    ] {
        assert!(count > 0, "no packet was {what}");
    }
}

/// Nothing outside of a damaged node leads there, or no stack and no stray of ours does; or only the packet of a pod that goes
/// while it crosses the node, which is too rare to wait for. No share is set.
fn is_out_of_reach(reason: DropReason) -> bool {
    matches!(
        reason,
        DropReason::ExitUnjudged
            | DropReason::Rationed
            | DropReason::Internal
            | DropReason::TrunkHeader
            | DropReason::WrongWorker
            | DropReason::NoTable
            | DropReason::EndpointUnknown
    )
}

/// The first of the seeds that finds a planted fault, and how.
fn found(options: Options) -> String {
    const SEEDS: u64 = 1500;
    let found = (0..SEEDS).find_map(|seed| run(seed, options).violation.map(|violation| (seed, violation)));
    let Some((seed, violation)) = found else { panic!("{options:?} went unnoticed for {SEEDS} seeds") };
    assert_eq!(plain(seed).violation, None, "seed {seed} is sound without {options:?}");
    println!("{options:?}: seed {seed}, event {}: {}", violation.event, violation.what);
    violation.what
}

#[test]
fn every_planted_fault_is_found() {
    for plant in Plant::ALL {
        found(Options { plant: Some(plant), ..Options::default() });
    }
}

/// Some faults show in the cache before they show in a packet; the packets' own checks find them as well.
#[test]
fn faults_that_the_cache_shows_are_found_in_packets_too() {
    for plant in [Plant::AnswersOpen, Plant::EpochNotRaised, Plant::RestartForgets] {
        let what = found(Options { plant: Some(plant), packets_only: true, ..Options::default() });
        assert!(what.starts_with("passed ") || what.starts_with("dropped "), "{plant:?}: {what}");
    }
}

fn command(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sluice-simulate")).args(args).output().expect("it runs")
}

#[test]
fn the_command_counts_traces_and_refuses_nonsense() {
    let text = command(&["--first", "7", "--seeds", "2", "--trace"]);
    let shown = String::from_utf8(text.stdout).unwrap();
    assert!(text.status.success() && shown.ends_with("2 passed, 0 failed\n"), "{shown}");
    assert!(shown.contains(&format!("seed 8: {} events, digest {:016x}", plain(8).events, plain(8).digest)), "the same as in the library");

    let json = command(&["--first", "7", "--seeds", "2", "-o", "json"]);
    let answer: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&answer["passed"], &answer["failures"]), (&2.into(), &serde_json::json!([])));

    for nonsense in [&["--seeds", "0"][..], &["--first", "18446744073709551615", "--seeds", "2"], &["--first", "x"]] {
        assert_eq!(command(nonsense).status.code(), Some(2), "{nonsense:?}");
    }
}
