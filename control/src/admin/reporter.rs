//! Health and metrics of the reporter.

use super::scraped;
use crate::report::Progress;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Serves for ever.
pub(crate) async fn serve_reporter(listener: TcpListener, progress: Arc<Progress>) -> std::io::Result<()> {
    let routes = Router::new().route("/livez", get(livez)).route("/readyz", get(readyz)).route("/metrics", get(scrape));
    axum::serve(listener, routes.with_state(progress)).await
}

async fn livez(State(progress): State<Arc<Progress>>) -> Response {
    match progress.is_live() {
        true => "ok\n".into_response(),
        false => (StatusCode::INTERNAL_SERVER_ERROR, "nothing was looked after for minutes\n").into_response(),
    }
}

/// Ready once everything was read. An API server that is away later changes nothing.
async fn readyz(State(progress): State<Arc<Progress>>) -> Response {
    match progress.is_complete() {
        true => "ok\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not everything is listed yet\n").into_response(),
    }
}

async fn scrape(State(progress): State<Arc<Progress>>) -> Response {
    scraped(progress.scrape())
}
