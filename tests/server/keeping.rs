//! What was acknowledged is kept, whatever happens to the disk; and what cannot be kept is answered all the same.

use std::path::Path;

use serde_json::json;
use xverse_chat::{
    chat::{
        command::{SendCommand, Started},
        error::ErrorCode,
        event::EndReason,
        ids::{ConversationId, MessageId, RequestId},
        info::ConversationView,
        list::{ChatList, ListPlace, ListQuery},
        message::AnswerState,
    },
    storage::database::{Found, OpenError, Storage},
};

use crate::{
    client::{SOMEBODY, assert_refused, generation, say, until},
    house::{ANSWER, House, Plan, opened},
};

/// A house whose conversations outlive it.
fn over(folder: &Path) -> House {
    House::build(Plan { data: Some(folder.to_owned()), ..Plan::default() })
}

/// Ends a house so that the next one finds what it left: nothing but the file.
async fn leave(house: House) {
    house.server.tasks.close();
    house.server.tasks.wait().await;
    house.server.library.storage().settled().await;
    let lock = house.server.library.storage().clone();
    drop(house);
    drop(lock);
}

impl House {
    async fn conversation(&self, id: ConversationId) -> ConversationView {
        self.page(id).await.conversation.unwrap()
    }

    async fn search(&self, text: &str) -> ChatList {
        self.list(ListQuery { search: text.to_owned(), after: None }).await
    }

    async fn list(&self, query: ListQuery) -> ChatList {
        self.post("/api/chats", &json!({ "query": query })).await.read()
    }

    /// Says something in a new conversation and waits for the answer's end.
    async fn round(&self, text: &str) -> (SendCommand, MessageId) {
        let command = say(text);
        let started = self.started(&command).await;
        self.whole(generation(&started)).await;
        (command, started.answer.id)
    }
}

#[tokio::test]
async fn a_conversation_is_the_same_after_the_program_was_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let house = over(folder.path());
    let (first, answer) = house.round("hello").await;
    let second = SendCommand { parent: Some(answer), conversation: first.conversation, ..say("and then") };
    let second = SendCommand { system: "be kind".to_owned(), ..second };
    let started = house.started(&second).await;
    house.whole(generation(&started)).await;
    house.regenerate(first.conversation, started.answer.id).await;
    house.post("/api/rename", &json!({ "conversation": first.conversation, "title": "A title of mine" })).await;
    let look = json!({ "conversation": first.conversation, "message": started.answer.id });
    assert_eq!(house.post("/api/look", &look).await.status, 200);
    house.server.tasks.close();
    house.server.tasks.wait().await;
    let before = house.conversation(first.conversation).await;
    assert_eq!(before.messages.len(), 5);
    assert!(before.is_saved);
    leave(house).await;

    let house = over(folder.path());
    let after = house.conversation(first.conversation).await;
    assert_eq!(after.title, "A title of mine");
    assert_eq!(after.leaf, Some(started.answer.id), "the branch that was looked at");
    assert_eq!(after, ConversationView { system: after.system.clone(), ..before });
    assert_eq!(house.list(ListQuery::default()).await.chats[0].title, "A title of mine");
}

#[tokio::test]
async fn a_message_is_on_disk_before_its_command_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::build(Plan { data: Some(folder.path().to_owned()), is_held: true, ..Plan::default() });
    let command = say("hello");
    house.started(&command).await;
    let owner = house.owner(SOMEBODY).await;
    let kept = house.server.library.storage().load(owner, command.conversation).await.unwrap().unwrap();
    assert_eq!(kept.messages[0].text, "hello");
    assert!(kept.messages[1].is_running());
}

#[tokio::test]
async fn a_command_that_is_sent_again_after_a_restart_is_not_carried_out_twice() {
    let folder = tempfile::tempdir().unwrap();
    let house = over(folder.path());
    let (command, answer) = house.round("hello").await;
    leave(house).await;

    let house = over(folder.path());
    let again = house.started(&command).await;
    assert_eq!(again.answer.id, answer);
    assert!(matches!(again.answer.answer.unwrap().state, AnswerState::Ended { reason: EndReason::EndOfText }));
    assert_eq!(house.conversation(command.conversation).await.messages.len(), 2);
}

