//! What is too much is refused at the edge, in words, and leaves nothing behind.

use serde_json::json;
use xverse_chat::{
    chat::{
        error::ErrorCode,
        event::EndReason,
        ids::{ConversationId, GenerationId, MessageId},
        info::PromptFormat,
        message::Role,
    },
    server::{config::Limits, listener::Peer, rates::Rate},
};

use crate::{
    client::{as_json, assert_refused, generation, say},
    house::{ANSWER, House, Plan},
};

#[tokio::test]
async fn an_empty_message_is_refused() {
    let house = House::build(Plan::default());
    for text in ["", " ", "\n\t", "\u{3000}"] {
        assert_refused(&house.send(&say(text)).await, 422, ErrorCode::MessageEmpty);
    }
    assert_eq!(house.n_chats().await, 0);
}

#[tokio::test]
async fn a_message_over_64_kib_is_refused_with_both_numbers() {
    let house = House::build(Plan::default());
    let reply = house.send(&say(&"a".repeat(64 * 1024 + 1))).await;
    assert_refused(&reply, 422, ErrorCode::MessageTooLong);
    assert!(reply.body.contains("65537") && reply.body.contains("65536"), "{}", reply.body);
}

#[tokio::test]
async fn a_message_of_a_megabyte_is_refused_before_it_is_read() {
    let house = House::build(Plan::default());
    let reply = house.send(&say(&"a".repeat(1 << 20))).await;
    assert_refused(&reply, 413, ErrorCode::MessageTooLong);
    assert!(reply.body.contains("262144"), "{}", reply.body);
}

#[tokio::test]
async fn a_body_without_a_declared_length_is_bounded_too() {
    use axum::{body::Body, http::Method};

    let house = House::build(Plan::default());
    let chunks = futures::stream::iter((0..300).map(|_| Ok::<_, std::io::Error>(vec![b'a'; 1024])));
    let request = crate::client::request(Method::POST, "/api/send").header("content-type", "application/json");
    let reply = house.ask(request.body(Body::from_stream(chunks)).unwrap()).await;
    assert_refused(&reply, 413, ErrorCode::MessageTooLong);
}

#[tokio::test]
async fn a_prompt_beyond_the_context_is_refused_with_its_token_count() {
    let house = House::build(Plan { context: 256, ..Plan::default() });
    let reply = house.send(&say(&"a".repeat(300))).await;
    assert_refused(&reply, 422, ErrorCode::PromptTooLong);
    let message = reply.error().message;
    assert!(message.contains("320 tokens") && message.contains("at most 128"), "{message}");
    assert_eq!(house.n_chats().await, 0, "nothing was recorded");
}

#[tokio::test]
async fn a_full_queue_is_a_503_with_a_time_and_records_nothing() {
    let house = House::build(Plan { is_held: true, max_running: 1, max_waiting: 1, ..Plan::default() });
    let admitted = [house.started(&say("one")).await, house.started(&say("two")).await];
    let reply = house.send(&say("three")).await;
    assert_refused(&reply, 503, ErrorCode::QueueFull);
    assert_eq!(reply.header("retry-after"), "5");
    assert_eq!(reply.error().retry_after_s, Some(5));
    assert_eq!(house.n_chats().await, 2);
    house.gate.open();
    for started in &admitted {
        house.whole(generation(started)).await;
    }
    let later = house.started(&say("three")).await;
    assert_eq!(house.whole(generation(&later)).await.text(), ANSWER);
}

#[tokio::test]
async fn a_setting_out_of_range_is_refused_by_name() {
    let house = House::build(Plan::default());
    let mut command = say("hello");
    command.settings.temperature = Some(2.5);
    let reply = house.send(&command).await;
    assert_refused(&reply, 422, ErrorCode::SettingOutOfRange);
    assert!(reply.error().message.contains("temperature"), "{}", reply.body);
}

