//! What each rule must catch, and what looks alike and is right.

/// A made-up file, with the rules it breaks and the lines where.
pub struct Example {
    pub path: &'static str,
    pub text: &'static str,
    pub caught: &'static [(&'static str, usize)],
}

const fn example(path: &'static str, text: &'static str, caught: &'static [(&'static str, usize)]) -> Example {
    Example { path, text, caught }
}

pub const ALL: &[Example] = &[
    example("src/engine/kv.rs", "//! Owns.\nuse crate::chat::limits;\nuse crate::engine::config;\n", &[]),
    example("src/engine/kv.rs", "//! Owns.\nuse crate::server::config;\n", &[("layers", 2)]),
    example(
        "src/engine/kv.rs",
        "//! Owns.\nuse crate::{\n    chat,\n    engine::{a, storage},\n    storage::b,\n};\n",
        &[("layers", 5)],
    ),
    example("src/storage.rs", "//! Owns.\nfn f() {\n    crate::engine::g();\n}\n", &[("layers", 3)]),
    example("src/chat/ids.rs", "//! Owns.\nuse crate::{api, app::store::Store};\n", &[("layers", 2), ("layers", 2)]),
    example("src/app/page.rs", "//! Owns.\nuse crate::server;\n", &[("layers", 2)]),
    example(
        "src/api.rs",
        "//! Owns.\nfn f() {\n    crate::server::service::page();\n    crate::server::router::f();\n}\n",
        &[("layers", 4)],
    ),
    example("src/server/run.rs", "//! Owns.\nuse crate::app::{shell::shell, store::Store};\n", &[("layers", 2)]),
    example("src/cellar.rs", "//! Owns.\n", &[("layers", 1)]),
    example(
        "src/engine/kv.rs",
        "//! Owns `crate::server`.\n// crate::server\nconst A: &str = \"crate::server\"; // crate::server\n",
        &[],
    ),
    example("src/engine.rs", "//! Owns.\nuse super::server::config;\n", &[("rooms from the root", 2)]),
    example("src/server/run.rs", "//! Owns.\nuse candle_core::Tensor;\n", &[("libraries", 2)]),
    example(
        "src/engine/kv.rs",
        "//! Owns.\nuse axum::Router;\nfn f(a: web_sys::Window) {}\n",
        &[("libraries", 2), ("libraries", 3)],
    ),
    example("src/app/scroll.rs", "//! Owns.\nuse leptos::web_sys::Element;\nuse web_sys::Window;\n", &[]),
    example("src/server/db.rs", "//! Owns.\nuse rusqlite::Connection;\n", &[("libraries", 2)]),
    example("src/chat/ids.rs", "//! Owns.\nuse leptos::prelude::*;\n", &[("libraries", 2)]),
    example("tests/server.rs", "//! Owns.\nuse candle_core::Tensor;\n", &[]),
    example("src/app/page.rs", "//! Owns.\n// inner_html\nview! { <p inner_html=x/> }\n", &[("no html strings", 3)]),
    example("src/engine/mod.rs", "//! Owns.\n", &[("no mod.rs", 1)]),
    example(
        "src/chat.rs",
        "//! Owns.\npub mod use_case;\npub use ids::Id;\n    pub(crate) use ids::Id;\n",
        &[("no re-exports", 3), ("no re-exports", 4)],
    ),
    example("src/chat/ids.rs", "// Owns.\n", &[("module doc", 1)]),
    example("src/lib.rs", "#![doc = include_str!(\"ARCHITECTURE.md\")]\n", &[]),
    example("tests/server.rs", "//! Owns.\n#[test]\n#[ignore = \"slow\"]\nfn f() {}\n", &[("no ignored tests", 3)]),
    example("src/app.rs", "//! Owns.\n#[cfg(feature = \"ssr\")]\n#[path = \"a.rs\"]\nmod platform;\n", &[]),
    example(
        "src/app.rs",
        "//! Owns.\n#[cfg(feature = \"ssr\")]\nfn f() {}\nfn g() {\n    if cfg!(feature = \"ssr\") {}\n}\n#[cfg(test)]\nfn h() {}\n",
        &[("features at modules", 2), ("features at modules", 5)],
    ),
    example(
        "tests/server.rs",
        "//! Owns.\nfn f() {\n    std::thread::sleep(A);\n    fn sleep() {}\n}\n",
        &[("no sleeps in tests", 3)],
    ),
    example("tests/server.rs", "//! Owns.\nfn until(deadline: Instant) {\n    tokio::time::sleep(A).await;\n}\n", &[]),
    example(
        "src/engine/run.rs",
        "//! Owns.\nfn f() {\n    sleep(A);\n}\n\n#[cfg(test)]\nmod tests {\n    fn g() {\n        sleep(A);\n    }\n}\n",
        &[("no sleeps in tests", 9)],
    ),
    example(
        "src/server/clock.rs",
        "//! Owns.\nuse std::time::{Instant, SystemTime};\nfn f() {\n    SystemTime::now();\n}\nfn g() {\n    SystemTime::now();\n}\n",
        &[("one calendar", 7)],
    ),
    example("src/engine/kv.rs", "//! Owns.\nfn f() {\n    std::time::SystemTime::now();\n}\n", &[("one calendar", 3)]),
    example(
        "src/app.rs",
        "//! Owns.\nuse leptos::{ev, prelude::*, task::spawn_local};\nfn f(a: &'static str) -> char { '\"' }\nuse b::*;\n",
        &[("no globs", 4)],
    ),
    example(
        "src/chat.rs",
        "//! Owns.\nuse super::*;\n\n#[cfg(test)]\nmod tests {\n    use super::*;\n    use std::io::*;\n}\n",
        &[("no globs", 2), ("no globs", 7)],
    ),
    example(
        "src/chat.rs",
        "//! Owns.\n/* use a::*; /* */ */\nconst A: &str = r#\"\"use b::*;\"#;\nuse c::*;\n",
        &[("no globs", 4)],
    ),
];

/// A file of one line too many, and one whose tests alone make it long.
pub fn long_files() -> [(String, &'static [(&'static str, usize)]); 2] {
    let code = "const A: u8 = 0;\n";
    let long = format!("//! Owns.\n{}", code.repeat(600));
    let tested = format!("//! Owns.\n{}#[cfg(test)]\nmod tests {{\n{}}}\n", code.repeat(599), code.repeat(600));
    [(long, &[("file length", 601)]), (tested, &[])]
}
