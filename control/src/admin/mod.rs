//! Health and metrics over HTTP, for the kubelet and Prometheus.

mod dataplane;
mod metrics;
mod reporter;

pub(crate) use metrics::Metrics;
pub(crate) use reporter::serve_reporter;

use crate::engine::Event;
use crate::view::Views;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

/// How long the engine may take to answer before it counts as stuck. It compiles elsewhere, so its answers come at once.
const ENGINE_MAX: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Admin {
    dataplane: PathBuf,
    views: Views,
    metrics: Metrics,
    engine: UnboundedSender<Event>,
}

/// Serves for ever.
/// `dataplane`: its socket.
pub(crate) async fn serve(
    listener: TcpListener,
    dataplane: PathBuf,
    views: Views,
    metrics: Metrics,
    engine: UnboundedSender<Event>,
) -> std::io::Result<()> {
    let routes = Router::new().route("/livez", get(livez)).route("/readyz", get(readyz)).route("/metrics", get(scrape));
    axum::serve(listener, routes.with_state(Admin { dataplane, views, metrics, engine })).await
}

/// Well while the engine answers, whatever it has to say.
async fn livez(State(admin): State<Admin>) -> Response {
    let (answer, answered) = oneshot::channel();
    let asked = admin.engine.send(Event::Ping(answer)).is_ok();
    match tokio::time::timeout(ENGINE_MAX, answered).await {
        Ok(Ok(())) if asked => "ok\n".into_response(),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "the engine does not answer\n").into_response(),
    }
}

/// Ready once a table of everything known was in force. An API server that is away changes nothing: what was known goes on.
async fn readyz(State(admin): State<Admin>) -> Response {
    let view = Arc::clone(&admin.views.borrow());
    let waiting = view.watches.iter().filter(|watch| watch.is_needed && !watch.is_listed).map(|watch| match &watch.trouble {
        Some((trouble, _)) => format!("{} are not listed yet: {trouble}\n", watch.resource),
        None => format!("{} are not listed yet\n", watch.resource),
    });
    let mut reasons: String = waiting.collect();
    if !view.status.dataplane_connected {
        reasons += "the dataplane is not connected\n";
    }
    match (view.was_settled, view.status.dataplane_connected) {
        (true, true) => "ok\n".into_response(),
        (true, false) => (StatusCode::SERVICE_UNAVAILABLE, reasons).into_response(),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, reasons + "no table of everything known is in force yet\n").into_response(),
    }
}

async fn scrape(State(admin): State<Admin>) -> Response {
    let socket = admin.dataplane.clone();
    let answer = tokio::task::spawn_blocking(move || dataplane::ask(&socket)).await.unwrap_or_default();
    let view = Arc::clone(&admin.views.borrow());
    scraped(metrics::scrape(&admin.metrics, view, dataplane::Answer(answer)))
}

fn scraped(metrics: Result<String, std::fmt::Error>) -> Response {
    match metrics {
        Ok(text) => ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
