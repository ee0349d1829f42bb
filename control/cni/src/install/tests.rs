//! Installations on real directories: interrupted after any step, beside other installers, undone again.

use super::edit::{List, PLUGIN};
use super::error::InstallError;
use super::plan::{Plan, install, uninstall};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const LIST: &str = "{\n  \"cniVersion\": \"1.0.0\",\n  \"name\": \"net\",\n  \"plugins\": [\n    {\"type\": \"ptp\", \"mtu\": 1400},\n    {\"type\": \"portmap\"}\n  ]\n}\n";
const SINGLE: &str = "{\"cniVersion\": \"0.4.0\", \"name\": \"net\",\n \"type\": \"ptp\", \"mtu\": 1400}\n";

fn entry() -> Value {
    json!({"type": PLUGIN})
}

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn contents(dir: &Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read_to_string(entry.path()).unwrap())).collect()
}

/// What a runtime makes of the directory, by libcni's own rules: file, network's name, types of the plugins.
fn chosen(dir: &Path) -> (String, String, Vec<String>) {
    let is_configuration = |name: &str| [".conf", ".conflist", ".json"].iter().any(|ending| name.ends_with(ending));
    let (file, text) = contents(dir).into_iter().find(|(name, _)| is_configuration(name)).expect("a configuration");
    let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}: {text}"));
    let plugins = if file.ends_with(".conflist") { value["plugins"].as_array().unwrap().clone() } else { vec![value.clone()] };
    let kinds = plugins.iter().map(|plugin| plugin["type"].as_str().unwrap().to_owned()).collect();
    (file, value["name"].as_str().unwrap().to_owned(), kinds)
}

fn perform(plan: Result<Plan, InstallError>) -> Plan {
    let plan = plan.unwrap();
    for step in &plan.steps {
        step.perform().unwrap();
    }
    plan
}

#[test]
fn the_configuration_that_the_runtime_chooses_gets_the_plugin_and_no_other() {
    let dir = directory(&[("20-b.conflist", LIST), ("10-a.conf", SINGLE), ("05-old.conf.cilium_bak", "old"), ("README", "{")]);
    std::fs::create_dir(dir.path().join("00-dir.conf")).unwrap();
    let before = contents(dir.path());
    perform(install(dir.path(), &entry()));
    assert_eq!(chosen(dir.path()), ("10-a.conflist".into(), "net".into(), vec!["ptp".into(), PLUGIN.into()]));
    let after = contents(dir.path());
    assert_eq!(after["20-b.conflist"], LIST);
    assert_eq!(after[".10-a.conf.sluice-backup"], SINGLE);
    assert!(!after.contains_key("10-a.conf"));
    assert!(perform(install(dir.path(), &entry())).steps.is_empty(), "once more changes nothing");
    perform(uninstall(dir.path()));
    assert_eq!(contents(dir.path()), before);
    assert!(perform(uninstall(dir.path())).steps.is_empty());
}

#[test]
fn after_any_number_of_steps_the_runtime_finds_a_whole_configuration_and_doing_it_again_completes_it() {
    for (name, text) in [("10-a.conflist", LIST), ("10-a.conf", SINGLE), ("10-a.json", SINGLE)] {
        let whole = directory(&[(name, text)]);
        let before = contents(whole.path());
        let count = perform(install(whole.path(), &entry())).steps.len();
        let after = contents(whole.path());
        let undo = uninstall(whole.path()).unwrap().steps.len();
        assert!(count >= 2 && undo >= 2);
        for done in 0..=count {
            let dir = directory(&[(name, text)]);
            for step in &install(dir.path(), &entry()).unwrap().steps[..done] {
                step.perform().unwrap();
            }
            assert_eq!(chosen(dir.path()).2[0], "ptp", "{name}: {done} of {count} steps");
            // taken out from there, it is as it was
            let again = directory(&[]);
            contents(dir.path()).iter().for_each(|(name, text)| std::fs::write(again.path().join(name), text).unwrap());
            perform(uninstall(again.path()));
            assert_eq!(contents(again.path()), before, "{name}: {done} of {count} steps, then uninstall");
            perform(install(dir.path(), &entry()));
            assert_eq!(contents(dir.path()), after, "{name}: {done} of {count} steps, then once more");
        }
        for done in 0..=undo {
            let dir = directory(&[]);
            after.iter().for_each(|(name, text)| std::fs::write(dir.path().join(name), text).unwrap());
            for step in &uninstall(dir.path()).unwrap().steps[..done] {
                step.perform().unwrap();
            }
            assert_eq!(chosen(dir.path()).2[0], "ptp", "{name}: {done} of {undo} steps back");
            perform(uninstall(dir.path()));
            assert_eq!(contents(dir.path()), before, "{name}: {done} of {undo} steps back, then once more");
        }
    }
}

