//! Labels and label selectors.
//!
//! Source: k8s.io/apimachinery `pkg/apis/meta/v1/validation/validation.go`.

use super::super::error::Problems;
use super::super::hints;
use super::super::node::Path;
use super::syntax;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::BTreeMap;

const OPERATORS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];

/// Labels of an object, or the `matchLabels` of a selector.
pub(super) fn labels(labels: &BTreeMap<String, String>, path: &Path, problems: &mut Problems) {
    for (key, value) in labels {
        for why in syntax::qualified_name(key) {
            problems.invalid(path, key, &why).at(path.key(key)).on_key();
        }
        for why in syntax::label_value(value) {
            problems.invalid(path, value, &why).at(path.key(key));
        }
    }
}

/// A selector, wherever it stands.
pub(super) fn selector(selector: &LabelSelector, path: &Path, problems: &mut Problems) {
    if let Some(match_labels) = &selector.match_labels {
        labels(match_labels, &path.key("matchLabels"), problems);
    }
    for (index, requirement) in selector.match_expressions.iter().flatten().enumerate() {
        let path = path.key("matchExpressions").index(index);
        let values = requirement.values.as_deref().unwrap_or_default();
        match requirement.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                problems.required(&path.key("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                problems
                    .add(&path.key("values"), "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
                    .hint("remove `values`, or use In or NotIn");
            }
            operator if OPERATORS.contains(&operator) => {}
            operator => {
                let problem = problems.invalid(&path.key("operator"), operator, "not a valid selector operator");
                problem.hint(match hints::nearest(operator, &OPERATORS) {
                    Some(right) => format!("did you mean `{right}`?"),
                    None => format!("one of {}", OPERATORS.join(", ")),
                });
            }
        }
        for why in syntax::qualified_name(&requirement.key) {
            problems.invalid(&path.key("key"), &requirement.key, &why);
        }
        for (index, value) in values.iter().enumerate() {
            for why in syntax::label_value(value) {
                problems.invalid(&path.key("values").index(index), value, &why);
            }
        }
    }
}
