//! What is seen: the page's components and the store behind them.

use leptos::prelude::*;

/// The whole page.
#[component]
pub fn App() -> impl IntoView {
    view! { <main>"XVERSE Chat"</main> }
}
