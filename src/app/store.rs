//! The page's state as signals.
//!
//! Owns what the components share; each answer has a signal of its own, so that arriving text touches nothing else.
//! Changes are worked out by `transcript`, `answer` and `chats`. Knows nothing of how things look.

pub mod edits;
pub mod list;

mod commands;

use leptos::{prelude::*, task::spawn_local};

use self::list::List;
use super::{
    answer::Answer,
    drafts::{self, Kind},
    i18n::Texts,
    state::{Shared, State},
    transcript::{Action, Transcript},
};
use crate::{
    api,
    chat::{
        error::{ChatError, ErrorCode},
        ids::{ConversationId, MessageId},
        info::{ConversationView, EngineStatus, ModelInfo, PageData},
        message::{MessageText, Role},
        settings::Settings,
    },
};

/// Something said to the person above the composer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Something went wrong.
    Error(String),
    /// The stream is being opened again.
    Reconnecting,
    /// This new conversation was begun after the person had gone elsewhere.
    Elsewhere(ConversationId),
}

/// What goes into the composer from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Draft {
    /// Comes after what is there.
    Append(String),
    /// Was sent, and comes back: what was typed meanwhile stays behind it.
    PutBack(String),
}

/// A message that waits: for the answer before it, the model or its conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub text: MessageText,
    /// The message that it is to follow.
    pub after: Option<MessageId>,
    /// The visit that it was said in.
    pub visit: u32,
}

/// How far the conversation has come that the person wants to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// It is there, or is a new one.
    Done,
    /// It is on its way.
    Running,
    /// It could not be had.
    Failed,
}

/// Which conversation the person wants to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// `None` for a new one.
    pub conversation: Option<ConversationId>,
    /// Counts how often another one was opened, so that naming a new conversation isn't mistaken for going elsewhere.
    pub visit: u32,
}

/// The page's state.
#[derive(Clone, Copy)]
pub struct Store {
    /// The interface's words.
    pub texts: &'static Texts,
    /// The server's title.
    pub title: State<String>,
    /// The conversation that is looked at.
    pub transcript: State<Transcript>,
    /// Whether it is kept beyond the server's end.
    pub is_saved: State<bool>,
    /// Its messages that are being edited.
    pub edited: State<Vec<MessageId>>,
    /// The list of conversations.
    pub list: List,
    /// The engine.
    pub engine: State<EngineStatus>,
    /// Sampling values that were changed.
    pub settings: State<Settings>,
    /// The system prompt from the next message on.
    pub system: State<String>,
    /// The system prompt as the server has it.
    pub known_system: State<String>,
    /// Who says the next message.
    pub role: State<Role>,
    /// A message that waits.
    pub held: State<Option<Held>>,
    /// A text for the composer.
    pub draft: State<Option<Draft>>,
    /// What the person should know.
    pub notice: State<Option<Notice>>,
    /// What a screen reader says.
    pub announcement: State<String>,
    /// Where the person is.
    pub place: State<Place>,
    /// Whether the address names a conversation that isn't there.
    pub is_missing: State<bool>,
    /// Whether the conversation is there.
    pub opening: State<Opening>,
    /// The answer that was asked to stop.
    pub stopping: State<Option<MessageId>>,
    /// Whether stop was pressed before the command had come back.
    stop_early: State<bool>,
    /// Counts how often a conversation was asked for: only the newest reply says how it stands.
    fetches: State<u32>,
    answers: State<Vec<(MessageId, Shared<Answer>)>>,
}

impl Store {
    /// The state of a page that was just loaded.
    #[must_use]
    pub fn new(texts: &'static Texts, page: PageData, is_missing: bool) -> Self {
        let known_system = page.conversation.as_ref().map(|view| view.system.clone()).unwrap_or_default();
        let place = Place { conversation: page.conversation.as_ref().map(|view| view.id), visit: 0 };
        Self {
            texts,
            title: State::new(page.title),
            is_saved: State::new(page.conversation.as_ref().is_none_or(|view| view.is_saved)),
            transcript: State::new(Transcript::open(page.conversation)),
            edited: State::new(Vec::new()),
            list: List::new(page.chats),
            engine: State::new(page.engine),
            settings: State::new(Settings::default()),
            system: State::new(known_system.clone()),
            known_system: State::new(known_system),
            role: State::new(Role::User),
            held: State::new(None),
            draft: State::new(None),
            notice: State::new(None),
            announcement: State::new(String::new()),
            place: State::new(place),
            is_missing: State::new(is_missing),
            opening: State::new(Opening::Done),
            stopping: State::new(None),
            stop_early: State::new(false),
            fetches: State::new(0),
            answers: State::new(Vec::new()),
        }
    }

    /// The model, once it is loaded.
    #[must_use]
    pub fn model(self) -> Option<ModelInfo> {
        self.engine.with(|engine| match engine {
            EngineStatus::Ready { model, .. } => Some(model.clone()),
            EngineStatus::Loading | EngineStatus::Unavailable { .. } => None,
        })
    }

    /// Whether the prompt format has this role; while the model loads it is not known to have it.
    #[must_use]
    pub fn supports(self, role: Role) -> bool {
        self.engine
            .with(|engine| matches!(engine, EngineStatus::Ready { model, .. } if model.prompt_format.supports(role)))
    }

    /// Whether the exact tokens of answers are known, so that they can be gone on with.
    #[must_use]
    pub fn knows_tokens(self) -> bool {
        self.engine.with(|engine| !matches!(engine, EngineStatus::Ready { model, .. } if !model.is_computed_here()))
    }

