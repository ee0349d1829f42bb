//! Whether new pods will come under policy: the runtime's network configuration.

use super::finding::Finding;
use super::tree::Tree;
use serde_json::Value;

const CHECK: &str = "cni";
const PLUGIN: &str = "sluice-cni";

/// The file that the runtime chooses, and the plugin's place in it.
pub(super) fn configuration(tree: &Tree) -> Vec<Finding> {
    let dir = &tree.conf_dir;
    let is_configuration = |name: &String| [".conflist", ".conf", ".json"].iter().any(|ending| name.ends_with(ending));
    let first = tree.names(dir).into_iter().find(|name| is_configuration(name) && tree.path(dir.join(name)).is_file());
    let Some(name) = first else {
        let found = format!("no network configuration in {}", dir.display());
        return vec![Finding::advice(CHECK, found, "install the cluster's CNI plugin, then: sluice-cni install")];
    };
    let file = dir.join(&name);
    let shown = file.display();
    let value: Value = match tree.read(&file).map(|text| serde_json::from_str(&text)) {
        Some(Ok(value)) => value,
        Some(Err(error)) => return vec![Finding::missing(CHECK, format!("{shown} is no JSON: {error}"), "repair it: no pod can start")],
        None => return vec![Finding::unknown(CHECK, format!("{shown} cannot be read"), "run as root")],
    };
    let kinds: Vec<&str> = value["plugins"].as_array().into_iter().flatten().filter_map(|plugin| plugin["type"].as_str()).collect();
    let configured = match kinds.iter().position(|kind| *kind == PLUGIN) {
        None => Finding::missing(CHECK, format!("{shown} has no {PLUGIN}: new pods are not under policy"), "sluice-cni install"),
        Some(index) if index + 1 < kinds.len() => Finding::advice(
            CHECK,
            format!("{shown}: {} stand behind {PLUGIN}", kinds[index + 1..].join(", ")),
            "fine for plugins that change no addresses (portmap, bandwidth); others belong in front of it",
        ),
        Some(_) => Finding::fine(CHECK, format!("{shown}: {}", kinds.join(", "))),
    };
    let program = tree.bin_dir.join(PLUGIN);
    let there = tree.path(&program).exists();
    let is_chained = kinds.contains(&PLUGIN);
    let missing = (is_chained && !there)
        .then(|| Finding::missing("cni_program", format!("{} is not there: no pod can start", program.display()), "sluice-cni install"));
    [configured].into_iter().chain(missing).collect()
}
