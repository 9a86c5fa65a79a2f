//! A client that costs little: HTTP/1.0 over sockets, so that an answer is what comes until the connection closes.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use xverse_chat::chat::{
    event::Event,
    ids::{ConversationId, RequestId},
};

/// Somebody with conversations of their own.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    pub address: SocketAddr,
    pub owner: u64,
}

/// An event stream.
pub struct Events {
    answer: Answer,
}

struct Answer {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    /// Begins an answer in a conversation of its own; the generation's name.
    pub async fn send(self, text: &str, max_new_tokens: u32) -> Result<String> {
        let body = json!({"command": {
            "request": RequestId::random(), "conversation": ConversationId::random(), "parent": null, "role": "user",
            "text": text, "system": "", "settings": {"max_new_tokens": max_new_tokens},
        }});
        let (status, reply) = self.ask("POST", "/api/send", &body.to_string()).await?.whole().await?;
        let started: Value = serde_json::from_str(&reply).with_context(|| format!("{status}: {reply}"))?;
        let generation = started["answer"]["answer"]["state"]["running"]["generation"].as_str();
        Ok(generation.with_context(|| format!("{status}: {reply}"))?.to_owned())
    }

    /// The events of an answer.
    pub async fn events(self, generation: String) -> Result<Events> {
        let mut answer = self.ask("GET", &format!("/generations/{generation}/events"), "").await?;
        let head = answer.until("\r\n\r\n").await?.context("no head")?;
        if status(&head)? != 200 {
            bail!("{head}");
        }
        Ok(Events { answer })
    }

    /// A page; its status and text.
    pub async fn page(self, path: &str) -> Result<(u16, String)> {
        self.ask("GET", path, "").await?.whole().await
    }

    async fn ask(self, method: &str, path: &str, body: &str) -> Result<Answer> {
        let Self { address, owner } = self;
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: {address}\r\nCookie: owner={owner:064x}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut rest = request.as_bytes();
        while !rest.is_empty() {
            stream.writable().await?;
            match stream.try_write(rest) {
                Ok(n) => rest = &rest[n..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Answer { stream, buffer: Vec::new() })
    }
}

impl Events {
    /// The next event; `None` where the server has closed the stream.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        while let Some(frame) = self.answer.until("\n\n").await? {
            if let Some(data) = frame.lines().find_map(|line| line.strip_prefix("data: ")) {
                return Ok(Some(serde_json::from_str(data)?));
            }
        }
        Ok(None)
    }
}

impl Answer {
    /// Status and body.
    async fn whole(mut self) -> Result<(u16, String)> {
        while self.more().await? {}
        let text = String::from_utf8(self.buffer)?;
        let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("no answer: {text:?}"))?;
        Ok((status(head)?, body.to_owned()))
    }

    /// What comes before `end`, which goes with it; `None` where it does not come.
    async fn until(&mut self, end: &str) -> Result<Option<String>> {
        let mut looked_at = 0;
        loop {
            let found = self.buffer[looked_at..].windows(end.len()).position(|window| window == end.as_bytes());
            if let Some(at) = found {
                let mut taken: Vec<u8> = self.buffer.drain(..looked_at + at + end.len()).collect();
                taken.truncate(looked_at + at);
                return Ok(Some(String::from_utf8(taken)?));
            }
            looked_at = self.buffer.len().saturating_sub(end.len() - 1);
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    /// Whether more has come; `false` at the end.
    async fn more(&mut self) -> Result<bool> {
        let mut part = [0; 4096];
        loop {
            self.stream.readable().await?;
            match self.stream.try_read(&mut part) {
                Ok(0) => return Ok(false),
                Ok(n) => {
                    self.buffer.extend_from_slice(&part[..n]);
                    return Ok(true);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn status(head: &str) -> Result<u16> {
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.with_context(|| format!("no status: {head:?}"))
}
