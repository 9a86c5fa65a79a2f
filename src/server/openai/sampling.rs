//! What conversations and texts are asked for with alike: how to draw, how many, when to end, and what may not be asked.

use std::sync::Arc;

use serde_json::Value;

use super::{
    error::ApiError,
    fields::{Fields, whole, wrong},
};
use crate::{
    chat::settings::{MAX_SEED, Sampling, Settings},
    engine::{
        remote::{RemoteRequest, body::RemotePrompt},
        request::{CacheScope, GenerationRequest, LogprobsRequest},
    },
    server::state::Ready,
};

/// Most answers to one prompt.
const MOST_CHOICES: u32 = 8;

/// Most tokens that stay in a draw.
const MOST_TOP_K: u32 = 100;

/// Most stop strings, and most bytes of one.
const MOST_STOPS: usize = 16;
const MOST_STOP_BYTES: usize = 1024;

/// Most of the likeliest tokens that are told at each place.
pub(super) const MOST_TOP: u32 = 20;

/// What would change the answer and is not there, and what to do instead.
const UNSUPPORTED: &[(&str, Means, &str)] = &[
    ("tools", Means::Filled, "describe tools in a message, and give their results back as role tool"),
    ("functions", Means::Filled, "describe tools in a message, and give their results back as role tool"),
    ("tool_choice", Means::Not("none"), "there are no tools to choose from"),
    ("function_call", Means::Not("none"), "there are no functions to call"),
    ("response_format", Means::NotText, "ask for the form in a message"),
    ("logit_bias", Means::Filled, "there is no bias on tokens"),
    ("presence_penalty", Means::NotZero, "this model's penalty is repetition_penalty"),
    ("frequency_penalty", Means::NotZero, "this model's penalty is repetition_penalty"),
    ("length_penalty", Means::NotOne, "answers are drawn, not searched for"),
    ("use_beam_search", Means::True, "answers are drawn, not searched for"),
    ("min_p", Means::NotZero, "use top_p"),
    ("min_tokens", Means::NotZero, "use ignore_eos with max_tokens"),
    ("typical_p", Means::NotOne, "use top_p"),
    ("stop_token_ids", Means::Filled, "use stop with a text"),
    ("bad_words", Means::Filled, "there is no list of words that are left out"),
    ("allowed_token_ids", Means::Filled, "there is no list of tokens that are let in"),
    ("guided_json", Means::Filled, "ask for the form in a message"),
    ("guided_regex", Means::Filled, "ask for the form in a message"),
    ("guided_choice", Means::Filled, "compare log-probabilities of /v1/completions with echo"),
    ("guided_grammar", Means::Filled, "ask for the form in a message"),
    ("structured_outputs", Means::Filled, "ask for the form in a message"),
    ("json_schema", Means::Filled, "ask for the form in a message"),
    ("grammar", Means::Filled, "ask for the form in a message"),
    ("regex", Means::Filled, "ask for the form in a message"),
    ("ebnf", Means::Filled, "ask for the form in a message"),
    ("logits_processors", Means::Filled, "there is no code that is run between model and draw"),
    ("suffix", Means::Filled, "texts are gone on with at their end only"),
    ("audio", Means::Filled, "the model reads and writes text"),
    ("chat_template", Means::Filled, "the prompt format is the model's own, see --prompt_format"),
    ("chat_template_kwargs", Means::Filled, "the prompt format is the model's own, see --prompt_format"),
    ("add_generation_prompt", Means::False, "use /v1/completions for a prompt of your own"),
    ("continue_final_message", Means::True, "use /v1/completions for a prompt of your own"),
    ("documents", Means::Filled, "write them into a message"),
    ("prompt_logprobs", Means::NotZero, "use echo with logprobs in /v1/completions"),
    ("truncate_prompt_tokens", Means::Filled, "send the part of the prompt that is to be read"),
    ("include_stop_str_in_output", Means::True, "a stop string is no part of the answer"),
    ("skip_special_tokens", Means::False, "special tokens give no text"),
    ("n_predict", Means::NotMinusOne, "use max_tokens"),
    ("mirostat", Means::NotZero, "use top_p"),
    ("dry_multiplier", Means::NotZero, "use repetition_penalty"),
    ("xtc_probability", Means::NotZero, "use temperature"),
    ("dynatemp_range", Means::NotZero, "use temperature"),
    ("samplers", Means::Filled, "the order is fixed: repetition_penalty, temperature, top_k, top_p"),
];

