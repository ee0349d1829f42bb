//! Who may depend on whom, read from the graph that cargo resolves.

use std::process::Command;

fn tree(package: &str, features: &[&str]) -> Vec<String> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["tree", "--offline", "--prefix", "none", "--edges", "normal", "--format", "{p}", "--package", package]);
    if !features.is_empty() {
        command.args(["--features", &features.join(",")]);
    }
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo tree runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("names are ASCII");
    names.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn the_dataplane_links_neither_a_runtime_nor_kubernetes() {
    let found = tree("sluice-dataplane", &["kernel"]);
    assert!(found.iter().any(|name| name == "xsk-rs"), "the graph is that of the shipped binary: {found:?}");
    for forbidden in ["tokio", "kube", "k8s-openapi", "rtnetlink", "sluice-policy", "sluice-control"] {
        assert!(!found.iter().any(|name| name == forbidden), "{forbidden} is linked");
    }
}

#[test]
fn arrows_point_one_way() {
    for (package, forbidden) in [
        ("sluice-flow", &["sluice-table", "sluice-wire", "sluice-bpf", "sluice-policy"][..]),
        ("sluice-table", &["sluice-wire", "sluice-bpf", "sluice-policy", "sluice-dataplane"]),
        ("sluice-wire", &["sluice-table", "sluice-policy", "sluice-dataplane", "sluice-control"]),
        ("sluice-policy", &["sluice-wire", "sluice-dataplane", "sluice-control", "tokio"]),
        ("sluice-cni", &["sluice-policy", "sluice-dataplane", "sluice-control", "tokio"]),
        ("sluicectl", &["sluice-dataplane", "sluice-control", "libbpf-sys", "kube", "tokio"]),
    ] {
        let found = tree(package, &[]);
        for name in forbidden {
            assert!(!found.iter().any(|found| found == name), "{package} must not depend on {name}");
        }
    }
}

#[test]
fn plain_cargo_test_needs_no_bpf_toolchain() {
    for package in ["sluice-dataplane", "sluice-bpf"] {
        let found = tree(package, &[]);
        for name in ["libbpf-sys", "libbpf-rs", "xsk-rs"] {
            assert!(!found.iter().any(|found| found == name), "{package} without features must not link {name}");
        }
    }
}
