//! The program as a process: how it ends when it is told to.

use std::{
    fs::File,
    io::{BufRead, BufReader, Lines, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use xverse_chat::chat::{
    command::{SendCommand, Started},
    error::{ChatError, ErrorCode},
    ids::GenerationId,
};

use crate::{
    client::{as_json, generation, say},
    program::Program,
};

/// Answered by the mini model with hundreds of tokens.
pub const LONG: &str = "Write a Python program that counts the words in a text file, and explain each part.";
/// Longer than anything here may take.
pub const TIME: Duration = Duration::from_secs(20);

/// The program while it runs.
pub struct Running {
    pub child: Child,
    pub lines: Lines<BufReader<ChildStdout>>,
    pub address: String,
    _program: Program,
}

/// Somebody who talks to it, with chats of their own.
#[derive(Debug, Clone, Copy)]
pub struct Client<'r> {
    address: &'r str,
    owner: u64,
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

    /// The mini model, loaded.
    pub fn ready(settings: &str) -> Self {
        let program = Program::new();
        program.settings(settings);
        program.model(json!({}));
        let mut running = Self::start(program);
        running.line("loaded");
        running
    }

    /// Slow enough that there is a middle, with so many seconds to end in.
    fn slow(drain_s: u64) -> Self {
        Self::ready(&format!("[server]\ndrain_s = {drain_s}\n[engine]\nmin_step_ms = 20\n"))
    }

    pub fn client(&self, owner: u64) -> Client<'_> {
        Client { address: &self.address, owner }
    }

    /// Reads what it prints until a line begins so.
    pub fn line(&mut self, beginning: &str) {
        let found = self.lines.by_ref().map(Result::unwrap).find(|line| line.starts_with(beginning));
        assert!(found.is_some(), "no line begins with {beginning:?}");
    }

    pub fn tell_to_end(&self) {
        signal(&self.child, "TERM");
    }

    pub fn status(&mut self) -> Option<i32> {
        ended(&mut self.child)
    }

    /// Asserts that it ends in order, and how long after `told`.
    fn ends_within(&mut self, told: Instant, time: Duration) {
        assert_eq!(self.status(), Some(0));
        assert!(told.elapsed() < time, "it ended after {:?}, {time:?} expected", told.elapsed());
    }
}

/// Sends a signal, such as `INT`.
pub fn signal(child: &Child, name: &str) {
    let status = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", child.id())).status().unwrap();
    assert!(status.success());
}

/// Waits until it has ended.
pub fn ended(child: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + TIME;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        assert!(Instant::now() < deadline, "it does not end");
        std::thread::yield_now();
    }
}

