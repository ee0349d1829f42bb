//! The public network policy recipes, where `SLUICE_RECIPES` names a directory that holds them: each is valid and means
//! what its title says, on oracle and table.

use sluice_policy::lint::lint;
use sluice_policy::load::load_with_sources;
use sluice_tests::walkthrough::{pods, reaches, state};
use std::collections::BTreeSet;
use std::path::Path;

struct Recipe {
    file: &'static str,
    /// Recipes that are in force before it, because its text builds on them.
    before: &'static [&'static str],
    pods: &'static [&'static str],
    allowed: &'static [&'static str],
    denied: &'static [&'static str],
    /// What lint says of the recipe alone.
    warnings: &'static [&'static str],
}

/// Namespaces as the recipes label them.
const NAMESPACES: &str = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: prod, labels: {purpose: production}}\n---\n\
     apiVersion: v1\nkind: Namespace\nmetadata: {name: ops, labels: {team: operations}}\n";

const WEB: &[&str] =
    &["web app=web", "other", "prod/client", "dev/client", "ops/monitor type=monitoring", "ops/plain", "dev/monitor type=monitoring"];
const FOO: &[&str] = &["foo app=foo", "other", "kube-system/dns k8s-app=kube-dns", "kube-system/other"];
const BOOKS: &[&str] = &[
    "api app=bookstore role=api",
    "search app=bookstore role=search",
    "db app=bookstore role=db",
    "stock app=inventory role=web",
    "catalog app=catalog role=web",
    "x/search app=bookstore role=search",
];

const DENY_WEB: &str = "01-deny-all-traffic-to-an-application.1.yaml";

