//! English.

use super::{AnswerTexts, ComposerTexts, EngineTexts, ListTexts, SettingText, SettingsTexts, StartTexts, Texts};
use crate::{
    app::{format, preferences::Language},
    chat::{error::ErrorCode, event::EndReason},
};

/// All words in English.
pub static TEXTS: Texts = Texts {
    language: Language::English,
    new_chat: "New chat",
    other_language: "中文",
    theme: "Appearance",
    theme_system: "as the system",
    theme_light: "light",
    theme_dark: "dark",
    transcript: "Conversation",
    you: "You",
    assistant: "Model",
    exec: "Tool result",
    composer: ComposerTexts {
        label: "Message",
        placeholder: "What is on your mind?",
        placeholder_exec: "Paste what the tool returned",
        send: "Send",
        stop: "Stop",
        stopping: "Stopping…",
        role: "Speak as",
        role_user: "User",
        role_exec: "Exec",
        role_unsupported: "Not available: this model's prompt format (v1) has no exec role.",
        held: "To be sent next",
        held_cancel: "Take back",
        caution: "Answers are made by a model and can be wrong. Check what matters.",
    },
    start: StartTexts {
        greeting: "Hello. What shall we talk about?",
        invitation: "Type away, or begin with an example.",
        more: "More",
        mini_banner: "This is the mini model that ships with the project: it knows its training dialogues and nothing \
                      else, and is here for demonstration only.",
    },
    answer: AnswerTexts {
        copy: "Copy",
        copied: "Copied",
        copy_failed: "Copying failed, please select the text by hand",
        regenerate: "Regenerate",
        go_on: "Continue",
        edit: "Edit",
        say_instead: "Send",
        cancel: "Cancel",
        previous: "Previous branch",
        next: "Next branch",
        sending: "Sending…",
        queued: "Queued…",
        queued_at: |place| format!("Queued · place {place}"),
        reading: |done, total| match total {
            0 => "Reading…".to_owned(),
            total => format!("Reading · {} / {} tokens", format::count(done.into()), format::count(total.into())),
        },
        end,
        tokens: |tokens| match tokens {
            1 => "1 token".to_owned(),
            tokens => format!("{} tokens", format::count(tokens.into())),
        },
        speed: |speed| format!("{speed} tokens/s"),
        first_token: |time| format!("first token after {time}"),
        reused: |reused, prompt| {
            format!("prompt reused {} / {}", format::count(reused.into()), format::count(prompt.into()))
        },
        dropped: |rounds| match rounds {
            1 => "the oldest round no longer fits the context and was left out".to_owned(),
            rounds => format!("the oldest {rounds} rounds no longer fit the context and were left out"),
        },
        dropped_system: "the system prompt no longer fits the context and was left out",
        sampled_with: "Sampled with",
    },
    list: ListTexts {
        title: "Conversations",
        toggle: "Conversations (Ctrl+B)",
        search: "Search (Ctrl+K)",
        empty: "Conversations will appear here.",
        nothing_found: "Nothing found.",
        running: "Answering",
        more: "More",
        rename: "Rename",
        delete: "Delete",
        deleted: "Deleted",
        undo: "Undo",
        link: "Use on another device",
        link_use: "Open this link on the other device to see all conversations of this one there. It works for whoever opens it: \
                   do not pass it on.",
        link_holds: |minutes| format!("It holds for {minutes} min and works once."),
        offer_title: "Use another device's conversations here?",
        offer_text: "The conversations of the device that made this link will be seen here, and those of this browser join \
                     them: both devices will see all. Accept only links that you made yourself.",
        offer_take: "I made it, accept",
        link_gone: "The link no longer holds or was used already. Make a new one.",
    },
    settings: SettingsTexts {
        title: "Settings",
        changed: "changed",
        reset: "Reset",
        reset_all: "Reset all",
        default: |value| format!("default {value}"),
        out_of_range: |min, max| format!("expected a number from {min} to {max}"),
        seed_random: "random",
        temperature: SettingText {
            name: "Temperature",
            help: "Higher is more varied, lower more predictable; 0 always takes the likeliest token.",
        },
        top_k: SettingText { name: "Top-k", help: "Draws among the k likeliest tokens only; 0 is no limit." },
        top_p: SettingText {
            name: "Top-p",
            help: "Draws among the likeliest tokens that together reach probability p.",
        },
        repetition_penalty: SettingText {
            name: "Repetition penalty",
            help: "Above 1, tokens that came up already are less likely to come again.",
        },
        max_new_tokens: SettingText { name: "Longest answer", help: "Most tokens that one answer may have." },
        seed: SettingText {
            name: "Seed",
            help: "The same seed, settings and conversation give the same answer; empty means a new one each time.",
        },
        system: SettingText {
            name: "System prompt",
            help: "Sets who the model is and its rules, from the next message on, in this conversation only.",
        },
        system_unsupported: "Not available: this model's prompt format (v1) has no system role. Put it into the first message instead.",
        system_placeholder: "For example: You are a patient teacher.",
    },
    engine: EngineTexts {
        title: "About the model",
        loading: "The model is loading…",
        loading_hint: "You can write already; it is sent as soon as the model is ready.",
        unavailable: "The model is not available",
        model: "Model",
        parameters: "Parameters",
        device: "Device",
        dtype: "Precision",
        weights: "Weights in memory",
        context: "Context length",
        kv_capacity: "Cache capacity",
        prompt_format: "Prompt format",
        load_time: "Load time",
        load: "Load",
        running_waiting: |running, waiting| format!("{running} generating, {waiting} waiting"),
        n_tokens: |tokens| format!("{tokens} tokens"),
        bits: |bits| format!("{bits}-bit"),
    },
    jump_latest: "Jump to latest",
    close: "Close",
    reconnecting: "The connection was lost, reconnecting…",
    answered_elsewhere: "Your message is being answered in a conversation of its own. Go there",
    server_forgot: "The server no longer knows this answer; what was shown stays here.",
    unsaved: "This conversation is not saved: the server's disk may be full or read-only. It is lost when the server restarts.",
    missing_title: "No such conversation",
    missing_text: "The link may be wrong, the conversation may be deleted, or it is somebody else's.",
    opening: "Opening the conversation…",
    try_again: "Try again",
    announce_answering: "Answering",
    error_code,
    retry_in: |seconds| format!(" Try again in {seconds} s."),
};

