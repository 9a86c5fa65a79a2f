//! Any text to ids and back.
//!
//! Input: which tokenizer, then the text.

use crate::{
    choices::Choices,
    outcome::Outcome,
    pace,
    tokenizers::{self, Known},
};

/// # Panics
/// Where a text becomes a control token, doesn't come back, or takes too long.
pub fn target(data: &[u8]) -> Outcome {
    let mut choices = Choices::new(data);
    let Known { tokenizer, is_lossless, .. } = tokenizers::choose(choices.byte());
    let text = String::from_utf8_lossy(choices.rest());

    let ids = pace::in_time(text.len(), || tokenizer.encode(&text)).expect("every text can be encoded");
    for &id in &ids {
        assert!((id as usize) < tokenizer.vocab_size(), "{id} is no token");
        // The first tokenizer's unknown token is special and no control token.
        assert!(!tokenizer.is_special(id) || id == 0, "{text:?} became the control token {id}");
    }
    let decoded = pace::in_time(text.len(), || tokenizer.decode(&ids));
    if *is_lossless {
        assert!(ids.len() <= text.len(), "{} tokens of {} bytes", ids.len(), text.len());
        assert_eq!(decoded, tokenizers::after_a_round_trip(&text));
    }
    Outcome::Taken
}
