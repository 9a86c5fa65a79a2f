//! One event of an upstream's answer, as JSON, made into what it says.
//!
//! Lenient with what is left out or unknown, strict with what is used. Messages of upstreams may repeat what a person wrote:
//! **Architecture Invariant:** nothing of an error is kept but its numbers, its kind and whether it is about length.

use serde::Deserialize;
use serde_json::Value;

use super::logprobs;
use crate::engine::request::{EngineEnd, TextLogprobs};

/// What one event says.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    /// A part of the answer.
    Part(Part),
    /// That there is nothing more.
    Done,
    /// That something went wrong.
    Error(ErrorSaid),
    /// Nothing that anybody could understand; why.
    Rubbish(&'static str),
}

/// A part of an answer: text, why it ended, how much was counted, each where it is there.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Part {
    pub(super) text: String,
    pub(super) logprobs: Vec<TextLogprobs>,
    pub(super) finish: Option<Finish>,
    pub(super) usage: Option<Usage>,
    /// Rounds that the upstream itself left out; a word of this program's own API.
    pub(super) dropped_rounds: u32,
}

impl Part {
    /// Whether the answer has come further with it.
    pub(super) fn is_progress(&self) -> bool {
        !self.text.is_empty() || !self.logprobs.is_empty() || self.finish.is_some()
    }
}

/// Why an upstream's answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    Ended(EngineEnd),
    /// The upstream gave it up.
    Aborted,
}

/// What an upstream counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Usage {
    pub(super) prompt_tokens: u32,
    pub(super) completion_tokens: u32,
    prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct PromptDetails {
    cached_tokens: Option<u32>,
}

impl Usage {
    pub(super) fn reused_tokens(&self) -> u32 {
        self.prompt_tokens_details.and_then(|details| details.cached_tokens).unwrap_or(0)
    }
}

/// An error, without its words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ErrorSaid {
    /// The status that it would have had as a response.
    pub(super) status: Option<u16>,
    /// Its type and code, where they look like names.
    pub(super) kind: String,
    pub(super) length: Length,
}

/// Whether an error says that prompt and answer do not fit the context.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Length {
    /// It says nothing of it.
    #[default]
    Unsaid,
    /// It says so in words.
    Worded,
    /// Its type or code is the name of that.
    Named,
}

/// What messages about length have in them, each of another server.
const WORDS_OF_LENGTH: [&str; 5] =
    ["context length", "context size", "context window", "maximum model length", "maximum allowed length"];

#[derive(Deserialize)]
struct Chunk {
    choices: Option<Vec<Choice>>,
    usage: Option<Usage>,
    dropped_rounds: Option<u32>,
    error: Option<Value>,
    object: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<Delta>,
    text: Option<String>,
    logprobs: Option<Value>,
    finish_reason: Option<String>,
    /// vLLM's: the stop string that came up.
    stop_reason: Option<Value>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
}

/// Reads the data of one event.
pub(super) fn read(data: &[u8]) -> Said {
    if data.trim_ascii() == b"[DONE]" {
        return Said::Done;
    }
    let Ok(json) = serde_json::from_slice::<Value>(data) else { return Said::Rubbish("an event that is no JSON") };
    let Ok(chunk) = Chunk::deserialize(&json) else { return Said::Rubbish("an event of another shape") };
    if let Some(error) = chunk.error.as_ref().filter(|error| !error.is_null()) {
        return Said::Error(ErrorSaid::of(error));
    }
    if chunk.object.as_ref().and_then(Value::as_str) == Some("error") {
        return Said::Error(ErrorSaid::of(&json));
    }
    if chunk.choices.is_none() && chunk.usage.is_none() {
        return Said::Rubbish("an event with neither choices nor usage");
    }
    let mut part = Part { usage: chunk.usage, dropped_rounds: chunk.dropped_rounds.unwrap_or(0), ..Part::default() };
    if let Some(choice) = chunk.choices.into_iter().flatten().next() {
        part.finish = choice.finish_reason.as_deref().and_then(|reason| finish(reason, choice.stop_reason.as_ref()));
        part.text = choice.text.or_else(|| choice.delta?.content).unwrap_or_default();
        part.logprobs = choice.logprobs.map(logprobs::read).unwrap_or_default();
    }
    Said::Part(part)
}

