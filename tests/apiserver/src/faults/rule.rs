//! A rule: which requests it covers, and its fault.

use serde::{Deserialize, Serialize};

/// What a request does, in the words of RBAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// GET of a collection.
    List,
    /// GET of a collection with `watch=true`.
    Watch,
    /// GET of one object, of discovery or of a health endpoint.
    Get,
    /// POST.
    Create,
    /// PUT.
    Update,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
}

impl Verb {
    /// As error messages write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Watch => "watch",
            Self::Get => "get",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }
}

/// Something that goes wrong with a request. Events are counted from 1; bookmarks are no events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Answers with an HTTP status and the `Status` object that belongs to it.
    Status {
        /// The HTTP status.
        code: u16,
        /// `Retry-After`, where the status has one.
        #[serde(default)]
        retry_after_s: Option<u32>,
    },
    /// Takes the request and never answers.
    Hang,
    /// Closes the connection without an answer.
    Close,
    /// Answers this many milliseconds late.
    DelayMs(u64),
    /// Closes the connection after so many bytes of the response, head included.
    CloseAfterBytes(usize),
    /// Resets the connection after so many bytes of the response; 0 resets at once.
    ResetAfterBytes(usize),
    /// Sends so many bytes a second.
    Slow(u32),
    /// Cuts the body into chunks of so many bytes, so that objects span chunks.
    ChunkBytes(usize),
    /// Shifts the `Date` header by so many seconds.
    ClockSkewS(i64),
    /// Refuses `sendInitialEvents` as a server does whose `WatchList` feature is off.
    NoStreamingLists,
    /// Ends a watch with an ERROR event, 410 Expired, after so many events.
    ExpireAfter(u64),
    /// Ends a watch in order after so many events.
    EndAfter(u64),
    /// Closes the connection in the middle of this event of a watch.
    CutInEvent(u64),
    /// Sends this event of a watch twice.
    Duplicate(u64),
    /// Sends this event of a watch behind the next one, if that is another object's. No real server does so on one
    /// connection: a client that is cut off between the two and resumes from the version it saw last misses one.
    Swap(u64),
    /// Leaves out all bookmarks, the one at the end of the initial events included.
    DropBookmarks,
    /// Opens a watch and never sends an event or a bookmark.
    Silent,
}

/// A fault and the requests that it spoils.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Rule {
    /// Plural or `plural.group`; absent: every request.
    #[serde(default)]
    pub resource: Option<String>,
    /// Absent: every verb.
    #[serde(default)]
    pub verb: Option<Verb>,
    /// Only the n-th request that resource and verb cover, counted from 1.
    #[serde(default)]
    pub nth: Option<u64>,
    /// Only so many of them, from the first on.
    #[serde(default)]
    pub first: Option<u64>,
    /// Chance for each of them, 0 to 1; absent: always.
    #[serde(default)]
    pub probability: Option<f64>,
    /// What goes wrong.
    pub fault: Fault,
}

impl Rule {
    /// A fault for every request.
    pub fn new(fault: Fault) -> Self {
        Self { resource: None, verb: None, nth: None, first: None, probability: None, fault }
    }

    /// Only requests for this resource, by plural or `plural.group`.
    pub fn on(self, resource: &str) -> Self {
        Self { resource: Some(resource.to_owned()), ..self }
    }

    /// Only requests of this verb.
    pub fn verb(self, verb: Verb) -> Self {
        Self { verb: Some(verb), ..self }
    }

    /// Only the n-th of them, from 1.
    pub fn nth(self, nth: u64) -> Self {
        Self { nth: Some(nth), ..self }
    }

    /// Only the first `count` of them.
    pub fn first(self, count: u64) -> Self {
        Self { first: Some(count), ..self }
    }

    /// Only with this chance.
    pub fn probability(self, chance: f64) -> Self {
        Self { probability: Some(chance), ..self }
    }

    pub(super) fn covers(&self, resource: Option<(&str, &str)>, verb: Verb) -> bool {
        let named = |wanted: &String| resource.is_some_and(|(plural, qualified)| wanted == plural || wanted == qualified);
        self.resource.as_ref().is_none_or(named) && self.verb.is_none_or(|wanted| wanted == verb)
    }

    pub(super) fn is_due(&self, matched: u64) -> bool {
        self.nth.is_none_or(|nth| nth == matched) && self.first.is_none_or(|first| matched <= first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_from_yaml() {
        let text = "
- {resource: pods, verb: watch, nth: 2, fault: {end-after: 3}}
- fault: hang
- verb: list
  probability: 0.25
  fault: {status: {code: 429, retry_after_s: 2}}
";
        let rules: Vec<Rule> = serde_saphyr::from_str(text).unwrap();
        let expected = [
            Rule::new(Fault::EndAfter(3)).on("pods").verb(Verb::Watch).nth(2),
            Rule::new(Fault::Hang),
            Rule::new(Fault::Status { code: 429, retry_after_s: Some(2) }).verb(Verb::List).probability(0.25),
        ];
        assert_eq!(rules, expected);
        assert!(serde_saphyr::from_str::<Vec<Rule>>("- {fault: hang, pods: 1}").is_err());
    }
}
