//! The `chat` subcommand: what is piped in is answered as the library answers it, what is refused is said and leaves the rest
//! alone, and in a terminal Ctrl-C stops an answer and nothing else.

use std::{
    fs::File,
    io::{Read, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Instant,
};

use serde_json::{Value, json};
use xverse_chat::{
    chat::settings::Settings,
    engine::{ChatOptions, Engine, prompt::Turn},
};

use crate::{
    process::{LONG, TIME, ended, signal},
    program::{Ended, Program},
};

const PIRATE: &str = "你是一位爱说笑话的海盗船长，每句话都以“哟嗬”开头。";
const CHAT: [&str; 3] = ["chat", "--model_path=model", "--temperature=0"];

/// The program with the mini model beside it, at a pace that leaves time to act where that is not 0.
fn program(min_step_ms: u64) -> Program {
    let program = Program::new();
    program.settings(&format!("[engine]\nmin_step_ms = {min_step_ms}\n"));
    program.model(json!({}));
    program
}

fn pipe(program: &Program, more: &[&str], input: &[u8]) -> Ended {
    let path = program.path("input");
    std::fs::write(&path, input).unwrap();
    let mut command = program.command(&[CHAT.as_slice(), more].concat());
    command.stdin(File::open(path).unwrap());
    Program::ended(command, Instant::now() + TIME)
}

/// What the library says to the last of these turns.
fn library(turns: &[Turn]) -> String {
    let engine = Engine::load(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/xverse-mini")).unwrap();
    let settings = Settings { temperature: Some(0.0), ..Settings::default() };
    let answer = engine.chat_with(turns, &ChatOptions { settings, ..ChatOptions::default() }).unwrap();
    answer.map(|token| token.text).collect()
}

/// The same for questions that are asked one after the other.
fn answers(system: Option<&str>, questions: &[&str]) -> Vec<String> {
    let mut turns: Vec<_> = system.map(Turn::system).into_iter().collect();
    let answer = |question: &&str| {
        turns.push(Turn::user(*question));
        let text = library(&turns);
        turns.push(Turn::assistant(&text));
        text
    };
    questions.iter().map(answer).collect()
}

fn saved(program: &Program, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(program.path(name)).unwrap()).unwrap()
}

/// What a process says, as it comes.
struct Said {
    parts: Receiver<Vec<u8>>,
    so_far: Vec<u8>,
    /// All of it, what was waited for included.
    all: Vec<u8>,
}

impl Said {
    fn by(mut output: impl Read + Send + 'static) -> Self {
        let (sender, parts) = mpsc::channel();
        thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(n @ 1..) = output.read(&mut part)
                && sender.send(part[..n].to_vec()).is_ok()
            {}
        });
        Self { parts, so_far: Vec::new(), all: Vec::new() }
    }

    /// Waits until this has been said, after what was waited for before.
    fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + TIME;
        let found = |bytes: &[u8]| bytes.windows(text.len()).position(|window| window == text.as_bytes());
        let at = loop {
            if let Some(at) = found(&self.so_far) {
                break at;
            }
            let part = self.parts.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let said = || String::from_utf8_lossy(&self.so_far);
            let part = part.unwrap_or_else(|error| panic!("waiting for {text:?}: {error} after {:?}", said()));
            self.all.extend(&part);
            self.so_far.extend(part);
        };
        self.so_far.drain(..at + text.len());
    }
}

#[test]
fn two_lines_are_two_turns_answered_as_the_library_does() {
    let program = program(0);
    let expected = answers(None, &["你好", "你是谁？"]);
    let ended = pipe(&program, &[], "你好\n\n你是谁？".as_bytes());
    assert_eq!((ended.status, ended.stdout), (0, format!("{}\n{}\n", expected[0], expected[1])));
    assert_eq!(ended.stderr, "");
    let whole = pipe(&program, &["--whole_input"], "你好\n你是谁？\n/reset\n".as_bytes());
    assert_eq!((whole.status, whole.stdout), (0, library(&[Turn::user("你好\n你是谁？\n/reset")]) + "\n"));
}

