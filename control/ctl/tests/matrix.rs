//! `matrix` and `diff` as people run them: the walkthrough's manifests, what is printed, and how it ends.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const DEMO: [&str; 5] = ["0-pods", "1-default-deny", "2-frontend", "3-backend", "4-default-deny-dns"];

const NO_ADDRESSES: &str = "note: 2 pods or templates have no address in the manifests: \
    assumed outside of every ipBlock; --pod-cidr says where they are\n";

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sluicectl")).args(arguments).env("COLUMNS", "160").output().unwrap()
}

fn ends(output: &Output, code: i32) -> String {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

fn demo(index: usize) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/lab/demo").join(format!("{}.yaml", DEMO[index]));
    path.to_str().unwrap().to_owned()
}

/// Some steps of the walkthrough, as one state of `diff`.
fn steps(indices: &[usize]) -> String {
    indices.iter().map(|index| demo(*index)).collect::<Vec<_>>().join(",")
}

fn matrix(indices: &[usize], more: &[&str]) -> Output {
    let paths: Vec<String> = indices.iter().flat_map(|index| ["-f".to_owned(), demo(*index)]).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    run(&[&["matrix"], paths.as_slice(), more].concat())
}

fn written(dir: &Path, name: &str, text: &str) -> String {
    let path: PathBuf = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_walkthrough_reads_as_it_is_told() {
    let legend = "-  no port    =  itself, always allowed    --list names the rules, --html FILE makes a page to look at\n";
    for (files, grid) in [
        (
            &[0][..],
            "FROM \\ TO         default/backend  default/frontend  outside
default/backend   =                all ports         all ports
default/frontend  all ports        =                 all ports
outside           all ports        all ports

6 pairs: 6 open on all ports, 0 on some, 0 closed
",
        ),
        (
            &[0, 1],
            "FROM \\ TO         default/backend  default/frontend  outside
default/backend   =                -                 -
default/frontend  -                =                 -
outside           -                -

6 pairs: 0 open on all ports, 0 on some, 6 closed
",
        ),
        (
            &[0, 1, 2, 3],
            "FROM \\ TO         default/backend  default/frontend  outside
default/backend   =                -                 -
default/frontend  all ports        =                 -
outside           -                -

6 pairs: 1 open on all ports, 0 on some, 5 closed
",
        ),
        (
            &[0, 2, 3, 4],
            "FROM \\ TO         default/backend  default/frontend  outside
default/backend   =                -                 53/TCP 53/UDP
default/frontend  all ports        =                 53/TCP 53/UDP
outside           -                -

6 pairs: 1 open on all ports, 2 on some, 3 closed
",
        ),
    ] {
        assert_eq!(ends(&matrix(files, &[]), 0), format!("{grid}{legend}{NO_ADDRESSES}"), "{files:?}");
    }
}

#[test]
fn the_list_names_the_rules_and_who_isolates() {
    let shown = ends(&matrix(&[0, 1, 2, 3], &["--list", "--all"]), 0);
    let expected = "\
FROM               TO                 PORTS       LEAVING                                                 ENTERING
default/backend    default/frontend   none        denied, isolated by default/default-deny                denied, isolated by default/default-deny
default/backend    outside            none        denied, isolated by default/default-deny                -
default/frontend   default/backend    all ports   default/frontend egress[0]                              default/backend ingress[0]
default/frontend   outside            none        denied, isolated by default/default-deny, default/frontend   -
";
    // Columns are as wide as their widest cell; only the words matter here.
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words(&shown).starts_with(&words(expected)), "{shown}");
    let brief = ends(&matrix(&[0, 1, 2, 3], &["--list"]), 0);
    assert_eq!(brief.lines().filter(|line| line.starts_with("default/")).count(), 1, "{brief}");
}

#[test]
fn columns_get_numbers_when_names_are_too_wide_and_lines_when_cells_are() {
    let narrow = |columns: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluicectl"));
        let output = command.args(["matrix", "-f", &demo(0)]).env("COLUMNS", columns).output().unwrap();
        ends(&output, 0)
    };
    assert!(narrow("60").starts_with("FROM \\ TO           1          2          3\n1 default/backend"), "{}", narrow("60"));
    assert!(narrow("40").starts_with("FROM               TO "), "{}", narrow("40"));
}

