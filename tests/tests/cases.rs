//! The cases, and the program that plays them: the promises hold, and whatever does not hold is told apart, engine by
//! engine, with its line and the oracle's reason.

use sluice_tests::cases::{self, dir, play_all, read_all, rows};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

#[test]
fn every_promise_has_a_case_and_every_case_holds() {
    let cases = read_all(&dir(), "").unwrap();
    let mut clauses = rows::read(&dir().join("rows.md")).unwrap();
    let played = play_all(&cases);
    let failures: Vec<String> = played.iter().flat_map(|case| &case.failures).map(ToString::to_string).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    rows::count(&mut clauses, &cases, &played).unwrap();
    let bare: Vec<String> = clauses.iter().filter(|clause| clause.needs_case() && clause.cases == 0).map(rows::Clause::name).collect();
    assert!(bare.is_empty(), "no case stands for {}", bare.join(", "));
    for (case, played) in cases.iter().zip(&played) {
        assert!(played.met.iter().sum::<u64>() > 0, "{}:{} expects nothing", case.file.display(), case.line);
    }
}

#[test]
fn what_is_marked_live_can_be_asked_of_real_pods() {
    let live = cases::live_cases(&read_all(&dir(), "").unwrap()).unwrap();
    assert!(live.len() > 20, "{} live cases", live.len());
}

const CLUSTER: &str = "case A wrong one\nrow Row: it\nnode 192.168.0.1\npod x/web 10.0.1.1 app=web\npod x/client 10.0.1.2 app=client\n\
                       policy x/in\n  podSelector: {matchLabels: {app: web}}\n  ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: 80}]}]\n";

/// Plays one file that begins with [`CLUSTER`], which is 8 lines long.
fn program(rest: &str, args: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("wrong.case"), format!("{CLUSTER}{rest}")).unwrap();
    let rows = "| Row | Clause | Built |\n|---|---|---|\n| Row | it | yes |\n| | nobody's | yes |\n| | later | no: not there |\n";
    fs::write(folder.path().join("rows.md"), rows).unwrap();
    run(folder.path(), args)
}

fn run(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sluice-cases")).args(args).arg("--dir").arg(dir).output().unwrap()
}

