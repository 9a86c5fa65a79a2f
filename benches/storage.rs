//! What keeping conversations costs: a message until it is on disk, alone and beside forty answers that are written at
//! once; the list, a search and a long conversation of an owner who has talked a lot.
//!
//! `cargo bench --features ssr --bench storage [-- FILE.json]` prints the figures and keeps them in the file. The folder is
//! made where temporary files are: TMPDIR chooses the disk.

use std::time::Instant;

use anyhow::{Context, Result};
use futures::{executor::block_on, future::join_all};
use serde_json::{Map, Value, json};
use xverse_chat::{
    chat::{
        event::EndReason,
        ids::{ConversationId, GenerationId, MessageId},
        list::ListQuery,
        message::{AnswerStats, Role},
        settings::Sampling,
    },
    storage::{
        conversations::Said,
        database::Storage,
        record::{Answer, Head, Message, Owner, Progress},
    },
};

const OWNER: Owner = Owner(1);
/// An owner who has talked a lot: so many conversations of so many rounds.
const CONVERSATIONS: usize = 1000;
const ROUNDS: usize = 10;
/// An answer of 1.2 KB, three bytes a character.
const SENTENCE: &str = "今天的天气很好，我们去公园散步。";
const REPEATS: usize = 25;
const TIMES: usize = 200;
const RUNNING: usize = 40;

fn main() -> Result<()> {
    let json_file = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let folder = tempfile::tempdir().context("a folder")?;
    let (storage, _) = Storage::open(folder.path())?;
    let longest = block_on(fill(&storage))?;
    let mut figures = Map::new();
    let mut keep = |name: &str, times: Vec<f64>| {
        let figure = percentiles(times);
        println!("{name:40} {figure}");
        figures.insert(name.to_owned(), figure);
    };
    keep("a message until it is on disk", measure(|| storage.save(said(ConversationId::random(), 1)))?);
    let running = (0..RUNNING).map(|_| said(ConversationId::random(), 1)).collect::<Vec<_>>();
    block_on(join_all(running.iter().cloned().map(|said| storage.save(said))));
    keep(
        "the same beside forty snapshots",
        measure(|| {
            for said in &running {
                // Asked for at once, and nobody waits for them.
                drop(storage.progress(snapshot(said), 0));
            }
            storage.save(said(ConversationId::random(), 1))
        })?,
    );
    keep("the list of a thousand conversations", measure(|| storage.list(OWNER, ListQuery::default(), 40))?);
    for (name, search) in [
        ("search: a character everywhere", "园"),
        ("search: two characters nowhere", "世界"),
        ("search: a word of letters nowhere", "nowhere"),
    ] {
        let query = ListQuery { search: search.to_owned(), after: None };
        keep(name, measure(|| storage.list(OWNER, query.clone(), 40))?);
    }
    keep("a conversation of five hundred messages", measure(|| storage.load(OWNER, longest))?);
    if let Some(path) = json_file {
        let megabytes = (CONVERSATIONS * ROUNDS * SENTENCE.len() * REPEATS) as f64 / 1e6;
        let result = json!({
            "benchmark": "storage", "command": "cargo bench --features ssr --bench storage", "unit": "ms",
            "conversations": CONVERSATIONS, "rounds": ROUNDS, "megabytes_of_answers": megabytes, "figures": figures,
        });
        std::fs::write(&path, format!("{result:#}\n")).with_context(|| format!("writing {path}"))?;
    }
    Ok(())
}

/// Writes what the owner has; gives the longest conversation.
async fn fill(storage: &Storage) -> Result<ConversationId> {
    for said in (0..CONVERSATIONS).map(|_| said(ConversationId::random(), ROUNDS)) {
        storage.save(said).await?;
    }
    let longest = ConversationId::random();
    storage.save(said(longest, 250)).await?;
    Ok(longest)
}

fn said(id: ConversationId, rounds: usize) -> Said {
    let mut messages = Vec::new();
    let mut parent = None;
    for _ in 0..rounds {
        let question = message(parent, Role::User, "我们今天做什么？".to_owned());
        let mut answer = message(Some(question.id), Role::Assistant, SENTENCE.repeat(REPEATS));
        parent = Some(answer.id);
        answer.answer = Some(Answer {
            generation: GenerationId::random(),
            prompt_ids: vec![1; 1000].into(),
            token_ids: vec![1; 300],
            sampling: Sampling::default(),
            seed: 1,
            weights: [0; 32],
            stats: AnswerStats::default(),
            end: Some(EndReason::EndOfText),
        });
        messages.extend([question, answer]);
    }
    let head =
        Head { id, title: "我们今天做什么？".to_owned(), system: String::new(), leaf: parent, updated_ms: 1 };
    Said { owner: OWNER, head, messages, command: None }
}

fn message(parent: Option<MessageId>, role: Role, text: String) -> Message {
    Message { id: MessageId::random(), parent, role, text, created_ms: 1, answer: None }
}

fn snapshot(said: &Said) -> Progress {
    let message = said.messages.last().expect("invariant: a round has an answer");
    let answer = message.answer.as_ref().expect("invariant: the answer is the last of a round");
    Progress {
        answer: message.id,
        generation: answer.generation,
        text: message.text.clone(),
        token_ids: answer.token_ids.clone(),
        seq: 1,
        stats: answer.stats,
        end: None,
    }
}

/// Milliseconds that each of many calls takes, one after the other.
fn measure<F: Future<Output = Result<T, E>>, T, E: std::error::Error + Send + Sync + 'static>(
    mut call: impl FnMut() -> F,
) -> Result<Vec<f64>> {
    (0..TIMES)
        .map(|_| {
            let began = Instant::now();
            block_on(call())?;
            Ok(began.elapsed().as_secs_f64() * 1e3)
        })
        .collect()
}

fn percentiles(mut times: Vec<f64>) -> Value {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let time = times[((times.len() - 1) as f64 * share).round() as usize];
        (time * 1e3).round() / 1e3
    };
    json!({ "p50": at(0.5), "p95": at(0.95), "max": at(1.0) })
}