#[tokio::test]
async fn where_the_disk_is_full_or_read_only_the_answer_still_comes_and_is_saved_once_there_is_room() {
    // What is read-only for this connection stays so.
    for (broken, mended) in
        [("PRAGMA max_page_count = 1", Some("PRAGMA max_page_count = 1000000")), ("PRAGMA query_only = ON", None)]
    {
        let house = House::build(Plan { context: 16_384, ..Plan::default() });
        house.round("saved").await;
        let storage = house.server.library.storage();
        storage.run_script(broken).await.unwrap();
        let command = say(&"not saved ".repeat(700));
        let started = house.started(&command).await;
        assert!(!started.is_saved, "{broken}");
        let screen = house.whole(generation(&started)).await;
        assert_eq!(
            (screen.text(), screen.reason(), screen.is_saved),
            (ANSWER, EndReason::EndOfText, false),
            "{broken}"
        );
        let view = house.conversation(command.conversation).await;
        assert!(!view.is_saved && view.messages.len() == 2, "{broken}: it goes on in memory");
        assert_eq!(house.n_chats().await, 1);

        let Some(mended) = mended else { continue };
        storage.run_script(mended).await.unwrap();
        house.server.library.save_the_unsaved().await;
        let view = house.conversation(command.conversation).await;
        assert!(view.is_saved, "{mended}");
        assert_eq!(house.n_chats().await, 2);
        let owner = house.owner(SOMEBODY).await;
        let kept = storage.load(owner, command.conversation).await.unwrap().unwrap();
        assert_eq!(kept.messages[1].text, ANSWER);
    }
}

#[tokio::test]
async fn an_answer_whose_end_cannot_be_written_is_said_not_to_be_saved() {
    let house = House::build(Plan { is_held: true, ..Plan::default() });
    let command = say("hello");
    let started = house.started(&command).await;
    assert!(started.is_saved);
    house.server.library.storage().run_script("PRAGMA query_only = ON").await.unwrap();
    house.gate.open();
    assert!(!house.whole(generation(&started)).await.is_saved);
    assert!(!house.conversation(command.conversation).await.is_saved);
}

#[tokio::test]
async fn a_database_that_another_program_locks_holds_up_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let house = over(folder.path());
    house.server.library.storage().run_script("PRAGMA busy_timeout = 50").await.unwrap();
    let other = rusqlite::Connection::open(folder.path().join("conversations.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let command = say("hello");
    let started = house.started(&command).await;
    assert!(!started.is_saved);
    assert_eq!(house.whole(generation(&started)).await.text(), ANSWER);
    other.execute_batch("ROLLBACK").unwrap();
    house.server.library.save_the_unsaved().await;
    assert!(house.conversation(command.conversation).await.is_saved);
}

#[tokio::test]
async fn a_corrupt_database_is_moved_aside_and_the_start_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::build(Plan { data: Some(folder.path().to_owned()), context: 8192, ..Plan::default() });
    for n in 0..20 {
        house.round(&format!("{n} {}", "much to say ".repeat(200))).await;
    }
    leave(house).await;
    let file = folder.path().join("conversations.db");
    for spoil in ["page", "head", "text"] {
        // The threads of the storage before may still have it open, and write a last time; alone one can do without a log.
        let connection = rusqlite::Connection::open(&file).unwrap();
        let mode = |to| connection.query_row(&format!("PRAGMA journal_mode = {to}"), [], |row| row.get::<_, String>(0));
        until(|| mode("delete").as_deref() == Ok("delete")).await;
        assert_eq!(mode("wal").as_deref(), Ok("wal"));
        drop(connection);
        let mut bytes = std::fs::read(&file).unwrap();
        match spoil {
            "page" => bytes[4096..].iter_mut().step_by(7).for_each(|byte| *byte = 0x5a),
            "head" => bytes[..100].fill(0),
            _ => bytes = b"this is no database, but long enough to be taken for one".repeat(100),
        }
        std::fs::write(&file, &bytes).unwrap();
        let (storage, found) = Storage::open(folder.path()).unwrap();
        let Found::MovedAside(aside) = found else { panic!("{spoil}: {found:?}") };
        assert_eq!(std::fs::read(aside).unwrap(), bytes, "nothing of it is lost");
        storage.settled().await;
        drop(storage);
    }
}

