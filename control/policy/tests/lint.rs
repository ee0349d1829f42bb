//! What lint warns of, where it points, and what it must keep quiet about: for each kind cases that draw the warning and
//! near misses that do not.

use proptest::prelude::*;
use sluice_policy::lint::{Report, STEPS_MAX, WarningKind, lint, lint_within};
use sluice_policy::load::load_with_sources;

/// Two namespaces with pods, a workload, and a service.
const CLUSTER: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: shop}}
---
apiVersion: v1
kind: Namespace
metadata: {name: ops, labels: {team: ops}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web, tier: front}}
spec: {containers: [{name: c, ports: [{name: http, containerPort: 8080}, {name: syslog, containerPort: 514, protocol: UDP}]}]}
status: {podIP: 10.0.0.1}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: db, namespace: shop}
spec: {template: {metadata: {labels: {app: db}}, spec: {containers: [{name: c, ports: [{name: sql, containerPort: 5432}]}]}}}
---
apiVersion: v1
kind: Pod
metadata: {name: agent, namespace: shop, labels: {app: agent}}
spec: {hostNetwork: true, containers: [{name: c}]}
status: {podIP: 192.168.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: monitor, namespace: ops, labels: {app: monitor}}
spec: {containers: [{name: c}]}
status: {podIP: 10.0.1.1}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {selector: {app: db}, clusterIP: 10.96.0.7, ports: [{port: 5432}]}
";

fn report(policies: &str, cluster: &str) -> Report {
    let files = vec![("np.yaml".into(), Ok(policies.into())), ("cluster.yaml".into(), Ok(cluster.into()))];
    let (loaded, sources) = load_with_sources(files);
    assert!(loaded.errors.is_empty(), "{policies}{:#?}", loaded.errors);
    lint(&loaded, &sources)
}

/// Policies of namespace shop: name and spec, in flow style.
fn policies(list: &[(&str, &str)]) -> String {
    let one = |(name, spec): &(&str, &str)| {
        format!("---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n")
    };
    list.iter().map(one).collect()
}

fn kinds(report: &Report) -> Vec<&'static str> {
    report.warnings.iter().map(|warning| warning.kind.id()).collect()
}

/// The kinds of warnings about one policy in the cluster above.
fn of(spec: &str) -> Vec<&'static str> {
    kinds(&report(&policies(&[("p", spec)]), CLUSTER))
}

#[test]
fn a_warning_shows_the_line_the_place_the_effect_and_what_was_meant() {
    let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: p\n  namespace: shop\nspec:\n  podSelector:\n    \
                matchLabels:\n      app: wbe\n";
    let report = report(text, CLUSTER);
    assert_eq!(
        report.warnings[0].to_string(),
        "np.yaml:9:12: warning[selects-nothing]: NetworkPolicy shop/p: spec.podSelector.matchLabels.app: app=wbe matches none of the 2 \
         pods of namespace shop in the manifests, so the policy has no effect at present\n\
         \x20 9 |       app: wbe\n\
         \x20   |            ^\n\
         hint: did you mean `app: web`?"
    );
    assert_eq!((report.warnings.len(), report.incomplete.len()), (1, 0));
}

