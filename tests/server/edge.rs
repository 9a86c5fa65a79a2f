//! Who is let in, and what every answer carries.

use axum::{
    body::Body,
    http::{Method, Request},
};
use leptos::server_fn::axum::server_fn_paths;
use serde_json::json;
use xverse_chat::{
    chat::{error::ErrorCode, info::EngineStatus, info::PageData},
    server::routes::{LeadsTo, routes},
};

use crate::{
    client::{assert_refused, generation, request, say},
    house::{House, Plan},
};

/// Every route of the table, with something in the gaps of its path, and what lies beyond.
fn every_route(house: &House) -> Vec<(Method, String)> {
    let fill =
        |path: &str| path.replace("{*path}", "xverse-chat.css").replace("{id}", "0").replace("{conversation}", "0");
    let table = routes(&house.leptos).into_iter().map(|route| (route.method, fill(&route.path)));
    table.chain([(Method::GET, "/no/such/page".to_owned()), (Method::DELETE, "/icon.svg".to_owned())]).collect()
}

const PATHS: [&str; 6] = ["/", "/healthz", "/readyz", "/metrics", "/pkg/xverse-chat.css", "/no/such/page"];

#[tokio::test]
async fn a_foreign_host_is_refused_on_every_route() {
    let house = House::build(Plan::default());
    for (method, path) in every_route(&house) {
        for host in ["evil.test", "evil.test:36000", "localhost.evil.test"] {
            let asked = Request::builder().method(method.clone()).uri(&path).header("host", host);
            let asked = asked.header("connection", "upgrade").header("upgrade", "websocket");
            assert_eq!(house.ask(asked.body(Body::empty()).unwrap()).await.status, 421, "{method} {path} {host}");
        }
    }
    for host in ["127.0.0.1:36000", "[::1]:36000", "chat.example.org"] {
        let request = Request::builder().uri("/healthz").header("host", host).body(Body::empty()).unwrap();
        assert_eq!(house.ask(request).await.status, 200, "{host}");
    }
}

#[tokio::test]
async fn another_sites_page_cannot_command() {
    let house = House::build(Plan::default());
    let body = || Body::from(json!({ "command": say("hello") }).to_string());
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "http://evil.test"),
        ("origin", "http://localhost:3000"),
        ("origin", "null"),
    ] {
        let request = request(Method::POST, "/api/send").header("content-type", "application/json").header(name, value);
        assert_refused(&house.ask(request.body(body()).unwrap()).await, 403, ErrorCode::Malformed);
    }
    assert_eq!(house.n_chats().await, 0, "nothing was carried out");
    let own = request(Method::POST, "/api/send")
        .header("content-type", "application/json")
        .header("origin", "http://localhost:36000")
        .header("sec-fetch-site", "same-origin");
    assert_eq!(house.ask(own.body(body()).unwrap()).await.status, 200);
}

#[tokio::test]
async fn commands_are_never_carried_out_by_reading() {
    let house = House::build(Plan::default());
    let commands: Vec<_> = server_fn_paths().collect();
    assert!(commands.len() >= 5, "{commands:?}");
    for (path, method) in commands {
        assert_eq!(method, Method::POST, "{path}");
        for reading in [Method::GET, Method::HEAD] {
            let asked = request(reading, path).body(Body::empty()).unwrap();
            assert_eq!(house.ask(asked).await.status, 405, "{path}");
        }
    }
    let reading = routes(&house.leptos).into_iter().filter(|route| route.method == Method::GET);
    assert!(reading.into_iter().all(|route| {
        let begins = [LeadsTo::Command, LeadsTo::Login, LeadsTo::ChatCompletions, LeadsTo::Completions];
        !begins.contains(&route.leads_to)
    }));
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let house = House::build(Plan::default());
    for path in PATHS {
        let reply = house.get(path).await;
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(reply.header(name), value, "{path}");
        }
        assert!(reply.header("content-security-policy").contains("default-src 'none'"), "{path}");
        assert!(reply.header("permissions-policy").contains("microphone=()"), "{path}");
        let is_file = path.starts_with("/pkg/");
        assert_eq!(reply.header("cache-control"), if is_file { "no-cache" } else { "no-store" }, "{path}");
        assert_eq!(reply.header("access-control-allow-origin"), "", "{path}");
        assert_eq!(reply.header("x-request-id").len(), 32, "{path}");
    }
}