#[tokio::test]
async fn a_folder_is_used_by_one_server_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let (first, _) = Storage::open(folder.path()).unwrap();
    let Err(OpenError::InUse(path)) = Storage::open(folder.path()) else { panic!("it was opened twice") };
    assert_eq!(path, folder.path());
    drop(first);
    opened(folder.path());
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_to_keeps_nothing_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (storage, found) = Storage::open(&file.join("below")).unwrap();
    assert!(matches!(found, Found::Nothing(_)), "{found:?}");
    storage.settled().await;
}

#[tokio::test]
async fn an_answer_goes_on_from_its_exact_tokens() {
    let house = House::build(Plan::default());
    for cut in [1, 5, 10, 23] {
        let mut command = say("hello");
        command.settings.max_new_tokens = Some(cut);
        let started = house.started(&command).await;
        let first = house.whole(generation(&started)).await;
        assert_eq!(first.reason(), EndReason::Length);
        assert_eq!(first.text().chars().count(), cut as usize);
        let again: Started = house.continue_answer(command.conversation, started.answer.id).await.read();
        assert_eq!(again.answer.id, started.answer.id, "it is the same answer");
        let screen = house.whole(generation(&again)).await;
        assert_eq!((screen.text(), screen.reason()), (ANSWER, EndReason::EndOfText), "cut after {cut}");
        let stats = screen.end.as_ref().unwrap().1;
        assert_eq!(stats.generated_tokens as usize, ANSWER.chars().count());
        let view = house.conversation(command.conversation).await;
        assert_eq!((view.messages.len(), view.messages[1].text.as_str()), (2, ANSWER));
        assert_eq!(view.messages[1].blocks, screen.blocks);
        let complete = house.continue_answer(command.conversation, started.answer.id).await;
        assert_refused(&complete, 409, ErrorCode::Conflict);
    }
}

#[tokio::test]
async fn an_answer_is_gone_on_with_by_the_model_that_began_it() {
    let folder = tempfile::tempdir().unwrap();
    let house = over(folder.path());
    let mut command = say("hello");
    command.settings.max_new_tokens = Some(5);
    let started = house.started(&command).await;
    house.whole(generation(&started)).await;
    leave(house).await;
    let house = House::build(Plan { data: Some(folder.path().to_owned()), weights: [9; 32], ..Plan::default() });
    let reply = house.continue_answer(command.conversation, started.answer.id).await;
    assert_refused(&reply, 409, ErrorCode::OtherModel);
}

#[tokio::test]
async fn search_finds_words_of_one_and_two_chinese_characters_in_titles_and_texts() {
    let house = House::build(Plan { answer: Some("世界，你好。"), ..Plan::default() });
    house.round("hello").await;
    house.round("好世界").await;
    for (text, titles) in [
        ("界", vec!["好世界", "hello"]),
        ("世界", vec!["好世界", "hello"]),
        ("HELLO", vec!["hello"]),
        ("好世", vec!["好世界"]),
        ("nothing", vec![]),
        (" ", vec!["好世界", "hello"]),
    ] {
        let found = house.search(text).await;
        assert_eq!(found.chats.iter().map(|chat| chat.title.as_str()).collect::<Vec<_>>(), titles, "{text:?}");
    }
    let chats = house.search("界").await.chats;
    assert_eq!(chats[0].found, None, "it is in the title");
    let found = chats[1].found.as_ref().unwrap();
    assert_eq!((found.before.as_str(), found.hit.as_str(), found.after.as_str()), ("世", "界", "，你好。"));
    let wild = house.search("%").await;
    assert!(wild.chats.is_empty(), "nothing in it means anything else");
}

