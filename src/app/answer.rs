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
    /// How many blocks stayed final, each time it was taken up again.
    pub thawed: Vec<usize>,
    /// The whole text, once it is over.
    pub text: String,
    /// Counts and times: what is known of the prompt from the beginning, the rest once it is over.
    pub stats: AnswerStats,
    /// Whether it is kept beyond the server's end.
    pub is_saved: bool,
}

impl Answer {
    /// From a message as the server gave it; `None` of a message that is no answer.
    #[must_use]
    pub fn from_message(message: &MessageView) -> Option<Self> {
        let view = message.answer.as_ref()?;
        let mut answer = Self {
            generation: None,
            cursor: 0,
            phase: Phase::Queued { place: 0 },
            blocks: message.blocks.clone(),
            tail: Vec::new(),
            thawed: Vec::new(),
            text: message.text.clone(),
            stats: view.stats,
            is_saved: true,
        };
        match &view.state {
            AnswerState::Running { generation, seq, tail } => {
                answer.generation = Some(*generation);
                answer.cursor = *seq;
                answer.tail.clone_from(tail);
                if *seq > 0 {
                    answer.phase = Phase::Streaming;
                }
            }
            AnswerState::Ended { reason } => answer.phase = Phase::Ended { reason: *reason },
        }
        Some(answer)
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
            EventKind::End { reason, stats, text, is_saved } => {
                self.phase = Phase::Ended { reason };
                self.tail.clear();
                self.stats = stats;
                self.text = text;
                self.is_saved = is_saved;
            }
        }
    }

    /// Takes in how the server has it: as it ended elsewhere, or as it is being gone on with.
    pub fn take_up(&mut self, fresh: Self) {
        let mut thawed = std::mem::take(&mut self.thawed);
        thawed.push(fresh.blocks.len());
        *self = Self { thawed, ..fresh };
    }

    /// The server knows nothing of it any more: what was seen stays, as an interrupted answer.
    pub fn lose(&mut self) {
        if !self.phase.is_over() {
            self.blocks.append(&mut self.tail);
            self.phase = Phase::Ended { reason: EndReason::Interrupted };
        }
    }

    /// Whether it broke off in the middle, so that one can go on with it.
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        let Phase::Ended { reason } = self.phase else { return false };
        match reason {
            EndReason::Length | EndReason::Stopped | EndReason::Interrupted | EndReason::Failed { .. } => {
                !self.text.is_empty()
            }
            EndReason::EndOfText | EndReason::StopString => false,
        }
    }

    /// A name for what block number `index` is drawn as. One that was final and grows again, since the answer is gone on
    /// with, is drawn anew: it has another name than before.
    #[must_use]
    pub fn block_key(&self, index: usize) -> u128 {
        let n_thawed = self.thawed.iter().filter(|n_kept| index >= **n_kept).count();
        ((n_thawed as u128) << 64) + index as u128
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
    use crate::chat::{
        error::ErrorCode,
        ids::MessageId,
        markup::Inline,
        message::{AnswerView, Role},
        settings::Sampling,
    };

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
            thawed: Vec::new(),
            text: String::new(),
            stats: AnswerStats::default(),
            is_saved: true,
        }
    }

    fn message(state: AnswerState, blocks: Vec<Block>) -> MessageView {
        MessageView {
            id: MessageId::random(),
            parent: None,
            role: Role::Assistant,
            created_ms: 0,
            text: String::new(),
            blocks,
            answer: Some(AnswerView { state, stats: AnswerStats::default(), sampling: Sampling::default(), seed: 1 }),
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

    #[test]
    fn a_running_answer_is_taken_up_where_its_snapshot_ends() {
        let generation = GenerationId::random();
        let state = AnswerState::Running { generation, seq: 6, tail: vec![paragraph("tw")] };
        let mut answer = Answer::from_message(&message(state, vec![paragraph("one")])).unwrap();
        assert_eq!((answer.phase, answer.cursor, answer.n_blocks()), (Phase::Streaming, 6, 2));
        for event in log() {
            answer.apply(event);
        }
        assert_eq!(answer.blocks, [paragraph("one"), paragraph("two")]);
        assert_eq!(answer.phase.name(), "done");

        let state = AnswerState::Running { generation, seq: 0, tail: Vec::new() };
        assert_eq!(Answer::from_message(&message(state, Vec::new())).unwrap().phase.name(), "queued");
    }

    #[test]
    fn only_an_answer_that_broke_off_with_text_can_be_gone_on_with() {
        let code = ErrorCode::Internal;
        for (reason, expected) in [
            (EndReason::Length, true),
            (EndReason::Stopped, true),
            (EndReason::Interrupted, true),
            (EndReason::Failed { code }, true),
            (EndReason::EndOfText, false),
            (EndReason::StopString, false),
        ] {
            let mut answer = Answer { text: "one".to_owned(), ..running() };
            assert!(!answer.is_cut_off());
            answer.phase = Phase::Ended { reason };
            assert_eq!(answer.is_cut_off(), expected, "{reason:?}");
            answer.text.clear();
            assert!(!answer.is_cut_off());
        }
    }

    #[test]
    fn a_block_that_grows_again_gets_another_name_and_a_final_one_keeps_its() {
        let mut answer = running();
        for event in log() {
            answer.apply(event);
        }
        let before = [0, 1].map(|index| answer.block_key(index));
        let tail = vec![paragraph("tw")];
        let state = AnswerState::Running { generation: GenerationId::random(), seq: 0, tail };
        answer.take_up(Answer::from_message(&message(state, vec![paragraph("one")])).unwrap());
        let growing = [0, 1].map(|index| answer.block_key(index));
        assert_eq!(before[0], growing[0]);
        assert_ne!(before[1], growing[1]);
        answer.apply(Event { seq: 1, kind: EventKind::Block { index: 1, block: paragraph("two") } });
        let ended = AnswerState::Ended { reason: EndReason::Stopped };
        let blocks = vec![paragraph("one"), paragraph("two"), paragraph("three")];
        answer.take_up(Answer::from_message(&message(ended, blocks)).unwrap());
        assert_eq!([0, 1].map(|index| answer.block_key(index)), growing);
    }
}
