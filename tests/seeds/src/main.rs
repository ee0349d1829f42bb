//! `sluice-seeds DIR`: the corpora that fuzzing begins with, one directory for each target, and a dictionary beside each, made of
//! real inputs when they are needed: manifests, vectors and recordings of this repository, named frames, messages.

use anyhow::{Context, Result};
use flate2::read::GzDecoder;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sluice_wire::{FromControl, FromDataplane, ToControl, ToDataplane};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Seeds and words beyond these add run time, not coverage.
const SEED_BYTES_MAX: usize = 8 << 10;
const WORDS_MAX: usize = 400;

const POLICIES_MAX: usize = 120;

fn main() -> Result<()> {
    let out = PathBuf::from(std::env::args_os().nth(1).context("usage: sluice-seeds DIR")?);
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (target, seeds) in
        [("frame", frames()), ("image", images()), ("manifests", manifests(&repository)?), ("cni", calls()), ("sockets", messages()?)]
    {
        write(&out, target, &seeds)?;
        println!("{target}: {} seeds", seeds.len());
    }
    Ok(())
}

fn write(out: &Path, target: &str, seeds: &[Vec<u8>]) -> Result<()> {
    let directory = out.join(target);
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    for (index, seed) in seeds.iter().filter(|seed| seed.len() <= SEED_BYTES_MAX).enumerate() {
        fs::write(directory.join(format!("seed-{index:04}")), seed)?;
    }
    let words = words(seeds).into_iter().map(|word| format!("\"{word}\"\n")).collect::<String>();
    Ok(fs::write(out.join(format!("{target}.dict")), words)?)
}

/// What the texts among the seeds say: a fuzzer that knows no word of YAML never leaves the scanner.
fn words(seeds: &[Vec<u8>]) -> BTreeSet<String> {
    let texts = seeds.iter().filter_map(|seed| str::from_utf8(seed).ok());
    let words = texts.flat_map(|text| text.split(|c: char| !(c.is_ascii_alphanumeric() || "./:_-".contains(c))));
    let distinct: BTreeSet<_> = words.filter(|word| (2..=32).contains(&word.len())).map(str::to_owned).collect();
    distinct.into_iter().take(WORDS_MAX).collect()
}

/// Named frames as raw bytes, and bytes for the generator.
fn frames() -> Vec<Vec<u8>> {
    let named = sluice_frames::named().into_iter().map(|case| [&[0xf0][..], &case.frame].concat());
    named.chain(generator_bytes()).collect()
}

fn images() -> Vec<Vec<u8>> {
    generator_bytes().collect()
}

/// Lengths that leave the rest of each frame or edit plain.
fn generator_bytes() -> impl Iterator<Item = Vec<u8>> {
    (0..64).map(|seed| sluice_frames::random_bytes(seed, 4 + seed as usize * 2))
}

/// Two namespaces, three pods of both families and a service, which policies of vectors and recordings can select.
const CLUSTER: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: x, labels: {ns: x}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: x, labels: {pod: a}}, spec: {containers: [{name: c, ports: [{name: http, containerPort: 80}]}]}, status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b, namespace: y, labels: {pod: b}}, spec: {hostNetwork: false, containers: [{name: c}]}, status: {podIP: 10.0.0.2}}
---
{apiVersion: v1, kind: Service, metadata: {name: s, namespace: x}, spec: {selector: {pod: a}, clusterIP: 10.96.0.1, ports: [{port: 80}]}}
---
";

fn manifests(repository: &Path) -> Result<Vec<Vec<u8>>> {
    let mut seeds = Vec::new();
    for directory in ["tests/lab/demo", "tests/cases"] {
        for (path, bytes) in sluice_policy::load::read_directory(&repository.join(directory)) {
            let text = String::from_utf8(bytes.with_context(|| path.display().to_string())?)?;
            // each document alone, too
            seeds.extend(text.split("\n---\n").map(|document| document.as_bytes().to_vec()));
            seeds.push(text.into_bytes());
        }
    }
    let mut policies = Vec::new();
    for name in ["cyclonus", "random"] {
        let path = repository.join(format!("tests/vectors/{name}.json.gz"));
        let file = fs::File::open(&path).with_context(|| path.display().to_string())?;
        collect(&serde_json::from_reader(GzDecoder::new(file))?, &mut policies);
    }
    let recorded = fs::read_to_string(repository.join("control/policy/tests/data/networkpolicy-validation.strict-1.36.jsonl"))?;
    for line in recorded.lines() {
        let spec = serde_json::from_str::<Value>(line)?["input_spec"].take();
        policies.push(json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p", "namespace": "x"}, "spec": spec}));
    }
    let step = policies.len().div_ceil(POLICIES_MAX);
    for policy in policies.iter().step_by(step) {
        seeds.push(format!("{CLUSTER}{policy}").into_bytes());
        seeds.push(serde_json::to_vec_pretty(policy)?);
    }
    Ok(seeds)
}

/// All policies inside a value.
fn collect(value: &Value, policies: &mut Vec<Value>) {
    match value {
        Value::Object(map) if map.get("kind").is_some_and(|kind| kind == "NetworkPolicy") => policies.push(value.clone()),
        Value::Object(map) => map.values().for_each(|value| collect(value, policies)),
        Value::Array(items) => items.iter().for_each(|item| collect(item, policies)),
        _ => {}
    }
}

fn calls() -> Vec<Vec<u8>> {
    let ptp = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "veth1", "mac": "0a:00:00:00:00:01"}, {"name": "eth0", "mac": "0a:00:00:00:00:02", "sandbox": "/var/run/netns/a"}],
        "ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 1}, {"address": "fd00::2/64", "interface": 1}],
        "routes": [{"dst": "0.0.0.0/0"}], "dns": {},
    });
    let bare = json!({"ips": [{"address": "10.1.0.2/32"}]});
    let two = json!({"ips": [{"address": "10.1.0.2/24"}, {"address": "10.1.0.3/24", "interface": -1}]});
    let mut calls = Vec::new();
    for command in ["ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION"] {
        for (version, result) in [("1.1.0", &ptp), ("1.0.0", &bare), ("0.4.0", &two), ("0.3.1", &Value::Null)] {
            let config = json!({
                "cniVersion": version, "name": "net", "type": "sluice-cni", "prevResult": result, "deadlineMs": 1000,
                "dataplaneSocket": "/run/sluice/dataplane.sock",
                "cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}],
            });
            calls.push(format!(
                "CNI_COMMAND={command}\nCNI_CONTAINERID=c1\nCNI_IFNAME=eth0\nCNI_NETNS=/var/run/netns/a\nCNI_PATH=/opt/cni/bin\n\
                 CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=x;K8S_POD_NAME=web;K8S_POD_UID=u\n\n{config}"
            ));
        }
    }
    calls.into_iter().map(String::into_bytes).collect()
}

