//! A hundred times killed at a random moment: what was acknowledged is there.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use xverse_chat::chat::{
    command::{ContinueCommand, SendCommand, Started},
    event::EndReason,
    ids::{ConversationId, MessageId, RequestId},
    info::{ConversationView, PageData},
    message::{AnswerState, MessageView},
};

use crate::{
    client::{SOMEBODY, as_json, cookie, say},
    program::Program,
};

const CYCLES: usize = 100;
/// The program is killed so long after its first request, at most.
const LONGEST_LIFE: Duration = Duration::from_millis(150);
/// Longer than anything here may take.
const TIME: Duration = Duration::from_secs(20);
/// Answered by the mini model with hundreds of tokens.
const LONG: &str = "Write a Python program that counts the words in a text file, and explain each part.";

/// The program while it runs; killed without warning when dropped.
struct Running {
    child: Child,
    address: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        // On Unix this is the signal that no program can catch.
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Running {
    fn start(program: &Program) -> Self {
        let mut command = program.command(&["--port=0", "--model_path=model", "--data_dir=kept"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let first = lines.next().expect("an address");
        let address = first.strip_prefix("listening on http://").unwrap().to_owned();
        assert!(lines.any(|line| line.starts_with("loaded")), "the model is loaded");
        Self { child, address }
    }

    fn page(&self, conversation: ConversationId) -> ConversationView {
        let page: PageData = post(&self.address, "/api/page", &json!({ "conversation": conversation })).unwrap();
        page.conversation.unwrap()
    }
}

/// Sends a command; `None` where the program was killed before all of the reply was there.
fn post<T: DeserializeOwned>(address: &str, path: &str, body: &impl Serialize) -> Option<T> {
    let body = serde_json::to_string(body).unwrap();
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(TIME)).ok()?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nCookie: {}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        cookie(SOMEBODY),
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok()?;
    let (head, body) = reply.split_once("\r\n\r\n")?;
    assert!(head.starts_with("HTTP/1.1 200"), "{reply}");
    serde_json::from_str(body).ok()
}

/// Numbers that look random and are the same in every run with the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// A message that the server said it has.
struct Acknowledged {
    conversation: ConversationId,
    message: MessageView,
    answer: MessageId,
}

/// Says one thing after another until the program is killed: first in the conversation that goes through all cycles.
fn talk(address: &str, chain: &SendCommand, acknowledged: &mpsc::Sender<Acknowledged>) {
    let mut command = chain.clone();
    for n in 0.. {
        let Some(started) = post::<Started>(address, "/api/send", &as_json(&command)) else { return };
        assert!(started.is_saved);
        let (message, answer) = (started.message.unwrap(), started.answer.id);
        acknowledged.send(Acknowledged { conversation: command.conversation, message, answer }).unwrap();
        command = say(&format!("{LONG} {n}"));
    }
}

fn is_whole(program: &Program) {
    let file = rusqlite::Connection::open(program.path("kept/conversations.db")).unwrap();
    let found: String = file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(found, "ok");
    let orphans: i64 = file
        .query_row(
            "SELECT count(*) FROM message m WHERE parent IS NOT NULL
             AND NOT EXISTS (SELECT 1 FROM message p WHERE p.id = m.parent AND p.number < m.number)",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(orphans, 0, "every message stands after the one that it follows");
}

/// Asserts that a message is there as it was acknowledged, and its answer over.
fn is_there(view: &ConversationView, known: &Acknowledged) {
    let find = |id| view.messages.iter().find(|message| message.id == id);
    assert_eq!(find(known.message.id), Some(&known.message));
    let answer = find(known.answer).expect("its answer");
    let state = &answer.answer.as_ref().unwrap().state;
    assert!(matches!(state, AnswerState::Ended { .. }), "{state:?}");
}

fn state_of(view: &ConversationView, answer: MessageId) -> (AnswerState, String) {
    let message = view.messages.iter().find(|message| message.id == answer).unwrap();
    (message.answer.as_ref().unwrap().state.clone(), message.text.clone())
}

#[test]
fn killed_at_any_moment_nothing_acknowledged_is_lost_and_answers_go_on() {
    let program = Program::new();
    program.settings(
        "[limits]\nmax_waiting = 10000\nanswers_per_owner = 10000\nanswers_per_minute = 100000\nanswers_burst = 100000\n\
         requests_per_minute = 1000000\nrequests_burst = 1000000\nconversations_per_owner = 100000\n\
         [engine]\nmin_step_ms = 2\n",
    );
    program.model(json!({}));
    let mut dice = Dice(0x5eed);
    let mut all: Vec<Acknowledged> = Vec::new();
    let mut chain = say("Hello, chain");
    let mut running = Running::start(&program);
    for cycle in 0..CYCLES {
        let (sender, acknowledged) = mpsc::channel();
        let (address, first) = (running.address.clone(), chain.clone());
        let talking = thread::spawn(move || talk(&address, &first, &sender));
        let life = Duration::from_micros(dice.below(LONGEST_LIFE.as_micros() as u64));
        let begun = Instant::now();
        while begun.elapsed() < life {
            thread::yield_now();
        }
        drop(running);
        talking.join().unwrap();
        is_whole(&program);
        running = Running::start(&program);
        let known: Vec<_> = acknowledged.iter().collect();
        for known in &known {
            is_there(&running.page(known.conversation), known);
        }
        if let Some(known) = known.iter().find(|known| known.conversation == chain.conversation) {
            chain = SendCommand {
                request: RequestId::random(),
                parent: Some(known.answer),
                text: format!("Hello again, {cycle}"),
                ..chain
            };
        }
        all.extend(known);
    }
    assert!(all.len() >= CYCLES / 2, "{} were acknowledged", all.len());
    for known in &all {
        is_there(&running.page(known.conversation), known);
    }
    let links: Vec<_> = all.iter().filter(|known| known.conversation == chain.conversation).collect();
    let view = running.page(chain.conversation);
    let order: Vec<_> =
        view.messages.iter().filter(|message| message.answer.is_none()).map(|message| message.id).collect();
    let places: Vec<_> = links.iter().map(|known| order.iter().position(|id| *id == known.message.id)).collect();
    assert!(places.is_sorted(), "in the order in which they were said");
    go_on(&running, &all);
}

/// Goes on with some answers that a kill interrupted, and asserts that their text stays and they come to an end.
fn go_on(running: &Running, all: &[Acknowledged]) {
    let mut n_continued = 0;
    for known in all {
        let (state, before) = state_of(&running.page(known.conversation), known.answer);
        if state != (AnswerState::Ended { reason: EndReason::Interrupted }) {
            continue;
        }
        let command = ContinueCommand {
            request: RequestId::random(),
            conversation: known.conversation,
            answer: known.answer,
            max_new_tokens: None,
        };
        // One of the chain that was followed is not gone on with.
        let view = running.page(known.conversation);
        if view.messages.iter().any(|message| message.parent == Some(known.answer)) {
            continue;
        }
        let _: Started = post(&running.address, "/api/continue", &json!({ "command": command })).unwrap();
        let deadline = Instant::now() + TIME;
        let text = loop {
            match state_of(&running.page(known.conversation), known.answer) {
                (AnswerState::Ended { reason: EndReason::EndOfText | EndReason::Length }, text) => break text,
                (AnswerState::Running { .. }, _) => assert!(Instant::now() < deadline, "it comes to an end"),
                (state, _) => panic!("{state:?}"),
            }
        };
        assert!(text.starts_with(&before) && text.len() > before.len(), "{before:?} became {text:?}");
        n_continued += 1;
        if n_continued == 5 {
            return;
        }
    }
    panic!("only {n_continued} answers were interrupted");
}
