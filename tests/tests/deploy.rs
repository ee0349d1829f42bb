//! The chart and the manifests made from it: what an operator installs is what the programs need.

use serde_json::Value;
use sluice_tests::deploy::{
    ALL_AT_ONCE, Documents, Helm, Schemas, broken_rules, every_render, first_refusal, folder, keys, read, render, text, violations,
};
use std::collections::BTreeSet;
use std::process::Command;

#[test]
fn every_document_is_what_an_api_server_takes() {
    let Some(helm) = Helm::find("every_document_is_what_an_api_server_takes") else { return };
    let schemas = Schemas::core();
    for (name, documents) in every_render(&helm) {
        for document in &documents.0 {
            assert_eq!(violations(&schemas, document), [""; 0], "{name}: {}", document["metadata"]["name"]);
        }
        assert_eq!(broken_rules(&documents.only("DaemonSet")["spec"]["template"]["spec"]), [""; 0], "{name}");
        let names = documents.names();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{name}: {names:?}");
    }
}

/// Sets a field of an object that is there, to a value in JSON.
fn set(object: &mut Value, place: &str, value: &str) {
    let (parent, field) = place.rsplit_once('/').expect("a path");
    object.pointer_mut(parent).expect("the chart has it")[field] = serde_json::from_str(value).expect("JSON");
}

#[test]
fn what_no_api_server_takes_is_seen() {
    let Some(helm) = Helm::find("what_no_api_server_takes_is_seen") else { return };
    let schemas = Schemas::core();
    let template = "/spec/template/spec";
    let whole = render(&helm, "metrics: {serviceMonitor: {enabled: true}}");
    for (kind, place, value, expected) in [
        ("DaemonSet", "/spec/updatestrategy", "{}", "no such field"),
        ("DaemonSet", "/spec/selector", "7", "invalid type"),
        ("DaemonSet", "/spec/template/spec/hostnetwork", "true", "no such field"),
        ("DaemonSet", "/spec/template/spec/containers/0/imagePullPolicy", "\"Sometimes\"", "is none of"),
        ("DaemonSet", "/spec/template/spec/containers/0/args", "[1]", "is no string"),
        ("DaemonSet", "/spec/template/spec/containers/0/securityContext/capabilities/added", "[]", "no such field"),
        ("DaemonSet", "/spec/template/spec/volumes/0/name", "null", "is no string"),
        ("DaemonSet", "/spec/template/metadata/annotations/a", "true", "is no string"),
        ("ClusterRole", "/rules/0/verb", "[]", "no such field"),
        ("ClusterRoleBinding", "/roleRef/name", "true", "invalid type"),
        ("Deployment", "/spec/template/spec/containers/0/imagePullPolicy", "\"Sometimes\"", "is none of"),
        ("ServiceAccount", "/automountserviceaccounttoken", "false", "no such field"),
        ("Service", "/spec/ports/0/port", "\"metrics\"", "is no integer"),
        ("ServiceMonitor", "/spec/endpoints/0/intervall", "\"30s\"", "no such field"),
    ] {
        let mut object = whole.of_kind(kind).next().unwrap_or_else(|| panic!("no {kind}")).clone();
        set(&mut object, place, value);
        let found = violations(&schemas, &object);
        assert!(found.iter().any(|violation| violation.contains(expected)), "{kind} {place}: {found:?}");
    }
    for (place, value, expected) in [
        ("/containers/0/volumeMounts/1/mountPropagation", "\"Bidirectional\"", "privileged"),
        ("/containers/0/securityContext/allowPrivilegeEscalation", "false", "escalation"),
        ("/containers/1/ports/0/hostPort", "1", "must match"),
        ("/containers/1/name", "\"dataplane\"", "one name"),
        ("/volumes/0/name", "\"other\"", "no volume"),
        ("/containers/1/securityContext/runAsUser", "0", "user 0"),
    ] {
        let mut object = whole.only("DaemonSet").clone();
        set(&mut object, &format!("{template}{place}"), value);
        let broken = broken_rules(&object["spec"]["template"]["spec"]);
        assert!(broken.iter().any(|rule| rule.contains(expected)), "{place}: {broken:?}");
    }
}

