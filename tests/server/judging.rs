//! The `perplexity` subcommand as a process: nothing of anybody's is lost by what it keeps, and nothing half written stays.

use std::{
    fs,
    process::{Command, Stdio},
    time::Instant,
};

use serde_json::Value;

use crate::{
    process::{TIME, ended, signal},
    program::{Ended, Program},
};

const TEXT: &str = "Where can I find books about stars? You can find them in the library.\n";
const JUDGE: [&str; 4] = ["perplexity", "text.txt", "--model_path=model", "--threads=1"];

fn program(text: &str) -> Program {
    let program = Program::new();
    program.model(serde_json::json!({}));
    fs::write(program.path("text.txt"), text).unwrap();
    program
}

fn judged(program: &Program, more: &[&str]) -> Ended {
    Program::ended(program.command(&[JUDGE.as_slice(), more].concat()), Instant::now() + TIME)
}

#[test]
fn what_is_in_the_way_of_a_run_or_a_report_stays_as_it_is() {
    let program = program(TEXT);
    fs::write(program.path("notes"), "mine").unwrap();
    std::os::unix::fs::symlink(program.path("notes"), program.path("link")).unwrap();
    assert!(Command::new("mkfifo").arg(program.path("pipe")).status().unwrap().success());
    for (flags, words) in [
        (["--save=notes"].as_slice(), "notes is there already and is another file"),
        (&["--save=text.txt"], "text.txt is there already and is the text itself"),
        (&["--save=link"], "link is there already and is a link"),
        (&["--save=pipe"], "pipe is there already and is no regular file"),
        (&["--json=text.txt"], "text.txt is the text"),
        (&["--json=./text.txt"], "text.txt is the text"),
        (&["--json=model"], "model is a folder"),
        (&["--save=run", "--json=run"], "run is --save's"),
    ] {
        judged(&program, flags).assert(78, &[words]);
    }
    assert_eq!(fs::read_to_string(program.path("text.txt")).unwrap(), TEXT);
    assert_eq!(fs::read_to_string(program.path("notes")).unwrap(), "mine");
    assert!(program.path("link").is_symlink() && !program.path("run").exists());
    assert!(program.path("pipe").exists() && !program.path("pipe").is_file());

    // What it wrote itself is written anew; what is no file is written to.
    for _ in 0..2 {
        let ended = judged(&program, &["--save=run", "--json=report.json"]);
        assert_eq!(ended.status, 0, "{}", ended.stderr);
    }
    let ended = judged(&program, &["--compare=run", "--json=/dev/stdout"]);
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    let mut values = serde_json::Deserializer::from_str(&ended.stdout).into_iter::<Value>();
    assert_eq!(values.next().unwrap().unwrap()["comparison"]["agreement"], 1.0);
}

#[test]
fn told_to_end_it_leaves_nothing_half_written() {
    let program = program(&TEXT.repeat(2_000));
    for (name, status) in [("INT", 130), ("TERM", 143)] {
        let mut command = program.command(&[JUDGE.as_slice(), &["--save=run"]].concat());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let deadline = Instant::now() + TIME;
        while !program.path("run.partial").exists() {
            assert!(child.try_wait().unwrap().is_none() && Instant::now() < deadline, "it keeps nothing");
            std::thread::yield_now();
        }
        signal(&child, name);
        assert_eq!(ended(&mut child), Some(status));
        assert!(!program.path("run.partial").exists() && !program.path("run").exists(), "{name}");
    }
}
