//! A file → its cases. A line at the margin is a directive, what is indented by two blanks below it is its body, `#` at the
//! margin begins a comment. The directives are described in tests/cases/README.md.

use super::flow::Flow;
use super::lines::{FrameLine, ImageLine};
use super::objects::{Object, PodLine, file_of, labels};
use sluice_flow::ObjectName;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// A file that cannot be used: that is no verdict on the product.
#[derive(Debug, thiserror::Error)]
#[error("{}:{line}: {problem}", file.display())]
pub struct CaseError {
    /// Which file.
    pub file: PathBuf,
    /// Which line, from 1.
    pub line: u32,
    /// What is wrong with it.
    pub problem: String,
}

/// One case: the steps of one story, from an empty node on.
#[derive(Debug, Clone)]
pub struct Case {
    /// Where it stands.
    pub file: PathBuf,
    /// Where it begins.
    pub line: u32,
    /// The promise, in a sentence.
    pub title: String,
    /// Which clauses it stands for, `row: clause`, with the line that says so.
    pub rows: Vec<(u32, String)>,
    /// Whether its flows are also sent in a real cluster.
    pub live: bool,
    pub(super) steps: Vec<Step>,
}

/// One directive.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) line: u32,
    pub(super) what: What,
}

#[derive(Debug, Clone)]
pub(super) enum What {
    /// An object is written, or replaced.
    Put(Object),
    /// The named file goes; a pod is detached with it.
    Delete(PathBuf),
    /// A pod's object goes while its sandbox is still there.
    Forget(ObjectName),
    /// A sandbox is attached whose object nobody has seen yet.
    Attach(ObjectName, Vec<IpAddr>),
    /// The addresses of this node.
    Node(Vec<IpAddr>),
    /// Connections that a swap forbids live on.
    Keep,
    /// No table is ever handed to the worker.
    NoTable,
    /// Both processes end and begin again; the node's hooks and their cache stay.
    Restart,
    /// So many connections have been cut by swaps so far.
    Cut(u64),
    /// Time passes.
    Wait {
        ms: u64,
    },
    Flows(Vec<Flow>),
    Frames(Vec<FrameLine>),
    /// The loader refuses this file, in these words.
    Refused(PathBuf, Vec<(u32, String)>),
    /// What the API server would have stored.
    Stored(ObjectName, Vec<(u32, String)>),
    /// What becomes of a damaged image of this table.
    Images(Vec<ImageLine>),
}

struct Block<'t> {
    line: u32,
    head: &'t str,
    body: Vec<(u32, &'t str)>,
}

/// Reads the cases of one file. `use NAME` reads the directives of `clusters`/NAME.
pub(super) fn read(file: &Path, text: &str, clusters: &Path) -> Result<Vec<Case>, CaseError> {
    let mut cases: Vec<Case> = Vec::new();
    for block in blocks(text).map_err(|line| error(file, line, "an indented line without a directive above it"))? {
        let fail = |problem: String| error(file, block.line, &problem);
        let (word, rest) = split(block.head);
        if word == "case" {
            let title = rest.to_owned();
            cases.push(Case { file: file.to_owned(), line: block.line, title, rows: Vec::new(), live: false, steps: Vec::new() });
            continue;
        }
        let case = cases.last_mut().ok_or_else(|| fail("the first directive is `case`".to_owned()))?;
        match word {
            "row" => case.rows.push((block.line, rest.to_owned())),
            "live" => case.live = true,
            // a failing step is told where the case asked for it
            "use" => {
                let steps = included(&clusters.join(rest)).map_err(|why| fail(why.to_string()))?;
                case.steps.extend(steps.into_iter().map(|step| Step { line: block.line, ..step }));
            }
            _ => case.steps.push(Step { line: block.line, what: step(&block).map_err(|(line, why)| error(file, line, &why))? }),
        }
    }
    for case in &cases {
        let judges = |step: &Step| !matches!(step.what, What::Put(_) | What::Node(_) | What::Wait { .. });
        if !case.steps.iter().any(judges) || case.rows.is_empty() || case.title.is_empty() {
            return Err(error(file, case.line, "a case has a title, a row and at least one expectation"));
        }
    }
    Ok(cases)
}

fn error(file: &Path, line: u32, problem: &str) -> CaseError {
    CaseError { file: file.to_owned(), line, problem: problem.to_owned() }
}

fn included(file: &Path) -> Result<Vec<Step>, CaseError> {
    let text = std::fs::read_to_string(file).map_err(|why| error(file, 0, &format!("cannot be read: {why}")))?;
    let blocks = blocks(&text).map_err(|line| error(file, line, "an indented line without a directive above it"))?;
    let step = |block: &Block<'_>| {
        let what = step(block).map_err(|(line, why)| error(file, line, &why))?;
        Ok(Step { line: block.line, what })
    };
    blocks.iter().map(step).collect()
}