#[test]
fn a_step_that_fails_leaves_its_file_as_it_was() {
    let dir = directory(&[("10-a.conflist", LIST)]);
    let plan = install(dir.path(), &entry()).unwrap();
    // a rename onto a directory fails, as one on a read-only or full disk does
    std::fs::create_dir_all(dir.path().join(".10-a.conflist.sluice-backup/x")).unwrap();
    let error = plan.steps[0].perform().unwrap_err().to_string();
    assert!(error.contains("cannot write") && error.contains("what was there before stays"), "{error}");
    assert_eq!(contents(dir.path()), BTreeMap::from([("10-a.conflist".to_owned(), LIST.to_owned())]), "and no temporary file");
}

#[test]
fn what_a_killed_installation_left_is_swept_and_what_another_one_writes_is_not() {
    let dir = directory(&[(".abandoned.sluice-new", "half"), (".now.sluice-new", "half"), ("mine.sluice-new", "a")]);
    for name in [".abandoned.sluice-new", "mine.sluice-new"] {
        let file = std::fs::File::options().write(true).open(dir.path().join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(61)).unwrap();
    }
    super::step::sweep(dir.path());
    assert_eq!(contents(dir.path()).into_keys().collect::<Vec<_>>(), [".now.sluice-new", "mine.sluice-new"]);
}

#[test]
fn another_installer_may_write_its_configuration_anew_at_any_time() {
    // a single plugin's file comes back beside the list that was made of it, before or behind it by name
    for name in ["10-a.conf", "10-a.json"] {
        let dir = directory(&[(name, SINGLE)]);
        perform(install(dir.path(), &entry()));
        let newer = SINGLE.replace("1400", "1500");
        std::fs::write(dir.path().join(name), &newer).unwrap();
        perform(install(dir.path(), &entry()));
        assert_eq!(chosen(dir.path()).2, ["ptp", PLUGIN]);
        assert!(contents(dir.path())["10-a.conflist"].contains("1500"), "{name}");
        perform(uninstall(dir.path()));
        assert_eq!(contents(dir.path()), BTreeMap::from([(name.to_owned(), newer)]));
    }
    // a list is written without the entry, then another one comes before it
    let dir = directory(&[("10-a.conflist", LIST)]);
    perform(install(dir.path(), &entry()));
    let newer = LIST.replace("1400", "1500");
    std::fs::write(dir.path().join("10-a.conflist"), &newer).unwrap();
    perform(install(dir.path(), &entry()));
    std::fs::write(dir.path().join("05-b.conflist"), LIST).unwrap();
    perform(install(dir.path(), &entry()));
    assert_eq!(chosen(dir.path()).2, ["ptp", "portmap", PLUGIN]);
    perform(uninstall(dir.path()));
    assert_eq!(contents(dir.path()), BTreeMap::from([("10-a.conflist".to_owned(), newer), ("05-b.conflist".to_owned(), LIST.to_owned())]));
    // a list that was made of a single plugin has got another plugin since: it stays a list
    let dir = directory(&[("10-a.conf", SINGLE)]);
    perform(install(dir.path(), &entry()));
    let list = dir.path().join("10-a.conflist");
    let more = std::fs::read_to_string(&list).unwrap().replace("\n  ]", ",\n    {\"type\":\"istio-cni\"}\n  ]");
    std::fs::write(&list, more).unwrap();
    assert!(perform(install(dir.path(), &entry())).warnings.iter().any(|warning| warning.contains("istio-cni stands behind")));
    perform(uninstall(dir.path()));
    assert_eq!(chosen(dir.path()), ("10-a.conflist".into(), "net".into(), vec!["ptp".into(), "istio-cni".into()]));
    assert_eq!(contents(dir.path()).len(), 1);
}

