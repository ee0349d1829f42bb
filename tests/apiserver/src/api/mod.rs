//! The API itself: from a request to its answer.

mod discovery;
mod list;
mod objects;
mod options;
mod route;
mod watch;

use crate::auth::{Auth, Identity};
use crate::faults::{Answer, Faults, Plan, Verb};
use crate::http::connection::Connection;
use crate::http::request::{Request, RequestError};
use crate::http::response::{Responder, Stamp, TEXT};
use crate::http::wire::{Hangup, Wire};
use crate::query::{Query, split_target};
use crate::replay::Replay;
use crate::resource::Resource;
use crate::settings::Settings;
use crate::status::ApiError;
use crate::store::{Object, Store};
use route::{Route, Target};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch as channel;

/// Methods that have a verb.
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// Everything that requests share.
pub(crate) struct Shared {
    pub(crate) store: Arc<Store>,
    pub(crate) faults: Faults,
    pub(crate) auth: Auth,
    pub(crate) replay: Option<Replay>,
    pub(crate) settings: Settings,
    /// Counts up to end all watches in order.
    pub(crate) watch_ends: channel::Sender<u64>,
    pub(crate) requests: AtomicU64,
}

/// Serves one connection to its end.
pub(crate) async fn serve(shared: &Shared, mut connection: Connection) {
    loop {
        let request = match connection.request().await {
            Ok(Some(request)) => request,
            Ok(None) => break,
            Err(error) => {
                refuse(shared, &mut connection, &error).await;
                break;
            }
        };
        match answer(shared, &mut connection, &request).await {
            Ok(Next::Request) => {}
            Ok(Next::Close) => break,
            // A fault ended it, or the client: no orderly end.
            Err(Hangup) => return,
        }
    }
    connection.shutdown().await;
}

/// What a connection does behind an answer.
pub(crate) enum Next {
    Request,
    Close,
}

/// Tells the client what was wrong with its request, where there is still a client.
async fn refuse(shared: &Shared, connection: &mut Connection, error: &RequestError) {
    let status = match error {
        RequestError::BodyTooLarge => ApiError::too_large(crate::http::BODY_MAX_BYTES),
        RequestError::HeadTooLarge | RequestError::Malformed(_) => ApiError::bad_request(error.to_string()),
        RequestError::Truncated | RequestError::Io(_) => return,
    };
    tracing::info!(%error, "request refused");
    let stamp = Stamp { close: true, ..stamp(shared, &Plan::default(), true) };
    // The connection ends either way.
    let _ = Responder::new(Wire::new(connection, Default::default()), stamp).error(&status).await;
}

fn stamp(shared: &Shared, plan: &Plan, close: bool) -> Stamp {
    // Relaxed: only the uniqueness of the number matters.
    let number = shared.requests.fetch_add(1, Ordering::Relaxed);
    Stamp {
        audit_id: format!("00000000-0000-4000-8000-{number:012x}"),
        date_s: shared.store.clock().now_s() + plan.clock_skew_s,
        close,
        chunk_max_bytes: plan.chunk_max_bytes,
    }
}

async fn answer(shared: &Shared, connection: &mut Connection, request: &Request) -> Result<Next, Hangup> {
    let (segments, query) = split_target(&request.target);
    let route = Route::parse(shared.store.registry(), &request.method, &segments, &query);
    let resource = route.target.resource().map(|id| shared.store.registry().get(id));
    let qualified = resource.map(Resource::qualified);
    let plan = shared.faults.plan(resource.zip(qualified.as_deref()).map(|(resource, name)| (&*resource.plural, name)), route.verb);
    tracing::info!(method = %request.method, target = %request.target, faults = plan != Plan::default(), "request");

    let next = if request.close { Next::Close } else { Next::Request };
    if !plan.delay.is_zero() {
        tokio::time::sleep(plan.delay).await;
    }
    let mut responder = Responder::new(Wire::new(connection, plan.wire), stamp(shared, &plan, request.close));
    match &plan.answer {
        Some(Answer::Hang) => {
            responder.client_gone().await;
            return Err(Hangup);
        }
        Some(Answer::Close) => return Err(Hangup),
        Some(Answer::Status(error)) => {
            responder.error(error).await?;
            return Ok(next);
        }
        None => {}
    }
    let identity = match shared.auth.identify(request.bearer.as_deref()) {
        Ok(identity) => identity,
        Err(error) => {
            responder.error(&error).await?;
            return Ok(next);
        }
    };
    if let Some(replay) = &shared.replay {
        let behind = replay.serve(request, &query, &mut responder).await?;
        return Ok(if request.close { Next::Close } else { behind });
    }
    let call = Call { shared, request, query: &query, verb: route.verb, identity, plan: &plan };
    match call.dispatch(&route.target, &mut responder).await {
        Ok(()) => Ok(next),
        Err(Failure::Status(error)) => {
            tracing::info!(%error, "answered with an error");
            responder.error(&error).await?;
            Ok(next)
        }
        Err(Failure::Hangup) => Err(Hangup),
    }
}

