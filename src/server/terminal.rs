//! The `chat` subcommand: a conversation in the terminal, or answers to what is piped in.
//!
//! Talks to [`Engine`] as any program does that uses this crate. Answers go to standard output and nothing else does; what
//! else there is to say goes to standard error. **Architecture Invariant:** whatever is refused, the conversation goes on as
//! if it had not been said.

mod commands;
mod editor;
mod lines;
mod output;
mod source;
mod talk;

use std::{
    collections::HashSet,
    fs::OpenOptions,
    io::{self, IsTerminal, Write},
    path::PathBuf,
    time::Duration,
};

use tokio::{
    runtime::{self, Runtime},
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use self::{
    commands::{Command, Said},
    output::{Notes, Output},
    source::{Heard, Source},
    talk::Talk,
};
use super::{
    cli::{ChatArgs, ServeArgs},
    config::{engine::EngineConfig, environment, model},
    failure::Failure,
    report,
};
use crate::{
    chat::{
        event::EndReason,
        limits::MAX_MESSAGE_BYTES,
        message::{AnswerStats, MessageText, Role},
        settings::{Sampling, Settings},
    },
    engine::{ChatOptions, Engine, EngineError, answer::Answer, request::SubmitError},
};

/// How long the engine's thread gets to end.
const END_TIME: Duration = Duration::from_secs(1);

const NO_SYSTEM: &str = "this model's prompt format has no system prompt";

/// Why the conversation is over before its end.
enum Stop {
    /// Nobody reads the answers any more.
    Quietly,
    Failed(Failure),
}

/// A conversation and all that it is led with.
struct Session {
    engine: Engine,
    options: ChatOptions,
    talk: Talk,
    output: Output,
    notes: Notes,
    runtime: Runtime,
    /// Files that this conversation was saved to, which may be written again.
    saved: HashSet<PathBuf>,
    n_refused: usize,
}

/// Leads a conversation until the input is at its end.
///
/// # Errors
/// [`Failure::Refused`] for a model, setting or system prompt that is refused, [`Failure::Device`] where the engine or the
/// output breaks down, [`Failure::Input`] where some of what was piped in was not answered.
pub fn chat(args: ChatArgs) -> Result<(), Failure> {
    let settings = settings(&args);
    // What no model takes is said before one is loaded.
    check(&settings, &Sampling::default(), u32::MAX)?;
    let talk = Talk::new(args.system.clone());
    if let Some(system) = &talk.system {
        check_system(system).map_err(Failure::Refused)?;
    }
    let is_piped = args.whole_input || !io::stdin().is_terminal();
    let is_whole = args.whole_input;
    let notes = Notes::new();
    let engine = load(args, &notes)?;
    check(&settings, &engine.model().defaults, engine.model().longest_answer)?;
    if talk.system.is_some() && !engine.supports(Role::System) {
        return Err(Failure::Refused(format!("{NO_SYSTEM}\nhint: leave --system out")));
    }
    // A thread of its own takes signals in, also while this one waits for a key.
    let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Device(format!("no thread can be started: {error}")))?;
    let options = ChatOptions { settings, ..ChatOptions::conversation() };
    let (output, saved) = (Output::new(), HashSet::new());
    let mut session = Session { engine, options, talk, output, notes, runtime, saved, n_refused: 0 };
    let ended = if is_piped {
        session.lead(&mut Source::piped(is_whole))
    } else {
        let model = session.engine.model();
        let parameters = report::count(model.n_parameters.unwrap_or_default());
        let ready =
            format!("{}, {parameters} parameters, on {}; /help lists commands, Ctrl-D ends", model.name, model.device);
        session.notes.say(&ready);
        Source::terminal().map_err(Stop::Failed).and_then(|mut source| session.lead(&mut source))
    };
    session.close();
    match ended {
        Err(Stop::Failed(failure)) => Err(failure),
        Ok(()) if is_piped && session.n_refused > 0 => Err(Failure::Input(format!(
            "not answered or carried out: {}; expected 0\nhint: the messages above say why",
            session.n_refused
        ))),
        Ok(()) | Err(Stop::Quietly) => Ok(()),
    }
}

