//! One answer as it grows, and the JSON that all answers of a request are told in: at once, or piece by piece.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    choices::{Choices, failure},
    error::ApiError,
    logprobs::{Lists, Named, Told, of_chat},
};
use crate::{
    chat::event::EndReason,
    engine::{
        detokenizer::Detokenizer,
        request::{EngineEvent, TokenLogprobs},
        tokenizer::ChatTokenizer,
    },
    server::clock,
};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An answer to a conversation.
    Chat,
    /// What follows on a text.
    Text,
}

/// What is the same in everything that is told of one request.
#[derive(Debug)]
pub(super) struct Head {
    kind: Kind,
    id: String,
    created: u64,
    model: String,
}

impl Head {
    pub(super) fn new(kind: Kind, model: &str) -> Self {
        let prefix = match kind {
            Kind::Chat => "chatcmpl",
            Kind::Text => "cmpl",
        };
        let id = format!("{prefix}-{}", uuid::Uuid::new_v4().simple());
        Self { kind, id, created: clock::now_ms() / 1000, model: model.to_owned() }
    }

    /// `choices` in a whole answer, or in one piece of a stream.
    fn around(&self, choices: Vec<Value>, is_piece: bool) -> Value {
        let object = match (self.kind, is_piece) {
            (Kind::Chat, false) => "chat.completion",
            (Kind::Chat, true) => "chat.completion.chunk",
            (Kind::Text, _) => "text_completion",
        };
        json!({
            "id": self.id, "object": object, "created": self.created, "model": self.model, "choices": choices,
        })
    }

    /// A piece of one answer. The first of a conversation's says who speaks.
    pub(super) fn piece(&self, index: usize, piece: &Piece, is_first: bool) -> Value {
        let logprobs = piece.logprobs.as_ref().map(Told::to_json);
        let choice = match self.kind {
            Kind::Chat => {
                let mut delta = json!({});
                if is_first {
                    delta["role"] = "assistant".into();
                }
                if is_first || !piece.text.is_empty() {
                    delta["content"] = piece.text.as_str().into();
                }
                json!({ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": piece.finish })
            }
            Kind::Text => {
                json!({ "index": index, "text": piece.text, "logprobs": logprobs, "finish_reason": piece.finish })
            }
        };
        self.around(vec![choice], true)
    }

    /// The last piece of a stream, which counts tokens.
    pub(super) fn count(&self, answers: &[Answer]) -> Value {
        let mut told = self.around(Vec::new(), true);
        add_counts(&mut told, answers);
        told
    }

    fn whole(&self, answers: &[Answer], wholes: &[Piece]) -> Value {
        let choice = |(index, whole): (usize, &Piece)| {
            let logprobs = whole.logprobs.as_ref().map(Told::to_json);
            match self.kind {
                Kind::Chat => {
                    let message = json!({ "role": "assistant", "content": whole.text, "refusal": null });
                    json!({ "index": index, "message": message, "logprobs": logprobs, "finish_reason": whole.finish })
                }
                Kind::Text => {
                    json!({ "index": index, "text": whole.text, "logprobs": logprobs, "finish_reason": whole.finish })
                }
            }
        };
        let mut told = self.around(wholes.iter().enumerate().map(choice).collect(), false);
        add_counts(&mut told, answers);
        told
    }
}

fn add_counts(told: &mut Value, answers: &[Answer]) {
    // Answers to one prompt share it.
    let prompts = || answers.iter().filter(|answer| answer.is_first_of_prompt);
    let prompt: usize = prompts().map(|answer| answer.n_prompt).sum();
    let cached: u32 = prompts().map(|answer| answer.n_reused).sum();
    let dropped_rounds: u32 = prompts().map(|answer| answer.dropped_rounds).sum();
    let completion: usize = answers.iter().map(|answer| answer.n_generated).sum();
    told["usage"] = json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": { "cached_tokens": cached },
    });
    if dropped_rounds > 0 {
        told["dropped_rounds"] = dropped_rounds.into();
    }
}

/// A piece of an answer, or all of it.
#[derive(Debug, Default)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) logprobs: Option<Told>,
    /// Why the answer is over, where it is.
    pub(super) finish: Option<&'static str>,
}

impl Piece {
    fn add(&mut self, more: Self) {
        self.text.push_str(&more.text);
        self.finish = more.finish.or(self.finish);
        match (&mut self.logprobs, more.logprobs) {
            (Some(all), Some(more)) => all.add(more),
            (none, more) => *none = none.take().or(more),
        }
    }
}

/// Whether the prompt is told before what follows on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Echo {
    /// It is not.
    Nothing,
    /// Its text.
    Text,
    /// Its text, with the log-probabilities of its tokens.
    Logprobs,
}

/// How one answer is told.
#[derive(Debug)]
pub(super) struct Answer {
    kind: Kind,
    /// What knows the tokens; an upstream server names them itself.
    tokenizer: Option<Arc<ChatTokenizer>>,
    prompt_ids: Arc<[u32]>,
    /// What of the prompt is still to be told.
    echo: Echo,
    is_first_of_prompt: bool,
    /// Rounds that were left out of a conversation's prompt.
    dropped_rounds: u32,
    n_prompt: usize,
    n_reused: u32,
    n_generated: usize,
    /// Characters told so far.
    n_chars: usize,
}

