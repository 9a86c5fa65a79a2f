//! How an element becomes HTML on the server and nodes in the browser.
//!
//! **Architecture Invariant:** drawing an element again over one of the same shape changes what differs and keeps the
//! node, so that a selection, a focus or a scroll position in it stays.

use leptos::{
    html::attributes_to_html,
    prelude::*,
    reactive::effect::RenderEffect,
    tachys::{
        html::attribute::{
            Attribute as AttributeTrait,
            any_attribute::{AnyAttribute, IntoAnyAttribute},
            custom::custom_attribute,
        },
        hydration::Cursor,
        renderer::{Rndr, types},
        view::{Mountable, Position, PositionState, add_attr::AddAnyAttr},
    },
    wasm_bindgen::{JsCast, JsValue},
    web_sys,
};

use super::{Attribute, Element, Value};
use crate::app::platform;

/// Elements that have no end tag.
const VOID: [&str; 3] = ["br", "hr", "input"];

/// Elements of drawings.
const DRAWN: [&str; 2] = ["svg", "path"];

const DRAWN_NAMESPACE: &str = "http://www.w3.org/2000/svg";

/// An element that is in the document.
pub struct ElementState {
    tag: &'static str,
    node: web_sys::Element,
    still: Vec<(&'static str, Value)>,
    live: Vec<RenderEffect<Value>>,
    listeners: Vec<platform::Listener>,
    children: Option<<Vec<AnyView> as Render>::State>,
}

/// Where a node comes from.
#[derive(Clone, Copy)]
enum Origin<'a> {
    /// From the document, with its attributes.
    Document,
    /// It was just made.
    New,
    /// It was there, with these attributes.
    Redrawn(&'a [(&'static str, Value)]),
}

fn set(node: &web_sys::Element, name: &str, value: &Value) {
    match &value.0 {
        Some(text) => Rndr::set_attribute(node, name, text),
        None => Rndr::remove_attribute(node, name),
    }
}

fn set_property(node: &web_sys::Element, name: &str, value: &Value) {
    Rndr::set_property(node, name, &JsValue::from_str(value.0.as_deref().unwrap_or_default()));
}

impl Element {
    /// Makes what is not among the children work on a node; its children are there already.
    fn attach(
        self,
        node: web_sys::Element,
        origin: Origin<'_>,
        children: Option<<Vec<AnyView> as Render>::State>,
    ) -> ElementState {
        let (mut still, mut live) = (Vec::new(), Vec::new());
        let parts = *self.0;
        let is_kept = parts.attributes.iter().any(|(_, attribute)| matches!(attribute, Attribute::Property(_)));
        let written = (is_kept && matches!(origin, Origin::Document)).then(|| platform::written(&node)).flatten();
        for (name, attribute) in parts.attributes {
            match attribute {
                Attribute::Still(value) => {
                    let is_set = match origin {
                        Origin::Document => true,
                        Origin::New => value.0.is_none(),
                        Origin::Redrawn(before) => {
                            before.iter().any(|(other, before)| *other == name && *before == value)
                        }
                    };
                    if !is_set {
                        set(&node, name, &value);
                    }
                    still.push((name, value));
                }
                Attribute::Live(value) => live.push(keep(&node, name, value, set, matches!(origin, Origin::Document))),
                Attribute::Property(value) => live.push(keep(&node, name, value, set_property, written.is_some())),
            }
        }
        let listeners = parts.listeners.into_iter();
        let listeners = listeners.map(|(event, handler)| platform::Listener::new(&node, event, handler)).collect();
        if let Some(loaded) = parts.loaded {
            loaded(&node);
        }
        if let Some(text) = written {
            platform::write_again(&node, text);
        }
        ElementState { tag: parts.tag, node, still, live, listeners, children }
    }

    /// Whether this could be drawn over what is there.
    fn fits(&self, state: &ElementState) -> bool {
        let still = self.0.attributes.iter().filter(|(_, attribute)| matches!(attribute, Attribute::Still(_)));
        self.0.tag == state.tag
            && self.0.children.is_empty() == state.children.is_none()
            && self.0.loaded.is_none()
            && still.map(|(name, _)| name).eq(state.still.iter().map(|(name, _)| name))
    }
}

/// Sets an attribute or property now, unless it came with the document, and whenever it changes.
fn keep(
    node: &web_sys::Element,
    name: &'static str,
    mut value: Box<dyn FnMut() -> Value + Send>,
    set: fn(&web_sys::Element, &str, &Value),
    is_set: bool,
) -> RenderEffect<Value> {
    let node = node.clone();
    RenderEffect::new(move |before: Option<Value>| {
        let value = value();
        let is_set = match &before {
            None => is_set,
            Some(before) => *before == value,
        };
        if !is_set {
            set(&node, name, &value);
        }
        value
    })
}

impl Render for Element {
    type State = ElementState;

    fn build(mut self) -> ElementState {
        let namespace = DRAWN.contains(&self.0.tag).then_some(DRAWN_NAMESPACE);
        let node = Rndr::create_element(self.0.tag, namespace);
        let children = std::mem::take(&mut self.0.children);
        let children = (!children.is_empty()).then(|| {
            let mut children = children.build();
            children.mount(&node, None);
            children
        });
        self.attach(node, Origin::New, children)
    }