fn blocks(text: &str) -> Result<Vec<Block<'_>>, u32> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    for (index, text) in text.lines().enumerate() {
        let line = index as u32 + 1;
        if let Some(body) = text.strip_prefix("  ") {
            blocks.last_mut().ok_or(line)?.body.push((line, body));
        } else if text.trim().is_empty() {
            // an empty line inside a body belongs to it
            if let Some(block) = blocks.last_mut().filter(|block| !block.body.is_empty()) {
                block.body.push((line, ""));
            }
        } else if !text.starts_with('#') {
            blocks.push(Block { line, head: text.trim_end(), body: Vec::new() });
        }
    }
    for block in &mut blocks {
        while block.body.last().is_some_and(|(_, text)| text.is_empty()) {
            block.body.pop();
        }
    }
    Ok(blocks)
}

fn split(text: &str) -> (&str, &str) {
    text.split_once(' ').map_or((text, ""), |(word, rest)| (word, rest.trim()))
}

fn step(block: &Block<'_>) -> Result<What, (u32, String)> {
    let (word, rest) = split(block.head);
    let here = |why: String| (block.line, why);
    let words: Vec<&str> = rest.split_whitespace().collect();
    Ok(match word {
        "namespace" => {
            let (name, rest) = words.split_first().ok_or_else(|| here("namespace NAME [KEY=VALUE ...]".to_owned()))?;
            What::Put(Object::Namespace { name: (*name).to_owned(), labels: labels(rest).map_err(here)? })
        }
        "pod" => {
            let (name, rest) = words.split_first().ok_or_else(|| here("pod NAMESPACE/NAME ...".to_owned()))?;
            What::Put(Object::Pod(Box::new(PodLine::read(&object(name).map_err(here)?, rest).map_err(here)?)))
        }
        "service" => {
            let [name, address, port] = words.as_slice() else { return Err(here("service NAMESPACE/NAME ADDRESS PORT".to_owned())) };
            let (Ok(address), Ok(port)) = (address.parse(), port.parse()) else { return Err(here(format!("{address} {port}?"))) };
            What::Put(Object::Service { name: object(name).map_err(here)?, address, port })
        }
        "policy" => What::Put(Object::Policy { name: object(rest).map_err(here)?, spec: body_text(block).map_err(here)? }),
        "manifest" => What::Put(Object::Manifest { file: rest.to_owned(), text: body_text(block).map_err(here)? }),
        "delete" => What::Delete(file(rest).map_err(here)?),
        "forget" => What::Forget(object(rest).map_err(here)?),
        "attach" => {
            let (name, rest) = words.split_first().ok_or_else(|| here("attach NAMESPACE/NAME ADDRESS ...".to_owned()))?;
            What::Attach(object(name).map_err(here)?, addresses(rest).map_err(here)?)
        }
        "node" => What::Node(addresses(&words).map_err(here)?),
        "established" if rest == "keep" => What::Keep,
        "no-table" => What::NoTable,
        "restart" => What::Restart,
        "cut" => What::Cut(rest.parse().map_err(|_| here(format!("{rest:?} is no number of connections")))?),
        "wait" => What::Wait { ms: milliseconds(rest).map_err(here)? },
        "flows" => What::Flows(lines(block, Flow::read)?),
        "frames" => What::Frames(lines(block, FrameLine::read)?),
        "refused" => What::Refused(file(rest).map_err(here)?, wanted(block).map_err(here)?),
        "stored" => What::Stored(object(rest).map_err(here)?, wanted(block).map_err(here)?),
        "images" => What::Images(lines(block, ImageLine::read)?),
        _ => return Err(here(format!("there is no directive {word:?}"))),
    })
}

fn lines<T>(block: &Block<'_>, read: impl Fn(u32, &str) -> Result<T, String>) -> Result<Vec<T>, (u32, String)> {
    let told = block.body.iter().map(|(line, text)| (*line, text.split("  #").next().unwrap_or_default().trim_end()));
    let told = told.filter(|(_, text)| !text.is_empty() && !text.starts_with('#'));
    let all: Vec<T> = told.map(|(line, text)| read(line, text).map_err(|why| (line, why))).collect::<Result<_, _>>()?;
    if all.is_empty() { Err((block.line, "it expects nothing".to_owned())) } else { Ok(all) }
}

fn wanted(block: &Block<'_>) -> Result<Vec<(u32, String)>, String> {
    let wanted: Vec<_> = block
        .body
        .iter()
        .map(|(line, text)| (*line, (*text).to_owned()))
        .filter(|(_, text)| !text.is_empty() && !text.starts_with('#'))
        .collect();
    if wanted.is_empty() { Err("it expects nothing".to_owned()) } else { Ok(wanted) }
}

