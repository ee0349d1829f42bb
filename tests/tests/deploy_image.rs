//! The Containerfile: the image holds what the chart runs.

use serde_json::Value;
use sluice_tests::deploy::{Containerfile, folder, read, strings, text};
use std::collections::BTreeSet;
use std::process::Command;

#[test]
fn the_image_holds_what_the_chart_runs() {
    let file = Containerfile::parse(&read("Containerfile")).expect("instructions");
    let workspace = std::fs::read_to_string(folder().join("../Cargo.toml")).expect("the workspace");
    let field =
        |name: &str| workspace.lines().find_map(|line| line.strip_prefix(&format!("{name} = \""))?.strip_suffix('"').map(str::to_owned));
    let (rust, version) = (field("rust-version").expect("pinned"), field("version").expect("set"));

    let bases: Vec<&str> = file.all("FROM").collect();
    assert!(bases[0].starts_with(&format!("docker.io/library/rust:{rust}-")) && bases[0].ends_with("-bookworm AS build"), "{bases:?}");
    assert_eq!(bases[1..], ["docker.io/library/debian:bookworm-slim"], "the same Debian: what was linked there is here");
    assert!(file.all("ARG").any(|argument| argument == format!("VERSION={version}")), "the version is {version}");
    let users: Vec<&str> = file.last_stage().filter(|instruction| instruction.name == "USER").map(|user| user.rest.as_str()).collect();
    assert_eq!(users, ["65532:65532"]);

    let built = binaries();
    let mut copied = BTreeSet::new();
    for copy in file.last_stage().filter(|instruction| instruction.name == "COPY") {
        let [from, source, target] = copy.rest.split(' ').collect::<Vec<_>>()[..] else { panic!("{copy:?}") };
        let name = source.strip_prefix("/out/").unwrap_or_else(|| panic!("{copy:?}"));
        assert_eq!((from, target), ("--from=build", format!("/usr/local/bin/{name}").as_str()));
        assert!(built.contains(name), "{name} is no binary of the workspace: {built:?}");
        assert!(
            file.all("RUN").any(|run| run.contains("cargo build --locked --release") && run.contains(&format!("--package {name}"))),
            "{name} is not built"
        );
        copied.insert(name.to_owned());
    }
    for container_file in ["templates/daemonset.yaml", "templates/uninstall.yaml"] {
        for line in read(&format!("chart/sluice/{container_file}")).lines().filter_map(|line| line.trim().strip_prefix("command: [sluice"))
        {
            let program = format!("sluice{}", line.split([',', ']']).next().unwrap_or_default());
            assert!(copied.contains(&program), "{program} is not in the image: {copied:?}");
        }
    }

    // prepare's list is tried on every CI run; a library comes with the package that it is built against
    let prepare = read("prepare");
    for package in file.packages() {
        let library = format!("\"{}-dev:", package.trim_end_matches(|c: char| c.is_ascii_digit()));
        assert!(prepare.contains(&format!("\"{package}:")) || prepare.contains(&library), "{package} is not in deploy/prepare");
    }
}

/// The workspace's binaries, as cargo sees them.
fn binaries() -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--no-deps", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let targets = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|package| package["targets"].as_array().cloned().unwrap_or_default());
    targets.filter(|target| strings(&target["kind"]).contains("bin")).map(|target| text(&target["name"]).to_owned()).collect()
}

#[test]
fn a_broken_containerfile_is_not_read() {
    for broken in ["FROM debian\nINSTALL x", "FROM debian\nRUN a \\", "FROM"] {
        assert!(Containerfile::parse(broken).is_err(), "{broken}");
    }
}
