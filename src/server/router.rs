//! The routes and what stands before them: a value, so that tests ask it without a socket.
//!
//! Layers, outermost first: refusals are counted and get the shape that their asker knows, panics become 500, requests are
//! numbered and noted, headers are set (on refusals too), Host is checked, the origin of commands is checked, the access
//! token is asked for, the body is taken within its limits. Pages, files and commands are bound in time, pages and files
//! compressed where they are not already; event streams and the API's answers are neither.

use std::{any::Any, convert::Infallible, sync::Arc, time::Duration};

use any_spawner::Executor;
use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, Response, StatusCode, Version, header},
    middleware,
    routing::{MethodFilter, MethodRouter, any_service, get, on, on_service},
};
use leptos::{config::LeptosOptions, prelude::provide_context};
use leptos_axum::{handle_server_fns_with_context, site_pkg_dir_service};
use tower_http::{
    catch_panic::CatchPanicLayer,
    compression::{CompressionLayer, CompressionLevel},
    services::ServeDir,
    timeout::TimeoutLayer,
};

use super::{
    access::{self, Access, Door, login, login_page},
    events::events,
    health::{healthz, readyz},
    log,
    metrics::metrics,
    openai::{
        chat::chat_completions,
        completion::completions,
        error::in_api_shape,
        models::models,
        tokens::{detokenize, tokenize, tokenizer_info},
    },
    page::{LoginPage, Pages, page},
    refusal::{self, refusal, with_status_of_error},
    routes::{LeadsTo, Route, routes},
    security::{self, AllowedHosts},
    session,
    state::Server,
};
use crate::chat::error::{ChatError, ErrorCode};

/// Pages and commands take this long at most.
const PAGE_TIME: Duration = Duration::from_secs(30);

/// The whole server as one service.
pub fn router(server: Arc<Server>, leptos: LeptosOptions, allowed_hosts: &[String], access: Access) -> Router {
    // Leptos spawns by it; where there is one already, as for a second router in a test, that one stays.
    let _ = Executor::init_tokio();
    let limits = server.limits.clone();
    let door = Door::new(access, LoginPage { title: server.title.clone(), leptos: leptos.clone() });
    let (open, guarded) = handlers(&server, &leptos, &door);
    let bounded = |routes: Router| routes.layer(middleware::from_fn_with_state(limits.clone(), security::limit_body));
    // Each layer stands outside of those above it.
    bounded(guarded)
        .layer(middleware::from_fn_with_state(door, access::check))
        .merge(bounded(open))
        .layer(middleware::from_fn(security::check_origin))
        .layer(middleware::from_fn_with_state(AllowedHosts::new(allowed_hosts), security::check_host))
        .layer(middleware::from_fn(security::set_headers))
        .layer(middleware::from_fn(log::request))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(in_api_shape))
        .layer(middleware::from_fn_with_state(server, refusal::count))
}

/// A handler for each route of the table, apart by whether the access token is needed; what is on no route needs it.
fn handlers(server: &Arc<Server>, leptos: &LeptosOptions, door: &Door) -> (Router, Router) {
    let provide_server = {
        let server = server.clone();
        move || provide_context(server.clone())
    };
    let command = move |request: Request| handle_server_fns_with_context(provide_server.clone(), request);
    let pages = Pages { server: server.clone(), leptos: leptos.clone() };
    let identified = |handler: MethodRouter| {
        handler.layer::<_, Infallible>(middleware::from_fn_with_state(server.clone(), session::identify))
    };
    let handler = |route: &Route| {
        let method =
            MethodFilter::try_from(route.method.clone()).expect("invariant: the table knows HTTP's own methods only");
        match route.leads_to {
            LeadsTo::Page => in_time(identified(on(method, page).with_state(pages.clone()))),
            LeadsTo::Command => in_time(identified(on(method, command.clone()))),
            // As compressed when built, where that is there, and not at all where the browser has it.
            LeadsTo::File => in_time(on_service(method, site_pkg_dir_service(leptos))),
            LeadsTo::Login => in_time(on(method, login).with_state(door.clone())),
            LeadsTo::LoginPage => on(method, login_page),
            LeadsTo::Events => identified(on(method, events).with_state(server.clone())),
            LeadsTo::Health => on(method, healthz),
            LeadsTo::Readiness => on(method, readyz).with_state(server.clone()),
            LeadsTo::Metrics => on(method, metrics).with_state(server.clone()),
            LeadsTo::Models => on(method, models).with_state(server.clone()),
            LeadsTo::ChatCompletions => on(method, chat_completions).with_state(server.clone()),
            LeadsTo::Completions => on(method, completions).with_state(server.clone()),
            LeadsTo::Tokenize => in_time(on(method, tokenize).with_state(server.clone())),
            LeadsTo::TokenizerInfo => on(method, tokenizer_info).with_state(server.clone()),
            LeadsTo::Detokenize => in_time(on(method, detokenize).with_state(server.clone())),
        }
    };
    let (open, guarded): (Vec<_>, Vec<_>) = routes(leptos).into_iter().partition(|route| route.leads_to.is_open());
    let built = |routes: Vec<Route>| {
        routes.iter().fold(Router::new(), |router, route| router.route(&route.path, handler(route)))
    };
    let no_such_page = identified(get(page).with_state(pages.clone()));
    let files = ServeDir::new(&*leptos.site_root).append_index_html_on_directories(false).fallback(no_such_page);
    (built(open), built(guarded).fallback_service(in_time(any_service(files))))
}

/// What is bound in time, and compressed where it is worth it and not done already.
fn in_time(handler: MethodRouter) -> MethodRouter {
    handler
        .layer::<_, Infallible>(middleware::map_response(with_status_of_error))
        .layer::<_, Infallible>(
            CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(is_page_or_file),
        )
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, PAGE_TIME))
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
