//! The same conversations on another device: making a link there, and the question before one is taken.
//!
//! **Architecture Invariant:** a link that the page was opened with does nothing before somebody agreed to it.

use leptos::prelude::*;

use super::{
    button::{button, copy_button, icon_button, quiet_button},
    icon::{Icon, glyph},
};
use crate::{
    app::{
        platform,
        store::Store,
        view::{Element, effect, element, live},
    },
    chat::list::OwnerLink,
};

/// Makes a link, and shows it.
pub fn device_link(store: Store) -> Element {
    let content = move || match store.list.link.get() {
        None => quiet_button()
            .handle("device-link")
            .on("click", move |_| store.make_link())
            .child(glyph(Icon::Devices))
            .text(store.texts.list.link)
            .into(),
        Some(link) => made(store, &link).into(),
    };
    element("div").class("chats-foot").child(live(content))
}

fn made(store: Store, link: &OwnerLink) -> Element {
    let texts = &store.texts.list;
    let address = format!("{}/#link={}", platform::origin(), link.code);
    let close =
        icon_button(store.texts.close).on("click", move |_| store.list.link.set(None)).child(glyph(Icon::Cross));
    let field = element("input")
        .with("type", "text")
        .with("id", "device-address")
        .handle("device-address")
        .with("readonly", true)
        .with("aria-label", texts.link)
        .with("value", address.clone())
        .on("focus", |_| platform::order("device-address", "select"));
    let copy = copy_button(store.texts, move |_| Some(address.clone()));
    element("div").class("device").children([
        element("div").class("device-head").child(element("h2").text(texts.link)).child(close),
        element("p").text(texts.link_use),
        element("div").class("device-row").child(field).child(copy),
        element("p").text((texts.link_holds)(link.expires_s / 60)),
    ])
}

/// Asks whether to take the link that the page was opened with.
pub fn offer(store: Store) -> Element {
    let texts = &store.texts.list;
    let offered = store.list.offered;
    effect(move || {
        let take = move || {
            if let Some(code) = platform::offered_link() {
                offered.set(Some(code));
            }
        };
        let listener = window_event_listener_untyped("hashchange", move |_| take());
        on_cleanup(move || listener.remove());
        take();
    });
    effect(move || {
        if offered.with(Option::is_some) {
            platform::order("offer", "showModal");
        }
    });
    let accept = move |_| {
        if let Some(code) = offered.get_untracked() {
            store.take_link(code);
        }
        platform::order("offer", "close");
    };
    let row = element("div").class("edit-row").children([
        button()
            .class("plain")
            .handle("offer-cancel")
            .on("click", |_| platform::order("offer", "close"))
            .text(store.texts.answer.cancel),
        button().class("plain strong").handle("offer-take").on("click", accept).text(texts.offer_take),
    ]);
    element("dialog")
        .class("offer")
        .with("id", "offer")
        .with("aria-labelledby", "offer-title")
        .on("close", move |_| offered.set(None))
        .children([
            element("h2").with("id", "offer-title").text(texts.offer_title),
            element("p").text(texts.offer_text),
            row,
        ])
}
