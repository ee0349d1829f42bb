//! Label selectors as the compiler sees them: a list of requirements.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::{BTreeMap, BTreeSet};

pub(super) type Labels = BTreeMap<String, String>;

/// One requirement on a label key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Requirement {
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Exists(String),
    DoesNotExist(String),
}

/// A label selector; no requirement selects everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Selector(pub(super) Vec<Requirement>);

impl Selector {
    /// # Errors
    /// The operator that nobody knows.
    pub(super) fn of(selector: &LabelSelector) -> Result<Self, String> {
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement::In(key.clone(), BTreeSet::from([value.clone()])));
        }
        for expression in selector.match_expressions.iter().flatten() {
            let key = expression.key.clone();
            let values: BTreeSet<String> = expression.values.iter().flatten().cloned().collect();
            requirements.push(match expression.operator.as_str() {
                "In" => Requirement::In(key, values),
                "NotIn" => Requirement::NotIn(key, values),
                "Exists" => Requirement::Exists(key),
                "DoesNotExist" => Requirement::DoesNotExist(key),
                other => return Err(format!("unknown operator {other:?}")),
            });
        }
        Ok(Self(requirements))
    }

    /// Whether [`Self::of`] would refuse it.
    pub(super) fn check(selector: &LabelSelector) -> Result<(), String> {
        let mut operators = selector.match_expressions.iter().flatten().map(|expression| expression.operator.as_str());
        match operators.find(|operator| !matches!(*operator, "In" | "NotIn" | "Exists" | "DoesNotExist")) {
            Some(other) => Err(format!("unknown operator {other:?}")),
            None => Ok(()),
        }
    }

    pub(super) fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::DoesNotExist(key) => !labels.contains_key(key),
        })
    }
}
