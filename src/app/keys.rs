//! What a key press in the composer means.
//!
//! Pure, since it is where text gets lost or sent too early. **Architecture Invariant:** while an input method composes,
//! no key does anything: it is the input method's.

/// The key code that browsers report for a key that an input method took.
const KEY_CODE_COMPOSING: u32 = 229;

/// A key press as the browser reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyPress<'a> {
    /// `KeyboardEvent.key`.
    pub key: &'a str,
    /// `KeyboardEvent.keyCode`.
    pub key_code: u32,
    /// Whether Shift is held.
    pub shift: bool,
    /// Whether Ctrl or Cmd is held.
    pub command: bool,
    /// Whether Alt is held.
    pub alt: bool,
}

/// What the composer is in the middle of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Composition {
    /// Nothing.
    Idle,
    /// An input method composes, or ended within this task: Safari reports the Enter that ends it afterwards.
    Composing,
}

/// How the person writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keyboard {
    /// A keyboard with a Shift key at hand: Enter sends.
    Hardware,
    /// A touch screen's: Enter makes a new line.
    Touch,
}

/// Whether this key press sends the message.
#[must_use]
pub fn sends(press: KeyPress<'_>, composition: Composition, keyboard: Keyboard) -> bool {
    !is_taken(press.key_code, composition)
        && press.key == "Enter"
        && (press.command || (keyboard == Keyboard::Hardware && !press.shift && !press.alt))
}

/// Whether this key press is the input method's.
#[must_use]
pub fn is_taken(key_code: u32, composition: Composition) -> bool {
    key_code == KEY_CODE_COMPOSING || composition == Composition::Composing
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTER: KeyPress<'_> = KeyPress { key: "Enter", key_code: 13, shift: false, command: false, alt: false };

    #[test]
    fn enter_sends_and_shift_enter_does_not() {
        assert!(sends(ENTER, Composition::Idle, Keyboard::Hardware));
        assert!(!sends(KeyPress { shift: true, ..ENTER }, Composition::Idle, Keyboard::Hardware));
        assert!(!sends(KeyPress { key: "a", ..ENTER }, Composition::Idle, Keyboard::Hardware));
    }

    #[test]
    fn on_a_touch_keyboard_only_a_command_key_sends() {
        assert!(!sends(ENTER, Composition::Idle, Keyboard::Touch));
        assert!(sends(KeyPress { command: true, ..ENTER }, Composition::Idle, Keyboard::Touch));
    }

    #[test]
    fn a_key_that_an_input_method_took_does_nothing_else() {
        const ESCAPE: u32 = 27;
        assert!(!is_taken(ESCAPE, Composition::Idle));
        assert!(is_taken(ESCAPE, Composition::Composing));
        assert!(is_taken(KEY_CODE_COMPOSING, Composition::Idle));
    }

    #[test]
    fn nothing_sends_while_an_input_method_composes() {
        for command in [false, true] {
            let press = KeyPress { command, ..ENTER };
            assert!(!sends(press, Composition::Composing, Keyboard::Hardware));
            let taken = KeyPress { key_code: KEY_CODE_COMPOSING, ..press };
            assert!(!sends(taken, Composition::Idle, Keyboard::Hardware));
        }
    }
}
