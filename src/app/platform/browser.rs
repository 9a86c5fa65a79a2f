//! The browser's side of what differs between server and browser: small wrappers around what the DOM offers.
//!
//! Knows nothing of conversations. Every call can fail quietly (private windows without storage, old browsers), so every
//! caller must be right without it.

use std::time::Duration;

use leptos::prelude::*;
use wasm_bindgen::{JsCast, JsValue, closure::Closure};
use web_sys::{Element, Event, EventSource, HtmlElement, HtmlTextAreaElement, MessageEvent, MouseEvent};

use super::{
    events::{Handlers, Trouble},
    preferences::{Dock, Language, Preferences, Theme},
};

/// What the visitor prefers, as the server wrote it into the document.
pub fn preferences() -> Preferences {
    let root = document().document_element();
    let attribute = |name| root.as_ref().and_then(|root| root.get_attribute(name));
    Preferences {
        language: attribute("lang").and_then(|tag| Language::from_tag(&tag)).unwrap_or(Language::Chinese),
        theme: attribute("data-theme").and_then(|name| Theme::from_name(&name)).unwrap_or(Theme::System),
        list: attribute("data-chats").and_then(|name| Dock::from_name(&name)).unwrap_or(Dock::Open),
    }
}

/// The response has its status already.
pub fn not_found() {}

/// The path of the document's address.
pub fn path() -> String {
    window().location().pathname().unwrap_or_default()
}

/// Gives the document this path, as a step that back undoes.
pub fn push_path(path: &str) {
    if let Ok(history) = window().history() {
        let _ = history.push_state_with_url(&JsValue::NULL, "", Some(path));
    }
}

/// The path that a click leads to, where it is one of the page's own and the click asks for nothing else, such as a tab.
pub fn followed_link(event: &MouseEvent) -> Option<String> {
    let is_plain = event.button() == 0
        && !(event.default_prevented() || event.ctrl_key() || event.meta_key() || event.shift_key() || event.alt_key());
    let link = event.target()?.dyn_into::<Element>().ok()?.closest("a[href^='/']:not([target])").ok()??;
    link.get_attribute("href").filter(|_| is_plain)
}

/// Names the document.
pub fn set_title(title: &str) {
    document().set_title(title);
}

/// Colours the document.
pub fn show_theme(theme: Theme) {
    if let Some(root) = document().document_element() {
        let _ = root.set_attribute("data-theme", theme.name());
    }
}

/// Shows or hides the list of conversations at the side.
pub fn show_list(list: Dock) {
    if let Some(root) = document().document_element() {
        let _ = root.set_attribute("data-chats", list.name());
    }
}

/// The scheme, host and port of the document's address.
pub fn origin() -> String {
    window().location().origin().unwrap_or_default()
}

/// The code of the link that the document was opened with, which goes out of the address and its history.
pub fn offered_link() -> Option<String> {
    let code = window().location().hash().ok()?.strip_prefix("#link=")?.to_owned();
    let history = window().history().ok()?;
    let _ = history.replace_state_with_url(&JsValue::NULL, "", Some(&path()));
    Some(code)
}

/// Keeps a preference for a year.
pub fn set_cookie(name: &str, value: &str) {
    let cookie = format!("{name}={value}; path=/; max-age=31536000; samesite=lax");
    let _ = js_sys::Reflect::set(&document(), &"cookie".into(), &cookie.into());
}

/// Loads the document again.
pub fn reload() {
    let _ = window().location().reload();
}

/// What was stored under this key.
pub fn stored(key: &str) -> Option<String> {
    window().local_storage().ok()??.get_item(key).ok()?
}

/// Stores a text under this key, or removes what was stored.
pub fn store(key: &str, text: Option<&str>) {
    if let Ok(Some(storage)) = window().local_storage() {
        let _ = match text {
            Some(text) => storage.set_item(key, text),
            None => storage.remove_item(key),
        };
    }
}

