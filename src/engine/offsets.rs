//! Where tokens stand in the text that they are, in characters.
//!
//! Counts by [`Detokenizer`], so that a stop string that holds text back moves nothing. A byte's place is certain only when the
//! bytes beside it are there: one wrong byte makes a character of each of them.

use std::sync::Arc;

use super::{
    detokenizer::Detokenizer,
    tokenizer::{ChatTokenizer, PieceKind},
};

/// The places of one growing sequence.
#[derive(Debug)]
pub struct Offsets {
    tokenizer: Arc<ChatTokenizer>,
    detokenizer: Detokenizer,
    /// Characters of the text up to the tokens that wait.
    n_chars: usize,
    /// Tokens whose place is not certain yet, and whether each of them is a byte.
    waiting: Vec<bool>,
}

impl Offsets {
    /// Of a text that begins after so many characters.
    #[must_use]
    pub fn new(tokenizer: Arc<ChatTokenizer>, n_chars: usize) -> Self {
        Self { detokenizer: Detokenizer::new(tokenizer.clone()), tokenizer, n_chars, waiting: Vec::new() }
    }

    /// Adds a token. The places that are certain by it, of tokens in their order: none, its own, or those that waited and its own.
    pub fn push(&mut self, id: u32) -> Vec<usize> {
        match self.tokenizer.kind(id) {
            PieceKind::Byte => {
                self.detokenizer.push(id);
                self.waiting.push(true);
                Vec::new()
            }
            PieceKind::Silent if !self.waiting.is_empty() => {
                self.waiting.push(false);
                Vec::new()
            }
            PieceKind::Silent => vec![self.n_chars],
            PieceKind::Text => {
                let mut offsets = self.finish();
                offsets.push(self.n_chars);
                self.n_chars += self.detokenizer.push(id).chars().count();
                offsets
            }
        }
    }

    /// The places of those that wait, where no more bytes come.
    pub fn finish(&mut self) -> Vec<usize> {
        let text = self.detokenizer.finish();
        let waiting = std::mem::take(&mut self.waiting);
        let n_bytes = waiting.iter().filter(|is_byte| **is_byte).count();
        // Of bytes that are no text each is a character, of three bytes.
        let is_text = text.len() <= n_bytes;
        // A space at a text's beginning may have been left out.
        let mut left_out = n_bytes.saturating_sub(text.len());
        let (mut chars, mut rest) = (text.chars(), 0);
        let mut offsets = Vec::with_capacity(waiting.len());
        for is_byte in waiting {
            if is_byte && left_out > 0 {
                left_out -= 1;
                offsets.push(self.n_chars);
                continue;
            }
            let is_within = rest > 0;
            offsets.push(self.n_chars - usize::from(is_within));
            if is_byte {
                if !is_within {
                    rest = chars.next().map_or(1, |char| if is_text { char.len_utf8() } else { 1 });
                    self.n_chars += 1;
                }
                rest -= 1;
            }
        }
        offsets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tokenizer::fixture::{tokenizer, v2_json};

    /// Of all tokens of a text, each as what it shows and its place.
    fn places(ids: &[u32]) -> Vec<usize> {
        let mut offsets = Offsets::new(Arc::new(tokenizer(&v2_json())), 0);
        let mut places: Vec<usize> = ids.iter().flat_map(|id| offsets.push(*id)).collect();
        places.extend(offsets.finish());
        assert_eq!(places.len(), ids.len());
        places
    }

    fn ids(text: &str) -> Vec<u32> {
        tokenizer(&v2_json()).encode(text).unwrap()
    }

    #[test]
    fn each_token_stands_where_its_text_does() {
        assert_eq!(places(&ids("你好, a.\n")), [0, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn bytes_of_one_character_share_its_place() {
        assert_eq!(places(&ids("🙂a🙂🙂!")), [0, 0, 0, 0, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4]);
    }

    #[test]
    fn a_special_token_has_the_place_of_what_comes_next() {
        let mut within = ids("a🙂!");
        within.insert(3, 3);
        assert_eq!(places(&within), [0, 1, 1, 1, 1, 1, 2]);
        assert_eq!(places(&[3, 3]), [0, 0]);
    }

    #[test]
    fn of_bytes_that_are_no_text_each_is_a_character() {
        let mut broken = ids("a🙂b");
        broken.remove(4);
        assert_eq!(places(&broken), [0, 1, 2, 3, 4]);
        assert_eq!(places(&broken[..4]), [0, 1, 2, 3]);
    }

    #[test]
    fn a_text_may_begin_in_the_middle_of_another() {
        let mut offsets = Offsets::new(Arc::new(tokenizer(&v2_json())), 7);
        assert_eq!(offsets.push(ids("a")[0]), [7]);
        assert_eq!(offsets.push(ids("a")[0]), [8]);
    }
}
