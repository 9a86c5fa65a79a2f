//! Generations: who owns an answer while it grows, and its log of events.
//!
//! A generation belongs to the server, not to the request that began it: readers are cursors into its log, and nothing
//! ends because nobody reads. The log holds every final block, the newest progress, one tail, and the end; a tail or
//! progress that was replaced is gone. **Architecture Invariant:** exactly one [`EventKind::End`], last, and no event after.

pub mod run;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::{
    chat::{
        event::{Event, EventKind},
        ids::{ConversationId, GenerationId, MessageId},
        markup::Block,
    },
    engine::worker::Canceller,
    storage::record::Owner,
};

/// Generations that are over and whose events can still be read, for whoever lost the connection just before the end.
const KEPT_AFTER_END: usize = 256;

/// Whose answer it is and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerPlace {
    /// Whose.
    pub owner: Owner,
    /// The conversation.
    pub conversation: ConversationId,
    /// The answer.
    pub answer: MessageId,
}

/// One answer's events and the way to stop it.
#[derive(Debug)]
pub struct Generation {
    /// Its name.
    pub id: GenerationId,
    place: Mutex<AnswerPlace>,
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

/// The text of an answer at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SoFar {
    /// Blocks that are final.
    pub blocks: Vec<Block>,
    /// What stands after them.
    pub tail: Vec<Block>,
    /// The last event of text, 0 where there is none yet: what comes after it is not in here.
    pub seq: u64,
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
        let (place, log) = (Mutex::new(place), Mutex::new(Log::default()));
        Self { id, place, log, newest: watch::Sender::new(0), engine }
    }

    /// Which answer it writes, and whose that is now.
    #[must_use]
    pub fn place(&self) -> AnswerPlace {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give(&self, from: Owner, to: Owner) {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if place.owner == from {
            place.owner = to;
        }
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

    /// The text so far, as blocks.
    #[must_use]
    pub fn so_far(&self) -> SoFar {
        let mut so_far = SoFar::default();
        for event in &self.lock().events {
            match &event.kind {
                EventKind::Block { block, .. } => so_far.blocks.push(block.clone()),
                EventKind::Tail { blocks } => so_far.tail.clone_from(blocks),
                EventKind::Queued { .. } | EventKind::Reading { .. } | EventKind::End { .. } => continue,
            }
            so_far.seq = event.seq;
        }
        so_far
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

/// Generations that run, and those that ended lately.
#[derive(Debug, Default)]
pub struct Generations {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_id: HashMap<GenerationId, Arc<Generation>>,
    ended: VecDeque<GenerationId>,
}

impl Generations {
    /// Takes one in.
    pub fn insert(&self, generation: Arc<Generation>) {
        self.lock().by_id.insert(generation.id, generation);
    }

    /// Finds one of this owner's.
    #[must_use]
    pub fn get(&self, owner: Owner, id: GenerationId) -> Option<Arc<Generation>> {
        self.lock().by_id.get(&id).filter(|generation| generation.place().owner == owner).cloned()
    }

    /// Notes that one is over: it can be found for a while.
    pub fn ended(&self, id: GenerationId) {
        let mut known = self.lock();
        known.ended.push_back(id);
        if known.ended.len() > KEPT_AFTER_END
            && let Some(oldest) = known.ended.pop_front()
        {
            known.by_id.remove(&oldest);
        }
    }

    /// Forgets one that never began.
    pub fn forget(&self, id: GenerationId) {
        self.lock().by_id.remove(&id);
    }

    /// Gives all that one owner has to another.
    pub fn give(&self, from: Owner, to: Owner) {
        for generation in self.lock().by_id.values() {
            generation.give(from, to);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{event::EndReason, markup::Inline, message::AnswerStats};

    fn generation() -> Generation {
        let place =
            AnswerPlace { owner: Owner(1), conversation: ConversationId::random(), answer: MessageId::random() };
        Generation::new(GenerationId::random(), place, Canceller::of_nothing())
    }

    fn paragraph(text: &str) -> Block {
        Block::Paragraph { inlines: vec![Inline::Text { text: text.to_owned() }] }
    }

    fn end() -> EventKind {
        EventKind::End {
            reason: EndReason::EndOfText,
            stats: AnswerStats::default(),
            text: String::new(),
            is_saved: true,
        }
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
        assert_eq!(generation.so_far().blocks, [paragraph("ab"), paragraph("c")]);
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
    fn what_is_there_so_far_and_the_events_after_it_are_all_of_it() {
        let generation = generation();
        generation.progress(EventKind::Reading { done: 1, total: 2 });
        assert_eq!(generation.so_far(), SoFar::default(), "progress is told by its event");
        generation.grow(vec![paragraph("a")], vec![paragraph("b")]);
        let so_far = generation.so_far();
        assert_eq!(
            (so_far.blocks.as_slice(), so_far.tail.as_slice()),
            ([paragraph("a")].as_slice(), [paragraph("b")].as_slice())
        );
        assert!(numbers(&generation, so_far.seq).is_empty());
        generation.end(vec![paragraph("b")], end());
        let so_far = generation.so_far();
        assert_eq!(so_far.blocks, [paragraph("a"), paragraph("b")]);
        let after = generation.after(so_far.seq).unwrap();
        assert!(
            matches!(after.events.as_slice(), [Event { kind: EventKind::End { .. }, .. }]),
            "the end is still to come"
        );
    }

    #[test]
    fn nobody_but_the_owner_finds_a_generation() {
        let generations = Generations::default();
        let generation = Arc::new(generation());
        generations.insert(generation.clone());
        assert!(generations.get(Owner(1), generation.id).is_some());
        assert!(generations.get(Owner(2), generation.id).is_none());
        generations.give(Owner(1), Owner(2));
        assert!(generations.get(Owner(1), generation.id).is_none());
        assert!(generations.get(Owner(2), generation.id).is_some());
    }

    #[test]
    fn those_that_ended_long_ago_are_forgotten() {
        let generations = Generations::default();
        let first = Arc::new(generation());
        generations.insert(first.clone());
        generations.ended(first.id);
        assert!(generations.get(Owner(1), first.id).is_some());
        for _ in 0..KEPT_AFTER_END {
            generations.ended(GenerationId::random());
        }
        assert!(generations.get(Owner(1), first.id).is_none());
    }
}
