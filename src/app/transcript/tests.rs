//! Holds the transcript to what each action and event must leave in it.

use super::*;
use crate::chat::{
    ids::GenerationId,
    message::{AnswerState, AnswerStats, AnswerView},
    settings::Sampling,
};

fn message(parent: Option<MessageId>, role: Role, text: &str) -> MessageView {
    let answer = (role == Role::Assistant).then(|| AnswerView {
        state: AnswerState::Running { generation: GenerationId::random(), seq: 0, tail: Vec::new() },
        stats: AnswerStats::default(),
        sampling: Sampling::default(),
        seed: 1,
    });
    MessageView {
        id: MessageId::random(),
        parent,
        role,
        created_ms: 0,
        text: text.to_owned(),
        blocks: Vec::new(),
        answer,
    }
}

fn ask(transcript: &mut Transcript, after: Option<MessageId>, said: Option<&str>) -> RequestId {
    let request = RequestId::random();
    let said = said.map(|text| (Role::User, text.to_owned()));
    transcript.apply(Action::Asked(Pending { request, after, said }));
    request
}

fn say(transcript: &mut Transcript, text: &str) -> MessageId {
    let after = transcript.leaf().map(|leaf| leaf.id);
    let request = ask(transcript, after, Some(text));
    let said = message(after, Role::User, text);
    let answer = message(Some(said.id), Role::Assistant, "");
    let id = answer.id;
    let conversation = transcript.conversation().unwrap_or_else(ConversationId::random);
    transcript.apply(Action::Begun(conversation, request, Started { message: Some(said), answer, is_saved: true }));
    id
}

fn texts(transcript: &Transcript) -> Vec<&str> {
    transcript.path().iter().map(|message| message.text.as_str()).collect()
}

#[test]
fn what_is_said_is_pending_until_the_server_has_it() {
    let mut transcript = Transcript::default();
    assert!(transcript.is_empty());
    let request = ask(&mut transcript, None, Some("hello"));
    assert!(!transcript.is_empty());
    assert!(transcript.path().is_empty());
    assert_eq!(transcript.heading().as_deref(), Some("hello"));
    transcript.apply(Action::Refused(request));
    assert!(transcript.is_empty());
}

#[test]
fn the_servers_messages_take_the_place_of_the_pending_one() {
    let mut transcript = Transcript::default();
    say(&mut transcript, "one");
    say(&mut transcript, "two");
    assert!(transcript.pending().is_none());
    assert!(transcript.conversation().is_some());
    assert_eq!(texts(&transcript), ["one", "", "two", ""]);
}

#[test]
fn an_outcome_after_the_reader_went_elsewhere_changes_nothing() {
    let mut transcript = Transcript::default();
    let request = ask(&mut transcript, None, Some("hello"));
    transcript.apply(Action::Opened(None));
    let said = message(None, Role::User, "hello");
    let answer = message(Some(said.id), Role::Assistant, "");
    transcript.apply(Action::Begun(
        ConversationId::random(),
        request,
        Started { message: Some(said), answer, is_saved: true },
    ));
    assert_eq!(transcript, Transcript::default());
}

#[test]
fn a_regenerated_answer_is_a_sibling_and_what_followed_is_hidden_meanwhile() {
    let mut transcript = Transcript::default();
    let first = say(&mut transcript, "one");
    say(&mut transcript, "two");
    let question = transcript.message(first).unwrap().parent;
    let request = ask(&mut transcript, question, None);
    assert_eq!(texts(&transcript), ["one"]);
    let second = message(question, Role::Assistant, "again");
    let second_id = second.id;
    let conversation = transcript.conversation().unwrap();
    transcript.apply(Action::Begun(conversation, request, Started { message: None, answer: second, is_saved: true }));
    assert_eq!(texts(&transcript), ["one", "again"]);
    let branch = transcript.branch(second_id);
    assert_eq!((branch.place, branch.count, branch.previous, branch.next), (2, 2, Some(first), None));
    transcript.apply(Action::LookedAt(first));
    assert_eq!(texts(&transcript), ["one", "", "two", ""]);
}

#[test]
fn a_conversation_opens_at_its_leaf() {
    let question = message(None, Role::User, "why");
    let first = message(Some(question.id), Role::Assistant, "first");
    let second = message(Some(question.id), Role::Assistant, "second");
    let view = ConversationView {
        title: "a".to_owned(),
        is_saved: true,
        id: ConversationId::random(),
        system: String::new(),
        leaf: Some(first.id),
        messages: vec![question, first, second],
    };
    assert_eq!(texts(&Transcript::open(Some(view))), ["why", "first"]);
}

#[test]
fn a_long_heading_is_cut_at_a_character() {
    let mut transcript = Transcript::default();
    ask(&mut transcript, None, Some(&format!("{}\nmore", "字".repeat(41))));
    assert_eq!(transcript.heading(), Some(format!("{}…", "字".repeat(40))));
}
