//! Request targets: percent-decoding and the parameters behind the question mark.

/// Decoded query parameters in the order of the request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decode(name), decode(value))
            })
            .collect();
        Self { pairs }
    }

    /// The first value of a parameter; an empty value counts as absent, as it does for the real server.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Whether a boolean parameter is set to true.
    pub(crate) fn is_true(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "1" | "True" | "TRUE" | "t" | "T"))
    }

    /// The pairs in an order that does not depend on the client.
    pub(crate) fn sorted(&self) -> Vec<(String, String)> {
        let mut pairs = self.pairs.clone();
        pairs.sort();
        pairs
    }
}

/// Splits a request target into its decoded path segments and its query.
pub(crate) fn split_target(target: &str) -> (Vec<String>, Query) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let segments = path.split('/').filter(|segment| !segment.is_empty()).map(decode_path).collect();
    (segments, Query::parse(query))
}

fn decode(text: &str) -> String {
    percent_decode(text, true)
}

fn decode_path(text: &str) -> String {
    percent_decode(text, false)
}

fn percent_decode(text: &str, plus_is_space: bool) -> String {
    let bytes = text.as_bytes();
    let hex = |at: usize| bytes.get(at).and_then(|byte| (*byte as char).to_digit(16));
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', ..) if plus_is_space => decoded.push(b' '),
            (byte, ..) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_decoded() {
        let (segments, query) = split_target("/api/v1/namespaces/a%2Db/pods?fieldSelector=spec.nodeName%3Dn1&watch=1&limit=&x=a+b%zz");
        assert_eq!(segments, ["api", "v1", "namespaces", "a-b", "pods"]);
        assert_eq!(query.get("fieldSelector"), Some("spec.nodeName=n1"));
        assert!(query.is_true("watch"));
        assert_eq!(query.get("limit"), None);
        assert_eq!(query.get("x"), Some("a b%zz"));
    }
}