#[test]
fn without_settings_and_without_a_model_the_mini_model_answers_and_it_is_said() {
    let program = program(0);
    std::fs::remove_file(program.path("Leptos.toml")).unwrap();
    std::fs::create_dir(program.path("models")).unwrap();
    std::fs::rename(program.path("model"), program.path("models/xverse-mini")).unwrap();
    std::fs::write(program.path("input"), "你好\n").unwrap();
    let mut command = program.command(&["chat", "--temperature=0", "--threads=1", "--kv-memory=0.1"]);
    command.stdin(File::open(program.path("input")).unwrap());
    let ended = Program::ended(command, Instant::now() + TIME);
    assert_eq!((ended.status, ended.stdout), (0, answers(None, &["你好"]).concat() + "\n"));
    assert!(ended.stderr.contains("this is the mini model"), "{}", ended.stderr);
}

#[test]
fn commands_change_what_is_answered_and_saved() {
    let program = program(0);
    let pirate = answers(Some(PIRATE), &["你好", "今天去哪里？"]);
    let plain = answers(None, &["你好"]).concat();
    assert_ne!(pirate[0], plain);
    let input = format!(
        "你好\n/reset\n/system {PIRATE}\n你好\n今天去哪里？\n/save a.json\n/save a.md\n/system\n/reset\n你好\n/save a.json\n"
    );
    let ended = pipe(&program, &["--seed=1"], input.as_bytes());
    assert_eq!((ended.status, &*ended.stdout), (0, &*format!("{plain}\n{}\n{}\n{plain}\n", pirate[0], pirate[1])));
    for word in ["new conversation", "system prompt holds", "saved to a.md", "no system prompt"] {
        assert!(ended.stderr.contains(word), "{word}: {}", ended.stderr);
    }
    let expected = json!({ "title": "你好", "model": "model", "system": "",
        "messages": [{ "role": "user", "text": "你好" }, { "role": "assistant", "text": plain }] });
    assert_eq!(saved(&program, "a.json"), expected);
    let markdown = std::fs::read_to_string(program.path("a.md")).unwrap();
    let expected = format!("# 你好\n\n## System\n\n{PIRATE}\n\n## User\n\n你好\n\n## model\n\n{}\n", pirate[0]);
    assert!(markdown.starts_with(&expected), "{markdown}");

    // A file that somebody else wrote stays.
    let ended = pipe(&program, &["--system", PIRATE], "你好\n/save a.md\n/save b.txt\n".as_bytes());
    ended.assert(65, &["line 2: a.md is there already", "line 3: b.txt is neither"]);
    assert_eq!(ended.stdout, format!("{}\n", pirate[0]));
    assert_eq!(std::fs::read_to_string(program.path("a.md")).unwrap(), markdown);
}

#[test]
fn what_is_refused_is_said_and_the_rest_is_answered() {
    let program = program(0);
    let long = "字".repeat(30_000);
    let input = [b"/nothing \x1b[2J\n\xff\xfe\n".as_slice(), long.as_bytes(), "\n你好\n".as_bytes()].concat();
    let ended = pipe(&program, &[], &input);
    ended.assert(
        65,
        &[
            "line 1: there is no command /nothing;",
            "line 2: not UTF-8 at byte 1",
            "90000 bytes",
            "not answered or carried out: 3",
        ],
    );
    assert!(!ended.stderr.contains('\u{1b}'), "{}", ended.stderr);
    assert_eq!(ended.stdout, answers(None, &["你好"]).concat() + "\n");
    let fits_no_context = pipe(&program, &[], format!("{}\n你好\n", "龘".repeat(5_000)).as_bytes());
    fits_no_context.assert(65, &["line 1: the message has", "tokens, at most"]);
    assert_eq!(fits_no_context.stdout, ended.stdout);
}

