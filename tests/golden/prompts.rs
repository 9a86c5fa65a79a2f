//! Conversations to ids, against the rules of XVERSE's own `chat` written down in Python.

use std::sync::Arc;

use serde::Deserialize;
use xverse_chat::{
    chat::{info::PromptFormat, message::Role},
    engine::{
        config::ModelConfig,
        prompt::{Prompt, PromptBuilder, PromptError, Turn},
        tokenizer::ChatTokenizer,
    },
};

use super::{
    encodings::{tokenizer, unchanged, with_prefix_space},
    files,
};
use crate::support::tiny_checkpoint::TINY_VOCABULARY;

#[derive(Debug, Deserialize)]
struct Case {
    format: PromptFormat,
    turns: Vec<GoldenTurn>,
    max_position_embeddings: usize,
    max_tokenizer_truncation: Option<usize>,
    max_new_tokens: usize,
    /// Most tokens of the prompt.
    budget: usize,
    /// Tokens of the newest message before it is cut.
    newest_tokens: usize,
    /// Whether the original cuts it.
    newest_cut: bool,
    /// The original's prompt.
    ids: Vec<u32>,
    dropped_turns: Vec<usize>,
    dropped_rounds: usize,
}

#[derive(Debug, Deserialize)]
struct GoldenTurn {
    role: Role,
    text: String,
}

fn cases() -> Vec<Case> {
    #[derive(Deserialize)]
    struct File {
        cases: Vec<Case>,
    }
    serde_json::from_slice::<File>(&files::data("prompts.json")).unwrap().cases
}

/// A tokenizer for each format.
struct Tokenizers {
    v1: Arc<ChatTokenizer>,
    v2: Arc<ChatTokenizer>,
}

impl Tokenizers {
    fn new(change: fn(&mut serde_json::Value)) -> Self {
        Self { v1: Arc::new(tokenizer(PromptFormat::V1, change)), v2: Arc::new(tokenizer(PromptFormat::V2, change)) }
    }

    fn builder(&self, case: &Case) -> PromptBuilder {
        let tokenizer = match case.format {
            PromptFormat::V1 => &self.v1,
            PromptFormat::V2 => &self.v2,
        };
        PromptBuilder::new(Arc::clone(tokenizer), &config(case), case.format)
    }
}

fn config(case: &Case) -> ModelConfig {
    ModelConfig {
        hidden_size: 64,
        intermediate_size: 172,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 4,
        head_dim: 16,
        vocab_size: TINY_VOCABULARY,
        max_position_embeddings: case.max_position_embeddings,
        max_tokenizer_truncation: case.max_tokenizer_truncation,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        pad_token_id: 1,
        bos_token_id: 2,
        eos_token_id: 3,
        other_end_ids: Vec::new(),
        tie_word_embeddings: false,
    }
}

fn turns(case: &Case) -> Vec<Turn> {
    case.turns.iter().map(|turn| Turn { role: turn.role, text: turn.text.clone() }).collect()
}

/// What is wrong with the prompt of a case, if anything.
fn mistake(case: &Case, found: &Result<Prompt, PromptError>) -> Option<String> {
    let right = match found {
        Ok(Prompt { ids, dropped_turns, dropped_rounds, .. }) => {
            *ids == case.ids && *dropped_turns == case.dropped_turns && *dropped_rounds == case.dropped_rounds
        }
        Err(_) => false,
    };
    (!right).then(|| format!("{case:?}\nfound {found:?}\n"))
}

/// What is wrong with the prompts that have the original's cut.
fn mistakes(tokenizers: &Tokenizers) -> Vec<String> {
    let built = |case: &Case| tokenizers.builder(case).build_as_original(&turns(case), case.max_new_tokens);
    cases().iter().filter_map(|case| mistake(case, &built(case))).collect()
}

#[test]
fn conversations_become_the_original_s_ids() {
    let mistakes = mistakes(&Tokenizers::new(unchanged));
    assert!(mistakes.is_empty(), "{} cases:\n{}", mistakes.len(), mistakes.join("\n"));
}

#[test]
fn a_message_that_the_original_would_cut_is_refused_with_its_length() {
    let tokenizers = Tokenizers::new(unchanged);
    for case in cases() {
        let found = tokenizers.builder(&case).build(&turns(&case), case.max_new_tokens);
        if case.newest_cut {
            let Err(PromptError::NewestTooLong { tokens, limit }) = found else { panic!("{case:?}\nfound {found:?}") };
            assert_eq!((tokens, limit), (case.newest_tokens, case.budget), "{case:?}");
        } else if let Some(mistake) = mistake(&case, &found) {
            panic!("{mistake}");
        }
    }
}

#[test]
fn a_prefix_space_shows_in_prompts() {
    let n_mistakes = mistakes(&Tokenizers::new(with_prefix_space)).len();
    assert!(n_mistakes > 60, "{n_mistakes} cases");
}

#[test]
fn the_golden_conversations_drop_and_cut() {
    let cases = cases();
    for format in [PromptFormat::V1, PromptFormat::V2] {
        let of_format = || cases.iter().filter(|case| case.format == format);
        assert!(of_format().filter(|case| !case.dropped_turns.is_empty() && !case.newest_cut).count() > 10);
        assert!(of_format().filter(|case| case.newest_cut).count() >= 5);
        assert!(of_format().any(|case| case.ids.len() == case.budget && !case.newest_cut), "one fits exactly");
    }
}
