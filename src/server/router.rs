//! The routes and what stands before them: a value, so that tests ask it without a socket.
//!
//! Layers, outermost first: panics become 500, requests are noted, headers are set, Host is checked, the origin of commands
//! is checked, the body is taken within its limits. Pages, files and commands are bound in time, pages and files compressed
//! where they are not already; event streams are neither.

use std::{any::Any, sync::Arc, time::Duration};

use any_spawner::Executor;
use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, Response, StatusCode, Version, header},
    middleware,
    routing::{MethodFilter, get, on},
};
use leptos::{config::LeptosOptions, prelude::provide_context, server_fn::axum::server_fn_paths};
use leptos_axum::{handle_server_fns_with_context, site_pkg_dir_service, site_pkg_dir_service_route_path};
use tower_http::{
    catch_panic::CatchPanicLayer,
    compression::{CompressionLayer, CompressionLevel},
    services::ServeDir,
    timeout::TimeoutLayer,
};

use super::{
    events::events,
    health::{healthz, readyz},
    log,
    metrics::metrics,
    page::{Pages, page},
    refusal::{refusal, with_status_of_error},
    security::{self, AllowedHosts},
    session,
    state::Server,
};
use crate::chat::error::{ChatError, ErrorCode};

/// Pages and commands take this long at most.
const PAGE_TIME: Duration = Duration::from_secs(30);

/// The whole server as one service.
pub fn router(server: Arc<Server>, leptos: LeptosOptions, allowed_hosts: &[String]) -> Router {
    // Leptos spawns by it; where there is one already, as for a second router in a test, that one stays.
    let _ = Executor::init_tokio();
    let limits = server.limits.clone();
    let provide_server = {
        let server = server.clone();
        move || provide_context(server.clone())
    };
    let identify = || middleware::from_fn_with_state(server.clone(), session::identify);
    let draw = get(page).layer(identify()).with_state::<()>(Pages { server: server.clone(), leptos: leptos.clone() });
    let files = ServeDir::new(&*leptos.site_root).append_index_html_on_directories(false);
    let pages = commands(provide_server)
        .layer(identify())
        .route_service("/", draw.clone())
        .route_service("/c/{conversation}", draw.clone())
        // As compressed when built, where that is there, and not at all where the browser has it.
        .route_service(&site_pkg_dir_service_route_path(&leptos), site_pkg_dir_service(&leptos))
        .fallback_service(files.fallback(draw))
        .with_state(leptos)
        .layer(middleware::map_response(with_status_of_error))
        .layer(CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(is_page_or_file))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, PAGE_TIME));
    // Each layer stands outside of those above it.
    Router::new()
        .route("/generations/{id}/events", get(events).layer(identify()))
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

/// A route for each server function.
fn commands(provide_server: impl Fn() + Clone + Send + Sync + 'static) -> Router<LeptosOptions> {
    let answer = move |request: Request| handle_server_fns_with_context(provide_server.clone(), request);
    server_fn_paths().fold(Router::new(), |router, (path, method)| {
        let filter = MethodFilter::try_from(method).expect("invariant: commands are sent by one of HTTP's own methods");
        router.route(path, on(filter, answer.clone()))
    })
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