/// The body as it stands, but for `%repeat N LINE`, which stands for N lines with `{i}` counting from 0 and `{address}` an
/// address of 100.64.0.0/10 that is nobody's.
fn body_text(block: &Block<'_>) -> Result<String, String> {
    let mut text = String::new();
    for (_, line) in &block.body {
        let Some((indent, rest)) = line.split_once("%repeat ") else {
            text.extend([line, "\n"]);
            continue;
        };
        let (count, line) = rest.split_once(' ').ok_or("%repeat N LINE")?;
        for i in 0..count.parse::<u32>().map_err(|why| format!("%repeat {count}: {why}"))? {
            let address = std::net::Ipv4Addr::from(0x6440_0000 + i);
            let line = line.replace("{i}", &i.to_string()).replace("{address}", &address.to_string());
            text.extend([indent, &line, "\n"]);
        }
    }
    Ok(text)
}

/// `policy x/p`, `pod x/web`, `namespace y`, `service x/api`, `manifest web.yaml`.
fn file(text: &str) -> Result<PathBuf, String> {
    match split(text) {
        ("manifest", name) => Ok(name.into()),
        (kind @ ("policy" | "pod" | "service"), name) => Ok(file_of(kind, &object(name)?.to_string())),
        ("namespace", name) => Ok(file_of("namespace", name)),
        _ => Err(format!("{text:?}: which object? such as `policy x/p`")),
    }
}

pub(super) fn object(text: &str) -> Result<ObjectName, String> {
    if text.contains('/') { Ok(ObjectName::parse(text)) } else { Err(format!("{text:?} is not NAMESPACE/NAME")) }
}

fn addresses(words: &[&str]) -> Result<Vec<IpAddr>, String> {
    words.iter().map(|word| word.parse().map_err(|_| format!("{word:?} is no address"))).collect()
}

fn milliseconds(text: &str) -> Result<u64, String> {
    let number = |text: &str, factor: u64| text.parse().ok().map(|n: u64| n * factor);
    let ms = match text.strip_suffix("ms") {
        Some(ms) => number(ms, 1),
        None => text.strip_suffix('s').and_then(|s| number(s, 1000)),
    };
    ms.ok_or_else(|| format!("{text:?} is no time such as 31s or 200ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        read(Path::new("f.case"), text, Path::new("nowhere")).unwrap_err().to_string()
    }

    #[test]
    fn a_case_is_read_with_its_lines() {
        let text = "# a comment\ncase One\nrow Isolation: it\nlive\npod x/web 10.0.0.1 app=web http:80/TCP\n\npolicy x/p\n  podSelector: {}\n\n  ingress:\n\
                    \x20 %repeat 2 - {i} {address}\nflows\n  x/web -> 192.0.2.1 80/TCP: allow  # why\n";
        let cases = read(Path::new("f.case"), text, Path::new("nowhere")).unwrap();
        assert_eq!((cases.len(), cases[0].line, cases[0].live), (1, 2, true));
        assert_eq!(cases[0].rows, [(3, "Isolation: it".to_owned())]);
        let What::Put(Object::Policy { spec, .. }) = &cases[0].steps[1].what else { panic!("{:?}", cases[0].steps[1]) };
        assert_eq!(spec, "podSelector: {}\n\ningress:\n- 0 100.64.0.0\n- 1 100.64.0.1\n");
        let What::Flows(flows) = &cases[0].steps[2].what else { panic!("{:?}", cases[0].steps[2]) };
        assert_eq!(flows[0].line, 13);
    }

    #[test]
    fn a_file_that_cannot_be_used_says_where_and_why() {
        for (text, why) in [
            ("flows\n", "f.case:1: the first directive is `case`"),
            ("  flows\n", "f.case:1: an indented line"),
            ("case One\nrow a\npods\n", "f.case:3: there is no directive \"pods\""),
            ("case One\nrow a\n", "f.case:1: a case has a title, a row and at least one expectation"),
            ("case One\nflows\n  x/a -> x/b 1/TCP: allow\n", "f.case:1: a case has a title, a row"),
            ("case One\nrow a\nflows\n", "f.case:3: it expects nothing"),
            ("case One\nrow a\nflows\n  x/a\n", "f.case:4: expected SRC -> DST WHAT: VERDICT"),
            ("case One\nrow a\npod x/a web\n", "no address, no label, no mark"),
            ("case One\nrow a\npod x/a @web\n", "unknown mark"),
            ("case One\nrow a\nframes\n  x/a leaves | udp(1,2) | drop what\n", "\"what\" is no drop reason"),
            ("case One\nrow a\nframes\n  x/a leaves | 9 x udp(1,2) | 8 pass\n", "does not account for 9 frames"),
            ("case One\nrow a\nuse small\n", "small:0: cannot be read"),
            ("case One\nrow a\nwait 5\n", "no time such as 31s"),
        ] {
            let problem = problem(text);
            assert!(problem.contains(why), "{text}{problem}");
        }
    }
}