#[test]
fn settings_and_system_prompts_that_cannot_be_are_refused_before_anything_is_answered() {
    let program = program(0);
    for (flags, words) in [
        (["--temperature=3", "--seed=1"], ["temperature is 3", "0 to 2"]),
        (["--max_new_tokens=5000", "--seed=1"], ["max_new_tokens is 5000", "1 to 4095"]),
        (["--prompt_format=v1", "--system=x"], ["no system prompt", "--system"]),
        (["--model_path=/no/such/model", "--seed=1"], ["/no/such/model", "hint"]),
    ] {
        let flags: Vec<_> = ["chat"].into_iter().chain(flags).collect();
        let with_model =
            if flags[1].starts_with("--model_path") { flags } else { [flags, vec!["--model_path=model"]].concat() };
        let mut command = program.command(&with_model);
        command.stdin(Stdio::null());
        let ended = Program::ended(command, Instant::now() + TIME);
        ended.assert(78, &words);
        assert_eq!(ended.stdout, "");
    }
    let ended = pipe(&program, &["--prompt_format=v1"], b"/system x\n");
    ended.assert(65, &["line 1: this model's prompt format has no system prompt"]);
}

#[test]
fn old_rounds_that_no_longer_fit_are_told() {
    let program = program(0);
    // Holds a little more than 200 tokens.
    let input = "Where can I find books about stars?\n".repeat(8);
    let ended = pipe(&program, &["--kv_memory=0.0004", "--kv_dtype=bf16", "--max_new_tokens=60"], input.as_bytes());
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("left out of the prompt"), "{}", ended.stderr);
}

#[test]
fn an_interrupt_stops_the_answer_and_keeps_what_was_said() {
    let program = program(20);
    let mut command = program.command(&CHAT);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (mut input, mut said) = (child.stdin.take().unwrap(), Said::by(child.stdout.take().unwrap()));
    writeln!(input, "{LONG}").unwrap();
    said.wait_for(&library(&[Turn::user(LONG)]).chars().take(8).collect::<String>());
    signal(&child, "INT");
    writeln!(input, "你好\n/save talk.json").unwrap();
    said.wait_for("\n");
    let deadline = Instant::now() + TIME;
    while !program.path("talk.json").exists() {
        assert!(Instant::now() < deadline, "it goes on");
        thread::yield_now();
    }
    // Between answers it is the end.
    signal(&child, "INT");
    assert_eq!(ended(&mut child), Some(0));
    let talk = saved(&program, "talk.json");
    let text = |at: usize| talk["messages"][at]["text"].as_str().unwrap();
    let (whole, stopped) = (library(&[Turn::user(LONG)]), text(1));
    assert!(whole.starts_with(stopped) && stopped.len() < whole.len(), "{stopped}");
    assert_eq!(text(3), library(&[Turn::user(LONG), Turn::assistant(stopped), Turn::user("你好")]));
}

#[test]
fn it_ends_quietly_where_nobody_reads_on() {
    let program = program(5);
    let mut command = program.command(&CHAT);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "{LONG}").unwrap();
    let mut output = child.stdout.take().unwrap();
    output.read_exact(&mut [0]).unwrap();
    drop(output);
    assert_eq!(ended(&mut child), Some(0));
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(stderr, "");
}

/// The program in a terminal.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    said: Said,
}

impl Terminal {
    /// One of this kind, once it waits for the first line.
    fn of(program: &Program, term: &str, more: &[&str]) -> Self {
        // A shell that stays in between would take an interrupt for its own and end with 130.
        let flags = [CHAT.as_slice(), more].concat().join(" ");
        let line = format!("exec '{}' {flags}", env!("CARGO_BIN_EXE_xverse-chat"));
        // Gives the program a terminal, and passes on what is typed.
        let mut terminal = Command::new("script");
        terminal.args(["-qfec", &line, "/dev/null"]).current_dir(program.path("")).env("TERM", term);
        let mut child = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (keys, mut said) = (child.stdin.take().unwrap(), Said::by(child.stdout.take().unwrap()));
        said.wait_for("> ");
        Self { child, keys, said }
    }

