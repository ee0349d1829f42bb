//! The chart, the manifests made from it, and the Containerfile: what an operator installs is what the programs need.

use serde_json::Value;
use sluice_dataplane::privileges;
use sluice_tests::deploy::{Containerfile, Documents, Helm, Schemas, broken_rules, first_refusal, folder, keys, read, text, violations};
use std::collections::BTreeSet;
use std::process::Command;
use std::sync::OnceLock;

/// Values that reach every branch of the templates.
const VALUES: [(&str, &str); 22] = [
    ("defaults", ""),
    ("image", "image: {repository: 'registry.example:5000/team/sluice', tag: v1, pullPolicy: Always}\nimagePullSecrets: [{name: pull}]"),
    ("digest", "image: {digest: 'sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef'}"),
    ("name", "nameOverride: policy"),
    ("full name", "fullnameOverride: node-policy"),
    ("account", "serviceAccount: {name: reader, annotations: {example.org/owner: team}}"),
    ("account of others", "serviceAccount: {create: false, name: reader}"),
    ("default account", "serviceAccount: {create: false}"),
    ("workers", "dataplane: {workers: 4, cpus: [2, 3, 4, 5]}"),
    ("fail open", "dataplane: {failOpen: true, established: keep}"),
    ("pods that run already", "dataplane: {existingPods: unmanaged}"),
    ("no reporter", "reporter: {enabled: false}"),
    ("extra", "dataplane: {extraArgs: [--udp-timeout=60], extraEnv: [{name: RUST_LOG, value: debug}]}"),
    ("extra of control", "control: {extraArgs: [--debounce-ms=50], extraEnv: [{name: KUBERNETES_SERVICE_HOST, value: 192.0.2.9}]}"),
    ("limits", "control: {resources: {limits: {memory: 2Gi, cpu: 1}}}\ndataplane: {resources: {requests: {cpu: 2}, limits: {cpu: 2}}}"),
    ("text logs", "logFormat: text"),
    ("every address", "metrics: {bindAddress: '[::]', port: 9900}"),
    ("IPv6 loopback", "metrics: {bindAddress: '[::1]'}"),
    ("scraped", "metrics: {annotations: true}"),
    ("monitored", "metrics: {bindAddress: '[$(HOST_IP)]', serviceMonitor: {enabled: true, interval: 1m, labels: {release: prometheus}}}"),
    ("no plugin", "cni: {install: false}"),
    ("uninstall", "uninstall: {enabled: true}\nimagePullSecrets: [{name: pull}]"),
];

const ALL_AT_ONCE: &str = "
image: {repository: registry.example/sluice, tag: v1, pullPolicy: Always}
imagePullSecrets: [{name: one}, {name: two}]
nameOverride: policy
serviceAccount: {name: reader, annotations: {example.org/owner: team}}
dataplane: {workers: 2, cpus: [2, 3], failOpen: true, established: keep, extraArgs: [--scan-interval=9], extraEnv: [{name: RUST_LOG, value: debug}]}
control: {extraArgs: [--proof-wait-ms=9], extraEnv: [{name: RUST_LOG, value: debug}]}
logFormat: text
metrics: {bindAddress: 0.0.0.0, port: 9900, annotations: true, serviceMonitor: {enabled: true, labels: {release: prometheus}}}
cni: {binDir: /usr/lib/cni, confDir: /etc/cni}
podAnnotations: {example.org/restarted: 'yes'}
podLabels: {team: network}
nodeSelector: {example.org/policy: 'true'}
tolerations: [{key: node-role.kubernetes.io/control-plane, effect: NoSchedule}]
affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]}}}
priorityClassName: system-cluster-critical
updateStrategy: {type: OnDelete}
terminationGracePeriodSeconds: 30
seLinuxOptions: {level: s0}
";

/// What control asks of the API server, and why.
const RIGHTS: [(&str, &str, &str, &str, &str); 8] = [
    ("cluster", "", "namespaces pods services", "get list watch", "selectors, addresses, ports: what a policy means"),
    ("cluster", "", "nodes", "get list watch", "whose address it is, for explanations"),
    ("cluster", "discovery.k8s.io", "endpointslices", "get list watch", "where a service's traffic goes, for explanations"),
    ("cluster", "networking.k8s.io", "networkpolicies", "get list watch", "the policies"),
    ("cluster", "events.k8s.io", "events", "create patch", "what cannot be enforced, said at the object"),
    ("cluster", "sluice.network", "nodestatuses", "get list watch create patch", "what each node enforces; the reporter follows it"),
    ("cluster", "sluice.network", "nodestatuses/status policystatuses/status", "patch", "what they say"),
    ("cluster", "sluice.network", "policystatuses", "list create patch delete", "where each policy is in force"),
];

