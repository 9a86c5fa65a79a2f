#![doc = include_str!("ARCHITECTURE.md")]

pub mod chat;

pub mod api;

pub mod app;

#[cfg(feature = "ssr")]
pub mod render;

#[cfg(feature = "ssr")]
pub mod engine;

#[cfg(feature = "ssr")]
pub mod storage;

#[cfg(feature = "ssr")]
pub mod server;

/// The README's examples, which the tests compile and run.
#[cfg(all(doctest, feature = "ssr"))]
#[doc = include_str!("../README.md")]
pub struct Readme;

/// Takes over the server-rendered page in the browser.
#[cfg(feature = "hydrate")]
#[wasm_bindgen::prelude::wasm_bindgen]
pub fn hydrate() {
    console_error_panic_hook::set_once();
    leptos::mount::hydrate_body(app::page::Page);
}
