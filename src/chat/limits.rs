//! Bounds of what people send, the same numbers in the page and on the server.
//!
//! Server-only limits (queue, sockets, time) live in `server::config`.

/// Most bytes of one message's text, in UTF-8.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// Most messages of one conversation, all branches counted.
pub const MAX_MESSAGES: usize = 500;

/// Most characters of a conversation's title.
pub const MAX_TITLE_CHARS: usize = 100;

/// Most characters of what is searched for.
pub const MAX_SEARCH_CHARS: usize = 100;
