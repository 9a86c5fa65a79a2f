//! One answer as the page holds it, stored or still growing.
//!
//! A pure reducer over `chat::event`: knows no network and no DOM. **Architecture Invariant:** an event at or before the
//! cursor changes nothing, so that a replay never doubles a block.

use crate::chat::{
    event::{EndReason, Event, EventKind},
    ids::GenerationId,
    markup::Block,
    message::{AnswerState, AnswerStats, MessageView},
};

/// Where an answer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It waits; place 0 where nothing has been heard yet.
    Queued {
        /// 1 is next.
        place: u32,
    },
    /// Its prompt is being read.
    Reading {
        /// Prompt tokens read.
        done: u32,
        /// Prompt tokens in all.
        total: u32,
    },
    /// Text arrives.
    Streaming,
    /// It is over.
    Ended {
        /// Why.
        reason: EndReason,
    },
}

impl Phase {
    /// The value of `data-state`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued { .. } => "queued",
            Self::Reading { .. } => "reading",
            Self::Streaming => "streaming",
            Self::Ended { reason } => match reason {
                EndReason::EndOfText | EndReason::Length | EndReason::StopString => "done",
                EndReason::Stopped => "stopped",
                EndReason::Interrupted => "interrupted",
                EndReason::Failed { .. } => "failed",
            },
        }
    }

    /// Whether nothing more comes.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Ended { .. })
    }
}

/// An answer: what is final, what still changes, and how far its events were read.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Its generation, of an answer that was running when it was loaded.
    pub generation: Option<GenerationId>,
    /// The last event's number.
    pub cursor: u64,
    /// Where it stands.
    pub phase: Phase,
    /// Blocks that don't change any more.
    pub blocks: Vec<Block>,
    /// Blocks after those, replaced as a whole.
    pub tail: Vec<Block>,
    /// The whole text, once it is over.
    pub text: String,
    /// Counts and times: what is known of the prompt from the beginning, the rest once it is over.
    pub stats: AnswerStats,
}

impl Answer {
    /// From a message as the server gave it; `None` of a message that is no answer.
    #[must_use]
    pub fn from_message(message: &MessageView) -> Option<Self> {
        let view = message.answer.as_ref()?;
        let (generation, cursor, phase, tail) = match &view.state {
            AnswerState::Running { generation, seq: 0, .. } => {
                (Some(*generation), 0, Phase::Queued { place: 0 }, vec![])
            }
            AnswerState::Running { generation, seq, tail } => (Some(*generation), *seq, Phase::Streaming, tail.clone()),
            AnswerState::Ended { reason } => (None, 0, Phase::Ended { reason: *reason }, vec![]),
        };
        Some(Self {
            generation,
            cursor,
            phase,
            blocks: message.blocks.clone(),
            tail,
            text: message.text.clone(),
            stats: view.stats,
        })
    }

    /// Takes one event in.
    pub fn apply(&mut self, event: Event) {
        if event.seq <= self.cursor || self.phase.is_over() {
            return;
        }
        self.cursor = event.seq;
        match event.kind {
            EventKind::Queued { place } => self.phase = Phase::Queued { place },
            EventKind::Reading { done, total } => self.phase = Phase::Reading { done, total },
            EventKind::Block { index, block } => {
                self.phase = Phase::Streaming;
                if index as usize == self.blocks.len() {
                    self.blocks.push(block);
                }
                // The old tail began with the block that is final now.
                self.tail.clear();
            }
            EventKind::Tail { blocks } => {
                self.phase = Phase::Streaming;
                self.tail = blocks;
            }
            EventKind::End { reason, stats, text, .. } => {
                self.phase = Phase::Ended { reason };
                self.tail.clear();
                self.stats = stats;
                self.text = text;
            }
        }
    }

    /// The server knows nothing of it any more: what was seen stays, as an interrupted answer.
    pub fn lose(&mut self) {
        if !self.phase.is_over() {
            self.blocks.append(&mut self.tail);
            self.phase = Phase::Ended { reason: EndReason::Interrupted };
        }
    }

