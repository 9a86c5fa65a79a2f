//! What the components are written in: elements as plain values, and parts of the page that change.
//!
//! Leptos' own elements are a type for each tag, attribute and list of children, and the wasm carries code for every one
//! of them: twice the bytes for the same page. Here all elements are of one type, and so is whatever changes.
//! Knows nothing of conversations. **Architecture Invariant:** a text becomes a text node or an attribute's value, never
//! markup.

mod render;

use std::borrow::Cow;

use leptos::{ev, html::ElementType, prelude::*, tachys::html::node_ref::NodeRefContainer, web_sys};

use super::state::{Derived, memo};

/// An attribute's value; absent where there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value(Option<Cow<'static, str>>);

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self(Some(text.into()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self(Some(text.into()))
    }
}

impl From<Option<&'static str>> for Value {
    fn from(text: Option<&'static str>) -> Self {
        Self(text.map(Cow::from))
    }
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        Self(text.map(Cow::from))
    }
}

impl From<bool> for Value {
    fn from(is_there: bool) -> Self {
        Self(is_there.then_some("".into()))
    }
}

enum Attribute {
    Still(Value),
    Live(Box<dyn FnMut() -> Value + Send>),
    /// Not an attribute, but the property of that name, which a person can change too.
    Property(Box<dyn FnMut() -> Value + Send>),
}

type Handler = Box<dyn FnMut(ev::Event) + Send>;

type Loaded = Box<dyn FnOnce(&web_sys::Element) + Send>;

/// An element and everything in it; behind a pointer, since it is handed from call to call while it is put together.
pub struct Element(Box<Parts>);

struct Parts {
    tag: &'static str,
    attributes: Vec<(&'static str, Attribute)>,
    listeners: Vec<(&'static str, Handler)>,
    loaded: Option<Loaded>,
    children: Vec<AnyView>,
}

/// An element without anything.
#[must_use]
pub fn element(tag: &'static str) -> Element {
    let parts = Parts { tag, attributes: Vec::new(), listeners: Vec::new(), loaded: None, children: Vec::new() };
    Element(Box::new(parts))
}

impl Element {
    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.attributes.push((name, Attribute::Still(value.into())));
        self
    }

    /// Adds the attribute that style sheets go by.
    #[must_use]
    pub fn class(self, names: &'static str) -> Self {
        self.with("class", names)
    }

    /// Adds the attribute that tests go by.
    #[must_use]
    pub fn handle(self, name: &'static str) -> Self {
        self.with("data-testid", name)
    }

    /// Adds an attribute that changes.
    #[must_use]
    pub fn bind<V: Into<Value>>(mut self, name: &'static str, mut value: impl FnMut() -> V + Send + 'static) -> Self {
        self.0.attributes.push((name, Attribute::Live(Box::new(move || value().into()))));
        self
    }

    /// Keeps a field's text the same as this value whenever that changes. What was written in it before the page came
    /// alive stays, and is told of by an `input` event and a `written` one.
    #[must_use]
    pub fn value<V: Into<Value>>(mut self, mut value: impl FnMut() -> V + Send + 'static) -> Self {
        self.0.attributes.push(("value", Attribute::Property(Box::new(move || value().into()))));
        self
    }

    /// Calls back whenever such an event happens.
    #[must_use]
    pub fn on(mut self, event: &'static str, handler: impl FnMut(ev::Event) + Send + 'static) -> Self {
        self.0.listeners.push((event, Box::new(handler)));
        self
    }

    /// Gives the node to this reference, in the browser.
    #[must_use]
    pub fn node<E: ElementType>(mut self, node: NodeRef<E>) -> Self
    where
        NodeRef<E>: NodeRefContainer<E>,
    {
        self.0.loaded = Some(Box::new(move |element| node.load(element)));
        self
    }

    /// Adds a text.
    #[must_use]
    pub fn text(self, text: impl Into<String>) -> Self {
        self.child(text_node(text.into()))
    }

    /// Adds a text that changes.
    #[must_use]
    pub fn live_text<T: Into<String>>(self, mut text: impl FnMut() -> T + Send + 'static) -> Self {
        self.child(live(move || text_node(text().into())))
    }

    /// Adds a child.
    #[must_use]
    pub fn child(mut self, child: impl Into<AnyView>) -> Self {
        self.0.children.push(child.into());
        self
    }

    /// Adds each of these.
    #[must_use]
    pub fn children<C: Into<AnyView>>(mut self, children: impl IntoIterator<Item = C>) -> Self {
        self.0.children.extend(children.into_iter().map(Into::into));
        self
    }
}

impl From<Element> for AnyView {
    fn from(element: Element) -> Self {
        element.into_any()
    }
}

/// Several parts, one after the other.
pub fn several(parts: Vec<AnyView>) -> AnyView {
    parts.into_any()
}

/// A text. Browsers leave NUL out of a document that they read, and where nothing else is in a text the page would look in
/// vain for it.
fn text_node(text: String) -> AnyView {
    if text.contains('\0') { text.replace('\0', "\u{FFFD}").into_any() } else { text.into_any() }
}

/// Nothing.
pub fn nothing() -> AnyView {
    ().into_any()
}

/// A part that is drawn again whenever something changes that it read; nodes of the same shape stay.
pub fn live(draw: impl FnMut() -> AnyView + Send + 'static) -> AnyView {
    let draw: Box<dyn FnMut() -> AnyView + Send> = Box::new(draw);
    draw.into_any()
}

/// A part that is there while a condition holds.
pub fn shown_while(
    condition: impl Fn() -> bool + Send + Sync + 'static,
    draw: impl Fn() -> AnyView + Send + 'static,
) -> AnyView {
    boxed_while(memo(condition), Box::new(draw))
}

// What takes boxes stands apart from what makes them: inside a generic function each closure is a type of its own.

fn boxed_while(is_shown: Derived<bool>, draw: Box<dyn Fn() -> AnyView + Send>) -> AnyView {
    live(move || if is_shown.get() { draw() } else { nothing() })
}

/// One of a list of parts.
pub struct Item {
    key: u128,
    draw: Box<dyn FnOnce() -> AnyView + Send>,
}

impl Item {
    /// The part with this name.
    pub fn new(key: u128, draw: impl FnOnce() -> AnyView + Send + 'static) -> Self {
        Self { key, draw: Box::new(draw) }
    }
}

/// A list of parts of which each is drawn once and keeps its nodes for as long as its name is in the list.
pub fn each(items: impl Fn() -> Vec<Item> + Send + Sync + 'static) -> AnyView {
    each_boxed(Box::new(items))
}

fn each_boxed(items: Box<dyn Fn() -> Vec<Item> + Send + Sync>) -> AnyView {
    view! { <For each=items key=|item| item.key children=|item| (item.draw)()/> }.into_any()
}

/// Does something in the browser, once the page is there and again whenever something changes that it read.
pub fn effect(run: impl FnMut() + 'static) {
    boxed_effect(Box::new(run));
}

fn boxed_effect(mut run: Box<dyn FnMut()>) {
    Effect::new(move |_: Option<()>| run());
}
