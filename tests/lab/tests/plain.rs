//! A lab without agents, for real: root and the CNI plugins are needed. Without them it is skipped aloud.
//! `SLUICE_REQUIRE_ROOT=1` (CI) turns the skip into a failure.

use sluice_flow::Family;
use sluice_lab::{Lab, LabConfig, MatrixRequest, NetNs, Outcome};
use std::path::Path;

const PODS: &str = include_str!("../demo/0-pods.yaml");

fn config(name: &str) -> Option<LabConfig> {
    let root = rustix::process::geteuid().is_root();
    if !root || !Path::new("/usr/lib/cni/ptp").exists() {
        assert!(std::env::var_os("SLUICE_REQUIRE_ROOT").is_none(), "root and /usr/lib/cni/ptp are required here");
        eprintln!("SKIPPED: needs root and /usr/lib/cni/ptp");
        return None;
    }
    let mut config = LabConfig::new(name);
    config.sluice = false;
    config.yaml = PODS.into();
    config.bin_dir = Path::new(env!("CARGO_BIN_EXE_sluice-lab")).parent().map(Into::into);
    config.force = true;
    Some(config)
}

#[test]
fn a_lab_works_and_leaves_nothing_behind() {
    let Some(config) = config("tplain") else { return };
    let lab = Lab::up(&config).unwrap();
    let probe = lab.probe_http("frontend", "http://backend").unwrap();
    assert_eq!(probe.outcome, Outcome::Open { said: "HTTP/1.1 200 OK".into() });
    let v6 = lab.pod_address("backend", Family::V6).unwrap();
    assert!(lab.probe_tcp("frontend", (v6, 80).into()).unwrap().outcome.reached());
    assert_eq!(lab.probe_udp("frontend", (v6, 80).into()).unwrap().outcome, Outcome::Open { said: "echo from default/backend".into() });
    let unknown = lab.probe_http("frontend", "http://nosuch").unwrap().outcome;
    assert!(matches!(unknown, Outcome::Unresolved { .. }), "{unknown:?}");
    assert_eq!(lab.exec("frontend", &["sh", "-c", "exit 7"]).unwrap().status.code(), Some(7));
    let matrix = lab.matrix(&MatrixRequest { with_dns: true, ..MatrixRequest::default() }).unwrap();
    assert!(matrix.cells.iter().all(|cell| cell.reached), "{:?}", matrix.cells);
    assert!(Lab::up(&LabConfig { force: false, ..config.clone() }).is_err(), "a living lab is not displaced");

    let change =
        lab.apply_yaml("{apiVersion: v1, kind: Pod, metadata: {name: third}, spec: {containers: [{name: c, image: nginx}]}}").unwrap();
    assert_eq!(change.pods.attached.len(), 1);
    assert!(lab.probe_http("third", "http://frontend").unwrap().outcome.reached());
    lab.delete(&change.objects).unwrap();
    assert!(lab.pod("third").is_err());

    let root = lab.layout().root.clone();
    drop(lab);
    assert!(!root.exists());
    assert_eq!(NetNs::with_prefix("sluice-tplain-").unwrap(), []);
}

#[test]
fn an_interrupted_up_undoes_itself() {
    let Some(config) = config("tstop") else { return };
    let interrupted = config.interrupted.clone();
    // Relaxed: the flag is read by this very call, on threads that it starts later.
    let progress = move |step: &str| {
        if step.starts_with("pods: 1/") {
            interrupted.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    };
    let config = LabConfig { progress: std::sync::Arc::new(progress), ..config };
    let error = Lab::up(&config).err().expect("interrupted");
    assert_eq!(error.to_string(), "interrupted");
    assert_eq!(NetNs::with_prefix("sluice-tstop-").unwrap(), []);
    assert!(Lab::open("tstop").is_err());
}
