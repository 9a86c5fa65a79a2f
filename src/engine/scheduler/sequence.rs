//! One admitted sequence: how far it is, and its row of the next step.

use crate::chat::settings::Sampling;
use crate::engine::{
    backend::{Row, RowOutput, SequenceId},
    end_tokens::EndTokens,
    kv::{Pool, Table},
    request::{EngineEnd, GenerationRequest, LogprobsRequest, TokenLogprobs},
    sampling::Draw,
    scheduler::Outcome,
};

/// A sequence that has its blocks promised.
#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) id: SequenceId,
    /// Prompt, then what was generated.
    ids: Vec<u32>,
    /// How many were there when it was admitted: the prompt, and the output that is continued.
    n_prompt: usize,
    /// Of those, how many are the prompt's own.
    n_original: usize,
    /// How many of `ids` have keys and values.
    computed: usize,
    table: Table,
    sampling: Sampling,
    seed: u64,
    ignore_eos: bool,
    logprobs: LogprobsRequest,
    prompt_logprobs: Vec<TokenLogprobs>,
}

impl Sequence {
    /// The blocks that `request` needs, `None` where they can't be promised now.
    pub(super) fn table(pool: &mut Pool, request: &GenerationRequest) -> Option<Table> {
        let mut ids = request.prompt_ids.to_vec();
        ids.extend_from_slice(&request.continued_ids);
        // The last token that is drawn never gets keys and values.
        let n_new = (request.sampling.max_new_tokens as usize).saturating_sub(request.continued_ids.len());
        let n_positions = (ids.len() + n_new).saturating_sub(1).max(ids.len());
        pool.admit(request.scope, &ids, n_positions, request.logprobs.prompt.is_none())
    }

    pub(super) fn new(id: SequenceId, request: GenerationRequest, table: Table) -> Self {
        let n_original = request.prompt_ids.len();
        let mut ids = request.prompt_ids.to_vec();
        ids.extend_from_slice(&request.continued_ids);
        Self {
            id,
            n_prompt: ids.len(),
            n_original,
            computed: table.n_reused(),
            ids,
            table,
            sampling: request.sampling,
            seed: request.seed,
            ignore_eos: request.ignore_eos,
            logprobs: request.logprobs,
            prompt_logprobs: Vec::new(),
        }
    }

    /// Whether prompt tokens are left to read; the last of them is what the first token is drawn after.
    pub(super) fn is_prefilling(&self) -> bool {
        self.computed < self.n_prompt
    }

    /// How many tokens have no keys and values yet.
    pub(super) fn remaining(&self) -> usize {
        self.ids.len() - self.computed
    }

    /// The row that computes the next `chunk` tokens.
    pub(super) fn row(&mut self, chunk: usize, pool: &mut Pool) -> Row {
        let end = self.computed + chunk;
        let most_new = self.sampling.max_new_tokens as usize;
        let wants_token = end == self.ids.len() && self.n_generated() < most_new;
        let goes_on = wants_token && self.n_generated() + 1 < most_new;
        pool.grow(&mut self.table, end + usize::from(goes_on));
        let in_prompt = end <= self.n_prompt;
        Row {
            sequence: self.id,
            ids: self.ids.get(..end).unwrap_or_default().to_vec(),
            start: self.computed,
            blocks: self.table.blocks().to_vec(),
            draw: wants_token.then_some(Draw {
                sampling: self.sampling,
                seed: self.seed,
                index: self.n_generated() as u64,
            }),
            logprobs: self.logprobs.generated,
            prompt_logprobs: self.logprobs.prompt.filter(|_| in_prompt),
            following: if in_prompt { self.ids.get(end).copied() } else { None },
            logits: false,
        }
    }

    /// Takes in a step that computed the first `end` tokens; the reason, where that was the last.
    pub(super) fn advance(
        &mut self,
        end: usize,
        output: RowOutput,
        end_tokens: &EndTokens,
        outcomes: &mut Vec<Outcome>,
    ) -> Option<EngineEnd> {
        let was_prefilling = self.is_prefilling();
        self.computed = end;
        self.prompt_logprobs.extend(output.prompt_logprobs);
        if was_prefilling {
            outcomes.push(self.prefilled());
            if !self.is_prefilling() && self.logprobs.prompt.is_some() {
                let all = std::mem::take(&mut self.prompt_logprobs);
                outcomes.push(Outcome::PromptLogprobs(self.id, all));
            }
        }
        let Some(drawn) = output.drawn else {
            return (!self.is_prefilling()).then_some(EngineEnd::Length);
        };
        if end_tokens.contains(drawn.token) && !self.ignore_eos {
            outcomes.extend(drawn.logprobs.map(|logprobs| Outcome::EndToken(self.id, logprobs)));
            return Some(EngineEnd::EndOfText);
        }
        self.ids.push(drawn.token);
        outcomes.push(Outcome::Drawn(self.id, drawn.token, drawn.logprobs));
        (self.n_generated() >= self.sampling.max_new_tokens as usize).then_some(EngineEnd::Length)
    }

    /// How far its prompt is.
    pub(super) fn prefilled(&self) -> Outcome {
        Outcome::Prefilled {
            sequence: self.id,
            done: self.computed.min(self.n_prompt),
            total: self.n_prompt,
            reused: self.table.n_reused(),
        }
    }

    /// What it computed may be wrong, so none of it is to be kept.
    pub(super) fn distrust(&mut self) {
        self.computed = 0;
    }

    /// Its blocks, and the tokens whose keys and values they hold.
    pub(super) fn into_parts(mut self) -> (Table, Vec<u32>) {
        self.ids.truncate(self.computed);
        (self.table, self.ids)
    }

    fn n_generated(&self) -> usize {
        self.ids.len() - self.n_original
    }
}
