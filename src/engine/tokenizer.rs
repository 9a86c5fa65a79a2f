//! `tokenizer.json`, repaired where today's library would refuse it.
//!
//! It knows ids and text, not roles and not what a token means to the model. **Architecture Invariant:** no text that
//! people write becomes a control token; those enter a prompt as ids or not at all.

mod repair;

#[cfg(test)]
pub mod fixture;

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tokenizers::Tokenizer;

use super::{
    regular_file,
    small_file::{self, SmallFileError},
};

/// Text to ids and back; text never becomes a special token.
#[derive(Debug)]
pub struct ChatTokenizer {
    /// As the file has it: for ids to text.
    decoder: Tokenizer,
    /// Blind to control tokens: for text to ids.
    encoder: Tokenizer,
    special: HashSet<u32>,
    control: HashSet<u32>,
    vocab_size: usize,
    has_byte_tokens: bool,
    /// A token of plain text, behind which another token decodes as it does in the middle of a text.
    anchor: Option<u32>,
}

/// Why a tokenizer was refused, or a text could not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// There is no tokenizer.
    #[error(
        "there is no tokenizer.json in {}\nhint: --tokenizer_path must lead to the folder that holds tokenizer.json", .dir.display()
    )]
    Missing {
        /// The folder.
        dir: PathBuf,
    },
    /// The file cannot be read.
    #[error("{} cannot be read: {source}\nhint: {}", .path.display(), regular_file::hint(.source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is too large.
    #[error("{} has {found} bytes, at most {limit} are expected\nhint: this is not a tokenizer's file, or it is damaged; fetch it again", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        found: u64,
        /// The bound.
        limit: u64,
    },
    /// The file has nothing in it.
    #[error("the tokenizer file is empty\nhint: fetch it again")]
    Empty,
    /// The file is not JSON.
    #[error("the tokenizer file is not valid JSON, line {}: {source}\nhint: fetch it again", .source.line())]
    BrokenJson {
        /// What the parser says.
        source: serde_json::Error,
    },
    /// JSON, but not of a tokenizer.
    #[error(
        "the tokenizer file is not one that can be used: {source}\nhint: --tokenizer_path must lead to the tokenizer of this checkpoint"
    )]
    Refused {
        /// What the library says.
        source: tokenizers::Error,
    },
    /// No tokens in it.
    #[error("the tokenizer has no vocabulary\nhint: the file is damaged; fetch it again")]
    NoVocabulary,
    /// Ids become text in a way that cannot be streamed.
    #[error(
        "the tokenizer's decoder is {found}, expected Metaspace, ByteFallback, Replace, Fuse and Strip as XVERSE and LLaMA have them\nhint: --tokenizer_path must lead to the tokenizer of this checkpoint"
    )]
    Decoder {
        /// What it is.
        found: String,
    },
    /// The library failed to encode.
    #[error("the text cannot be encoded: {source}")]
    Encode {
        /// What the library says.
        source: tokenizers::Error,
    },
    /// A character of the text is itself a control token.
    #[error("the text holds {token:?}, which only the server may write")]
    ControlText {
        /// The token.
        token: String,
    },
}

/// One token by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// To be shown: a special token's name, a byte's number where it is no text by itself.
    pub text: String,
    /// The bytes it adds to a text; of a special token, its name's.
    pub bytes: Vec<u8>,
}

/// What a token does to the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceKind {
    /// Nothing: it is special or unknown.
    Silent,
    /// One byte, which only together with its neighbours is text.
    Byte,
    /// Text, whatever comes before or after.
    Text,
}

const MAX_FILE_BYTES: u64 = 64 << 20;

impl ChatTokenizer {
    /// Reads `tokenizer.json.update` or `tokenizer.json` in `dir`.
    ///
    /// # Errors
    /// [`TokenizerError`], with what was found, what was expected and a hint.
    pub fn open(dir: &Path) -> Result<Self, TokenizerError> {
        Self::from_json(&Self::read_json(dir)?)
    }

    /// The content of the tokenizer's file in `dir`, not looked at.
    ///
    /// # Errors
    /// [`TokenizerError`], with what was found, what was expected and a hint.
    pub fn read_json(dir: &Path) -> Result<Vec<u8>, TokenizerError> {
        for name in ["tokenizer.json.update", "tokenizer.json"] {
            let path = dir.join(name);
            return match small_file::read_json(&path, MAX_FILE_BYTES) {
                Err(SmallFileError::Missing) => continue,
                Err(SmallFileError::TooLarge { found }) => {
                    Err(TokenizerError::TooLarge { path, found, limit: MAX_FILE_BYTES })
                }
                Err(SmallFileError::Unreadable(source)) => Err(TokenizerError::Unreadable { path, source }),
                Ok(json) => Ok(json),
            };
        }
        Err(TokenizerError::Missing { dir: dir.to_owned() })
    }