fn render(helm: &Helm, values: &str) -> Documents {
    let rendered = helm.render(values).unwrap_or_else(|error| panic!("{values}: {error}"));
    Documents::parse(&rendered).unwrap_or_else(|error| panic!("{values}: {error}"))
}

/// Each set of values with what the chart makes of it; rendered once for all tests.
fn every_render(helm: &Helm) -> &'static [(&'static str, Documents)] {
    static RENDERED: OnceLock<Vec<(&str, Documents)>> = OnceLock::new();
    let sets = VALUES.into_iter().chain([("all at once", ALL_AT_ONCE)]);
    RENDERED.get_or_init(|| sets.map(|(name, values)| (name, render(helm, values))).collect())
}

fn strings(list: &Value) -> BTreeSet<String> {
    list.as_array().into_iter().flatten().map(|item| text(item).to_owned()).collect()
}

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
        let mut object = whole.only(kind).clone();
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
        for made in documents.of_kind("ServiceAccount") {
            assert_eq!(&made["metadata"]["name"], account, "{name}");
        }
        for (binding, role) in [("ClusterRoleBinding", "ClusterRole"), ("RoleBinding", "Role")] {
            for bound in documents.of_kind(binding) {
                assert_eq!(bound["roleRef"]["kind"], role, "{name}");
                assert_eq!(bound["roleRef"]["name"], documents.only(role)["metadata"]["name"], "{name}");
                assert_eq!(&bound["subjects"][0]["name"], account, "{name}");
                assert_eq!(bound["subjects"][0]["namespace"], "sluice-system", "{name}");
            }
        }
    }
    // a DaemonSet that uninstalls must not take the agents' pods for its own, nor the other way round
    let agents = render(&helm, "").only("DaemonSet").clone();
    let uninstall = render(&helm, "uninstall: {enabled: true}").only("DaemonSet").clone();
    assert_ne!(agents["metadata"]["name"], uninstall["metadata"]["name"]);
    assert_ne!(agents["spec"]["selector"], uninstall["spec"]["selector"]);
}

#[test]
fn control_may_do_what_it_does_and_nothing_else() {
    let Some(helm) = Helm::find("control_may_do_what_it_does_and_nothing_else") else { return };
    let mut wanted = BTreeSet::new();
    for (scope, group, resources, verbs, _why) in RIGHTS {
        for resource in resources.split(' ') {
            wanted.extend(verbs.split(' ').map(|verb| format!("{scope}: {verb} {resource} of {group:?}")));
        }
    }
    for (name, documents) in every_render(&helm).iter().filter(|(name, _)| *name != "uninstall") {
        let mut granted = BTreeSet::new();
        assert_eq!(documents.of_kind("Role").count(), 0, "{name}");
        for rule in documents.only("ClusterRole")["rules"].as_array().expect("rules") {
            for group in strings(&rule["apiGroups"]) {
                for resource in strings(&rule["resources"]) {
                    granted.extend(strings(&rule["verbs"]).into_iter().map(|verb| format!("cluster: {verb} {resource} of {group:?}")));
                }
            }
        }
        assert_eq!(granted, wanted, "{name}");
        for right in &granted {
            for forbidden in ["*", "secrets", "impersonate", "escalate", "bind ", "exec"] {
                assert!(!right.contains(forbidden), "{name}: {right}");
            }
        }
    }
    let removal = render(&helm, "uninstall: {enabled: true}");
    assert_eq!(removal.of_kind("ClusterRole").chain(removal.of_kind("Role")).count(), 0, "who only removes asks nothing of the API server");
}

