//! What the manifest loader stores and what it refuses, against what a case says.

use sluice_flow::ObjectName;
use sluice_policy::Snapshot;
use sluice_policy::load::Loaded;
use std::path::Path;

/// One expectation: its line, and what is wrong with it, expected and found.
pub(super) struct Found {
    pub(super) line: u32,
    pub(super) wrong: Option<(String, String)>,
}

/// Some refusal of this file says each of these; the object itself is in force as its last good state, or not at all.
pub(super) fn refused(loaded: &Loaded, file: &Path, wanted: &[(u32, String)]) -> Vec<Found> {
    let said: Vec<String> = loaded.errors.iter().filter(|error| error.file == file).map(ToString::to_string).collect();
    let best = said.iter().max_by_key(|text| wanted.iter().filter(|(_, part)| text.contains(part.as_str())).count());
    let text = best.cloned().unwrap_or_else(|| "the file is accepted".to_owned());
    let mut found: Vec<Found> = wanted
        .iter()
        .map(|(line, part)| Found { line: *line, wrong: (!text.contains(part.as_str())).then(|| (part.clone(), text.clone())) })
        .collect();
    let half_in_force = loaded.errors.iter().filter(|error| error.file == file).filter_map(|error| error.object.as_ref()).find(|object| {
        let here = loaded.origins.get(object).is_some_and(|(origin, _)| origin == file);
        here && !loaded.kept.contains(object)
    });
    let line = wanted.first().map_or(0, |(line, _)| *line);
    let wrong = half_in_force.map(|object| ("refused whole".to_owned(), format!("{object} is in force, changed")));
    found.push(Found { line, wrong });
    found
}

/// `spec.policyTypes = ["Ingress"]`; `spec.egress = absent`.
pub(super) fn stored(snapshot: &Snapshot, policy: &ObjectName, wanted: &[(u32, String)]) -> Vec<Found> {
    let object = snapshot.policies.get(policy).map(|policy| serde_json::to_value(&**policy).unwrap_or_default());
    let one = |(line, text): &(u32, String)| Found { line: *line, wrong: differs(object.as_ref(), text) };
    wanted.iter().map(one).collect()
}

fn differs(object: Option<&serde_json::Value>, text: &str) -> Option<(String, String)> {
    let Some(object) = object else { return Some((text.to_owned(), "there is no such policy".to_owned())) };
    let Some((path, value)) = text.split_once(" = ") else { return Some(("FIELD = JSON".to_owned(), text.to_owned())) };
    let pointer = format!("/{}", path.trim().replace(['.', '['], "/").replace(']', ""));
    let found = object.pointer(&pointer);
    let right = match value.trim() {
        "absent" => found.is_none(),
        json => serde_json::from_str::<serde_json::Value>(json).is_ok_and(|wanted| found == Some(&wanted)),
    };
    let got = found.map_or_else(|| "absent".to_owned(), ToString::to_string);
    (!right).then(|| (text.to_owned(), format!("{} = {got}", path.trim())))
}
