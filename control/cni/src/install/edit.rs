//! A network configuration as text: the plugin's entry is put in and taken out, and every other byte stays where it is.
//!
//! The text is never written anew from parsed values. Parsing finds where the plugins stand; an edit cuts or fills there. So
//! numbers keep their digits, and taking out what was put in gives the very same bytes.

use super::error::Unchainable;
use super::fields::Fields;
use crate::config::SUPPORTED_VERSIONS;
use serde_json::Value;
use serde_json::value::RawValue;
use std::ops::Range;

/// The plugin's `type`, and the file name of its program.
pub(crate) const PLUGIN: &str = "sluice-cni";

/// A list of plugins (`.conflist`), and where each stands.
#[derive(Debug)]
pub(super) struct List<'a> {
    text: &'a str,
    versions: Vec<String>,
    /// The network's name.
    pub(super) name: String,
    plugins: Vec<Plugin>,
    /// False lets a runtime append the plugins of a directory named after the network (CNI 1.1).
    pub(super) only_inlined: bool,
}

#[derive(Debug)]
struct Plugin {
    kind: String,
    place: Range<usize>,
}

/// What an edit did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Edit {
    /// The entry stands there as it should.
    Unchanged,
    /// The new text.
    Changed(String),
}

impl<'a> List<'a> {
    /// Finds the plugins.
    ///
    /// # Errors
    /// No JSON, or not of the form that the CNI specification gives to a list.
    pub(super) fn parse(text: &'a str) -> Result<Self, Unchainable> {
        let fields = Fields::parse(text)?;
        let plugins = fields.get("plugins")?.ok_or(Unchainable::NoPlugins)?;
        let elements: Vec<&RawValue> = serde_json::from_str(plugins.get()).map_err(|_| Unchainable::NoPlugins)?;
        let plugins = elements.into_iter().map(|element| {
            let kind = Fields::parse(element.get())?.text("type")?.ok_or(Unchainable::NoType)?;
            let start = element.get().as_ptr() as usize - text.as_ptr() as usize;
            Ok(Plugin { kind, place: start..start + element.get().len() })
        });
        Ok(Self {
            text,
            versions: versions(&fields)?,
            name: fields.text("name")?.unwrap_or_default(),
            plugins: plugins.collect::<Result<_, Unchainable>>()?,
            only_inlined: fields.get("loadOnlyInlinedPlugins")?.is_some_and(|value| value.get() == "true"),
        })
    }

    /// The types of the plugins, in order.
    pub(super) fn kinds(&self) -> impl Iterator<Item = &str> {
        self.plugins.iter().map(|plugin| plugin.kind.as_str())
    }

    /// Whether the entry is in it.
    pub(super) fn has_entry(&self) -> bool {
        self.kinds().any(|kind| kind == PLUGIN)
    }

    /// The other plugin's text, if there is exactly one before the entry and nothing else: the form of [`wrapped`].
    pub(super) fn wraps(&self) -> Option<&'a str> {
        match self.plugins.as_slice() {
            [other, own] if own.kind == PLUGIN && other.kind != PLUGIN => Some(&self.text[other.place.clone()]),
            _ => None,
        }
    }

    /// Puts the entry behind the last plugin, or makes the one that is there equal to it.
    ///
    /// # Errors
    /// The runtime would call the plugin with what it cannot serve.
    pub(super) fn with_entry(&self, entry: &Value) -> Result<Edit, Unchainable> {
        check_versions(&self.versions)?;
        if self.name.is_empty() {
            return Err(Unchainable::NoName);
        }
        let ours: Vec<&Plugin> = self.plugins.iter().filter(|plugin| plugin.kind == PLUGIN).collect();
        if ours.len() == self.plugins.len() {
            return Err(Unchainable::NoPlugins);
        }
        match ours.as_slice() {
            // the first plugin gets no prevResult: it is put where it belongs
            [own] if self.plugins[0].kind != PLUGIN => {
                let same = serde_json::from_str::<Value>(&self.text[own.place.clone()]).is_ok_and(|value| value == *entry);
                Ok(if same { Edit::Unchanged } else { Edit::Changed(self.replaced(own.place.clone(), &entry.to_string())) })
            }
            [] => Ok(Edit::Changed(self.appended(entry))),
            _ => Ok(Edit::Changed(List::parse(&without_entry(self.text)?)?.appended(entry))),
        }
    }

    /// Behind the last plugin, on a line of its own where the last one has one.
    fn appended(&self, entry: &Value) -> String {
        let last = &self.plugins.last().expect("checked: there is a plugin").place;
        let before = &self.text[..last.start];
        let gap = &before[before.trim_end_matches([' ', '\t', '\r', '\n']).len()..];
        self.replaced(last.end..last.end, &format!(",{gap}{entry}"))
    }

    fn replaced(&self, place: Range<usize>, with: &str) -> String {
        [&self.text[..place.start], with, &self.text[place.end..]].concat()
    }
}