/// An expectation that is wrong on one engine is told with its line, that engine, both sides and the reason.
#[test]
fn a_wrong_expectation_is_told_by_every_engine_that_knows_better() {
    for (rest, parts) in [
        (
            "flows\n  x/client -> x/web 81/TCP: allow\n",
            &[
                "wrong.case:10: oracle: x/client (10.0.1.2) -> x/web (10.0.1.1) 81/TCP\n  expected allow\n  got      egress not isolated; ingress denied, isolated by x/in",
                "because  egress of x/client: not isolated; ingress of x/web: denied, isolated by x/in; nearest x/in ingress[0]: the port: rule allows 80/TCP, asked 81/TCP",
                "wrong.case:10: table:",
                "wrong.case:10: worker: x/client (10.0.1.2) -> x/web (10.0.1.1) 81/TCP\n  expected ingress: pass\n  got      ingress: drop policy_denied",
            ][..],
        ),
        // the verdict is right and the reason is not
        ("flows\n  x/client -> x/web 80/TCP: allow by x/in ingress[1]\n", &["wrong.case:10: oracle:", "wrong.case:10: table:"]),
        ("flows\n  x/client -> x/web 80/TCP: allow, not isolated\n", &["wrong.case:10: oracle:", "wrong.case:10: table:"]),
        ("flows\n  x/client -> x/web 81/TCP: deny ingress by x/other\n", &["wrong.case:10: oracle:", "wrong.case:10: table:"]),
        (
            "flows\n  x/client -> x/web 81/TCP: deny both by x/in\n",
            &["wrong.case:10: oracle:", "wrong.case:10: table:", "wrong.case:10: worker:"],
        ),
        (
            "flows\n  x/client -> 192.168.0.9 80/TCP: allow, its node\n  192.0.2.1 -> x/web 80/TCP: allow, its node\n",
            &["wrong.case:11: oracle:", "wrong.case:11: worker:"],
        ),
        // what is built drops nothing by an unbuilt feature's name
        (
            "flows\n  x/client -> x/web 80/TCP: allow; worker drops vlan_unsupported until tags\n",
            &["wrong.case:10: worker:", "expected drop vlan_unsupported until tags"],
        ),
        (
            "frames\n  x/web enters | ipv4(x/client) tcp(1, 80, S) | drop policy_denied\n",
            &[
                "wrong.case:10: worker: x/web ipv4(x/client) tcp(1, 80, S)\n  expected drop policy_denied\n  got      pass\n  because  the frame is Packet",
            ],
        ),
        (
            "frames\n  x/web enters | vlan(1) ipv4(x/client) tcp(1, 80, S) | passes\n",
            &["got      drop vlan_unsupported\n  because  the parser refuses it: vlan_unsupported"],
        ),
        (
            "frames\n  x/web enters | 3 x ipv4(x/client) tcp({i}, {i+79}, S) | 3 drop policy_denied\n",
            &["expected drop policy_denied\n  got      1 pass, 2 drop policy_denied"],
        ),
        (
            "frames\n  x/web enters | ipv4(x/client) tcp(1, 80, S) | passes as ipv4(x/client) tcp(2, 80, S)\n",
            &["expected judged as", "sport: 2"],
        ),
        ("refused policy x/in\n  must\n", &["wrong.case:10: loader: policy/x/in.yaml\n  expected must\n  got      the file is accepted"]),
        ("stored x/in\n  spec.policyTypes = [\"Egress\"]\n", &["wrong.case:10: loader:", "got      spec.policyTypes = [\"Ingress\"]"]),
        (
            "images\n  another magic: adopted\n",
            &["wrong.case:10: table: another magic\n  expected adopted\n  got      not a Sluice table: wrong magic"],
        ),
        (
            "frames\n  x/web enters | ipv4(x/client) tcp(1, 80, S) | passes\ndelete policy x/in\ncut 1\n",
            &["wrong.case:12: worker: connections cut\n  expected 1\n  got      0"],
        ),
        // a refusal that the case does not know of
        (
            "policy x/bad\n  podselector: {}\nflows\n  x/client -> x/web 80/TCP: allow\n",
            &["wrong.case:11: loader: this step", "the case does not say that this is refused", "unknown field"],
        ),
    ] {
        let output = program(rest, &["wrong"]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{rest}{text}{}", String::from_utf8_lossy(&output.stderr));
        for part in parts {
            assert!(text.contains(part), "{rest}\n{part:?} is missing in:\n{text}");
        }
        let failed = text.lines().last().and_then(|line| line.split(", ").nth(1)).unwrap_or_default().to_owned();
        assert_ne!(failed, "0 failed", "{text}");
    }
}

#[test]
fn a_promise_without_a_case_is_a_failure_and_one_that_cannot_have_one_is_shown() {
    let right = "flows\n  x/client -> x/web 80/TCP: allow by x/in ingress[0]\n";
    let output = program(right, &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("no case stands for Row: nobody's") && text.contains("not built yet: not there"), "{text}");
    assert_eq!(text.lines().last(), Some("3 passed, 1 failed"));
    // where only some files are played, promises are not counted against them
    let output = program(right, &["wrong"]);
    assert_eq!((output.status.code(), String::from_utf8(output.stdout).unwrap().lines().last()), (Some(0), Some("3 passed, 0 failed")));
}

#[test]
fn a_file_that_cannot_be_used_is_no_verdict() {
    for (rest, message) in [
        ("flow\n", "wrong.case:9: there is no directive \"flow\""),
        ("frames\n  x/web enters | udp(1, 2) | passes as\n", "expected `passes`"),
        ("row Row: else\nflows\n  x/client -> x/web 80/TCP: allow\n", "wrong.case:9: rows.md has no \"Row: else\""),
    ] {
        let output = program(rest, &[]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(message), "{message:?} is missing in:\n{text}");
    }
}

#[test]
fn the_report_is_there_for_programs_too() {
    let output = program("flows\n  x/client -> x/web 81/TCP: allow\n", &["-o", "json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["engines"], serde_json::json!(["oracle", "table", "worker", "loader"]));
    assert_eq!(report["cases"][0]["failures"][0]["line"], 10);
    assert_eq!(report["clauses"][0]["clause"], "it");
}
