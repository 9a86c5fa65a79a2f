//! Time to first token as a client on the same machine sees it: from the first byte of a send to the first event with
//! text, through the real server, the real engine and the mini model.
//!
//! `cargo bench --features ssr --bench first_token [-- FILE.json]` prints the figures and keeps them in the file.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use xverse_chat::chat::ids::{ConversationId, RequestId};

const ROUNDS: usize = 200;
const WARM_UP: usize = 10;
const TIMEOUT: Duration = Duration::from_secs(30);
/// What is asked, in turn: short and long, so that prompts differ in length.
const QUESTIONS: [&str; 3] =
    ["你好", "What can you do?", "请用一百个字以内的话介绍一下你自己，并说说你最擅长的三件事情是什么，为什么。"];

/// The server, ended when this is dropped.
struct Server {
    process: Child,
    address: String,
    _data: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Where it is gone already there is nothing left to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn main() -> Result<()> {
    let json_file = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let server = start()?;
    let mut times = Vec::new();
    for round in 0..WARM_UP + ROUNDS {
        let time = first_token(&server.address, QUESTIONS[round % QUESTIONS.len()])?;
        if round >= WARM_UP {
            times.push(time.as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    let (p50, p95, max) = (at(0.5), at(0.95), at(1.0));
    println!(
        "first token over loopback, mini model, {ROUNDS} rounds: p50 {p50:.1} ms, p95 {p95:.1} ms, max {max:.1} ms"
    );
    if let Some(path) = json_file {
        let result = json!({
            "benchmark": "first_token", "model": "xverse-mini", "rounds": ROUNDS,
            "command": "cargo bench --features ssr --bench first_token",
            "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            "p50_ms": p50, "p95_ms": p95, "max_ms": max,
        });
        std::fs::write(&path, format!("{result:#}\n")).with_context(|| format!("writing {path}"))?;
    }
    Ok(())
}

fn start() -> Result<Server> {
    let data = tempfile::tempdir().context("a folder for conversations")?;
    let mut process = Command::new(env!("CARGO_BIN_EXE_xverse-chat"))
        .args(["--port=0", "--model_path=models/xverse-mini", "--data_dir"])
        .arg(data.path())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the server")?;
    let stdout = process.stdout.take().context("the server's output")?;
    let mut lines = BufReader::new(stdout).lines();
    let line = lines.next().context("the server said nothing")??;
    let address = line.strip_prefix("listening on http://").with_context(|| format!("unexpected: {line}"))?.to_owned();
    // Whatever else it prints is read, so that it never waits for us.
    std::thread::spawn(move || lines.for_each(drop));
    let server = Server { process, address, _data: data };
    let deadline = Instant::now() + TIMEOUT;
    while !get(&server.address, "/readyz")?.starts_with("HTTP/1.1 200") {
        if Instant::now() > deadline {
            bail!("the server did not become ready");
        }
        std::thread::yield_now();
    }
    Ok(server)
}

fn first_token(address: &str, question: &str) -> Result<Duration> {
    let body = json!({"command": {
        "request": RequestId::random(), "conversation": ConversationId::random(), "parent": null, "role": "user",
        "text": question, "system": "", "settings": {"max_new_tokens": 2},
    }})
    .to_string();
    // Each round is another visitor's, so that none asks too often.
    let cookie = format!("owner={0:032x}{0:032x}", ConversationId::random().as_u128());
    let began = Instant::now();
    let answer = post(address, "/api/send", &cookie, &body)?;
    let (_, json) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
    let started: Value = serde_json::from_str(json).with_context(|| format!("unexpected: {answer}"))?;
    let generation = started["answer"]["answer"]["state"]["running"]["generation"].as_str().context("no generation")?;
    let mut stream = connect(address)?;
    write!(
        stream,
        "GET /generations/{generation}/events?after=0 HTTP/1.1\r\nHost: {address}\r\nCookie: {cookie}\r\n\r\n"
    )?;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if line.contains("\"tail\":") || line.contains("\"block\":") {
            return Ok(began.elapsed());
        }
    }
    bail!("the events ended without text")
}

fn post(address: &str, path: &str, cookie: &str, body: &str) -> Result<String> {
    let mut stream = connect(address)?;
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nCookie: {cookie}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn get(address: &str, path: &str) -> Result<String> {
    let mut stream = connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn connect(address: &str) -> Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    Ok(stream)
}
