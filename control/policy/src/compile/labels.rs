//! Labels and selectors as numbers: texts are numbered by first use, equal selectors are one, and a selector is found by
//! the labels that it needs, so that those which cannot match are not asked.

use super::selector::{Requirement, Selector};
use ahash::RandomState;
use std::collections::HashMap;

/// Numbers of key and value.
pub(super) type Label = (u32, u32);

/// Texts by number of first use.
#[derive(Debug, Default)]
pub(super) struct Texts(HashMap<Box<str>, u32, RandomState>);

impl Texts {
    pub(super) fn number(&mut self, text: &str) -> u32 {
        if let Some(&number) = self.0.get(text) {
            return number;
        }
        let number = self.0.len() as u32;
        self.0.insert(text.into(), number);
        number
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[derive(Debug)]
enum Need {
    In(u32, Vec<u32>),
    NotIn(u32, Vec<u32>),
    Exists(u32),
    DoesNotExist(u32),
}

impl Need {
    fn of(requirement: &Requirement, texts: &mut Texts) -> Self {
        match requirement {
            Requirement::In(key, values) => Self::In(texts.number(key), values.iter().map(|value| texts.number(value)).collect()),
            Requirement::NotIn(key, values) => Self::NotIn(texts.number(key), values.iter().map(|value| texts.number(value)).collect()),
            Requirement::Exists(key) => Self::Exists(texts.number(key)),
            Requirement::DoesNotExist(key) => Self::DoesNotExist(texts.number(key)),
        }
    }

    fn holds(&self, labels: &[Label]) -> bool {
        let value = |key: u32| labels.iter().find(|label| label.0 == key).map(|label| label.1);
        match self {
            Self::In(key, values) => value(*key).is_some_and(|value| values.contains(&value)),
            Self::NotIn(key, values) => value(*key).is_none_or(|value| !values.contains(&value)),
            Self::Exists(key) => value(*key).is_some(),
            Self::DoesNotExist(key) => value(*key).is_none(),
        }
    }
}

/// Selectors by number of first use.
#[derive(Debug, Default)]
pub(super) struct Selectors {
    ids: HashMap<Selector, u32, RandomState>,
    needs: Vec<Vec<Need>>,
    /// Each selector is filed once: under the values of its first `In`, else the key of its first `Exists`, else here.
    by_label: HashMap<Label, Vec<u32>, RandomState>,
    by_key: HashMap<u32, Vec<u32>, RandomState>,
    others: Vec<u32>,
}

impl Selectors {
    pub(super) fn number(&mut self, selector: &Selector, texts: &mut Texts) -> u32 {
        if let Some(&id) = self.ids.get(selector) {
            return id;
        }
        let id = self.needs.len() as u32;
        let needs: Vec<Need> = selector.0.iter().map(|requirement| Need::of(requirement, texts)).collect();
        let values = needs.iter().find_map(|need| if let Need::In(key, values) = need { Some((*key, values)) } else { None });
        let key = needs.iter().find_map(|need| if let Need::Exists(key) = need { Some(*key) } else { None });
        match (values, key) {
            (Some((key, values)), _) => values.iter().for_each(|&value| self.by_label.entry((key, value)).or_default().push(id)),
            (None, Some(key)) => self.by_key.entry(key).or_default().push(id),
            (None, None) => self.others.push(id),
        }
        self.needs.push(needs);
        self.ids.insert(selector.clone(), id);
        id
    }

    pub(super) fn len(&self) -> usize {
        self.needs.len()
    }

    pub(super) fn matches(&self, selector: u32, labels: &[Label]) -> bool {
        self.needs[selector as usize].iter().all(|need| need.holds(labels))
    }

    /// Every selector that matches, each once, in no order.
    pub(super) fn matching(&self, labels: &[Label], found: &mut Vec<u32>) {
        found.clear();
        let filed = labels.iter().flat_map(|label| [self.by_label.get(label), self.by_key.get(&label.0)]).flatten();
        found.extend(filed.chain([&self.others]).flatten().copied().filter(|&id| self.matches(id, labels)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::selector::Labels;
    use super::*;

    #[test]
    fn they_match_what_the_requirements_say() {
        let set = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect();
        let key = |name: &str| name.to_owned();
        let requirements = [
            Requirement::In(key("a"), set(&["1", "2"])),
            Requirement::In(key("a"), set(&[])),
            Requirement::In(key("b"), set(&["", "1"])),
            Requirement::NotIn(key("a"), set(&["1"])),
            Requirement::NotIn(key("b"), set(&[])),
            Requirement::Exists(key("b")),
            Requirement::DoesNotExist(key("a")),
        ];
        let mut selectors = vec![Selector(Vec::new())];
        for one in &requirements {
            selectors.push(Selector(vec![one.clone()]));
            selectors.extend(requirements.iter().map(|other| Selector(vec![one.clone(), other.clone()])));
        }
        let (mut texts, mut numbered) = (Texts::default(), Selectors::default());
        let ids: Vec<u32> = selectors.iter().map(|selector| numbered.number(selector, &mut texts)).collect();
        let values = [None, Some(""), Some("1"), Some("2"), Some("3")];
        for (a, b) in values.iter().flat_map(|a| values.iter().map(move |b| (a, b))) {
            let pairs = [("a", a), ("b", b)].into_iter().filter_map(|(key, value)| Some((key.to_owned(), (*value)?.to_owned())));
            let labels: Labels = pairs.collect();
            let label_numbers: Vec<Label> = labels.iter().map(|(key, value)| (texts.number(key), texts.number(value))).collect();
            let mut found = Vec::new();
            numbered.matching(&label_numbers, &mut found);
            for (selector, id) in selectors.iter().zip(&ids) {
                let times = found.iter().filter(|found| *found == id).count();
                assert_eq!(times, usize::from(selector.matches(&labels)), "{selector:?} {labels:?}");
            }
        }
    }
}
