//! A page request: what its address asks for, and the document around it.
//!
//! Everything is loaded before drawing begins, so a page is never half there. Knows nothing of how it looks.

use axum::http::request::Parts;
use leptos::{
    IntoView,
    config::LeptosOptions,
    prelude::{provide_context, use_context},
};

use super::{security, service};
use crate::{
    app::{address::Address, page::Loaded, shell::shell},
    chat::{
        error::{ChatError, ErrorCode},
        ids::ConversationId,
    },
};

/// The document for the request in the context.
pub fn page(options: LeptosOptions) -> impl IntoView {
    security::set_page_policy();
    let path = use_context::<Parts>().map(|parts| parts.uri.path().to_owned()).unwrap_or_default();
    match load(Address::parse(&path)) {
        Ok(loaded) => provide_context(loaded),
        Err(error) => tracing::error!(%error, "a page could not be loaded"),
    }
    shell(options)
}

fn load(address: Address) -> Result<Loaded, ChatError> {
    match address {
        Address::Start => Ok(Loaded { page: service::page(None)?, is_missing: false }),
        Address::Conversation(id) => load_conversation(id),
        Address::Unknown => Ok(Loaded { page: service::page(None)?, is_missing: true }),
    }
}

fn load_conversation(id: ConversationId) -> Result<Loaded, ChatError> {
    match service::page(Some(id)) {
        Err(error) if error.code == ErrorCode::NotFound => load(Address::Unknown),
        page => Ok(Loaded { page: page?, is_missing: false }),
    }
}
