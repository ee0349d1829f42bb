//! `sluicectl lint` as a process: what is printed, what scripts get, and how it ends.

use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const WRONG: &str = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: allow-port-8000
  namespace: production
spec:
  podSelector:
    matchLabels:
      app=web-server
";

const UNMEANT: &str = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: dns
spec:
  podSelector: {}
  policyTypes:
  - Egress
  egress:
  - to:
    ports:
    - port : 53
      protocol: UDP
";

fn lint(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sluicectl")).current_dir(dir).arg("lint").args(arguments).output().unwrap()
}

fn ends(output: &Output, code: i32) -> String {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, text)| std::fs::write(dir.path().join(name), text).unwrap());
    dir
}

#[test]
fn errors_and_warnings_are_shown_where_they_stand_and_counted() {
    let dir = dir(&[("a.yaml", WRONG), ("b.yaml", UNMEANT)]);
    let shown = ends(&lint(dir.path(), &["-f", "a.yaml", "-f", "b.yaml"]), 1);
    assert_eq!(
        shown,
        "a.yaml:9:7: NetworkPolicy production/allow-port-8000: spec.podSelector.matchLabels: expected a map, found the text \"app=web-server\"
  9 |       app=web-server
    |       ^
hint: write `app: web-server`

b.yaml:10:5: warning[empty-peers]: NetworkPolicy default/dns: spec.egress[0].to: `to` is left empty, which means every peer, inside and outside the cluster
  10 |   - to:
     |     ^
hint: if every peer is meant, leave `to` out; if nothing may go out, remove the whole rule

b.yaml:11:5: warning[dns-without-tcp]: NetworkPolicy default/dns: spec.egress[0].ports: the pods that this policy selects may ask DNS over UDP only; an answer too long for UDP is asked for again over TCP, and fails
  11 |     ports:
     |     ^
hint: add `- {port: 53, protocol: TCP}`

2 files, 1 object: 1 error, 2 warnings
"
    );
}

#[test]
fn the_exit_code_tells_clean_wrong_and_unusable_apart() {
    let clean = WRONG.replace("app=web-server", "app: web-server\n  ingress:\n  - ports:\n    - port: 8000");
    let dir = dir(&[("clean.yaml", &clean), ("wrong.yaml", WRONG), ("unmeant.yaml", UNMEANT)]);
    let code = |arguments: &[&str], code| ends(&lint(dir.path(), arguments), code);
    assert_eq!(code(&["-f", "clean.yaml"], 0), "1 file, 1 object: 0 errors, 0 warnings\n");
    code(&["-f", "wrong.yaml"], 1);
    code(&["-f", "."], 1);
    code(&["-f", "unmeant.yaml"], 0);
    code(&["-f", "unmeant.yaml", "--deny", "warnings"], 1);
    code(&["-f", "unmeant.yaml", "--deny", "empty-peers"], 1);
    code(&["-f", "unmeant.yaml", "--deny", "covered-rule"], 0);
    let allowed = code(&["-f", "unmeant.yaml", "--allow", "empty-peers", "--allow", "dns-without-tcp", "--deny", "warnings"], 0);
    assert_eq!(allowed, "1 file, 1 object: 0 errors, 0 warnings (2 allowed)\n");
    assert!(code(&["-f", "gone.yaml"], 2).contains("gone.yaml: cannot be read"));
    // What can be read is judged all the same.
    assert!(code(&["-f", "gone.yaml", "-f", "wrong.yaml"], 2).contains("wrong.yaml:9:7"));
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    assert!(code(&["-f", "empty"], 2).contains("empty holds no manifest"));
    assert!(code(&["-f", "clean.yaml", "--allow", "no-such"], 2).contains("there are selects-nothing, "));
    assert!(code(&[], 2).contains("--filename"));
}

#[test]
fn a_file_named_twice_is_one_and_dash_is_standard_input() {
    let dir = dir(&[("a.yaml", UNMEANT)]);
    assert!(ends(&lint(dir.path(), &["-f", "a.yaml", "-f", "a.yaml"]), 0).contains("1 file, 1 object"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_sluicectl"))
        .args(["lint", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(WRONG.as_bytes()).unwrap();
    assert!(ends(&child.wait_with_output().unwrap(), 1).starts_with("<stdin>:9:7: NetworkPolicy production/allow-port-8000: "));
}

#[test]
fn json_holds_every_finding_under_stable_names() {
    let dir = dir(&[("a.yaml", WRONG), ("b.yaml", UNMEANT)]);
    let output = lint(dir.path(), &["-f", "a.yaml", "-f", "b.yaml", "-o", "json", "--allow", "dns-without-tcp"]);
    ends(&output, 1);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let object = |namespace: &str, name: &str| serde_json::json!({"kind": "NetworkPolicy", "namespace": namespace, "name": name});
    assert_eq!(
        json["errors"],
        serde_json::json!([{
            "file": "a.yaml", "line": 9, "column": 7, "object": object("production", "allow-port-8000"),
            "field": "spec.podSelector.matchLabels", "message": "expected a map, found the text \"app=web-server\"",
            "hint": "write `app: web-server`", "source_line": "      app=web-server",
        }])
    );
    let warning = &json["warnings"][0];
    assert_eq!((&warning["id"], &warning["line"], &warning["object"]), (&"empty-peers".into(), &10.into(), &object("default", "dns")));
    assert_eq!(json["incomplete"], serde_json::json!([]));
    let summary = serde_json::json!({"files": 2, "objects": 1, "skipped": 0, "errors": 1, "warnings": 1, "allowed": 1});
    assert_eq!(json["summary"], summary);
}

#[test]
fn every_kind_explains_itself() {
    let here = Path::new(".");
    let list = ends(&lint(here, &["--explain"]), 0);
    for line in list.lines() {
        let (id, summary) = line.split_once(' ').unwrap();
        let text = ends(&lint(here, &["--explain", id]), 0);
        assert!(text.starts_with(&format!("{id}: {}", summary.trim())) && text.contains("\nExample:\n\n    "), "{text}");
    }
    let json: Value = serde_json::from_slice(&lint(here, &["--explain", "-o", "json"]).stdout).unwrap();
    assert_eq!(json.as_array().unwrap().len(), list.lines().count());
    ends(&lint(here, &["--explain", "no-such"]), 2);
}
