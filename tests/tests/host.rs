//! What a host gets: units that systemd accepts, and a package that goes in and out of a root directory cleanly.

use sluice_tests::live::program;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn exists(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// Whether a test must be left out, said aloud; where `CI` is set nothing may be.
fn skipped(test: &str, reason: &str) -> bool {
    assert!(std::env::var_os("CI").is_none_or(|value| value.is_empty()), "{test}: {reason}");
    println!("SKIPPED: {test}: {reason}");
    true
}

fn ok(mut command: Command) -> String {
    let output: Output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}: {text}", output.status);
    text
}

/// `Key=value` lines of a unit, by section.
fn lines(unit: &str) -> BTreeSet<String> {
    let mut section = String::new();
    let mut found = BTreeSet::new();
    for line in unit.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix('[') {
            Some(name) => section = name.trim_end_matches(']').to_owned(),
            None => assert!(line.contains('=') && found.insert(format!("{section}.{line}")), "{line:?} is no setting, or is there twice"),
        }
    }
    found
}

#[test]
fn the_units_keep_policy_in_force_and_give_control_nothing() {
    let unit = |name: &str| lines(&std::fs::read_to_string(deploy().join("systemd").join(name)).unwrap());
    let (dataplane, control) = (unit("sluice-dataplane.service"), unit("sluice-control.service"));
    for (unit, expected) in [
        (&dataplane, "Service.RuntimeDirectoryPreserve=yes"),
        (&dataplane, "Service.RuntimeDirectory=sluice"),
        (&dataplane, "Service.NoNewPrivileges=yes"),
        (&dataplane, "Service.EnvironmentFile=-/etc/sluice/dataplane.env"),
        (&control, "Service.User=sluice"),
        (&control, "Service.CapabilityBoundingSet="),
        (&control, "Service.NoNewPrivileges=yes"),
        (&control, "Service.ProtectSystem=strict"),
        (&control, "Service.EnvironmentFile=-/etc/sluice/control.env"),
        (&dataplane, "Service.Restart=always"),
        (&control, "Service.Restart=always"),
    ] {
        assert!(unit.contains(expected), "{expected}: {unit:#?}");
    }
    // these make a mount namespace, in which the trunks' namespace would end with the process
    let namespaced =
        ["Protect", "Private", "ReadOnlyPaths", "ReadWritePaths", "InaccessiblePaths", "BindPaths", "TemporaryFileSystem", "Root"];
    for line in &dataplane {
        assert!(!namespaced.iter().any(|option| line.starts_with(&format!("Service.{option}"))), "{line}");
        assert!(!line.starts_with("Service.ExecStop"), "{line}: a stop must leave everything in place");
    }
    let sysusers = std::fs::read_to_string(deploy().join("systemd/sluice.sysusers")).unwrap();
    assert!(sysusers.lines().any(|line| line.starts_with("u sluice ")));
}

#[test]
fn systemd_accepts_the_units() {
    if !exists("systemd-analyze") && skipped("systemd_accepts_the_units", "no systemd-analyze here") {
        return;
    }
    // the programs at which the units point stand in a root of their own
    let root = tempfile::tempdir().unwrap();
    let units = root.path().join("units");
    std::fs::create_dir(&units).unwrap();
    for name in ["sluice-dataplane", "sluice-control"] {
        let program = root.path().join(name);
        std::fs::copy("/bin/true", &program).unwrap();
        let unit = std::fs::read_to_string(deploy().join(format!("systemd/{name}.service"))).unwrap();
        let unit = unit.replace(&format!("/usr/bin/{name}"), program.to_str().unwrap());
        std::fs::write(units.join(format!("{name}.service")), unit).unwrap();
    }
    for name in ["sluice-dataplane", "sluice-control"] {
        let mut verify = Command::new("systemd-analyze");
        verify
            .args(["verify", "--man=no"])
            .arg(units.join(format!("{name}.service")))
            .env("SYSTEMD_UNIT_PATH", format!("{}:", units.display()));
        // warnings about other units of the machine are not ours
        let said: Vec<String> = ok(verify).lines().filter(|line| line.contains("sluice")).map(str::to_owned).collect();
        assert!(said.is_empty(), "{name}: {said:#?}");
    }
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=true", "--threshold=25"]).arg(units.join("sluice-control.service"));
    ok(security);
}

