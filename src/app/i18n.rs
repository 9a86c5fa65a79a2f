//! The interface's words: one struct a language, so that a missing text doesn't compile.
//!
//! Owns every word that the page says by itself. Knows no components. The language is the document's: changing it loads
//! the document again.

pub mod en;
#[cfg(feature = "ssr")]
pub mod login;
pub mod zh;

use super::preferences::Language;
use crate::chat::{
    error::{ChatError, ErrorCode},
    event::EndReason,
};

/// All words in one language.
#[derive(Debug)]
pub struct Texts {
    /// The language these words are in.
    pub language: Language,
    /// Begins a new conversation.
    pub new_chat: &'static str,
    /// The button that changes the language, named in the other one.
    pub other_language: &'static str,
    /// The button that changes the colours.
    pub theme: &'static str,
    /// Colours as the system has them.
    pub theme_system: &'static str,
    /// Light colours.
    pub theme_light: &'static str,
    /// Dark colours.
    pub theme_dark: &'static str,
    /// The conversation, as a region.
    pub transcript: &'static str,
    /// Who the person is.
    pub you: &'static str,
    /// Who the model is.
    pub assistant: &'static str,
    /// Who a tool result is from.
    pub exec: &'static str,
    /// Words of the composer.
    pub composer: ComposerTexts,
    /// Words of the start page.
    pub start: StartTexts,
    /// Words around an answer.
    pub answer: AnswerTexts,
    /// Words of the list of conversations.
    pub list: ListTexts,
    /// Words of the settings.
    pub settings: SettingsTexts,
    /// Words about the engine.
    pub engine: EngineTexts,
    /// Goes to the newest text.
    pub jump_latest: &'static str,
    /// Closes a notice or drawer.
    pub close: &'static str,
    /// The stream is being opened again.
    pub reconnecting: &'static str,
    /// What was said is being answered in a conversation that is not looked at; leads there.
    pub answered_elsewhere: &'static str,
    /// The server has forgotten a conversation.
    pub server_forgot: &'static str,
    /// The conversation is not kept beyond the server's end.
    pub unsaved: &'static str,
    /// Heading where there is no such conversation.
    pub missing_title: &'static str,
    /// What that may mean.
    pub missing_text: &'static str,
    /// A conversation is on its way.
    pub opening: &'static str,
    /// Asks for it again.
    pub try_again: &'static str,
    /// An answer is on its way, spoken.
    pub announce_answering: &'static str,
    /// An error code in words.
    pub error_code: fn(ErrorCode) -> &'static str,
    /// When to try again, given seconds.
    pub retry_in: fn(u32) -> String,
}

/// Words of the composer.
#[derive(Debug)]
pub struct ComposerTexts {
    /// The field's name.
    pub label: &'static str,
    /// What stands in the empty field for a person.
    pub placeholder: &'static str,
    /// What stands in the empty field for a tool's result.
    pub placeholder_exec: &'static str,
    /// Sends.
    pub send: &'static str,
    /// Stops the answer.
    pub stop: &'static str,
    /// After stop was pressed.
    pub stopping: &'static str,
    /// The selector of who speaks.
    pub role: &'static str,
    /// Speaks as the person.
    pub role_user: &'static str,
    /// Speaks as a tool.
    pub role_exec: &'static str,
    /// Why there is no choice.
    pub role_unsupported: &'static str,
    /// A message waits: for the answer before it, the model or its conversation.
    pub held: &'static str,
    /// Takes it back.
    pub held_cancel: &'static str,
    /// What an answer is worth, under the composer.
    pub caution: &'static str,
}

/// Words of the start page.
#[derive(Debug)]
pub struct StartTexts {
    /// The greeting.
    pub greeting: &'static str,
    /// What to do.
    pub invitation: &'static str,
    /// Shows the other starters.
    pub more: &'static str,
    /// That this is the mini model.
    pub mini_banner: &'static str,
}

/// Words around an answer.
#[derive(Debug)]
pub struct AnswerTexts {
    /// Copies.
    pub copy: &'static str,
    /// After copying.
    pub copied: &'static str,
    /// Where copying did not work.
    pub copy_failed: &'static str,
    /// Asks for another answer.
    pub regenerate: &'static str,
    /// Asks for more of an answer that broke off.
    pub go_on: &'static str,
    /// Changes what was said.
    pub edit: &'static str,
    /// Says it instead.
    pub say_instead: &'static str,
    /// Leaves it as it was.
    pub cancel: &'static str,
    /// The branch before.
    pub previous: &'static str,
    /// The branch after.
    pub next: &'static str,
    /// Not sent yet.
    pub sending: &'static str,
    /// Waits, the place not known.
    pub queued: &'static str,
    /// Waits at this place.
    pub queued_at: fn(u32) -> String,
    /// The prompt is being read, so far and in all.
    pub reading: fn(u32, u32) -> String,
    /// Why it is over.
    pub end: fn(EndReason) -> &'static str,
    /// Tokens generated.
    pub tokens: fn(u32) -> String,
    /// Tokens a second.
    pub speed: fn(&str) -> String,
    /// Time to the first token.
    pub first_token: fn(&str) -> String,
    /// Prompt tokens that were reused.
    pub reused: fn(u32, u32) -> String,
    /// Rounds that were left out.
    pub dropped: fn(u32) -> String,
    /// The system prompt was left out.
    pub dropped_system: &'static str,
    /// A tooltip with what it was sampled with.
    pub sampled_with: &'static str,
}

