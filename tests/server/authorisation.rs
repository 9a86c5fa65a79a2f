//! Who may do what: {owner, another, nobody} × every server function and every route.
//!
//! **Architecture Invariant:** a route without a row here fails the test, so that none is added without saying whose it is.

use std::collections::BTreeSet;

use axum::{body::Body, http::Method};
use serde_json::{Value, json};
use xverse_chat::{
    chat::{
        command::SendCommand,
        ids::{GenerationId, RequestId},
        list::{ChatList, ListQuery, OwnerLink},
    },
    server::routes::routes,
};

use crate::{
    client::{SOMEBODY, cookie, generation, request, say},
    house::{House, Plan},
};

const ANOTHER: u8 = 0x3c;

/// What somebody gets who asks for what is another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// There is nothing of anybody's in it.
    Everybodys,
    /// Each sees their own; this is never in what another gets.
    OwnOnly,
    /// Not there, for anybody but the owner.
    NotThere,
}

struct Row {
    method: Method,
    route: &'static str,
    path: String,
    body: Option<Value>,
    rule: Rule,
}

/// A house in which [`SOMEBODY`] has a conversation with a running answer and a finished one, whose words are these.
const WORDS: &str = "words of one person";

struct Scene {
    house: House,
    rows: Vec<Row>,
}

async fn scene() -> Scene {
    let house = House::build(Plan { answer: None, is_held: true, ..Plan::default() });
    let command = say(WORDS);
    let started = house.started(&command).await;
    let (id, running) = (command.conversation, generation(&started));
    let mut cut = say(WORDS);
    cut.settings.max_new_tokens = Some(3);
    let ended = house.started(&cut).await;
    house.gate.open();
    house.whole(running).await;
    house.whole(generation(&ended)).await;
    let link: OwnerLink = house.post("/api/owner-link", &json!({})).await.read();
    // One that does not exist: a used one and a foreign one are told alike.
    let no_link = format!("{:0>64}", link.expires_s);
    let send = SendCommand { request: RequestId::random(), parent: Some(started.answer.id), ..command.clone() };
    let take = SendCommand { request: RequestId::random(), parent: None, ..command.clone() };
    let regenerate = json!({ "command": {
        "request": RequestId::random(), "conversation": id, "answer": started.answer.id, "system": "", "settings": {},
    } });
    let go_on = json!({ "command": {
        "request": RequestId::random(), "conversation": cut.conversation, "answer": ended.answer.id,
        "max_new_tokens": null,
    } });
    let post = |route: &'static str, body: Value, rule| Row {
        method: Method::POST,
        route,
        path: route.to_owned(),
        body: Some(body),
        rule,
    };
    let get = |route: &'static str, path: String, rule| Row { method: Method::GET, route, path, body: None, rule };
    let rows = vec![
        get("/", "/".to_owned(), Rule::OwnOnly),
        get("/c/{conversation}", format!("/c/{id}"), Rule::NotThere),
        get("/generations/{id}/events", format!("/generations/{running}/events"), Rule::NotThere),
        get("/pkg/{*path}", "/pkg/xverse-chat.css".to_owned(), Rule::Everybodys),
        get("/icon.svg", "/icon.svg".to_owned(), Rule::Everybodys),
        get("/login", "/login".to_owned(), Rule::Everybodys),
        get("/healthz", "/healthz".to_owned(), Rule::Everybodys),
        get("/readyz", "/readyz".to_owned(), Rule::Everybodys),
        get("/metrics", "/metrics".to_owned(), Rule::OwnOnly),
        get("/v1/models", "/v1/models".to_owned(), Rule::Everybodys),
        get("/v1/models/{model}", "/v1/models/scripted".to_owned(), Rule::Everybodys),
        get("/tokenizer_info", "/tokenizer_info".to_owned(), Rule::Everybodys),
        post("/login", json!({}), Rule::Everybodys),
        post("/v1/chat/completions", json!({ "messages": [{ "role": "user", "content": "x" }] }), Rule::Everybodys),
        post("/v1/completions", json!({ "prompt": "Human: x\n\nAssistant: " }), Rule::Everybodys),
        post("/tokenize", json!({ "prompt": "x" }), Rule::Everybodys),
        post("/detokenize", json!({ "tokens": [40] }), Rule::Everybodys),
        post("/api/page", json!({ "conversation": id }), Rule::NotThere),
        post("/api/page", json!({ "conversation": null }), Rule::OwnOnly),
        post("/api/send", json!({ "command": send }), Rule::NotThere),
        post("/api/send", json!({ "command": take }), Rule::NotThere),
        post("/api/regenerate", regenerate, Rule::NotThere),
        post("/api/continue", go_on, Rule::NotThere),
        post("/api/stop", json!({ "generation": running }), Rule::NotThere),
        post("/api/chats", json!({ "query": ListQuery::default() }), Rule::OwnOnly),
        post("/api/chats", json!({ "query": { "search": "person", "after": null } }), Rule::OwnOnly),
        post("/api/rename", json!({ "conversation": id, "title": "taken" }), Rule::NotThere),
        post("/api/look", json!({ "conversation": id, "message": started.answer.id }), Rule::NotThere),
        post("/api/owner-link", json!({}), Rule::OwnOnly),
        post("/api/take-link", json!({ "code": no_link }), Rule::NotThere),
        post("/api/delete", json!({ "conversation": id }), Rule::NotThere),
        post("/api/restore", json!({ "conversation": id }), Rule::NotThere),
    ];
    Scene { house, rows }
}