#[test]
fn selectors_and_references_find_what_they_mean() {
    let Some(helm) = Helm::find("selectors_and_references_find_what_they_mean") else { return };
    for (name, documents) in every_render(&helm) {
        let daemonset = documents.only("DaemonSet");
        let selects = |selector: &Value, labels: &Value| {
            let selector = selector.as_object().expect("a selector");
            !selector.is_empty() && selector.iter().all(|(key, value)| &labels[key] == value)
        };
        for reporter in documents.of_kind("Deployment") {
            let (selector, own) = (&reporter["spec"]["selector"]["matchLabels"], &reporter["spec"]["template"]["metadata"]["labels"]);
            assert!(selects(selector, own) && !selects(selector, &daemonset["spec"]["template"]["metadata"]["labels"]), "{name}");
            assert!(!selects(&daemonset["spec"]["selector"]["matchLabels"], own), "{name}: the DaemonSet takes the reporter for its own");
        }
        let labels = &daemonset["spec"]["template"]["metadata"]["labels"];
        assert!(selects(&daemonset["spec"]["selector"]["matchLabels"], labels), "{name}: the DaemonSet's own pods");
        for service in documents.of_kind("Service") {
            assert!(selects(&service["spec"]["selector"], labels), "{name}: the Service's pods");
            let monitor = documents.only("ServiceMonitor");
            assert!(
                selects(&monitor["spec"]["selector"]["matchLabels"], &service["metadata"]["labels"]),
                "{name}: the ServiceMonitor's service"
            );
            assert_eq!(monitor["spec"]["endpoints"][0]["port"], service["spec"]["ports"][0]["name"], "{name}");
            assert_eq!(service["spec"]["ports"][0]["targetPort"], documents.container("control")["ports"][0]["name"], "{name}");
        }
        let account = &daemonset["spec"]["template"]["spec"]["serviceAccountName"];
        let reporters = documents.of_kind("Deployment").map(|reporter| &reporter["spec"]["template"]["spec"]["serviceAccountName"]);
        let accounts: Vec<&Value> = std::iter::once(account).chain(reporters).collect();
        let is_made = |account: &Value| documents.of_kind("ServiceAccount").any(|made| made["metadata"]["name"] == *account);
        if documents.of_kind("ServiceAccount").count() > 0 {
            assert!(accounts.iter().all(|account| is_made(account)), "{name}: {accounts:?}");
            assert_eq!(documents.of_kind("ServiceAccount").count(), accounts.len(), "{name}");
        }
        let bound: Vec<(&Value, &Value)> =
            documents.of_kind("ClusterRoleBinding").map(|bound| (&bound["subjects"][0]["name"], &bound["roleRef"]["name"])).collect();
        let roles: Vec<&Value> = documents.of_kind("ClusterRole").map(|role| &role["metadata"]["name"]).collect();
        assert_eq!(bound, accounts.into_iter().zip(roles).collect::<Vec<_>>(), "{name}: each account has its role");
        for binding in documents.of_kind("ClusterRoleBinding") {
            assert_eq!(binding["roleRef"]["kind"], "ClusterRole", "{name}");
            assert_eq!(binding["subjects"][0]["namespace"], "sluice-system", "{name}");
        }
    }
    // a DaemonSet that uninstalls must not take the agents' pods for its own, nor the other way round
    let agents = render(&helm, "").only("DaemonSet").clone();
    let uninstall = render(&helm, "uninstall: {enabled: true}").only("DaemonSet").clone();
    assert_ne!(agents["metadata"]["name"], uninstall["metadata"]["name"]);
    assert_ne!(agents["spec"]["selector"], uninstall["spec"]["selector"]);
}

/// A container's command as the kubelet would give it to the runtime, with made-up values of the downward API.
fn command_of(container: &Value) -> Vec<String> {
    let words = ["command", "args"].into_iter().flat_map(|list| container[list].as_array().cloned().unwrap_or_default());
    let expand =
        |word: &str| word.replace("$(NODE_NAME)", "node-1").replace("$(HOST_IP)", if word.contains('[') { "fd00::1" } else { "192.0.2.1" });
    words.map(|word| expand(text(&word))).collect()
}

#[test]
fn programs_take_the_arguments_that_the_chart_gives() {
    let Some(helm) = Helm::find("programs_take_the_arguments_that_the_chart_gives") else { return };
    let mut tried = BTreeSet::new();
    for (name, documents) in every_render(&helm) {
        let pods =
            documents.of_kind("DaemonSet").chain(documents.of_kind("Deployment")).map(|document| &document["spec"]["template"]["spec"]);
        let lists = pods.flat_map(|pod| ["initContainers", "containers"].map(|list| pod[list].as_array().cloned().unwrap_or_default()));
        for container in lists.flatten() {
            let mut commands = vec![command_of(&container)];
            commands.extend(["startupProbe", "livenessProbe", "readinessProbe"].iter().filter_map(|probe| {
                let command = strings_in_order(&container[*probe]["exec"]["command"]);
                (!command.is_empty()).then_some(command)
            }));
            for command in commands {
                let (program, arguments) = command.split_first().expect("a command");
                if !program.starts_with("sluice") {
                    assert!(["install", "sleep"].contains(&program.as_str()), "{name}: {program} is in Debian's essential packages");
                    continue;
                }
                if tried.insert((program.clone(), arguments.to_vec())) {
                    assert_eq!(first_refusal(program, arguments), None, "{name}: {program} {arguments:?}");
                }
            }
        }
    }
    assert!(tried.len() > 10, "{tried:?}");
}