#[tokio::test]
async fn no_answer_is_longer_than_the_limits_allow() {
    let limits = Limits { max_new_tokens: 8, ..Plan::default().limits };
    let house = House::build(Plan { limits, ..Plan::default() });
    let mut longer = say("hello");
    longer.settings.max_new_tokens = Some(9);
    let reply = house.send(&longer).await;
    assert_refused(&reply, 422, ErrorCode::SettingOutOfRange);
    assert!(reply.error().message.contains("max_new_tokens"), "{}", reply.body);
    let screen = house.whole(generation(&house.started(&say("hello")).await)).await;
    let (reason, stats, _) = screen.end.unwrap();
    assert_eq!((reason, stats.generated_tokens), (EndReason::Length, 8), "the model's own default is more");
    assert_eq!(house.server.loaded().unwrap().model.longest_answer, 8, "what the page offers");
}

#[tokio::test]
async fn roles_that_the_prompt_format_cannot_write_are_refused() {
    let house = House::build(Plan { format: PromptFormat::V1, ..Plan::default() });
    let mut exec = say("hello");
    exec.role = Role::Exec;
    let mut system = say("hello");
    system.system = "be kind".to_owned();
    let mut assistant = say("hello");
    assistant.role = Role::Assistant;
    for command in [exec, system, assistant] {
        assert_refused(&house.send(&command).await, 422, ErrorCode::RoleUnsupported);
    }
}

#[tokio::test]
async fn what_is_not_there_is_a_404() {
    let house = House::build(Plan::default());
    let mut orphan = say("hello");
    orphan.parent = Some(MessageId::random());
    assert_refused(&house.send(&orphan).await, 404, ErrorCode::NotFound);
    let reply = house.regenerate(ConversationId::random(), MessageId::random()).await;
    assert_refused(&reply, 404, ErrorCode::NotFound);
    let reply = house.post("/api/page", &json!({ "conversation": ConversationId::random() })).await;
    assert_refused(&reply, 404, ErrorCode::NotFound);
    for id in [GenerationId::random().to_string(), "nonsense".to_owned()] {
        assert_refused(&house.get(&format!("/generations/{id}/events")).await, 404, ErrorCode::NotFound);
    }
}

#[tokio::test]
async fn a_malformed_cursor_is_a_400_that_says_what_was_expected() {
    let house = House::build(Plan::default());
    let id = generation(&house.started(&say("hello")).await);
    house.whole(id).await;
    for cursor in ["abc", "-1", "", "1e3", "99999999999999999999", "100000"] {
        let reply = house.get(&format!("/generations/{id}/events?after={cursor}")).await;
        assert_refused(&reply, 400, ErrorCode::Malformed);
        assert!(reply.error().message.contains("expected"), "{}", reply.body);
    }
}

#[tokio::test]
async fn a_command_that_cannot_be_read_is_a_400() {
    let house = House::build(Plan::default());
    let good = as_json(&say("hello"));
    for (path, value) in [
        ("/command/request", json!("not an id")),
        ("/command/conversation", json!(7)),
        ("/command/role", json!("narrator")),
        ("/command/text", json!(null)),
        ("/command/settings", json!("hot")),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(path).unwrap() = value;
        assert_refused(&house.post("/api/send", &bad).await, 400, ErrorCode::Malformed);
    }
    assert_eq!(house.n_chats().await, 0);
}

#[tokio::test]
async fn while_the_model_loads_commands_are_told_to_wait() {
    let house = House::build(Plan { is_loaded: false, ..Plan::default() });
    let reply = house.send(&say("hello")).await;
    assert_refused(&reply, 503, ErrorCode::ModelLoading);
    assert!(!reply.header("retry-after").is_empty());
}

