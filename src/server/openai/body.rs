//! The JSON that answers are told in, as OpenAI shapes it: all of them at once, or piece by piece.
//!
//! Written as it stands, never made into a tree first: of log-probabilities there may be a million.

use serde::Serialize;

use super::{
    answer::{Answer, Kind, Piece},
    logprobs::Told,
};
use crate::server::clock;

/// What is the same in everything that is told of one request.
#[derive(Debug)]
pub(super) struct Head {
    kind: Kind,
    id: String,
    created: u64,
    model: String,
}

/// One response, or one piece of a stream.
#[derive(Serialize)]
pub(super) struct Body<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<Choice<'a>>,
    #[serde(skip_serializing_if = "Counts::are_absent")]
    usage: Counts,
    #[serde(skip_serializing_if = "is_none_dropped")]
    dropped_rounds: u32,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: usize,
    #[serde(flatten)]
    content: Content<'a>,
    logprobs: Option<&'a Told>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Content<'a> {
    Message { role: &'static str, content: &'a str, refusal: () },
    Delta(Delta<'a>),
    Text(&'a str),
}

#[derive(Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

/// How many tokens there were.
#[derive(Serialize)]
#[serde(untagged)]
enum Counts {
    /// Nobody asked.
    Absent,
    /// It is told at the end.
    Later(()),
    Told(Usage),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    prompt_tokens_details: PromptDetails,
}

#[derive(Serialize)]
struct PromptDetails {
    cached_tokens: u32,
}

const ROLE: &str = "assistant";

impl Head {
    pub(super) fn new(kind: Kind, model: &str) -> Self {
        let prefix = match kind {
            Kind::Chat => "chatcmpl",
            Kind::Text => "cmpl",
        };
        let id = format!("{prefix}-{}", uuid::Uuid::new_v4().simple());
        Self { kind, id, created: clock::now_ms() / 1000, model: model.to_owned() }
    }

    fn around<'a>(&'a self, choices: Vec<Choice<'a>>, is_piece: bool, usage: Counts) -> Body<'a> {
        let object = match (self.kind, is_piece) {
            (Kind::Chat, false) => "chat.completion",
            (Kind::Chat, true) => "chat.completion.chunk",
            (Kind::Text, _) => "text_completion",
        };
        Body { id: &self.id, object, created: self.created, model: &self.model, choices, usage, dropped_rounds: 0 }
    }

    /// A piece of one answer. The first of a conversation's says who speaks, the last what was left out of its prompt.
    pub(super) fn piece<'a>(
        &'a self,
        (index, answer): (usize, &Answer),
        piece: &'a Piece,
        is_first: bool,
        is_counted: bool,
    ) -> Body<'a> {
        let content = match self.kind {
            Kind::Chat => Content::Delta(Delta {
                role: is_first.then_some(ROLE),
                content: (is_first || !piece.text.is_empty()).then_some(piece.text.as_str()),
            }),
            Kind::Text => Content::Text(&piece.text),
        };
        let choice = Choice { index, content, logprobs: piece.logprobs.as_ref(), finish_reason: piece.finish };
        let usage = if is_counted { Counts::Later(()) } else { Counts::Absent };
        let dropped_rounds = if piece.finish.is_some() { answer.dropped_rounds } else { 0 };
        Body { dropped_rounds, ..self.around(vec![choice], true, usage) }
    }

    /// The last piece of a stream, which counts tokens.
    pub(super) fn count(&self, answers: &[Answer]) -> Body<'_> {
        Body { dropped_rounds: dropped_rounds(answers), ..self.around(Vec::new(), true, counted(answers)) }
    }

    /// All answers.
    pub(super) fn whole<'a>(&'a self, answers: &[Answer], wholes: &'a [Piece]) -> Body<'a> {
        let choice = |(index, whole): (usize, &'a Piece)| {
            let content = match self.kind {
                Kind::Chat => Content::Message { role: ROLE, content: &whole.text, refusal: () },
                Kind::Text => Content::Text(&whole.text),
            };
            Choice { index, content, logprobs: whole.logprobs.as_ref(), finish_reason: whole.finish }
        };
        let choices = wholes.iter().enumerate().map(choice).collect();
        Body { dropped_rounds: dropped_rounds(answers), ..self.around(choices, false, counted(answers)) }
    }
}

impl Counts {
    fn are_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_none_dropped(dropped_rounds: &u32) -> bool {
    *dropped_rounds == 0
}

/// Answers to one prompt share it.
fn prompts(answers: &[Answer]) -> impl Iterator<Item = &Answer> {
    answers.iter().filter(|answer| answer.is_first_of_prompt)
}

fn dropped_rounds(answers: &[Answer]) -> u32 {
    prompts(answers).map(|answer| answer.dropped_rounds).sum()
}

fn counted(answers: &[Answer]) -> Counts {
    let prompt_tokens = prompts(answers).map(|answer| answer.n_prompt).sum();
    let completion_tokens = answers.iter().map(|answer| answer.n_generated).sum();
    Counts::Told(Usage {
        prompt_tokens,
        completion_tokens,
        total_tokens: prompt_tokens + completion_tokens,
        prompt_tokens_details: PromptDetails { cached_tokens: prompts(answers).map(|answer| answer.n_reused).sum() },
    })
}
