//! The query parameters of lists and watches, and how the server refuses bad ones.
//!
//! Source: kube-apiserver, `ValidateListOptions`; the messages are the recorded ones.

use super::Call;
use crate::resource::ResourceId;
use crate::selector::Selector;
use crate::status::ApiError;
use crate::store::Object;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

/// Which objects of a resource a request is about.
pub(super) struct Scope {
    pub(super) namespace: Option<String>,
    pub(super) selector: Selector,
}

impl Scope {
    pub(super) fn selects(&self, object: &Object) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| object.namespace() == namespace) && self.selector.matches(object)
    }
}

/// Which version a list shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Version {
    /// The current one. `any` is `resourceVersion=0`: from the cache, where limits do not count.
    Current {
        any: bool,
    },
    /// The current one, if it is not older than this.
    NotOlderThan(u64),
    Exact(u64),
    Continue(Token),
}

/// Where a paged list goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Token {
    v: String,
    /// The version of the list, or -1 to go on with whatever is there now.
    pub(super) rv: i64,
    /// The first key that is not listed yet.
    pub(super) start: String,
}

impl Token {
    /// Goes on behind `last_key`.
    pub(super) fn behind(rv: i64, last_key: &str) -> Self {
        Self { v: "meta.k8s.io/v1".to_owned(), rv, start: format!("{last_key}\0") }
    }

    /// The same place in a list that is no longer consistent.
    pub(super) fn inconsistent(&self) -> Self {
        Self { rv: -1, ..self.clone() }
    }

    pub(super) fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("a token has only strings and a number"))
    }

    fn decode(text: &str) -> Result<Self, ApiError> {
        let invalid = |why: String| ApiError::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|error| invalid(error.to_string()))?;
        serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))
    }
}

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// With an ADDED event for every object.
    Everything,
    /// The same, not before this version is reached, and with a bookmark behind them.
    InitialEvents { not_before: u64 },
    /// With the changes from now on.
    Now,
    /// With the changes behind this version.
    After(u64),
}

impl Call<'_> {
    pub(super) fn scope(&self, resource: ResourceId, namespace: Option<&str>) -> Result<Scope, ApiError> {
        let selector = Selector::parse(self.spec(resource), self.query.get("labelSelector"), self.query.get("fieldSelector"))?;
        Ok(Scope { namespace: namespace.map(str::to_owned), selector })
    }

    pub(super) fn limit(&self) -> Result<Option<usize>, ApiError> {
        let parsed = self.query.get("limit").map(|text| text.parse::<usize>());
        let limit = parsed.transpose().map_err(|error| ApiError::bad_request(format!("invalid limit: {error}")))?;
        Ok(limit.filter(|limit| *limit > 0))
    }

    pub(super) fn list_version(&self) -> Result<Version, ApiError> {
        let (version, matching) = (self.query.get("resourceVersion"), self.query.get("resourceVersionMatch"));
        if self.query.get("sendInitialEvents").is_some() {
            return Err(ApiError::invalid_options("sendInitialEvents", "sendInitialEvents is forbidden for list"));
        }
        if matching.is_some() && version.is_none() {
            let message = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            return Err(ApiError::invalid_options("resourceVersionMatch", message));
        }
        if let Some(token) = self.query.get("continue") {
            if matching.is_some() {
                return Err(ApiError::invalid_options(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden when continue is provided",
                ));
            }
            if version.is_some_and(|version| version != "0") {
                return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
            }
            return Token::decode(token).map(Version::Continue);
        }
        let Some(text) = version else { return Ok(Version::Current { any: false }) };
        let version = text.parse::<u64>().map_err(|_| ApiError::list_version_not_a_number(text))?;
        match (matching, version) {
            (Some("Exact"), 0) => Err(ApiError::invalid_options(
                "resourceVersionMatch",
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            )),
            (Some("Exact"), version) => Ok(Version::Exact(version)),
            (None | Some("NotOlderThan"), 0) => Ok(Version::Current { any: true }),
            (Some("NotOlderThan"), version) => Ok(Version::NotOlderThan(version)),
            // Paged lists without a match read the named version, for clients from before resourceVersionMatch.
            (None, version) if self.limit()?.is_some() => Ok(Version::Exact(version)),
            (None, version) => Ok(Version::NotOlderThan(version)),
            (Some(other), _) => Err(ApiError::invalid_options("resourceVersionMatch", &format!("unsupported value \"{other}\""))),
        }
    }

    pub(super) fn watch_start(&self) -> Result<Start, ApiError> {
        let (version, matching) = (self.query.get("resourceVersion"), self.query.get("resourceVersionMatch"));
        let initial = self.query.get("sendInitialEvents");
        match (initial, matching) {
            (Some(_), None) => {
                let message = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                return Err(ApiError::invalid_options("resourceVersionMatch", message));
            }
            (Some(_), _) if self.plan.no_streaming_lists || !self.shared.settings.streaming_lists => {
                return Err(ApiError::streaming_lists_off());
            }
            (None, Some(_)) => {
                let message = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                return Err(ApiError::invalid_options("resourceVersionMatch", message));
            }
            _ => {}
        }
        let parsed = version.map(|text| text.parse::<u64>().map_err(|_| ApiError::watch_version_not_a_number(text))).transpose()?;
        let version = parsed.filter(|version| *version > 0);
        Ok(match initial {
            Some(_) if self.query.is_true("sendInitialEvents") => Start::InitialEvents { not_before: version.unwrap_or(0) },
            Some(_) => version.map_or(Start::Now, Start::After),
            None => version.map_or(Start::Everything, Start::After),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_those_of_the_real_server() {
        let token = Token::behind(573, "x/b");
        assert_eq!(token.encode(), "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6NTczLCJzdGFydCI6IngvYlx1MDAwMCJ9");
        assert_eq!(Token::decode(&token.encode()), Ok(token));
        assert_eq!(Token::decode("garbage").unwrap_err().code, 400);
    }
}
