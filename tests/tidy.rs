//! The house rules as a test: which room may know which, what stands only where, how a file looks.
//!
//! Owns the tables below and nothing else; reads the source as text and compiles none of it.
//! Invariant: every rule is shown to catch an example, so that none of them can pass by being blind.

#[path = "tidy/examples.rs"]
mod examples;
#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/shape.rs"]
mod shape;
#[path = "tidy/source.rs"]
mod source;

use std::fmt::Write;

use source::Source;

/// Something that breaks a rule.
#[derive(Debug)]
struct Finding {
    line: usize,
    rule: &'static str,
    found: String,
    mend: &'static str,
}

type Rule = fn(&Source) -> Vec<Finding>;

const RULES: &[Rule] = &[
    layers::rooms_know_only_what_is_below,
    layers::rooms_are_named_from_the_root,
    layers::libraries_stay_in_their_room,
    shape::no_html_strings,
    shape::no_mod_rs,
    shape::no_reexports,
    shape::every_module_says_what_it_is,
    shape::files_are_short,
    shape::no_test_is_left_out,
    shape::features_choose_modules_only,
    shape::tests_do_not_sleep,
    shape::the_clock_that_can_be_set_is_asked_in_one_place,
    shape::no_globs,
];

fn findings(source: &Source) -> Vec<Finding> {
    RULES.iter().flat_map(|rule| rule(source)).collect()
}

#[test]
fn the_source_keeps_the_house_rules() {
    let sources = source::all();
    let rooms = sources.iter().filter(|source| source.room().is_some()).count();
    assert!(rooms > 50, "only {rooms} files of the rooms were found: the test looks in the wrong place");
    let mut report = String::new();
    for source in &sources {
        for Finding { line, rule, found, mend } in findings(source) {
            let _ = writeln!(report, "{}:{line}: {rule}: {found}\n    {mend}", source.path);
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

#[test]
fn every_rule_catches_its_example() {
    let mut examples: Vec<_> = examples::ALL.iter().map(|e| (Source::new(e.path, e.text), e.caught)).collect();
    examples.extend(examples::long_files().map(|(text, caught)| (Source::new("src/chat/long.rs", &text), caught)));
    for (source, expected) in &examples {
        let caught: Vec<_> = findings(source).into_iter().map(|finding| (finding.rule, finding.line)).collect();
        assert_eq!(caught, *expected, "in {}:\n{}", source.path, source.text);
    }
    let blind = RULES.iter().position(|rule| examples.iter().all(|(source, _)| rule(source).is_empty()));
    assert_eq!(blind, None, "the rule at this index of RULES catches none of the examples");
}