#[tokio::test]
async fn the_pages_policy_has_the_nonce_of_its_scripts() {
    let house = House::build(Plan::default());
    let mut nonces = Vec::new();
    for path in ["/", "/no/such/page"] {
        let reply = house.get(path).await;
        let policy = reply.header("content-security-policy");
        let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap().to_owned();
        assert_eq!(
            policy,
            format!(
                "default-src 'none'; script-src 'nonce-{nonce}' 'strict-dynamic' 'wasm-unsafe-eval'; style-src 'self' \
                 'nonce-{nonce}'; img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'self'; \
                 base-uri 'none'; frame-ancestors 'none'"
            )
        );
        assert!(reply.body.contains(&format!("nonce=\"{nonce}\"")), "{path}");
        nonces.push(nonce);
    }
    assert_ne!(nonces[0], nonces[1], "a nonce is used once");
}

#[tokio::test]
async fn a_file_is_sent_as_it_was_compressed_and_only_once() {
    let house = House::build(Plan::default());
    let ask = |headers: &[(&str, &str)]| {
        let mut request = request(Method::GET, "/pkg/xverse-chat.css");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        house.ask(request.body(Body::empty()).unwrap())
    };
    let compressed = ask(&[("accept-encoding", "gzip, br")]).await;
    assert_eq!((compressed.header("content-encoding"), compressed.body.as_str()), ("br", "as brotli"));
    assert_eq!(compressed.header("cache-control"), "no-cache");
    assert_eq!(compressed.header("vary"), "accept-encoding");
    let plain = ask(&[]).await;
    assert_eq!((plain.header("content-encoding"), plain.body.as_str()), ("", "body { color: black }"));
    let again = ask(&[("if-modified-since", plain.header("last-modified"))]).await;
    assert_eq!((again.status.as_u16(), again.body.as_str()), (304, ""));
    assert_eq!(again.header("cache-control"), "no-cache");
}

#[tokio::test]
async fn nothing_outside_the_pages_folder_is_served() {
    let house = House::build(Plan::default());
    assert_eq!(house.get("/pkg/xverse-chat.css").await.status, 200);
    for path in [
        "/Leptos.toml",
        "/Cargo.toml",
        "/.git/HEAD",
        "/pkg/../../Cargo.toml",
        "/pkg/%2e%2e/%2e%2e/Cargo.toml",
        "/..%2fCargo.toml",
        "/pkg/..%5c..%5cCargo.toml",
        "//etc/passwd",
        "/%00",
    ] {
        let reply = house.get(path).await;
        assert!(reply.status == 404 || reply.status == 400, "{path} is {}", reply.status);
        assert!(!reply.body.contains("[package]") && !reply.body.contains("root:"), "{path}");
    }
}

#[tokio::test]
async fn event_streams_are_not_compressed_and_not_gathered() {
    let house = House::build(Plan::default());
    let id = generation(&house.started(&say("hello")).await);
    let request = request(Method::GET, &format!("/generations/{id}/events")).header("accept-encoding", "gzip, br");
    let reply = house.ask(request.body(Body::empty()).unwrap()).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-encoding"), "");
    assert_eq!(reply.header("x-accel-buffering"), "no");
    assert!(reply.body.starts_with("id: "), "{}", reply.body);
}

#[tokio::test]
async fn health_and_readiness_are_two_things() {
    let loading = House::build(Plan { is_loaded: false, ..Plan::default() });
    assert_eq!(loading.get("/healthz").await.status, 200);
    let reply = loading.get("/readyz").await;
    assert_refused(&reply, 503, ErrorCode::ModelLoading);
    assert!(!reply.header("retry-after").is_empty());
    let data: PageData = loading.post("/api/page", &json!({ "conversation": null })).await.read();
    assert_eq!((data.title.as_str(), data.engine), ("A title", EngineStatus::Loading));

    let ready = House::build(Plan::default());
    assert_eq!(ready.get("/readyz").await.status, 200);
    let data: PageData = ready.post("/api/page", &json!({ "conversation": null })).await.read();
    assert!(matches!(data.engine, EngineStatus::Ready { running: 0, waiting: 0, .. }));
}

#[tokio::test]
async fn the_metrics_count_what_the_engine_did() {
    let house = House::build(Plan::default());
    house.whole(generation(&house.started(&say("hello")).await)).await;
    let reply = house.get("/metrics").await;
    assert_eq!(reply.status, 200);
    let value = |name: &str| {
        let line =
            reply.body.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_else(|| panic!("{name}"));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert_eq!(value("xverse_requests_submitted_total"), 1.0);
    assert!(value("xverse_generated_tokens_total") >= 40.0);
    assert_eq!(value("xverse_generations_total{reason=\"end_of_text\",source=\"page\"}"), 1.0);
    assert_eq!(value("xverse_first_token_seconds_count"), 1.0);
    assert_eq!(value("xverse_event_streams"), 0.0, "the reader has gone");
    assert_eq!(value("xverse_start_time_seconds"), house.server.started_ms as f64 / 1e3);
    assert!(!reply.body.contains("upstream"));
    assert!(reply.body.ends_with("# EOF\n"));
}
