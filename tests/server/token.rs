//! The access token: where one is set, whoever does not have it gets nothing but the page that asks for it.

use std::io::Read;

use axum::{
    body::Body,
    http::{Method, Request},
};
use futures::stream;
use serde_json::json;
use xverse_chat::{
    chat::{error::ErrorCode, ids::ConversationId, ids::GenerationId},
    server::routes::{LeadsTo, Route, routes},
};

use crate::{
    client::{Reply, assert_refused, request},
    house::{House, Plan},
    process::Running,
    program::Program,
};

const TOKEN: &str = "a token that nobody guesses";

/// The token as it stands in an address.
const IN_ADDRESS: &str = "a%20token+that%20nobody%20guesses";

fn house() -> House {
    House::build(Plan { access_token: Some(TOKEN), ..Plan::default() })
}

/// A route's path with something in its gaps.
fn example(route: &Route) -> String {
    route
        .path
        .replace("{conversation}", &ConversationId::random().to_string())
        .replace("{id}", &GenerationId::random().to_string())
        .replace("{*path}", "xverse-chat.css")
}

async fn ask(house: &House, route: &Route, headers: &[(&str, &str)]) -> Reply {
    let mut asked = request(route.method.clone(), &example(route)).header("content-type", "application/json");
    for (name, value) in headers {
        asked = asked.header(*name, *value);
    }
    house.ask(asked.body(Body::from("{}")).unwrap()).await
}

/// What a reply sets, as a browser sends it back.
fn cookie(reply: &Reply) -> String {
    reply.header("set-cookie").split(';').next().unwrap().to_owned()
}

async fn log_in(house: &House, form: &str) -> Reply {
    let asked = request(Method::POST, "/login").header("content-type", "application/x-www-form-urlencoded");
    house.ask(asked.body(Body::from(form.to_owned())).unwrap()).await
}

#[tokio::test]
async fn without_the_token_only_the_open_routes_answer() {
    let house = house();
    let routes = routes(&house.leptos);
    let mut guarded = 0;
    for route in &routes {
        for headers in [
            [].as_slice(),
            &[("authorization", "Bearer a token that somebody guesses")],
            &[("cookie", "access=00")],
            &[("cookie", "access=a token that nobody guesses")],
        ] {
            let reply = ask(&house, route, headers).await;
            match route.leads_to {
                LeadsTo::File | LeadsTo::Health | LeadsTo::Readiness => assert_eq!(reply.status, 200, "{route:?}"),
                LeadsTo::Login => assert_eq!(reply.status, 400, "{route:?}"),
                LeadsTo::LoginPage => assert_eq!(reply.status, 303, "{route:?}"),
                LeadsTo::Page => assert!(reply.status == 401 && reply.body.contains("<form"), "{route:?}"),
                LeadsTo::Command | LeadsTo::Events | LeadsTo::Metrics => {
                    assert_refused(&reply, 401, ErrorCode::AccessDenied);
                }
                LeadsTo::Models
                | LeadsTo::ChatCompletions
                | LeadsTo::Completions
                | LeadsTo::Tokenize
                | LeadsTo::Detokenize
                | LeadsTo::TokenizerInfo => {
                    assert!(reply.status == 401 && reply.body.contains("authentication_error"), "{route:?}");
                }
            }
            if reply.status == 401 {
                guarded += 1;
                assert_eq!(reply.header("www-authenticate"), "Bearer", "{route:?}");
            }
            assert!(!reply.body.contains(TOKEN), "{route:?}");
        }
    }
    assert!(guarded >= 4 * 15, "{guarded}");
    for path in ["/no/such/page", "/Leptos.toml", "/pkg", "/icon.svg/", "/healthz/", "//healthz"] {
        assert_refused(&house.get(path).await, 401, ErrorCode::AccessDenied);
    }
}