fn settings(args: &ChatArgs) -> Settings {
    Settings {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        repetition_penalty: args.repetition_penalty,
        max_new_tokens: args.max_new_tokens,
        seed: args.seed,
    }
}

fn check(settings: &Settings, defaults: &Sampling, longest: u32) -> Result<(), Failure> {
    let resolved = settings.resolve(defaults, longest);
    resolved.map(|_| ()).map_err(|error| {
        Failure::Refused(format!("{error}\nhint: leave the flag out for what the model's makers chose"))
    })
}

fn check_system(system: &str) -> Result<(), String> {
    let bytes = system.len();
    if bytes <= MAX_MESSAGE_BYTES {
        return Ok(());
    }
    Err(format!("the system prompt has {bytes} bytes, at most {MAX_MESSAGE_BYTES} are allowed"))
}

fn load(args: ChatArgs, notes: &Notes) -> Result<Engine, Failure> {
    let flags = ServeArgs {
        model: args.model,
        kv_memory: args.kv_memory,
        data_dir: args.data_dir,
        config: args.config,
        ..ServeArgs::default()
    };
    let mut config = EngineConfig::without_server(flags, environment::read(|name| std::env::var_os(name))?)?;
    config.load.threads = args.threads.map(|threads| threads as usize).or(config.load.threads);
    if config.is_stand_in {
        notes.say(model::STAND_IN);
    }
    notes.aside(&format!("loading {}", config.load.model_path.display()));
    Engine::load_with(config.load, config.engine).map_err(|error| Failure::Refused(error.to_string()))
}

impl Session {
    fn lead(&mut self, source: &mut Source) -> Result<(), Stop> {
        // From here on an interrupt no longer ends the program.
        self.runtime.block_on(async { interrupts().map(drop) })?;
        loop {
            match source.next(&self.runtime).map_err(Stop::Failed)? {
                Heard::Line { place, text } => self.hear(&place, &text)?,
                Heard::Whole(text) => self.ask("", &text)?,
                Heard::Unreadable { place, why } => self.refuse(&place, &why),
                Heard::Interrupt => self.notes.say("Ctrl-D ends the conversation"),
                Heard::End => return Ok(()),
            }
        }
    }

    fn hear(&mut self, place: &str, text: &str) -> Result<(), Stop> {
        match commands::parse(text) {
            Said::Nothing => {}
            Said::Message(text) => self.ask(place, text)?,
            Said::Wrong(why) => self.refuse(place, &why),
            Said::Command(command) => match self.carry_out(&command) {
                Ok(done) => self.notes.say(&done),
                Err(why) => self.refuse(place, &why),
            },
        }
        Ok(())
    }

    /// What was done, or why it was not.
    fn carry_out(&mut self, command: &Command<'_>) -> Result<String, String> {
        match command {
            Command::System(None) => {
                self.talk.system = None;
                Ok("no system prompt from here on".to_owned())
            }
            Command::System(Some(_)) if !self.engine.supports(Role::System) => Err(NO_SYSTEM.to_owned()),
            Command::System(Some(text)) => {
                check_system(text)?;
                self.talk.system = Some((*text).to_owned());
                Ok("the system prompt holds from here on".to_owned())
            }
            Command::Reset => {
                self.talk.reset();
                self.options.conversation = ChatOptions::conversation().conversation;
                Ok("a new conversation; the system prompt stays".to_owned())
            }
            Command::Save(path) => self.save(path),
            Command::Help => Ok(commands::HELP.to_owned()),
        }
    }

