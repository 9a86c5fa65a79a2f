//! The list of a visitor's conversations, and what is found in them.
//!
//! Owns how a title is made of what was said. Knows nothing of where conversations are kept.

use serde::{Deserialize, Serialize};

use super::{
    error::{ChatError, ErrorCode},
    ids::ConversationId,
    limits::MAX_TITLE_CHARS,
};

/// Characters of a title that nobody chose.
const MADE_TITLE_CHARS: usize = 40;

/// Which conversations are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListQuery {
    /// Only those with this in their title or in what was said, in any case; blank for all.
    pub search: String,
    /// Only those after this one in the list, `None` for the newest.
    pub after: Option<ListPlace>,
}

/// A place in the list, which is ordered by time, newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListPlace {
    /// When something last happened there, Unix time in milliseconds.
    pub updated_ms: u64,
    /// Which.
    pub id: ConversationId,
}

/// Some conversations, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatList {
    /// The conversations.
    pub chats: Vec<ChatSummary>,
    /// Whether there are more after these.
    pub has_more: bool,
}

/// One conversation in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatSummary {
    /// Its name.
    pub id: ConversationId,
    /// What it is called.
    pub title: String,
    /// When something last happened there, Unix time in milliseconds.
    pub updated_ms: u64,
    /// Whether an answer is being written there.
    pub is_running: bool,
    /// Where what was searched for stands in what was said; `None` where it is in the title, or nothing was searched for.
    pub found: Option<Found>,
}

/// A piece of text around what was searched for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// What stands before it.
    pub before: String,
    /// As it stands there.
    pub hit: String,
    /// What stands after it.
    pub after: String,
}

/// A link by which another device gets at the same conversations: made once, used once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerLink {
    /// The secret part, which goes behind `/#link=`.
    pub code: String,
    /// Seconds for which it can be used.
    pub expires_s: u32,
}

/// The title of a conversation that begins with this text: its first line that is not blank, cut to a length. Control
/// characters become blanks.
#[must_use]
pub fn made_title(text: &str) -> String {
    let line = text.lines().map(printable).find(|line| !line.is_empty()).unwrap_or_default();
    let mut title: String = line.chars().take(MADE_TITLE_CHARS).collect();
    if line.chars().nth(MADE_TITLE_CHARS).is_some() {
        title.push('…');
    }
    title
}

/// Checks a title that somebody chose: white space around it goes, control characters become blanks.
///
/// # Errors
/// [`ErrorCode::MessageEmpty`] where nothing is left, [`ErrorCode::MessageTooLong`] over [`MAX_TITLE_CHARS`].
pub fn chosen_title(text: &str) -> Result<String, ChatError> {
    let title = printable(text);
    let n_chars = title.chars().count();
    if n_chars == 0 {
        return Err(ChatError::new(ErrorCode::MessageEmpty, "the title is empty"));
    }
    if n_chars > MAX_TITLE_CHARS {
        return Err(ChatError::new(
            ErrorCode::MessageTooLong,
            format!("the title has {n_chars} characters, at most {MAX_TITLE_CHARS} are allowed"),
        ));
    }
    Ok(title)
}

/// A text without control characters, nor white space around it.
fn printable(text: &str) -> String {
    let printable: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    printable.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_the_first_line_that_says_something() {
        assert_eq!(made_title("\n  你好，世界 \n二"), "你好，世界");
        assert_eq!(made_title("\0\n\u{1b}a\0b\rc\n"), "a b c");
        assert_eq!(made_title(&"字".repeat(40)), "字".repeat(40));
        assert_eq!(made_title(&"字".repeat(41)), format!("{}…", "字".repeat(40)));
    }

    #[test]
    fn a_chosen_title_is_one_line_within_its_length() {
        assert_eq!(chosen_title(" a\tb\n"), Ok("a b".to_owned()));
        assert_eq!(chosen_title("\0a\u{1b} "), Ok("a".to_owned()));
        assert_eq!(chosen_title(" \0\n").unwrap_err().code, ErrorCode::MessageEmpty);
        assert!(chosen_title(&"字".repeat(MAX_TITLE_CHARS)).is_ok());
        let error = chosen_title(&"字".repeat(MAX_TITLE_CHARS + 1)).unwrap_err();
        assert_eq!(error.code, ErrorCode::MessageTooLong);
        assert!(error.message.contains("101") && error.message.contains("100"), "{error}");
    }
}
