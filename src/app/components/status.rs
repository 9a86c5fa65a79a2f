//! The line under an answer: how far it has come, or how it went.

use crate::{
    app::{
        answer::{Answer, Phase},
        format,
        i18n::Texts,
        state::{Derived, Shared},
        store::Store,
        view::{Element, element, live, nothing, several},
    },
    chat::{ids::MessageId, message::AnswerView},
};

/// Where a running answer stands, until text arrives.
pub fn progress(store: Store, id: MessageId, phase: Derived<Phase>) -> Element {
    let texts = &store.texts.answer;
    let line = move || match phase.get() {
        _ if store.stopping.get() == Some(id) => Some(store.texts.composer.stopping.to_owned()),
        Phase::Queued { place: 0 } => Some(texts.queued.to_owned()),
        Phase::Queued { place } => Some((texts.queued_at)(place)),
        Phase::Reading { done, total } => Some((texts.reading)(done, total)),
        Phase::Streaming | Phase::Ended { .. } => None,
    };
    element("div").class("progress").child(live(move || line().map_or_else(nothing, |line| progress_line(line).into())))
}

/// The line alone.
pub fn progress_line(text: impl Into<String>) -> Element {
    element("p").class("status").handle("queue-status").text(text)
}

/// How an answer went.
pub fn status(store: Store, id: MessageId, answer: &Shared<Answer>) -> Element {
    let texts = store.texts;
    let sampled_with = store.transcript.with_untracked(|transcript| {
        let view = transcript.message(id)?.answer.as_ref()?;
        Some(sampled_with(view, texts))
    });
    let answer = answer.clone();
    let parts = move || {
        let parts = answer.with(|answer| parts(answer, texts)).into_iter();
        several(parts.map(|part| element("span").text(part).into()).collect())
    };
    element("p").class("status").handle("message-status").with("title", sampled_with).child(live(parts))
}

fn parts(answer: &Answer, texts: &Texts) -> Vec<String> {
    let Phase::Ended { reason } = answer.phase else { return Vec::new() };
    let (words, stats) = (&texts.answer, &answer.stats);
    let mut parts = vec![(words.end)(reason).to_owned()];
    if stats.generated_tokens > 0 {
        parts.push((words.tokens)(stats.generated_tokens));
    }
    if stats.tokens_per_second > 0.0 {
        parts.push((words.speed)(&speed(stats.tokens_per_second)));
    }
    if stats.first_token_ms > 0.0 {
        parts.push((words.first_token)(&format::milliseconds(stats.first_token_ms)));
    }
    if stats.reused_tokens > 0 {
        parts.push((words.reused)(stats.reused_tokens, stats.prompt_tokens));
    }
    if stats.dropped_rounds > 0 {
        parts.push((words.dropped)(stats.dropped_rounds));
    }
    if stats.dropped_system {
        parts.push(words.dropped_system.to_owned());
    }
    parts
}

fn speed(tokens_per_second: f32) -> String {
    if tokens_per_second >= 10.0 { format!("{tokens_per_second:.0}") } else { format!("{tokens_per_second:.1}") }
}

fn sampled_with(answer: &AnswerView, texts: &Texts) -> String {
    let sampling = &answer.sampling;
    format!(
        "{}: temperature {}, top_k {}, top_p {}, repetition_penalty {}, max_new_tokens {}, seed {}",
        texts.answer.sampled_with,
        sampling.temperature,
        sampling.top_k,
        sampling.top_p,
        sampling.repetition_penalty,
        sampling.max_new_tokens,
        answer.seed,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        app::preferences::Language,
        chat::{event::EndReason, message::AnswerStats},
    };

    fn ended(reason: EndReason) -> Answer {
        Answer {
            generation: None,
            cursor: 0,
            phase: Phase::Ended { reason },
            blocks: Vec::new(),
            tail: Vec::new(),
            text: String::new(),
            stats: AnswerStats::default(),
            is_saved: true,
            thawed: Vec::new(),
        }
    }

    #[test]
    fn the_line_says_why_it_ended_and_leaves_out_what_is_not_known() {
        let mut answer = ended(EndReason::Stopped);
        let texts = Texts::of(Language::English);
        assert_eq!(parts(&answer, texts), ["Stopped"]);
        answer.stats = AnswerStats {
            prompt_tokens: 40,
            reused_tokens: 32,
            generated_tokens: 12,
            first_token_ms: 20.0,
            tokens_per_second: 35.2,
            dropped_rounds: 0,
            dropped_system: false,
        };
        let expected = ["Stopped", "12 tokens", "35 tokens/s", "first token after 20 ms", "prompt reused 32 / 40"];
        assert_eq!(parts(&answer, texts), expected);
    }

    #[test]
    fn the_line_says_what_was_left_out_of_the_prompt() {
        let mut answer = ended(EndReason::EndOfText);
        let texts = Texts::of(Language::English);
        answer.stats.dropped_system = true;
        assert_eq!(parts(&answer, texts), ["Complete", texts.answer.dropped_system]);
        answer.stats.dropped_rounds = 3;
        assert_eq!(parts(&answer, texts), ["Complete", &(texts.answer.dropped)(3), texts.answer.dropped_system]);
    }
}
