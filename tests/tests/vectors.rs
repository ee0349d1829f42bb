//! The vectors, and the program that runs them: right engines pass, a wrong verdict and a bad file are each told apart.

use sluice_tests::vectors::{Engine, VectorFile, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn vectors(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(name)
}

fn agrees(name: &str, probes: u64) {
    let file = VectorFile::read(&vectors(name)).unwrap();
    for engine in [Engine::Oracle, Engine::Table] {
        let tally = run(&file, &[engine]).unwrap();
        let differences: Vec<String> = tally.differences.iter().map(ToString::to_string).collect();
        assert_eq!(tally.failed, 0, "{}:\n{}", engine.name(), differences.join("\n"));
        assert_eq!(tally.passed, probes, "{}: no probe may be skipped silently", engine.name());
    }
}

#[test]
fn oracle_and_table_agree_with_cyclonus_cases() {
    agrees("cyclonus.json.gz", 1_068_329);
}

#[test]
fn oracle_and_table_agree_with_random_clusters() {
    agrees("random.json.gz", 1_477_878);
}

/// One namespace, two pods; `y/a` takes only 80/TCP. `truth` is the ingress verdict of x/a → y/a on 80 and 81.
fn tiny(truth: &str) -> String {
    let grid = |ingress: &str, egress: &str| {
        format!(
            r#"{{"sources": ["x/a"], "dests": ["y/a"], "ports": ["TCP/80", "TCP/81"],
                "ingress": ["{ingress}"], "egress": ["{egress}"], "combined": ["{ingress}"]}}"#
        )
    };
    let none = r#"{"sources": [], "dests": [], "ports": [], "ingress": [], "egress": [], "combined": []}"#;
    let pod = |ns: &str, ip: &str| format!(r#"{{"ns": "{ns}", "name": "a", "labels": {{}}, "ip": "{ip}", "ports": []}}"#);
    format!(
        r#"{{"schema": "netpol-vectors/1", "cases": [{{"id": "tiny", "steps": [{{
            "namespaces": {{"x": {{}}, "y": {{}}}}, "pods": [{}, {}],
            "policies": [{{"metadata": {{"namespace": "y", "name": "p"}},
                           "spec": {{"podSelector": {{}}, "ingress": [{{"ports": [{{"port": 80}}]}}]}}}}],
            "truth": {}, "unserved": {none}, "external_ingress": {none}, "external_egress": {none}}}]}}]}}"#,
        pod("x", "10.0.0.1"),
        pod("y", "10.0.0.2"),
        grid(truth, "..")
    )
}

fn program(content: &str, engine: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.json");
    fs::write(&path, content).unwrap();
    let program = env!("CARGO_BIN_EXE_sluice-vectors");
    Command::new(program).args(["--engine", engine]).arg(&path).output().unwrap()
}

#[test]
fn the_last_line_counts_probes_and_undecided_cells_are_left_out() {
    for (truth, engine, line) in [
        (".X", "both", "4 passed, 0 failed"),
        (".X", "table", "2 passed, 0 failed"),
        ("NX", "both", "4 passed, 0 failed"), // its egress half is decided
    ] {
        let output = program(&tiny(truth), engine);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!((output.status.code(), text.lines().last()), (Some(0), Some(line)), "{truth} {engine}");
    }
}

#[test]
fn a_wrong_verdict_is_shown_with_the_oracles_reason() {
    let output = program(&tiny(".."), "table");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in [
        "tiny step 0, truth: x/a (10.0.0.1) -> y/a (10.0.0.2) 81/TCP",
        "ingress: expected allowed, the table says denied",
        "nearest y/p ingress[0]: the port: rule allows 80/TCP, asked 81/TCP",
    ] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
    assert_eq!(text.lines().last(), Some("1 passed, 1 failed"));
}

#[test]
fn unusable_input_is_no_verdict() {
    for (content, message) in [
        ("{".to_owned(), "not vectors: EOF"),
        (r#"{"schema": "netpol-vectors/2"}"#.to_owned(), "schema netpol-vectors/2, this build reads netpol-vectors/1"),
        (tiny("..."), "case tiny step 0: grid truth: ingress is not 1 strings of 2 characters"),
        (tiny(".y"), "case tiny step 0: grid truth: unknown cell 'y'"),
        (tiny(".X").replace(r#""dests": ["y/a"]"#, r#""dests": ["y/b"]"#), "y/b is neither an address nor a pod"),
        (tiny(".X").replace("TCP/81", "TCP/x"), "TCP/x is no protocol/port"),
    ] {
        let output = program(&content, "both");
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(message), "{message:?} is missing in:\n{text}");
    }
}