fn strings_in_order(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(|item| text(item).to_owned()).collect()
}

#[test]
fn the_kubelet_asks_where_control_listens() {
    let Some(helm) = Helm::find("the_kubelet_asks_where_control_listens") else { return };
    for (values, listens, asked) in [
        ("", "127.0.0.1:9808", Some("127.0.0.1")),
        ("metrics: {annotations: true}", "192.0.2.1:9808", None),
        ("metrics: {serviceMonitor: {enabled: true}}", "192.0.2.1:9808", None),
        ("metrics: {bindAddress: '[$(HOST_IP)]', port: 1}", "[fd00::1]:1", None),
        ("metrics: {bindAddress: '[::1]'}", "[::1]:9808", Some("::1")),
        ("metrics: {bindAddress: 0.0.0.0}", "0.0.0.0:9808", None),
        ("metrics: {bindAddress: 127.0.0.1, annotations: true}", "127.0.0.1:9808", Some("127.0.0.1")),
    ] {
        let documents = render(&helm, values);
        let control = documents.container("control");
        assert!(command_of(control).contains(&format!("--metrics-bind-address={listens}")), "{values}: {:?}", command_of(control));
        for probe in ["livenessProbe", "readinessProbe"] {
            // without a host the kubelet asks at the pod's address, which with hostNetwork is the node's
            assert_eq!(control[probe]["httpGet"]["host"].as_str(), asked, "{values}");
            assert_eq!(control[probe]["httpGet"]["port"], control["ports"][0]["containerPort"], "{values}");
        }
    }
}

#[test]
fn wrong_values_are_refused_with_their_place() {
    let Some(helm) = Helm::find("wrong_values_are_refused_with_their_place") else { return };
    for (values, place, reason) in [
        ("replicas: 3", "replicas", "not allowed"),
        ("dataplane: {worker: 2}", "worker", "not allowed"),
        ("dataplane: {workers: 0}", "dataplane.workers", "greater than or equal to 1"),
        ("dataplane: {workers: 17}", "dataplane.workers", "less than or equal to 16"),
        ("dataplane: {workers: '2'}", "dataplane.workers", "Expected: integer"),
        ("dataplane: {cpus: '2,3'}", "dataplane.cpus", "Expected: array"),
        ("dataplane: {cpus: [2, 2]}", "dataplane.cpus", "unique"),
        ("dataplane: {failOpen: 'no'}", "dataplane.failOpen", "Expected: boolean"),
        ("dataplane: {established: kill}", "dataplane.established", "one of"),
        // a bare word would be a subcommand: `remove` takes everything off the node
        ("dataplane: {extraArgs: [remove]}", "dataplane.extraArgs.0", "'^-'"),
        ("control: {resources: {limits: {memory: 1 GB}}}", "control.resources.limits.memory", "pattern"),
        ("control: {extraEnv: [{value: x}]}", "control.extraEnv.0", "name is required"),
        ("image: {digest: latest}", "image.digest", "sha256"),
        ("image: {repository: ''}", "image.repository", "greater than or equal to 1"),
        ("logFormat: logfmt", "logFormat", "one of"),
        ("metrics: {port: 70000}", "metrics.port", "65535"),
        ("metrics: {bindAddress: '::1'}", "metrics.bindAddress", "pattern"),
        ("cni: {binDir: opt/cni/bin}", "cni.binDir", "pattern"),
        ("updateStrategy: {rollingUpdate: {maxSurge: 1}}", "maxSurge", "not allowed"),
        ("podLabels: {team: 7}", "podLabels.team", "Expected: string"),
        ("fullnameOverride: Upper_Case", "fullnameOverride", "pattern"),
        ("uninstall: true", "uninstall", "Expected: object"),
    ] {
        let refused = helm.render(values).expect_err(values).to_string();
        assert!(refused.contains(place) && refused.contains(reason), "{values}: {refused}");
    }
}

#[test]
fn the_chart_passes_helm_s_own_lint_and_says_what_to_do_next() {
    let Some(helm) = Helm::find("the_chart_passes_helm_s_own_lint_and_says_what_to_do_next") else { return };
    for values in ["", ALL_AT_ONCE, "uninstall: {enabled: true}"] {
        helm.lint(values).unwrap_or_else(|error| panic!("{values}: {error}"));
    }
    for (values, says) in [
        ("", "rollout status daemonset/sluice\n"),
        ("uninstall: {enabled: true}", "rollout status daemonset/sluice-uninstall\n"),
        ("dataplane: {failOpen: true}", "dataplane.failOpen is on"),
        ("cni: {install: false}", "until sluice-cni is in the CNI chain"),
    ] {
        let notes = helm.notes(values).unwrap_or_else(|error| panic!("{values}: {error}"));
        assert!(notes.contains(says), "{values}: {notes}");
    }
}