const RECIPES: [Recipe; 15] = [
    Recipe {
        file: DENY_WEB,
        before: &[],
        pods: WEB,
        allowed: &["web -> other 80", "dev/client -> other 80"],
        denied: &["other -> web 80", "prod/client -> web 80", "8.8.8.8 -> web 80"],
        warnings: &[],
    },
    Recipe {
        file: "02-limit-traffic-to-an-application.1.yaml",
        before: &[],
        pods: BOOKS,
        allowed: &["search -> api 80", "db -> api 9/UDP", "catalog -> search 80"],
        denied: &["catalog -> api 80", "stock -> api 80", "x/search -> api 80", "8.8.8.8 -> api 80"],
        warnings: &[],
    },
    Recipe {
        file: "02a-allow-all-traffic-to-an-application.1.yaml",
        before: &[DENY_WEB],
        pods: WEB,
        allowed: &["other -> web 80", "dev/client -> web 9/UDP", "8.8.8.8 -> web 80"],
        denied: &[],
        warnings: &[],
    },
    Recipe {
        file: "03-deny-all-non-whitelisted-traffic-in-the-namespace.1.yaml",
        before: &[],
        pods: WEB,
        allowed: &["web -> dev/client 80", "prod/client -> dev/client 80"],
        denied: &["web -> other 80", "dev/client -> other 80", "8.8.8.8 -> web 80"],
        warnings: &[],
    },
    Recipe {
        file: "04-deny-traffic-from-other-namespaces.1.yaml",
        before: &[],
        pods: WEB,
        allowed: &["web -> other 80", "other -> web 9/UDP", "web -> prod/client 80"],
        denied: &["prod/client -> web 80", "dev/client -> other 80", "8.8.8.8 -> web 80"],
        // `matchLabels:` with nothing behind it: every pod, which is meant here.
        warnings: &["empty-selector"],
    },
    Recipe {
        file: "05-allow-traffic-from-all-namespaces.1.yaml",
        before: &[DENY_WEB],
        pods: WEB,
        allowed: &["other -> web 80", "prod/client -> web 80", "dev/client -> web 80"],
        denied: &["8.8.8.8 -> web 80"],
        warnings: &[],
    },
    Recipe {
        file: "06-allow-traffic-from-a-namespace.1.yaml",
        before: &[],
        pods: WEB,
        allowed: &["prod/client -> web 80"],
        denied: &["dev/client -> web 80", "other -> web 80", "8.8.8.8 -> web 80"],
        warnings: &[],
    },
    Recipe {
        file: "07-allow-traffic-from-some-pods-in-another-namespace.1.yaml",
        before: &[],
        pods: WEB,
        allowed: &["ops/monitor -> web 80"],
        denied: &["ops/plain -> web 80", "dev/monitor -> web 80", "other -> web 80"],
        warnings: &[],
    },
    Recipe {
        file: "08-allow-external-traffic.1.yaml",
        before: &[DENY_WEB],
        pods: WEB,
        allowed: &["8.8.8.8 -> web 80", "other -> web 80"],
        denied: &[],
        warnings: &[],
    },
    Recipe {
        file: "09-allow-traffic-only-to-a-port.1.yaml",
        before: &[],
        pods: &["apiserver app=apiserver", "monitor role=monitoring", "other", "x/monitor role=monitoring"],
        allowed: &["monitor -> apiserver 5000", "apiserver -> other 80"],
        denied: &["monitor -> apiserver 8001", "monitor -> apiserver 5000/UDP", "other -> apiserver 5000", "x/monitor -> apiserver 5000"],
        warnings: &[],
    },
    Recipe {
        file: "10-allowing-traffic-with-multiple-selectors.1.yaml",
        before: &[],
        pods: BOOKS,
        allowed: &["search -> db 6379", "api -> db 6379", "stock -> db 6379"],
        denied: &["catalog -> db 6379", "x/search -> db 6379", "8.8.8.8 -> db 6379"],
        warnings: &[],
    },
    Recipe {
        file: "11-deny-egress-traffic-from-an-application.1.yaml",
        before: &[],
        pods: FOO,
        allowed: &["other -> foo 80", "other -> 8.8.8.8 80"],
        denied: &["foo -> other 80", "foo -> 8.8.8.8 443", "foo -> kube-system/dns 53/UDP"],
        warnings: &[],
    },
    Recipe {
        file: "11-deny-egress-traffic-from-an-application.2.yaml",
        before: &[],
        pods: FOO,
        allowed: &["foo -> kube-system/dns 53/UDP", "foo -> kube-system/dns 53"],
        denied: &["foo -> other 80", "foo -> 8.8.8.8 53/UDP", "foo -> kube-system/other 53/UDP", "foo -> kube-system/dns 80"],
        warnings: &[],
    },
    Recipe {
        file: "12-deny-all-non-whitelisted-traffic-from-the-namespace.1.yaml",
        before: &[],
        pods: WEB,
        allowed: &["prod/client -> web 80", "8.8.8.8 -> web 80"],
        denied: &["web -> other 80", "web -> prod/client 80", "other -> 8.8.8.8 53/UDP"],
        warnings: &[],
    },
    Recipe {
        file: "14-deny-external-egress-traffic.1.yaml",
        before: &[],
        pods: FOO,
        allowed: &["foo -> kube-system/dns 53/UDP", "foo -> kube-system/dns 53", "other -> foo 80"],
        denied: &["foo -> 8.8.8.8 443", "foo -> other 80", "foo -> kube-system/other 53/UDP"],
        warnings: &[],
    },
];

#[test]
fn recipes_mean_what_their_titles_say() {
    let Some(dir) = std::env::var_os("SLUICE_RECIPES") else {
        eprintln!("not read: set SLUICE_RECIPES to a directory of the public recipes");
        return;
    };
    let dir = Path::new(&dir);
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let there: BTreeSet<String> = entries.filter(|name| name.ends_with(".yaml")).collect();
    assert_eq!(there, RECIPES.iter().map(|recipe| recipe.file.to_owned()).collect(), "every recipe has its row");
    let text = |file: &str| std::fs::read_to_string(dir.join(file)).unwrap();
    for recipe in &RECIPES {
        let manifests: Vec<String> = recipe.before.iter().chain([&recipe.file]).map(|file| text(file)).collect();
        let snapshot = state(&format!("{}{NAMESPACES}{}", manifests.join("\n---\n"), pods(recipe.pods))).unwrap();
        for (questions, allowed) in [(recipe.allowed, true), (recipe.denied, false)] {
            for question in questions {
                assert_eq!(reaches(&snapshot, question).unwrap(), allowed, "{}: {question}", recipe.file);
            }
        }
        let (loaded, sources) = load_with_sources(vec![(recipe.file.into(), Ok(text(recipe.file).into_bytes()))]);
        let kinds: Vec<&str> = lint(&loaded, &sources).warnings.iter().map(|warning| warning.kind.id()).collect();
        assert_eq!(kinds, recipe.warnings, "{}", recipe.file);
    }
}