/// Words of the list of conversations.
#[derive(Debug)]
pub struct ListTexts {
    /// The list, as a region.
    pub title: &'static str,
    /// The button that shows and hides it.
    pub toggle: &'static str,
    /// The search field.
    pub search: &'static str,
    /// There are no conversations.
    pub empty: &'static str,
    /// There are none with what was searched for.
    pub nothing_found: &'static str,
    /// An answer is being written there.
    pub running: &'static str,
    /// Shows more of them.
    pub more: &'static str,
    /// Gives one another title.
    pub rename: &'static str,
    /// Deletes one.
    pub delete: &'static str,
    /// One was deleted.
    pub deleted: &'static str,
    /// Takes that back.
    pub undo: &'static str,
    /// Makes a link for another device.
    pub link: &'static str,
    /// What to do with it.
    pub link_use: &'static str,
    /// For how many minutes it can be used.
    pub link_holds: fn(u32) -> String,
    /// Heading where the page was opened with such a link.
    pub offer_title: &'static str,
    /// What taking it means.
    pub offer_text: &'static str,
    /// Takes it.
    pub offer_take: &'static str,
    /// It cannot be used any more.
    pub link_gone: &'static str,
}

/// One setting in words.
#[derive(Debug)]
pub struct SettingText {
    /// Its name.
    pub name: &'static str,
    /// What it does, in one sentence.
    pub help: &'static str,
}

/// Words of the settings.
#[derive(Debug)]
pub struct SettingsTexts {
    /// The drawer's heading and the button's name.
    pub title: &'static str,
    /// Something differs from the defaults.
    pub changed: &'static str,
    /// Back to the default.
    pub reset: &'static str,
    /// All back to the defaults.
    pub reset_all: &'static str,
    /// The server's default.
    pub default: fn(&str) -> String,
    /// The bounds, where a value is outside.
    pub out_of_range: fn(&str, &str) -> String,
    /// No seed: a fresh one for each answer.
    pub seed_random: &'static str,
    /// Temperature.
    pub temperature: SettingText,
    /// Top-k.
    pub top_k: SettingText,
    /// Top-p.
    pub top_p: SettingText,
    /// Repetition penalty.
    pub repetition_penalty: SettingText,
    /// Longest answer.
    pub max_new_tokens: SettingText,
    /// Seed.
    pub seed: SettingText,
    /// System prompt.
    pub system: SettingText,
    /// Why there is no system prompt.
    pub system_unsupported: &'static str,
    /// What stands in the empty system field.
    pub system_placeholder: &'static str,
}

/// Words about the engine.
#[derive(Debug)]
pub struct EngineTexts {
    /// The panel's name.
    pub title: &'static str,
    /// The model is being loaded.
    pub loading: &'static str,
    /// What still works meanwhile.
    pub loading_hint: &'static str,
    /// There is no engine.
    pub unavailable: &'static str,
    /// The model.
    pub model: &'static str,
    /// How many parameters.
    pub parameters: &'static str,
    /// Where it runs.
    pub device: &'static str,
    /// Precision, with quantisation.
    pub dtype: &'static str,
    /// Memory of the weights.
    pub weights: &'static str,
    /// Most tokens of prompt and answer.
    pub context: &'static str,
    /// Tokens that the cache holds.
    pub kv_capacity: &'static str,
    /// The prompt format.
    pub prompt_format: &'static str,
    /// Time to load.
    pub load_time: &'static str,
    /// Load of the engine.
    pub load: &'static str,
    /// So many run, so many wait.
    pub running_waiting: fn(u32, u32) -> String,
    /// So many tokens.
    pub n_tokens: fn(&str) -> String,
    /// Quantised to so many bits.
    pub bits: fn(&str) -> String,
}

impl Texts {
    /// The words of a language.
    #[must_use]
    pub fn of(language: Language) -> &'static Self {
        match language {
            Language::Chinese => &zh::TEXTS,
            Language::English => &en::TEXTS,
        }
    }

    /// An error in words; the server's sentence is added where it has numbers that help.
    #[must_use]
    pub fn error(&self, error: &ChatError) -> String {
        let mut text = (self.error_code)(error.code).to_owned();
        match error.code {
            ErrorCode::MessageTooLong | ErrorCode::PromptTooLong | ErrorCode::SettingOutOfRange => {
                text = format!("{text} ({})", error.message);
            }
            ErrorCode::MessageEmpty
            | ErrorCode::RoleUnsupported
            | ErrorCode::NotFound
            | ErrorCode::Conflict
            | ErrorCode::ConversationFull
            | ErrorCode::TooManyConversations
            | ErrorCode::TooManyAnswers
            | ErrorCode::TooManyRequests
            | ErrorCode::OtherModel
            | ErrorCode::AccessDenied
            | ErrorCode::QueueFull
            | ErrorCode::ModelLoading
            | ErrorCode::ShuttingDown
            | ErrorCode::EngineRestarted
            | ErrorCode::EngineStalled
            | ErrorCode::UpstreamUnreachable
            | ErrorCode::UpstreamRefused
            | ErrorCode::UpstreamRejected
            | ErrorCode::UpstreamBroke
            | ErrorCode::NotANumber
            | ErrorCode::Malformed
            | ErrorCode::Unreachable
            | ErrorCode::Internal => {}
        }
        if let Some(seconds) = error.retry_after_s {
            text.push_str(&(self.retry_in)(seconds));
        }
        text
    }

    /// What a screen reader says when an answer is over.
    #[must_use]
    pub fn announce_end(&self, reason: EndReason) -> String {
        format!("{}{}", self.answer_prefix(), (self.answer.end)(reason))
    }

    fn answer_prefix(&self) -> &'static str {
        match self.language {
            Language::Chinese => "回答：",
            Language::English => "Answer: ",
        }
    }
}