#[test]
fn json_tells_ports_rules_and_nearest_misses() {
    let json: Value = serde_json::from_slice(&matrix(&[0, 1, 2, 3], &["-o", "json"]).stdout).unwrap();
    let names: Vec<&str> = json["ends"].as_array().unwrap().iter().map(|end| end["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["default/backend", "default/frontend", "outside"]);
    let pair = |from: &str, to: &str| {
        let pairs = json["pairs"].as_array().unwrap();
        pairs.iter().find(|pair| pair["from"] == from && pair["to"] == to).unwrap_or_else(|| panic!("{from} {to}")).clone()
    };
    let open = pair("default/frontend", "default/backend");
    assert_eq!((&open["verdict"], &open["ports"]), (&"open".into(), &"all ports".into()));
    assert_eq!(open["ways"][0]["allowed"][0], serde_json::json!({"protocol": "TCP", "first": 0, "last": 65_535}));
    assert_eq!(open["ways"][0]["egress"]["allowed"][0]["rule"], "default/frontend egress[0]");
    let closed = pair("outside", "default/backend");
    assert_eq!((&closed["verdict"], &closed["ways"][0]["egress"]), (&"closed".into(), &Value::Null));
    let ingress = &closed["ways"][0]["ingress"];
    assert_eq!(ingress["isolating"], serde_json::json!(["default/backend", "default/default-deny"]));
    assert_eq!(ingress["nearestMiss"]["rule"], "default/backend ingress[0]");
    assert!(ingress["nearestMiss"]["failed"].as_str().unwrap().starts_with("the peer: rule allows podSelector run=frontend"), "{ingress}");
}

/// The data of a page, read as a browser reads it: up to the first end tag.
fn data(page: &str) -> Value {
    let (_, rest) = page.split_once("<script type=\"application/json\" id=\"data\">").unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

#[test]
fn the_page_is_one_file_that_loads_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("matrix.html");
    let shown = ends(&matrix(&[0, 1, 2, 3], &["--html", file.to_str().unwrap()]), 0);
    assert!(shown.starts_with("wrote "), "{shown}");
    let page = std::fs::read_to_string(&file).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    assert!(page.contains("default-src 'none'"));
    for outside in ["http:", "https:", "src=", "href=", "@import", "url(", "fetch(", "innerHTML", "{{"] {
        assert!(!page.contains(outside), "{outside}");
    }
    for tag in ["html", "head", "body", "header", "main", "aside", "style", "table", "form", "noscript"] {
        let count = |text: &str| page.matches(text).count();
        assert_eq!(count(&format!("<{tag}>")) + count(&format!("<{tag} ")), 1, "{tag}");
        assert_eq!(count(&format!("</{tag}>")), 1, "{tag}");
    }
    let data = data(&page);
    assert_eq!(data["ends"].as_array().unwrap().len(), 3);
    let cell = &data["cells"][data["rows"][1][0].as_u64().unwrap() as usize];
    assert_eq!((&cell["openness"], &cell["text"]), (&"open".into(), &"all ports".into()));
    let half = &data["halves"][cell["ways"][0]["ingress"].as_u64().unwrap() as usize];
    assert_eq!(half["spans"][0], serde_json::json!(["all ports", "default/backend ingress[0]"]));
    assert_eq!((&data["rows"][0][0], &data["rows"][2][2]), (&(-2).into(), &(-1).into()), "itself, and no pair");
    let again = matrix(&[0, 1, 2, 3], &["--html", "-"]);
    assert_eq!(String::from_utf8(again.stdout).unwrap(), page, "the same input gives the same page");
}

#[test]
fn no_name_ends_the_data_of_the_page() {
    let dir = tempfile::tempdir().unwrap();
    let pods = std::fs::read_to_string(demo(0)).unwrap();
    let opening = written(dir.path(), "<script>alert(1)<", &pods);
    let closing = written(&dir.path().join("<"), "script><!--.yaml", &pods);
    for path in [opening, closing] {
        let page = String::from_utf8(run(&["matrix", "-f", &path, "--html", "-"]).stdout).unwrap();
        assert_eq!(data(&page)["sources"][0], path.as_str());
        assert_eq!((page.matches("<script").count(), page.matches("</script").count()), (2, 2), "{path}");
        assert!(!page.contains("<!--"), "{path}");
    }
}

#[test]
fn problems_end_it_unless_the_reader_insists() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = written(dir.path(), "wrong.yaml", &std::fs::read_to_string(demo(2)).unwrap().replace("matchLabels", "matchLabel"));
    let refused = ends(&run(&["matrix", "-f", &demo(0), "-f", &wrong]), 2);
    assert!(refused.contains("wrong.yaml:9:5: NetworkPolicy default/frontend: ") && refused.contains("--ignore-errors"), "{refused}");
    let shown = ends(&run(&["matrix", "-f", &demo(0), "-f", &wrong, "--ignore-errors"]), 0);
    assert!(shown.contains("warning:") && shown.contains("6 open on all ports"), "{shown}");
    assert!(ends(&run(&["matrix", "-f", &demo(1)]), 2).contains("there is no pod and no workload"));
    assert!(ends(&run(&["matrix", "-f", &demo(0), "-n", "shop"]), 2).contains("there is no pod in the namespace \"shop\""));
    assert!(ends(&run(&["matrix", "-f", &demo(0), "--pod-cidr", "10.0.0.0"]), 2).contains("is no CIDR"));
    assert!(ends(&run(&["diff", "-f", &demo(0)]), 2).contains("two states are compared"));
    assert!(ends(&run(&["diff", "-f", &demo(0), "-f", &wrong]), 2).contains("wrong.yaml:9:5"));
}

#[test]
fn standard_input_is_a_file_like_others() {
    use std::io::Write;
    use std::process::Stdio;
    let mut child = Command::new(env!("CARGO_BIN_EXE_sluicectl"))
        .args(["matrix", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&std::fs::read(demo(0)).unwrap()).unwrap();
    assert!(ends(&child.wait_with_output().unwrap(), 0).contains("default/frontend"));
}

#[test]
fn diff_names_what_is_responsible_and_ends_as_diff_does() {
    let equal = ends(&run(&["diff", "-f", &steps(&[0, 1]), "-f", &steps(&[0, 1])]), 0);
    assert_eq!(equal, format!("No verdict changes (6 pairs compared on every port)\n{NO_ADDRESSES}"));
    let changed = ends(&run(&["diff", "-f", &steps(&[0, 1]), "-f", &steps(&[0, 2, 3, 4])]), 1);
    let expected = "\
Newly allowed (3)
  + default/backend → outside  53/TCP 53/UDP
      egress: allowed now by default/default-deny egress[0]; before: isolated by default/default-deny, no rule allowed
  + default/frontend → default/backend  53/TCP 53/UDP
      egress: allowed now by default/default-deny egress[0]; before: isolated by default/default-deny, no rule allowed
      ingress: allowed now by default/backend ingress[0]; before: isolated by default/default-deny, no rule allowed
  + default/frontend → default/backend  all ports except 53/TCP 53/UDP
      egress: allowed now by default/frontend egress[0]; before: isolated by default/default-deny, no rule allowed
      ingress: allowed now by default/backend ingress[0]; before: isolated by default/default-deny, no rule allowed
  + default/frontend → outside  53/TCP 53/UDP
      egress: allowed now by default/default-deny egress[0]; before: isolated by default/default-deny, no rule allowed

3 of 6 pairs change
";
    assert_eq!(changed, format!("{expected}{NO_ADDRESSES}"));
    let denied = ends(&run(&["diff", "-f", &steps(&[0]), "-f", &steps(&[0, 1])]), 1);
    assert!(denied.starts_with("Newly denied (6)\n  - default/backend → default/frontend  all ports\n"), "{denied}");
    assert!(denied.contains("ingress: denied now, isolated by default/default-deny and no rule allows; before: not isolated"), "{denied}");
    let json: Value = serde_json::from_slice(&run(&["diff", "-f", &steps(&[0]), "-f", &steps(&[0, 1]), "-o", "json"]).stdout).unwrap();
    assert_eq!((&json["changed"], &json["pairsCompared"], &json["pairs"][0]["change"]), (&true.into(), &6.into(), &"newlyDenied".into()));
    let reason = &json["pairs"][0]["changes"][0]["reasons"][0];
    assert_eq!((&reason["direction"], &reason["before"]["allowed"]), (&"egress".into(), &true.into()));
    assert_eq!(reason["after"]["isolating"], serde_json::json!(["default/default-deny"]));
}

#[test]
fn diff_shows_pods_that_only_one_state_has() {
    let dir = tempfile::tempdir().unwrap();
    let pods = std::fs::read_to_string(demo(0)).unwrap();
    let more = written(
        dir.path(),
        "more.yaml",
        &format!("{pods}\n---\napiVersion: v1\nkind: Pod\nmetadata: {{name: extra}}\nspec: {{containers: [{{name: c}}]}}\n"),
    );
    let shown = ends(&run(&["diff", "-f", &demo(0), "-f", &more]), 1);
    assert!(shown.contains("Only after (1)\n  + default/extra\n") && shown.contains("No verdict changes"), "{shown}");
    let json: Value = serde_json::from_slice(&run(&["diff", "-f", &more, "-f", &demo(0), "-o", "json"]).stdout).unwrap();
    assert_eq!(json["onlyBefore"][0]["name"], "default/extra");
}

#[test]
fn explain_judges_pods_and_workloads_that_run_nowhere_yet() {
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/lab/demo/");
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_sluicectl")).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    };
    let (pods, deny) = (format!("{demo}0-pods.yaml"), format!("{demo}1-default-deny.yaml"));
    let (code, text) = run(&["explain", "frontend", "backend", "80", "-f", &pods]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("ALLOWED") && text.contains("no address in the manifests: assumed outside of every ipBlock"), "{text}");
    let (code, text) = run(&["explain", "frontend", "backend", "80", "-f", &pods, "-f", &deny, "--pod-cidr", "10.9.0.0/24"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("DENIED") && text.contains("as --pod-cidr says") && text.contains("(10.9.0."), "{text}");
    let nothing = tempfile::tempdir().unwrap();
    let (code, text) = run(&["diff", "-f", nothing.path().to_str().unwrap(), "-f", &pods]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("Only after") && text.contains("default/backend"), "{text}");
    let (code, text) = run(&["diff", "-f", nothing.path().to_str().unwrap(), "-f", nothing.path().to_str().unwrap()]);
    assert_eq!(code, Some(2), "{text}");
}
