//! Anything that could come over an answer's event stream, read and taken in as the page does it.
//!
//! Input: lines, each the data of an event, or a message as the server has it: the first is what the page begins with, later
//! ones say anew how the answer stands.

use xverse_chat::{
    app::{
        answer::{Answer, Phase},
        json,
    },
    chat::{event::Event, message::MessageView},
};

use crate::{blocks, choices::mixed, outcome::Outcome};

/// # Panics
/// Where an answer breaks one of its promises.
pub fn target(data: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(data);
    let mut messages = Vec::new();
    let mut events = Vec::new();
    let mut outcome = Outcome::Taken;
    for line in text.lines() {
        match json::read::<Event>(line) {
            Ok(event) => {
                comes_back(&event);
                events.push(event);
            }
            Err(_) => match json::read::<MessageView>(line) {
                Ok(message) => messages.extend(Answer::from_message(&message)),
                Err(_) => outcome = Outcome::Refused,
            },
        }
    }
    let mut messages = messages.into_iter();
    let beginning = messages.next().unwrap_or_else(nothing_yet);

    let mut answer = beginning.clone();
    for event in &events {
        let before = answer.clone();
        answer.apply(event.clone());
        goes_forward(&before, &answer, event.seq);
        is_sound(&answer);
    }
    // A connection that breaks anywhere and begins again from anywhere before changes nothing.
    let cut = mixed(data) as usize % (events.len() + 1);
    let mut replayed = beginning;
    for event in events.iter().take(cut).chain(&events) {
        replayed.apply(event.clone());
    }
    assert_eq!(replayed, answer, "cut after {cut} events");

    answer.lose();
    is_sound(&answer);
    assert!(answer.phase.is_over() && answer.tail.is_empty());
    let lost = answer.clone();
    answer.lose();
    for event in events {
        answer.apply(event);
    }
    assert_eq!(answer, lost, "what is over changed");
    for fresh in messages {
        takes_up(&mut answer, fresh);
    }
    outcome
}

fn nothing_yet() -> Answer {
    Answer {
        generation: None,
        cursor: 0,
        phase: Phase::Queued { place: 0 },
        blocks: Vec::new(),
        tail: Vec::new(),
        thawed: Vec::new(),
        text: String::new(),
        stats: xverse_chat::chat::message::AnswerStats::default(),
        is_saved: true,
    }
}

/// What was read can be written and read again.
fn comes_back(event: &Event) {
    let written = serde_json::to_string(event).expect("an event becomes JSON");
    assert_eq!(json::read::<Event>(&written).ok().as_ref(), Some(event), "{written}");
}

fn goes_forward(before: &Answer, after: &Answer, seq: u64) {
    if seq <= before.cursor || before.phase.is_over() {
        assert_eq!(after, before, "an old event changed something");
    } else {
        assert_eq!(after.cursor, seq);
        assert!(after.blocks.starts_with(&before.blocks), "a final block changed");
        assert!(after.blocks.len() <= before.blocks.len() + 1);
    }
}

/// The server says anew how it has the answer, as when it is gone on with: what grows again is drawn anew.
fn takes_up(answer: &mut Answer, fresh: Answer) {
    let before = answer.clone();
    let n_kept = fresh.blocks.len();
    answer.take_up(fresh);
    is_sound(answer);
    for index in 0..before.n_blocks() {
        let is_drawn_anew = before.block_key(index) != answer.block_key(index);
        assert_eq!(is_drawn_anew, before.phase.is_over() && index >= n_kept, "block {index}, {n_kept} of them kept");
    }
}

fn is_sound(answer: &Answer) {
    let n_blocks = answer.n_blocks();
    assert_eq!(n_blocks, answer.blocks.len() + answer.tail.len());
    for index in 0..n_blocks {
        assert!(answer.block(index).is_some(), "block {index} of {n_blocks} is not there");
        assert_eq!(answer.is_final(index), index < answer.blocks.len());
    }
    assert_eq!(answer.block(n_blocks), None);
    assert!(!answer.phase.name().is_empty());
    assert!(!matches!(answer.phase, Phase::Ended { .. }) || answer.tail.is_empty(), "a tail after the end");
    blocks::links_lead_to_safe_places(&answer.blocks);
    blocks::links_lead_to_safe_places(&answer.tail);
}