/// A list's text without the entry, wherever and how often it stands.
///
/// # Errors
/// As [`List::parse`].
pub(super) fn without_entry(text: &str) -> Result<String, Unchainable> {
    let mut text = text.to_owned();
    loop {
        let list = List::parse(&text)?;
        let Some(index) = list.kinds().position(|kind| kind == PLUGIN) else { return Ok(text) };
        let own = list.plugins[index].place.clone();
        let cut = match (index.checked_sub(1), list.plugins.get(index + 1)) {
            (Some(previous), _) => list.plugins[previous].place.end..own.end,
            (None, Some(next)) => own.start..next.place.start,
            (None, None) => own,
        };
        text = list.replaced(cut, "");
    }
}

/// A single plugin's configuration (`.conf`, `.json`) as a list with the entry behind it, as libcni makes a list of one: the
/// plugin keeps all its fields, name and version are said once more for the list.
///
/// # Errors
/// As [`List::with_entry`].
pub(super) fn wrapped(text: &str, entry: &Value) -> Result<String, Unchainable> {
    let fields = Fields::parse(text)?;
    if fields.text("type")?.is_none_or(|kind| kind.is_empty()) {
        return Err(if fields.get("plugins")?.is_some() { Unchainable::ListInConf } else { Unchainable::NoType });
    }
    check_versions(&versions(&fields)?)?;
    let name = fields.get("name")?.filter(|_| fields.text("name").is_ok_and(|name| name.is_some_and(|name| !name.is_empty())));
    let (name, version) = (name.ok_or(Unchainable::NoName)?, fields.get("cniVersion")?.ok_or(Unchainable::NoName)?);
    Ok(format!("{{\n  \"cniVersion\": {version},\n  \"name\": {name},\n  \"plugins\": [\n    {},\n    {entry}\n  ]\n}}\n", text.trim()))
}

/// The versions by which a runtime may call: `cniVersion`, and `cniVersions` since CNI 1.1.
fn versions(fields: &Fields<'_>) -> Result<Vec<String>, Unchainable> {
    let several = fields.get("cniVersions")?.map(|value| serde_json::from_str::<Vec<String>>(value.get()));
    let several = several.transpose().map_err(|_| Unchainable::Form("cniVersions is no list of strings".to_owned()))?;
    Ok(fields.text("cniVersion")?.into_iter().chain(several.unwrap_or_default()).collect())
}