/// Which values of a field change the answer.
#[derive(Debug, Clone, Copy)]
enum Means {
    /// All that hold something.
    Filled,
    /// All but this word.
    Not(&'static str),
    /// All but a type of text.
    NotText,
    /// All but 0.
    NotZero,
    /// All but 1.
    NotOne,
    /// All but -1.
    NotMinusOne,
    /// True.
    True,
    /// False.
    False,
}

impl Means {
    fn changes(self, value: &Value) -> bool {
        match self {
            Self::Filled => match value {
                Value::Array(items) => !items.is_empty(),
                Value::Object(fields) => !fields.is_empty(),
                Value::String(text) => !text.is_empty(),
                Value::Bool(flag) => *flag,
                Value::Number(_) => true,
                Value::Null => false,
            },
            Self::Not(word) => value != word,
            Self::NotText => value["type"] != "text",
            Self::NotZero => value.as_f64() != Some(0.0),
            Self::NotOne => value.as_f64() != Some(1.0),
            Self::NotMinusOne => value.as_f64() != Some(-1.0),
            Self::True => value != &Value::Bool(false),
            Self::False => value != &Value::Bool(true),
        }
    }
}

/// How answers are drawn, how many of them, and how they are told.
#[derive(Debug)]
pub(super) struct Drawing {
    pub(super) sampling: Sampling,
    /// Of the first answer; of each further one it is one more.
    pub(super) seed: u64,
    pub(super) n: u32,
    pub(super) stop: Vec<String>,
    pub(super) ignore_eos: bool,
    pub(super) delivery: Delivery,
    /// Whether somebody said how many tokens there may be.
    pub(super) is_bounded: bool,
}

/// In how many pieces answers are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// When they are over.
    Whole,
    /// As they grow.
    Stream,
    /// As they grow, and at the end how many tokens there were.
    CountedStream,
}

