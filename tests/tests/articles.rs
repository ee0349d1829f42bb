//! The manifests of well-known articles, read from the articles themselves where `SLUICE_SEEDS` names a directory that
//! holds them: which are valid, which are refused on which line and with which hint, and who reaches whom according to
//! each article's own walkthrough. What an article lost on its way through the web is asked of the repaired form that the
//! loader offers.

use Expect::{Flattened, Refused, Valid};
use sluice_policy::lint::lint;
use sluice_policy::load::{ManifestError, load_str, load_with_sources};
use sluice_tests::articles::{Block, blocks, read};
use sluice_tests::walkthrough::{pods, reaches, state};

struct Article {
    /// A line that only this article has.
    title: &'static str,
    /// Each manifest by its first line.
    blocks: &'static [(usize, Expect)],
    /// Line and kind of each warning about the manifests that are valid as they stand.
    warnings: &'static [(u32, &'static str)],
    walk: &'static [Step],
}

#[derive(Debug, Clone, Copy)]
enum Expect {
    Valid,
    /// Refused at this line, because the indentation was lost.
    Flattened(u32),
    /// Line and column, the message, the hint; and what to replace by what.
    Refused(u32, u32, &'static str, &'static str, (&'static str, &'static str)),
}

/// The manifests in force, by their first lines, and what is true then.
struct Step {
    blocks: &'static [usize],
    pods: &'static [&'static str],
    allowed: &'static [&'static str],
    denied: &'static [&'static str],
    /// Kinds of warnings, where the pods are known too.
    warnings: &'static [&'static str],
}

const SHOP: &[&str] = &["frontend run=frontend", "backend run=backend", "kube-system/dns k8s-app=kube-dns"];
const PRODUCTION: &[&str] = &["production/web app=web-server", "production/db app=db", "other/client"];
const PLAIN: &[&str] = &["a app=A", "b app=B", "c app=C"];