/// Messages of each kind as bodies, two as a stream, and streams that announce too much. The first byte is the one that
/// sluice_fuzz::sockets reads.
fn messages() -> Result<Vec<Vec<u8>>> {
    const STREAM: u8 = 4;
    let mut seeds = Vec::new();
    for (kind, body) in bodies()? {
        let framed = [&(body.len() as u32).to_le_bytes()[..], &body].concat();
        for pieces in [0, 2, 5] {
            seeds.push([&[kind | pieces << 3][..], &body].concat());
        }
        seeds.push([&[kind | STREAM][..], &framed, &framed].concat());
    }
    for announced in [u32::MAX, 16 << 20, (16 << 20) + 1, 0] {
        seeds.push([&[STREAM][..], &announced.to_le_bytes(), b"{}"].concat());
    }
    Ok(seeds)
}

/// Bodies that their receivers understand, by the number of their kind.
fn bodies() -> Result<Vec<(u8, Vec<u8>)>> {
    let pod = json!({"namespace": "x", "name": "web"});
    let attachment = json!({"container_id": "c", "ifname": "eth0"});
    let endpoint = json!({"port": 1, "incarnation": 2, "pod": pod, "uid": "u", "addresses": ["10.0.0.1", "fd00::1"]});
    let connection = json!({
        "pod": pod, "direction": "ingress", "protocol": "TCP", "src": "a", "dst": "b", "verdict": "allow", "rule": null,
        "packets": 1, "bytes": 60, "idleMs": 3,
    });
    let add_port = json!({
        "containerId": "c", "ifname": "eth0", "pod": pod, "uid": "u", "hostIfindex": 7, "hostIfname": "veth1",
        "mac": [2, 0, 0, 0, 0, 1], "addresses": ["10.0.0.1"], "deadlineMs": 1000,
    });
    let mut bodies = Vec::new();
    for (name, fields) in [
        ("control", json!({"wire_version": 1})),
        ("publish", json!({"generation": 7, "image_bytes": 650_000})),
        ("addPort", add_port),
        ("delPort", attachment.clone()),
        ("checkPort", attachment),
        ("enforce", json!({"on": true})),
        ("connections", json!({"pod": pod, "max": 10})),
        ("table", json!({})),
    ] {
        bodies.push((0, body::<ToDataplane>(name, fields)?));
    }
    for (name, fields) in [
        ("endpoints", json!({"endpoints": [endpoint], "generation": 7})),
        ("adopted", json!({"generation": 7, "adopt_us": 5, "connections_cut": 0})),
        ("portAdded", json!({"port": 1, "incarnation": 2, "generation": 7, "took_us": 100})),
        ("connections", json!({"total": 1, "connections": [connection]})),
        ("failed", json!({"reason": "no"})),
    ] {
        bodies.push((1, body::<FromDataplane>(name, fields)?));
    }
    for (name, fields) in [
        ("status", json!({})),
        ("explain", json!({"src": "x/a", "dst": "10.0.0.1", "port": 80, "protocol": "TCP"})),
        ("settle", json!({"timeout_ms": 1000})),
    ] {
        bodies.push((2, body::<ToControl>(name, fields)?));
    }
    for (name, fields) in [("policies", json!({"policies": []})), ("failed", json!({"reason": "no"}))] {
        bodies.push((3, body::<FromControl>(name, fields)?));
    }
    Ok(bodies)
}

/// A message as it stands on the wire, which its receiver must understand.
fn body<T: Serialize + DeserializeOwned>(name: &str, mut fields: Value) -> Result<Vec<u8>> {
    fields["type"] = name.into();
    let message: T = serde_json::from_value(fields).with_context(|| format!("the message {name}"))?;
    Ok(serde_json::to_vec(&message)?)
}
