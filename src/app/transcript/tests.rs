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
    let wish = said.map_or(Wish::Again, |text| Wish::Answer(Role::User, text.to_owned()));
    transcript.apply(Action::Asked(Pending { request, after, wish }));
    request
}

fn say(transcript: &mut Transcript, text: &str) -> MessageId {
    let after = transcript.leaf().map(|leaf| leaf.id);
    say_after(transcript, after, text)
}

fn say_after(transcript: &mut Transcript, after: Option<MessageId>, text: &str) -> MessageId {
    let request = ask(transcript, after, Some(text));
    let said = message(after, Role::User, text);
    let answer = message(Some(said.id), Role::Assistant, "");
    let id = answer.id;
    let conversation = transcript.conversation().unwrap_or_else(ConversationId::random);
    transcript.apply(Action::Begun(conversation, request, started(Some(said), answer)));
    id
}

fn started(message: Option<MessageView>, answer: MessageView) -> Started {
    Started { message, answer, is_saved: true }
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
    assert_eq!(transcript.title().as_deref(), Some("hello"));
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
    transcript.apply(Action::Begun(ConversationId::random(), request, started(Some(said), answer)));
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
    transcript.apply(Action::Begun(conversation, request, started(None, second)));
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
        id: ConversationId::random(),
        title: "causes".to_owned(),
        system: String::new(),
        leaf: Some(first.id),
        messages: vec![question, first, second],
        is_saved: true,
    };
    let transcript = Transcript::open(Some(view));
    assert_eq!(texts(&transcript), ["why", "first"]);
    assert_eq!(transcript.title().as_deref(), Some("causes"));
}

#[test]
fn an_edited_message_is_a_sibling_and_nothing_is_gone() {
    let mut transcript = Transcript::default();
    let first = say(&mut transcript, "one");
    say(&mut transcript, "two");
    say_after(&mut transcript, None, "uno");
    assert_eq!(texts(&transcript), ["uno", ""]);
    let question = transcript.path()[0].id;
    let branch = transcript.branch(question);
    assert_eq!((branch.place, branch.count), (2, 2));
    transcript.apply(Action::LookedAt(branch.previous.unwrap()));
    assert_eq!(texts(&transcript), ["one", "", "two", ""]);
    say_after(&mut transcript, Some(first), "due");
    assert_eq!(texts(&transcript), ["one", "", "due", ""]);
}

#[test]
fn an_answer_that_is_gone_on_with_stays_in_its_place() {
    let mut transcript = Transcript::default();
    let answer = say(&mut transcript, "one");
    let request = RequestId::random();
    transcript.apply(Action::Asked(Pending { request, after: Some(answer), wish: Wish::More }));
    assert_eq!(texts(&transcript), ["one", ""]);
    let mut more = transcript.message(answer).unwrap().clone();
    more.text = "part".to_owned();
    let conversation = transcript.conversation().unwrap();
    transcript.apply(Action::Begun(conversation, request, started(None, more)));
    assert_eq!(texts(&transcript), ["one", "part"]);
    assert_eq!(transcript.branch(answer).count, 1);
}

#[test]
fn a_conversation_is_called_by_its_first_message_until_it_has_a_title() {
    let mut transcript = Transcript::default();
    assert_eq!(transcript.title(), None);
    say(&mut transcript, &format!("{}\nmore", "字".repeat(41)));
    say(&mut transcript, "two");
    assert_eq!(transcript.title(), Some(format!("{}…", "字".repeat(40))));
    transcript.apply(Action::Titled("characters".to_owned()));
    say_after(&mut transcript, None, "three");
    assert_eq!(transcript.title().as_deref(), Some("characters"));
}