const ARTICLES: [Article; 5] = [
    Article {
        title: "Kubernetes Network Policies: Are They Really Useful?",
        blocks: &[(29, Flattened(32)), (51, Flattened(54)), (72, Flattened(75)), (117, Flattened(120))],
        warnings: &[],
        walk: &[
            Step {
                blocks: &[29],
                pods: SHOP,
                allowed: &["frontend -> kube-system/dns 53/UDP", "backend -> kube-system/dns 53", "frontend -> 8.8.8.8 53/UDP"],
                denied: &["frontend -> backend 80", "backend -> frontend 80", "kube-system/dns -> backend 80"],
                warnings: &["empty-peers"],
            },
            Step {
                blocks: &[29, 51],
                pods: SHOP,
                allowed: &["frontend -> kube-system/dns 53/UDP"],
                denied: &["frontend -> backend 80"],
                warnings: &["empty-peers"],
            },
            Step {
                blocks: &[29, 51, 72],
                pods: SHOP,
                allowed: &["frontend -> backend 80"],
                denied: &["backend -> frontend 80", "frontend -> kube-system/dns 80"],
                warnings: &["empty-peers"],
            },
            Step {
                blocks: &[117],
                pods: &["db role=db", "other"],
                allowed: &["db -> 10.0.0.200 32000", "db -> 10.0.0.200 32768", "db -> other 32100", "other -> 10.0.1.1 1"],
                denied: &["db -> 10.0.0.200 31999", "db -> 10.0.0.200 32769", "db -> 10.0.1.1 32000", "db -> 10.0.0.200 32000/UDP"],
                warnings: &["dns-cut-off", "ip-block-covers-pods"],
            },
        ],
    },
    Article {
        title: "Kubernetes - Network isolation with NetworkPolicy",
        blocks: &[
            (36, Valid),
            (46, Valid),
            (68, Valid),
            (
                91,
                Refused(
                    101,
                    7,
                    "expected a map, found the text \"app=web-server\"",
                    "write `app: web-server`",
                    ("app=web-server", "app: web-server"),
                ),
            ),
            (112, Valid),
        ],
        warnings: &[],
        walk: &[
            Step {
                blocks: &[36, 46],
                pods: PRODUCTION,
                allowed: &["production/web -> other/client 80", "production/web -> 8.8.8.8 80"],
                denied: &["other/client -> production/web 80", "production/db -> production/web 80", "8.8.8.8 -> production/web 80"],
                warnings: &[],
            },
            Step {
                blocks: &[36, 46, 68],
                pods: PRODUCTION,
                allowed: &["production/db -> production/web 80", "production/web -> production/db 5432"],
                denied: &["other/client -> production/web 80", "8.8.8.8 -> production/web 8000"],
                warnings: &[],
            },
            Step {
                blocks: &[36, 46, 68, 91],
                pods: PRODUCTION,
                allowed: &["other/client -> production/web 8000", "8.8.8.8 -> production/web 8000"],
                denied: &["other/client -> production/web 80", "other/client -> production/db 8000"],
                warnings: &[],
            },
            Step {
                blocks: &[36, 46, 68, 91, 112],
                pods: PRODUCTION,
                allowed: &["production/web -> 8.8.8.8 443", "production/web -> production/db 80", "other/client -> 169.254.169.254 80"],
                denied: &["production/web -> 169.254.169.254 80", "production/db -> 169.254.169.254 53/UDP"],
                warnings: &["ip-block-covers-pods"],
            },
        ],
    },
    Article {
        title: "Network Security Policies",
        blocks: &[(118, Flattened(121)), (161, Flattened(164)), (190, Flattened(193)), (256, Flattened(259))],
        warnings: &[],
        walk: &[
            Step {
                blocks: &[118],
                pods: SHOP,
                allowed: &["kube-system/dns -> 8.8.8.8 53"],
                denied: &["frontend -> backend 80", "backend -> frontend 80"],
                // Nothing may leave at all, so that nobody misses DNS.
                warnings: &[],
            },
            Step { blocks: &[118, 161], pods: SHOP, allowed: &[], denied: &["frontend -> backend 80"], warnings: &["dns-cut-off"] },
            Step {
                blocks: &[118, 161, 190],
                pods: SHOP,
                // "Trying directly by IP we can"; "we can't resolve names because we don't have access to core-dns"
                allowed: &["frontend -> backend 80"],
                denied: &["frontend -> kube-system/dns 53/UDP", "backend -> frontend 80"],
                warnings: &["dns-cut-off"],
            },
            Step {
                blocks: &[256, 161, 190],
                pods: SHOP,
                allowed: &["frontend -> kube-system/dns 53/UDP", "frontend -> kube-system/dns 53", "frontend -> backend 80"],
                denied: &["backend -> frontend 80", "frontend -> kube-system/dns 80"],
                warnings: &["empty-peers"],
            },
        ],
    },
    Article {
        title: "How do you configure network policies in Kubernetes for enhanced security?",
        blocks: &[(29, Valid), (54, Valid), (89, Valid), (103, Valid)],
        warnings: &[(32, "allows-nothing")],
        walk: &[
            Step {
                blocks: &[29],
                pods: PLAIN,
                allowed: &["a -> 8.8.8.8 80"],
                // The article says that all pods now allow all incoming traffic. The API says otherwise: there is no rule.
                denied: &["a -> b 80", "8.8.8.8 -> b 80"],
                warnings: &["allows-nothing"],
            },
            Step {
                blocks: &[54],
                pods: &["db app=db", "web app=web", "other"],
                allowed: &["web -> db 5432", "other -> web 80"],
                denied: &["other -> db 5432", "db -> web 80", "db -> 8.8.8.8 53/UDP"],
                warnings: &[],
            },
            Step { blocks: &[89], pods: PLAIN, allowed: &[], denied: &["a -> b 80", "a -> 8.8.8.8 80", "8.8.8.8 -> a 80"], warnings: &[] },
            Step {
                blocks: &[103],
                pods: PLAIN,
                allowed: &["b -> a 80", "a -> c 80", "c -> b 80"],
                denied: &["c -> a 80", "8.8.8.8 -> a 80"],
                warnings: &[],
            },
        ],
    },
    Article {
        title: "ARMO Network Policy Overview",
        blocks: &[(34, Valid), (48, Valid), (64, Valid), (78, Valid)],
        warnings: &[],
        walk: &[
            Step { blocks: &[34], pods: PLAIN, allowed: &["a -> 8.8.8.8 80"], denied: &["a -> b 80", "8.8.8.8 -> b 80"], warnings: &[] },
            Step { blocks: &[34, 48], pods: PLAIN, allowed: &["a -> b 80", "8.8.8.8 -> b 1/UDP"], denied: &[], warnings: &[] },
            Step { blocks: &[64], pods: PLAIN, allowed: &["8.8.8.8 -> b 80"], denied: &["a -> b 80", "a -> 8.8.8.8 80"], warnings: &[] },
            Step { blocks: &[64, 78], pods: PLAIN, allowed: &["a -> b 80", "a -> 8.8.8.8 53/UDP"], denied: &[], warnings: &[] },
        ],
    },
];

