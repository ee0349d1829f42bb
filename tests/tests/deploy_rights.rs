//! What processes may do: at the API server, and in the kernel.

use serde_json::Value;
use sluice_dataplane::privileges;
use sluice_tests::deploy::{Helm, every_render, render, strings, text};
use std::collections::BTreeSet;

/// What each process asks of the API server, and why.
const RIGHTS: [(&str, &str, &str, &str, &str); 14] = [
    ("agent", "", "namespaces pods services", "get list watch", "selectors, addresses, ports: what a policy means"),
    ("agent", "", "nodes", "get list watch", "whose address it is, for explanations"),
    ("agent", "discovery.k8s.io", "endpointslices", "get list watch", "where a service's traffic goes, for explanations"),
    ("agent", "networking.k8s.io", "networkpolicies", "get list watch", "the policies"),
    ("agent", "events.k8s.io", "events", "create", "what is not enforced, said at the pod"),
    ("agent", "sluice.network", "nodestatuses", "create patch", "what its node enforces"),
    ("agent", "sluice.network", "nodestatuses/status", "patch", "what it says"),
    ("reporter", "", "namespaces pods services nodes", "get list watch", "as an agent: which nodes a policy concerns"),
    ("reporter", "discovery.k8s.io", "endpointslices", "get list watch", "it follows what an agent follows"),
    ("reporter", "networking.k8s.io", "networkpolicies", "get list watch", "the policies"),
    ("reporter", "events.k8s.io", "events", "create", "what cannot be represented, said at the object"),
    ("reporter", "sluice.network", "nodestatuses", "get list watch", "what the nodes enforce"),
    ("reporter", "sluice.network", "policystatuses", "list create patch delete", "where each policy is in force"),
    ("reporter", "sluice.network", "policystatuses/status", "patch", "what they say"),
];

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
        for role in documents.of_kind("ClusterRole") {
            let who = if text(&role["metadata"]["name"]).ends_with("-reporter") { "reporter" } else { "agent" };
            for rule in role["rules"].as_array().expect("rules") {
                for group in strings(&rule["apiGroups"]) {
                    for resource in strings(&rule["resources"]) {
                        granted.extend(strings(&rule["verbs"]).into_iter().map(|verb| format!("{who}: {verb} {resource} of {group:?}")));
                    }
                }
            }
        }
        let runs = |right: &&String| right.starts_with("agent") || documents.of_kind("Deployment").count() > 0;
        assert_eq!(granted, wanted.iter().filter(runs).cloned().collect(), "{name}");
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
