//! Keys that work wherever one is on the page.
//!
//! Knows what they lead to and nothing of how that looks. **Architecture Invariant:** a key that an input method or a field
//! took does nothing here, nor does one without Ctrl or Alt while somebody writes, but Escape.

use leptos::{ev, prelude::*, wasm_bindgen::JsCast, web_sys};

use super::{
    address,
    keys::{self, Composition},
    platform,
    store::{Store, edits::Side},
};

/// Listens, until the owner is cleaned up.
pub fn listen(store: Store) {
    let listener = window_event_listener(ev::keydown, move |event| {
        let composition = if event.is_composing() { Composition::Composing } else { Composition::Idle };
        if !keys::is_taken(event.key_code(), composition) && !event.default_prevented() && pressed(store, &event) {
            event.prevent_default();
        }
    });
    on_cleanup(move || listener.remove());
}

/// Whether the key press was meant for the page.
fn pressed(store: Store, event: &ev::KeyboardEvent) -> bool {
    let is_command = (event.ctrl_key() || event.meta_key()) && !event.alt_key();
    let is_alt = event.alt_key() && !(event.ctrl_key() || event.meta_key() || event.shift_key());
    match event.key().as_str() {
        // Not taken, for the browser has its own use for it.
        "Escape" if !platform::is_anything_open() => {
            store.stop();
            return false;
        }
        "o" | "O" if is_command && event.shift_key() => address::go(store, "/"),
        "b" | "B" if is_command && !event.shift_key() => toggle_list(),
        "k" | "K" if is_command && !event.shift_key() => {
            if !platform::is_shown("chat-search") {
                toggle_list();
            }
            platform::order_soon("chat-search".to_owned(), "focus");
        }
        // In a text these keys go from word to word.
        "ArrowLeft" if is_alt && !is_in_text(event) => return store.look_beside(Side::Previous),
        "ArrowRight" if is_alt && !is_in_text(event) => return store.look_beside(Side::Next),
        _ => return false,
    }
    true
}

fn toggle_list() {
    for id in ["list-dock", "list-drawer"] {
        if platform::is_shown(id) {
            return platform::order(id, "click");
        }
    }
}

fn is_in_text(event: &ev::KeyboardEvent) -> bool {
    let field = event.target().and_then(|target| target.dyn_into::<web_sys::Element>().ok());
    field.is_some_and(|field| platform::has_text(&field))
}