impl Answer {
    /// The answer with this index among those to one prompt.
    pub(super) fn new(kind: Kind, index: u32) -> Self {
        Self {
            kind,
            tokenizer: None,
            prompt_ids: Arc::default(),
            echo: Echo::Nothing,
            is_first_of_prompt: index == 0,
            dropped_rounds: 0,
            n_prompt: 0,
            n_reused: 0,
            n_generated: 0,
            n_chars: 0,
        }
    }

    /// The same to a prompt whose tokens are known.
    pub(super) fn with_prompt(self, tokenizer: &Arc<ChatTokenizer>, prompt_ids: &Arc<[u32]>, echo: Echo) -> Self {
        let n_prompt = prompt_ids.len();
        Self { tokenizer: Some(tokenizer.clone()), prompt_ids: prompt_ids.clone(), echo, n_prompt, ..self }
    }

    /// The same to a prompt without so many rounds.
    pub(super) fn without(self, dropped_rounds: usize) -> Self {
        Self { dropped_rounds: dropped_rounds as u32, ..self }
    }

    /// What is told of an event, where anything is.
    ///
    /// # Errors
    /// Where the answer failed.
    pub(super) fn take(&mut self, event: EngineEvent) -> Result<Option<Piece>, ApiError> {
        let mut piece = match (self.echo, &event) {
            (Echo::Text, _) => self.echoed(None),
            (Echo::Logprobs, EngineEvent::PromptLogprobs(told)) => self.echoed(Some(told)),
            (Echo::Nothing | Echo::Logprobs, _) => Piece::default(),
        };
        match event {
            EngineEvent::Queued { .. } | EngineEvent::PromptLogprobs(_) => {}
            EngineEvent::Prefilled { reused, .. } => self.n_reused = reused,
            EngineEvent::Token { text, logprobs, .. } => {
                self.n_generated += 1;
                let told = logprobs.and_then(|told| self.named(&told));
                piece.add(self.piece(text, told));
            }
            EngineEvent::Text { text, n_tokens, logprobs } => {
                self.n_generated += n_tokens as usize;
                piece.add(self.piece(text, logprobs.into_iter().map(Named::from)));
            }
            EngineEvent::EndToken(told) => {
                let told = self.named(&told);
                piece.add(self.piece(String::new(), told));
            }
            EngineEvent::LeftOut { rounds, .. } => self.dropped_rounds = rounds,
            EngineEvent::Counted { prompt, reused, generated } => {
                (self.n_prompt, self.n_reused, self.n_generated) = (prompt as usize, reused, generated as usize);
            }
            EngineEvent::End { reason, text } => {
                piece.text.push_str(&text);
                piece.finish = Some(finish(reason.into())?);
            }
        }
        let is_empty = piece.text.is_empty() && piece.logprobs.is_none() && piece.finish.is_none();
        Ok((!is_empty).then_some(piece))
    }

    fn named(&self, told: &TokenLogprobs) -> Option<Named> {
        Some(Named::of(self.tokenizer.as_ref()?, told))
    }

    /// A text, and what is known of its tokens.
    fn piece(&mut self, text: String, told: impl IntoIterator<Item = Named>) -> Piece {
        let mut logprobs: Option<Told> = None;
        for told in told {
            let told = match self.kind {
                Kind::Chat => of_chat(told),
                Kind::Text => {
                    let mut lists = Lists::default();
                    lists.push(told, self.n_chars);
                    Told::Text(lists)
                }
            };
            match &mut logprobs {
                Some(all) => all.add(told),
                none => *none = Some(told),
            }
        }
        self.n_chars += text.chars().count();
        Piece { text, logprobs, finish: None }
    }

    /// The prompt as the model read it, with the probabilities of all its tokens but the first.
    fn echoed(&mut self, told: Option<&Vec<TokenLogprobs>>) -> Piece {
        self.echo = Echo::Nothing;
        let Some(tokenizer) = self.tokenizer.clone() else { return Piece::default() };
        let mut detokenizer = Detokenizer::new(tokenizer.clone());
        let (mut text, mut lists, mut n_chars) = (String::new(), Lists::default(), 0);
        for (index, id) in self.prompt_ids.iter().enumerate() {
            match told.map(|told| index.checked_sub(1).and_then(|before| told.get(before))) {
                Some(Some(told)) => lists.push(Named::of(&tokenizer, told), n_chars),
                Some(None) => lists.push_first(tokenizer.piece(*id)),
                None => {}
            }
            let piece = detokenizer.push(*id);
            n_chars += piece.chars().count();
            text.push_str(&piece);
        }
        text.push_str(&detokenizer.finish());
        self.n_chars = text.chars().count();
        Piece { text, logprobs: told.map(|_| Told::Text(lists)), finish: None }
    }
}

fn finish(reason: EndReason) -> Result<&'static str, ApiError> {
    match reason {
        EndReason::EndOfText | EndReason::StopString => Ok("stop"),
        EndReason::Length => Ok("length"),
        EndReason::Stopped | EndReason::Interrupted | EndReason::Failed { .. } => Err(failure(reason).into()),
    }
}

/// All answers, when they are over.
///
/// # Errors
/// Where one of them failed.
pub(super) async fn whole(head: &Head, mut answers: Vec<Answer>, mut choices: Choices) -> Result<Value, ApiError> {
    let mut wholes: Vec<Piece> = answers.iter().map(|_| Piece::default()).collect();
    while let Some(next) = choices.next().await {
        let (index, event) = next?;
        let (Some(answer), Some(whole)) = (answers.get_mut(index), wholes.get_mut(index)) else { continue };
        if let Some(piece) = answer.take(event)? {
            whole.add(piece);
        }
    }
    Ok(head.whole(&answers, &wholes))
}