    /// The signal of one answer; `None` of a message that is no answer.
    #[must_use]
    pub fn answer(self, id: MessageId) -> Option<Shared<Answer>> {
        let known = self.known_answer(id);
        if known.is_some() {
            return known;
        }
        let answer = self.transcript.with_untracked(|transcript| Answer::from_message(transcript.message(id)?))?;
        let signal = Shared::new(answer);
        self.answers.update(|answers| {
            answers.push((id, signal.clone()));
        });
        Some(signal)
    }

    /// The signal of one answer, where somebody asked for it already.
    fn known_answer(self, id: MessageId) -> Option<Shared<Answer>> {
        let find = |answers: &Vec<(MessageId, Shared<Answer>)>| {
            answers.iter().find(|(known, _)| *known == id).map(|(_, answer)| answer.clone())
        };
        self.answers.with_untracked(find)
    }

    /// The answer at the end of what is shown, where it is still running.
    #[must_use]
    pub fn running(self) -> Option<MessageId> {
        let leaf = self.leaf()?;
        let is_over = self.answer(leaf)?.with(|answer| answer.phase.is_over());
        (!is_over).then_some(leaf)
    }

    /// Whether a message that is sent now has to wait.
    #[must_use]
    pub fn is_busy(self) -> bool {
        self.transcript.with(|transcript| transcript.pending().is_some())
            || self.running().is_some()
            || self.engine.with(|engine| *engine == EngineStatus::Loading)
            || self.opening.get() != Opening::Done
    }

    /// Looks at another conversation, or at none yet.
    pub fn open(self, conversation: Option<ConversationId>) {
        let visit = self.place.with_untracked(|place| place.visit) + 1;
        self.place.set(Place { conversation, visit });
        self.show(None);
        self.fetch();
    }

    /// Asks for the conversation that the person wants to look at, where it is not there or has changed.
    pub fn fetch(self) {
        let number = self.fetches.get_untracked() + 1;
        self.fetches.set(number);
        self.notice.set(None);
        let Some(id) = self.place.with_untracked(|place| place.conversation) else { return };
        self.opening.set(Opening::Running);
        spawn_local(async move {
            let page = api::page(Some(id)).await;
            if self.fetches.get_untracked() != number {
                return;
            }
            match page {
                Ok(mut page) => {
                    self.take_around(&mut page);
                    let before = untrack(|| self.leaf());
                    self.show(page.conversation);
                    self.put_behind(before, untrack(|| self.leaf()));
                }
                Err(error) if error.code == ErrorCode::NotFound => self.miss(),
                Err(error) => {
                    self.opening.set(Opening::Failed);
                    self.take_back();
                    self.fail(&error);
                }
            }
        });
    }

    /// There is no such conversation: what is said next begins a new one.
    fn miss(self) {
        self.opening.set(Opening::Done);
        self.take_back();
        self.place.update(|place| place.conversation = None);
        self.is_missing.set(true);
    }

    /// Asks the server how a conversation stands whose stream was refused.
    pub async fn ask_again(self, conversation: ConversationId) -> Result<(), ChatError> {
        let mut page = api::page(Some(conversation)).await?;
        self.take_around(&mut page);
        let Some(view) = page.conversation else { return Err(ChatError::not_found("conversation")) };
        self.is_saved.set(view.is_saved);
        for message in &view.messages {
            if let (Some(known), Some(fresh)) = (self.answer(message.id), Answer::from_message(message))
                // It ended, or it is being gone on with.
                && known.with_untracked(|known| !known.phase.is_over() && known.generation != fresh.generation)
            {
                known.update(|known| known.take_up(fresh));
            }
        }
        Ok(())
    }

    /// Takes in what a page says beside the conversation.
    pub fn take_around(self, page: &mut PageData) {
        self.engine.set(page.engine.clone());
        self.take_chats(std::mem::take(&mut page.chats));
    }

    /// Puts the system prompt behind the one that is kept.
    pub fn join_kept_system(self) {
        let conversation = self.place.with_untracked(|place| place.conversation);
        self.system.update(|system| *system = drafts::behind_kept(Kind::System, conversation, system));
    }

    /// Says what went wrong.
    pub fn fail(self, error: &ChatError) {
        self.notice.set(Some(Notice::Error(self.texts.error(error))));
    }

    /// Takes an action in.
    pub fn apply(self, action: Action) {
        self.transcript.update(|transcript| transcript.apply(action));
    }

    /// What the conversation is called; `None` of a new one.
    #[must_use]
    pub fn heading(self) -> Option<String> {
        self.transcript.with(Transcript::title).or_else(|| {
            let id = self.place.get().conversation?;
            self.list.chats.with(|chats| Some(chats.get(id)?.title.clone()))
        })
    }

    /// The newest message that is shown.
    #[must_use]
    pub fn leaf(self) -> Option<MessageId> {
        self.transcript.with(|transcript| transcript.leaf().map(|leaf| leaf.id))
    }

    fn show(self, conversation: Option<ConversationView>) {
        self.opening.set(Opening::Done);
        self.answers.update(Vec::clear);
        self.is_saved.set(conversation.as_ref().is_none_or(|view| view.is_saved));
        let known_system = conversation.as_ref().map(|view| view.system.clone()).unwrap_or_default();
        let kept = drafts::kept(Kind::System, self.place.with_untracked(|place| place.conversation));
        self.system.set(kept.unwrap_or_else(|| known_system.clone()));
        self.known_system.set(known_system);
        self.role.set(Role::User);
        self.stopping.set(None);
        self.is_missing.set(false);
        self.apply(Action::Opened(conversation));
        self.take_up_edits();
    }
}
