//! Generations: who owns an answer while it grows, and its log of events.
//!
//! A generation belongs to the server, not to the request that began it: readers are cursors into its log, and nothing
//! ends because nobody reads. The log holds every final block, the newest progress, one tail, and the end; a tail or
//! progress that was replaced is gone. **Architecture Invariant:** exactly one [`EventKind::End`], last, and no event after.

pub mod run;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::conversations::AnswerPlace;
use crate::{
    chat::{
        event::{Event, EventKind},
        ids::GenerationId,
        markup::Block,
    },
    engine::worker::Canceller,
};

/// One answer's events and the way to stop it.
#[derive(Debug)]
pub struct Generation {
    /// Its name.
    pub id: GenerationId,
    /// Which answer it writes.
    pub place: AnswerPlace,
    log: Mutex<Log>,
    newest: watch::Sender<u64>,
    engine: Canceller,
}

#[derive(Debug, Default)]
struct Log {
    events: Vec<Event>,
    newest: u64,
    n_blocks: u32,
    has_tail: bool,
}

/// What a reader finds after its cursor.
#[derive(Debug, Clone, PartialEq)]
pub struct After {
    /// The events, oldest first.
    pub events: Vec<Event>,
    /// Whether the last of all events is among them or before the cursor.
    pub is_over: bool,
}

/// A cursor lies beyond the newest event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the event cursor is {cursor}, expected at most {newest}, the newest event's number")]
pub struct CursorBeyondEnd {
    /// What was asked for.
    pub cursor: u64,
    /// The newest event.
    pub newest: u64,
}

impl Generation {
    /// A generation without events.
    #[must_use]
    pub fn new(id: GenerationId, place: AnswerPlace, engine: Canceller) -> Self {
        let log = Mutex::new(Log::default());
        Self { id, place, log, newest: watch::Sender::new(0), engine }
    }

    /// Tells the engine to end it; doing so twice, or after the end, does nothing.
    pub fn stop(&self) {
        self.engine.cancel();
    }

    /// The events after number `cursor`.
    ///
    /// # Errors
    /// [`CursorBeyondEnd`].
    pub fn after(&self, cursor: u64) -> Result<After, CursorBeyondEnd> {
        let log = self.lock();
        if cursor > log.newest {
            return Err(CursorBeyondEnd { cursor, newest: log.newest });
        }
        let start = log.events.partition_point(|event| event.seq <= cursor);
        let events = log.events.get(start..).unwrap_or_default().to_vec();
        Ok(After { events, is_over: log.is_over() })
    }

    /// Tells the number of the newest event, now and whenever it changes.
    #[must_use]
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Notes how far the engine is before the first text.
    pub fn progress(&self, kind: EventKind) {
        self.write(|log| {
            if log.n_blocks == 0 && !log.has_tail {
                log.replace(is_progress, kind);
            }
        });
    }

    /// Notes blocks that are final and what stands after them.
    pub fn grow(&self, finished: Vec<Block>, tail: Vec<Block>) {
        self.write(|log| log.grow(finished, tail));
    }

    /// Notes the last blocks and the end; `kind` is an [`EventKind::End`]. A second end does nothing.
    pub fn end(&self, finished: Vec<Block>, kind: EventKind) {
        self.write(|log| {
            log.grow(finished, Vec::new());
            log.push(kind);
        });
    }

    /// Whether the end has been noted.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.lock().is_over()
    }

    /// All final blocks so far.
    #[must_use]
    pub fn blocks(&self) -> Vec<Block> {
        let log = self.lock();
        let blocks = log.events.iter().filter_map(|event| match &event.kind {
            EventKind::Block { block, .. } => Some(block.clone()),
            EventKind::Queued { .. } | EventKind::Reading { .. } | EventKind::Tail { .. } | EventKind::End { .. } => {
                None
            }
        });
        blocks.collect()
    }

    /// All events of one write come to readers together.
    fn write(&self, change: impl FnOnce(&mut Log)) {
        let mut log = self.lock();
        if log.is_over() {
            return;
        }
        change(&mut log);
        let newest = log.newest;
        drop(log);
        self.newest.send_if_modified(|number| std::mem::replace(number, newest.max(*number)) < newest);
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        // Every write leaves the log whole, also one that panics.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn grow(&mut self, finished: Vec<Block>, tail: Vec<Block>) {
        for block in finished {
            let index = self.n_blocks;
            self.n_blocks += 1;
            self.push(EventKind::Block { index, block });
        }
        // A tail that became a block must go from the readers' screens, so an empty one is told too, once.
        if !tail.is_empty() || self.has_tail {
            self.has_tail = !tail.is_empty();
            self.replace(is_tail, EventKind::Tail { blocks: tail });
        }
    }

    fn push(&mut self, kind: EventKind) {
        self.newest += 1;
        self.events.push(Event { seq: self.newest, kind });
    }

    fn replace(&mut self, is_old: fn(&EventKind) -> bool, kind: EventKind) {
        if let Some(old) = self.events.iter().rposition(|event| is_old(&event.kind)) {
            self.events.remove(old);
        }
        self.push(kind);
    }

    fn is_over(&self) -> bool {
        matches!(self.events.last(), Some(Event { kind: EventKind::End { .. }, .. }))
    }
}

