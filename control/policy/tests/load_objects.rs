//! Namespaces, Pods and Services: defaults, validation, lists, and what is skipped.

use sluice_policy::ObjectName;
use sluice_policy::load::{Kind, Loaded, ObjectId, load_str};

fn messages(loaded: &Loaded) -> Vec<String> {
    loaded.errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
}

fn good(text: &str) -> Loaded {
    let loaded = load_str("m.yaml", text);
    assert!(loaded.errors.is_empty(), "{text}\n{:#?}", loaded.errors);
    loaded
}

#[test]
fn every_namespace_carries_its_name_and_referenced_ones_exist() {
    let loaded = good(
        "{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {kubernetes.io/metadata.name: liar, x: z}}}\n---\n\
         {apiVersion: v1, kind: Pod, metadata: {name: p, namespace: b}, spec: {containers: [{name: c}]}}\n---\n\
         {apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c}]}}\n",
    );
    for name in ["a", "b", "default"] {
        let labels = loaded.snapshot.namespaces[name].metadata.labels.as_ref().unwrap();
        assert_eq!(labels["kubernetes.io/metadata.name"], name);
    }
    assert_eq!(loaded.snapshot.namespaces["a"].metadata.labels.as_ref().unwrap()["x"], "z");
    assert_eq!(loaded.origins.len(), 3, "implied namespaces stand nowhere");
    assert!(loaded.snapshot.pods.contains_key(&ObjectName::new("default", "p")));
}

#[test]
fn pods_and_services_are_defaulted_as_the_server_stores_them() {
    let loaded = good(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  hostNetwork: true\n  nodeName: n1\n  futureField: 1\n  \
         containers:\n  - name: c\n    resources: {limits: {cpu: 2}}\n    ports: [{containerPort: 80, name: http}]\n  \
         initContainers:\n  - {name: i, restartPolicy: Always, ports: [{containerPort: 53, protocol: UDP}]}\n\
         status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.2}]}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n",
    );
    let pod = &loaded.snapshot.pods[&ObjectName::new("default", "p")];
    let spec = pod.spec.as_ref().unwrap();
    let port = &spec.containers[0].ports.as_ref().unwrap()[0];
    assert_eq!((port.protocol.as_deref(), port.host_port), (Some("TCP"), Some(80)));
    assert_eq!(spec.init_containers.as_ref().unwrap()[0].restart_policy.as_deref(), Some("Always"));
    assert_eq!((spec.host_network, spec.node_name.as_deref()), (Some(true), Some("n1")));
    let addresses: Vec<_> = pod.status.as_ref().unwrap().pod_ips.iter().flatten().map(|ip| &*ip.ip).collect();
    assert_eq!(addresses, ["10.0.0.1"], "podIP counts where the two differ");
    let service = &loaded.snapshot.services[&ObjectName::new("default", "s")];
    let port = &service.spec.as_ref().unwrap().ports.as_ref().unwrap()[0];
    let stored = serde_json::json!({"port": 80, "protocol": "TCP", "targetPort": 80});
    assert_eq!(serde_json::to_value(port).unwrap(), stored);
}