#[test]
fn each_kind_is_drawn_by_its_case_and_not_by_the_one_beside_it() {
    use WarningKind as K;
    // kind, a spec that draws it alone, a part of the message or hint; a spec near it that draws nothing
    for (kind, drawn, part, quiet) in [
        (
            K::SelectsNothing,
            "{podSelector: {matchLabels: {app: web, tier: back}}}",
            "matches none of the 2 pods",
            "{podSelector: {matchLabels: {app: db}}}",
        ),
        (
            K::SelectsNothing,
            "{podSelector: {matchLabels: {app: monitor}}}",
            "namespace ops (monitor): is the policy's namespace right?",
            "{podSelector: {}}",
        ),
        (
            K::SelectsNothing,
            "{podSelector: {matchLabels: {app: agent}}}",
            "shop/agent would match, but",
            "{podSelector: {matchLabels: {tier: front}}}",
        ),
        (
            K::SelectsNothing,
            "{podSelector: {matchExpressions: [{key: app, operator: Exists}, {key: app, operator: DoesNotExist}]}}",
            "contradict each other",
            "{podSelector: {matchExpressions: [{key: app, operator: Exists}, {key: x, operator: DoesNotExist}]}}",
        ),
        (
            K::PeerMatchesNothing,
            "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: monitor}}}]}]}",
            "namespace ops (monitor): add a `namespaceSelector`",
            "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: db}}}]}]}",
        ),
        (
            K::PeerMatchesNothing,
            "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: osp}}}]}]}",
            "did you mean `team: ops`?",
            "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: ops}}}]}]}",
        ),
        (
            K::PeerMatchesNothing,
            "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {name: ops}}}]}]}",
            "write `kubernetes.io/metadata.name: ops`",
            // A namespace that the manifests do not hold exists elsewhere.
            "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}]}]}",
        ),
        (
            K::PeerMatchesNothing,
            "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: ops}}, podSelector: {matchLabels: {app: web}}}]}]}",
            "matches no pod of namespace ops",
            "{podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}]}]}",
        ),
        (
            K::DnsCutOff,
            "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: db}}}]}]}",
            "may connect somewhere, but no policy allows DNS",
            "{podSelector: {}, policyTypes: [Egress]}",
        ),
        (
            K::DnsCutOff,
            "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 53}, {port: 443}]}]}",
            "a port without `protocol` means TCP",
            "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 53}, {port: 53, protocol: UDP}, {port: 443}]}]}",
        ),
        (
            K::DnsCutOff,
            "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ops}}}]}]}",
            "kubernetes.io/metadata.name: kube-system",
            "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}]}]}",
        ),
        (
            K::DnsCutOff,
            "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 8.8.8.8/32}}], ports: [{port: 443}]}]}",
            "so names do not resolve",
            "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 169.254.20.10/32}}]}]}",
        ),
        (
            K::DnsWithoutTcp,
            "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 53, protocol: UDP}]}]}",
            "add `- {port: 53, protocol: TCP}`",
            "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 53, protocol: UDP}, {protocol: TCP}]}]}",
        ),
        (
            K::UndefinedNamedPort,
            "{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: htpp}]}]}",
            "did you mean `http`?",
            "{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: http}]}]}",
        ),
        (
            K::UndefinedNamedPort,
            "{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: syslog}]}]}",
            "write `protocol: UDP` beside `port: syslog`",
            "{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: syslog, protocol: UDP}]}]}",
        ),
        (
            K::UndefinedNamedPort,
            "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: http}, {port: 53}, {port: 53, protocol: UDP}]}]}",
            "the ports defined there are sql/TCP",
            "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: sql}, {port: 53}, {port: 53, protocol: UDP}]}]}",
        ),
        (
            K::IpBlockCoversPods,
            "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}",
            "contains the addresses of pods (shop/web, ops/monitor)",
            "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/16]}}]}]}",
        ),
        (
            K::IpBlockCoversPods,
            "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.1.1/32}}]}]}",
            "a pod's address changes",
            // The node's address of a hostNetwork pod is no pod's; who admits all pods anyway minds no block.
            "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.168.0.1/32}}]}, {from: [{ipBlock: {cidr: 0.0.0.0/0}}, {namespaceSelector: {}}], ports: [{port: 1}]}]}",
        ),
        (
            K::ServiceAddress,
            "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.96.0.7/32}}]}]}",
            "select the pods behind it: app=db in namespace shop",
            "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.96.0.0/16}}]}]}",
        ),
        (K::EmptyPeers, "{podSelector: {}, ingress: [{from: }]}", "means every peer", "{podSelector: {}, ingress: [{}]}"),
        (K::EmptyPeers, "{podSelector: {}, ingress: [{from: []}]}", "if nobody may come in", "{podSelector: {}, ingress: []}"),
        (
            K::EmptyPeers,
            "{podSelector: {}, ingress: [null]}",
            "if that is meant, write `- {}`",
            "{podSelector: {}, ingress: [{ports: [{port: 80}]}]}",
        ),
        (
            K::EmptyPorts,
            "{podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: }]}",
            "every port of every protocol",
            "{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}",
        ),
        (K::EmptySelector, "{podSelector: {matchLabels: }}", "matches every pod of namespace shop", "{podSelector: {matchLabels: {}}}"),
        (K::EmptySelector, "{ingress: []}", "podSelector is missing", "{podSelector: {}, ingress: []}"),
        (
            K::EmptySelector,
            "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: ops}}, podSelector: }]}]}",
            "every pod of the namespaces that it selects",
            "{podSelector: {matchLabels: , matchExpressions: [{key: app, operator: Exists}]}}",
        ),
        (
            K::CoveredRule,
            "{podSelector: {}, ingress: [{from: [{podSelector: {}}]}, {from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}]}",
            "allows nothing that this policy's ingress[0] does not already allow",
            "{podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}, {from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 81}]}]}",
        ),
        (
            K::IgnoredRules,
            "{podSelector: {}, policyTypes: [Ingress], egress: [{}]}",
            "add `- Egress` to policyTypes",
            "{podSelector: {}, policyTypes: [Ingress, Egress], egress: [{}]}",
        ),
        (K::ImpliedIngress, "{podSelector: {}, egress: [{}]}", "denies all ingress", "{podSelector: {}, ingress: [], egress: [{}]}"),
    ] {
        let report = report(&policies(&[("p", drawn)]), CLUSTER);
        assert_eq!(kinds(&report), [kind.id()], "{drawn}");
        let text = report.warnings[0].to_string();
        assert!(text.contains(part), "{text}\nshould contain {part:?}");
        assert_eq!(of(quiet), <[&str; 0]>::default(), "{quiet}");
    }
}