impl Drawing {
    /// Takes what is asked for with; `longest` are the names of the field that bounds an answer, the first that is there
    /// counts, and `least` is the least that it may say.
    ///
    /// # Errors
    /// A field that is wrong, out of bounds, or not supported.
    pub(super) fn read(
        fields: &mut Fields,
        ready: &Ready,
        longest: &[&'static str],
        least: u32,
    ) -> Result<Self, ApiError> {
        check_model(fields, ready)?;
        refuse_unsupported(fields)?;
        let mut most = None;
        for name in longest {
            let found = fields.whole(name, least..=ready.model.longest_answer)?;
            most = most.or(found);
        }
        // A prompt's log-probabilities alone: a bound that the page does not have.
        let is_for_none = least == 0 && most == Some(0);
        let settings = Settings {
            temperature: fields.number("temperature")?,
            top_k: top_k(fields)?,
            top_p: fields.number("top_p")?,
            // The second is llama.cpp's word for it; upstream servers are sent both.
            repetition_penalty: fields.number("repetition_penalty")?.or(fields.number("repeat_penalty")?),
            max_new_tokens: if is_for_none { Some(1) } else { most },
            // Of larger seeds the lower bits count.
            seed: fields.bits("seed")?.map(|seed| seed & MAX_SEED),
        };
        let resolved = settings.resolve(&ready.model.defaults, ready.model.longest_answer);
        let mut sampling = resolved.map_err(ApiError::out_of_range)?;
        if is_for_none {
            sampling.max_new_tokens = 0;
        }
        let n = fields.whole("n", 1..=MOST_CHOICES)?.unwrap_or(1);
        if fields.take("best_of").is_some_and(|best_of| best_of != n) {
            return Err(ApiError::unsupported("best_of", "ask for n answers and choose one"));
        }
        Ok(Self {
            sampling,
            seed: settings.seed_or_random(),
            n,
            stop: stop(fields)?,
            ignore_eos: fields.flag("ignore_eos")?,
            delivery: delivery(fields)?,
            is_bounded: most.is_some(),
        })
    }

    /// What the engine in this program is asked for the first answer.
    pub(super) fn local_request(
        &self,
        prompt_ids: Vec<u32>,
        sampling: Sampling,
        logprobs: LogprobsRequest,
    ) -> GenerationRequest {
        GenerationRequest {
            prompt_ids: prompt_ids.into(),
            continued_ids: Arc::default(),
            sampling,
            seed: self.seed,
            ignore_eos: self.ignore_eos,
            stop: self.stop.clone(),
            logprobs,
            scope: CacheScope::Alone,
        }
    }

    /// What upstream servers are asked for the answer with this index.
    pub(super) fn remote_request(&self, prompt: RemotePrompt, index: u32, logprobs: Option<u32>) -> RemoteRequest {
        RemoteRequest {
            prompt,
            sampling: self.sampling,
            is_bounded: self.is_bounded,
            seed: self.seed_of(index),
            ignore_eos: self.ignore_eos,
            stop: self.stop.clone(),
            logprobs,
        }
    }

    /// The seed of the answer with this index; seeds go round after the largest.
    pub(super) fn seed_of(&self, index: u32) -> u64 {
        (self.seed + u64::from(index)) & MAX_SEED
    }
}

/// Refuses another model's name.
pub(super) fn check_model(fields: &mut Fields, ready: &Ready) -> Result<(), ApiError> {
    match fields.text("model")? {
        Some(name) if name != ready.model.name => Err(ApiError::model(&name, &ready.model.name)),
        Some(_) | None => Ok(()),
    }
}

fn refuse_unsupported(fields: &mut Fields) -> Result<(), ApiError> {
    for &(name, means, hint) in UNSUPPORTED {
        if fields.take(name).is_some_and(|value| means.changes(&value)) {
            return Err(ApiError::unsupported(name, hint));
        }
    }
    match fields.take("modalities") {
        Some(value) if value != serde_json::json!(["text"]) => {
            Err(ApiError::unsupported("modalities", "the model reads and writes text"))
        }
        Some(_) | None => Ok(()),
    }
}

/// vLLM writes -1 for all of them, which is 0 here.
fn top_k(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    match fields.take("top_k") {
        None => Ok(None),
        Some(value) if value.as_f64() == Some(-1.0) => Ok(Some(0)),
        Some(value) => whole("top_k", &value, 0..=MOST_TOP_K).map(Some),
    }
}

fn stop(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let texts = match fields.take("stop") {
        None => Vec::new(),
        Some(Value::Array(texts)) => texts,
        Some(text) => vec![text],
    };
    if texts.len() > MOST_STOPS {
        let message = format!("stop has {} texts, expected at most {MOST_STOPS}", texts.len());
        return Err(ApiError::field("stop", message));
    }
    let text = |text: Value| match text {
        Value::String(text) if (1..=MOST_STOP_BYTES).contains(&text.len()) => Ok(text),
        other => Err(wrong("stop", &other, "texts of 1 to 1024 bytes")),
    };
    texts.into_iter().map(text).collect()
}

fn delivery(fields: &mut Fields) -> Result<Delivery, ApiError> {
    let is_streamed = fields.flag("stream")?;
    let streamed = |counts| if counts { Delivery::CountedStream } else { Delivery::Stream };
    match fields.take("stream_options") {
        None if is_streamed => Ok(Delivery::Stream),
        None => Ok(Delivery::Whole),
        Some(_) if !is_streamed => {
            Err(ApiError::field("stream_options", "stream_options is there, expected it only together with stream"))
        }
        Some(Value::Object(options)) => match options.get("include_usage") {
            None | Some(Value::Null) => Ok(Delivery::Stream),
            Some(Value::Bool(counts)) => Ok(streamed(*counts)),
            Some(other) => Err(wrong("stream_options.include_usage", other, "true or false")),
        },
        Some(other) => Err(wrong("stream_options", &other, "an object")),
    }
}
