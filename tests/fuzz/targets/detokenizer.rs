//! Any ids, one at a time, to text.
//!
//! Input: which tokenizer, where the sequence is cut off, whether an id is one byte or two, then the ids.

use std::sync::Arc;

use xverse_chat::engine::{
    detokenizer::Detokenizer,
    stop::{Checked, StopStrings},
    tokenizer::ChatTokenizer,
};

use crate::{
    choices::{Choices, mixed},
    outcome::Outcome,
    tokenizers,
};

/// # Panics
/// Where the pieces are not the whole.
pub fn target(data: &[u8]) -> Outcome {
    let mut choices = Choices::new(data);
    let tokenizer = &tokenizers::choose(choices.byte()).tokenizer;
    let cut = usize::from(choices.byte());
    let is_wide = choices.byte() & 1 == 1;
    let mut ids = Vec::new();
    while !choices.is_over() {
        // A little more than there are tokens; byte tokens and the commonest are among the first 256.
        let id = if is_wide { choices.number() % (tokenizer.vocab_size() as u16 + 8) } else { choices.byte().into() };
        ids.push(u32::from(id));
    }

    let whole = tokenizer.decode(&ids);
    let pieces = pieces(tokenizer, &ids);
    assert_eq!(pieces.concat(), whole);
    // Wherever an answer is cut off, what was shown of it is what its ids say.
    let cut_off = &ids[..cut.min(ids.len())];
    assert_eq!(self::pieces(tokenizer, cut_off).concat(), tokenizer.decode(cut_off));
    stops_at_the_first(&pieces, &whole, mixed(data));
    Outcome::Taken
}

fn pieces(tokenizer: &Arc<ChatTokenizer>, ids: &[u32]) -> Vec<String> {
    let mut detokenizer = Detokenizer::new(Arc::clone(tokenizer));
    let mut pieces: Vec<_> = ids.iter().map(|&id| detokenizer.push(id)).collect();
    pieces.push(detokenizer.finish());
    assert_eq!(detokenizer.finish(), "", "what was held back came twice");
    pieces
}

/// A stop string, taken from the text itself, ends it where it is met first.
fn stops_at_the_first(pieces: &[String], whole: &str, choice: u64) {
    let n_chars = whole.chars().count();
    if n_chars == 0 {
        return;
    }
    let from = choice as usize % n_chars;
    let stop: String = whole.chars().skip(from).take(1 + choice as usize % 5).collect();
    let mut strings = StopStrings::new(vec![stop.clone()]);
    let mut shown = String::new();
    for piece in pieces {
        match strings.push(piece) {
            Checked::Text(text) => shown.push_str(&text),
            Checked::Stopped(text) => {
                shown.push_str(&text);
                let at = whole.find(&stop).expect("it was taken from the text");
                assert_eq!(shown, whole[..at], "stopped by {stop:?}");
                return;
            }
        }
    }
    panic!("{stop:?} is in {whole:?} and was not found");
}