/// Every file and link below, relative.
fn tree(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            match entry.file_type().unwrap().is_dir() {
                true => dirs.push(path),
                false => assert!(found.insert(path.strip_prefix(root).unwrap().display().to_string())),
            }
        }
    }
    found
}

#[test]
fn the_package_goes_in_and_out_of_a_root_cleanly() {
    const TEST: &str = "the_package_goes_in_and_out_of_a_root_cleanly";
    if !exists("dpkg-deb") && skipped(TEST, "no dpkg-deb here") {
        return;
    }
    if !rustix::process::geteuid().is_root() && skipped(TEST, "needs root (dpkg --root)") {
        return;
    }
    let bin_dir = program("sluicectl").parent().unwrap().to_owned();
    let dir = tempfile::tempdir().unwrap();
    let mut build = Command::new(deploy().join("deb/build"));
    build.arg("--bin-dir").arg(&bin_dir).arg("--out").arg(dir.path()).args(["--compress", "none"]);
    let package = PathBuf::from(ok(build).trim());
    let version = env!("CARGO_PKG_VERSION");
    assert!(package.file_name().unwrap().to_str().unwrap().starts_with(&format!("sluice_{version}_")), "{package:?}");

    let root = dir.path().join("root");
    for part in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "etc"] {
        std::fs::create_dir_all(root.join(part)).unwrap();
    }
    std::fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
    // what dpkg and systemd-sysusers keep about it is not its own
    let kept = |path: &String| path.starts_with("var/lib/dpkg/") || (path.starts_with("etc/") && !path.starts_with("etc/sluice"));
    let installed = |root: &Path| tree(root).into_iter().filter(|path| !kept(path)).collect::<BTreeSet<_>>();
    let dpkg = |arguments: &[&str]| {
        let mut dpkg = Command::new("dpkg");
        // its scripts run outside of the root, and are told of it by DPKG_ROOT
        dpkg.arg(format!("--root={}", root.display())).args(["--force-script-chrootless", "--force-depends", "--force-unsafe-io"]);
        dpkg.args(arguments).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        ok(dpkg)
    };
    let said = dpkg(&["--install", package.to_str().unwrap()]);
    assert!(said.contains("sluicectl doctor"), "{said}");
    let files: BTreeSet<String> = [
        "etc/sluice/control.env",
        "etc/sluice/dataplane.env",
        "usr/bin/sluice-cni",
        "usr/bin/sluice-control",
        "usr/bin/sluice-dataplane",
        "usr/bin/sluicectl",
        "usr/lib/systemd/system/sluice-control.service",
        "usr/lib/systemd/system/sluice-dataplane.service",
        "usr/lib/sysusers.d/sluice.conf",
        "usr/share/doc/sluice/README.md",
        "usr/share/doc/sluice/copyright",
    ]
    .map(str::to_owned)
    .into();
    assert_eq!(installed(&root), files);
    assert!(!root.join("etc/systemd").exists(), "nothing is enabled");
    if exists("systemd-sysusers") {
        assert!(std::fs::read_to_string(root.join("etc/passwd")).unwrap().contains("sluice:"));
    }
    // what an administrator wrote survives an upgrade and a removal, and goes with a purge
    std::fs::write(root.join("etc/sluice/control.env"), "SLUICE_CONTROL_ARGS=mine\n").unwrap();
    dpkg(&["--install", package.to_str().unwrap()]);
    assert!(std::fs::read_to_string(root.join("etc/sluice/control.env")).unwrap().contains("mine"));
    dpkg(&["--remove", "sluice"]);
    let kept = ["etc/sluice/control.env", "etc/sluice/dataplane.env", "var/lib/sluice/sluice-dataplane"].map(str::to_owned);
    assert_eq!(installed(&root), BTreeSet::from(kept), "a purge needs the program once more");
    dpkg(&["--purge", "sluice"]);
    assert_eq!(installed(&root), BTreeSet::new());
    assert!(!root.join("etc/sluice").exists() && !root.join("var/lib/sluice").exists());
}
