//! Puts the indentation back into a NetworkPolicy that lost all of it on its way through a web page.
//!
//! The fields of a NetworkPolicy say by their names where they belong, so that the flat text has one sensible reading:
//! each line goes to the innermost open map or list that takes it. The result is only ever shown as a hint, and only if
//! it loads without an error.

/// What may stand in a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Scalar,
    /// Any key with a scalar value: labels.
    Free,
    Map(&'static [(&'static str, Shape)]),
    List(&'static Shape),
}

use Shape::{Free, List, Map, Scalar};

const EXPRESSION: Shape = Map(&[("key", Scalar), ("operator", Scalar), ("values", List(&Scalar))]);
const SELECTOR: Shape = Map(&[("matchLabels", Free), ("matchExpressions", List(&EXPRESSION))]);
const BLOCK: Shape = Map(&[("cidr", Scalar), ("except", List(&Scalar))]);
const PEER: Shape = Map(&[("podSelector", SELECTOR), ("namespaceSelector", SELECTOR), ("ipBlock", BLOCK)]);
const PORT: Shape = Map(&[("port", Scalar), ("endPort", Scalar), ("protocol", Scalar)]);
const INGRESS: Shape = Map(&[("from", List(&PEER)), ("ports", List(&PORT))]);
const EGRESS: Shape = Map(&[("to", List(&PEER)), ("ports", List(&PORT))]);
const METADATA: Shape = Map(&[("name", Scalar), ("namespace", Scalar), ("labels", Free), ("annotations", Free)]);
const SPEC: Shape =
    Map(&[("podSelector", SELECTOR), ("policyTypes", List(&Scalar)), ("ingress", List(&INGRESS)), ("egress", List(&EGRESS))]);
const POLICY: Shape = Map(&[("apiVersion", Scalar), ("kind", Scalar), ("metadata", METADATA), ("spec", SPEC)]);

/// A map or list that more lines may belong to. A list's items stand as far in as the key that holds it.
struct Open {
    shape: Shape,
    indent: usize,
    used: Vec<String>,
}

impl Open {
    /// The shape of a field that this map takes once.
    fn field(&self, key: &str) -> Option<Shape> {
        let Map(fields) = self.shape else { return None };
        let (_, shape) = fields.iter().find(|(name, _)| *name == key)?;
        (!self.used.iter().any(|used| used == key)).then_some(*shape)
    }
}

/// The same lines with their indentation, or `None` where they are no flat NetworkPolicy. Blank lines and comments of
/// their own are left out.
pub(super) fn reindent(lines: &[&str]) -> Option<String> {
    let mut open = vec![Open { shape: POLICY, indent: 0, used: Vec::new() }];
    let mut text = String::new();
    for line in lines.iter().map(|line| line.trim_end()).filter(|line| !line.is_empty() && !line.starts_with(['#', '%'])) {
        if line == "---" && text.is_empty() {
            continue;
        }
        let item = line.strip_prefix("- ").map(str::trim_start);
        let content = item.unwrap_or(line);
        let (depth, indent) = match item {
            Some(item) => list_for(&open, item)?,
            None => map_for(&open, key_of(content)?)?,
        };
        open.truncate(depth + 1);
        let dash = if item.is_some() { "- " } else { "" };
        text.push_str(&format!("{:indent$}{dash}{content}\n", ""));
        descend(&mut open, content, item.is_some())?;
    }
    Some(text)
}

/// Opens what the line begins: an item's map, and whatever its key holds.
fn descend(open: &mut Vec<Open>, content: &str, item: bool) -> Option<()> {
    let last = open.last()?;
    let (mut shape, mut indent) = (last.shape, last.indent);
    if let (true, List(of)) = (item, shape) {
        if *of == Scalar {
            return Some(());
        }
        (shape, indent) = (*of, indent + 2);
        open.push(Open { shape, indent, used: Vec::new() });
    }
    let key = key_of(content)?;
    let map = open.last_mut()?;
    let value = match shape {
        Free => Scalar,
        _ => map.field(key)?,
    };
    map.used.push(key.to_owned());
    let empty = content.split_once(':').is_some_and(|(_, rest)| rest.trim().is_empty() || rest.trim_start().starts_with('#'));
    match value {
        Scalar => {}
        _ if !empty => {}
        List(_) => open.push(Open { shape: value, indent, used: Vec::new() }),
        Free | Map(_) => open.push(Open { shape: value, indent: indent + 2, used: Vec::new() }),
    }
    Some(())
}

fn key_of(content: &str) -> Option<&str> {
    let (key, rest) = content.split_once(':')?;
    (rest.is_empty() || rest.starts_with(' ')).then(|| key.trim_end())
}

/// The innermost list that takes the item.
fn list_for(open: &[Open], item: &str) -> Option<(usize, usize)> {
    let takes = |shape: Shape| match (shape, key_of(item)) {
        (Scalar, None) => true,
        (Map(fields), Some(key)) => fields.iter().any(|(name, _)| *name == key),
        _ => false,
    };
    let found = open.iter().enumerate().rev().find(|(_, open)| matches!(open.shape, List(of) if takes(*of)))?;
    Some((found.0, found.1.indent))
}

/// The innermost map that has such a field; labels take what nobody else does.
fn map_for(open: &[Open], key: &str) -> Option<(usize, usize)> {
    let maps = || open.iter().enumerate().rev();
    let found = maps().find(|(_, open)| open.field(key).is_some()).or_else(|| maps().next().filter(|(_, open)| open.shape == Free))?;
    Some((found.0, found.1.indent))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(text: &str) -> String {
        text.lines().map(|line| format!("{}\n", line.trim_start())).collect()
    }

    #[test]
    fn what_was_flattened_is_as_before() {
        for text in [
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: a\n  labels:\n    x: y\n  namespace: b\nspec:\n  \
             podSelector: {}\n  policyTypes:\n  - Ingress\n  - Egress\n  egress:\n  - to:\n    ports:\n    - port: 53\n      protocol: TCP\n    \
             - port : 53\n      protocol: UDP\n",
            "kind: NetworkPolicy\nspec:\n  podSelector:\n    matchLabels:\n      run: a # why\n      tier: b\n  ingress:\n  - from:\n    - \
             podSelector:\n        matchLabels:\n          run: b\n      namespaceSelector: {}\n    - ipBlock:\n        cidr: 10.0.0.0/8\n        \
             except:\n        - 10.1.0.0/16\n    ports:\n    - port: 80\n      endPort: 90\n  - from:\n    - podSelector:\n        \
             matchExpressions:\n        - key: a\n          operator: In\n          values:\n          - b\n  policyTypes:\n  - Ingress\n",
        ] {
            let flat = flat(text);
            assert_eq!(reindent(&flat.lines().collect::<Vec<_>>()).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_is_no_flat_policy_is_left_alone() {
        for text in ["apiVersion: v1\nfoo: bar\n", "spec:\n- podSelector: {}\n", "just text\n", "spec:\npodSelector: {}\npodSelector: {}\n"]
        {
            assert_eq!(reindent(&text.lines().collect::<Vec<_>>()), None, "{text}");
        }
    }
}