    /// A tokenizer from the content of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`TokenizerError`], with what was found, what was expected and a hint.
    pub fn from_json(json: &[u8]) -> Result<Self, TokenizerError> {
        if json.is_empty() {
            return Err(TokenizerError::Empty);
        }
        let mut value: Value = serde_json::from_slice(json).map_err(|source| TokenizerError::BrokenJson { source })?;
        repair::repair(&mut value);
        let has_byte_tokens = repair::check_decoder(&value["decoder"])?;
        let decoder = build(&value)?;
        let marked = repair::mark_control_tokens(&mut value);
        let mut encoder = if marked { build(&value)? } else { decoder.clone() };
        encoder.set_encode_special_tokens(true);

        let vocab = decoder.get_vocab(true);
        let vocab_size = vocab.values().max().map_or(0, |&id| id as usize + 1);
        if vocab_size == 0 {
            return Err(TokenizerError::NoVocabulary);
        }
        let special_of = |tokenizer: &Tokenizer| -> HashSet<u32> {
            let added = tokenizer.get_added_tokens_decoder();
            added.into_iter().filter(|(_, token)| token.special).map(|(id, _)| id).collect()
        };
        let special = special_of(&decoder);
        let mut control = special_of(&encoder);
        // What the model cannot say otherwise becomes this token: that is no control.
        if let Some(id) = value["model"]["unk_token"].as_str().and_then(|token| decoder.token_to_id(token)) {
            control.remove(&id);
        }
        let mut tokenizer = Self { decoder, encoder, special, control, vocab_size, has_byte_tokens, anchor: None };
        let texts = || (0..vocab_size as u32).filter(|&id| tokenizer.kind(id) == PieceKind::Text);
        // A lone space is nothing at a text's beginning, and still what others can follow on.
        let is_something = |id: &u32| tokenizer.token_of(*id).is_some_and(|token| !token.is_empty());
        let anchor = texts().find(|&id| !tokenizer.decode(&[id]).is_empty()).or_else(|| texts().find(is_something));
        tokenizer.anchor = anchor;
        Ok(tokenizer)
    }

    /// Encodes text that people wrote: no special token comes out of it, none is added.
    ///
    /// # Errors
    /// [`TokenizerError`] where the library fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let ids = self.encode_piece(text)?;
        if self.first_control(&ids).is_none() { Ok(ids) } else { Ok(self.encode_apart(text)?.0) }
    }

    /// The ids that [`Self::encode`] gives, and for each the byte of the text that follows its last one.
    ///
    /// # Errors
    /// [`TokenizerError`] where the library fails.
    pub fn encode_with_ends(&self, text: &str) -> Result<(Vec<u32>, Vec<usize>), TokenizerError> {
        let encoding = self.encoder.encode(text, false).map_err(|source| TokenizerError::Encode { source })?;
        if self.first_control(encoding.get_ids()).is_some() {
            return self.encode_apart(text);
        }
        Ok((encoding.get_ids().to_vec(), encoding.get_offsets().iter().map(|(_, end)| *end).collect()))
    }

    /// Decodes ids, leaving special tokens out.
    ///
    /// # Panics
    /// Never: the decoders that are let in do not fail.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        self.decoder.decode(ids, true).expect("invariant: the decoders that are let in do not fail")
    }

    /// How many ids there are, added tokens included: one more than the largest.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Whether an id is a special token, which [`Self::decode`] leaves out.
    #[must_use]
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// The id of a token that is written exactly so, special tokens included.
    #[must_use]
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.decoder.token_to_id(token)
    }

    /// The token as the vocabulary writes it, such as `▁the` or `<0x0A>`.
    #[must_use]
    pub fn token_of(&self, id: u32) -> Option<String> {
        self.decoder.id_to_token(id)
    }

    /// One token by itself: its text in the middle of others, and its bytes. A byte that is no text is shown as `bytes:\\xE4`.
    #[must_use]
    pub fn piece(&self, id: u32) -> Piece {
        let token = self.decoder.id_to_token(id).unwrap_or_default();
        match self.kind(id) {
            PieceKind::Silent => Piece { bytes: token.clone().into_bytes(), text: token },
            PieceKind::Text => {
                let text = self.decode_after_text(&[id]);
                Piece { bytes: text.clone().into_bytes(), text }
            }
            PieceKind::Byte => {
                let byte = repair::byte(&token).unwrap_or_default();
                let text = if byte.is_ascii() { char::from(byte).to_string() } else { format!("bytes:\\x{byte:02X}") };
                Piece { text, bytes: vec![byte] }
            }
        }
    }

    /// What a token does to the text.
    pub(super) fn kind(&self, id: u32) -> PieceKind {
        if self.is_special(id) {
            return PieceKind::Silent;
        }
        match self.decoder.id_to_token(id) {
            None => PieceKind::Silent,
            Some(token) if self.has_byte_tokens && repair::is_byte(&token) => PieceKind::Byte,
            Some(_) => PieceKind::Text,
        }
    }

    /// What ids give in the middle of a text.
    pub(super) fn decode_after_text(&self, ids: &[u32]) -> String {
        let Some(anchor) = self.anchor else { return self.decode(ids) };
        let before = self.decode(&[anchor]);
        let text = self.decode(&[&[anchor], ids].concat());
        text.strip_prefix(&before).expect("invariant: text does not change by what comes after it").to_owned()
    }

    fn encode_piece(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.encoder.encode_fast(text, false).map_err(|source| TokenizerError::Encode { source })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Ids and ends where the vocabulary itself spells a control token. Apart from each other its characters do not.
    fn encode_apart(&self, text: &str) -> Result<(Vec<u32>, Vec<usize>), TokenizerError> {
        let (mut ids, mut ends) = (Vec::with_capacity(text.len()), Vec::with_capacity(text.len()));
        let mut buffer = [0; 4];
        for (at, character) in text.char_indices() {
            ids.extend(self.encode_piece(character.encode_utf8(&mut buffer))?);
            ends.resize(ids.len(), at + character.len_utf8());
        }
        match self.first_control(&ids) {
            None => Ok((ids, ends)),
            Some(id) => Err(TokenizerError::ControlText { token: self.decoder.id_to_token(id).unwrap_or_default() }),
        }
    }

    fn first_control(&self, ids: &[u32]) -> Option<u32> {
        ids.iter().copied().find(|id| self.control.contains(id))
    }
}

fn build(value: &Value) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::from_bytes(value.to_string()).map_err(|source| TokenizerError::Refused { source })
}

#[cfg(test)]
mod tests;
