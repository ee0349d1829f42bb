//! JSON text → trees, with places. YAML's scanner reads most JSON, but not its escapes (`\/`, surrogate pairs) nor its
//! tabs; a file that is JSON is read as JSON.
//!
//! Several values may follow each other, as kubectl accepts them.

use super::node::{Body, DEPTH_MAX, Entry, Node, Place};
use super::scalar;
use super::yaml::SyntaxError;
use std::collections::HashSet;

/// All values of a file; `null` ones are left out.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, SyntaxError> {
    let mut reader = Reader { text, position: 0, line: 1, counted: 0, column: 1 };
    let mut documents = Vec::new();
    reader.skip_space();
    while reader.peek().is_some() {
        let node = reader.value(0)?;
        if !node.is_null() {
            documents.push(node);
        }
        reader.skip_space();
    }
    Ok(documents)
}

struct Reader<'t> {
    text: &'t str,
    position: usize,
    line: usize,
    /// Up to where `column` has counted this line's characters: a file may be one line of many megabytes.
    counted: usize,
    column: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.position).copied()
    }

    fn place(&mut self) -> Place {
        // Positions move in whole characters wherever a place is taken.
        self.column += self.text.get(self.counted..self.position).map_or(0, |before| before.chars().count());
        self.counted = self.position;
        Place::new(self.line, self.column)
    }

    fn error<T>(&mut self, message: &str) -> Result<T, SyntaxError> {
        Err(SyntaxError::new(self.place(), format!("not valid JSON: {message}")))
    }

    fn skip_space(&mut self) {
        while let Some(byte @ (b' ' | b'\t' | b'\r' | b'\n')) = self.peek() {
            self.position += 1;
            if byte == b'\n' {
                self.line += 1;
                (self.counted, self.column) = (self.position, 1);
            }
        }
    }

    /// Takes one byte if it is the next after space.
    fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.peek() == Some(byte);
        self.position += usize::from(found);
        found
    }

    fn value(&mut self, depth: usize) -> Result<Node, SyntaxError> {
        self.skip_space();
        let at = self.place();
        if depth > DEPTH_MAX {
            return Err(SyntaxError::new(at, format!("more than {DEPTH_MAX} levels of lists and maps")));
        }
        let body = match self.peek() {
            Some(b'{') => self.map(depth)?,
            Some(b'[') => self.list(depth)?,
            Some(b'"') => Body::Text(self.string()?),
            Some(_) => self.word()?,
            None => return self.error("the file ends in the middle of a value"),
        };
        Ok(Node { at, body })
    }

    fn map(&mut self, depth: usize) -> Result<Body, SyntaxError> {
        let (mut entries, mut seen) = (Vec::new(), HashSet::new());
        self.take(b'{');
        if self.take(b'}') {
            return Ok(Body::Map(entries));
        }
        loop {
            self.skip_space();
            let at = self.place();
            if self.peek() != Some(b'"') {
                return self.error("expected a key in double quotes");
            }
            let key = self.string()?;
            if !seen.insert(key.clone()) {
                return Err(SyntaxError::new(at, format!("the key {key:?} stands twice in the same map")));
            }
            if !self.take(b':') {
                return self.error("expected `:` after the key");
            }
            let value = self.value(depth + 1)?;
            entries.push(Entry { key, at, value });
            if self.take(b'}') {
                return Ok(Body::Map(entries));
            }
            if !self.take(b',') {
                return self.error("expected `,` or `}`");
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Body, SyntaxError> {
        let mut items = Vec::new();
        self.take(b'[');
        if self.take(b']') {
            return Ok(Body::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.take(b']') {
                return Ok(Body::List(items));
            }
            if !self.take(b',') {
                return self.error("expected `,` or `]`");
            }
        }
    }

    /// Finds the closing quote and leaves the escapes to serde_json.
    fn string(&mut self) -> Result<String, SyntaxError> {
        let bytes = self.text.as_bytes();
        let mut end = self.position + 1;
        while let Some(&byte) = bytes.get(end) {
            match byte {
                b'"' => {
                    let Ok(text) = serde_json::from_str(&self.text[self.position..=end]) else {
                        return self.error("a string with a bad escape or a control character");
                    };
                    self.position = end + 1;
                    return Ok(text);
                }
                b'\\' => end += 2,
                b'\n' => break,
                _ => end += 1,
            }
        }
        self.error("a string without its closing quote")
    }

    fn word(&mut self) -> Result<Body, SyntaxError> {
        let rest = &self.text[self.position..];
        let length = rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))).unwrap_or(rest.len());
        let body = match &rest[..length] {
            "null" => Body::Null,
            "true" => Body::Bool(true),
            "false" => Body::Bool(false),
            // serde_json decides what a JSON number is; the shared reading makes `80.0` the integer it is.
            word => match serde_json::from_str::<serde_json::Number>(word) {
                Ok(number) => Body::Number(scalar::number(word).unwrap_or(number)),
                Err(_) => return self.error("expected a value"),
            },
        };
        self.position += length;
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::node::Path;
    use serde_json::json;

    #[test]
    fn values_agree_with_serde_json() {
        for text in [r#"{"a": [1, -2, 1.5, true, false, "x\/\ud83d\ude00", {}, []], "é": {"b": ""}}"#, "[]", "\t{\r\n\t\"a\"\t:\t0}"] {
            let expected: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(parse(text).unwrap()[0].to_value(), expected, "{text}");
        }
        assert_eq!(parse("{} null [1]").unwrap().len(), 2, "values may follow each other");
        assert_eq!(parse(r#"{"port": 80.0}"#).unwrap()[0].to_value(), json!({"port": 80}));
    }

    #[test]
    fn broken_json_is_refused_with_its_place() {
        for (text, line, column, part) in [
            ("{\n  \"a\": 1,\n  \"a\": 2}", 3, 3, "twice"),
            ("{\"a\": }", 1, 7, "expected a value"),
            ("{\"a\": 1", 1, 8, "`,` or `}`"),
            ("[1 2]", 1, 4, "`,` or `]`"),
            ("{a: 1}", 1, 2, "double quotes"),
            ("[\"x", 1, 2, "closing quote"),
            ("[\"\\x\"]", 1, 2, "escape"),
            ("[01]", 1, 2, "expected a value"),
            ("[é]", 1, 2, "expected a value"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.at == Place { line, column } && error.message.contains(part), "{text} -> {error:?}");
        }
        assert!(parse(&"[".repeat(100_000)).expect_err("deep").message.contains("levels"));
    }

    #[test]
    fn places_count_characters() {
        let node = parse("{\"é\": 1,\n  \"b\": {\"c\": \"x\"}}").unwrap().remove(0);
        assert_eq!(node.locate(&Path::of("b.c")), Place { line: 2, column: 14 });
        assert_eq!(node.locate(&Path::of("é")), Place { line: 1, column: 7 });
    }

    /// Counted anew for each value, the columns of this line would take a thousand times as long as all the rest.
    #[test]
    fn a_file_of_one_long_line_is_read_in_one_pass() {
        const VALUES: usize = 1_000_000;
        let node = parse(&format!("[{}1]", "1,".repeat(VALUES - 1))).unwrap().remove(0);
        let last = Path::root().index(VALUES - 1);
        assert_eq!(node.locate(&last), Place { line: 1, column: 2 * VALUES as u32 });
    }
}
