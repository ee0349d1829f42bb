//! The errors of the API: `Status` objects, each shaped as kube-apiserver 1.36 answers it.

use crate::resource::Resource;
use serde_json::{Map, Value, json};

/// A request that failed, with everything that its `Status` object says.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{code} {}: {message}", reason.unwrap_or("Unknown"))]
pub struct ApiError {
    /// HTTP status.
    pub code: u16,
    /// Machine-readable reason; some of the server's errors have none.
    pub reason: Option<&'static str>,
    /// For people.
    pub message: String,
    /// `details` of the Status, where the server gives them.
    pub details: Option<Box<Value>>,
    /// A token to go on with after an expired list.
    pub continue_token: Option<String>,
}

impl ApiError {
    /// An error without details.
    pub fn new(code: u16, reason: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, continue_token: None }
    }

    fn with_details(self, details: Value) -> Self {
        Self { details: Some(Box::new(details)), ..self }
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, Some("BadRequest"), message)
    }

    /// 401: no token, or one that is not accepted (any more).
    pub fn unauthorized() -> Self {
        Self::new(401, Some("Unauthorized"), "Unauthorized")
    }

    /// 403: `user` may not do `verb` with this resource.
    pub fn forbidden(user: &str, verb: &str, resource: &Resource, namespace: Option<&str>, name: Option<&str>) -> Self {
        let object = name.map(|name| format!(" \"{name}\"")).unwrap_or_default();
        let scope = namespace.map_or("at the cluster scope".to_owned(), |namespace| format!("in the namespace \"{namespace}\""));
        let message = format!(
            "{}{object} is forbidden: User \"{user}\" cannot {verb} resource \"{}\" in API group \"{}\" {scope}",
            resource.qualified(),
            resource.plural,
            resource.group
        );
        Self::new(403, Some("Forbidden"), message).with_details(object_details(resource, name.unwrap_or("")))
    }

    /// 403: the namespace is going away and takes no new content.
    pub fn namespace_terminating(resource: &Resource, name: &str, namespace: &str) -> Self {
        let qualified = resource.qualified();
        let message = format!(
            "{qualified} \"{name}\" is forbidden: unable to create new content in namespace {namespace} because it is being terminated"
        );
        let mut details = object_details(resource, name);
        details["causes"] = json!([{
            "reason": "NamespaceTerminating",
            "message": format!("namespace {namespace} is being terminated"),
            "field": "metadata.namespace",
        }]);
        Self::new(403, Some("Forbidden"), message).with_details(details)
    }

    /// 404: no such object.
    pub fn not_found(resource: &Resource, name: &str) -> Self {
        Self::new(404, Some("NotFound"), format!("{} \"{name}\" not found", resource.qualified()))
            .with_details(object_details(resource, name))
    }

    /// 404: the group exists, the resource does not.
    pub fn no_such_resource() -> Self {
        Self::new(404, Some("NotFound"), "the server could not find the requested resource").with_details(json!({}))
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        Self::new(405, Some("MethodNotAllowed"), "the server does not allow this method on the requested resource").with_details(json!({}))
    }

    /// 406: no representation that the server has is among those that the client accepts.
    pub fn not_acceptable() -> Self {
        let types = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
        Self::new(406, Some("NotAcceptable"), format!("only the following media types are accepted: {types}"))
    }

    /// 409: the name is taken.
    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        Self::new(409, Some("AlreadyExists"), format!("{} \"{name}\" already exists", resource.qualified()))
            .with_details(object_details(resource, name))
    }

    /// 409: written from an old version of the object.
    pub fn conflict(resource: &Resource, name: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": the object has been modified; please apply your changes to the latest version and try again",
            resource.qualified()
        );
        Self::new(409, Some("Conflict"), message).with_details(object_details(resource, name))
    }

    /// 410: a watch from a version that history no longer holds.
    pub fn watch_expired(requested: u64, oldest: u64) -> Self {
        Self::new(410, Some("Expired"), format!("too old resource version: {requested} ({oldest})"))
    }

    /// 410: an exact list of a version that history no longer holds.
    pub fn list_expired() -> Self {
        Self::new(410, Some("Expired"), "The resourceVersion for the provided list is too old.")
    }

    /// 410: a continue token whose version is gone; `continue_token` goes on with an inconsistent list.
    pub fn continue_expired(continue_token: String) -> Self {
        let message = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";
        Self { continue_token: Some(continue_token), ..Self::new(410, Some("Expired"), message) }
    }

    /// 413.
    pub fn too_large(limit_bytes: usize) -> Self {
        Self::new(413, Some("RequestEntityTooLarge"), format!("Request entity too large: limit is {limit_bytes}"))
    }

    /// 415.
    pub fn unsupported_media_type(accepted: &str) -> Self {
        let message = format!("the body of the request was in an unknown format - accepted media types include: {accepted}");
        Self::new(415, Some("UnsupportedMediaType"), message)
    }

    /// 422 for one query parameter of a list or watch.
    pub fn invalid_options(field: &str, message: &str) -> Self {
        Self::new(422, Some("Invalid"), format!("ListOptions.meta.k8s.io \"\" is invalid: {field}: Forbidden: {message}")).with_details(
            json!({
                "group": "meta.k8s.io",
                "kind": "ListOptions",
                "causes": [{"reason": "FieldValueForbidden", "message": format!("Forbidden: {message}"), "field": field}],
            }),
        )
    }

    /// 422: how a server whose `WatchList` feature is off refuses `sendInitialEvents`.
    pub fn streaming_lists_off() -> Self {
        Self::invalid_options("sendInitialEvents", "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled")
    }

    /// 422 for an object that lacks something.
    pub fn invalid_object(resource: &Resource, name: &str, field: &str, message: &str) -> Self {
        let text = format!("{} \"{name}\" is invalid: {field}: {message}", resource.kind);
        Self::new(422, Some("Invalid"), text).with_details(json!({
            "name": name, "group": resource.group, "kind": resource.kind,
            "causes": [{"reason": "FieldValueRequired", "message": message, "field": field}],
        }))
    }

    /// 429, with the seconds that the client shall wait.
    pub fn too_many_requests(retry_after_s: u32) -> Self {
        Self::new(429, Some("TooManyRequests"), "too many requests, please try again later")
            .with_details(json!({"retryAfterSeconds": retry_after_s}))
    }

    /// 500 for a watch whose resourceVersion is no number: the server answers it so, without a reason.
    pub fn watch_version_not_a_number(text: &str) -> Self {
        Self::new(500, None, not_a_number(text))
    }

    /// 400 for a list whose resourceVersion is no number.
    pub fn list_version_not_a_number(text: &str) -> Self {
        Self::bad_request(format!("invalid resource version: {}", not_a_number(text)))
    }

    /// 504: a version that the server has not reached.
    pub fn version_too_large(requested: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {requested}, current: {current}");
        Self::new(504, Some("Timeout"), message).with_details(json!({
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        }))
    }

    /// What a fault rule answers for a bare status code: the reason and message that belong to it.
    pub fn of_code(code: u16, retry_after_s: Option<u32>) -> Self {
        match code {
            401 => Self::unauthorized(),
            403 => Self::new(403, Some("Forbidden"), "forbidden by a fault rule").with_details(json!({})),
            404 => Self::no_such_resource(),
            410 => Self::list_expired(),
            422 => Self::streaming_lists_off(),
            429 => Self::too_many_requests(retry_after_s.unwrap_or(1)),
            500 => Self::new(500, Some("InternalError"), "Internal error occurred: a fault rule"),
            503 => Self::new(503, Some("ServiceUnavailable"), "the server is currently unable to handle the request"),
            504 => Self::new(504, Some("Timeout"), "Timeout: request did not complete within the allotted timeout").with_details(json!({})),
            _ => Self::new(code, None, format!("status {code} by a fault rule")),
        }
    }

    /// Seconds for the `Retry-After` header, if the answer has one.
    pub fn retry_after_s(&self) -> Option<u64> {
        self.details.as_ref()?.get("retryAfterSeconds")?.as_u64()
    }

    /// The `Status` object.
    pub fn to_status(&self) -> Value {
        let mut metadata = Map::new();
        if let Some(token) = &self.continue_token {
            metadata.insert("continue".into(), token.clone().into());
        }
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Failure", "message": self.message,
        });
        if let Some(reason) = self.reason {
            status["reason"] = reason.into();
        }
        if let Some(details) = &self.details {
            status["details"] = (**details).clone();
        }
        status["code"] = self.code.into();
        status
    }
}

/// The `Status` of an object that is gone for good.
pub(crate) fn deleted(resource: &Resource, name: &str, uid: &str) -> Value {
    let mut details = object_details(resource, name);
    details["uid"] = uid.into();
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

fn object_details(resource: &Resource, name: &str) -> Value {
    let mut details = Map::new();
    if !name.is_empty() {
        details.insert("name".into(), name.into());
    }
    if !resource.group.is_empty() {
        details.insert("group".into(), resource.group.clone().into());
    }
    details.insert("kind".into(), resource.plural.clone().into());
    details.into()
}

fn not_a_number(text: &str) -> String {
    format!("resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax")
}