#[test]
fn bad_pods_services_and_namespaces_are_refused_by_field() {
    let pod = |rest: &str| format!("{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, {rest}}}");
    let ports = |ports: &str| pod(&format!("spec: {{containers: [{{name: c, ports: {ports}}}]}}"));
    let status = |status: &str| pod(&format!("spec: {{containers: [{{name: c}}]}}, status: {{{status}}}"));
    let service = |spec: &str| format!("{{apiVersion: v1, kind: Service, metadata: {{name: s}}, spec: {{{spec}}}}}");
    for (text, part) in [
        (pod("spec: {}"), "spec.containers: Required value"),
        (pod("status: {}"), "spec.containers: Required value"),
        (ports("[{name: x}]"), "spec.containers[0].ports[0].containerPort: Required value"),
        (ports("[{containerPort: 70000}]"), "spec.containers[0].ports[0].containerPort: Invalid value: 70000"),
        (ports("[{containerPort: 1, name: a}, {containerPort: 2, name: a}]"), "ports[1].name: Duplicate value: \"a\""),
        (ports("[{containerPort: 1, name: UP}]"), "spec.containers[0].ports[0].name: Invalid value"),
        (ports("[{containerPort: 1, protocol: udp}]"), "ports[0].protocol: Unsupported value: \"udp\""),
        (status("podIP: 10.0.0.300"), "status.podIPs[0].ip: Invalid value: \"10.0.0.300\""),
        (status("podIPs: [{ip: 10.0.0.1}, {ip: 10.0.0.2}]"), "status.podIPs[1].ip: Invalid value"),
        (service("ports: []"), "spec.ports: Required value"),
        (service("ports: [{port: 80}, {port: 81}]"), "spec.ports[0].name: Required value"),
        (service("ports: [{port: 0}]"), "spec.ports[0].port: Invalid value: 0"),
        (service("ports: [{port: 1}], clusterIP: 10.0.0.0.1"), "spec.clusterIP: Invalid value"),
        ("{apiVersion: v1, kind: Namespace, metadata: {name: a.b}}".into(), "metadata.name: Invalid value: \"a.b\""),
        ("{apiVersion: v1, kind: Namespace, metadata: {name: a, label: {}}}".into(), "metadata.label: unknown field"),
        ("{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {x: -z}}}".into(), "metadata.labels: Invalid value: \"-z\""),
    ] {
        let loaded = load_str("m.yaml", &text);
        assert!(messages(&loaded).iter().any(|message| message.contains(part)), "{text}\n{:#?}", messages(&loaded));
        assert!(loaded.origins.is_empty(), "{text}");
    }
    good(&service("clusterIP: None"));
    good(&service("type: ExternalName, externalName: example.com"));
    good(&status("podIPs: [{ip: fd00::1}, {ip: 10.0.0.2}]"));
}

#[test]
fn lists_are_taken_apart_and_other_kinds_are_noted() {
    let item = |name: &str| format!("metadata: {{name: {name}}}");
    let text = format!(
        "apiVersion: v1\nkind: List\nitems:\n- {{apiVersion: v1, kind: Namespace, {}}}\n- {{apiVersion: apps/v1, kind: Deployment}}\n\
         ---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicyList\nitems:\n- {}\n- {}\n  spec: {{bad: 1}}\n---\n\n---\n\
         apiVersion: serving.knative.dev/v1\nkind: Service\n---\napiVersion: v1\nkind: PodList\nitems: null\n",
        item("ns"),
        item("p"),
        item("q"),
    );
    let loaded = load_str("m.yaml", &text);
    let ids: Vec<String> = loaded.origins.keys().map(ToString::to_string).collect();
    assert_eq!(ids, ["Namespace ns", "NetworkPolicy default/p"]);
    assert_eq!(messages(&loaded), ["spec.bad: unknown field"]);
    assert_eq!(loaded.errors[0].object.as_ref().unwrap().to_string(), "NetworkPolicy default/q");
    let skipped: Vec<_> = loaded.skipped.iter().map(|skipped| (skipped.line, skipped.kind.as_str())).collect();
    assert_eq!(skipped, [(5, "Deployment"), (16, "Service")]);
}

#[test]
fn json_is_read_as_json_with_its_places() {
    let text = "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Namespace\",\n\t\"metadata\": {\"name\": \"a\\/b\"}\n}";
    let loaded = load_str("n.json", text);
    assert_eq!((loaded.errors[0].line, loaded.errors[0].column), (4, 23));
    assert!(loaded.errors[0].to_string().contains("\n    | \t                     ^"), "{}", loaded.errors[0]);
    let id = ObjectId { kind: Kind::Namespace, namespace: String::new(), name: "a/b".into() };
    assert_eq!(loaded.errors[0].object, Some(id));
}