fn finish(reason: &str, stop_reason: Option<&Value>) -> Option<Finish> {
    Some(match reason {
        // What stands in each part where others have nothing.
        "" | "null" => return None,
        "length" => Finish::Ended(EngineEnd::Length),
        "abort" | "error" => Finish::Aborted,
        _ if stop_reason.is_some_and(Value::is_string) => Finish::Ended(EngineEnd::StopString),
        _ => Finish::Ended(EngineEnd::EndOfText),
    })
}

impl ErrorSaid {
    /// Reads the body of a response that is an error, whatever it is.
    pub(super) fn read(body: &[u8]) -> Self {
        let Ok(json) = serde_json::from_slice::<Value>(body) else { return Self::default() };
        Self::of(json.get("error").unwrap_or(&json))
    }

    fn of(error: &Value) -> Self {
        let text = |field: &str| error.get(field).and_then(Value::as_str);
        let code = error.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
        let status = code.filter(|code| (400..600).contains(code));
        let kind: Vec<&str> = [text("type"), text("code")].into_iter().flatten().filter(|name| is_name(name)).collect();
        let message = text("message").or_else(|| error.as_str()).unwrap_or_default().to_lowercase();
        let length = if kind.iter().any(|kind| is_kind_of_length(kind)) {
            Length::Named
        } else if WORDS_OF_LENGTH.iter().any(|words| message.contains(words)) {
            Length::Worded
        } else {
            Length::Unsaid
        };
        Self { status, kind: kind.join("/"), length }
    }
}

fn is_kind_of_length(kind: &str) -> bool {
    matches!(kind, "context_length_exceeded" | "exceed_context_size_error")
}