#[test]
fn a_name_that_promises_what_the_policy_does_not_keep() {
    let kinds_of = |name: &str, spec: &str| kinds(&report(&policies(&[(name, spec)]), CLUSTER));
    assert_eq!(kinds_of("allow-all", "{podSelector: {}}"), ["allows-nothing"]);
    assert_eq!(kinds_of("web-allow", "{podSelector: {}, policyTypes: [Egress]}"), ["allows-nothing"]);
    for (name, spec) in [
        ("allow-all", "{podSelector: {}, ingress: [{}]}"),
        ("allow-none", "{podSelector: {}}"),
        ("deny-all-allow-later", "{podSelector: {}}"),
        ("swallow", "{podSelector: {}}"),
    ] {
        assert_eq!(kinds_of(name, spec), <[&str; 0]>::default(), "{name}");
    }
    assert_eq!(kinds_of("allow-out", "{podSelector: {}, policyTypes: [Ingress], egress: [{}]}"), ["ignored-rules"]);
}

#[test]
fn egress_policies_are_judged_together() {
    let backend = (
        "app",
        "{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: db}}}]}]}",
    );
    let dns = |app: &str| {
        format!(
            "{{podSelector: {{matchLabels: {{app: {app}}}}}, policyTypes: [Egress], egress: [{{ports: [{{port: 53, protocol: UDP}}, {{port: 53}}]}}]}}"
        )
    };
    let judged = |cluster: &str, list: &[(&str, &str)]| kinds(&report(&policies(list), cluster));
    for cluster in [CLUSTER, ""] {
        assert_eq!(judged(cluster, &[backend]), ["dns-cut-off"], "alone");
        assert_eq!(judged(cluster, &[backend, ("dns", &dns("web"))]), <[&str; 0]>::default(), "another policy allows it");
        assert_eq!(judged(cluster, &[backend, ("dns", &dns("db"))]), ["dns-cut-off"], "but not to these pods");
    }
    // Where no pod is known, one that has both labels may exist.
    let tier =
        "{podSelector: {matchLabels: {tier: front}}, policyTypes: [Egress], egress: [{ports: [{port: 53, protocol: UDP}, {port: 53}]}]}";
    assert_eq!(judged("", &[backend, ("dns", tier)]), <[&str; 0]>::default());
    let text = report(&policies(&[backend]), CLUSTER).warnings[0].to_string();
    assert!(text.contains("shop/web may connect somewhere"), "{text}");
}