    fn rebuild(mut self, state: &mut ElementState) {
        if !self.fits(state) {
            let mut new = self.build();
            state.insert_before_this(&mut new);
            state.unmount();
            *state = new;
            return;
        }
        if let Some(children) = &mut state.children {
            std::mem::take(&mut self.0.children).rebuild(children);
        }
        state.live.clear();
        state.listeners.clear();
        let children = state.children.take();
        *state = self.attach(state.node.clone(), Origin::Redrawn(&state.still), children);
    }
}

impl AddAnyAttr for Element {
    type Output<SomeNewAttr: AttributeTrait> = Self;

    /// Attributes are given by `with` alone.
    fn add_any_attr<NewAttr: AttributeTrait>(self, _: NewAttr) -> Self {
        self
    }
}

impl RenderHtml for Element {
    type AsyncOutput = Self;
    type Owned = Self;

    const MIN_LENGTH: usize = 0;

    fn dry_resolve(&mut self) {}

    async fn resolve(self) -> Self {
        self
    }

    fn to_html_with_buf(
        self,
        buf: &mut String,
        position: &mut Position,
        _escape: bool,
        mark_branches: bool,
        _extra_attrs: Vec<AnyAttribute>,
    ) {
        let parts = *self.0;
        let attributes = parts.attributes.into_iter().filter_map(|(name, attribute)| match attribute {
            Attribute::Still(value) => Some(custom_attribute(name, value.0?.into_owned()).into_any_attr()),
            Attribute::Live(mut value) => Some(custom_attribute(name, value().0?.into_owned()).into_any_attr()),
            Attribute::Property(_) => None,
        });
        buf.push('<');
        buf.push_str(parts.tag);
        attributes_to_html(attributes.collect::<Vec<_>>(), buf);
        buf.push('>');
        if !VOID.contains(&parts.tag) {
            if !parts.children.is_empty() {
                *position = Position::FirstChild;
                parts.children.to_html_with_buf(buf, position, true, mark_branches, Vec::new());
            }
            buf.push_str("</");
            buf.push_str(parts.tag);
            buf.push('>');
        }
        *position = Position::NextChild;
    }

    fn hydrate<const FROM_SERVER: bool>(mut self, cursor: &Cursor, position: &PositionState) -> ElementState {
        match position.get() {
            Position::FirstChild => cursor.child(),
            Position::Current => {}
            Position::NextChild | Position::NextChildAfterText | Position::OnlyChild | Position::LastChild => {
                cursor.sibling();
            }
        }
        let node: web_sys::Element =
            cursor.current().dyn_into().expect("invariant: the server drew the elements that the browser finds");
        let children = std::mem::take(&mut self.0.children);
        let children = (!children.is_empty()).then(|| {
            position.set(Position::FirstChild);
            children.hydrate::<FROM_SERVER>(cursor, position)
        });
        cursor.set(node.clone().into());
        position.set(Position::NextChild);
        self.attach(node, Origin::Document, children)
    }

    fn into_owned(self) -> Self {
        self
    }
}

impl Mountable for ElementState {
    fn unmount(&mut self) {
        Rndr::remove(&self.node);
    }

    fn mount(&mut self, parent: &types::Element, marker: Option<&types::Node>) {
        Rndr::insert_node(parent, &self.node, marker);
    }

    fn insert_before_this(&self, child: &mut dyn Mountable) -> bool {
        let parent = self.node.parent_element();
        if let Some(parent) = &parent {
            child.mount(parent, Some(&self.node));
        }
        parent.is_some()
    }

    fn elements(&self) -> Vec<types::Element> {
        vec![self.node.clone()]
    }
}

#[cfg(test)]
mod tests {
    use leptos::prelude::*;

    use crate::app::view::{Element, element, live, several};

    fn html(element: Element) -> String {
        element.to_html()
    }

    #[test]
    fn texts_and_values_are_never_markup() {
        let drawn = html(element("p").with("title", "\"<i>&".to_owned()).text("<b>&"));
        assert_eq!(drawn, r#"<p title="&quot;&lt;i&gt;&amp;">&lt;b&gt;&amp;<!></p>"#);
    }

    #[test]
    fn a_text_that_browsers_would_drop_is_drawn_as_another() {
        assert_eq!(html(element("p").text("\0")), "<p>\u{FFFD}<!></p>");
        assert_eq!(html(element("p").live_text(|| "a\0b")), "<p>a\u{FFFD}b<!></p>");
    }

    #[test]
    fn an_attribute_is_there_or_not_and_void_elements_have_no_end() {
        let field = element("input").with("disabled", true).with("checked", false).with("lang", None::<&str>);
        assert_eq!(html(field), r#"<input disabled="">"#);
        assert_eq!(html(element("td").class("wide")), r#"<td class="wide"></td>"#);
    }

    #[test]
    fn what_changes_is_drawn_as_it_stands() {
        let count = ArcRwSignal::new(2);
        let list = element("ul")
            .bind("data-count", {
                let count = count.clone();
                move || count.get().to_string()
            })
            .child(live(move || several((0..count.get()).map(|_| element("li").into()).collect())));
        assert_eq!(html(list), r#"<ul data-count="2"><li></li><li></li><!><!></ul>"#);
    }
}
