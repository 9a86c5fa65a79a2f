//! The program as a process: how it ends when it is told to.

use std::{
    io::{BufRead, BufReader, Lines, Read, Write},
    net::TcpStream,
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;
use xverse_chat::chat::command::Started;

use crate::{
    client::{SOMEBODY, as_json, cookie, generation, say},
    program::Program,
};

/// Answered by the mini model with hundreds of tokens.
const LONG: &str = "Write a Python program that counts the words in a text file, and explain each part.";
/// Longer than anything here may take.
const TIME: Duration = Duration::from_secs(20);

/// The program while it runs.
pub struct Running {
    pub child: Child,
    pub lines: Lines<BufReader<ChildStdout>>,
    pub address: String,
    _program: Program,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Where it has ended already there is nothing left to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start(program: Program) -> Self {
        let command = program.command(&["--port=0", "--model_path=model"]);
        Self::run(command, program)
    }

    /// Runs a command that is the program's, or becomes it.
    pub fn run(mut command: Command, program: Program) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let address = first.strip_prefix("listening on http://").unwrap().to_owned();
        Self { child, lines, address, _program: program }
    }

    /// The mini model, slow enough that there is a middle, with so many seconds to end in.
    fn ready(drain_s: u64) -> Self {
        let program = Program::new();
        program.settings(&format!("[server]\ndrain_s = {drain_s}\n[engine]\nmin_step_ms = 20\n"));
        program.model(json!({}));
        let mut running = Self::start(program);
        running.line("loaded");
        running
    }

    /// Reads what it prints until a line begins so.
    pub fn line(&mut self, beginning: &str) {
        let found = self.lines.by_ref().map(Result::unwrap).find(|line| line.starts_with(beginning));
        assert!(found.is_some(), "no line begins with {beginning:?}");
    }

    pub fn tell_to_end(&self) {
        let status = Command::new("sh").arg("-c").arg(format!("kill -TERM {}", self.child.id())).status().unwrap();
        assert!(status.success());
    }

    pub fn status(&mut self) -> Option<i32> {
        let deadline = Instant::now() + TIME;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::yield_now();
        }
    }

    pub fn ask(&self, request: &str) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(TIME)).unwrap();
        let host = format!("{}\r\nCookie: {}", self.address, cookie(SOMEBODY));
        stream.write_all(request.replace("HOST", &host).as_bytes()).unwrap();
        BufReader::new(stream)
    }

    /// Begins a long answer; its events, after the first text.
    fn answer(&self) -> BufReader<TcpStream> {
        let body = as_json(&say(LONG)).to_string();
        let head = "POST /api/send HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nContent-Type: application/json";
        let mut reply = String::new();
        let request = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        self.ask(&request).read_to_string(&mut reply).unwrap();
        let started: Started = serde_json::from_str(reply.split_once("\r\n\r\n").unwrap().1).unwrap();
        let path = format!("/generations/{}/events", generation(&started));
        let mut events = self.ask(&format!("GET {path} HTTP/1.1\r\nHost: HOST\r\n\r\n"));
        let mut line = String::new();
        while !line.contains("\"tail\":") {
            line.clear();
            assert!(events.read_line(&mut line).unwrap() > 0, "text before the end");
        }
        events
    }
}

#[test]
fn told_to_end_the_program_ends_its_answers_and_is_status_0() {
    let mut running = Running::ready(1);
    let mut events = running.answer();
    running.tell_to_end();
    let mut rest = String::new();
    events.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("\"end\":") && rest.contains("\"interrupted\""), "{rest}");
    assert_eq!(running.status(), Some(0));
}

#[test]
fn told_twice_it_waits_for_nothing() {
    let mut running = Running::ready(3600);
    let _events = running.answer();
    running.tell_to_end();
    running.line("ending");
    running.tell_to_end();
    assert_eq!(running.status(), Some(0));
}

#[test]
fn told_to_end_while_the_model_loads_it_ends() {
    let program = Program::new();
    let config = program.model(json!({})).join("config.json");
    std::fs::remove_file(&config).unwrap();
    // Whoever opens it to read waits for somebody who writes.
    assert!(Command::new("mkfifo").arg(&config).status().unwrap().success());
    let mut running = Running::start(program);
    let mut reply = String::new();
    running.ask("GET /readyz HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n").read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 503"), "{reply}");
    running.tell_to_end();
    assert_eq!(running.status(), Some(0));
}