#[test]
fn every_value_is_explained_used_and_in_the_schema() {
    let keys = keys(&read("chart/sluice/values.yaml"));
    let schema: Value = serde_json::from_str(&read("chart/sluice/values.schema.json")).expect("JSON");
    let templates: String = std::fs::read_dir(folder().join("chart/sluice/templates"))
        .expect("the chart's templates")
        .map(|file| std::fs::read_to_string(file.expect("a file").path()).expect("text"))
        .collect();
    assert!(keys.len() > 40, "{keys:?}");
    // below these stand Kubernetes' own fields, which go into the pod as they are
    let passed_on = [
        "dataplane.resources",
        "control.resources",
        "reporter.resources",
        "updateStrategy",
        "seLinuxOptions",
        "nodeSelector",
        "tolerations",
    ];
    for key in &keys {
        let path = key.path.as_str();
        let whole = passed_on.into_iter().find(|whole| path == *whole || path.starts_with(&format!("{whole}.")));
        assert!(key.is_explained || whole.is_some_and(|whole| whole != path), "{path} has no comment before it");
        let pointer = format!("/properties/{}", path.replace('.', "/properties/"));
        match whole {
            Some(whole) => assert!(
                templates.contains(&format!("toYaml .Values.{whole}")) || templates.contains(&format!("with .Values.{whole}")),
                "{whole} is not used"
            ),
            None => {
                assert!(schema.pointer(&pointer).is_some(), "{path} is not in values.schema.json");
                assert!(key.has_children || templates.contains(&format!(".Values.{path}")), "{path} is not used");
            }
        }
    }
    // and the other way round, `global` apart, which helm itself sets
    let mut unlisted = Vec::new();
    leaves(&schema, String::new(), &mut unlisted);
    unlisted.retain(|path| {
        path != "global" && !keys.iter().any(|key| key.path == *path) && !passed_on.iter().any(|whole| path.starts_with(whole))
    });
    assert_eq!(unlisted, [""; 0], "in values.schema.json, not in values.yaml");
}

fn leaves(schema: &Value, above: String, found: &mut Vec<String>) {
    match schema["properties"].as_object() {
        None => found.push(above),
        Some(properties) => {
            for (name, schema) in properties {
                leaves(schema, if above.is_empty() { name.clone() } else { format!("{above}.{name}") }, found);
            }
        }
    }
}

#[test]
fn the_readmes_speak_of_values_that_there_are() {
    let keys = keys(&read("chart/sluice/values.yaml"));
    let mut mentioned = 0;
    for file in ["README.md", "chart/sluice/README.md"] {
        for row in read(file).lines().filter(|line| line.starts_with("| `")) {
            for name in row.split('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2) {
                let is_value = name.chars().next().is_some_and(char::is_lowercase) && !name.contains(['/', '-', ' ']);
                assert!(!is_value || keys.iter().any(|key| key.path == name), "{file}: {name} is no value of the chart");
                mentioned += usize::from(is_value);
            }
        }
    }
    assert!(mentioned > 10, "the tables of values were read: {mentioned}");
}

#[test]
fn the_plain_manifests_are_what_the_chart_renders() {
    let Some(_helm) = Helm::find("the_plain_manifests_are_what_the_chart_renders") else { return };
    let fresh = tempfile::tempdir().expect("a directory");
    let status = Command::new(folder().join("render")).arg(fresh.path()).status().expect("deploy/render runs");
    assert!(status.success());
    for file in ["sluice.yaml", "uninstall.yaml"] {
        let rendered = std::fs::read_to_string(fresh.path().join(file)).expect("rendered");
        assert!(rendered == read(&format!("manifests/{file}")), "deploy/manifests/{file} is out of date: run make manifests");
    }
    let schemas = Schemas::core();
    let documents = Documents::parse(&read("manifests/sluice.yaml")).expect("YAML");
    let namespace = documents.only("Namespace");
    assert_eq!(violations(&schemas, namespace), [""; 0]);
    assert_eq!(documents.names()[0], "Namespace /sluice-system", "first, for everything else is in it");
}

#[test]
fn chart_and_workspace_have_one_version() {
    let chart = read("chart/sluice/Chart.yaml");
    for field in ["version: ", "appVersion: "] {
        let version = chart.lines().find_map(|line| line.strip_prefix(field)).map(|version| version.trim_matches('"'));
        assert_eq!(version, Some(env!("CARGO_PKG_VERSION")), "{field}");
    }
}

#[test]
fn the_definitions_in_the_chart_are_those_that_control_prints() {
    let chart = read("chart/sluice/crds/definitions.yaml");
    assert_eq!(chart, sluice_control::definitions().unwrap(), "make manifests writes them");
}