fn is_progress(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Queued { .. } | EventKind::Reading { .. })
}

fn is_tail(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Tail { .. })
}

/// All generations whose conversations are kept.
#[derive(Debug, Default)]
pub struct Generations {
    by_id: Mutex<HashMap<GenerationId, Arc<Generation>>>,
}

impl Generations {
    /// Takes one in.
    pub fn insert(&self, generation: Arc<Generation>) {
        self.lock().insert(generation.id, generation);
    }

    /// Finds one.
    #[must_use]
    pub fn get(&self, id: GenerationId) -> Option<Arc<Generation>> {
        self.lock().get(&id).cloned()
    }

    /// Forgets those of these answers.
    pub fn forget(&self, places: &[AnswerPlace]) {
        if !places.is_empty() {
            self.lock().retain(|_, generation| !places.contains(&generation.place));
        }
    }

    /// How many are not over.
    #[must_use]
    pub fn n_running(&self) -> usize {
        self.lock().values().filter(|generation| !generation.is_over()).count()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<GenerationId, Arc<Generation>>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{
        event::EndReason,
        ids::{ConversationId, MessageId},
        markup::Inline,
        message::AnswerStats,
    };

    fn generation() -> Generation {
        let place = AnswerPlace { conversation: ConversationId::random(), answer: MessageId::random() };
        Generation::new(GenerationId::random(), place, Canceller::of_nothing())
    }

    fn paragraph(text: &str) -> Block {
        Block::Paragraph { inlines: vec![Inline::Text { text: text.to_owned() }] }
    }

    fn end() -> EventKind {
        EventKind::End { reason: EndReason::EndOfText, stats: AnswerStats::default(), text: String::new() }
    }

    fn numbers(generation: &Generation, cursor: u64) -> Vec<u64> {
        generation.after(cursor).unwrap().events.iter().map(|event| event.seq).collect()
    }

    #[test]
    fn a_replaced_tail_leaves_a_gap_and_nothing_else_does() {
        let generation = generation();
        generation.progress(EventKind::Queued { place: 2 });
        generation.progress(EventKind::Reading { done: 1, total: 2 });
        generation.grow(vec![], vec![paragraph("a")]);
        generation.grow(vec![], vec![paragraph("ab")]);
        generation.grow(vec![paragraph("ab")], vec![paragraph("c")]);
        assert_eq!(numbers(&generation, 0), [2, 5, 6]);
        generation.end(vec![paragraph("c")], end());
        assert_eq!(numbers(&generation, 0), [2, 5, 7, 8, 9]);
        assert_eq!(generation.blocks(), [paragraph("ab"), paragraph("c")]);
    }

    #[test]
    fn a_tail_that_became_a_block_is_taken_from_the_screen() {
        let generation = generation();
        generation.grow(vec![], vec![paragraph("a")]);
        generation.grow(vec![paragraph("a")], vec![]);
        let events = generation.after(1).unwrap().events;
        assert_eq!(events.last().unwrap().kind, EventKind::Tail { blocks: vec![] });
    }

    #[test]
    fn there_is_one_end_and_nothing_after_it() {
        let generation = generation();
        generation.end(vec![], end());
        generation.end(vec![], end());
        generation.grow(vec![paragraph("late")], vec![]);
        generation.progress(EventKind::Queued { place: 1 });
        let after = generation.after(0).unwrap();
        assert_eq!(after.events.len(), 1);
        assert!(after.is_over && generation.is_over());
    }

    #[test]
    fn progress_after_the_first_text_is_not_told() {
        let generation = generation();
        generation.grow(vec![], vec![paragraph("a")]);
        generation.progress(EventKind::Queued { place: 1 });
        assert_eq!(numbers(&generation, 0), [1]);
    }

    #[test]
    fn a_cursor_beyond_the_newest_event_is_refused() {
        let generation = generation();
        generation.grow(vec![], vec![paragraph("a")]);
        assert!(generation.after(1).is_ok());
        assert_eq!(generation.after(2), Err(CursorBeyondEnd { cursor: 2, newest: 1 }));
    }

    #[test]
    fn readers_are_woken_once_for_all_that_was_written_together() {
        let generation = generation();
        let mut newest = generation.newest();
        generation.grow(vec![paragraph("a"), paragraph("b")], vec![paragraph("c")]);
        assert!(newest.has_changed().unwrap());
        assert_eq!(*newest.borrow_and_update(), 3);
    }

    #[test]
    fn a_forgotten_conversations_generations_go_with_it() {
        let generations = Generations::default();
        let [kept, forgotten] = [generation(), generation()].map(Arc::new);
        generations.insert(kept.clone());
        generations.insert(forgotten.clone());
        generations.forget(&[forgotten.place]);
        assert!(generations.get(kept.id).is_some() && generations.get(forgotten.id).is_none());
    }
}
