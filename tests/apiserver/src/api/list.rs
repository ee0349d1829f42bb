//! Lists, whole or page by page, each from one snapshot.

use super::options::{Scope, Token, Version};
use super::{Call, Failure};
use crate::http::response::{JSON, Responder};
use crate::resource::{Resource, ResourceId};
use crate::status::ApiError;
use crate::store::{Object, Snapshot, write_type};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Items are gathered up to this size before they become a chunk.
const CHUNK_BYTES: usize = 32 * 1024;
/// A list up to this size is held in memory to be sent with its length.
const SMALL_BYTES: usize = 2048;

/// Part of a list: the items, what its metadata says about the rest.
struct Page {
    version: i64,
    objects: Arc<Vec<Arc<Object>>>,
    /// Indices of the page's objects.
    selected: Vec<usize>,
    next: Option<Token>,
    /// Items behind this page; the server does not count them under a selector.
    remaining: Option<usize>,
}

impl Call<'_> {
    pub(super) async fn list(&self, resource: ResourceId, namespace: Option<&str>, responder: &mut Responder<'_>) -> Result<(), Failure> {
        self.check_accept()?;
        let scope = self.scope(resource, namespace)?;
        let page = self.page(resource, &scope)?;
        self.send_page(self.spec(resource), &page, responder).await
    }

    fn page(&self, resource: ResourceId, scope: &Scope) -> Result<Page, ApiError> {
        let mut limit = self.limit()?;
        let mut start = String::new();
        let current = self.store().version();
        let reached = |version: u64| if version > current { Err(ApiError::version_too_large(version, current)) } else { Ok(version) };
        let at = |version: u64, expired: fn() -> ApiError| {
            let snapshot = self.store().snapshot_at(resource, reached(version)?).map_err(|_| expired())?;
            Ok::<_, ApiError>((snapshot, version))
        };
        let (snapshot, version) = match self.list_version()? {
            Version::Current { any } => {
                limit = limit.filter(|_| !any);
                self.store().snapshot(resource)
            }
            Version::NotOlderThan(version) => {
                reached(version)?;
                self.store().snapshot(resource)
            }
            Version::Exact(version) => at(version, ApiError::list_expired)?,
            Version::Continue(token) => {
                start.clone_from(&token.start);
                match u64::try_from(token.rv) {
                    Ok(version) => {
                        let expired = |_| ApiError::continue_expired(token.inconsistent().encode());
                        (self.store().snapshot_at(resource, reached(version)?).map_err(expired)?, version)
                    }
                    Err(_) => self.store().snapshot(resource),
                }
            }
        };
        let page = cut(&snapshot, version as i64, scope, &start, limit);
        if page.next.is_some() {
            self.store().keep(resource, &snapshot);
        }
        Ok(page)
    }

    async fn send_page(&self, spec: &Resource, page: &Page, responder: &mut Responder<'_>) -> Result<(), Failure> {
        let mut out = head(spec, page);
        let mut begun = false;
        for (position, index) in page.selected.iter().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            write_item(spec, &page.objects[*index], &mut out);
            if out.len() >= CHUNK_BYTES {
                if !begun {
                    responder.begin(200, JSON, &[]);
                    begun = true;
                }
                responder.chunk(&out).await?;
                out.clear();
            }
        }
        out.extend_from_slice(b"]}\n");
        if !begun && out.len() <= SMALL_BYTES {
            return Ok(responder.body(200, JSON, &[], &out).await?);
        }
        if !begun {
            responder.begin(200, JSON, &[]);
        }
        responder.chunk(&out).await?;
        Ok(responder.finish().await?)
    }
}

fn cut(snapshot: &Snapshot, version: i64, scope: &Scope, start: &str, limit: Option<usize>) -> Page {
    let objects = snapshot.objects.clone();
    let prefix = scope.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
    let first = objects.partition_point(|object| object.key() < start.max(&prefix));
    let end = first + objects[first..].partition_point(|object| object.key().starts_with(&prefix) || object.key() < prefix.as_str());
    let limit = limit.unwrap_or(usize::MAX);
    let mut selected = Vec::new();
    let mut more = false;
    for (index, object) in objects.iter().enumerate().take(end).skip(first) {
        if !scope.selects(object) {
            continue;
        }
        if selected.len() == limit {
            more = true;
            break;
        }
        selected.push(index);
    }
    let last = selected.last().copied();
    let next = last.filter(|_| more).map(|last| Token::behind(version, objects[last].key()));
    let remaining = last.filter(|_| more && scope.selector.is_empty()).map(|last| end - last - 1);
    Page { version, objects, selected, next, remaining }
}

fn head(spec: &Resource, page: &Page) -> Vec<u8> {
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".into(), page.version.to_string().into());
    if let Some(token) = &page.next {
        metadata.insert("continue".into(), token.encode().into());
    }
    if let Some(remaining) = page.remaining {
        metadata.insert("remainingItemCount".into(), remaining.into());
    }
    let list = format!(
        "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[",
        spec.kind,
        spec.api_version(),
        Value::from(metadata)
    );
    list.into_bytes()
}

fn write_item(spec: &Resource, object: &Object, out: &mut Vec<u8>) {
    if spec.custom {
        write_type(spec, out);
        out.extend_from_slice(&object.json()[1..]);
    } else {
        out.extend_from_slice(object.json());
    }
}