/// A block as the loader sees it at its place.
fn errors(block: &Block) -> Vec<ManifestError> {
    load_str("article.yaml", &block.placed()).errors
}

/// The manifest as it stands, or as it is once the reader has done what the hint says.
fn mended(block: &Block, expect: Expect) -> String {
    match expect {
        Valid => block.text.clone(),
        Flattened(_) => {
            let hint = errors(block)[0].hint.clone().unwrap();
            let (_, form) = hint.split_once('\n').unwrap();
            form.lines().map(|line| format!("{}\n", line.strip_prefix("    ").unwrap())).collect()
        }
        Refused(.., (wrong, right)) => block.text.replace(wrong, right),
    }
}

fn check_blocks(article: &Article, found: &[Block]) {
    let lines: Vec<usize> = found.iter().map(|block| block.line).collect();
    assert_eq!(lines, article.blocks.iter().map(|(line, _)| *line).collect::<Vec<_>>(), "{}", article.title);
    for (block, (_, expect)) in found.iter().zip(article.blocks) {
        let errors = errors(block);
        let what = format!("{}, line {}: {errors:#?}", article.title, block.line);
        match (expect, errors.as_slice()) {
            (Valid, []) => {}
            (Flattened(line), [error]) => {
                let hint = error.hint.as_deref().unwrap_or_default();
                assert!(error.line == *line && error.column == 1 && error.field == "name", "{what}");
                assert!(error.message.starts_with("unknown field at the top level, while `metadata` is empty"), "{what}");
                assert!(hint.starts_with("the indentation was lost; the right form is\n    apiVersion: networking.k8s.io/v1\n"), "{what}");
                assert!(error.source_line.as_deref().is_some_and(|source| source.starts_with("name: ")), "{what}");
            }
            (Refused(line, column, message, hint, _), [error]) => {
                assert_eq!((error.line, error.column, error.message.as_str()), (*line, *column, *message), "{what}");
                assert_eq!(error.hint.as_deref(), Some(*hint), "{what}");
            }
            _ => panic!("{expect:?} {what}"),
        }
    }
}

fn check_warnings(article: &Article, found: &[Block]) {
    let files = found.iter().map(|block| (format!("{}.yaml", block.line).into(), Ok(block.placed().into_bytes())));
    let (loaded, sources) = load_with_sources(files.collect());
    let warnings: Vec<(u32, &str)> = lint(&loaded, &sources).warnings.iter().map(|warning| (warning.line, warning.kind.id())).collect();
    assert_eq!(warnings, article.warnings, "{}", article.title);
}

fn check_walk(article: &Article, found: &[Block]) {
    for step in article.walk {
        let of = |line: usize| article.blocks.iter().position(|(first, _)| *first == line).expect("a block of the article");
        let manifests: Vec<String> = step.blocks.iter().map(|line| mended(&found[of(*line)], article.blocks[of(*line)].1)).collect();
        let text = format!("{}{}", manifests.join("---\n"), pods(step.pods));
        let what = format!("{}, with {:?}", article.title, step.blocks);
        let snapshot = state(&text).unwrap_or_else(|error| panic!("{what}: {error}"));
        for (questions, allowed) in [(step.allowed, true), (step.denied, false)] {
            for question in questions {
                assert_eq!(reaches(&snapshot, question).unwrap(), allowed, "{what}: {question}");
            }
        }
        let (loaded, sources) = load_with_sources(vec![("walk.yaml".into(), Ok(text.into_bytes()))]);
        let mut kinds: Vec<&str> = lint(&loaded, &sources).warnings.iter().map(|warning| warning.kind.id()).collect();
        kinds.retain(|kind| *kind != "covered-rule");
        kinds.sort_unstable();
        assert_eq!(kinds, step.warnings, "{what}");
    }
}

#[test]
fn articles_mean_what_they_say_and_their_mistakes_are_found() {
    let Some(dir) = std::env::var_os("SLUICE_SEEDS") else {
        eprintln!("not read: set SLUICE_SEEDS to a directory of the articles");
        return;
    };
    let texts = read(dir.as_ref()).unwrap();
    for article in &ARTICLES {
        let mut with_title = texts.iter().filter(|(_, text)| text.lines().any(|line| line.trim() == article.title));
        let (_, text) = with_title.next().unwrap_or_else(|| panic!("{}: not among the articles", article.title));
        let found = blocks(text);
        check_blocks(article, &found);
        check_warnings(article, &found);
        check_walk(article, &found);
    }
}
