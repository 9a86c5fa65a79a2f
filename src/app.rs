//! What is seen: the page's components and the store behind them.
//!
//! Owns the DOM. Knows the server only through `api`'s commands and the event stream of an answer.
//! **Architecture Invariant:** state changes in `answer` and `transcript` only, by `apply`; nothing here writes HTML.

pub mod preferences;

#[cfg(feature = "ssr")]
pub mod shell;

mod answer;
mod components;
#[cfg_attr(feature = "ssr", expect(dead_code, reason = "only a browser opens streams"))]
mod events;
mod format;
mod i18n;
mod keys;
mod page;
mod scroll;
mod starters;
mod store;
mod transcript;

#[cfg(feature = "ssr")]
#[path = "app/platform/server.rs"]
mod platform;

#[cfg(all(feature = "hydrate", not(feature = "ssr")))]
#[path = "app/platform/browser.rs"]
mod platform;

use leptos::prelude::*;
use leptos_meta::provide_meta_context;
use leptos_router::{
    SsrMode,
    components::{Outlet, ParentRoute, Route, Router, Routes},
    path,
};

/// The whole page. Both addresses are one route, so that a new conversation gets its address without being drawn again.
#[component]
pub fn App() -> impl IntoView {
    provide_meta_context();
    view! {
        <Router>
            <Routes fallback=page::Page>
                <ParentRoute path=path!("") view=PageForBoth ssr=SsrMode::Async>
                    <Route path=path!("") view=|| () ssr=SsrMode::Async/>
                    <Route path=path!("c/:conversation") view=|| () ssr=SsrMode::Async/>
                </ParentRoute>
            </Routes>
        </Router>
    }
    .into_any()
}

/// The page, and beside it what tells the two addresses apart: nothing that is seen.
#[component]
fn PageForBoth() -> impl IntoView {
    view! {
        <page::Page/>
        <Outlet/>
    }
    .into_any()
}