#[tokio::test]
async fn more_answers_at_once_than_an_owner_may_have_are_a_429_with_a_time() {
    let limits = Limits { answers_per_owner: 2, ..Plan::default().limits };
    let house = House::build(Plan { is_held: true, limits, ..Plan::default() });
    let taken = [house.started(&say("one")).await, house.started(&say("two")).await];
    let reply = house.send(&say("three")).await;
    assert_refused(&reply, 429, ErrorCode::TooManyAnswers);
    assert!(!reply.header("retry-after").is_empty() && reply.error().message.contains('2'), "{}", reply.body);
    let other = house.post_as(0x3c, "/api/send", &as_json(&say("four"))).await;
    assert_eq!(other.status, 200, "another owner is not held up");
    house.gate.open();
    for started in &taken {
        house.whole(generation(started)).await;
    }
    house.server.tasks.close();
    house.server.tasks.wait().await;
    assert_eq!(house.send(&say("three")).await.status, 200, "their places are free again");
}

#[tokio::test]
async fn asking_for_answers_more_often_than_an_owner_may_is_a_429_with_a_time() {
    let limits = Limits { answers: Rate { per_minute: 30, burst: 3 }, ..Plan::default().limits };
    let house = House::build(Plan { limits, ..Plan::default() });
    let first = say("one");
    for command in [&first, &say("two"), &say("three")] {
        assert_eq!(house.send(command).await.status, 200);
    }
    let reply = house.send(&say("four")).await;
    assert_refused(&reply, 429, ErrorCode::TooManyRequests);
    assert!(matches!(reply.header("retry-after"), "2" | "3"), "{}", reply.header("retry-after"));
    assert_eq!(house.send(&first).await.status, 200, "a command that is repeated asks for nothing new");
    assert_eq!(house.n_chats().await, 3, "the page goes on");
    assert_eq!(house.post_as(0x3c, "/api/send", &as_json(&say("four"))).await.status, 200);
}

#[tokio::test]
async fn newcomers_from_one_address_are_bounded_and_those_of_this_machine_are_not() {
    let limits = Limits { newcomers: Rate { per_minute: 30, burst: 2 }, ..Plan::default().limits };
    let house = House::build(Plan { limits, ..Plan::default() });
    let send = async |who: u8, address: &str| {
        let body = as_json(&say("hello")).to_string();
        let request = crate::client::request(axum::http::Method::POST, "/api/send")
            .header("content-type", "application/json")
            .header("cookie", crate::client::cookie(who))
            .extension(Peer(address.parse().unwrap()));
        house.ask(request.body(body.into()).unwrap()).await
    };
    for who in [1, 2] {
        assert_eq!(send(who, "192.0.2.7").await.status, 200);
    }
    assert_refused(&send(3, "192.0.2.7").await, 429, ErrorCode::TooManyRequests);
    assert_eq!(send(1, "192.0.2.7").await.status, 200, "whoever has conversations is no newcomer");
    assert_eq!(send(3, "192.0.2.8").await.status, 200);
    for who in 10..20 {
        assert_eq!(send(who, "127.0.0.1").await.status, 200);
    }
}

#[tokio::test]
async fn asking_for_anything_is_bounded_too() {
    let limits = Limits { requests: Rate { per_minute: 60, burst: 5 }, ..Plan::default().limits };
    let house = House::build(Plan { limits, ..Plan::default() });
    let page = json!({ "conversation": null });
    for _ in 0..5 {
        assert_eq!(house.post("/api/page", &page).await.status, 200);
    }
    assert_refused(&house.post("/api/page", &page).await, 429, ErrorCode::TooManyRequests);
    assert_eq!(house.get("/").await.status, 200, "page loads are counted apart");
    assert_eq!(house.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn more_conversations_than_an_owner_may_have_are_a_409() {
    let limits = Limits { conversations_per_owner: 2, ..Plan::default().limits };
    let house = House::build(Plan { limits, ..Plan::default() });
    let first = say("one");
    house.started(&first).await;
    house.started(&say("two")).await;
    let reply = house.send(&say("three")).await;
    assert_refused(&reply, 409, ErrorCode::TooManyConversations);
    assert!(reply.error().message.contains('2'), "{}", reply.body);
    house.post("/api/delete", &json!({ "conversation": first.conversation })).await;
    assert_eq!(house.send(&say("three")).await.status, 200);
}
