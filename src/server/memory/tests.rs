//! Trees of messages, who owns them, and what is let go.

use super::*;
use crate::chat::{event::EndReason, ids::GenerationId, message::AnswerStats, settings::Sampling};
use crate::storage::record::Answer;

const ME: Owner = Owner(1);

fn question(parent: Option<MessageId>, text: &str) -> Message {
    Message { id: MessageId::random(), parent, role: Role::User, text: text.to_owned(), created_ms: 0, answer: None }
}

fn answer(parent: MessageId) -> Message {
    let answer = Answer {
        generation: GenerationId::random(),
        prompt_ids: Arc::from([1]),
        token_ids: Vec::new(),
        sampling: Sampling::default(),
        seed: 0,
        weights: [0; 32],
        stats: AnswerStats::default(),
        end: None,
    };
    Message { role: Role::Assistant, answer: Some(answer), ..question(Some(parent), "") }
}

fn empty(id: ConversationId) -> Conversation {
    let head = Head { id, title: String::new(), system: String::new(), leaf: None, updated_ms: 0 };
    Conversation { head, messages: Vec::new() }
}

/// A conversation of mine that is in use.
fn begun(memory: &mut Memory) -> ConversationId {
    let id = ConversationId::random();
    memory.insert(ME, empty(id));
    id
}

/// Adds a round and gives its answer.
fn round(conversation: &mut InUse, parent: Option<MessageId>, said: &str) -> Message {
    let question = question(parent, said);
    let answer = answer(question.id);
    conversation.put(vec![question, answer.clone()]).unwrap();
    answer
}

fn end(conversation: &mut InUse, answer: &Message, text: &str) {
    let progress = Progress {
        answer: answer.id,
        generation: answer.answer.as_ref().unwrap().generation,
        text: text.to_owned(),
        token_ids: vec![1],
        seq: 0,
        stats: AnswerStats::default(),
        end: Some(EndReason::Stopped),
    };
    conversation.end(&progress, render::markdown(text));
}

fn texts(turns: &[Turn]) -> Vec<&str> {
    turns.iter().map(|turn| turn.text.as_str()).collect()
}

#[test]
fn an_answer_that_runs_is_not_followed() {
    let mut memory = Memory::new(10);
    let id = begun(&mut memory);
    let conversation = memory.get(ME, id).unwrap();
    let first = round(conversation, None, "a");
    assert_eq!(conversation.turns_before(first.id).unwrap_err().code, ErrorCode::Conflict);
    assert_eq!(conversation.unfinished(first.id).unwrap_err().code, ErrorCode::Conflict);
    end(conversation, &first, "b");
    assert_eq!(texts(&conversation.turns_before(first.id).unwrap()), ["a", "b"]);
    assert_eq!(conversation.unfinished(first.id).unwrap().text, "b");
}

#[test]
fn an_answer_that_was_followed_is_not_gone_on_with() {
    let mut memory = Memory::new(10);
    let id = begun(&mut memory);
    let conversation = memory.get(ME, id).unwrap();
    let first = round(conversation, None, "a");
    end(conversation, &first, "b");
    round(conversation, Some(first.id), "c");
    assert_eq!(conversation.unfinished(first.id).unwrap_err().code, ErrorCode::Conflict);
}

#[test]
fn an_answer_that_is_gone_on_with_is_not_ended_by_its_first_generation() {
    let mut memory = Memory::new(10);
    let id = begun(&mut memory);
    let conversation = memory.get(ME, id).unwrap();
    let first = round(conversation, None, "a");
    end(conversation, &first, "b");
    let again = Message { id: first.id, ..answer(first.parent.unwrap()) };
    conversation.put(vec![again.clone()]).unwrap();
    assert!(conversation.is_running());
    end(conversation, &first, "late");
    assert!(conversation.is_running(), "that was the generation before");
    end(conversation, &again, "b and c");
    assert_eq!(conversation.tree.get(first.id).unwrap().message.text, "b and c");
    assert_eq!(conversation.tree.messages().len(), 2);
}

#[test]
fn a_round_without_an_answer_is_not_told_to_the_model() {
    let mut memory = Memory::new(10);
    let id = begun(&mut memory);
    let conversation = memory.get(ME, id).unwrap();
    let first = round(conversation, None, "a");
    end(conversation, &first, "b");
    let stopped = round(conversation, Some(first.id), "c");
    end(conversation, &stopped, "");
    assert_eq!(texts(&conversation.turns_before(stopped.id).unwrap()), ["a", "b"]);
    assert_eq!(texts(&conversation.turns_of(stopped.id).unwrap().1), ["a", "b", "c"]);
}

#[test]
fn what_is_not_there_is_not_found() {
    let mut memory = Memory::new(10);
    let id = begun(&mut memory);
    let conversation = memory.get(ME, id).unwrap();
    let nobody = MessageId::random();
    assert_eq!(conversation.turns_before(nobody).unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(conversation.turns_of(nobody).unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(conversation.unfinished(nobody).unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(conversation.put(vec![question(Some(nobody), "a")]).unwrap_err().code, ErrorCode::NotFound);
}

#[test]
fn a_conversation_is_its_owners_alone() {
    let mut memory = Memory::new(10);
    let id = begun(&mut memory);
    assert!(matches!(memory.look_up(Owner(2), id), Lookup::Foreign));
    assert!(memory.get(Owner(2), id).is_none() && memory.remove(Owner(2), id).is_none());
    memory.give(ME, Owner(2));
    assert!(memory.get(ME, id).is_none() && memory.get(Owner(2), id).is_some());
}

#[test]
fn a_conversation_holds_as_many_messages_as_it_may() {
    let mut memory = Memory::new(10);
    let id = begun(&mut memory);
    let conversation = memory.get(ME, id).unwrap();
    let mut parent = None;
    for _ in 0..MAX_MESSAGES / 2 {
        let answer = round(conversation, parent, "a");
        end(conversation, &answer, "b");
        parent = Some(answer.id);
    }
    assert_eq!(conversation.check_room(1).unwrap_err().code, ErrorCode::ConversationFull);
    assert_eq!(conversation.put(vec![question(parent, "a")]).unwrap_err().code, ErrorCode::ConversationFull);
}

#[test]
fn beyond_the_limit_the_longest_idle_conversation_is_let_go_and_what_is_not_saved_last() {
    let mut memory = Memory::new(3);
    let ids = [(); 3].map(|()| begun(&mut memory));
    let running = round(memory.get(ME, ids[0]).unwrap(), None, "a");
    memory.get(ME, ids[1]).unwrap().is_saved = false;
    let new = begun(&mut memory);
    let is_there = |memory: &mut Memory, id| memory.get(ME, id).is_some();
    assert!(!is_there(&mut memory, ids[2]), "the others run or are not saved");
    assert!(is_there(&mut memory, ids[0]) && is_there(&mut memory, ids[1]) && is_there(&mut memory, new));
    end(memory.get(ME, ids[0]).unwrap(), &running, "b");
    begun(&mut memory);
    assert!(is_there(&mut memory, ids[1]) && is_there(&mut memory, ids[0]), "the new one was idle longest");
    assert_eq!(memory.unsaved(), [(ME, ids[1])]);
}
