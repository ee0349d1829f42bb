//! Mistakes that people really make, most of them copied from articles: each is refused with its place, its field and
//! the right form, and what only looks wrong is accepted.

use sluice_policy::load::{Loaded, load_str};

/// A policy whose spec is given, indented by two.
fn policy(spec: &str) -> Loaded {
    load_str("np.yaml", &format!("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: web\nspec:\n{spec}"))
}

fn only_error(loaded: &Loaded) -> String {
    assert_eq!(loaded.errors.len(), 1, "{:#?}", loaded.errors);
    assert!(loaded.snapshot.policies.is_empty(), "refused whole");
    loaded.errors[0].to_string()
}

#[test]
fn an_error_shows_the_line_the_place_and_the_right_form() {
    let loaded = policy("  podSelector:\n    matchLabels:\n      app=web-server\n  ingress:\n  - ports:\n    - port: 8000\n");
    assert_eq!(
        only_error(&loaded),
        "np.yaml:8:7: NetworkPolicy default/web: spec.podSelector.matchLabels: expected a map, found the text \
         \"app=web-server\"\n\
         \x20 8 |       app=web-server\n\
         \x20   |       ^\n\
         hint: write `app: web-server`"
    );
}

#[test]
fn mistakes_in_a_spec_are_found_where_they_stand() {
    for (spec, place, parts) in [
        (
            "  podSelector: {}\n  ingress:\n  - from:\n    - {}\n",
            "9:7",
            ["from[0]: Required value: must specify a peer", "namespaceSelector: {}"],
        ),
        ("  podSelector: {}\n  ingress:\n  - from:\n    - ipBlock:\n        cidr: 10.1.2.3/8\n", "10:15", ["bits set", "`10.0.0.0/8`"]),
        (
            "  ingress:\n  - ports:\n    - port: http\n      endPort: 90\n",
            "9:16",
            ["endPort: Invalid value: 90: may not be specified when `port` is non-numeric", "a name"],
        ),
        ("  ingress:\n  - ports:\n    - port: 80\n      endPort: 79\n", "9:16", ["greater than or equal", "79 to 80?"]),
        ("  ingress:\n  - ports:\n    - port: \"80\"\n", "8:13", ["at least one letter", "`port: 80`"]),
        ("  ingress:\n  - ports:\n    - protocol: tcp\n", "8:17", ["Unsupported value", "write `TCP`"]),
        ("  ingress:\n  - ports:\n    - protocol: ICMP\n", "8:17", ["Unsupported value", "ICMP cannot be named"]),
        (
            "  ingress:\n  - from:\n    - podSelector:\n        app: web\n",
            "9:9",
            ["spec.ingress[0].from[0].podSelector.app: unknown field", "        app: web"],
        ),
        ("  ingress:\n  - from:\n    - podSelector: {}\n      ports:\n      - port: 80\n", "9:7", ["unknown field", "beside `from`"]),
        ("  ingress:\n  - to:\n    - podSelector: {}\n", "7:5", ["unknown field", "belongs to an egress rule"]),
        ("  podselector: {}\n", "6:3", ["spec.podselector: unknown field", "`podSelector`"]),
        ("  ingress:\n    from: []\n", "6:3", ["expected a list, found a map", "`- `"]),
        ("  podSelector:\n    matchLabels:\n      version: 1.5\n", "8:16", ["expected text, found the number 1.5", "\"1.5\""]),
        ("  podSelector:\n    matchLabels:\n      on: yes\n", "8:11", ["matchLabels.true: expected text", "booleans"]),
        (
            "  podSelector:\n    matchExpressions:\n    - {key: a, operator: Int, values: [b]}\n",
            "8:26",
            ["not a valid selector operator", "`In`"],
        ),
        ("  policyTypes: [ingress]\n", "6:17", ["Unsupported value", "`Ingress`"]),
        ("  podSelector:\n    matchLabels:\n      -bad: x\n", "8:7", ["name part must consist", ""]),
    ] {
        let error = only_error(&policy(spec));
        assert!(error.starts_with(&format!("np.yaml:{place}: NetworkPolicy default/web: ")), "{spec}{error}");
        for part in parts {
            assert!(error.contains(part), "{spec}{error}\nshould contain {part:?}");
        }
    }
}