#[tokio::test]
async fn the_list_comes_in_pages_newest_first() {
    let house = House::build(Plan::default());
    let mut ids = Vec::new();
    for n in 0..45 {
        let (command, _) = house.round(&format!("number {n}")).await;
        ids.push(command.conversation);
    }
    ids.reverse();
    let first = house.list(ListQuery::default()).await;
    assert!(first.has_more && first.chats.len() == 40);
    let last = first.chats.last().unwrap();
    let after = Some(ListPlace { updated_ms: last.updated_ms, id: last.id });
    let second = house.list(ListQuery { search: String::new(), after }).await;
    assert!(!second.has_more);
    let mut found: Vec<_> = first.chats.iter().chain(&second.chats).map(|chat| chat.id).collect();
    assert_eq!(found.len(), 45);
    // Those of one millisecond stand in any order.
    found.sort();
    ids.sort();
    assert_eq!(found, ids);
}

#[tokio::test]
async fn a_deleted_conversation_is_gone_stops_its_answer_and_can_be_restored() {
    let house = House::build(Plan { is_held: true, ..Plan::default() });
    let command = say("hello");
    let started = house.started(&command).await;
    let named = json!({ "conversation": command.conversation });
    assert_eq!(house.post("/api/delete", &named).await.status, 200);
    house.gate.open();
    let reason = house.whole(generation(&started)).await.reason();
    assert_eq!(reason, EndReason::Stopped);
    assert_eq!(house.n_chats().await, 0);
    assert_refused(&house.post("/api/page", &named).await, 404, ErrorCode::NotFound);
    assert_refused(&house.post("/api/delete", &named).await, 404, ErrorCode::NotFound);
    let follow = SendCommand { request: RequestId::random(), ..command.clone() };
    assert_refused(&house.send(&follow).await, 404, ErrorCode::NotFound);

    assert_eq!(house.post("/api/restore", &named).await.status, 200);
    let view = house.conversation(command.conversation).await;
    assert_eq!(view.messages.len(), 2);
    assert!(matches!(
        view.messages[1].answer.as_ref().unwrap().state,
        AnswerState::Ended { reason: EndReason::Stopped }
    ));
}

#[tokio::test]
async fn what_was_deleted_long_ago_is_removed_for_good() {
    let house = House::build(Plan::default());
    let (command, _) = house.round("hello").await;
    let named = json!({ "conversation": command.conversation });
    house.post("/api/delete", &named).await;
    let storage = house.server.library.storage();
    storage.purge(u64::MAX >> 1, u64::MAX >> 1, u64::MAX >> 1).await.unwrap();
    assert_refused(&house.post("/api/restore", &named).await, 404, ErrorCode::NotFound);
    assert!(!storage.is_taken(command.conversation).await.unwrap());
}

#[tokio::test]
async fn a_title_is_chosen_within_its_bounds() {
    let house = House::build(Plan::default());
    let (command, _) = house.round("  hello\nmore of it").await;
    assert_eq!(house.conversation(command.conversation).await.title, "hello");
    let rename = |title: String| json!({ "conversation": command.conversation, "title": title });
    assert_refused(&house.post("/api/rename", &rename(" ".into())).await, 422, ErrorCode::MessageEmpty);
    let long = house.post("/api/rename", &rename("a".repeat(101))).await;
    assert_refused(&long, 422, ErrorCode::MessageTooLong);
    assert_eq!(house.post("/api/rename", &rename("你好".into())).await.status, 200);
    assert_eq!(house.conversation(command.conversation).await.title, "你好");
    assert_eq!(house.list(ListQuery::default()).await.chats[0].title, "你好");
}