impl Scene {
    async fn ask(&self, row: &Row, who: Option<u8>) -> (u16, String) {
        let mut asked = request(row.method.clone(), &row.path).header("content-type", "application/json");
        // An empty one is none, and keeps the client from adding its own.
        asked = asked.header("cookie", who.map(cookie).unwrap_or_default());
        let body = row.body.as_ref().map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let reply = self.house.ask(asked.body(body).unwrap()).await;
        (reply.status.as_u16(), reply.body)
    }
}

#[tokio::test]
async fn every_route_has_a_row() {
    let Scene { house, rows } = scene().await;
    let routes = routes(&house.leptos);
    let known: BTreeSet<_> = rows.iter().map(|row| format!("{} {}", row.method, row.route)).collect();
    let there: BTreeSet<_> = routes.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    assert_eq!(there, known, "a route without a row, or a row without a route");
}

#[tokio::test]
async fn nobody_gets_at_what_is_anothers() {
    let scene = scene().await;
    for row in &scene.rows {
        for who in [Some(ANOTHER), None] {
            let (status, body) = scene.ask(row, who).await;
            let what = format!("{} {} as {who:?}: {status} {body}", row.method, row.path);
            assert!(!body.contains(WORDS) && !body.contains("words of"), "{what}");
            match row.rule {
                Rule::Everybodys | Rule::OwnOnly => assert_ne!(status, 404, "{what}"),
                Rule::NotThere => assert_eq!(status, 404, "{what}"),
            }
        }
    }
    // Whatever was tried, nothing has changed: the owner gets all of it.
    let chats: ChatList = scene.house.post("/api/chats", &json!({ "query": ListQuery::default() })).await.read();
    assert!(chats.chats.len() == 2 && chats.chats.iter().all(|chat| chat.title == WORDS), "{chats:?}");
    for row in &scene.rows {
        let (status, body) = scene.ask(row, Some(SOMEBODY)).await;
        let is_link = row.route == "/api/take-link";
        assert!(
            is_link || status < 400 || status == 401 || row.route == "/login",
            "{} {}: {status} {body}",
            row.method,
            row.path
        );
    }
}

#[tokio::test]
async fn what_is_anothers_and_what_is_not_there_look_the_same() {
    let scene = scene().await;
    let nobodys = GenerationId::random();
    for row in scene.rows.iter().filter(|row| row.rule == Rule::NotThere && row.method == Method::POST) {
        let (status, body) = scene.ask(row, Some(ANOTHER)).await;
        assert_eq!(status, 404, "{} {body}", row.path);
        assert!(body.contains("no such"), "{} {body}", row.path);
    }
    let (foreign, absent) = (&scene.rows[2], format!("/generations/{nobodys}/events"));
    let absent = Row { method: Method::GET, route: "", path: absent, body: None, rule: Rule::NotThere };
    assert_eq!(scene.ask(foreign, Some(ANOTHER)).await, scene.ask(&absent, Some(ANOTHER)).await);
}

#[tokio::test]
async fn a_visitor_without_a_cookie_gets_one_that_scripts_cannot_read() {
    let house = House::build(Plan::default());
    let bare = |cookie: &str| request(Method::GET, "/").header("cookie", cookie).body(Body::empty()).unwrap();
    let first = house.ask(bare("")).await;
    let set = first.header("set-cookie").to_owned();
    let value = set.strip_prefix("owner=").and_then(|rest| rest.split(';').next()).unwrap();
    assert!(value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit()), "{set}");
    for part in ["Path=/", "HttpOnly", "SameSite=Lax", "Max-Age="] {
        assert!(set.contains(part), "{set}");
    }
    let again = house.ask(bare(&format!("owner={value}"))).await;
    assert!(again.header("set-cookie").starts_with(&format!("owner={value};")), "the same one, for longer");
    let other = house.ask(bare("")).await;
    assert!(!other.header("set-cookie").contains(value));
}

#[tokio::test]
async fn a_link_opens_the_same_conversations_to_another_device_once() {
    let house = House::build(Plan::default());
    let list = async |who| house.post_as(who, "/api/chats", &json!({ "query": ListQuery::default() })).await;
    let titles = async |who| {
        let mut titles: Vec<_> = list(who).await.read::<ChatList>().chats.into_iter().map(|chat| chat.title).collect();
        titles.sort();
        titles
    };
    let first = house.started(&say("from the first")).await;
    house.whole(generation(&first)).await;
    let other = house.post_as(ANOTHER, "/api/send", &json!({ "command": say("from the other") })).await;
    assert_eq!(other.status, 200);
    let link: OwnerLink = house.post("/api/owner-link", &json!({})).await.read();
    assert!(link.expires_s > 0);
    let code = json!({ "code": link.code });
    assert_eq!(house.post_as(ANOTHER, "/api/take-link", &code).await.status, 200);
    let both = ["from the first", "from the other"];
    assert_eq!(titles(ANOTHER).await, both);
    assert_eq!(titles(SOMEBODY).await, both, "nothing is lost on the way");
    assert_eq!(house.owner(ANOTHER).await, house.owner(SOMEBODY).await);
    assert_eq!(house.post_as(0x11, "/api/take-link", &code).await.status, 404, "it is used up");
    assert!(titles(0x11).await.is_empty());
}