#[test]
fn what_looks_wrong_but_is_right_means_what_the_server_makes_of_it() {
    let spec = |text: &str| {
        let loaded = policy(text);
        assert!(loaded.errors.is_empty(), "{text}{:#?}", loaded.errors);
        serde_json::to_value(&loaded.snapshot.policies.values().next().unwrap().spec).unwrap().to_string()
    };
    for (text, stored) in [
        (
            "  egress:\n  - to:\n    ports:\n    - port : 53\n",
            r#"{"egress":[{"ports":[{"port":53,"protocol":"TCP"}]}],"podSelector":{},"policyTypes":["Ingress","Egress"]}"#,
        ),
        ("  podSelector:\n    matchLabels: {}\n", r#"{"podSelector":{},"policyTypes":["Ingress"]}"#),
        ("  podSelector:\n    matchLabels:\n      app:\n", r#"{"podSelector":{"matchLabels":{"app":""}},"policyTypes":["Ingress"]}"#),
        ("  podSelector:\n  ingress:\n  -\n", r#"{"ingress":[{}],"podSelector":{},"policyTypes":["Ingress"]}"#),
        ("  policyTypes: []\n  egress: []\n", r#"{"podSelector":{},"policyTypes":["Ingress"]}"#),
        (
            "  ingress:\n  - ports: [{port: 0x50}, {port: 80.0}]\n",
            r#"{"ingress":[{"ports":[{"port":80,"protocol":"TCP"},{"port":80,"protocol":"TCP"}]}],"podSelector":{},"policyTypes":["Ingress"]}"#,
        ),
    ] {
        let stored: serde_json::Value = serde_json::from_str(stored).unwrap();
        let ours: serde_json::Value = serde_json::from_str(&spec(text)).unwrap();
        assert_eq!(ours, stored, "{text}");
    }
}

#[test]
fn lost_indentation_is_called_by_its_name() {
    let flat = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\nname: default-deny\nnamespace: default\n\
                spec:\npodSelector: {}\npolicyTypes:\n- Ingress\n- Egress\n";
    // What follows decides whether the text still parses; the hint must come either way.
    for (rest, place) in [
        ("", "np.yaml:4:1: name: unknown field"),
        ("egress:\n- to:\nports:\n- port: 53\nprotocol: TCP\n- port : 53\nprotocol: UDP\n", "np.yaml:"),
        ("egress:\n- to:\n- podSelector:\nmatchLabels:\nrun: a\nmatchLabels:\nrun: b\n", "np.yaml:"),
    ] {
        let loaded = load_str("np.yaml", &format!("{flat}{rest}"));
        let error = only_error(&loaded);
        assert!(error.starts_with(place), "{error}");
        assert!(error.contains("indentation was lost"), "{error}");
    }
    let error = only_error(&policy("podSelector: {}\n"));
    assert!(error.contains("NetworkPolicy default/web: podSelector: ") && error.contains("    spec:\n      podSelector:"), "{error}");
    assert!(only_error(&load_str("np.yaml", flat)).contains("    metadata:\n      name: default-deny"));
}

#[test]
fn a_flat_policy_is_blamed_where_it_went_wrong_and_shown_in_its_right_form() {
    let flat = "Some notes: before\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\nname: frontend\nspec:\npodSelector:\n\
                matchLabels:\nrun: frontend # from kubectl run\npolicyTypes:\n- Egress\negress:\n- to:\n- podSelector:\nmatchLabels:\nrun: backend\n";
    assert_eq!(
        only_error(&load_str("np.yaml", flat)),
        "np.yaml:6:1: name: unknown field at the top level, while `metadata` is empty; line 16 is then wrong: the key \"matchLabels\" \
         stands twice in the same map, first in line 9\n\
         \x20 6 | name: frontend\n\
         \x20   | ^\n\
         hint: the indentation was lost; the right form is\n\
         \x20   apiVersion: networking.k8s.io/v1\n\
         \x20   kind: NetworkPolicy\n\
         \x20   metadata:\n\
         \x20     name: frontend\n\
         \x20   spec:\n\
         \x20     podSelector:\n\
         \x20       matchLabels:\n\
         \x20         run: frontend # from kubectl run\n\
         \x20     policyTypes:\n\
         \x20     - Egress\n\
         \x20     egress:\n\
         \x20     - to:\n\
         \x20       - podSelector:\n\
         \x20           matchLabels:\n\
         \x20             run: backend"
    );
}

#[test]
fn slips_show_the_right_form() {
    // A line of the spec in its place, and the whole message after the object's name.
    for (spec, message) in [
        (
            "  ingress:\n  - ports:\n    - port: 80-90\n",
            "spec.ingress[0].ports[0].port: Invalid value: \"80-90\": must contain at least one letter (a-z)\n  8 |     - port: 80-90\n    \
             |             ^\nhint: a range has two fields\n    - port: 80\n      endPort: 90",
        ),
        (
            "  ingress:\n  - ports:\n    - port:80\n",
            "spec.ingress[0].ports[0]: expected a map (NetworkPolicyPort), found the text \"port:80\"\n  8 |     - port:80\n    |       ^\n\
             hint: write `port: 80`",
        ),
        (
            "  ingress:\n  - ports:\n    - port: 53/udp\n",
            "spec.ingress[0].ports[0].port: Invalid value: \"53/udp\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens \
             (-)\n  8 |     - port: 53/udp\n    |             ^\nhint: the protocol is a field of its own\n    - port: 53\n      protocol: UDP",
        ),
        (
            "  ingress:\n  - ports: 80\n",
            "spec.ingress[0].ports: expected a list, found the number 80\n  7 |   - ports: 80\n    |            ^\n\
             hint: write\n    ports:\n    - port: 80",
        ),
        (
            "  ingress:\n  - from:\n    - ipBlock: fd00::/8\n",
            "spec.ingress[0].from[0].ipBlock: expected a map (IPBlock), found the text \"fd00::/8\"\n  8 |     - ipBlock: fd00::/8\n    \
             |                ^\nhint: write\n    ipBlock:\n      cidr: fd00::/8",
        ),
        (
            "  ingress:\n  - from:\n    - namespace: prod\n",
            "spec.ingress[0].from[0].namespace: unknown field\n  8 |     - namespace: prod\n    |       ^\nhint: a namespace is selected by \
             its name's label\n    namespaceSelector:\n      matchLabels:\n        kubernetes.io/metadata.name: prod",
        ),
        (
            "  podSelector:\n    matchLabels:\n      app=web\n      tier=db\n",
            "spec.podSelector.matchLabels: expected a map, found the text \"app=web tier=db\"\n  8 |       app=web\n    |       ^\n\
             hint: write each on a line of its own\n    app: web\n    tier: db",
        ),
        (
            "  podSelector: app=web\n",
            "spec.podSelector: expected a map (LabelSelector), found the text \"app=web\"\n  6 |   podSelector: app=web\n    \
             |                ^\nhint: labels stand under `matchLabels:`\n    podSelector:\n      matchLabels:\n        app: web",
        ),
        (
            "  podSelector:\n    matchLabels:\n      app: [web, db]\n",
            "spec.podSelector.matchLabels.app: expected text, found a list\n  8 |       app: [web, db]\n    |       ^\nhint: several values \
             need an expression\n    matchExpressions:\n    - {key: app, operator: In, values: [web, db]}",
        ),
        (
            "  policyTypes: Ingress\n",
            "spec.policyTypes: expected a list, found the text \"Ingress\"\n  6 |   policyTypes: Ingress\n    |                ^\n\
             hint: begin each item of the list with `- `\n    policyTypes:\n    - Ingress",
        ),
        (
            "  action: Deny\n",
            "spec.action: unknown field\n  6 |   action: Deny\n    |   ^\nhint: a NetworkPolicy only allows: what no rule of any policy \
             allows to a selected pod is denied; remove it",
        ),
        (
            "  from:\n  - podSelector: {}\n",
            "spec.from: unknown field\n  6 |   from:\n    |   ^\nhint: it stands inside a rule, which is an item of a list\n    ingress:\n    - from: ...",
        ),
        (
            "  egress:\n  - to:\n    - podSelector:\n      matchLabels:\n        app: a\n",
            "spec.egress[0].to[0].matchLabels: unknown field\n  9 |       matchLabels:\n    |       ^\nhint: it stands inside a selector: \
             indent it further\n    podSelector:\n      matchLabels: ...",
        ),
    ] {
        let error = policy(spec).errors[0].to_string();
        let (_, after) = error.split_once(": NetworkPolicy default/web: ").expect("place and object");
        assert_eq!(after, message, "{spec}");
    }
}

#[test]
fn what_web_pages_and_templates_do_to_yaml_is_recognised() {
    for (spec, whole) in [
        (
            "\u{a0}\u{a0}podSelector: {}\n",
            "np.yaml:6:1: NetworkPolicy default/web: \u{a0}\u{a0}podSelector: unknown field\n  6 | \u{a0}\u{a0}podSelector: {}\n    | ^\nhint: there is a blank that YAML does not know (U+00A0); replace it by an ordinary space",
        ),
        (
            "  policyTypes:\n  – Ingress\n",
            "np.yaml:7:3: not valid YAML: simple key expect ':'\n  7 |   – Ingress\n    |   ^\nhint: – is a typographic dash (U+2013); write -",
        ),
        (
            "  podSelector:\n    matchLabels:\n      app: {{ .Values.app }}\n",
            "np.yaml:8:13: a key must be text, not a list or a map\n  8 |       app: {{ .Values.app }}\n    |             ^\nhint: this is a \
             template, not yet a manifest; render it first, for instance `helm template . | sluicectl lint -f -`",
        ),
        (
            "  ingress:\n  - ports:\n    - protocol: TCP port: 53\n",
            "np.yaml:8:25: not valid YAML: mapping values are not allowed in this context\n  8 |     - protocol: TCP port: 53\n    \
             |                         ^\nhint: give each field a line of its own",
        ),
        (
            "  ingress:\n    - from:\n      - podSelector:\n       matchLabels: {}\n",
            "np.yaml:9:8: not valid YAML: while parsing a block mapping, did not find expected key\n  9 |        matchLabels: {}\n    \
             |        ^\nhint: it is indented by 7, and no line above that it could belong to is; those are indented by 0, 2, 4, 6, 8",
        ),
    ] {
        assert_eq!(policy(spec).errors[0].to_string(), whole, "{spec}");
    }
}

#[test]
fn documents_that_are_no_object_of_ours_say_so() {
    for (text, parts) in [
        ("kind: NetworkPolicy\nmetadata: {name: a}\n", ["apiVersion: Required value", "write `apiVersion: networking.k8s.io/v1`"]),
        ("#...\nkind: NetworkPolicy\napiVersion:\nmetadata: {name: a}\n", ["np.yaml:3:1", "networking.k8s.io/v1"]),
        ("apiVersion: extensions/v1beta1\nkind: NetworkPolicy\nmetadata: {name: a}\n", ["np.yaml:1:13", "removed in Kubernetes 1.16"]),
        ("apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: a}\n", ["Invalid value", "Calico"]),
        (
            "apiVersion: networking.k8s.io/v1\nkind: Networkpolicy\nmetadata: {name: a}\n",
            ["kind: unknown kind", "did you mean `NetworkPolicy`?"],
        ),
        (
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {generateName: a-}\n",
            ["metadata.name: Required value: needs a name", "instead of `generateName:`"],
        ),
        ("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nspec: {}\n", ["needs a name", "name: ..."]),
        ("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: Web_1}\n", ["RFC 1123 subdomain", "`web-1`"]),
        (
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\nspec: {}\nstatus: {}\n",
            ["status: unknown field", "remove it"],
        ),
        ("metadata: {name: a}\n", ["kind: Required value", "kind: NetworkPolicy"]),
        ("just text\n", ["expected a Kubernetes object (a map), found the text", ""]),
        ("a: 1\n\tb: 2\n", ["not valid YAML", ""]),
    ] {
        let error = only_error(&load_str("np.yaml", text));
        assert!(parts.iter().all(|part| error.contains(part)), "{text}{error}");
    }
}

#[test]
fn the_articles_indented_manifests_load() {
    let text = "#...\nkind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nmetadata:\n  name: no-inbound-traffic\n  \
                namespace: production\nspec:\n  policyTypes:\n  - Ingress\n  podSelector:\n    matchLabels: {}\n";
    let loaded = load_str("np.yaml", text);
    assert!(loaded.errors.is_empty() && loaded.snapshot.policies.len() == 1);
    assert!(loaded.snapshot.namespaces.contains_key("production"));
}

/// The well-known policy recipes as they stand in public, where `SLUICE_RECIPES` names a directory that holds them.
#[test]
fn the_public_recipes_load_without_an_error() {
    let Some(recipes) = std::env::var_os("SLUICE_RECIPES") else {
        eprintln!("not read: set SLUICE_RECIPES to a directory of the public recipes");
        return;
    };
    let loaded = sluice_policy::load::load_paths(&[recipes.into()]);
    for error in &loaded.errors {
        assert!(error.message.starts_with("defined twice"), "{error}");
    }
    assert!(loaded.snapshot.policies.len() >= 12);
}
