//! The server's side of what differs between server and browser: the request is read, and nothing in the DOM happens.
//!
//! The one place of the page that knows HTTP types. Has the same functions as `browser`; those that only make sense
//! there do nothing here, and are called by nobody while a page is being drawn.

use std::time::Duration;

use axum::http::{StatusCode, header, request::Parts};
use leptos::{
    prelude::*,
    web_sys::{Element, Event, HtmlTextAreaElement, MouseEvent},
};
use leptos_axum::ResponseOptions;

use super::{
    events::Handlers,
    preferences::{Dock, Preferences, Theme},
};

/// What the visitor prefers, by the request's headers.
pub fn preferences() -> Preferences {
    let header = |parts: &Parts, name| {
        parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let (cookies, languages) = use_context::<Parts>()
        .map(|parts| (header(&parts, header::COOKIE), header(&parts, header::ACCEPT_LANGUAGE)))
        .unwrap_or_default();
    Preferences::from_headers(&cookies, &languages)
}

/// Answers the page request with 404.
pub fn not_found() {
    if let Some(response) = use_context::<ResponseOptions>() {
        response.set_status(StatusCode::NOT_FOUND);
    }
}

/// There is no address bar; what a request asks for was loaded before the page is drawn.
pub fn path() -> String {
    String::new()
}

/// There is no history yet.
pub fn push_path(_path: &str) {}

/// Nobody clicks.
pub fn followed_link(_event: &MouseEvent) -> Option<String> {
    None
}

/// The document is written with its title.
pub fn set_title(_title: &str) {}

/// There is no document yet.
pub fn show_theme(_theme: Theme) {}

/// There is no document yet.
pub fn show_list(_list: Dock) {}

/// There is no address bar.
pub fn origin() -> String {
    String::new()
}

/// What follows the `#` stays in the browser.
pub fn offered_link() -> Option<String> {
    None
}

/// There is no browser to keep it.
pub fn set_cookie(_name: &str, _value: &str) {}

/// There is no document yet.
pub fn reload() {}

/// Nothing is stored here.
pub fn stored(_key: &str) -> Option<String> {
    None
}

/// Nothing is stored here.
pub fn store(_key: &str, _text: Option<&str>) {}

/// Nothing is stored here.
pub fn stored_keys() -> Vec<String> {
    Vec::new()
}

/// Nobody points at anything.
pub fn is_touch_first() -> bool {
    false
}

/// Nobody can see it yet.
pub fn is_hidden() -> bool {
    true
}

/// Everything is closed.
pub fn is_anything_open() -> bool {
    false
}

/// Nothing is laid out here.
pub fn is_shown(_id: &str) -> bool {
    false
}

/// There is no document yet.
pub fn order(_id: &str, _method: &str) {}

/// There is no document yet.
pub fn order_soon(_id: String, _method: &'static str) {}

/// Nothing is retried here.
pub fn random() -> f64 {
    0.0
}

/// Nobody writes before the page is there.
pub fn written(_field: &Element) -> Option<String> {
    None
}

/// Nothing is written here.
pub fn has_text(_field: &Element) -> bool {
    false
}

/// Nothing was written.
pub fn write_again(_field: &Element, _text: String) {}

/// Nothing is waited for here.
#[expect(clippy::unused_async, reason = "the browser's waiting takes time")]
pub async fn pause(_time: Duration) {}

/// Nothing is laid out here.
pub fn fit_height(_field: &HtmlTextAreaElement) {}

/// Nothing is selected here.
pub fn has_selection(_element: &Element) -> bool {
    false
}

/// There is no DOM to read.
pub fn code_beside(_button: &Element) -> Option<String> {
    None
}

/// There is no clipboard.
#[expect(clippy::unused_async, reason = "the browser's copying has to wait")]
pub async fn copy(_text: String) -> bool {
    false
}

/// Nothing happens here.
pub struct Listener;

impl Listener {
    /// Listens to nothing.
    pub fn new(_target: &Element, _event: &'static str, _handler: Box<dyn FnMut(Event) + Send>) -> Self {
        Self
    }
}

/// Nothing is laid out here.
pub struct ResizeWatch;

impl ResizeWatch {
    /// Watches nothing.
    pub fn new(_elements: &[Element], _changed: impl FnMut() + 'static) -> Option<Self> {
        None
    }
}

/// No stream is opened from here.
pub struct EventStream;

impl EventStream {
    /// Opens nothing.
    pub fn open(_url: &str, _handlers: Handlers) -> Option<Self> {
        None
    }
}
