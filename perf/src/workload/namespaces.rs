//! G2–G5: the namespaces of a controller's scale tests: many small ones, few large ones, a single one, and many whose
//! policies look at each other. Source of G2–G4: antrea-io/antrea, networkpolicy_controller_perf_test.go.

use super::objects::{Cluster, Template, deny_all, labels};
use crate::random::SplitMix;
use serde_json::{Value, json};
use sluice_policy::Snapshot;

const PODS_PER_NODE: usize = 110;

fn ingress(selected: Value, from: Value) -> Value {
    json!({"podSelector": selected, "policyTypes": ["Ingress"], "ingress": [{"from": [from]}]})
}

/// G2: 25 000 namespaces with four pods and three policies each.
pub(super) fn small(random: &mut SplitMix) -> Snapshot {
    const NAMESPACES: usize = 25_000;
    let mut cluster = Cluster::new(NAMESPACES * 4, PODS_PER_NODE, random);
    for namespace in (0..NAMESPACES).map(|index| format!("small-{index:05}")) {
        cluster.add_namespace(&namespace, [("app", &namespace)]);
        cluster.add_policy(&namespace, "deny-all", deny_all());
        for app in ["app-1", "app-2"] {
            let template = Template::new(&namespace, app, [("app", app)]);
            (0..2).for_each(|_| cluster.add_pod(&template));
            cluster.add_policy(&namespace, "allow", ingress(labels("app", app), json!({"podSelector": labels("app", app)})));
        }
    }
    cluster.finish()
}

/// G3: 100 namespaces with 100 apps of ten pods and 101 policies each.
pub(super) fn large(random: &mut SplitMix) -> Snapshot {
    let mut cluster = Cluster::new(100 * 100 * 10, PODS_PER_NODE, random);
    for namespace in (0..100).map(|index| format!("large-{index:02}")) {
        cluster.add_namespace(&namespace, [("app", &namespace)]);
        cluster.add_policy(&namespace, "deny-all", deny_all());
        for app in (0..100).map(|index| format!("app-{index:02}")) {
            let template = Template::new(&namespace, &app, [("app", &app)]);
            (0..10).for_each(|_| cluster.add_pod(&template));
            cluster.add_policy(&namespace, "allow", ingress(labels("app", &app), json!({"podSelector": labels("app", &app)})));
        }
    }
    cluster.finish()
}

/// G4: one namespace with 10 000 pods and 10 000 policies, each of which selects all pods and lets all of them in.
pub(super) fn single(random: &mut SplitMix) -> Snapshot {
    let mut cluster = Cluster::new(10_000, PODS_PER_NODE, random);
    cluster.add_namespace("single", []);
    let template = Template::new("single", "app", [("app", "app")]);
    for _ in 0..10_000 {
        cluster.add_pod(&template);
        let both = json!({"podSelector": labels("app", "app")});
        let spec = json!({
            "podSelector": labels("app", "app"),
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [both]}],
            "egress": [{"to": [both]}],
        });
        cluster.add_policy("single", "allow", spec);
    }
    cluster.finish()
}

/// G5: 1000 namespaces of 100 companies with ten apps of ten pods and ten policies each; every policy lets one app of one
/// company in.
pub(super) fn crossing(random: &mut SplitMix) -> Snapshot {
    let mut cluster = Cluster::new(1000 * 10 * 10, PODS_PER_NODE, random);
    for index in 0..1000 {
        let (namespace, company) = (format!("cross-{index:04}"), format!("company-{}", index % 100));
        cluster.add_namespace(&namespace, [("company", &company)]);
        for app in 0..10 {
            let name = format!("app-{app}");
            let template = Template::new(&namespace, &name, [("app", &name)]);
            (0..10).for_each(|_| cluster.add_pod(&template));
            let peer = json!({
                "namespaceSelector": labels("company", &format!("company-{}", (index + app) % 100)),
                "podSelector": labels("app", &format!("app-{}", (app + 1) % 10)),
            });
            cluster.add_policy(&namespace, "allow", ingress(labels("app", &name), peer));
        }
    }
    cluster.finish()
}