    /// How many blocks are shown.
    #[must_use]
    pub fn n_blocks(&self) -> usize {
        self.blocks.len() + self.tail.len()
    }

    /// Block number `index` of those shown.
    #[must_use]
    pub fn block(&self, index: usize) -> Option<&Block> {
        self.blocks.get(index).or_else(|| self.tail.get(index - self.blocks.len()))
    }

    /// Whether block number `index` doesn't change any more.
    #[must_use]
    pub fn is_final(&self, index: usize) -> bool {
        index < self.blocks.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::markup::Inline;

    fn paragraph(text: &str) -> Block {
        Block::Paragraph { inlines: vec![Inline::Text { text: text.to_owned() }] }
    }

    fn running() -> Answer {
        Answer {
            generation: Some(GenerationId::random()),
            cursor: 0,
            phase: Phase::Queued { place: 0 },
            blocks: Vec::new(),
            tail: Vec::new(),
            text: String::new(),
            stats: AnswerStats::default(),
        }
    }

    fn log() -> Vec<Event> {
        let kinds = [
            (1, EventKind::Queued { place: 2 }),
            (2, EventKind::Reading { done: 3, total: 9 }),
            (3, EventKind::Tail { blocks: vec![paragraph("on")] }),
            (5, EventKind::Block { index: 0, block: paragraph("one") }),
            (6, EventKind::Tail { blocks: vec![paragraph("tw")] }),
            (7, EventKind::Block { index: 1, block: paragraph("two") }),
            (
                8,
                EventKind::End {
                    reason: EndReason::EndOfText,
                    stats: AnswerStats { generated_tokens: 2, ..AnswerStats::default() },
                    text: "one\n\ntwo".to_owned(),
                    is_saved: true,
                },
            ),
        ];
        kinds.into_iter().map(|(seq, kind)| Event { seq, kind }).collect()
    }

    #[test]
    fn an_answer_goes_from_queued_to_done() {
        let mut answer = running();
        let names = log().into_iter().map(|event| {
            answer.apply(event);
            answer.phase.name()
        });
        let names: Vec<_> = names.collect();
        assert_eq!(names, ["queued", "reading", "streaming", "streaming", "streaming", "streaming", "done"]);
        assert_eq!(answer.blocks, [paragraph("one"), paragraph("two")]);
        assert!(answer.tail.is_empty());
        assert_eq!((answer.text.as_str(), answer.stats.generated_tokens), ("one\n\ntwo", 2));
    }

    #[test]
    fn a_replay_from_any_point_doubles_nothing() {
        for cut in 0..log().len() {
            let mut answer = running();
            for event in log().into_iter().take(cut) {
                answer.apply(event);
            }
            for event in log() {
                answer.apply(event);
            }
            assert_eq!(answer.blocks, [paragraph("one"), paragraph("two")], "cut after {cut}");
            assert_eq!(answer.cursor, 8);
        }
    }

    #[test]
    fn a_final_block_takes_the_place_of_the_tail_it_grew_in() {
        let mut answer = running();
        for event in log().into_iter().take(4) {
            answer.apply(event);
        }
        assert_eq!(answer.n_blocks(), 1);
        assert!(answer.is_final(0));
        assert_eq!(answer.block(0), Some(&paragraph("one")));
        assert_eq!(answer.block(1), None);
    }

    #[test]
    fn a_lost_answer_keeps_what_was_seen() {
        let mut answer = running();
        for event in log().into_iter().take(5) {
            answer.apply(event);
        }
        answer.lose();
        assert_eq!(answer.phase.name(), "interrupted");
        assert_eq!(answer.blocks, [paragraph("one"), paragraph("tw")]);
    }

    #[test]
    fn nothing_changes_an_answer_that_is_over() {
        let mut answer = running();
        for event in log() {
            answer.apply(event);
        }
        let before = answer.clone();
        answer.apply(Event { seq: 99, kind: EventKind::Tail { blocks: vec![paragraph("late")] } });
        answer.lose();
        assert_eq!(answer, before);
    }
}
