//! Any conversation to a prompt.
//!
//! Input: which tokenizer, which format, the context, the longest answer, the tokenizer's truncation, then turns: a role, a
//! length, a text.

use std::sync::Arc;

use xverse_chat::{
    chat::{info::PromptFormat, message::Role},
    engine::{
        config::ModelConfig,
        prompt::{Prompt, PromptBuilder, PromptError, Turn},
    },
};

use crate::{
    choices::Choices,
    outcome::Outcome,
    tokenizers::{self, Known},
};

/// # Panics
/// Where a prompt breaks one of its promises.
pub fn target(data: &[u8]) -> Outcome {
    let mut choices = Choices::new(data);
    let known = tokenizers::choose(choices.byte());
    let format = choices.of(&[PromptFormat::V1, PromptFormat::V2]);
    let context = 2 + usize::from(choices.byte());
    let max_new_tokens = usize::from(choices.byte());
    let truncation = Some(usize::from(choices.byte())).filter(|&tokens| tokens > 0);
    let mut turns = Vec::new();
    while !choices.is_over() {
        let role = choices.of(&[Role::User, Role::Assistant, Role::System, Role::Exec]);
        turns.push(Turn { role, text: choices.text() });
    }

    let builder = builder(known, format, context, truncation);
    let limit = builder.limit(max_new_tokens);
    assert!(limit < context, "a prompt of {limit} leaves nothing of a context of {context}");
    match builder.build(&turns, max_new_tokens) {
        Ok(prompt) => {
            fits_and_keeps_the_newest(known, &prompt, &turns, limit);
            says_what_was_kept(known, format, &prompt, &turns);
            dropped_no_more_than_it_had_to(known, format, &prompt, &turns, limit);
            is_that_of_what_was_kept(&builder, prompt, &turns, max_new_tokens);
            Outcome::Taken
        }
        Err(error) => {
            is_right(&error, format, &turns, limit);
            Outcome::Refused
        }
    }
}

fn builder(known: &Known, format: PromptFormat, context: usize, truncation: Option<usize>) -> PromptBuilder {
    let config = ModelConfig {
        hidden_size: 2,
        intermediate_size: 2,
        num_hidden_layers: 1,
        num_attention_heads: 1,
        num_key_value_heads: 1,
        head_dim: 2,
        vocab_size: known.tokenizer.vocab_size(),
        max_position_embeddings: context,
        max_tokenizer_truncation: truncation,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        pad_token_id: 1,
        bos_token_id: 2,
        eos_token_id: known.eos,
        other_end_ids: Vec::new(),
        tie_word_embeddings: false,
    };
    PromptBuilder::new(Arc::clone(&known.tokenizer), &config, format)
}

/// The rules of a conversation that a format can write, in words of their own.
fn can_be_written(format: PromptFormat, turns: &[Turn]) -> bool {
    let writes = |role| format == PromptFormat::V2 || matches!(role, Role::User | Role::Assistant);
    turns.iter().all(|turn| writes(turn.role))
        && turns.iter().skip(1).all(|turn| turn.role != Role::System)
        && turns.last().is_some_and(|turn| matches!(turn.role, Role::User | Role::Exec))
}

fn is_right(error: &PromptError, format: PromptFormat, turns: &[Turn], limit: usize) {
    let roles: Vec<_> = turns.iter().map(|turn| turn.role).collect();
    match error {
        PromptError::NewestTooLong { tokens, limit: named } => {
            assert!(can_be_written(format, turns));
            assert!(*named == limit && tokens > named, "{error}");
        }
        PromptError::Role { role, .. } => {
            assert!(format == PromptFormat::V1 && matches!(role, Role::System | Role::Exec) && roles.contains(role));
        }
        PromptError::SystemNotFirst { index } => assert!(*index > 0 && roles[*index] == Role::System),
        PromptError::NothingToAnswer => assert!(!matches!(roles.last(), Some(Role::User | Role::Exec))),
        PromptError::Tokenizer(error) => panic!("a text could not be encoded: {error}"),
    }
}

fn fits_and_keeps_the_newest(known: &Known, prompt: &Prompt, turns: &[Turn], limit: usize) {
    assert!(prompt.ids.len() <= limit, "{} tokens, at most {limit} fit", prompt.ids.len());
    let n_dropped = prompt.dropped_turns.len();
    assert!(n_dropped < turns.len(), "the newest turn was dropped");
    assert_eq!(prompt.dropped_turns, (0..n_dropped).collect::<Vec<_>>(), "others than the oldest were dropped");
    let (dropped, kept) = turns.split_at(n_dropped);
    let n_rounds = dropped.iter().filter(|turn| matches!(turn.role, Role::User | Role::Exec)).count();
    assert_eq!(prompt.dropped_rounds, n_rounds);
    assert_eq!(prompt.dropped_system, dropped.iter().any(|turn| turn.role == Role::System));
    assert_ne!(kept[0].role, Role::Assistant, "an answer without its question");
    // Control tokens follow from the number of answers alone, whatever the texts say.
    let n_answers = kept.iter().filter(|turn| turn.role == Role::Assistant).count();
    let control: Vec<_> = prompt.ids.iter().filter(|&&id| known.tokenizer.is_special(id) && id != 0).collect();
    assert_eq!(control, vec![&known.eos; n_answers]);
}

/// The prompt's text, where the tokenizer brings back every text.
fn says_what_was_kept(known: &Known, format: PromptFormat, prompt: &Prompt, turns: &[Turn]) {
    if !known.is_lossless {
        return;
    }
    let mut expected = String::new();
    for turn in &turns[prompt.dropped_turns.len()..] {
        let (mark, end) = match (turn.role, format) {
            (Role::System, _) => ("Human: ", "\n"),
            (Role::User, _) => ("Human: ", "\n\n"),
            (Role::Exec, _) => ("Exec: ", "\n\n"),
            (Role::Assistant, _) => ("Assistant: ", ""),
        };
        expected.extend([mark, &turn.text, end]);
    }
    expected.push_str("Assistant: ");
    assert_eq!(known.tokenizer.decode(&prompt.ids), tokenizers::after_a_round_trip(&expected));
}

/// The oldest turns that were dropped left no trace.
fn is_that_of_what_was_kept(builder: &PromptBuilder, prompt: Prompt, turns: &[Turn], max_new_tokens: usize) {
    if prompt.dropped_turns.is_empty() {
        return;
    }
    let kept = &turns[prompt.dropped_turns.len()..];
    let again = builder.build(kept, max_new_tokens).expect("what was kept fits");
    assert_eq!((again.ids, again.dropped_turns), (prompt.ids, Vec::new()), "of what was kept alone");
}

/// With one round more it would have been too long.
fn dropped_no_more_than_it_had_to(known: &Known, format: PromptFormat, prompt: &Prompt, turns: &[Turn], limit: usize) {
    let dropped = &turns[..prompt.dropped_turns.len()];
    let Some(start) = dropped.iter().rposition(|turn| turn.role != Role::Assistant) else { return };
    let roomy = builder(known, format, 131_072, None);
    let more = roomy.build(&turns[start..], 1).expect("a large context has room");
    assert!(more.dropped_turns.is_empty());
    assert!(more.ids.len() > limit, "{} tokens would have fitted into {limit}", more.ids.len());
}
