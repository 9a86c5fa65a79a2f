//! Conversations in memory: trees of records.
//!
//! Knows nothing of engines or events: an answer's record is written when it begins and once more when it ends. Bounded:
//! beyond the limit the conversation that was idle longest is forgotten, whole.
//! **Architecture Invariant:** a record is never taken out of its tree, and an ended answer never changes again.

use std::{collections::HashMap, sync::Arc};

use crate::{
    chat::{
        conversation::{Node, Tree},
        error::{ChatError, ErrorCode},
        ids::{ConversationId, GenerationId, MessageId},
        info::ConversationView,
        limits::MAX_MESSAGES,
        markup::Block,
        message::{AnswerState, AnswerStats, AnswerView, MessageView, Role},
        settings::Sampling,
    },
    engine::prompt::Turn,
};

/// One message as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its name.
    pub id: MessageId,
    /// The message before it.
    pub parent: Option<MessageId>,
    /// Who speaks.
    pub role: Role,
    /// The text; of a running answer empty.
    pub text: String,
    /// Unix time in milliseconds.
    pub created_ms: u64,
    /// What only an answer has.
    pub answer: Option<AnswerRecord>,
}

/// How an answer came to be: enough to make it again.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerRecord {
    /// Token ids of the prompt.
    pub prompt_ids: Arc<[u32]>,
    /// Token ids that were generated; empty while it runs.
    pub token_ids: Vec<u32>,
    /// What it was sampled with.
    pub sampling: Sampling,
    /// What it was seeded with.
    pub seed: u64,
    /// Running, or why it ended.
    pub state: AnswerState,
    /// Counts and times: of the prompt from the beginning, of the answer once it has ended.
    pub stats: AnswerStats,
    /// The text as blocks; empty while it runs.
    pub blocks: Vec<Block>,
}

/// What an answer is when it ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// The whole text.
    pub text: String,
    /// The text as blocks.
    pub blocks: Vec<Block>,
    /// Token ids that were generated.
    pub token_ids: Vec<u32>,
    /// Why it ended.
    pub state: AnswerState,
    /// Counts and times.
    pub stats: AnswerStats,
}

/// A conversation as it is kept.
#[derive(Debug, Default)]
pub struct Conversation {
    /// The system prompt, empty for none.
    pub system: String,
    /// All messages.
    pub tree: Tree<Record>,
    last_used: u64,
}

/// Where an answer stands in all conversations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerPlace {
    /// The conversation.
    pub conversation: ConversationId,
    /// The answer.
    pub answer: MessageId,
}

/// All conversations.
#[derive(Debug)]
pub struct Conversations {
    by_id: HashMap<ConversationId, Conversation>,
    limit: usize,
    clock: u64,
}

