//! One answer as it grows, and what is told of it: at once, or piece by piece.

use std::sync::Arc;

use super::{
    choices::{Choices, failure},
    error::ApiError,
    logprobs::{ChatToken, Lists, Named, Places, Told},
};
use crate::{
    chat::event::EndReason,
    engine::{
        detokenizer::Detokenizer,
        request::{EngineEvent, TextLogprobs, TokenLogprobs},
        tokenizer::ChatTokenizer,
    },
};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An answer to a conversation.
    Chat,
    /// What follows on a text.
    Text,
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
    pub(super) is_first_of_prompt: bool,
    /// Rounds that were left out of a conversation's prompt.
    pub(super) dropped_rounds: u32,
    pub(super) n_prompt: usize,
    pub(super) n_reused: u32,
    pub(super) n_generated: usize,
    /// Characters told so far.
    n_chars: usize,
    /// Tokens whose place in a text is not certain yet, once there were any.
    places: Option<Places>,
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
            places: None,
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
            EngineEvent::Token { id, text, logprobs } => {
                self.n_generated += 1;
                let told = logprobs.and_then(|told| self.told(id, &told));
                piece.add(self.piece(text, told));
            }
            EngineEvent::Text { text, n_tokens, logprobs } => {
                self.n_generated += n_tokens as usize;
                let told = self.told_there(logprobs);
                piece.add(self.piece(text, told));
            }
            EngineEvent::EndToken(told) => {
                let told = self.told(told.token, &told);
                piece.add(self.piece(String::new(), told));
            }
            EngineEvent::LeftOut { rounds, .. } => self.dropped_rounds = rounds,
            EngineEvent::Counted { prompt, reused, generated } => {
                (self.n_prompt, self.n_reused, self.n_generated) = (prompt as usize, reused, generated as usize);
            }
            EngineEvent::End { reason, text } => {
                let mut lists = Lists::default();
                if let Some(places) = &mut self.places {
                    places.finish(&mut lists);
                }
                piece.add(self.piece(text, (!lists.is_empty()).then_some(Told::Text(lists))));
                piece.finish = Some(finish(reason.into())?);
            }
        }
        let is_empty = piece.text.is_empty() && piece.logprobs.is_none() && piece.finish.is_none();
        Ok((!is_empty).then_some(piece))
    }

    /// What is told of a token, together with those before it whose place was not certain yet.
    fn told(&mut self, id: u32, told: &TokenLogprobs) -> Option<Told> {
        let tokenizer = self.tokenizer.clone()?;
        let named = Named::of(&tokenizer, told);
        if self.kind == Kind::Chat {
            return Some(Told::Chat { content: vec![ChatToken::of(named)], refusal: () });
        }
        let mut lists = Lists::default();
        let places = self.places.get_or_insert_with(|| Places::new(&tokenizer, self.n_chars));
        places.push(id, named, &mut lists);
        (!lists.is_empty()).then_some(Told::Text(lists))
    }

    /// The same where an upstream server names the tokens of a text.
    fn told_there(&self, told: Vec<TextLogprobs>) -> Option<Told> {
        let told = match self.kind {
            Kind::Chat => {
                let content = told.into_iter().map(|told| ChatToken::of(told.into())).collect();
                Told::Chat { content, refusal: () }
            }
            Kind::Text => {
                let (mut lists, mut n_chars) = (Lists::default(), self.n_chars);
                for told in told {
                    let offset = told.text_offset.unwrap_or(n_chars);
                    let named = Named::from(told);
                    n_chars = offset + named.n_chars();
                    lists.push(named, offset);
                }
                Told::Text(lists)
            }
        };
        (!told.is_empty()).then_some(told)
    }

    fn piece(&mut self, text: String, logprobs: Option<Told>) -> Piece {
        self.n_chars += text.chars().count();
        Piece { text, logprobs, finish: None }
    }

    /// The prompt as the model read it, with the probabilities of all its tokens but the first.
    fn echoed(&mut self, told: Option<&[TokenLogprobs]>) -> Piece {
        self.echo = Echo::Nothing;
        let Some(tokenizer) = self.tokenizer.clone() else { return Piece::default() };
        let mut detokenizer = Detokenizer::new(tokenizer.clone());
        let mut text: String = self.prompt_ids.iter().map(|id| detokenizer.push(*id)).collect();
        text.push_str(&detokenizer.finish());
        let logprobs = told.map(|told| {
            let (mut places, mut lists) = (Places::new(&tokenizer, 0), Lists::default());
            let first = self.prompt_ids.first().map(|id| Named::first(tokenizer.piece(*id)));
            let named = first.into_iter().chain(told.iter().map(|told| Named::of(&tokenizer, told)));
            for (id, named) in self.prompt_ids.iter().zip(named) {
                places.push(*id, named, &mut lists);
            }
            places.finish(&mut lists);
            Told::Text(lists)
        });
        self.piece(text, logprobs)
    }
}

fn finish(reason: EndReason) -> Result<&'static str, ApiError> {
    match reason {
        EndReason::EndOfText | EndReason::StopString => Ok("stop"),
        EndReason::Length => Ok("length"),
        EndReason::Stopped | EndReason::Interrupted | EndReason::Failed { .. } => Err(failure(reason).into()),
    }
}

/// What all answers say, when they are over.
///
/// # Errors
/// Where one of them failed.
pub(super) async fn whole(answers: &mut [Answer], mut choices: Choices) -> Result<Vec<Piece>, ApiError> {
    let mut wholes: Vec<Piece> = answers.iter().map(|_| Piece::default()).collect();
    while let Some(next) = choices.next().await {
        let (index, event) = next?;
        let (Some(answer), Some(whole)) = (answers.get_mut(index), wholes.get_mut(index)) else { continue };
        if let Some(piece) = answer.take(event)? {
            whole.add(piece);
        }
    }
    Ok(wholes)
}
