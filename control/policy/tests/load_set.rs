//! The last good state: nothing is lost because of a broken document, and nothing stays that nobody names.

use proptest::prelude::*;
use sluice_policy::load::{Loaded, ManifestSet, load_paths, load_str};
use std::io;
use std::path::PathBuf;

type Files<'a> = &'a [(&'a str, &'a str)];

/// `UNREADABLE` as a text stands for an I/O error.
const UNREADABLE: &str = "\u{0}";

fn update<'s>(set: &'s mut ManifestSet, files: Files<'_>) -> &'s Loaded {
    set.update(
        files
            .iter()
            .map(|(name, text)| {
                let bytes = match *text {
                    UNREADABLE => Err(io::Error::from(io::ErrorKind::PermissionDenied)),
                    text => Ok(text.as_bytes().to_vec()),
                };
                (PathBuf::from(name), bytes)
            })
            .collect(),
    )
}

/// A policy that selects `app: <label>`, on one line.
fn policy(name: &str, label: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {name}}}, \
         spec: {{podSelector: {{matchLabels: {{app: {label}}}}}}}}}\n"
    )
}

/// `name=label` of each policy in force, with `*` for one that is only kept, and the number of errors.
fn state(loaded: &Loaded) -> String {
    let mut words: Vec<String> = loaded
        .snapshot
        .policies
        .iter()
        .map(|(name, policy)| {
            let selector = policy.spec.as_ref().unwrap().pod_selector.as_ref().unwrap();
            let label = &selector.match_labels.as_ref().unwrap()["app"];
            let kept = loaded.kept.iter().any(|id| id.name == name.name);
            format!("{}={label}{}", name.name, if kept { "*" } else { "" })
        })
        .collect();
    words.push(format!("{} errors", loaded.errors.len()));
    words.join(" ")
}

#[test]
fn broken_content_keeps_the_last_good_state() {
    let (a1, a2, b1, b2) = (policy("a", "one"), policy("a", "two"), policy("b", "one"), policy("b", "two"));
    let a_bad = policy("a", "'not valid!'");
    let both = format!("{a1}---\n{b1}");
    let nameless = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {}\n";
    let b_and_nameless = format!("{nameless}---\n{b2}");
    let cases: &[(&str, Files<'_>, &str)] = &[
        ("valid replaces", &[("x", &format!("{a2}---\n{b1}"))], "a=two b=one 0 errors"),
        ("invalid keeps its own, others move on", &[("x", &format!("{a_bad}---\n{b2}"))], "a=one* b=two 1 errors"),
        ("a text that does not parse keeps all", &[("x", "a: [")], "a=one* b=one* 1 errors"),
        ("a file that cannot be read keeps all", &[("x", UNREADABLE)], "a=one* b=one* 1 errors"),
        ("a nameless document may be any of them", &[("x", &b_and_nameless)], "a=one* b=two 1 errors"),
        ("a document taken out is gone", &[("x", &b1)], "b=one 0 errors"),
        ("an empty file is a file without objects", &[("x", "")], "0 errors"),
        ("a file no longer listed loses its objects", &[], "0 errors"),
        ("moved to another file", &[("x", &b1), ("y", &a2)], "a=two b=one 0 errors"),
        ("moved and broken at once", &[("x", &b1), ("y", &a_bad)], "a=one* b=one 1 errors"),
        ("moved out of a file that broke", &[("x", "a: ["), ("y", &a2)], "a=two b=one* 1 errors"),
        ("a duplicate does not take over from a broken first", &[("x", &a_bad), ("y", &a2)], "a=one* 2 errors"),
        ("the first of two stays", &[("x", &a1), ("y", &a2)], "a=one 1 errors"),
        ("renamed file", &[("y", &both)], "a=one b=one 0 errors"),
    ];
    for (promise, files, expected) in cases {
        let mut set = ManifestSet::new();
        assert_eq!(state(update(&mut set, &[("x", &both)])), "a=one b=one 0 errors");
        assert_eq!(state(update(&mut set, files)), *expected, "{promise}: {:#?}", set.loaded().errors);
        // The same content again changes nothing: what is kept stays kept.
        assert_eq!(state(update(&mut set, files)), *expected, "{promise}, twice");
        assert_eq!(state(update(&mut set, &[("x", &both)])), "a=one b=one 0 errors", "{promise}, repaired");
    }
}

#[test]
fn a_directory_that_cannot_be_listed_keeps_what_stood_below_it() {
    let mut set = ManifestSet::new();
    update(&mut set, &[("d/sub/x.yaml", &policy("a", "one")), ("e/x.yaml", &policy("b", "one"))]);
    assert_eq!(state(update(&mut set, &[("d", UNREADABLE)])), "a=one* 1 errors");
}

#[test]
fn duplicates_name_both_places() {
    let text = format!("{}---\n{}", policy("a", "one"), policy("a", "two"));
    let loaded = load_str("x.yaml", &text);
    let error = loaded.errors[0].to_string();
    assert!(error.starts_with("x.yaml:3:1: NetworkPolicy default/a: defined twice; the first one, in x.yaml:1,"), "{error}");
    assert_eq!(state(&loaded), "a=one 1 errors");
}

#[test]
fn paths_are_loaded_once_and_missing_ones_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    std::fs::write(&file, policy("a", "one")).unwrap();
    let loaded = load_paths(&[file.clone(), dir.path().to_path_buf(), dir.path().join("gone.yaml")]);
    assert_eq!(state(&loaded), "a=one 1 errors");
    assert_eq!((loaded.errors[0].line, loaded.errors[0].object.is_none()), (0, true));
    assert_eq!(loaded.origins.values().next(), Some(&(file, 1)));
}

