//! What is asked of an upstream, as JSON, and how less is asked where it was too much.

use std::sync::Arc;

use serde::Serialize;

use super::RemoteRequest;
use crate::{chat::message::Role, engine::prompt::Turn};

/// What is to be answered or gone on with.
#[derive(Debug, Clone, PartialEq)]
pub enum RemotePrompt {
    /// A conversation, of which the upstream makes a prompt; the last turn is a person's or a tool's.
    Turns(Vec<Turn>),
    /// A text to go on with.
    Text(String),
    /// Token ids to go on with.
    Ids(Arc<[u32]>),
}

/// What was left out of a conversation so that it fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// Rounds, a question and its answer each.
    pub(super) rounds: u32,
    /// Whether the system turn was left out.
    pub(super) system: bool,
}

#[derive(Serialize)]
struct Body<'r> {
    model: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Vec<Message<'r>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<Prompt<'r>>,
    stream: bool,
    stream_options: StreamOptions,
    temperature: f32,
    top_p: f32,
    top_k: i64,
    repetition_penalty: f32,
    /// llama.cpp's word for it.
    repeat_penalty: f32,
    max_tokens: u32,
    seed: u64,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'r [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Logprobs>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_logprobs: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ignore_eos: bool,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
struct Message<'r> {
    role: &'static str,
    content: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Prompt<'r> {
    Text(&'r str),
    Ids(&'r [u32]),
}

/// For a conversation whether, for a text how many.
#[derive(Serialize)]
#[serde(untagged)]
enum Logprobs {
    Whether(bool),
    HowMany(u32),
}

impl RemoteRequest {
    /// The route that answers it.
    pub(super) fn route(&self) -> &'static str {
        match self.prompt {
            RemotePrompt::Turns(_) => "chat/completions",
            RemotePrompt::Text(_) | RemotePrompt::Ids(_) => "completions",
        }
    }

    /// The request for a model of this name.
    pub(super) fn body(&self, model: &str) -> Vec<u8> {
        let is_chat = matches!(self.prompt, RemotePrompt::Turns(_));
        let (messages, prompt) = match &self.prompt {
            RemotePrompt::Turns(turns) => (Some(turns.iter().enumerate().map(message).collect()), None),
            RemotePrompt::Text(text) => (None, Some(Prompt::Text(text))),
            RemotePrompt::Ids(ids) => (None, Some(Prompt::Ids(ids))),
        };
        let body = Body {
            model,
            messages,
            prompt,
            stream: true,
            stream_options: StreamOptions { include_usage: true },
            temperature: self.sampling.temperature,
            top_p: self.sampling.top_p,
            // All of them is -1 for everybody who knows the field; 0 not for all.
            top_k: if self.sampling.top_k == 0 { -1 } else { self.sampling.top_k.into() },
            repetition_penalty: self.sampling.repetition_penalty,
            repeat_penalty: self.sampling.repetition_penalty,
            max_tokens: self.sampling.max_new_tokens,
            seed: self.seed,
            stop: &self.stop,
            logprobs: self.logprobs.map(|n| if is_chat { Logprobs::Whether(true) } else { Logprobs::HowMany(n) }),
            top_logprobs: self.logprobs.filter(|_| is_chat),
            ignore_eos: self.ignore_eos,
        };
        serde_json::to_vec(&body).expect("invariant: a request has string keys and finite numbers")
    }

    /// The same with less, after it did not fit a context of so many tokens: first an answer of half the context at most,
    /// which is what a long prompt may always claim; then half as many rounds, the oldest left out, and a system turn with them,
    /// being older still. `None` where there is nothing to leave out.
    pub(super) fn shorter(&self, context_length: u32, before: LeftOut) -> Option<(Self, LeftOut)> {
        let RemotePrompt::Turns(turns) = &self.prompt else { return None };
        let half = (context_length / 2).max(1);
        if self.sampling.max_new_tokens > half {
            let mut less = self.clone();
            less.sampling.max_new_tokens = half;
            return Some((less, before));
        }
        let (newest, older) = turns.split_last()?;
        let rounds: Vec<usize> = older
            .iter()
            .enumerate()
            .filter(|(_, turn)| matches!(turn.role, Role::User | Role::Exec))
            .map(|(at, _)| at)
            .collect();
        let has_system = older.first().is_some_and(|turn| turn.role == Role::System);
        if older.is_empty() {
            return None;
        }
        let n_kept = rounds.len() / 2;
        let n_dropped = rounds.len() - n_kept;
        let first_kept = rounds.get(n_dropped).copied().unwrap_or(older.len());
        let kept = older.get(first_kept..).unwrap_or_default().iter().chain([newest]).cloned().collect();
        let left_out = LeftOut { rounds: before.rounds + n_dropped as u32, system: before.system || has_system };
        Some((Self { prompt: RemotePrompt::Turns(kept), ..self.clone() }, left_out))
    }
}