#[test]
fn coverage_reaches_across_policies_only_where_it_is_certain() {
    let rule = |selector: &str, rule: &str| format!("{{podSelector: {selector}, ingress: [{rule}]}}");
    let web = "{matchLabels: {app: web}}";
    // wider policy, narrower policy, covered
    for (wide, narrow, covered) in [
        (rule("{}", "{}"), rule(web, "{from: [{ipBlock: {cidr: 8.0.0.0/8}}]}"), true),
        (rule(web, "{}"), rule("{}", "{from: [{ipBlock: {cidr: 8.0.0.0/8}}]}"), false),
        (
            rule("{}", "{from: [{ipBlock: {cidr: 8.0.0.0/7}}]}"),
            rule("{}", "{from: [{ipBlock: {cidr: 8.1.0.0/16, except: [8.1.1.0/24]}}]}"),
            true,
        ),
        (
            rule("{}", "{from: [{ipBlock: {cidr: 8.0.0.0/8, except: [8.1.1.0/25]}}]}"),
            rule("{}", "{from: [{ipBlock: {cidr: 8.1.0.0/16, except: [8.1.1.0/24]}}]}"),
            true,
        ),
        (
            rule("{}", "{from: [{ipBlock: {cidr: 8.0.0.0/8, except: [8.1.0.0/16]}}]}"),
            rule("{}", "{from: [{ipBlock: {cidr: 8.1.0.0/16, except: [8.1.1.0/24]}}]}"),
            false,
        ),
        (rule("{}", "{from: [{namespaceSelector: {}}]}"), rule(web, "{from: [{podSelector: {}}]}"), true),
        (rule("{}", "{from: [{namespaceSelector: {matchLabels: {team: shop}}}]}"), rule(web, "{from: [{podSelector: {}}]}"), true),
        (rule("{}", "{from: [{namespaceSelector: {matchLabels: {team: ops}}}]}"), rule(web, "{from: [{podSelector: {}}]}"), false),
        (
            rule("{}", "{from: [{podSelector: {matchExpressions: [{key: app, operator: In, values: [web, db]}]}}]}"),
            rule("{}", "{from: [{podSelector: {matchLabels: {app: db}}}]}"),
            true,
        ),
        (
            rule("{}", "{from: [{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}}]}"),
            rule(
                "{}",
                "{from: [{podSelector: {matchExpressions: [{key: app, operator: DoesNotExist}]}}, {podSelector: {matchLabels: {app: db}}}]}",
            ),
            true,
        ),
        (rule("{}", "{ports: [{port: 80, endPort: 90}]}"), rule(web, "{ports: [{port: 85}, {port: 80}]}"), true),
        (rule("{}", "{ports: [{port: 80, endPort: 90}]}"), rule(web, "{ports: [{port: 85, protocol: UDP}]}"), false),
        (rule("{}", "{ports: [{port: 80, endPort: 90}]}"), rule(web, "{ports: [{port: 85, endPort: 91}]}"), false),
        (rule("{}", "{ports: [{protocol: TCP}]}"), rule(web, "{ports: [{port: http}]}"), true),
        (rule("{}", "{ports: [{port: 8080}]}"), rule(web, "{ports: [{port: http}]}"), false),
        (rule("{}", "{ports: [{protocol: TCP}]}"), rule(web, "{}"), false),
    ] {
        let found = report(&policies(&[("a-wide", &wide), ("b-narrow", &narrow)]), CLUSTER);
        let names: Vec<_> =
            found.warnings.iter().filter(|warning| warning.kind == WarningKind::CoveredRule).map(|w| w.object.name.as_str()).collect();
        assert_eq!(names, if covered { vec!["b-narrow"] } else { vec![] }, "{wide} {narrow}");
        // Names decide only between equals.
        let turned = report(&policies(&[("b-wide", &wide), ("a-narrow", &narrow)]), CLUSTER);
        assert_eq!(
            turned.warnings.iter().filter(|warning| warning.kind == WarningKind::CoveredRule).count(),
            usize::from(covered),
            "{wide} {narrow}"
        );
    }
    let same = rule("{}", "{ports: [{port: 80}]}");
    let twins = report(&policies(&[("a", &same), ("b", &same), ("c", &same)]), CLUSTER);
    let covered: Vec<_> = twins.warnings.iter().map(|w| (w.object.name.as_str(), w.message.contains("shop/a ingress[0]"))).collect();
    assert_eq!(covered, [("b", true), ("c", true)], "of equals the first stands");
}

