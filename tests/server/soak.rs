//! Mixed traffic for a while: afterwards the program has what it had before, and every request its one end.

use std::{
    io::{BufRead, BufReader, Read},
    net::TcpStream,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use serde_json::json;
use xverse_chat::chat::{command::SendCommand, ids::GenerationId, limits::MAX_MESSAGE_BYTES};

use crate::{
    client::{as_json, say},
    process::{Client, LONG, Running, TIME},
    support::generator,
};

const SOAK_TIME: Duration = Duration::from_secs(8);
const CLIENTS: u64 = 6;

/// What somebody does, `choice` being any number.
fn visit(client: Client<'_>, choice: u64) {
    let random = (choice / 100) as usize;
    match choice % 100 {
        0..60 => assert_eq!(n_ends(client.events(client.started(&asking("hello", 24)))), 1),
        60..70 => leave_while_reading(client, random),
        70..80 => leave_while_asking(client, random),
        80..90 => stop(client),
        90..95 => malformed(client, random),
        _ => over_the_limit(client, random),
    }
}

fn asking(text: &str, max_new_tokens: u32) -> SendCommand {
    let mut command = say(text);
    command.settings.max_new_tokens = Some(max_new_tokens);
    command
}

/// Reads the events to their end; how many ends there are among them.
fn n_ends(events: BufReader<TcpStream>) -> usize {
    let (mut ends, mut last) = (0, 0);
    for line in events.lines().map(Result::unwrap) {
        if let Some(id) = line.strip_prefix("id: ") {
            let id: u64 = id.parse().unwrap();
            assert!(id > last, "numbers grow");
            last = id;
        }
        ends += usize::from(line.contains("\"end\":"));
    }
    ends
}

fn leave_while_reading(client: Client<'_>, random: usize) {
    let mut some = vec![0; random % 4000];
    // There may be less.
    let _ = client.events(client.started(&asking(LONG, 64))).read_exact(&mut some);
}

fn leave_while_asking(client: Client<'_>, random: usize) {
    let body = as_json(&asking(LONG, 64)).to_string();
    // Less than it says, or all of it; nobody waits for an answer.
    let sent = &body[..random % (body.len() + 1)];
    drop(client.ask_in_part("POST", "/api/send", sent, body.len()));
}

fn stop(client: Client<'_>) {
    let id = client.started(&asking(LONG, 400));
    let mut events = client.events(id);
    let mut line = String::new();
    while !line.contains("\"tail\":") {
        line.clear();
        assert!(events.read_line(&mut line).unwrap() > 0, "text before the end");
    }
    let (status, body) = client.told("POST", "/api/stop", &json!({ "generation": id }).to_string());
    assert_eq!(status, 200, "{body}");
    assert_eq!(n_ends(events), 1);
}

fn malformed(client: Client<'_>, random: usize) {
    let body = as_json(&asking("hello", 8)).to_string();
    let (status, body) = match random % 3 {
        0 => client.told("POST", "/api/send", &body[..random % body.len()]),
        1 => client.told("POST", "/api/send", &body.replace("\"user\"", "\"narrator\"")),
        _ => client.told("GET", &format!("/generations/{}/events", GenerationId::random()), ""),
    };
    assert!((400..500).contains(&status), "{status} {body}");
}

fn over_the_limit(client: Client<'_>, random: usize) {
    let (command, expected) = match random % 3 {
        0 => (asking(&"a".repeat(MAX_MESSAGE_BYTES + 1), 8), [422, 422]),
        // Refused while it is still being sent, which may reset the connection.
        1 => (asking(&"a".repeat(4 * MAX_MESSAGE_BYTES), 8), [413, 0]),
        _ => (asking("hello", 1 << 20), [422, 422]),
    };
    let (status, body) = client.send(&command);
    assert!(expected.contains(&status), "{status} {body}");
}

/// The sum of a metric, over all its labels.
fn metric(metrics: &str, name: &str) -> u64 {
    let values = metrics.lines().filter_map(|line| {
        let (key, value) = line.rsplit_once(' ')?;
        (key == name || key.strip_prefix(name)?.starts_with('{')).then(|| value.parse::<u64>().unwrap())
    });
    values.sum()
}

fn n_descriptors(process: u32) -> usize {
    std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
}

#[test]
fn after_mixed_traffic_everything_is_given_back_and_every_request_has_one_end() {
    let running = Running::ready("");
    assert_eq!(n_ends(running.client(0).events(running.client(0).started(&asking("hello", 24)))), 1);
    let before = n_descriptors(running.child.id());
    let n_visits = AtomicU64::new(0);
    let deadline = Instant::now() + SOAK_TIME;
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (running, n_visits) = (&running, &n_visits);
            scope.spawn(move || {
                for choice in generator::bits(client, "soak").take_while(|_| Instant::now() < deadline) {
                    // Each visit is somebody else's, as far as limits a person go.
                    visit(running.client(1 + n_visits.fetch_add(1, Ordering::Relaxed)), choice);
                }
            });
        }
    });
    let n_visits = n_visits.into_inner();
    assert!(n_visits > 60, "only {n_visits} visits");

    let deadline = Instant::now() + TIME;
    loop {
        let (status, metrics) = running.client(0).told("GET", "/metrics", "");
        assert_eq!(status, 200);
        let metric = |name| metric(&metrics, name);
        let [taken, ended] = ["xverse_requests_submitted_total", "xverse_generations_total"].map(metric);
        let live = [
            "xverse_requests_running",
            "xverse_requests_waiting",
            "xverse_kv_blocks_used",
            "xverse_event_streams",
            "xverse_engine_failures_total",
        ]
        .map(metric);
        let descriptors = n_descriptors(running.child.id());
        // The one that asks is open on its side.
        if live == [0; 5] && taken == ended && descriptors <= before + 2 {
            assert!(taken > n_visits / 2, "{taken} of {n_visits} were answers");
            break;
        }
        assert!(
            Instant::now() < deadline,
            "{n_visits} visits: live {live:?}, {taken} taken, {ended} ended, {before} descriptors became {descriptors}"
        );
    }
}