#[test]
fn what_cannot_be_installed_is_refused_before_anything_is_written() {
    let broken = &LIST[..LIST.len() / 2];
    for (files, expected, may_pass) in [
        (&[][..], "no network configuration", true),
        (&[("10-a.conflist", broken)][..], "it is no JSON", true),
        (&[("10-a.conflist", "")], "it is no JSON", true),
        (&[("10-a.conflist", "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"plugins\":[]}")], "no plugins", false),
        (&[("10-a.conflist", "{\"cniVersion\":\"0.2.0\",\"name\":\"n\",\"plugins\":[{\"type\":\"ptp\"}]}")], "cniVersion is 0.2.0", false),
        (&[("10-a.conf", LIST)], "rename it to .conflist", false),
        (&[("10-a.conf", SINGLE), ("10-a.conflist", LIST)], "is in the way", false),
        (&[("10-a.conf", SINGLE), ("10-a.conf-b.conf", SINGLE)], "would not be the first", false),
    ] {
        let dir = directory(files);
        let before = contents(dir.path());
        let error = install(dir.path(), &entry()).unwrap_err();
        assert!(error.to_string().contains(expected), "{files:?}: {error}");
        assert_eq!(error.may_pass(), may_pass, "{files:?}: {error}");
        assert_eq!(contents(dir.path()), before);
    }
    let missing = tempfile::tempdir().unwrap().path().join("none");
    assert!(install(&missing, &entry()).unwrap_err().may_pass());
    assert!(uninstall(&missing).unwrap().steps.is_empty());
    // a text that names the plugin and cannot be read is not left behind in silence
    let dir = directory(&[("10-a.conflist", "{\"type\":\"sluice-cni\""), ("20-b.conflist", broken)]);
    assert!(uninstall(dir.path()).unwrap_err().to_string().contains("10-a.conflist: it is no JSON"));
}

#[test]
fn a_bridge_is_only_warned_of_and_modes_are_kept() {
    let dir = directory(&[("10-a.conflist", &LIST.replace("ptp", "bridge"))]);
    std::fs::set_permissions(dir.path().join("10-a.conflist"), std::fs::Permissions::from_mode(0o640)).unwrap();
    std::fs::create_dir(dir.path().join("net")).unwrap();
    let plan = perform(install(dir.path(), &entry()));
    assert!(
        plan.warnings[0].contains("first plugin is bridge") && plan.warnings[1].contains("append the plugins of"),
        "{:?}",
        plan.warnings
    );
    for name in ["10-a.conflist", ".10-a.conflist.sluice-backup"] {
        assert_eq!(std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o7777, 0o640, "{name}");
    }
}

/// Names that sort in every way, and hidden ones.
fn name() -> impl Strategy<Value = String> {
    ("[0-9a-c.-]{1,3}", prop::sample::select(vec!["conf", "conflist", "json", "bak"])).prop_map(|(stem, ending)| format!("{stem}.{ending}"))
}

fn text(is_list: bool) -> impl Strategy<Value = String> {
    let plugin = (prop::sample::select(vec!["ptp", "bridge", "calico"]), any::<u32>(), any::<String>())
        .prop_map(|(kind, number, text)| json!({"type": kind, "n": number, "text": text}));
    let version = prop::sample::select(vec!["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    (prop::collection::vec(plugin, 1..4), version, any::<bool>(), "[ \n]{0,2}").prop_map(move |(plugins, version, pretty, end)| {
        let mut value = if is_list { json!({"plugins": plugins, "disableCheck": true}) } else { plugins[0].clone() };
        value["cniVersion"] = version.into();
        value["name"] = "net".into();
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        text.unwrap() + &end
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_installed_can_be_taken_out_and_everything_is_as_before(
        files in prop::collection::btree_map(name(), (text(true), text(false)), 1..5), twice in any::<bool>(),
    ) {
        let files: Vec<(String, String)> = files
            .into_iter()
            .map(|(name, (list, single))| { let is_list = name.ends_with(".conflist"); (name, if is_list { list } else { single }) })
            .collect();
        let dir = directory(&files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect::<Vec<_>>());
        let before = contents(dir.path());
        match install(dir.path(), &entry()) {
            Err(_) => prop_assert_eq!(contents(dir.path()), before.clone()),
            Ok(plan) => {
                let (first, name, mut kinds) = chosen(dir.path());
                perform(Ok(plan));
                kinds.push(PLUGIN.to_owned());
                let stem = first.rsplit_once('.').unwrap().0;
                prop_assert_eq!(chosen(dir.path()), (format!("{stem}.conflist"), name, kinds));
                if twice {
                    let other = json!({"type": PLUGIN, "deadlineMs": 7});
                    prop_assert_eq!(perform(install(dir.path(), &other)).steps.len(), 1);
                    let text = std::fs::read_to_string(dir.path().join(format!("{stem}.conflist"))).unwrap();
                    prop_assert!(List::parse(&text).unwrap().has_entry() && text.contains("\"deadlineMs\":7"));
                }
                perform(uninstall(dir.path()));
                prop_assert_eq!(contents(dir.path()), before);
            }
        }
    }
}