/// How a call ends before its answer is complete.
enum Failure {
    /// Nothing was sent; the error is the answer.
    Status(ApiError),
    Hangup,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Status(error)
    }
}

impl From<Hangup> for Failure {
    fn from(_: Hangup) -> Self {
        Self::Hangup
    }
}

/// One request with what its handler needs.
struct Call<'c> {
    shared: &'c Shared,
    request: &'c Request,
    query: &'c Query,
    verb: Verb,
    identity: Identity,
    plan: &'c Plan,
}

impl<'c> Call<'c> {
    fn store(&self) -> &'c Store {
        &self.shared.store
    }

    fn spec(&self, id: crate::resource::ResourceId) -> &'c Resource {
        self.shared.store.registry().get(id)
    }

    async fn dispatch(&self, target: &Target, responder: &mut Responder<'_>) -> Result<(), Failure> {
        if !METHODS.contains(&self.request.method.as_str()) {
            return Err(ApiError::method_not_allowed().into());
        }
        match target {
            Target::Collection { resource, namespace } => {
                let namespace = namespace.as_deref();
                self.authorize(*resource, namespace, None)?;
                match self.verb {
                    Verb::List => self.list(*resource, namespace, responder).await,
                    Verb::Watch => self.watch(*resource, namespace, responder).await,
                    Verb::Create => self.create(*resource, namespace, responder).await,
                    _ => Err(ApiError::method_not_allowed().into()),
                }
            }
            Target::Object { resource, namespace, name, part } => {
                self.authorize(*resource, namespace.as_deref(), Some(name))?;
                let place = crate::store::Place { resource: *resource, namespace: namespace.as_deref(), name };
                self.object(place, *part, responder).await
            }
            Target::Discovery(page) => Ok(responder.json(200, &discovery::page(self.store().registry(), page)).await?),
            Target::Health => Ok(responder.body(200, TEXT, &[], b"ok").await?),
            Target::UnknownResource => Err(ApiError::no_such_resource().into()),
            Target::UnknownPath => Ok(responder.body(404, TEXT, &[], b"404 page not found\n").await?),
        }
    }

    fn authorize(&self, resource: crate::resource::ResourceId, namespace: Option<&str>, name: Option<&str>) -> Result<(), ApiError> {
        self.shared.auth.authorize(&self.identity, self.verb, self.spec(resource), namespace, name)
    }

    /// 406 unless the client takes plain JSON: tables, metadata alone and protobuf are not spoken here.
    fn check_accept(&self) -> Result<(), ApiError> {
        let Some(accept) = &self.request.accept else { return Ok(()) };
        let plain = |range: &str| {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            matches!(media, "application/json" | "application/*" | "*/*") && parts.all(|parameter| !parameter.starts_with("as="))
        };
        if accept.split(',').any(plain) { Ok(()) } else { Err(ApiError::not_acceptable()) }
    }

    async fn send_object(&self, code: u16, spec: &Resource, object: &Object, responder: &mut Responder<'_>) -> Result<(), Failure> {
        let mut json = Vec::with_capacity(object.json().len() + 64);
        object.write_typed(spec, &mut json);
        json.push(b'\n');
        Ok(responder.body(code, crate::http::response::JSON, &[], &json).await?)
    }
}
