//! A page request: what its address asks for, and the document around it.
//!
//! Everything is loaded before drawing begins, so a page is never half there and its status is known before its first
//! byte. Knows nothing of how it looks.

use std::sync::Arc;

use axum::{
    Extension,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, Response, StatusCode, header, request::Parts},
    response::{Html, IntoResponse},
};
use leptos::{
    IntoView,
    config::LeptosOptions,
    prelude::{Owner, RenderHtml, provide_context},
};
use leptos_axum::render_app_async_with_context;

use super::{refusal::refusal, security, service, session::Visitor, state::Server};
use crate::{
    app::{
        address::Address,
        page::Loaded,
        shell::{
            login::{Asked, login},
            shell,
        },
    },
    chat::error::{ChatError, ErrorCode},
};

/// What drawing a page takes.
#[derive(Debug, Clone)]
pub struct Pages {
    /// What is drawn.
    pub server: Arc<Server>,
    /// Where the page's files are.
    pub leptos: LeptosOptions,
}

/// Answers a request for a page, whatever its address.
pub async fn page(
    State(Pages { server, leptos }): State<Pages>,
    Extension(visitor): Extension<Visitor>,
    request: Request,
) -> Response<Body> {
    let loaded = match load(&server, visitor, Address::parse(request.uri().path())).await {
        Ok(loaded) => loaded,
        Err(error) => return refusal(&error),
    };
    let context = move || {
        provide_context(server.clone());
        provide_context(loaded.clone());
    };
    render_app_async_with_context(context, move || document(leptos.clone()))(request).await
}

fn document(options: LeptosOptions) -> impl IntoView {
    security::set_page_policy();
    shell(options)
}

async fn load(server: &Arc<Server>, visitor: Visitor, address: Address) -> Result<Loaded, ChatError> {
    let conversation = match address {
        Address::Conversation(id) => Some(id),
        Address::Start | Address::Unknown => None,
    };
    let is_missing = match service::page_of(server, visitor, conversation).await {
        Err(error) if error.code == ErrorCode::NotFound => true,
        page => return Ok(Loaded { page: page?, is_missing: address == Address::Unknown }),
    };
    Ok(Loaded { page: service::page_of(server, visitor, None).await?, is_missing })
}

/// What the page that asks for the access token may load: its style sheet and icon, and no script.
const LOGIN_POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; \
                            frame-ancestors 'none'";

/// What the page that asks for the access token is drawn with.
#[derive(Debug, Clone)]
pub struct LoginPage {
    /// Of the page behind it.
    pub title: String,
    /// Where its style sheet is.
    pub leptos: LeptosOptions,
}

impl LoginPage {
    /// Answers a request with it: 401, and where to go on.
    pub fn answer(&self, request: Parts, to: String, asked: Asked) -> Response<Body> {
        let draw = || {
            provide_context(request);
            login(&self.leptos, &self.title, to, asked).to_html()
        };
        let headers = [
            (header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(LOGIN_POLICY)),
        ];
        (StatusCode::UNAUTHORIZED, headers, Html(Owner::new().with(draw))).into_response()
    }
}
