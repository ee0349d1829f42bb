//! A JSON object as it stands in its text: keys in order, values as slices of the text.

use super::error::Unchainable;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// The fields of one object.
#[derive(Debug)]
pub(super) struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Fields<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, Unchainable> {
        serde_json::from_str(text).map_err(|error| match error.is_data() {
            true => Unchainable::NoObject,
            false => Unchainable::NoJson(error.to_string()),
        })
    }

    /// A field's value.
    ///
    /// # Errors
    /// It stands there twice, and parsers disagree which one counts.
    pub(super) fn get(&self, key: &str) -> Result<Option<&'a RawValue>, Unchainable> {
        let mut values = self.0.iter().filter(|(name, _)| name == key).map(|(_, value)| *value);
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(Unchainable::Form(format!("{key} twice"))),
            (value, None) => Ok(value),
        }
    }

    /// A field that must be a string if it is there.
    pub(super) fn text(&self, key: &str) -> Result<Option<String>, Unchainable> {
        let text = self.get(key)?.map(|value| serde_json::from_str(value.get()));
        text.transpose().map_err(|_| Unchainable::Form(format!("{key} is no string")))
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}
