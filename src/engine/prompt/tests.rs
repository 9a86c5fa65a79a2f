//! Prompts of both formats against what the original writes, and the edges of the budget.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::engine::tokenizer::{
    TokenizerError,
    fixture::{added, tokenizer, v1_json, v2_json},
};

fn config(max_positions: usize, truncation: Option<usize>) -> ModelConfig {
    let json = json!({
        "architectures": ["XverseForCausalLM"], "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 2, "vocab_size": 1000, "max_position_embeddings": max_positions,
        "max_tokenizer_truncation": truncation
    });
    ModelConfig::from_json(json.to_string().as_bytes()).unwrap()
}

fn builder(format: PromptFormat, max_positions: usize, truncation: Option<usize>) -> PromptBuilder {
    let json = match format {
        PromptFormat::V1 => v1_json(),
        PromptFormat::V2 => v2_json(),
    };
    PromptBuilder::new(Arc::new(tokenizer(&json)), &config(max_positions, truncation), format)
}

fn turns(turns: &[(Role, &str)]) -> Vec<Turn> {
    turns.iter().map(|&(role, text)| Turn { role, text: text.to_owned() }).collect()
}

/// The ids as the vocabulary writes them, control tokens included.
fn written(builder: &PromptBuilder, ids: &[u32]) -> String {
    ids.iter()
        .map(|&id| builder.tokenizer.token_of(id).unwrap())
        .collect::<String>()
        .replace('▁', " ")
        .replace("<0x0A>", "\n")
}

use Role::{Assistant, Exec, System, User};

const TALK: [(Role, &str); 5] = [(User, "q1"), (Assistant, "a1"), (User, "q2"), (Assistant, "a2"), (User, "q3")];

#[test]
fn v1_writes_rounds_one_after_the_other() {
    let builder = builder(PromptFormat::V1, 8192, None);
    let prompt = builder.build(&turns(&TALK), 2048).unwrap();
    assert_eq!(
        written(&builder, &prompt.ids),
        "Human: q1\n\nAssistant: a1<|endoftext|>Human: q2\n\nAssistant: a2<|endoftext|>Human: q3\n\nAssistant: "
    );
    assert_eq!((prompt.dropped_turns, prompt.dropped_rounds), (vec![], 0));
}

#[test]
fn v2_writes_system_and_exec_too() {
    let builder = builder(PromptFormat::V2, 8192, Some(6144));
    let prompt =
        builder.build(&turns(&[(System, "s"), (User, "q1"), (Assistant, "call"), (Exec, "result")]), 2048).unwrap();
    assert_eq!(
        written(&builder, &prompt.ids),
        "Human: s\nHuman: q1\n\nAssistant: call<|endoftext|>Exec: result\n\nAssistant: "
    );
}

#[test]
fn v1_encodes_mark_and_text_together_and_v2_apart() {
    let talk = turns(&[(User, "why"), (Assistant, "what"), (User, "who")]);
    let joined = |format| {
        let builder = builder(format, 8192, None);
        let id = builder.tokenizer.id_of("▁w").unwrap();
        builder.build(&talk, 1).unwrap().ids.iter().filter(|&&other| other == id).count()
    };
    assert_eq!(joined(PromptFormat::V1), 3);
    assert_eq!(joined(PromptFormat::V2), 0);
}

#[test]
fn the_limit_is_what_the_answer_leaves_but_at_least_half() {
    let v1 = builder(PromptFormat::V1, 8192, Some(6000));
    assert_eq!(v1.limit(2048), 6144);
    assert_eq!(v1.limit(1), 8191);
    assert_eq!(v1.limit(0), 8191);
    assert_eq!(v1.limit(8000), 4096);
    assert_eq!(v1.limit(usize::MAX), 4096);
    let v2 = builder(PromptFormat::V2, 8192, Some(6144));
    assert_eq!((v2.limit(2048), v2.limit(1), v2.limit(8000)), (6144, 6144, 4096));
    assert_eq!(builder(PromptFormat::V2, 8192, None).limit(1), 8191);
    assert_eq!(builder(PromptFormat::V1, 2, None).limit(5), 1);
}

