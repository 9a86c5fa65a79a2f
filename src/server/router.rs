//! The routes and what stands before them: a value, so that tests ask it without a socket.
//!
//! Layers, outermost first: panics become 500, requests are noted, headers are set, Host is checked, the origin of commands
//! is checked, the body is taken within its limits. Only pages and files are compressed and bound in time; event streams
//! are neither.

use std::{any::Any, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Response, StatusCode, Version, header},
    middleware,
    routing::get,
};
use leptos::{config::LeptosOptions, prelude::provide_context};
use leptos_axum::{LeptosRoutes, file_and_error_handler_with_context, generate_route_list};
use tower_http::{
    catch_panic::CatchPanicLayer,
    compression::{CompressionLayer, CompressionLevel},
    timeout::TimeoutLayer,
};

use super::{
    events::events,
    health::{healthz, readyz},
    log,
    metrics::metrics,
    refusal::{refusal, with_status_of_error},
    security::{self, AllowedHosts},
    state::Server,
};
use crate::{
    app::{App, shell::shell},
    chat::error::{ChatError, ErrorCode},
};

/// Pages and commands take this long at most.
const PAGE_TIME: Duration = Duration::from_secs(30);

/// The whole server as one service.
pub fn router(server: Arc<Server>, leptos: LeptosOptions, allowed_hosts: &[String]) -> Router {
    let limits = server.limits.clone();
    let provide_server = {
        let server = server.clone();
        move || provide_context(server.clone())
    };
    let page = {
        let leptos = leptos.clone();
        move || {
            security::set_page_policy();
            shell(leptos.clone())
        }
    };
    let page_or_404 = |leptos: LeptosOptions| {
        security::set_page_policy();
        shell(leptos)
    };
    let pages = Router::new()
        .leptos_routes_with_context(&leptos, generate_route_list(App), provide_server.clone(), page)
        .fallback(file_and_error_handler_with_context::<LeptosOptions, _>(provide_server, page_or_404))
        .with_state(leptos)
        .layer(middleware::map_response(with_status_of_error))
        .layer(CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(is_page_or_file))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, PAGE_TIME));
    // Each layer stands outside of those above it.
    Router::new()
        .route("/generations/{id}/events", get(events))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(server)
        .merge(pages)
        .layer(middleware::from_fn_with_state(limits, security::limit_body))
        .layer(middleware::from_fn(security::check_origin))
        .layer(middleware::from_fn_with_state(AllowedHosts::new(allowed_hosts), security::check_host))
        .layer(middleware::from_fn(security::set_headers))
        .layer(middleware::from_fn(log::request))
        .layer(CatchPanicLayer::custom(panicked))
}

/// What is worth compressing and holds nobody's secret beside an attacker's text: commands' answers are left as they are.
fn is_page_or_file(_: StatusCode, _: Version, headers: &HeaderMap, _: &axum::http::Extensions) -> bool {
    const KINDS: [&str; 6] =
        ["text/html", "text/css", "text/javascript", "application/javascript", "application/wasm", "image/svg+xml"];
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    KINDS.iter().any(|known| kind.starts_with(known))
}

fn panicked(_: Box<dyn Any + Send + 'static>) -> Response<Body> {
    tracing::error!("a request's handler panicked");
    refusal(&ChatError::new(ErrorCode::Internal, "the server made a mistake"))
}
