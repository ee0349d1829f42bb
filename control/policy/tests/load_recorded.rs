//! The loader against recordings of a real kube-apiserver 1.36.2: 71 borderline NetworkPolicies, each with the server's
//! verdict, its error text, and the spec as it was stored.

use serde_json::{Value, json};
use sluice_policy::load::{Loaded, load_str};

const RECORDS: &str = include_str!("data/networkpolicy-validation.strict-1.36.jsonl");

/// Where the loader is stricter on purpose: the server drops unknown fields with a warning, and so changes what a
/// policy means.
const STRICTER: [&str; 1] = ["unknown-field"];

fn records() -> impl Iterator<Item = Value> {
    RECORDS.lines().map(|line| serde_json::from_str(line).expect("a record"))
}

fn load(record: &Value, name: &str) -> Loaded {
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "v"},
        "spec": record["input_spec"],
    });
    load_str(name, &policy.to_string())
}

#[test]
fn every_recorded_policy_is_accepted_or_refused_as_by_the_server() {
    assert_eq!(records().count(), 71);
    for record in records() {
        let case = record["case"].as_str().unwrap();
        let accepted = record["status"] == 201 && !STRICTER.contains(&case);
        // JSON and YAML readers must agree; JSON is YAML.
        for name in ["v.json", "v.yaml"] {
            let loaded = load(&record, name);
            assert_eq!(loaded.errors.is_empty(), accepted, "{case}: {:?}", loaded.errors);
            assert_eq!(loaded.snapshot.policies.len(), usize::from(accepted), "{case}");
        }
    }
}

#[test]
fn stored_specs_equal_ours_after_defaulting() {
    for record in records().filter(|record| record["status"] == 201) {
        let case = record["case"].as_str().unwrap();
        if STRICTER.contains(&case) {
            continue;
        }
        let loaded = load(&record, "v.json");
        let policy = loaded.snapshot.policies.values().next().expect(case);
        assert_eq!(serde_json::to_value(&policy.spec).unwrap(), record["stored_spec"], "{case}");
    }
}

#[test]
fn refusals_name_the_servers_field_and_carry_its_words() {
    for record in records().filter(|record| record["status"] == 422) {
        let case = record["case"].as_str().unwrap();
        let text = record["error"]["message"].as_str().unwrap();
        let (_, text) = text.split_once("is invalid: ").unwrap();
        let ours: Vec<String> = load(&record, "v.json").errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect();
        // Several errors are printed as `[a, b]`.
        let theirs = if ours.len() > 1 { format!("[{}]", ours.join(", ")) } else { ours.join("") };
        assert_eq!(theirs, text, "{case}");
    }
}
