//! The routes, as one table: what there is to ask for, and what may be asked without the access token.
//!
//! Knows no handlers. **Architecture Invariant:** the router is built of this and of nothing else, so whoever goes through
//! the table has gone through all there is; beyond it lie the page's files and the page that says that there is no such.

use axum::http::Method;
use leptos::{config::LeptosOptions, server_fn::axum::server_fn_paths};
use leptos_axum::site_pkg_dir_service_route_path;

/// One method of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path, as the router reads it: `{name}` stands for one part of it, `{*name}` for all the rest.
    pub path: String,
    /// What it leads to.
    pub leads_to: LeadsTo,
}

/// What a route leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeadsTo {
    /// The page.
    Page,
    /// A server function.
    Command,
    /// An answer's events.
    Events,
    /// The page's script, styles and icon.
    File,
    /// Where the access token is given.
    Login,
    /// What leads there from the form's address.
    LoginPage,
    /// That the process lives.
    Health,
    /// That the model is loaded.
    Readiness,
    /// The counters.
    Metrics,
    /// What the API says of the model.
    Models,
    /// An answer to a conversation, over the API.
    ChatCompletions,
    /// What follows on a text, over the API.
    Completions,
    /// A text's token ids.
    Tokenize,
    /// The text of token ids.
    Detokenize,
    /// The tokenizer's special tokens.
    TokenizerInfo,
}

impl LeadsTo {
    /// Whether it can be asked for without the access token.
    #[must_use]
    pub fn is_open(self) -> bool {
        match self {
            Self::File | Self::Login | Self::LoginPage | Self::Health | Self::Readiness => true,
            Self::Page
            | Self::Command
            | Self::Events
            | Self::Metrics
            | Self::Models
            | Self::ChatCompletions
            | Self::Completions
            | Self::Tokenize
            | Self::Detokenize
            | Self::TokenizerInfo => false,
        }
    }
}

/// Every route.
#[must_use]
pub fn routes(leptos: &LeptosOptions) -> Vec<Route> {
    let files = site_pkg_dir_service_route_path(leptos);
    let read = [
        ("/", LeadsTo::Page),
        ("/c/{conversation}", LeadsTo::Page),
        ("/generations/{id}/events", LeadsTo::Events),
        (files.as_str(), LeadsTo::File),
        ("/icon.svg", LeadsTo::File),
        ("/login", LeadsTo::LoginPage),
        ("/healthz", LeadsTo::Health),
        ("/readyz", LeadsTo::Readiness),
        ("/metrics", LeadsTo::Metrics),
        ("/v1/models", LeadsTo::Models),
        ("/v1/models/{model}", LeadsTo::Models),
        ("/tokenizer_info", LeadsTo::TokenizerInfo),
    ];
    let asked = [
        ("/login", LeadsTo::Login),
        ("/v1/chat/completions", LeadsTo::ChatCompletions),
        ("/v1/completions", LeadsTo::Completions),
        ("/tokenize", LeadsTo::Tokenize),
        ("/detokenize", LeadsTo::Detokenize),
    ];
    let route = |method: Method, path: &str, leads_to| Route { method, path: path.to_owned(), leads_to };
    let read = read.map(|(path, leads_to)| route(Method::GET, path, leads_to));
    let asked = asked.map(|(path, leads_to)| route(Method::POST, path, leads_to));
    let commands = server_fn_paths().map(|(path, method)| route(method, path, LeadsTo::Command));
    read.into_iter().chain(asked).chain(commands).collect()
}