fn message((at, turn): (usize, &Turn)) -> Message<'_> {
    let (role, tool_call_id) = match turn.role {
        Role::System => ("system", None),
        Role::User => ("user", None),
        // Nobody called a tool by a number here, but a result without one is refused.
        Role::Exec => ("tool", Some(format!("call_{at}"))),
        Role::Assistant => ("assistant", None),
    };
    Message { role, content: &turn.text, tool_call_id }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::chat::settings::Sampling;

    const NOTHING: LeftOut = LeftOut { rounds: 0, system: false };

    fn turn(role: Role, text: &str) -> Turn {
        Turn { role, text: text.to_owned() }
    }

    fn request(prompt: RemotePrompt) -> RemoteRequest {
        let sampling = Sampling { max_new_tokens: 100, ..Sampling::default() };
        RemoteRequest { prompt, sampling, seed: 7, ignore_eos: false, stop: Vec::new(), logprobs: None }
    }

    fn json_of(request: &RemoteRequest) -> Value {
        serde_json::from_slice(&request.body("m")).unwrap()
    }

    #[test]
    fn a_conversation_is_asked_for_with_its_roles_and_settings() {
        let turns =
            vec![turn(Role::System, "s"), turn(Role::User, "u"), turn(Role::Assistant, "a"), turn(Role::Exec, "e")];
        let text = String::from_utf8(request(RemotePrompt::Turns(turns)).body("m")).unwrap();
        insta::assert_snapshot!(text, @r#"{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":"u"},{"role":"assistant","content":"a"},{"role":"tool","content":"e","tool_call_id":"call_3"}],"stream":true,"stream_options":{"include_usage":true},"temperature":0.5,"top_p":0.85,"top_k":30,"repetition_penalty":1.1,"repeat_penalty":1.1,"max_tokens":100,"seed":7}"#);
    }

    #[test]
    fn a_text_or_ids_are_gone_on_with() {
        let mut asked = request(RemotePrompt::Ids([1, 2].as_slice().into()));
        asked.sampling.top_k = 0;
        asked.stop = vec!["x".to_owned()];
        asked.logprobs = Some(5);
        asked.ignore_eos = true;
        let json = json_of(&asked);
        assert_eq!((asked.route(), &json["prompt"], &json["top_k"]), ("completions", &json!([1, 2]), &json!(-1)));
        assert_eq!((&json["logprobs"], &json["stop"], &json["ignore_eos"]), (&json!(5), &json!(["x"]), &json!(true)));
        assert_eq!(json.get("messages").or(json.get("top_logprobs")), None);
        let mut asked = request(RemotePrompt::Turns(vec![turn(Role::User, "u")]));
        asked.logprobs = Some(3);
        let json = json_of(&asked);
        assert_eq!((&json["logprobs"], &json["top_logprobs"]), (&json!(true), &json!(3)));
    }

    #[test]
    fn less_is_a_shorter_answer_first_then_half_the_rounds_until_the_newest_is_alone() {
        let round = |n: usize| [turn(Role::User, &format!("u{n}")), turn(Role::Assistant, &format!("a{n}"))];
        let turns =
            [turn(Role::System, "s")].into_iter().chain((0..5).flat_map(round)).chain([turn(Role::User, "new")]);
        let asked = request(RemotePrompt::Turns(turns.collect()));
        let (asked, left_out) = asked.shorter(128, NOTHING).unwrap();
        assert_eq!((asked.sampling.max_new_tokens, left_out), (64, NOTHING));
        let mut texts = Vec::new();
        let (mut asked, mut left_out) = (asked, left_out);
        while let Some((less, more_left_out)) = asked.shorter(128, left_out) {
            (asked, left_out) = (less, more_left_out);
            let RemotePrompt::Turns(turns) = &asked.prompt else { unreachable!() };
            let said: Vec<&str> = turns.iter().map(|turn| turn.text.as_str()).collect();
            texts.push((said.join(" "), left_out.rounds, left_out.system));
        }
        let expected = [("u3 a3 u4 a4 new", 3, true), ("u4 a4 new", 4, true), ("new", 5, true)];
        assert_eq!(texts, expected.map(|(text, rounds, system)| (text.to_owned(), rounds, system)));
        assert!(request(RemotePrompt::Text("a".to_owned())).shorter(8, NOTHING).is_none());
    }
}
