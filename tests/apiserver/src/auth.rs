//! Who may ask: bearer tokens that come and go, and resources that are forbidden.

use crate::faults::Verb;
use crate::resource::Resource;
use crate::status::ApiError;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The user behind every accepted token: the service account of the control process.
pub const USER: &str = "system:serviceaccount:kube-system:sluice";
/// The user of a request without a token, where none is needed.
const ANONYMOUS: &str = "system:anonymous";

/// Accepted tokens and forbidden requests; both can change at any time.
#[derive(Debug, Default)]
pub struct Auth {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether requests need a token.
    required: bool,
    tokens: BTreeSet<String>,
    forbidden: BTreeSet<(String, &'static str)>,
}

/// Who sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    user: &'static str,
}

impl Auth {
    /// Accepts a token from now on. With the first one, requests without a token are refused.
    pub fn accept(&self, token: &str) {
        let mut state = self.lock();
        state.required = true;
        state.tokens.insert(token.to_owned());
    }

    /// Lets a token expire: 401 from now on. Running watches go on, as they do on the real server.
    pub fn revoke(&self, token: &str) {
        self.lock().tokens.remove(token);
    }

    /// Forbids a verb on a resource, by plural or `plural.group`; 403 from now on.
    pub fn forbid(&self, resource: &str, verb: Verb) {
        self.lock().forbidden.insert((resource.to_owned(), verb.name()));
    }

    /// Takes a [`Auth::forbid`] back.
    pub fn allow(&self, resource: &str, verb: Verb) {
        self.lock().forbidden.remove(&(resource.to_owned(), verb.name()));
    }

    pub(crate) fn identify(&self, bearer: Option<&str>) -> Result<Identity, ApiError> {
        let state = self.lock();
        match bearer {
            Some(token) if state.tokens.contains(token) => Ok(Identity { user: USER }),
            _ if !state.required => Ok(Identity { user: ANONYMOUS }),
            _ => Err(ApiError::unauthorized()),
        }
    }

    pub(crate) fn authorize(
        &self,
        identity: &Identity,
        verb: Verb,
        resource: &Resource,
        namespace: Option<&str>,
        name: Option<&str>,
    ) -> Result<(), ApiError> {
        let state = self.lock();
        let forbidden = |resource: String| state.forbidden.contains(&(resource, verb.name()));
        if forbidden(resource.plural.clone()) || forbidden(resource.qualified()) {
            return Err(ApiError::forbidden(identity.user, verb.name(), resource, namespace, name));
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