fn end(reason: EndReason) -> &'static str {
    match reason {
        EndReason::EndOfText => "Complete",
        EndReason::Length => "Length limit reached",
        EndReason::StopString => "Stop string reached",
        EndReason::Stopped => "Stopped",
        EndReason::Interrupted => "Interrupted",
        EndReason::Failed { code } => error_code(code),
    }
}

fn error_code(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::MessageEmpty => "The message is empty.",
        ErrorCode::MessageTooLong => "The message is too long.",
        ErrorCode::PromptTooLong => "This message does not fit the model's context.",
        ErrorCode::SettingOutOfRange => "A setting is out of range.",
        ErrorCode::RoleUnsupported => "This model's prompt format has no such role.",
        ErrorCode::NotFound => "There is no such conversation.",
        ErrorCode::Conflict => "The answer before is not over yet, please try again in a moment.",
        ErrorCode::ConversationFull => "This conversation is full, please begin a new one.",
        ErrorCode::TooManyConversations => {
            "You have as many conversations as the server keeps; delete one to begin another."
        }
        ErrorCode::TooManyAnswers => {
            "As many answers are being written for you as may be at once; wait for one or stop it."
        }
        ErrorCode::TooManyRequests => "That was too quick, please wait a moment.",
        ErrorCode::OtherModel => {
            "Another model wrote this answer, so this one cannot continue it; regenerate it instead."
        }
        ErrorCode::AccessDenied => "You are not logged in, or no longer; please log in with the access token.",
        ErrorCode::QueueFull => "Too many people are waiting.",
        ErrorCode::ModelLoading => "The model is still loading.",
        ErrorCode::ShuttingDown => "The server is shutting down.",
        ErrorCode::EngineRestarted => "The engine failed and was restarted, please try again.",
        ErrorCode::EngineStalled => "The engine has stopped responding, please try again later.",
        ErrorCode::UpstreamUnreachable => {
            "The model's server cannot be reached or has too much to do, please try again later."
        }
        ErrorCode::UpstreamRefused => {
            "The model's server refused the request; whoever runs this page finds the reason in its log."
        }
        ErrorCode::UpstreamRejected => {
            "The model's server does not take this request as it is; try again with other words or settings."
        }
        ErrorCode::UpstreamBroke => "The model's server failed in the middle of the answer, please try again.",
        ErrorCode::NotANumber => "The model computed invalid numbers; try again or change the settings.",
        ErrorCode::Malformed => "The page and the server did not understand each other; please load the page again.",
        ErrorCode::Unreachable => "The server could not be reached. Check the connection and try again.",
        ErrorCode::Internal => "Something failed on the server, please try again.",
    }
}