#[test]
fn containers_hold_the_capabilities_that_their_programs_use() {
    let Some(helm) = Helm::find("containers_hold_the_capabilities_that_their_programs_use") else { return };
    // beside what every dataplane needs: --control-user gives files away
    let dataplane: BTreeSet<String> =
        privileges::NEEDED.iter().map(|(capability, _)| capability.to_string().replace("CAP_", "")).chain(["CHOWN".to_owned()]).collect();
    let expected = |container: &str| match container {
        "dataplane" => dataplane.clone(),
        "run-dir" => ["CHOWN", "FOWNER"].map(str::to_owned).into(),
        "remove" => ["NET_ADMIN"].map(str::to_owned).into(),
        _ => BTreeSet::new(),
    };
    for kept in privileges::KEEPER.iter().chain(&privileges::WORKER) {
        assert!(privileges::NEEDED.iter().any(|(needed, _)| needed == kept), "{kept} is kept but not asked for");
    }
    for (name, documents) in every_render(&helm) {
        let pod = &documents.only("DaemonSet")["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
        for container in ["initContainers", "containers"].iter().flat_map(|list| pod[*list].as_array().cloned().unwrap_or_default()) {
            let (called, context) = (text(&container["name"]), &container["securityContext"]);
            assert_ne!(context["privileged"], true, "{name}: {called}");
            assert_eq!(context["readOnlyRootFilesystem"], true, "{name}: {called}");
            assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault", "{name}: {called}");
            assert_eq!(strings(&context["capabilities"]["drop"]), BTreeSet::from(["ALL".to_owned()]), "{name}: {called}");
            assert_eq!(strings(&context["capabilities"]["add"]), expected(called), "{name}: {called}");
            let has_token = container["volumeMounts"].as_array().into_iter().flatten().any(|mount| mount["name"] == "api-access");
            assert_eq!(has_token, called == "control", "{name}: {called}");
            if ["control", "done"].contains(&called) {
                assert_eq!(
                    (&context["runAsNonRoot"], &context["runAsUser"]),
                    (&Value::from(true), &Value::from(65532)),
                    "{name}: {called}"
                );
                assert_eq!(context["allowPrivilegeEscalation"], false, "{name}: {called}");
            }
        }
    }
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
fn the_image_holds_what_the_chart_runs() {
    let file = Containerfile::parse(&read("Containerfile")).expect("instructions");
    let workspace = std::fs::read_to_string(folder().join("../Cargo.toml")).expect("the workspace");
    let field =
        |name: &str| workspace.lines().find_map(|line| line.strip_prefix(&format!("{name} = \""))?.strip_suffix('"').map(str::to_owned));
    let (rust, version) = (field("rust-version").expect("pinned"), field("version").expect("set"));

    let bases: Vec<&str> = file.all("FROM").collect();
    assert!(bases[0].starts_with(&format!("docker.io/library/rust:{rust}-")) && bases[0].ends_with("-bookworm AS build"), "{bases:?}");
    assert_eq!(bases[1..], ["docker.io/library/debian:bookworm-slim"], "the same Debian: what was linked there is here");
    assert!(file.all("ARG").any(|argument| argument == format!("VERSION={version}")), "the version is {version}");
    let users: Vec<&str> = file.last_stage().filter(|instruction| instruction.name == "USER").map(|user| user.rest.as_str()).collect();
    assert_eq!(users, ["65532:65532"]);

    let built = binaries();
    let mut copied = BTreeSet::new();
    for copy in file.last_stage().filter(|instruction| instruction.name == "COPY") {
        let [from, source, target] = copy.rest.split(' ').collect::<Vec<_>>()[..] else { panic!("{copy:?}") };
        let name = source.strip_prefix("/out/").unwrap_or_else(|| panic!("{copy:?}"));
        assert_eq!((from, target), ("--from=build", format!("/usr/local/bin/{name}").as_str()));
        assert!(built.contains(name), "{name} is no binary of the workspace: {built:?}");
        assert!(
            file.all("RUN").any(|run| run.contains("cargo build --locked --release") && run.contains(&format!("--package {name}"))),
            "{name} is not built"
        );
        copied.insert(name.to_owned());
    }
    for container_file in ["templates/daemonset.yaml", "templates/uninstall.yaml"] {
        for line in read(&format!("chart/sluice/{container_file}")).lines().filter_map(|line| line.trim().strip_prefix("command: [sluice"))
        {
            let program = format!("sluice{}", line.split([',', ']']).next().unwrap_or_default());
            assert!(copied.contains(&program), "{program} is not in the image: {copied:?}");
        }
    }

    // prepare's list is tried on every CI run; a library comes with the package that it is built against
    let prepare = read("prepare");
    for package in file.packages() {
        let library = format!("\"{}-dev:", package.trim_end_matches(|c: char| c.is_ascii_digit()));
        assert!(prepare.contains(&format!("\"{package}:")) || prepare.contains(&library), "{package} is not in deploy/prepare");
    }
}

/// The workspace's binaries, as cargo sees them.
fn binaries() -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--no-deps", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let targets = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|package| package["targets"].as_array().cloned().unwrap_or_default());
    targets.filter(|target| strings(&target["kind"]).contains("bin")).map(|target| text(&target["name"]).to_owned()).collect()
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
fn a_broken_containerfile_is_not_read() {
    for broken in ["FROM debian\nINSTALL x", "FROM debian\nRUN a \\", "FROM"] {
        assert!(Containerfile::parse(broken).is_err(), "{broken}");
    }
}

#[test]
fn the_definitions_in_the_chart_are_those_that_control_prints() {
    let chart = read("chart/sluice/crds/definitions.yaml");
    assert_eq!(chart, sluice_control::definitions().unwrap(), "make manifests writes them");
}