#[test]
fn a_round_that_just_fits_stays_and_one_token_less_drops_it_whole() {
    for format in [PromptFormat::V1, PromptFormat::V2] {
        let n_all = builder(format, 8192, None).build(&turns(&TALK), 1).unwrap().ids.len();
        let roomy = builder(format, 2 * n_all, None).build(&turns(&TALK), n_all).unwrap();
        assert_eq!((roomy.ids.len(), roomy.dropped_turns), (n_all, vec![]));
        let tight_builder = builder(format, 2 * (n_all - 1), None);
        let tight = tight_builder.build(&turns(&TALK), n_all).unwrap();
        assert_eq!((tight.dropped_turns, tight.dropped_rounds), (vec![0, 1], 1));
        assert!(written(&tight_builder, &tight.ids).starts_with("Human: q2\n\n"));
    }
}

#[test]
fn nothing_older_comes_back_behind_a_round_that_does_not_fit() {
    let long = "x".repeat(100);
    let talk = turns(&[(System, "s"), (User, "q"), (Assistant, "a"), (User, &long), (Assistant, "a"), (User, "q")]);
    let builder = builder(PromptFormat::V2, 200, None);
    let prompt = builder.build(&talk, 100).unwrap();
    assert_eq!((prompt.dropped_turns, prompt.dropped_rounds, prompt.dropped_system), (vec![0, 1, 2, 3, 4], 2, true));
    assert_eq!(written(&builder, &prompt.ids), "Human: q\n\nAssistant: ");
}

#[test]
fn a_system_turn_that_does_not_fit_is_left_out_and_told() {
    let system = "s".repeat(100);
    let prompt = builder(PromptFormat::V2, 200, None).build(&turns(&[(System, &system), (User, "q")]), 100).unwrap();
    assert_eq!((prompt.dropped_turns, prompt.dropped_rounds, prompt.dropped_system), (vec![0], 0, true));
}

#[test]
fn questions_may_follow_each_other_and_early_answers_are_left_out() {
    let builder = builder(PromptFormat::V1, 8192, None);
    let prompt = builder.build(&turns(&[(Assistant, "a0"), (User, "q1"), (User, "q2")]), 1).unwrap();
    assert_eq!(written(&builder, &prompt.ids), "Human: q1\n\nHuman: q2\n\nAssistant: ");
    assert_eq!((prompt.dropped_turns, prompt.dropped_rounds, prompt.dropped_system), (vec![0], 0, false));
}

#[test]
fn the_newest_message_is_refused_not_cut() {
    for format in [PromptFormat::V1, PromptFormat::V2] {
        let builder = builder(format, 100, None);
        let fixed = builder.build(&turns(&[(User, "")]), 50).unwrap().ids.len();
        let fits = "x".repeat(50 - fixed);
        assert_eq!(builder.build(&turns(&[(User, &fits)]), 50).unwrap().ids.len(), 50);
        let error =
            builder.build(&turns(&[(User, "q"), (Assistant, "a"), (User, &format!("{fits}x"))]), 50).unwrap_err();
        assert!(matches!(error, PromptError::NewestTooLong { tokens: 51, limit: 50 }), "{error}");
    }
}

#[test]
fn one_new_token_always_fits() {
    let builder = builder(PromptFormat::V1, 60, None);
    let fixed = builder.build(&turns(&[(User, "")]), 1).unwrap().ids.len();
    let text = "x".repeat(60 - fixed);
    assert!(matches!(
        builder.build(&turns(&[(User, &text)]), 0).unwrap_err(),
        PromptError::NewestTooLong { tokens: 60, limit: 59 }
    ));
    assert_eq!(builder.build_as_original(&turns(&[(User, &text)]), 0).unwrap().ids.len(), 60);
}

#[test]
fn the_original_cuts_v1_on_the_left_and_v2_on_the_right() {
    let text = format!("begin{}end", "x".repeat(100));
    let v1 = builder(PromptFormat::V1, 80, None);
    let prompt = v1.build_as_original(&turns(&[(User, "q"), (Assistant, "a"), (User, &text)]), 40).unwrap();
    assert_eq!((prompt.ids.len(), prompt.dropped_rounds), (40, 1));
    let ending = written(&v1, &prompt.ids);
    assert!(ending.ends_with("xend\n\nAssistant: ") && !ending.contains("Human"), "{ending}");

    let v2 = builder(PromptFormat::V2, 80, None);
    let prompt = v2.build_as_original(&turns(&[(User, &text)]), 40).unwrap();
    assert_eq!(prompt.ids.len(), 40);
    let whole = written(&v2, &prompt.ids);
    assert!(whole.starts_with("Human: begin") && whole.ends_with("xAssistant: "), "{whole}");
}