fn check_versions(versions: &[String]) -> Result<(), Unchainable> {
    if versions.iter().any(|version| SUPPORTED_VERSIONS.contains(&version.as_str())) {
        return Ok(());
    }
    let found = if versions.is_empty() { "none, which means 0.1.0".to_owned() } else { versions.join(", ") };
    Err(Unchainable::Version { found, served: SUPPORTED_VERSIONS.join(", ") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const LIST: &str = r#"{
  "cniVersion": "1.0.0", "name": "net", "x": 1.10e400,
  "plugins": [
    {"type": "ptp", "ipam": {"type": "host-local"}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}"#;

    fn entry() -> Value {
        json!({"type": PLUGIN})
    }

    fn edited(text: &str, entry: &Value) -> Result<Edit, Unchainable> {
        List::parse(text)?.with_entry(entry)
    }

    #[test]
    fn the_entry_is_appended_in_the_list_s_own_style_and_no_other_byte_changes() {
        let Edit::Changed(text) = edited(LIST, &entry()).unwrap() else { panic!("unchanged") };
        let expected = LIST.replace("true}}\n", "true}},\n    {\"type\":\"sluice-cni\"}\n");
        assert_eq!(text, expected);
        assert_eq!(edited(&text, &entry()).unwrap(), Edit::Unchanged);
        assert_eq!(without_entry(&text).unwrap(), LIST);
        let compact = r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"ptp"}]}"#;
        let Edit::Changed(text) = edited(compact, &entry()).unwrap() else { panic!("unchanged") };
        assert_eq!(text, compact.replace("\"ptp\"}]", "\"ptp\"},{\"type\":\"sluice-cni\"}]"));
    }

    #[test]
    fn other_options_replace_the_entry_where_it_stands_and_a_misplaced_one_moves() {
        let with = |plugins: &str| format!(r#"{{"cniVersion":"1.1.0","name":"n","plugins":[{plugins}]}}"#);
        let ours = r#"{"type":"sluice-cni","deadlineMs":5}"#;
        for (before, after) in [
            (
                format!(r#"{{"type":"ptp"}}, {ours}, {{"type":"bandwidth"}}"#),
                r#"{"type":"ptp"}, {"type":"sluice-cni"}, {"type":"bandwidth"}"#,
            ),
            (format!(r#"{ours}, {{"type":"ptp"}}"#), r#"{"type":"ptp"},{"type":"sluice-cni"}"#),
            (format!(r#"{{"type":"ptp"}}, {ours}, {ours}"#), r#"{"type":"ptp"},{"type":"sluice-cni"}"#),
        ] {
            assert_eq!(edited(&with(&before), &entry()).unwrap(), Edit::Changed(with(after)), "{before}");
        }
        for (before, after) in [
            (format!(r#"{ours}, {{"type":"ptp"}}"#), r#"{"type":"ptp"}"#),
            (format!(r#"{{"type":"a"}}, {ours} , {{"type":"b"}} ,{ours}"#), r#"{"type":"a"} , {"type":"b"}"#),
            (ours.to_owned(), ""),
        ] {
            assert_eq!(without_entry(&with(&before)).unwrap(), with(after), "{before}");
        }
    }

    #[test]
    fn what_cannot_be_chained_is_refused_with_its_reason() {
        for (text, expected) in [
            ("", "no JSON"),
            ("[]", "no JSON object"),
            (r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"ptp"}"#, "no JSON"),
            (r#"{"cniVersion":"1.0.0","name":"n"}"#, "no plugins"),
            (r#"{"cniVersion":"1.0.0","name":"n","plugins":[]}"#, "no plugins"),
            (r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"sluice-cni"}]}"#, "no plugins"),
            (r#"{"cniVersion":"1.0.0","name":"n","plugins":{}}"#, "no plugins"),
            (r#"{"cniVersion":"1.0.0","name":"n","plugins":[{}]}"#, "no type"),
            (r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"ptp"}],"plugins":[]}"#, "plugins twice"),
            (r#"{"cniVersion":"1.0.0","plugins":[{"type":"ptp"}]}"#, "no name"),
            (r#"{"cniVersion":"0.2.0","name":"n","plugins":[{"type":"ptp"}]}"#, "cniVersion is 0.2.0"),
            (r#"{"cniVersion":"2.0.0","name":"n","plugins":[{"type":"ptp"}]}"#, "cniVersion is 2.0.0"),
            (r#"{"name":"n","plugins":[{"type":"ptp"}]}"#, "cniVersion is none, which means 0.1.0"),
            (r#"{"cniVersion":1,"name":"n","plugins":[{"type":"ptp"}]}"#, "cniVersion is no string"),
        ] {
            let error = edited(text, &entry()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        for (text, expected) in [
            (r#"{"cniVersion":"1.0.0","name":"n"}"#, "no type"),
            (r#"{"cniVersion":"1.0.0","name":"n","plugins":[]}"#, "list of plugins"),
            (r#"{"cniVersion":"1.0.0","type":"ptp"}"#, "no name"),
            (r#"{"cniVersion":"0.2.0","name":"n","type":"ptp"}"#, "cniVersion is 0.2.0"),
        ] {
            let error = wrapped(text, &entry()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(edited(r#"{"cniVersions":["0.1.0","1.1.0"],"name":"n","plugins":[{"type":"ptp"}]}"#, &entry()).is_ok());
    }

    #[test]
    fn a_single_plugin_becomes_the_list_that_libcni_would_make_of_it() {
        let conf = "{\"cniVersion\": \"1.0.0\", \"name\": \"n\", \"type\": \"ptp\", \"mtu\": 1400}\n";
        let list = wrapped(conf, &entry()).unwrap();
        let value: Value = serde_json::from_str(&list).unwrap();
        let plugin: Value = serde_json::from_str(conf).unwrap();
        assert_eq!(value, json!({"cniVersion": "1.0.0", "name": "n", "plugins": [plugin, {"type": PLUGIN}]}));
        assert_eq!(List::parse(&list).unwrap().wraps(), Some(conf.trim()));
        assert_eq!(edited(&list, &entry()).unwrap(), Edit::Unchanged);
    }

    /// JSON with any spacing; keys that matter here are left to the caller.
    fn value() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("-0.10E+400".to_owned()),
            Just("123456789012345678901234567890".to_owned()),
            any::<i64>().prop_map(|number| number.to_string()),
            any::<String>().prop_map(|text| json!(text).to_string()),
            Just(r#""\u0073luice-cni""#.to_owned()),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            let space = space();
            prop_oneof![
                (prop::collection::vec(inner.clone(), 0..4), space.clone())
                    .prop_map(|(items, space)| format!("[{space}{}{space}]", items.join(&format!("{space},{space}")))),
                (prop::collection::vec(inner, 0..4), space).prop_map(|(items, space)| {
                    let fields: Vec<_> = items.iter().enumerate().map(|(i, item)| format!("\"k{}\"{space}:{space}{item}", i % 3)).collect();
                    format!("{{{space}{}{space}}}", fields.join(","))
                }),
            ]
        })
    }

    fn space() -> impl Strategy<Value = String> + Clone {
        prop_oneof![Just(String::new()), Just(" ".to_owned()), Just("\n    ".to_owned()), Just("\r\n\t".to_owned())]
    }

    proptest! {
        #[test]
        fn what_was_put_in_comes_out_again_byte_for_byte(
            extra in value(), options in prop::collection::vec(value(), 1..5), gap in space(), around in space(), first in any::<bool>(),
        ) {
            let plugins: Vec<_> = options.iter().map(|o| format!("{{\"type\":\"p\",{gap}\"o\":{o}}}")).collect();
            let plugins = format!("\"plugins\"{gap}:{gap}[{gap}{}{around}]", plugins.join(&format!("{around},{gap}")));
            let rest = format!("\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"extra\":{extra}");
            let fields = if first { format!("{plugins},{rest}") } else { format!("{rest},{plugins}") };
            let text = format!("{around}{{{around}{fields}{gap}}}{around}");
            let Edit::Changed(with) = edited(&text, &entry()).unwrap() else { panic!("unchanged") };
            prop_assert_eq!(edited(&with, &entry()).unwrap(), Edit::Unchanged);
            let list = List::parse(&with).unwrap();
            prop_assert_eq!(list.kinds().last(), Some(PLUGIN));
            prop_assert_eq!(list.kinds().count(), options.len() + 1);
            prop_assert_eq!(without_entry(&with).unwrap(), text);
        }
    }
}