#[tokio::test]
async fn with_the_token_every_route_answers_as_without_one() {
    let (house, open) = (house(), House::build(Plan::default()));
    let cookie = cookie(&house.get(&format!("/?access_token={IN_ADDRESS}")).await);
    for route in &routes(&house.leptos) {
        let without = ask(&open, route, &[]).await;
        for headers in [[("authorization", &*format!("Bearer {TOKEN}"))], [("cookie", &*cookie)]] {
            let with = ask(&house, route, &headers).await;
            assert_eq!(with.status, without.status, "{route:?}: {}", with.body);
            assert_ne!(with.status, 401, "{route:?}");
        }
    }
}

#[tokio::test]
async fn an_address_with_the_token_leaves_a_cookie_and_loses_the_token() {
    let house = house();
    let id = ConversationId::random();
    for (path, leads_to) in [("/".to_owned(), "/".to_owned()), (format!("/c/{id}"), format!("/c/{id}"))] {
        let reply = house.get(&format!("{path}?access_token={IN_ADDRESS}")).await;
        assert_eq!((reply.status.as_u16(), reply.header("location")), (303, leads_to.as_str()));
        let set = reply.header("set-cookie");
        assert!(set.contains("; HttpOnly") && set.contains("; SameSite=Lax") && set.contains("; Path=/;"), "{set}");
        assert!(!set.contains("token"), "{set}");
        assert_eq!(reply.header("cache-control"), "no-store");
        let with_cookie = request(Method::GET, "/").header("cookie", format!("theme=dark; {}", cookie(&reply)));
        assert_eq!(house.ask(with_cookie.body(Body::empty()).unwrap()).await.status, 200);
        let again = request(Method::GET, &format!("{path}?access_token=old")).header("cookie", cookie(&reply));
        let again = house.ask(again.body(Body::empty()).unwrap()).await;
        assert_eq!((again.status.as_u16(), again.header("location")), (303, leads_to.as_str()));
        assert_eq!(again.header("set-cookie"), "", "what is wrong changes nothing");
    }
    let wrong = house.get("/?access_token=wrong").await;
    assert!(wrong.status == 401 && wrong.header("set-cookie").is_empty() && wrong.body.contains("role=\"alert\""));
    let command = format!("/api/page?access_token={IN_ADDRESS}");
    assert_refused(&house.post(&command, &()).await, 401, ErrorCode::AccessDenied);
    assert_refused(&house.get(&format!("/metrics?access_token={IN_ADDRESS}")).await, 401, ErrorCode::AccessDenied);
}

#[tokio::test]
async fn the_form_lets_in_and_leads_on() {
    let house = house();
    let id = ConversationId::random();
    for (to, leads_to) in [
        (String::new(), "/".to_owned()),
        ("&to=/".to_owned(), "/".to_owned()),
        (format!("&to=/c/{id}"), format!("/c/{id}")),
        ("&to=//evil.test/".to_owned(), "/".to_owned()),
        ("&to=https://evil.test".to_owned(), "/".to_owned()),
        ("&to=/metrics".to_owned(), "/".to_owned()),
    ] {
        let reply = log_in(&house, &format!("access_token={IN_ADDRESS}{to}")).await;
        assert_eq!((reply.status.as_u16(), reply.header("location")), (303, leads_to.as_str()), "{to}");
        let with_cookie = request(Method::GET, "/metrics").header("cookie", cookie(&reply));
        assert_eq!(house.ask(with_cookie.body(Body::empty()).unwrap()).await.status, 200);
    }
    let wrong = log_in(&house, &format!("access_token=wrong&to=/c/{id}")).await;
    assert!(wrong.status == 401 && wrong.header("set-cookie").is_empty(), "{}", wrong.body);
    assert!(
        wrong.body.contains("role=\"alert\"") && wrong.body.contains(&format!("value=\"/c/{id}\"")),
        "{}",
        wrong.body
    );
    assert_refused(&log_in(&house, "token=x").await, 400, ErrorCode::Malformed);
    assert_eq!(house.get("/login").await.header("location"), "/");
}