/// Under which keys something is stored.
pub fn stored_keys() -> Vec<String> {
    let Ok(Some(storage)) = window().local_storage() else { return Vec::new() };
    (0..storage.length().unwrap_or_default()).filter_map(|index| storage.key(index).ok()?).collect()
}

/// Whether the main way of pointing is a finger.
pub fn is_touch_first() -> bool {
    matches!(window().match_media("(hover: none) and (pointer: coarse)"), Ok(Some(query)) if query.matches())
}

/// Whether nobody can see the page.
pub fn is_hidden() -> bool {
    document().hidden()
}

/// Whether a drawer, menu or dialog is open.
pub fn is_anything_open() -> bool {
    matches!(document().query_selector(":popover-open, dialog[open]"), Ok(Some(_)))
}

/// Whether the element with this id takes room on the page.
pub fn is_shown(id: &str) -> bool {
    let element = document().get_element_by_id(id).and_then(|element| element.dyn_into::<HtmlElement>().ok());
    element.is_some_and(|element| element.offset_width() > 0)
}

/// Calls a method without arguments of the element with this id, where there is such a one.
pub fn order(id: &str, method: &str) {
    if let Some(element) = document().get_element_by_id(id) {
        call(&element, method, &JsValue::UNDEFINED);
    }
}

/// The same once what was changed has been drawn.
pub fn order_soon(id: String, method: &'static str) {
    request_animation_frame(move || order(&id, method));
}

/// A number between 0 and 1, for spreading retries.
pub fn random() -> f64 {
    js_sys::Math::random()
}

/// What somebody wrote in this text field since the document came.
pub fn written(field: &Element) -> Option<String> {
    let is_text = matches!(property(field, "type").as_deref(), Some("text" | "textarea"));
    property(field, "value").filter(|text| is_text && Some(text) != property(field, "defaultValue").as_ref())
}

/// Whether there is a text in this field; what is no field has none.
pub fn has_text(field: &Element) -> bool {
    property(field, "value").is_some_and(|text| !text.is_empty())
}

fn property(field: &Element, name: &str) -> Option<String> {
    js_sys::Reflect::get(field, &name.into()).ok()?.as_string()
}

/// Lets a field have this text as though it were being written, once the page is all there; `written` tells after `input`
/// that it was written before.
pub fn write_again(field: &Element, text: String) {
    let field = field.clone();
    queue_microtask(move || {
        let _ = js_sys::Reflect::set(&field, &"value".into(), &text.into());
        for name in ["input", "written"] {
            if let Ok(event) = Event::new(name) {
                let _ = field.dispatch_event(&event);
            }
        }
    });
}

/// Waits.
pub async fn pause(time: Duration) {
    let timer = |resolve: js_sys::Function, _| {
        let _ = window().set_timeout_with_callback_and_timeout_and_arguments_0(&resolve, time.as_millis() as i32);
    };
    let _ = js_sys::Promise::new(&mut { timer }).await;
}

/// Makes a text field as high as its text; the style sheet bounds it.
pub fn fit_height(field: &HtmlTextAreaElement) {
    let style = field.unchecked_ref::<HtmlElement>().style();
    let _ = style.set_property("height", "auto");
    let _ = style.set_property("height", &format!("{}px", field.scroll_height()));
}

/// Whether some text inside this element is selected.
pub fn has_selection(element: &Element) -> bool {
    matches!(window().get_selection(), Ok(Some(selection))
        if !selection.is_collapsed() && element.contains(selection.anchor_node().as_ref()))
}

/// The code of the block that this button belongs to.
pub fn code_beside(button: &Element) -> Option<String> {
    let block = button.closest("figure").ok()??;
    block.query_selector("code").ok()??.text_content()
}

/// Copies a text; whether it worked. Where the page is not secure there is no clipboard, so an invisible field is
/// selected and copied the old way.
pub async fn copy(text: String) -> bool {
    if window().is_secure_context() && window().navigator().clipboard().write_text(&text).await.is_ok() {
        return true;
    }
    copy_by_selection(&text).unwrap_or(false)
}