impl Client<'_> {
    /// A connection over which this has been asked, to be read to its end.
    pub fn ask(self, method: &str, path: &str, body: &str) -> BufReader<TcpStream> {
        self.ask_in_part(method, path, body, body.len())
    }

    /// The same, where the body is said to be of `length` bytes and may be shorter.
    pub fn ask_in_part(self, method: &str, path: &str, body: &str, length: usize) -> BufReader<TcpStream> {
        self.raw(&format!(
            "{method} {path} HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ))
    }

    /// The same for a request as it is written, `HOST` excepted.
    pub fn raw(self, request: &str) -> BufReader<TcpStream> {
        let Self { address, owner } = self;
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(TIME)).unwrap();
        let host = format!("{address}\r\nCookie: owner={owner:064x}");
        // Who is refused for a body that is too long may be told before all of it is there.
        let _ = stream.write_all(request.replacen("HOST", &host, 1).as_bytes());
        BufReader::new(stream)
    }

    /// Status and body of the answer; status 0 where the connection was reset before there was one.
    pub fn told(self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut reply = Vec::new();
        // What came before the connection was reset counts.
        let _ = self.ask(method, path, body).read_to_end(&mut reply);
        let reply = String::from_utf8(reply).unwrap();
        let Some((head, body)) = reply.split_once("\r\n\r\n") else { return (0, reply) };
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    pub fn send(self, command: &SendCommand) -> (u16, String) {
        self.told("POST", "/api/send", &as_json(command).to_string())
    }

    pub fn started(self, command: &SendCommand) -> GenerationId {
        let (status, body) = self.send(command);
        assert_eq!(status, 200, "{body}");
        generation(&serde_json::from_str::<Started>(&body).unwrap())
    }

    pub fn events(self, id: GenerationId) -> BufReader<TcpStream> {
        self.ask("GET", &format!("/generations/{id}/events"), "")
    }

    /// Begins a long answer; its events, after the first text.
    fn answer(self) -> BufReader<TcpStream> {
        let mut events = self.events(self.started(&say(LONG)));
        let mut line = String::new();
        while !line.contains("\"tail\":") {
            line.clear();
            assert!(events.read_line(&mut line).unwrap() > 0, "text before the end");
        }
        events
    }
}

#[test]
fn told_to_end_while_idle_it_ends_within_a_second() {
    let mut running = Running::slow(3600);
    let told = Instant::now();
    running.tell_to_end();
    running.ends_within(told, Duration::from_secs(1));
}

#[test]
fn told_to_end_with_sixteen_streams_it_refuses_more_and_ends_each_with_its_end() {
    let mut running = Running::slow(1);
    let streams: Vec<_> = (0..16).map(|owner| running.client(owner).answer()).collect();
    let told = Instant::now();
    running.tell_to_end();
    running.line("ending");
    let late = running.client(16);
    let (status, body) = late.send(&say("late"));
    assert_eq!((status, serde_json::from_str::<ChatError>(&body).unwrap().code), (503, ErrorCode::ShuttingDown));
    assert_eq!(late.told("GET", "/readyz", "").0, 503);
    for mut events in streams {
        let mut rest = String::new();
        events.read_to_string(&mut rest).unwrap();
        assert_eq!(rest.matches("\"end\":").count(), 1, "{rest}");
        assert!(rest.contains("\"interrupted\""), "{rest}");
    }
    running.ends_within(told, Duration::from_secs(1 + 1));
}

#[test]
fn told_twice_it_waits_for_nothing() {
    let mut running = Running::slow(3600);
    let _events = running.client(0).answer();
    running.tell_to_end();
    running.line("ending");
    let told = Instant::now();
    running.tell_to_end();
    running.ends_within(told, Duration::from_secs(1));
}

#[test]
fn told_to_end_while_the_model_loads_it_ends() {
    let program = Program::new();
    zeros(&program.model(shape()).join("model.safetensors"));
    let command = program.command(&["--port=0", "--model_path=model", "--quantize=4"]);
    let mut running = Running::run(command, program);
    assert_eq!(running.client(0).told("GET", "/readyz", "").0, 503);
    let told = Instant::now();
    running.tell_to_end();
    running.ends_within(told, Duration::from_secs(2));
}

const LAYERS: u64 = 20;
const HIDDEN: u64 = 2048;
const FFN: u64 = 5632;

fn shape() -> Value {
    json!({ "hidden_size": HIDDEN, "intermediate_size": FFN, "num_hidden_layers": LAYERS, "num_attention_heads": 16 })
}

/// Two gigabytes of weights, which take seconds to read and quantise, and no room on the disk.
fn zeros(path: &Path) {
    let of_layer = |layer: u64| {
        let projections = [
            ("self_attn.q_proj", [HIDDEN, HIDDEN]),
            ("self_attn.k_proj", [HIDDEN, HIDDEN]),
            ("self_attn.v_proj", [HIDDEN, HIDDEN]),
            ("self_attn.o_proj", [HIDDEN, HIDDEN]),
            ("mlp.gate_proj", [FFN, HIDDEN]),
            ("mlp.up_proj", [FFN, HIDDEN]),
            ("mlp.down_proj", [HIDDEN, FFN]),
        ];
        let projections =
            projections.map(|(name, shape)| (format!("model.layers.{layer}.{name}.weight"), shape.to_vec()));
        let norms = ["input_layernorm", "post_attention_layernorm"];
        let norms = norms.map(|name| (format!("model.layers.{layer}.{name}.weight"), vec![HIDDEN]));
        projections.into_iter().chain(norms)
    };
    let others = [
        ("model.embed_tokens.weight", vec![2048, HIDDEN]),
        ("model.norm.weight", vec![HIDDEN]),
        ("lm_head.weight", vec![2048, HIDDEN]),
    ];
    let others = others.map(|(name, shape)| (name.to_owned(), shape));
    let mut end = 0;
    let tensors: serde_json::Map<String, Value> = (0..LAYERS)
        .flat_map(of_layer)
        .chain(others)
        .map(|(name, shape)| {
            let begin = end;
            end += 2 * shape.iter().product::<u64>();
            (name, json!({ "dtype": "BF16", "shape": shape, "data_offsets": [begin, end] }))
        })
        .collect();
    let header = Value::from(tensors).to_string();
    let n_header = header.len() as u64;
    let mut file = File::create(path).unwrap();
    file.write_all(&[&n_header.to_le_bytes(), header.as_bytes()].concat()).unwrap();
    file.set_len(8 + n_header + end).unwrap();
}
