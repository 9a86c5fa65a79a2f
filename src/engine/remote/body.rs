//! What is asked of an upstream, as JSON, and how less is asked where it was too much.

use std::sync::Arc;

use serde::Serialize;

use super::RemoteRequest;
use crate::{
    chat::{message::Role, settings::Sampling},
    engine::prompt::Turn,
};

/// An answer to a conversation is not made shorter than this to fit: it would say nothing.
const LEAST_ANSWER: u32 = 64;

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

    /// The same with less, after it did not fit a context of so many tokens; `None` where there is nothing to leave out.
    ///
    /// Of a conversation first an answer of half the context at most, which is what a long prompt may always claim; then half as
    /// many rounds, the oldest left out, and a system turn with them, being older still; then half of the answer, down to
    /// [`LEAST_ANSWER`]. Of a text half of the answer, unless somebody asked for all of it.
    pub(super) fn shorter(&self, context_length: u32, before: LeftOut) -> Option<(Self, LeftOut)> {
        let RemotePrompt::Turns(turns) = &self.prompt else {
            return if self.is_bounded { None } else { self.half_of_the_answer(1).map(|less| (less, before)) };
        };
        let half = (context_length / 2).max(1);
        if self.sampling.max_new_tokens > half {
            return Some((self.with_most(half), before));
        }
        let (newest, older) = turns.split_last()?;
        if older.is_empty() {
            return self.half_of_the_answer(LEAST_ANSWER).map(|less| (less, before));
        }
        let rounds: Vec<usize> = older
            .iter()
            .enumerate()
            .filter(|(_, turn)| matches!(turn.role, Role::User | Role::Exec))
            .map(|(at, _)| at)
            .collect();
        let has_system = older.first().is_some_and(|turn| turn.role == Role::System);
        let n_kept = rounds.len() / 2;
        let n_dropped = rounds.len() - n_kept;
        let first_kept = rounds.get(n_dropped).copied().unwrap_or(older.len());
        let kept = older.get(first_kept..).unwrap_or_default().iter().chain([newest]).cloned().collect();
        let left_out = LeftOut { rounds: before.rounds + n_dropped as u32, system: before.system || has_system };
        Some((Self { prompt: RemotePrompt::Turns(kept), ..self.clone() }, left_out))
    }

    /// The same with half of the answer, where it is longer than `least`.
    fn half_of_the_answer(&self, least: u32) -> Option<Self> {
        let most = self.sampling.max_new_tokens;
        (most > least).then(|| self.with_most((most / 2).max(least)))
    }

    fn with_most(&self, max_new_tokens: u32) -> Self {
        Self { sampling: Sampling { max_new_tokens, ..self.sampling }, ..self.clone() }
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

    const NOTHING: LeftOut = LeftOut { rounds: 0, system: false };

    fn turn(role: Role, text: &str) -> Turn {
        Turn { role, text: text.to_owned() }
    }

    fn request(prompt: RemotePrompt) -> RemoteRequest {
        let sampling = Sampling { max_new_tokens: 100, ..Sampling::default() };
        RemoteRequest {
            prompt,
            sampling,
            is_bounded: false,
            seed: 7,
            ignore_eos: false,
            stop: Vec::new(),
            logprobs: None,
        }
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
    }

    /// How long the answer may be, time and again.
    fn answers(mut asked: RemoteRequest, context_length: u32) -> Vec<u32> {
        let mut lengths = Vec::new();
        while let Some((less, left_out)) = asked.shorter(context_length, NOTHING) {
            assert_eq!((&less.prompt, left_out), (&asked.prompt, NOTHING));
            lengths.push(less.sampling.max_new_tokens);
            asked = less;
        }
        lengths
    }

    #[test]
    fn the_answer_to_what_cannot_be_cut_is_halved_down_to_a_bound() {
        let text = || request(RemotePrompt::Text("a".to_owned()));
        assert_eq!(answers(text(), 128), [50, 25, 12, 6, 3, 1]);
        assert_eq!(answers(request(RemotePrompt::Ids([1].as_slice().into())), 8), [50, 25, 12, 6, 3, 1]);
        assert_eq!(answers(RemoteRequest { is_bounded: true, ..text() }, 8), [0; 0]);
        // The context that is known may be larger than the one that there is.
        let mut alone = request(RemotePrompt::Turns(vec![turn(Role::User, "u")]));
        alone.sampling.max_new_tokens = 2000;
        assert_eq!(answers(alone, 1000), [500, 250, 125, 64]);
        assert_eq!(answers(request(RemotePrompt::Turns(vec![turn(Role::User, "u")])), 100), [50]);
    }
}
