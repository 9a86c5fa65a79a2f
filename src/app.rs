//! What is seen: the page's components and the store behind them.

#[cfg(feature = "ssr")]
pub mod shell;

use leptos::prelude::*;

/// The whole page.
#[component]
pub fn App() -> impl IntoView {
    view! { <main>"XVERSE Chat"</main> }
}