/// Whether it can be written down: a name, and no text that somebody wrote.
fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(json: &str) -> Part {
        match read(json.as_bytes()) {
            Said::Part(part) => part,
            other => panic!("{json} is {other:?}"),
        }
    }

    #[test]
    fn text_comes_from_both_endpoints_and_may_be_absent() {
        assert_eq!(part(r#"{"choices":[{"index":0,"delta":{"content":"好"}}]}"#).text, "好");
        assert_eq!(part(r#"{"choices":[{"text":"b","finish_reason":null}]}"#).text, "b");
        assert_eq!(part(r#"{"choices":[{"delta":{"role":"assistant","content":null}}]}"#).text, "");
        assert_eq!(part(r#"{"choices":[{"delta":{}}],"something":"else"}"#), Part::default());
    }

    #[test]
    fn why_it_ended_is_told_apart() {
        for (json, end) in [
            (r#"{"finish_reason":"stop"}"#, Finish::Ended(EngineEnd::EndOfText)),
            (r#"{"finish_reason":"stop","stop_reason":128001}"#, Finish::Ended(EngineEnd::EndOfText)),
            (r#"{"finish_reason":"stop","stop_reason":"\n\n"}"#, Finish::Ended(EngineEnd::StopString)),
            (r#"{"finish_reason":"length"}"#, Finish::Ended(EngineEnd::Length)),
            (r#"{"finish_reason":"abort"}"#, Finish::Aborted),
        ] {
            assert_eq!(part(&format!("{{\"choices\":[{json}]}}")).finish, Some(end), "{json}");
        }
        for nothing in ["null", "\"\"", "\"null\""] {
            let json = format!(r#"{{"choices":[{{"delta":{{"content":"a"}},"finish_reason":{nothing}}}]}}"#);
            assert_eq!(part(&json), Part { text: "a".to_owned(), ..Part::default() }, "{json}");
        }
    }

    #[test]
    fn an_answer_comes_further_by_text_log_probabilities_and_its_end_alone() {
        let is_progress = |choice: &str| part(&format!("{{\"choices\":[{choice}]}}")).is_progress();
        for choice in [
            r#"{"delta":{"content":"a"}}"#,
            r#"{"text":"","logprobs":{"content":[{"token":"a","logprob":-1}]}}"#,
            r#"{"text":"","finish_reason":"stop"}"#,
        ] {
            assert!(is_progress(choice), "{choice}");
        }
        for choice in [r#"{"delta":{"role":"assistant","content":""}}"#, r#"{"text":"","finish_reason":""}"#] {
            assert!(!is_progress(choice), "{choice}");
        }
        assert!(!part(r#"{"choices":[],"usage":{"prompt_tokens":1}}"#).is_progress());
    }

    #[test]
    fn counts_are_taken_with_and_without_choices() {
        let usage = r#"{"prompt_tokens":9,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":8}}"#;
        for choices in ["", "\"choices\":[],"] {
            let usage = part(&format!("{{{choices}\"usage\":{usage}}}")).usage.unwrap();
            assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.reused_tokens()), (9, 4, 8));
        }
        assert_eq!(part(r#"{"choices":[{"text":"a"}],"usage":null}"#).usage, None);
    }

    #[test]
    fn rubbish_is_called_by_its_name() {
        assert_eq!(read(b" [DONE]"), Said::Done);
        for json in ["", "<html>", "[DONE", "{", "\"a\"", "[]", "{}", "{\"choices\":3}", "{\"choices\":[{\"text\":3}]}"]
        {
            assert!(matches!(read(json.as_bytes()), Said::Rubbish(_)), "{json}");
        }
        assert!(matches!(read(b"{\"choices\":[{\"text\":\"\xff\"}]}"), Said::Rubbish(_)));
    }

    #[test]
    fn an_error_keeps_its_kind_and_none_of_its_words() {
        let secret = "geheim";
        for (json, status, kind) in [
            (
                format!(r#"{{"error":{{"message":"{secret}","type":"BadRequest","code":400}}}}"#),
                Some(400),
                "BadRequest",
            ),
            (format!(r#"{{"object":"error","message":"{secret}","type":"x","code":500}}"#), Some(500), "x"),
            (format!(r#"{{"error":{{"message":"m","type":"{secret} {secret}","code":"a_code"}}}}"#), None, "a_code"),
            (format!(r#"{{"error":"{secret}"}}"#), None, ""),
        ] {
            let Said::Error(error) = read(json.as_bytes()) else { panic!("{json}") };
            assert_eq!((error.status, error.kind.as_str()), (status, kind), "{json}");
            assert!(!format!("{error:?}").contains(secret), "{error:?}");
        }
    }

    #[test]
    fn that_the_context_is_exceeded_is_understood_from_everybody() {
        for (json, length) in [
            (
                r#"{"object":"error","message":"This model's maximum context length is 4096 tokens. However, you requested 9","code":400}"#,
                Length::Worded,
            ),
            (
                r#"{"object":"error","message":"Input length (5000 tokens) exceeds the maximum allowed length (4090 tokens).","code":400}"#,
                Length::Worded,
            ),
            (
                r#"{"error":{"message":"The input (9 tokens) is longer than the model's context length (8 tokens)."}}"#,
                Length::Worded,
            ),
            (r#"{"error":{"code":400,"message":"m","type":"exceed_context_size_error"}}"#, Length::Named),
            (
                r#"{"code":500,"message":"the context size is exceeded","type":"exceed_context_size_error"}"#,
                Length::Named,
            ),
            (r#"{"error":{"message":"m","code":"context_length_exceeded"}}"#, Length::Named),
        ] {
            assert_eq!(ErrorSaid::read(json.as_bytes()).length, length, "{json}");
        }
        for json in ["<html>context length</html>", r#"{"error":{"message":"no such model"}}"#, "{}"] {
            assert_eq!(ErrorSaid::read(json.as_bytes()).length, Length::Unsaid, "{json}");
        }
    }
}
