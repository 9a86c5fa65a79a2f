//! What a line means: a message, or a command to the program.
//!
//! Pure. **Architecture Invariant:** what begins with one slash is never sent to the model.

use std::path::PathBuf;

/// What a line means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said<'t> {
    /// To the model.
    Message(&'t str),
    /// To the program.
    Command(Command<'t>),
    /// A command that there is not, or not like this; why.
    Wrong(String),
    /// Nothing but white space.
    Nothing,
}

/// What the program is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command<'t> {
    /// Set the system prompt, or clear it.
    System(Option<&'t str>),
    /// Begin a new conversation.
    Reset,
    /// Write the conversation to a file.
    Save(PathBuf),
    /// List the commands.
    Help,
}

/// What `/help` says.
pub(super) const HELP: &str = "\
/system TEXT   sets the system prompt, /system alone clears it
/reset         begins a new conversation
/save FILE     writes the conversation to FILE.md or FILE.json
/help          this list
//text         sends /text as a message
Ctrl-C stops an answer, Ctrl-D ends";

/// Tells commands from messages.
pub(super) fn parse(text: &str) -> Said<'_> {
    if text.trim().is_empty() {
        return Said::Nothing;
    }
    let Some(command) = text.strip_prefix('/') else { return Said::Message(text) };
    if command.starts_with('/') {
        return Said::Message(command);
    }
    let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    match (name, rest.trim()) {
        ("system", "") => Said::Command(Command::System(None)),
        ("system", text) => Said::Command(Command::System(Some(text))),
        ("reset", "") => Said::Command(Command::Reset),
        ("help", "") => Said::Command(Command::Help),
        ("save", "") => Said::Wrong("/save needs the name of a file, such as talk.md or talk.json".to_owned()),
        ("save", file) => Said::Command(Command::Save(file.into())),
        ("reset" | "help", more) => Said::Wrong(format!("/{name} stands alone, found {more:?} behind it")),
        (name, _) => Said::Wrong(format!("there is no command /{name}; /help lists those there are, // sends a slash")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_begin_with_a_slash_is_a_message_as_it_is() {
        for text in ["你好", " /reset", "a /b", "-", " 你好 "] {
            assert_eq!(parse(text), Said::Message(text));
        }
        for text in ["", " ", "\t\u{3000}\n"] {
            assert_eq!(parse(text), Said::Nothing);
        }
    }

    #[test]
    fn two_slashes_send_one() {
        assert_eq!(parse("//reset"), Said::Message("/reset"));
        assert_eq!(parse("///"), Said::Message("//"));
        assert_eq!(parse("//"), Said::Message("/"));
    }

    #[test]
    fn commands_take_what_stands_behind_them() {
        for (text, command) in [
            ("/system", Command::System(None)),
            ("/system  ", Command::System(None)),
            ("/system 你是 李白 ", Command::System(Some("你是 李白"))),
            ("/system\na\nb", Command::System(Some("a\nb"))),
            ("/reset", Command::Reset),
            ("/reset ", Command::Reset),
            ("/save my talk.md", Command::Save("my talk.md".into())),
            ("/help", Command::Help),
        ] {
            assert_eq!(parse(text), Said::Command(command), "{text}");
        }
    }

    #[test]
    fn what_is_no_command_is_said_and_never_sent() {
        for (text, word) in [
            ("/", "command /;"),
            ("/x", "command /x;"),
            ("/RESET", "/RESET"),
            ("/systems a", "/systems"),
            ("/etc/passwd", "/etc/passwd"),
            ("/save", "name of a file"),
            ("/reset all", "\"all\""),
            ("/help \u{1b}[2J", "\\u{1b}"),
        ] {
            assert!(matches!(parse(text), Said::Wrong(why) if why.contains(word)), "{text}");
        }
    }
}
