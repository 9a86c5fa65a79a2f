//! Who may know whom: the rooms among each other, and the libraries by room.
//!
//! Knows names, not types: what a room learns through a type it was handed is no import.

use crate::{Finding, source::Source};

/// A room, and what it may name of the others: a whole room, or one module of it.
const ROOMS: &[(&str, &[&str])] = &[
    ("chat", &[]),
    // Each body of a command is one call into the service.
    ("api", &["chat", "server::service"]),
    ("app", &["api", "chat"]),
    ("render", &["chat"]),
    ("engine", &["chat"]),
    ("storage", &["chat"]),
    // The page is drawn on the server first.
    (
        "server",
        &["api", "app::address", "app::page", "app::preferences", "app::shell", "chat", "engine", "render", "storage"],
    ),
];

/// Libraries, and the places under `src/` that may name them.
const LIBRARIES: &[(&[&str], &[&str])] = &[
    (
        &["candle_core", "candle_nn", "candle_transformers", "memmap2", "rayon", "safetensors", "tokenizers"],
        &["src/engine"],
    ),
    // While the server draws the page, the page's platform reads the request and sets the response's status.
    (&["axum", "http", "leptos_axum"], &["src/server", "src/app/platform/server.rs"]),
    (
        &[
            "any_spawner",
            "clap",
            "hyper",
            "hyper_util",
            "prometheus_client",
            "socket2",
            "subtle",
            "toml",
            "tower",
            "tower_http",
        ],
        &["src/server"],
    ),
    // The engine's thread is reached through channels.
    (&["tokio"], &["src/server", "src/engine/worker", "src/engine/remote"]),
    (&["reqwest", "rustls"], &["src/engine/remote"]),
    (&["console_error_panic_hook", "js_sys", "wasm_bindgen", "web_sys"], &["src/app", "src/lib.rs"]),
    (&["leptos"], &["src/api", "src/app", "src/server", "src/lib.rs"]),
    (&["comrak", "pulldown_latex", "syntect"], &["src/render"]),
    (&["rusqlite"], &["src/storage"]),
    (&["rustyline"], &["src/server/terminal"]),
    (&["etcetera", "subtle"], &["src/server"]),
];

const MEND_ROOM: &str =
    "move what is shared down to a room both may know, or hand it over as a value; see src/ARCHITECTURE.md";

pub fn rooms_know_only_what_is_below(source: &Source) -> Vec<Finding> {
    let Some(room) = source.room() else { return Vec::new() };
    let Some((_, known)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        let found = format!("src/{room} is no room of the house");
        let mend = "add it to ROOMS in tests/tidy/layers.rs with what it may know";
        return vec![Finding { line: 1, rule: "layers", found, mend }];
    };
    let allowed = |path: &str| {
        let within = |known: &&str| path == *known || path.starts_with(&format!("{known}::"));
        path.starts_with(&format!("{room}::")) || path == room || known.iter().any(within)
    };
    let mut findings = Vec::new();
    for (offset, path) in crate_paths(&source.code) {
        let other = path.split("::").next().unwrap_or_default();
        if ROOMS.iter().any(|(name, _)| *name == other) && !allowed(&path) {
            let found = format!("`{room}` names `crate::{path}`");
            findings.push(Finding { line: source.line_at(offset), rule: "layers", found, mend: MEND_ROOM });
        }
    }
    findings
}

/// `super::engine` would be a way around the rule above.
pub fn rooms_are_named_from_the_root(source: &Source) -> Vec<Finding> {
    let Some(room) = source.room() else { return Vec::new() };
    let others = ROOMS.iter().map(|(name, _)| *name).filter(|name| *name != room);
    let mut findings = Vec::new();
    for other in others {
        for offset in source.words(other) {
            if source.code[..offset].ends_with("super::") {
                let found = format!("`super::{other}`");
                let mend = "write crate:: where another room is meant, and give a module of your own another name";
                findings.push(Finding { line: source.line_at(offset), rule: "rooms from the root", found, mend });
            }
        }
    }
    findings
}

pub fn libraries_stay_in_their_room(source: &Source) -> Vec<Finding> {
    if !source.path.starts_with("src/") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (libraries, places) in LIBRARIES {
        let at_home = |place: &&str| {
            source.path == *place
                || source.path == format!("{place}.rs")
                || source.path.starts_with(&format!("{place}/"))
        };
        if places.iter().any(at_home) {
            continue;
        }
        for library in *libraries {
            for offset in source.words(library) {
                let before = source.code[..offset].trim_end();
                let is_root = !before.ends_with("::") || before.ends_with(['{', ',']);
                let is_path = source.code[offset + library.len()..].starts_with("::");
                let is_used = before.ends_with("use");
                if is_root && (is_path || is_used) {
                    let found = format!("`{library}` outside {}", places.join(", "));
                    let mend = "keep the library behind a type of the room it belongs to";
                    findings.push(Finding { line: source.line_at(offset), rule: "libraries", found, mend });
                }
            }
        }
    }
    findings
}

/// Every path that starts at the crate's root, groups taken apart: `crate::{a::b, c}` gives `a::b` and `c`.
fn crate_paths(code: &str) -> Vec<(usize, String)> {
    let mut paths = Vec::new();
    for (at, start) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        collect_paths(code, at + start.len(), "", &mut paths);
    }
    paths
}

/// Reads the path at `at`, and what stands in its braces; the offset behind it.
fn collect_paths(code: &str, mut at: usize, prefix: &str, paths: &mut Vec<(usize, String)>) -> usize {
    let start = at;
    let named = code[at..].find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':' || c == '*')).unwrap_or(0);
    at += named;
    let path = format!("{prefix}{}", code[start..at].trim_end_matches(':'));
    if !(code[at..].starts_with('{') && (named == 0 || code[..at].ends_with("::"))) {
        if !path.is_empty() {
            paths.push((start, path));
        }
        return at;
    }
    let prefix = if path.is_empty() { String::new() } else { format!("{path}::") };
    at += 1;
    while at < code.len() && !code[at..].starts_with('}') {
        if code[at..].starts_with(|c: char| c.is_alphanumeric() || c == '_') {
            at = collect_paths(code, at, &prefix, paths);
        } else {
            at += code[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    at + 1
}
