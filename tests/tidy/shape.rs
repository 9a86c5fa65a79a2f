//! How a file looks: what may not occur in it, and how long it may be.

use crate::{Finding, source::Source};

const MOST_LINES: usize = 600;

/// Where messages get the time that people are shown.
const CALENDAR: &str = "src/server/clock.rs";

pub fn no_html_strings(source: &Source) -> Vec<Finding> {
    let names = ["inner_html", "set_inner_html", "outer_html", "set_outer_html", "insert_adjacent_html"];
    let mend = "make nodes of the typed blocks in chat::markup; a string of HTML would have to be trusted";
    let found = |name: &str| {
        source.words(name).into_iter().map(|at| (source.line_at(at), format!("`{name}`"))).collect::<Vec<_>>()
    };
    let all = names.iter().flat_map(|name| found(name));
    all.map(|(line, found)| Finding { line, rule: "no html strings", found, mend }).collect()
}

pub fn no_mod_rs(source: &Source) -> Vec<Finding> {
    if !source.path.ends_with("/mod.rs") {
        return Vec::new();
    }
    let mend = "call it foo.rs beside the folder foo/";
    vec![Finding { line: 1, rule: "no mod.rs", found: "a file named mod.rs".to_owned(), mend }]
}

pub fn no_reexports(source: &Source) -> Vec<Finding> {
    let is_public_use = |line: &str| {
        let Some(rest) = line.trim_start().strip_prefix("pub") else { return false };
        let rest = if rest.starts_with('(') { rest.split_once(')').map_or(rest, |(_, rest)| rest) } else { rest };
        rest.trim_start().starts_with("use ") && rest.starts_with(' ')
    };
    let mend = "name the thing where it lives: one way to name a thing";
    let lines = source.lines().filter(|(_, line)| is_public_use(line));
    lines.map(|(line, text)| Finding { line, rule: "no re-exports", found: text.trim().to_owned(), mend }).collect()
}

pub fn every_module_says_what_it_is(source: &Source) -> Vec<Finding> {
    let first = source.text.lines().next().unwrap_or_default();
    if first.starts_with("//! ") || first.starts_with("#![doc = include_str!(") {
        return Vec::new();
    }
    let mend = "open with `//!`: what it owns, what it does not know, one invariant";
    vec![Finding { line: 1, rule: "module doc", found: format!("it opens with `{first}`"), mend }]
}

pub fn files_are_short(source: &Source) -> Vec<Finding> {
    // Tests beside the code do not count; a file of tests does, as a whole.
    let counted = match source.first_test_line() {
        1 => source.text.lines().count(),
        first => first - 1,
    };
    if counted <= MOST_LINES {
        return Vec::new();
    }
    let found = format!("{counted} lines, at most {MOST_LINES} expected");
    let mend = "find the second noun in it and give that a file";
    vec![Finding { line: counted, rule: "file length", found, mend }]
}

pub fn no_test_is_left_out(source: &Source) -> Vec<Finding> {
    let mend = "mend the test or remove it; one that needs a device skips with a printed reason";
    let ignored = source.lines().filter(|(_, line)| line.trim_start().starts_with("#[ignore"));
    ignored
        .map(|(line, text)| Finding { line, rule: "no ignored tests", found: text.trim().to_owned(), mend })
        .collect()
}

pub fn features_choose_modules_only(source: &Source) -> Vec<Finding> {
    if !source.path.starts_with("src/") || source.path == "src/lib.rs" {
        return Vec::new();
    }
    let lines: Vec<&str> = source.code.lines().collect();
    let chooses = |line: &str| {
        let names_cfg = ["#[cfg(", "#[cfg_attr(", "#![cfg(", "cfg!("].iter().any(|start| line.contains(start));
        names_cfg && line.contains("feature")
    };
    let at_a_module = |idx: usize| {
        let mut below = lines[idx..].iter().map(|line| line.trim()).filter(|line| !line.is_empty());
        below.find(|line| !line.starts_with("#[")).is_some_and(|line| {
            let line = line.strip_prefix("pub ").or_else(|| line.strip_prefix("pub(crate) ")).unwrap_or(line);
            line.starts_with("mod ") && line.ends_with(';')
        })
    };
    let mend = "choose the module by feature, and let the two modules offer the same functions";
    let wrong =
        lines.iter().enumerate().filter(|(idx, line)| chooses(line) && (line.contains("cfg!(") || !at_a_module(*idx)));
    wrong
        .map(|(idx, line)| Finding { line: idx + 1, rule: "features at modules", found: line.trim().to_owned(), mend })
        .collect()
}

pub fn tests_do_not_sleep(source: &Source) -> Vec<Finding> {
    let tests = source.first_test_line();
    let lines: Vec<&str> = source.code.lines().collect();
    let sleeps = |line: &str| {
        line.match_indices("sleep(").any(|(at, _)| {
            !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') && !line[..at].ends_with("fn ")
        })
    };
    // The helper that polls for a condition, and gives up at a deadline.
    let polls = |idx: usize| {
        let start = (0..=idx).rev().find(|&above| lines[above].contains("fn ")).unwrap_or(0);
        lines[start..=idx].iter().any(|line| line.contains("deadline"))
    };
    let mend = "wait for the condition with a deadline; only the helper that does so may sleep between looks";
    let wrong = lines.iter().enumerate().filter(|(idx, line)| idx + 1 >= tests && sleeps(line) && !polls(*idx));
    wrong
        .map(|(idx, line)| Finding { line: idx + 1, rule: "no sleeps in tests", found: line.trim().to_owned(), mend })
        .collect()
}

/// Whatever measures or bounds a time goes by the monotonic clock, which nobody can set.
pub fn the_clock_that_can_be_set_is_asked_in_one_place(source: &Source) -> Vec<Finding> {
    let asked = source.words("SystemTime").into_iter().filter(|at| source.code[*at..].starts_with("SystemTime::now"));
    let allowed = usize::from(source.path == CALENDAR);
    let elsewhere = asked.filter(|_| source.path.starts_with("src/")).skip(allowed);
    let mend = "measure with Instant; what is kept gets its time from server::clock";
    elsewhere
        .map(|at| Finding {
            line: source.line_at(at),
            rule: "one calendar",
            found: "`SystemTime::now`".to_owned(),
            mend,
        })
        .collect()
}

pub fn no_globs(source: &Source) -> Vec<Finding> {
    let tests = source.first_test_line();
    let mend =
        "name what is used; only leptos::prelude::* is taken whole, and by tests super::* and proptest::prelude::*";
    let mut findings = Vec::new();
    for (at, _) in source.code.match_indices("::*") {
        let line = source.line_at(at);
        let statement = &source.code[source.code[..at].rfind(';').map_or(0, |end| end + 1)..at];
        let Some(used) = statement.rfind("use ").map(|at| &statement[at + 4..]) else { continue };
        let of_leptos = used.starts_with("leptos::") && used.ends_with("prelude") && !used.contains('}');
        let of_tests = line >= tests && matches!(used, "super" | "proptest::prelude");
        if !of_leptos && !of_tests {
            findings.push(Finding { line, rule: "no globs", found: format!("`{}::*`", used.trim()), mend });
        }
    }
    findings
}