    /// Writes a file that is not there yet, or one that was saved to before.
    fn save(&mut self, path: &PathBuf) -> Result<String, String> {
        let shown = path.display();
        let text = self.talk.document(path, &self.engine.model().name)?;
        let mut how = OpenOptions::new();
        if self.saved.contains(path) {
            how.write(true).truncate(true)
        } else {
            how.write(true).create_new(true)
        };
        how.open(path).and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => format!("{shown} is there already, expected a new file"),
            _ => format!("{shown} cannot be written: {error}"),
        })?;
        self.saved.insert(path.clone());
        Ok(format!("saved to {shown}"))
    }

    fn ask(&mut self, place: &str, text: &str) -> Result<(), Stop> {
        match MessageText::parse(text) {
            Ok(text) => self.talk.ask(text),
            Err(error) => {
                self.refuse(place, &error.to_string());
                return Ok(());
            }
        }
        let mut answer = match self.engine.chat_with(&self.talk.turns(), &self.options) {
            Ok(answer) => answer,
            Err(error) => {
                self.talk.take_back();
                self.refuse(place, &error.to_string());
                let is_over = matches!(error, EngineError::Submit(SubmitError::ShuttingDown));
                return if is_over { self.check_engine() } else { Ok(()) };
            }
        };
        self.say_dropped(answer.stats());
        let end = self.runtime.block_on(read(&mut answer, &mut self.output))?;
        self.output.end_answer()?;
        let stats = answer.stats();
        let (tokens, speed) = (stats.generated_tokens, stats.tokens_per_second);
        self.notes.aside(&format!("{tokens} tokens, {speed:.1} tokens/s, {}", in_words(end)));
        let is_broken = matches!(end, EndReason::Interrupted | EndReason::Failed { .. });
        if answer.text().is_empty() && (is_broken || end == EndReason::Stopped) {
            self.talk.take_back();
            self.notes.aside("nothing was said yet; the message is taken back");
        } else {
            self.talk.answered(answer.turn());
        }
        if is_broken {
            self.refuse(place, &format!("the answer broke off: {}", in_words(end)));
            self.check_engine()?;
        }
        Ok(())
    }

    fn say_dropped(&self, stats: AnswerStats) {
        let what = match stats.dropped_rounds {
            0 => return,
            1 => "the oldest round no longer fits and is".to_owned(),
            n => format!("the {n} oldest rounds no longer fit and are"),
        };
        let with_it = if stats.dropped_system { ", the system prompt with it" } else { "" };
        self.notes.say(&format!("{what} left out of the prompt{with_it}"));
    }

    fn refuse(&mut self, place: &str, why: &str) {
        self.n_refused += 1;
        Notes::error(&format!("{place}{why}"));
    }

    /// Ends the conversation where the engine has ended.
    fn check_engine(&self) -> Result<(), Stop> {
        let handle = self.engine.handle();
        if handle.is_alive() {
            return Ok(());
        }
        match self.runtime.block_on(async { timeout(END_TIME, handle.over()).await }) {
            Ok(why) => Err(Stop::Failed(Failure::Device(format!(
                "{why}; expected an engine that goes on\nhint: start the program again"
            )))),
            Err(_) => Ok(()),
        }
    }

    /// Lets the engine's thread give the device back; one that is in a long step is not waited for.
    fn close(&self) {
        self.engine.handle().shut_down();
        let _ = self.runtime.block_on(async { timeout(END_TIME, self.engine.handle().over()).await });
    }
}

/// Writes an answer as it comes, until its end or an interrupt.
async fn read(answer: &mut Answer, output: &mut Output) -> Result<EndReason, Stop> {
    let mut interrupts = interrupts()?;
    loop {
        tokio::select! {
            biased;
            // The step that is being computed may take long; what it gives is not waited for.
            _ = interrupts.recv() => return Ok(EndReason::Stopped),
            token = answer.next_token() => match token {
                Some(token) => output.write(&token.text)?,
                None => return Ok(answer.end().unwrap_or(EndReason::Interrupted)),
            },
        }
    }
}

/// Interrupts from now on.
fn interrupts() -> Result<tokio::signal::unix::Signal, Stop> {
    signal(SignalKind::interrupt())
        .map_err(|error| Stop::Failed(Failure::Device(format!("signals cannot be listened to: {error}"))))
}

fn in_words(end: EndReason) -> &'static str {
    match end {
        EndReason::EndOfText => "complete",
        EndReason::Length => "cut off at its longest",
        EndReason::StopString => "ended by a stop string",
        EndReason::Stopped => "stopped",
        EndReason::Interrupted => "the engine has ended",
        EndReason::Failed { .. } => "a step of the engine failed",
    }
}

impl From<io::Error> for Stop {
    /// Only answers are written with `?`.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Quietly,
            _ => Self::Failed(Failure::Device(format!(
                "the answer cannot be written: {error}; expected an output that takes it\nhint: see where standard output goes"
            ))),
        }
    }
}