#[tokio::test]
async fn the_page_that_asks_is_in_the_visitors_language_and_has_no_script() {
    let house = house();
    for (language, tag, words) in [("zh-CN", "zh-CN", "访问令牌"), ("en-GB", "en", "Access token")] {
        let id = ConversationId::random();
        let asked = request(Method::GET, &format!("/c/{id}")).header("accept-language", language);
        let reply = house.ask(asked.body(Body::empty()).unwrap()).await;
        for part in [
            &*format!("<html lang=\"{tag}\""),
            words,
            "A title",
            "action=\"/login\"",
            "method=\"post\"",
            "type=\"password\"",
            "/pkg/xverse-chat.css",
            &format!("value=\"/c/{id}\""),
        ] {
            assert!(reply.body.contains(part), "{part} in {}", reply.body);
        }
        assert!(!reply.body.contains("<script") && !reply.body.contains("role=\"alert\""), "{}", reply.body);
        let policy = reply.header("content-security-policy");
        assert!(policy.contains("form-action 'self'") && !policy.contains("script-src"), "{policy}");
        assert_eq!(
            (reply.header("content-type"), reply.header("cache-control")),
            ("text/html; charset=utf-8", "no-store")
        );
    }
    let browser = request(Method::GET, "/no/such/page").header("accept", "text/html,*/*;q=0.8");
    let reply = house.ask(browser.body(Body::empty()).unwrap()).await;
    assert!(reply.status == 401 && reply.body.contains("<form"), "a browser gets the page wherever it goes");
}

#[tokio::test]
async fn the_token_is_asked_for_after_host_and_origin_and_before_the_body() {
    let house = house();
    let evil = Request::builder().uri("/metrics").header("host", "evil.test").body(Body::empty()).unwrap();
    assert_eq!(house.ask(evil).await.status, 421);
    let foreign = request(Method::POST, "/api/page").header("origin", "http://evil.test").body(Body::empty()).unwrap();
    assert_eq!(house.ask(foreign).await.status, 403);
    let foreign = request(Method::POST, "/login").header("sec-fetch-site", "cross-site").body(Body::empty()).unwrap();
    assert_eq!(house.ask(foreign).await.status, 403, "nobody is logged in from another site");
    let endless = Body::from_stream(stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let asked = request(Method::POST, "/api/page").body(endless).unwrap();
    assert_refused(&house.ask(asked).await, 401, ErrorCode::AccessDenied);
}

#[tokio::test]
async fn where_no_token_is_set_nobody_is_asked_for_one() {
    let house = House::build(Plan::default());
    assert_eq!(house.get("/?access_token=anything").await.status, 200);
    let reply = log_in(&house, "access_token=anything").await;
    assert_eq!((reply.status.as_u16(), reply.header("location"), reply.header("set-cookie")), (303, "/", ""));
}

#[test]
fn the_token_is_never_written_down() {
    let program = Program::new();
    program.model(json!({}));
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = program.command(&["--port=0", "--model_path=model"]);
    command.env("XVERSE_ACCESS_TOKEN", "Canary-0123456789").env("XVERSE_LOG", "trace").stderr(log.reopen().unwrap());
    let mut running = Running::run(command, program);
    running.line("loaded");
    let form = "access_token=Canary-0123456789";
    let replies = [
        "GET /?access_token=Canary-0123456789 HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n".to_owned(),
        "GET /metrics?access_token=Canary-0123456789 HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nAuthorization: Bearer Canary-0123456789\r\n\r\n"
            .to_owned(),
        format!(
            "POST /login HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
            form.len()
        ),
    ]
    .map(|request| {
        let mut reply = String::new();
        running.client(0).raw(&request).read_to_string(&mut reply).unwrap();
        assert!(!reply.contains("Canary"), "{reply}");
        reply
    });
    for (reply, status) in replies.iter().zip(["303", "401", "200", "303"]) {
        assert!(reply.starts_with(&format!("HTTP/1.1 {status}")), "{reply}");
    }
    running.tell_to_end();
    assert_eq!(running.status(), Some(0));
    let printed: Vec<String> = running.lines.by_ref().map(Result::unwrap).collect();
    let logged = std::fs::read_to_string(log.path()).unwrap();
    assert!(logged.contains("/login"), "requests are noted: {logged}");
    assert!(!logged.contains("Canary") && !printed.concat().contains("Canary"), "{logged}{printed:?}");
}