#[test]
fn what_fits_is_the_same_as_in_the_original() {
    for format in [PromptFormat::V1, PromptFormat::V2] {
        let builder = builder(format, 8192, Some(6144));
        assert_eq!(
            builder.build(&turns(&TALK), 2048).unwrap(),
            builder.build_as_original(&turns(&TALK), 2048).unwrap()
        );
    }
}

#[test]
fn roles_that_cannot_be_written_are_refused() {
    let v1 = builder(PromptFormat::V1, 8192, None);
    for role in [System, Exec] {
        let error = v1.build(&turns(&[(role, "x"), (User, "q")]), 1).unwrap_err();
        assert!(matches!(error, PromptError::Role { role: found, format: PromptFormat::V1 } if found == role));
    }
    let v2 = builder(PromptFormat::V2, 8192, None);
    let error = v2.build(&turns(&[(User, "q"), (System, "x"), (User, "q")]), 1).unwrap_err();
    assert!(matches!(error, PromptError::SystemNotFirst { index: 1 }));
    for talk in [&[][..], &[(User, "q"), (Assistant, "a")], &[(System, "s")]] {
        assert!(matches!(v2.build(&turns(talk), 1).unwrap_err(), PromptError::NothingToAnswer));
    }
}

#[test]
fn a_text_that_cannot_be_encoded_is_an_error() {
    let mut json = v2_json();
    let id = json["model"]["vocab"]["~"].as_u64().unwrap() as usize;
    json["added_tokens"].as_array_mut().unwrap().push(added(id, "~", true));
    let builder = PromptBuilder::new(Arc::new(tokenizer(&json)), &config(64, None), PromptFormat::V2);
    let error = builder.build(&turns(&[(User, "~")]), 1).unwrap_err();
    assert!(matches!(error, PromptError::Tokenizer(TokenizerError::ControlText { .. })), "{error}");
}

#[test]
fn the_vocabulary_tells_the_format() {
    let of = |vocab_size| PromptBuilder::auto_format(&ModelConfig { vocab_size, ..config(64, None) });
    assert_eq!((of(100_278), of(100_534), of(1000)), (PromptFormat::V1, PromptFormat::V2, PromptFormat::V2));
}

proptest! {
    #[test]
    fn control_tokens_count_the_answers_whatever_is_said(
        texts in prop::collection::vec("(<\\|endoftext\\|>|<pad>|Human: |Assistant: |[a-z ]|你|🙂){0,6}", 1..8),
        is_v1: bool,
    ) {
        let format = if is_v1 { PromptFormat::V1 } else { PromptFormat::V2 };
        let builder = builder(format, 8192, None);
        let mut talk: Vec<Turn> = Vec::new();
        for text in &texts {
            talk.push(Turn { role: User, text: text.clone() });
            talk.push(Turn { role: Assistant, text: text.clone() });
        }
        talk.pop();
        let ids = builder.build(&talk, 2048).unwrap().ids;
        let control: Vec<u32> = ids.into_iter().filter(|&id| (1..=3).contains(&id)).collect();
        prop_assert_eq!(control, vec![3; texts.len() - 1]);
    }

    #[test]
    fn a_prompt_never_exceeds_its_limit_and_drops_only_the_oldest(
        lengths in prop::collection::vec(0_usize..40, 1..12),
        max_new in 0_usize..300,
        is_v1: bool,
    ) {
        let format = if is_v1 { PromptFormat::V1 } else { PromptFormat::V2 };
        let builder = builder(format, 256, Some(120));
        let talk: Vec<Turn> = lengths.iter().rev().enumerate().rev().map(|(age, &length)| Turn {
            role: if age % 2 == 0 { User } else { Assistant },
            text: "x".repeat(length),
        }).collect();
        let prompt = builder.build(&talk, max_new).unwrap();
        prop_assert!(prompt.ids.len() <= builder.limit(max_new));
        let n_dropped = prompt.dropped_turns.len();
        prop_assert_eq!(&prompt.dropped_turns, &(0..n_dropped).collect::<Vec<_>>());
        let kept = builder.build(&talk[n_dropped..], max_new).unwrap();
        prop_assert_eq!(kept.ids, prompt.ids);
        prop_assert!(kept.dropped_turns.is_empty());
    }
}
