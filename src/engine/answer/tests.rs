//! Answers of the mini model, read in each way there is.

use std::{
    path::Path,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use futures::StreamExt;

use crate::{
    chat::{
        event::EndReason,
        settings::{Sampling, Settings},
    },
    engine::{ChatOptions, Engine, EngineError, load::LoadOptions, prompt::Turn, room::KvSize, worker::EngineOptions},
};

/// Answered by the mini model with hundreds of tokens.
const LONG: &str = "Write a Python program that counts the words in a text file, and explain each part.";

fn engine(min_step_ms: u64, tokens: usize) -> Engine {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/xverse-mini");
    let options = LoadOptions { threads: Some(1), kv_size: KvSize::Tokens(tokens), ..LoadOptions::new(folder) };
    Engine::load_with(options, EngineOptions { min_step_ms, ..EngineOptions::default() }).unwrap()
}

fn greedy(max_new_tokens: u32) -> ChatOptions {
    let settings = Settings { temperature: Some(0.0), max_new_tokens: Some(max_new_tokens), ..Settings::default() };
    ChatOptions { settings, ..ChatOptions::conversation() }
}

/// Wakes the thread that polls.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The least that an async runtime can be.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn iterated_awaited_and_streamed_it_is_the_same() {
    let engine = engine(0, 2048);
    let (turns, options) = ([Turn::user(LONG)], greedy(30));
    let mut iterated = engine.chat_with(&turns, &options).unwrap();
    let tokens: Vec<_> = iterated.by_ref().collect();
    assert_eq!(iterated.end(), Some(EndReason::Length));
    assert_eq!(iterated.next(), None);
    assert_eq!(iterated.stats().generated_tokens, 30);
    assert_eq!(tokens.iter().map(|token| token.text.as_str()).collect::<String>(), iterated.text());
    assert_eq!(iterated.turn(), Turn::assistant(iterated.text()));

    let mut awaited = engine.chat_with(&turns, &options).unwrap();
    block_on(async { while awaited.next_token().await.is_some() {} });
    assert_eq!((awaited.text(), awaited.end()), (iterated.text(), iterated.end()));
    let mut stream = engine.chat_with(&turns, &options).unwrap().into_stream();
    assert_eq!(block_on(stream.by_ref().collect::<Vec<_>>()), tokens);
    assert_eq!(stream.answer().end(), Some(EndReason::Length));
}

#[test]
fn a_stop_string_ends_it_and_is_not_in_it() {
    let engine = engine(0, 2048);
    let mut whole = engine.chat_with(&[Turn::user(LONG)], &greedy(60)).unwrap();
    whole.by_ref().for_each(drop);
    let stop: String = whole.text().chars().skip(20).take(4).collect();
    let options = ChatOptions { stop: vec![stop.clone()], ..greedy(60) };
    let mut stopped = engine.chat_with(&[Turn::user(LONG)], &options).unwrap();
    stopped.by_ref().for_each(drop);
    assert_eq!(stopped.end(), Some(EndReason::StopString));
    assert_eq!(Some(stopped.text()), whole.text().split(&stop).next());
}

#[test]
fn turns_of_one_conversation_are_read_once_and_of_others_each() {
    let engine = engine(0, 2048);
    let options = greedy(20);
    let mut turns = vec![Turn::user(LONG)];
    let mut answer = engine.chat_with(&turns, &options).unwrap();
    answer.by_ref().for_each(drop);
    assert_eq!(answer.stats().reused_tokens, 0);
    turns.extend([answer.turn(), Turn::user("Thank you!")]);
    let read = |options: &ChatOptions| {
        let mut answer = engine.chat_with(&turns, options).unwrap();
        answer.by_ref().for_each(drop);
        (answer.stats().reused_tokens, answer.text().to_owned())
    };
    let (reused, text) = read(&options);
    assert!(reused > 0);
    for other in [greedy(20), ChatOptions { conversation: None, ..greedy(20) }] {
        assert_eq!(read(&other), (0, text.clone()));
    }
}

#[test]
fn it_is_cancelled_from_elsewhere_and_by_being_dropped() {
    let engine = engine(5, 2048);
    let mut answer = engine.chat_with(&[Turn::user(LONG)], &greedy(500)).unwrap();
    assert!(answer.next().is_some());
    let canceller = answer.canceller();
    thread::spawn(move || canceller.cancel()).join().unwrap();
    let rest = answer.by_ref().count();
    assert_eq!(answer.end(), Some(EndReason::Stopped));
    assert!(rest < 400, "{rest}");

    let mut answer = engine.chat_with(&[Turn::user(LONG)], &greedy(500)).unwrap();
    assert!(answer.next().is_some());
    drop(answer);
    let deadline = Instant::now() + Duration::from_secs(5);
    while engine.handle().stats().running.get() > 0 {
        assert!(Instant::now() < deadline, "it goes on");
        thread::yield_now();
    }
}

#[test]
fn an_answer_gets_what_the_prompt_leaves_and_a_long_history_loses_its_oldest_rounds() {
    let engine = engine(0, 128);
    let history = |rounds: usize| {
        let round = |n| [Turn::user(format!("问题 {n}")), Turn::assistant("回答 ".repeat(8))];
        (0..rounds).flat_map(round).chain([Turn::user(LONG)]).collect::<Vec<_>>()
    };
    let mut answer = engine.chat_with(&history(8), &greedy(127)).unwrap();
    answer.by_ref().for_each(drop);
    let stats = answer.stats();
    assert!(stats.dropped_rounds > 0 && !stats.dropped_system, "{stats:?}");
    assert!(stats.prompt_tokens <= 64 && stats.prompt_tokens + stats.generated_tokens <= 128, "{stats:?}");
    let sampling = Sampling { max_new_tokens: 127, ..Sampling::default() };
    assert_eq!(engine.prompts().sampling_beside(100, sampling).max_new_tokens, 28);
    assert_eq!(engine.prompts().sampling_beside(128, sampling).max_new_tokens, 1);
}

#[test]
fn what_cannot_be_answered_is_refused_by_its_reason() {
    let engine = engine(0, 128);
    let refused = |turns: &[Turn], options: &ChatOptions| engine.chat_with(turns, options).unwrap_err();
    let long = refused(&[Turn::user("你好 ".repeat(200))], &greedy(16));
    assert!(matches!(long, EngineError::Prompt(_)) && long.to_string().contains("at most"), "{long}");
    assert!(matches!(refused(&[Turn::assistant("你好")], &greedy(16)), EngineError::Prompt(_)));
    let EngineError::Settings(setting) = refused(&[Turn::user("你好")], &greedy(0)) else { panic!() };
    assert_eq!(setting.name, "max_new_tokens");
    assert!(matches!(Engine::load("/no/such/model"), Err(EngineError::Load(_))));
    engine.handle().shut_down();
    assert!(matches!(refused(&[Turn::user("你好")], &greedy(16)), EngineError::Submit(_)));
}
