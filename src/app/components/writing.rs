//! Fields in which something is written and a key does something with it.
//!
//! **Architecture Invariant:** a key press that an input method took reaches neither the field's owner nor the page.

use std::time::Duration;

use leptos::{ev, prelude::*, wasm_bindgen::JsCast};

use crate::app::{
    keys::{self, Composition, KeyPress, Keyboard},
    platform,
    state::State,
    view::Element,
};

/// Whether an input method composes in a field.
#[derive(Clone, Copy)]
pub struct Writing(State<Composition>);

impl Writing {
    /// In a field that nothing is written in yet.
    pub fn new() -> Self {
        Self(State::new(Composition::Idle))
    }

    /// Whether it composes.
    pub fn is_composing(self) -> bool {
        self.0.get_untracked() == Composition::Composing
    }

    /// Watches the field, and calls back with each key press that is for the page.
    pub fn watch(self, field: Element, mut pressed: impl FnMut(&ev::KeyboardEvent) + Send + 'static) -> Element {
        let key_pressed = move |event: ev::Event| {
            let Some(event) = event.dyn_ref::<ev::KeyboardEvent>() else { return };
            let composition = if event.is_composing() { Composition::Composing } else { self.0.get_untracked() };
            if keys::is_taken(event.key_code(), composition) {
                event.stop_propagation();
            } else {
                pressed(event);
            }
        };
        let ended = move |_| {
            set_timeout(move || self.0.set(Composition::Idle), Duration::ZERO);
        };
        field
            .on("keydown", key_pressed)
            .on("compositionstart", move |_| self.0.set(Composition::Composing))
            .on("compositionend", ended)
    }
}

/// Whether this key press sends what was written.
pub fn sends(event: &ev::KeyboardEvent) -> bool {
    let press = KeyPress {
        key: &event.key(),
        key_code: event.key_code(),
        shift: event.shift_key(),
        command: event.ctrl_key() || event.meta_key(),
        alt: event.alt_key(),
    };
    let keyboard = if platform::is_touch_first() { Keyboard::Touch } else { Keyboard::Hardware };
    keys::sends(press, Composition::Idle, keyboard)
}