#[test]
fn files_that_are_no_text_or_too_large_are_refused() {
    let mut set = ManifestSet::new();
    let loaded = set.update(vec![("latin1.yaml".into(), Ok(b"a: \xe9".to_vec())), ("large.yaml".into(), Ok(vec![b' '; (64 << 20) + 1]))]);
    assert!(loaded.errors[0].message.contains("not UTF-8"));
    assert!(loaded.errors[1].message.contains("bytes; a manifest may have"));
}

#[test]
fn complaints_are_bounded_in_number_and_length() {
    let loaded = load_str("x.yaml", &"---\na: 1\n".repeat(1500));
    assert_eq!(loaded.errors.len(), 1001);
    assert_eq!(loaded.errors[1000].message, "500 more problems are not listed");
    let loaded = load_str("x.yaml", &policy("a", "one").replace("one", &"x".repeat(1 << 20)));
    assert!(loaded.errors[0].to_string().len() < 4000);
    let twice = format!("---\n{}", policy("a", "one")).repeat(1500);
    assert_eq!(state(&load_str("x.yaml", &twice)), "a=one 1001 errors");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Whatever becomes of a file, loading ends with a result, and every refusal can be printed.
    #[test]
    fn any_damage_to_a_manifest_is_an_answer_never_a_panic(
        at in 0usize..400, cut in 0usize..12, insert in "[-\\[\\]{}:,&*#!|>'\"%@\t\n a0é]{0,6}", json in any::<bool>(),
    ) {
        let text = format!(
            "apiVersion: v1\nkind: List\nitems:\n- {}- &p {}- *p\n---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  \
             containers: [{{name: c, ports: [{{containerPort: 80}}]}}]\n",
            policy("a", "one"), policy("b", "two"),
        );
        let chars: Vec<char> = text.chars().collect();
        let at = at.min(chars.len());
        let damaged: String =
            chars[..at].iter().copied().chain(insert.chars()).chain(chars[(at + cut).min(chars.len())..].iter().copied()).collect();
        let loaded = load_str(if json { "x.json" } else { "x.yaml" }, &damaged);
        for error in &loaded.errors {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}

#[test]
fn the_same_content_means_the_same_at_every_reading() {
    let pod = |spec: &str| format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec: {spec}\n");
    let text = format!("{}---\n{}", pod("7"), pod("{containers: [{name: c}]}"));
    let files = || vec![("web.yaml".into(), Ok(text.clone().into_bytes()))];
    let mut set = ManifestSet::new();
    let first = set.update(files()).clone();
    assert_eq!((first.errors.len(), first.snapshot.pods.len(), first.kept.len()), (1, 1, 0), "{:?}", first.errors);
    let again = set.update(files());
    assert_eq!((&again.errors, &again.origins, &again.kept), (&first.errors, &first.origins, &first.kept));
}
