//! Any text to blocks, whole and growing.
//!
//! Input: the text. Where it is divided follows from its bytes.

use xverse_chat::{
    chat::{
        event::{Event, EventKind},
        markup::Block,
    },
    render::{Growing, markdown},
};

use crate::{blocks, choices::mixed, outcome::Outcome, pace};

/// A text of up to so many bytes also comes character by character.
const SHORT: usize = 24;

/// # Panics
/// Where blocks break a rule, depend on how the text came, or take too long.
pub fn target(data: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(data);
    let whole = pace::in_time(text.len(), || markdown(&text));
    blocks::check(&whole);
    can_be_sent(&whole);

    assert_eq!(pace::in_time(text.len(), || grown(&[&text])), whole, "as one piece");
    assert_eq!(grown(&divided(&text, mixed(data))), whole, "in a few pieces");
    if text.len() <= SHORT {
        let characters: Vec<_> = text.split("").collect();
        assert_eq!(grown(&characters), whole, "character by character");
    }
    Outcome::Taken
}

/// The blocks at the end of a text that comes in pieces.
fn grown(pieces: &[&str]) -> Vec<Block> {
    let mut growing = Growing::default();
    let mut all = Vec::new();
    for piece in pieces {
        let update = growing.push(piece);
        blocks::check(&update.tail);
        all.extend(update.finished);
    }
    assert_eq!(growing.text(), pieces.concat());
    let last = growing.finish();
    assert!(last.tail.is_empty(), "a tail after the end");
    all.extend(last.finished);
    all
}

/// Up to five pieces, empty ones among them.
fn divided(text: &str, choice: u64) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    for byte in choice.to_be_bytes().into_iter().take(4) {
        let at = rest.floor_char_boundary(usize::from(byte) * rest.len() / 256);
        let (piece, after) = rest.split_at(at);
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    pieces
}

/// The page gets the blocks that the server has: nothing is nested deeper than readers go.
fn can_be_sent(whole: &[Block]) {
    let event = Event { seq: 1, kind: EventKind::Tail { blocks: whole.to_vec() } };
    let json = serde_json::to_vec(&event).expect("blocks become JSON");
    let read: Event = serde_json::from_slice(&json).expect("the page can read what the server sends");
    assert_eq!(read, event);
}
