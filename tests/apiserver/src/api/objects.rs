//! Single objects: reading, writing, deleting.

use super::{Call, Failure};
use crate::faults::Verb;
use crate::http::response::Responder;
use crate::resource::{Resource, ResourceId};
use crate::status::{ApiError, deleted};
use crate::store::{DeleteOptions, Deleted, Part, Place};
use serde_json::Value;

const PATCH_TYPES: &str = "application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml";

impl Call<'_> {
    pub(super) async fn create(&self, resource: ResourceId, namespace: Option<&str>, responder: &mut Responder<'_>) -> Result<(), Failure> {
        let spec = self.spec(resource);
        let body = self.body()?;
        let named = body["metadata"]["namespace"].as_str().map(str::to_owned);
        let namespace = match (spec.namespaced, namespace) {
            (true, Some(namespace)) => Some(namespace.to_owned()),
            (true, None) => Some(named.ok_or_else(ApiError::method_not_allowed)?),
            (false, None) => None,
            (false, Some(_)) => return Err(ApiError::no_such_resource().into()),
        };
        let object = self.store().create(resource, namespace.as_deref(), body)?;
        self.send_object(201, spec, &object, responder).await
    }

    pub(super) async fn object(&self, place: Place<'_>, part: Part, responder: &mut Responder<'_>) -> Result<(), Failure> {
        let spec = self.spec(place.resource);
        match self.verb {
            Verb::Get => {
                self.check_accept()?;
                let object = self.store().get(place)?;
                self.send_object(200, spec, &object, responder).await
            }
            Verb::Update => {
                let body = self.body()?;
                check_name(&body, place.name)?;
                let object = self.store().update(place, part, body)?;
                self.send_object(200, spec, &object, responder).await
            }
            Verb::Patch => self.patch(place, part, responder).await,
            Verb::Delete => self.delete(place, spec, responder).await,
            Verb::Create | Verb::List | Verb::Watch => Err(ApiError::method_not_allowed().into()),
        }
    }

    async fn patch(&self, place: Place<'_>, part: Part, responder: &mut Responder<'_>) -> Result<(), Failure> {
        let spec = self.spec(place.resource);
        let content_type = self.request.content_type.as_deref().unwrap_or_default();
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/merge-patch+json" | "application/strategic-merge-patch+json" => {
                let object = self.store().patch(place, part, &self.body()?)?;
                self.send_object(200, spec, &object, responder).await
            }
            "application/apply-patch+yaml" => {
                if self.query.get("fieldManager").is_none() {
                    let message = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
                    return Err(ApiError::new(422, Some("Invalid"), message).into());
                }
                let body = self.body()?;
                check_name(&body, place.name)?;
                let (object, created) = self.store().apply(place, part, body)?;
                self.send_object(if created { 201 } else { 200 }, spec, &object, responder).await
            }
            _ => Err(ApiError::unsupported_media_type(PATCH_TYPES).into()),
        }
    }

    async fn delete(&self, place: Place<'_>, spec: &Resource, responder: &mut Responder<'_>) -> Result<(), Failure> {
        let body = if self.request.body.is_empty() { Value::Null } else { self.body()? };
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let options = DeleteOptions {
            grace_s: match self.query.get("gracePeriodSeconds") {
                Some(text) => Some(text.parse().map_err(|error| ApiError::bad_request(format!("invalid gracePeriodSeconds: {error}")))?),
                None => body["gracePeriodSeconds"].as_u64(),
            },
            uid: text("/preconditions/uid"),
            version: text("/preconditions/resourceVersion"),
        };
        match self.store().delete(place, &options)? {
            Deleted::Gone(last) => {
                let uid = last.value()["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
                Ok(responder.json(200, &deleted(spec, place.name, &uid)).await?)
            }
            Deleted::Terminating(object) => self.send_object(200, spec, &object, responder).await,
        }
    }

    /// The body, JSON or YAML.
    fn body(&self) -> Result<Value, ApiError> {
        let text = str::from_utf8(&self.request.body).map_err(|error| ApiError::bad_request(format!("the body is not UTF-8: {error}")))?;
        let yaml = self.request.content_type.as_deref().is_some_and(|content_type| content_type.contains("yaml"));
        if yaml {
            serde_saphyr::from_str(text).map_err(|error| ApiError::bad_request(format!("error decoding YAML: {error}")))
        } else {
            serde_json::from_str(text).map_err(|error| ApiError::bad_request(format!("error decoding JSON: {error}")))
        }
    }
}

fn check_name(body: &Value, name: &str) -> Result<(), ApiError> {
    match body["metadata"]["name"].as_str() {
        Some(found) if found != name => {
            Err(ApiError::bad_request(format!("the name of the object ({found}) does not match the name on the URL ({name})")))
        }
        _ => Ok(()),
    }
}