    /// Waits until this is said, and for the next line's mark.
    fn says(&mut self, text: &str) {
        self.said.wait_for(text);
        self.said.wait_for("> ");
    }

    fn types(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).unwrap();
    }

    /// Ctrl-D at an empty line is its end.
    fn ends(&mut self) {
        self.types("\u{4}");
        assert_eq!(ended(&mut self.child), Some(0));
    }
}

#[test]
fn a_mark_of_byte_order_before_what_is_piped_in_changes_nothing() {
    let program = program(0);
    let expected = answers(None, &["你好"]).concat() + "\n";
    for more in [[].as_slice(), &["--whole_input"]] {
        let ended = pipe(&program, more, "\u{feff}你好\n".as_bytes());
        assert_eq!((ended.status, ended.stdout, ended.stderr.as_str()), (0, expected.clone(), ""), "{more:?}");
    }
}

#[test]
fn what_is_typed_ahead_is_read_line_by_line() {
    let program = program(20);
    let mut terminal = Terminal::of(&program, "xterm", &["--max_new_tokens=48"]);
    terminal.types("/one\r/two\r/three\r");
    for name in ["one", "two", "three"] {
        terminal.said.wait_for(&format!("there is no command /{name};"));
    }
    terminal.said.wait_for("> ");
    terminal.types(&format!("{LONG}\r"));
    terminal.said.wait_for(&library(&[Turn::user(LONG)]).chars().take(8).collect::<String>());
    terminal.types("/four\r/five\r/save talk.json\r");
    terminal.said.wait_for("tokens/s, cut off");
    for told in ["there is no command /four;", "there is no command /five;", "saved to talk.json", "> "] {
        terminal.said.wait_for(told);
    }
    assert_eq!(saved(&program, "talk.json")["messages"][0]["text"], LONG);
    terminal.ends();
}

#[test]
fn a_terminal_that_obeys_nothing_is_told_nothing_but_text() {
    let program = program(0);
    let mut terminal = Terminal::of(&program, "dumb", &[]);
    terminal.types("你好\r");
    terminal.says("tokens/s, complete");
    terminal.ends();
    let said = &terminal.said.all;
    assert!(!said.contains(&0x1b), "{:?}", String::from_utf8_lossy(said));
}

#[test]
fn in_a_terminal_ctrl_c_stops_an_answer_and_ctrl_d_ends() {
    let program = program(20);
    let mut terminal = Terminal::of(&program, "xterm", &[]);
    terminal.types("/nope\r");
    terminal.says("there is no command /nope;");
    terminal.types("\u{3}");
    terminal.says("Ctrl-D ends the conversation");
    terminal.types("thrown away\u{3}");
    terminal.said.wait_for("> ");
    terminal.types(&format!("{LONG}\r"));
    let whole = library(&[Turn::user(LONG)]);
    terminal.said.wait_for(&whole.chars().take(8).collect::<String>());
    terminal.types("\u{3}");
    terminal.says("tokens/s, stopped");
    terminal.types("/save talk.json\r");
    terminal.says("saved to talk.json");
    let talk = saved(&program, "talk.json");
    assert_eq!(talk["messages"][0]["text"], LONG);
    let stopped = talk["messages"][1]["text"].as_str().unwrap();
    assert!(whole.starts_with(stopped) && stopped.len() < whole.len(), "{stopped}");
    // The line before.
    terminal.types("\u{1b}[A\r");
    terminal.says("saved to talk.json");
    terminal.types("你好\r");
    terminal.says("tokens/s, complete");
    terminal.ends();
}