fn copy_by_selection(text: &str) -> Option<bool> {
    let focused = document().active_element();
    let field = document().create_element("textarea").ok()?.dyn_into::<HtmlTextAreaElement>().ok()?;
    field.set_class_name("visually-hidden");
    field.set_read_only(true);
    field.set_value(text);
    document().body()?.append_child(&field).ok()?;
    field.select();
    let copied = call(&document(), "execCommand", &"copy".into());
    field.remove();
    if let Some(focused) = focused.and_then(|element| element.dyn_into::<HtmlElement>().ok()) {
        let _ = focused.focus();
    }
    Some(copied?.is_truthy())
}

fn call(target: &JsValue, method: &str, argument: &JsValue) -> Option<JsValue> {
    let method = js_sys::Reflect::get(target, &method.into()).ok()?;
    method.dyn_ref::<js_sys::Function>()?.call1(target, argument).ok()
}

/// Listens to an element's events until it is dropped.
pub struct Listener {
    target: Element,
    event: &'static str,
    handler: Closure<dyn FnMut(Event)>,
}

impl Listener {
    /// Begins to listen.
    pub fn new(target: &Element, event: &'static str, handler: Box<dyn FnMut(Event) + Send>) -> Self {
        let handler: Box<dyn FnMut(Event)> = handler;
        let handler = Closure::wrap(handler);
        let _ = target.add_event_listener_with_callback(event, handler.as_ref().unchecked_ref());
        Self { target: target.clone(), event, handler }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.target.remove_event_listener_with_callback(self.event, self.handler.as_ref().unchecked_ref());
    }
}

/// Calls back whenever one of these elements changes its size, before it is painted, until it is dropped.
pub struct ResizeWatch {
    observer: JsValue,
    _changed: Closure<dyn FnMut()>,
}

impl ResizeWatch {
    /// Begins to watch; `None` where the browser can't.
    pub fn new(elements: &[Element], changed: impl FnMut() + 'static) -> Option<Self> {
        let changed = Closure::<dyn FnMut()>::new(changed);
        let constructor = js_sys::Reflect::get(&window(), &"ResizeObserver".into()).ok()?;
        let arguments = js_sys::Array::of1(changed.as_ref());
        let observer = js_sys::Reflect::construct(constructor.dyn_ref::<js_sys::Function>()?, &arguments).ok()?;
        for element in elements {
            call(&observer, "observe", element);
        }
        Some(Self { observer, _changed: changed })
    }
}

impl Drop for ResizeWatch {
    fn drop(&mut self) {
        call(&self.observer, "disconnect", &JsValue::UNDEFINED);
    }
}

/// An open stream of server-sent events; dropping it closes it.
pub struct EventStream {
    source: EventSource,
    _opened: Closure<dyn FnMut()>,
    _message: Closure<dyn FnMut(MessageEvent)>,
    _failed: Closure<dyn FnMut()>,
}

impl EventStream {
    /// Opens a stream. The browser's own reconnecting is not used: it would ask again from where the URL says.
    pub fn open(url: &str, handlers: Handlers) -> Option<Self> {
        let source = EventSource::new(url).ok()?;
        let Handlers { opened, mut message, mut failed } = handlers;
        let opened = Closure::wrap(opened);
        let message = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
            if let Some(data) = event.data().as_string() {
                message(&data);
            }
        });
        let failed = Closure::<dyn FnMut()>::new({
            let source = source.clone();
            move || {
                let refused = source.ready_state() == EventSource::CLOSED;
                source.close();
                failed(if refused { Trouble::Refused } else { Trouble::CutOff });
            }
        });
        source.set_onopen(Some(opened.as_ref().unchecked_ref()));
        source.set_onmessage(Some(message.as_ref().unchecked_ref()));
        source.set_onerror(Some(failed.as_ref().unchecked_ref()));
        Some(Self { source, _opened: opened, _message: message, _failed: failed })
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.source.set_onopen(None);
        self.source.set_onmessage(None);
        self.source.set_onerror(None);
        self.source.close();
    }
}
