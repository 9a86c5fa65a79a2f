//! Ids to text, one at a time: what is certain comes at once, nothing comes twice, no character comes in halves.
//!
//! It knows no stop strings and no events. **Architecture Invariant:** everything it gives, put together, is what
//! [`ChatTokenizer::decode`] gives for all ids.

use std::sync::Arc;

use super::tokenizer::{ChatTokenizer, PieceKind};

/// The text of one growing sequence.
#[derive(Debug)]
pub struct Detokenizer {
    tokenizer: Arc<ChatTokenizer>,
    /// Byte tokens since the last token of text. They are text only as a whole: one wrong byte spoils all of them.
    bytes: Vec<u32>,
    is_at_start: bool,
}

impl Detokenizer {
    /// Begins a text.
    #[must_use]
    pub fn new(tokenizer: Arc<ChatTokenizer>) -> Self {
        Self { tokenizer, bytes: Vec::new(), is_at_start: true }
    }

    /// The text that token `id` makes certain; special tokens give none.
    pub fn push(&mut self, id: u32) -> String {
        match self.tokenizer.kind(id) {
            PieceKind::Silent => String::new(),
            PieceKind::Byte => {
                self.bytes.push(id);
                String::new()
            }
            PieceKind::Text => {
                let mut text = self.finish();
                text.push_str(&self.decode(&[id]));
                text
            }
        }
    }

    /// What was held back, at the end.
    pub fn finish(&mut self) -> String {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes.is_empty() { String::new() } else { self.decode(&bytes) }
    }

    fn decode(&mut self, ids: &[u32]) -> String {
        if std::mem::take(&mut self.is_at_start) {
            self.tokenizer.decode(ids)
        } else {
            self.tokenizer.decode_after_text(ids)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::engine::tokenizer::fixture::{of_tokens, tokenizer, v1_json, v2_json};

    fn pieces(tokenizer: &Arc<ChatTokenizer>, ids: &[u32]) -> Vec<String> {
        let mut detokenizer = Detokenizer::new(Arc::clone(tokenizer));
        let mut pieces: Vec<String> = ids.iter().map(|&id| detokenizer.push(id)).collect();
        pieces.push(detokenizer.finish());
        pieces
    }

    #[test]
    fn spaces_and_punctuation_come_at_once() {
        let tokenizer = Arc::new(tokenizer(&v2_json()));
        let ids = tokenizer.encode("你好, a.\n").unwrap();
        assert_eq!(pieces(&tokenizer, &ids), ["你好", ",", " ", "a", ".", "\n", ""]);
    }

    #[test]
    fn bytes_wait_until_they_are_text() {
        let tokenizer = Arc::new(tokenizer(&v2_json()));
        let ids = tokenizer.encode("a🙂!").unwrap();
        assert_eq!(pieces(&tokenizer, &ids), ["a", "", "", "", "", "🙂!", ""]);
        assert_eq!(pieces(&tokenizer, &ids[..5]), ["a", "", "", "", "", "🙂"]);
    }

    #[test]
    fn special_tokens_give_nothing_and_do_not_part_a_character() {
        let tokenizer = Arc::new(tokenizer(&v2_json()));
        let mut ids = tokenizer.encode("🙂").unwrap();
        ids.insert(2, 3);
        assert_eq!(pieces(&tokenizer, &ids).concat(), "🙂");
        assert_eq!(pieces(&tokenizer, &[1, 2, 3, 99_999]).concat(), "");
    }

    #[test]
    fn half_a_character_at_the_end_is_what_the_whole_says() {
        let tokenizer = Arc::new(tokenizer(&v2_json()));
        let ids = tokenizer.encode("a🙂").unwrap();
        assert_eq!(pieces(&tokenizer, &ids[..3]).concat(), "a\u{fffd}\u{fffd}");
    }

    #[test]
    fn a_tokenizer_without_byte_tokens_holds_nothing_back() {
        let tokenizer = Arc::new(tokenizer(&v1_json()));
        let ids = tokenizer.encode("what 你好吗, 世界。").unwrap();
        let pieces = pieces(&tokenizer, &ids);
        assert!(pieces[..ids.len()].iter().all(|piece| !piece.is_empty()));
        assert_eq!(pieces.concat(), "what 你好吗, 世界。");
    }

    #[test]
    fn where_all_text_is_one_space_it_is_a_space_behind_bytes() {
        let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"});
        let decoder = json!({"type": "Sequence", "decoders": [{"type": "ByteFallback"}, metaspace]});
        let tokenizer = Arc::new(of_tokens(vec!["<0xF0>".to_owned(), "▁".to_owned()], 0, decoder));
        assert_eq!(tokenizer.decode(&[0, 1]), "\u{fffd} ");
        assert_eq!(pieces(&tokenizer, &[0, 1]).concat(), "\u{fffd} ");
    }

    fn decoders() -> impl Strategy<Value = Value> {
        let metaspace = |scheme| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme});
        let sequence = |decoders| json!({"type": "Sequence", "decoders": decoders});
        let llama = json!([
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}
        ]);
        prop_oneof![
            Just(metaspace("never")),
            Just(metaspace("always")),
            Just(sequence(json!([{"type": "ByteFallback"}, metaspace("never")]))),
            Just(sequence(json!([{"type": "ByteFallback"}, metaspace("first")]))),
            Just(sequence(json!([sequence(json!([metaspace("never")])), {"type": "ByteFallback"}, {"type": "Fuse"}]))),
            Just(sequence(llama)),
        ]
    }

    fn token() -> impl Strategy<Value = String> {
        prop_oneof![
            // Often bytes that belong together, so that whole characters come up.
            3 => prop::sample::select(vec![0xF0_u8, 0x9F, 0x99, 0x82, 0xE2, 0x96, 0x81, 0x41, 0xFF])
                .prop_map(|byte| format!("<0x{byte:02X}>")),
            1 => any::<u8>().prop_map(|byte| format!("<0x{byte:02X}>")),
            3 => "[▁a-c你好🙂.,\n]{1,4}",
            1 => "[<>0x4|]{1,6}",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn the_pieces_together_are_the_whole_text(
            tokens in prop::collection::vec(token(), 3..40),
            n_special in 0_usize..3,
            decoder in decoders(),
            choice in prop::collection::vec(0_u32..44, 0..60),
        ) {
            let tokenizer = Arc::new(of_tokens(tokens, n_special, decoder));
            let whole = tokenizer.decode(&choice);
            let pieces = pieces(&tokenizer, &choice);
            prop_assert_eq!(pieces.concat(), whole);
        }

        #[test]
        fn any_text_comes_back_in_pieces(text: String) {
            let tokenizer = Arc::new(tokenizer(&v2_json()));
            let ids = tokenizer.encode(&text).unwrap();
            prop_assert_eq!(pieces(&tokenizer, &ids).concat(), text.replace('▁', " "));
        }
    }
}
