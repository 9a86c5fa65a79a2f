//! What upstreams say of their model, and what is said of it here.

use serde::Deserialize;

use crate::chat::{
    info::{ModelInfo, PromptFormat},
    settings::Sampling,
};

/// The context of an upstream that says nothing of it: XVERSE-13B's.
const DEFAULT_CONTEXT: u32 = 8192;

/// The longest name that is taken.
const MAX_NAME_BYTES: usize = 256;

/// The first model of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Its name, as requests have to name it.
    pub(super) model: String,
    /// Most tokens of prompt and answer together, where it is said.
    pub(super) context_length: Option<u32>,
}

#[derive(Deserialize)]
struct Models {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
    /// Of vLLM, `SGLang` and this program.
    max_model_len: Option<u32>,
    /// Of llama.cpp.
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Meta {
    n_ctx: Option<u32>,
    n_ctx_train: Option<u32>,
}

impl Found {
    /// Reads the answer to `GET /v1/models`; `None` where it is none.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let models: Models = serde_json::from_slice(body).ok()?;
        let first = models.data.into_iter().find(|model| (1..=MAX_NAME_BYTES).contains(&model.id.len()))?;
        let of_meta = first.meta.and_then(|meta| meta.n_ctx.or(meta.n_ctx_train));
        // With less there is no room for a prompt and an answer.
        let context_length = first.max_model_len.or(of_meta).filter(|n_tokens| *n_tokens >= 2);
        Some(Self { model: first.id, context_length })
    }
}

/// What the page says of the model behind these upstreams: the first one's, and of their contexts the shortest.
pub(super) fn info(found: &[Found], prompt_format: PromptFormat, defaults: Sampling) -> ModelInfo {
    let context_length = found.iter().filter_map(|found| found.context_length).min().unwrap_or(DEFAULT_CONTEXT);
    ModelInfo {
        name: found.first().map_or_else(String::new, |found| found.model.clone()),
        is_mini: false,
        n_parameters: None,
        dtype: None,
        quantize: None,
        device: "upstream".to_owned(),
        weight_bytes: None,
        kv_capacity_tokens: None,
        context_length,
        longest_answer: context_length - 1,
        prompt_format,
        defaults,
        load_seconds: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(json: &str) -> Option<(String, Option<u32>)> {
        Found::read(json.as_bytes()).map(|found| (found.model, found.context_length))
    }

    #[test]
    fn the_first_model_is_taken_with_the_context_that_each_kind_of_server_says() {
        let of = |context| Some(("a".to_owned(), context));
        assert_eq!(found(r#"{"object":"list","data":[{"id":"a","max_model_len":4096},{"id":"b"}]}"#), of(Some(4096)));
        assert_eq!(found(r#"{"data":[{"id":"a","meta":{"n_ctx_train":2048,"n_params":7}}]}"#), of(Some(2048)));
        assert_eq!(found(r#"{"data":[{"id":"a","meta":null,"max_model_len":null}]}"#), of(None));
        assert_eq!(found(r#"{"data":[{"id":"a","max_model_len":0}]}"#), of(None));
    }

    #[test]
    fn what_is_no_list_of_models_is_none() {
        for json in ["", "<html>", "{}", r#"{"data":[]}"#, r#"{"data":[{"id":""}]}"#, r#"{"data":[{"id":3}]}"#] {
            assert_eq!(found(json), None, "{json}");
        }
        assert_eq!(found(&format!(r#"{{"data":[{{"id":"{}"}}]}}"#, "a".repeat(300))), None);
    }

    #[test]
    fn several_upstreams_promise_what_all_of_them_hold() {
        let found = |model: &str, context_length| Found { model: model.to_owned(), context_length };
        let info = |all: &[Found]| info(all, PromptFormat::V2, Sampling::default());
        let both = info(&[found("a", Some(8192)), found("b", Some(4096)), found("c", None)]);
        assert_eq!((both.name.as_str(), both.context_length, both.longest_answer), ("a", 4096, 4095));
        assert_eq!(info(&[found("a", None)]).context_length, DEFAULT_CONTEXT);
    }
}