impl Conversations {
    /// None yet, and never many more than `limit`.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { by_id: HashMap::new(), limit, clock: 0 }
    }

    /// One conversation as the page gets it.
    pub fn view(&mut self, id: ConversationId) -> Option<ConversationView> {
        let conversation = self.touch(id)?;
        Some(ConversationView {
            id,
            system: conversation.system.clone(),
            messages: conversation.tree.messages().iter().map(Record::view).collect(),
            leaf: conversation.tree.leaf(),
        })
    }

    /// One message as the page gets it.
    #[must_use]
    pub fn message(&self, conversation: ConversationId, message: MessageId) -> Option<MessageView> {
        self.by_id.get(&conversation)?.tree.get(message).map(Record::view)
    }

    /// The branch that a new message after `parent` would follow, as turns for a prompt. A round whose answer has no text
    /// is left out: there is nothing that the model could have said there.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] where there is no such message, [`ErrorCode::Conflict`] where it is an answer that runs or
    /// no answer at all.
    pub fn turns_before(&self, id: ConversationId, parent: Option<MessageId>) -> Result<Vec<Turn>, ChatError> {
        let Some(parent) = parent else {
            return Ok(Vec::new());
        };
        let tree = self.by_id.get(&id).map(|conversation| &conversation.tree);
        let record = tree.and_then(|tree| tree.get(parent)).ok_or_else(|| ChatError::not_found("message"))?;
        match &record.answer {
            Some(AnswerRecord { state: AnswerState::Running { .. }, .. }) => {
                return Err(ChatError::new(
                    ErrorCode::Conflict,
                    "the answer before this message is still being written",
                ));
            }
            Some(AnswerRecord { state: AnswerState::Ended { .. }, .. }) => {}
            None => return Err(ChatError::new(ErrorCode::Conflict, "a message can only follow an answer")),
        }
        Ok(tree.map(|tree| turns(&tree.path_to(parent))).unwrap_or_default())
    }

    /// The question that `answer` answers, and the branch up to it as turns for a prompt.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] where there is no such answer.
    pub fn turns_of(&self, id: ConversationId, answer: MessageId) -> Result<(MessageId, Vec<Turn>), ChatError> {
        let tree = self.by_id.get(&id).map(|conversation| &conversation.tree);
        tree.and_then(|tree| {
            let record = tree.get(answer).filter(|record| record.answer.is_some())?;
            let question = record.parent?;
            Some((question, turns(&tree.path_to(question))))
        })
        .ok_or_else(|| ChatError::not_found("answer"))
    }

    /// Whether as many more messages would still be allowed.
    ///
    /// # Errors
    /// [`ErrorCode::ConversationFull`].
    pub fn check_room(&self, id: ConversationId, more: usize) -> Result<(), ChatError> {
        let len = self.by_id.get(&id).map_or(0, |conversation| conversation.tree.messages().len());
        if len + more > MAX_MESSAGES {
            return Err(ChatError::new(
                ErrorCode::ConversationFull,
                format!("the conversation has {len} messages, at most {MAX_MESSAGES} are allowed; begin a new one"),
            ));
        }
        Ok(())
    }

    /// Adds messages, the first of which follows what is there already; begins the conversation where there is none.
    /// Gives the generations of a conversation that was forgotten to make room.
    ///
    /// # Errors
    /// [`ErrorCode::ConversationFull`], or [`ErrorCode::NotFound`] where the message before is gone.
    pub fn add(
        &mut self,
        id: ConversationId,
        system: &str,
        records: Vec<Record>,
    ) -> Result<Vec<AnswerPlace>, ChatError> {
        self.check_room(id, records.len())?;
        let parent = records.first().and_then(|record| record.parent);
        let is_there = |parent| self.by_id.get(&id).is_some_and(|conversation| conversation.tree.get(parent).is_some());
        if parent.is_some_and(|parent| !is_there(parent)) {
            return Err(ChatError::not_found("message"));
        }
        let forgotten = if self.by_id.contains_key(&id) { Vec::new() } else { self.make_room() };
        self.clock += 1;
        let conversation = self.by_id.entry(id).or_default();
        conversation.last_used = self.clock;
        system.clone_into(&mut conversation.system);
        for record in records {
            conversation.tree.push(record).map_err(|_| ChatError::not_found("message"))?;
        }
        Ok(forgotten)
    }

    /// Writes an answer's end. Nothing happens where the conversation has been forgotten.
    pub fn end(&mut self, place: AnswerPlace, ended: Ended) {
        let Some(conversation) = self.touch(place.conversation) else {
            return;
        };
        let Some(record) = conversation.tree.get_mut(place.answer) else {
            return;
        };
        if let Some(answer) = &mut record.answer {
            record.text = ended.text;
            answer.blocks = ended.blocks;
            answer.token_ids = ended.token_ids;
            answer.state = ended.state;
            answer.stats = ended.stats;
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    fn touch(&mut self, id: ConversationId) -> Option<&mut Conversation> {
        self.clock += 1;
        let conversation = self.by_id.get_mut(&id)?;
        conversation.last_used = self.clock;
        Some(conversation)
    }

    /// Forgets the conversation that was idle longest where there are as many as may be. Where an answer runs in each,
    /// none is: the engine's queue bounds how many those are.
    fn make_room(&mut self) -> Vec<AnswerPlace> {
        if self.by_id.len() < self.limit {
            return Vec::new();
        }
        let idle = self.by_id.iter().filter(|(_, conversation)| !conversation.is_running());
        let Some(oldest) = idle.min_by_key(|(_, conversation)| conversation.last_used).map(|(id, _)| *id) else {
            return Vec::new();
        };
        let forgotten = self.by_id.remove(&oldest).unwrap_or_default();
        let answers = forgotten.tree.messages().iter().filter(|record| record.answer.is_some());
        answers.map(|record| AnswerPlace { conversation: oldest, answer: record.id }).collect()
    }
}

impl Conversation {
    fn is_running(&self) -> bool {
        self.tree.messages().iter().any(|record| record.running().is_some())
    }
}

impl Record {
    /// The generation that writes this message, where one does.
    #[must_use]
    pub fn running(&self) -> Option<GenerationId> {
        match self.answer.as_ref()?.state {
            AnswerState::Running { generation } => Some(generation),
            AnswerState::Ended { .. } => None,
        }
    }

    /// The message as the page gets it.
    #[must_use]
    pub fn view(&self) -> MessageView {
        MessageView {
            id: self.id,
            parent: self.parent,
            role: self.role,
            created_ms: self.created_ms,
            text: self.text.clone(),
            blocks: self.answer.as_ref().map(|answer| answer.blocks.clone()).unwrap_or_default(),
            answer: self.answer.as_ref().map(|answer| AnswerView {
                state: answer.state.clone(),
                stats: answer.stats,
                sampling: answer.sampling,
                seed: answer.seed,
            }),
        }
    }
}

impl Node for Record {
    fn id(&self) -> MessageId {
        self.id
    }

    fn parent(&self) -> Option<MessageId> {
        self.parent
    }
}

fn turns(path: &[&Record]) -> Vec<Turn> {
    let mut turns: Vec<Turn> = Vec::with_capacity(path.len());
    for record in path {
        if record.answer.is_some() && record.text.is_empty() {
            turns.pop();
        } else {
            turns.push(Turn { role: record.role, text: record.text.clone() });
        }
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::event::EndReason;

    fn question(parent: Option<MessageId>, text: &str) -> Record {
        Record { id: MessageId::random(), parent, role: Role::User, text: text.to_owned(), created_ms: 0, answer: None }
    }

    fn answer(parent: MessageId) -> Record {
        let state = AnswerState::Running { generation: GenerationId::random() };
        let answer = AnswerRecord {
            prompt_ids: Arc::from([1]),
            token_ids: Vec::new(),
            sampling: Sampling::default(),
            seed: 0,
            state,
            stats: AnswerStats::default(),
            blocks: Vec::new(),
        };
        Record { role: Role::Assistant, answer: Some(answer), ..question(Some(parent), "") }
    }

    fn ended(text: &str) -> Ended {
        Ended {
            text: text.to_owned(),
            blocks: Vec::new(),
            token_ids: vec![1],
            state: AnswerState::Ended { reason: EndReason::EndOfText },
            stats: AnswerStats::default(),
        }
    }

    /// Adds a round and gives its answer's place.
    fn round(all: &mut Conversations, id: ConversationId, parent: Option<MessageId>, said: &str) -> AnswerPlace {
        let question = question(parent, said);
        let answer = answer(question.id);
        let place = AnswerPlace { conversation: id, answer: answer.id };
        all.add(id, "", vec![question, answer]).unwrap();
        place
    }

    #[test]
    fn an_answer_that_runs_is_not_followed() {
        let mut all = Conversations::new(10);
        let id = ConversationId::random();
        let place = round(&mut all, id, None, "a");
        assert_eq!(all.turns_before(id, Some(place.answer)).unwrap_err().code, ErrorCode::Conflict);
        all.end(place, ended("b"));
        let turns = all.turns_before(id, Some(place.answer)).unwrap();
        assert_eq!(turns.iter().map(|turn| turn.text.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_round_without_an_answer_is_not_told_to_the_model() {
        let mut all = Conversations::new(10);
        let id = ConversationId::random();
        let first = round(&mut all, id, None, "a");
        all.end(first, ended("b"));
        let stopped = round(&mut all, id, Some(first.answer), "c");
        all.end(stopped, ended(""));
        let turns = all.turns_before(id, Some(stopped.answer)).unwrap();
        assert_eq!(turns.iter().map(|turn| turn.text.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let (_, again) = all.turns_of(id, stopped.answer).unwrap();
        assert_eq!(again.iter().map(|turn| turn.text.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        let mut all = Conversations::new(10);
        let id = ConversationId::random();
        let nobody = MessageId::random();
        assert_eq!(all.turns_before(id, Some(nobody)).unwrap_err().code, ErrorCode::NotFound);
        assert_eq!(all.turns_of(id, nobody).unwrap_err().code, ErrorCode::NotFound);
        assert_eq!(all.add(id, "", vec![question(Some(nobody), "a")]).unwrap_err().code, ErrorCode::NotFound);
        assert!(all.is_empty(), "a refused message begins no conversation");
    }

    #[test]
    fn a_conversation_holds_as_many_messages_as_it_may() {
        let mut all = Conversations::new(10);
        let id = ConversationId::random();
        let mut parent = None;
        for _ in 0..MAX_MESSAGES / 2 {
            let place = round(&mut all, id, parent, "a");
            all.end(place, ended("b"));
            parent = Some(place.answer);
        }
        assert_eq!(all.check_room(id, 1).unwrap_err().code, ErrorCode::ConversationFull);
        assert_eq!(all.add(id, "", vec![question(parent, "a")]).unwrap_err().code, ErrorCode::ConversationFull);
    }

    #[test]
    fn beyond_the_limit_the_longest_idle_conversation_is_forgotten() {
        let mut all = Conversations::new(2);
        let ids = [(); 3].map(|()| ConversationId::random());
        let first = round(&mut all, ids[0], None, "a");
        let second = round(&mut all, ids[1], None, "a");
        all.end(first, ended("b"));
        all.end(second, ended("b"));
        assert!(all.view(ids[0]).is_some(), "looking at the first makes the second the idle one");
        let question = question(None, "a");
        assert_eq!(all.add(ids[2], "", vec![question]).unwrap(), [second]);
        assert!(all.view(ids[0]).is_some() && all.view(ids[1]).is_none());
    }

    #[test]
    fn a_conversation_whose_answer_runs_is_not_forgotten() {
        let mut all = Conversations::new(1);
        let ids = [(); 2].map(|()| ConversationId::random());
        round(&mut all, ids[0], None, "a");
        round(&mut all, ids[1], None, "a");
        assert_eq!(all.len(), 2);
    }
}
