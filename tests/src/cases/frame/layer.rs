//! Text → layers. What the words mean is the encoder's business.

use std::fmt::Display;
use std::str::FromStr;

/// One word with its arguments, `tcp(4000, 80, S)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cases) struct Layer {
    pub(super) name: String,
    /// In order, those without a `=`.
    positional: Vec<String>,
    /// `key=value`.
    named: Vec<(String, String)>,
}

/// Reads the layers of a frame.
pub(in crate::cases) fn read(text: &str) -> Result<Vec<Layer>, String> {
    let (mut layers, mut rest) = (Vec::new(), text.trim());
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '(' || c.is_whitespace()).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        if name.is_empty() {
            return Err(format!("{rest:?}: a layer begins with its name"));
        }
        let (arguments, after) = match after.strip_prefix('(') {
            Some(inner) => inner.split_once(')').ok_or_else(|| format!("{name}: the bracket is never closed"))?,
            None => ("", after),
        };
        layers.push(Layer::new(name, arguments));
        rest = after.trim_start();
    }
    Ok(layers)
}

impl Layer {
    fn new(name: &str, arguments: &str) -> Self {
        let mut layer = Self { name: name.to_owned(), positional: Vec::new(), named: Vec::new() };
        for argument in arguments.split(',').map(str::trim).filter(|argument| !argument.is_empty()) {
            match argument.split_once('=') {
                Some((key, value)) => layer.named.push((key.trim().to_owned(), value.trim().to_owned())),
                None => layer.positional.push(argument.to_owned()),
            }
        }
        layer
    }

    /// The argument at `index`, as text.
    pub(super) fn at(&self, index: usize) -> Option<&str> {
        self.positional.get(index).map(String::as_str)
    }

    /// A flag: a positional argument that is this word.
    pub(super) fn has(&self, word: &str) -> bool {
        self.positional.iter().any(|argument| argument == word)
    }

    /// `key=`, as text.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.named.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// `key=`, as a number, or what it should be.
    pub(super) fn number<T: FromStr<Err: Display> + TryFrom<u64>>(&self, key: &str, otherwise: T) -> Result<T, String> {
        match self.text(key) {
            Some(text) => number(text).map_err(|why| format!("{} {key}={text}: {why}", self.name)),
            None => Ok(otherwise),
        }
    }

    /// The number at `index`, which must be there.
    pub(super) fn required<T: FromStr<Err: Display> + TryFrom<u64>>(&self, index: usize, what: &str) -> Result<T, String> {
        let text = self.at(index).ok_or_else(|| format!("{} needs {what}", self.name))?;
        number(text).map_err(|why| format!("{} {text}: {why}", self.name))
    }

    /// Every `key=` must be one of these.
    pub(super) fn knows(&self, keys: &[&str]) -> Result<(), String> {
        match self.named.iter().find(|(name, _)| !keys.contains(&name.as_str())) {
            Some((name, _)) => Err(format!("{} has no argument {name}=", self.name)),
            None => Ok(()),
        }
    }

    /// This layer with every `{i}` replaced.
    pub(in crate::cases) fn numbered(&self, index: usize) -> Self {
        let fill = |text: &String| fill(text, index);
        let named = self.named.iter().map(|(key, value)| (key.clone(), fill(value)));
        Self { name: self.name.clone(), positional: self.positional.iter().map(fill).collect(), named: named.collect() }
    }
}

/// `{i}` is the index, `{i+1000}` the index and a thousand.
fn fill(text: &str, index: usize) -> String {
    let Some((before, rest)) = text.split_once("{i") else { return text.to_owned() };
    let Some((plus, after)) = rest.split_once('}') else { return text.to_owned() };
    let plus: usize = plus.trim_start_matches('+').parse().unwrap_or(0);
    format!("{before}{}{after}", index + plus)
}

fn number<T: FromStr<Err: Display> + TryFrom<u64>>(text: &str) -> Result<T, String> {
    match text.strip_prefix("0x") {
        Some(hex) => {
            let wide = u64::from_str_radix(hex, 16).map_err(|why| why.to_string())?;
            T::try_from(wide).map_err(|_| "too large".to_owned())
        }
        None => text.parse().map_err(|why: T::Err| why.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_have_places_names_and_flags() {
        let layers = read("ipv4(x/a, total=0x10) udp({i+1000},2)  cut(30)").unwrap();
        assert_eq!(layers.iter().map(|layer| layer.name.as_str()).collect::<Vec<_>>(), ["ipv4", "udp", "cut"]);
        assert_eq!(layers[0].at(0), Some("x/a"));
        assert_eq!(layers[0].number("total", 0u16), Ok(16));
        assert_eq!(layers[1].numbered(5).required::<u16>(0, "a port"), Ok(1005));
        assert!(layers[0].knows(&["length"]).unwrap_err().contains("no argument total="));
        assert!(read("ipv4(x/a").is_err() && read("(x)").is_err());
    }
}