#[test]
fn nothing_is_claimed_of_what_is_not_known() {
    let list = policies(&[(
        "p",
        "{podSelector: {matchLabels: {app: nobody}}, ingress: [{from: [{podSelector: {matchLabels: {app: none}}}], ports: [{port: x}]}]}",
    )]);
    assert_eq!(kinds(&report(&list, CLUSTER)), ["selects-nothing", "peer-matches-nothing"]);
    assert_eq!(kinds(&report(&list, "")), <[&str; 0]>::default(), "no pod is known");
    let opaque = "---\napiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: s, namespace: shop}\nspec: {}\n";
    assert_eq!(kinds(&report(&list, &format!("{CLUSTER}{opaque}"))), <[&str; 0]>::default(), "a workload that cannot be read");
    for refused in
        ["apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: shop}\nspec: {}\n", "apiVersion: v1\nkind: Pod\nmetadata: {}\n"]
    {
        let files = vec![("np.yaml".into(), Ok(list.clone().into())), ("c.yaml".into(), Ok(format!("{CLUSTER}---\n{refused}").into()))];
        let (loaded, sources) = load_with_sources(files);
        assert_eq!(loaded.errors.len(), 1);
        assert_eq!(kinds(&lint(&loaded, &sources)), <[&str; 0]>::default(), "a refused pod may be the one: {refused}");
    }
}

#[test]
fn a_refused_policy_may_be_the_one_that_allows_dns() {
    let list = policies(&[
        ("p", "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 443}]}]}"),
        ("q", "{podSelector: {}, egres: [{}]}"),
    ]);
    let (loaded, sources) = load_with_sources(vec![("np.yaml".into(), Ok(list.into()))]);
    assert_eq!(loaded.errors.len(), 1);
    assert_eq!(kinds(&lint(&loaded, &sources)), <[&str; 0]>::default());
}

#[test]
fn work_that_is_cut_off_claims_nothing_that_is_not_so_and_says_what_is_missing() {
    let list = policies(&[
        (
            "a",
            "{podSelector: {matchLabels: {app: wbe}}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: x}]}]}",
        ),
        ("b", "{podSelector: {}, egress: [{to: [{podSelector: {}}]}, {to: [{podSelector: {}}]}]}"),
        ("c", "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: x}]}]}"),
    ]);
    let files = vec![("np.yaml".into(), Ok(list.into())), ("cluster.yaml".into(), Ok(CLUSTER.into()))];
    let (loaded, sources) = load_with_sources(files);
    let whole = lint_within(&loaded, &sources, STEPS_MAX);
    assert!(whole.incomplete.is_empty() && whole.warnings.len() >= 6, "{:?}", kinds(&whole));
    let found = |report: &Report| report.warnings.iter().map(|warning| (warning.kind, warning.line, warning.column)).collect::<Vec<_>>();
    for steps_max in 0..200 {
        let part = lint_within(&loaded, &sources, steps_max);
        assert!(found(&part).iter().all(|warning| found(&whole).contains(warning)), "{steps_max}: {:?}", kinds(&part));
        for (kind, ..) in found(&whole).iter().filter(|warning| !found(&part).contains(warning)) {
            assert!(part.incomplete.contains(kind), "{steps_max}: {kind} is missing, and nobody says so");
        }
    }
}

#[test]
fn kinds_have_names_that_read_back_and_texts_whose_examples_are_theirs() {
    for kind in WarningKind::ALL {
        assert_eq!(kind.id().parse(), Ok(kind));
        assert!(!kind.summary().ends_with('.') && kind.explanation().ends_with('.') && !kind.example().is_empty(), "{kind}");
    }
    let error = "no-such".parse::<WarningKind>().unwrap_err().to_string();
    assert!(error.starts_with("there is no warning \"no-such\"; there are selects-nothing, "), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever becomes of a file, there is an answer, and every finding can be printed.
    #[test]
    fn any_damage_is_an_answer_never_a_panic(at in 0usize..1600, cut in 0usize..40, insert in "[-\\[\\]{}:,&*#|\"\t\n a0é\u{a0}]{0,8}") {
        let list = policies(&[
            ("a", "{podSelector: {matchLabels: {app: wbe}}, egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}], ports: [{port: x}]}]}"),
            ("b", "{podSelector: , ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: a, operator: In, values: [b]}]}}]}, null]}"),
        ]);
        let text: Vec<char> = format!("{list}{CLUSTER}").chars().collect();
        let (at, end) = (at.min(text.len()), (at + cut).min(text.len()));
        let damaged: String = text[..at].iter().copied().chain(insert.chars()).chain(text[end..].iter().copied()).collect();
        let (loaded, sources) = load_with_sources(vec![("np.yaml".into(), Ok(damaged.into_bytes()))]);
        for warning in lint(&loaded, &sources).warnings {
            prop_assert!(warning.line > 0 && !warning.to_string().is_empty());
        }
    }
}
