//! The list of an owner's conversations, and what is found in them.
//!
//! Searching reads the owner's texts from end to end: that finds a Chinese word of one or two characters, which an index
//! of three-character pieces cannot, and an owner has megabytes at most.

use std::ops::Range;

use rusqlite::{Connection, Row, functions::FunctionFlags, named_params};

use super::{
    code::{id_at, id_bytes},
    database::Storage,
    error::StorageError,
    record::Owner,
};
use crate::chat::{
    ids::ConversationId,
    list::{ChatList, ChatSummary, Found, ListQuery},
};

/// Characters of a text shown before and after what was found.
const AROUND_CHARS: usize = 24;

impl Storage {
    /// An owner's conversations, newest first, `limit` of them at most.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub async fn list(&self, owner: Owner, query: ListQuery, limit: usize) -> Result<ChatList, StorageError> {
        self.read(move |connection| {
            let needle = folded(query.search.trim());
            let (before_ms, before_id) = match query.after {
                Some(place) => (place.updated_ms.cast_signed(), id_bytes(place.id.as_u128())),
                None => (i64::MAX, [u8::MAX; 16]),
            };
            let mut statement = connection.prepare(
                "SELECT id, title, updated_ms,
                   EXISTS (SELECT 1 FROM message
                     WHERE conversation = c.id AND generation IS NOT NULL AND end IS NULL) AS is_running,
                   CASE WHEN :needle = '' OR holds(title, :needle) THEN NULL
                     ELSE (SELECT text FROM message WHERE conversation = c.id AND holds(text, :needle)
                       ORDER BY number LIMIT 1) END AS text
                 FROM conversation c
                 WHERE owner = :owner AND deleted_ms IS NULL AND (updated_ms, id) < (:before_ms, :before_id)
                   AND (:needle = '' OR text IS NOT NULL OR holds(title, :needle))
                 ORDER BY updated_ms DESC, id DESC LIMIT :limit",
            )?;
            let values = named_params! {
                ":owner": id_bytes(owner.0),
                ":needle": needle,
                ":before_ms": before_ms,
                ":before_id": before_id,
                ":limit": (limit + 1).cast_signed() as i64,
            };
            let rows = statement.query_map(values, |row| read_summary(row, &needle))?;
            let mut chats = rows.collect::<Result<Vec<_>, _>>()?;
            let has_more = chats.len() > limit;
            chats.truncate(limit);
            Ok(ChatList { chats, has_more })
        })
        .await
    }
}

/// Adds `holds(text, needle)` to a connection's functions: whether a text has the needle, which is folded, in any case.
pub(super) fn teach(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("holds", 2, flags, |context| {
        let (text, needle) = (context.get_raw(0).as_str()?, context.get_raw(1).as_str()?);
        Ok(place(text, needle).is_some())
    })
}

fn read_summary(row: &Row<'_>, needle: &str) -> rusqlite::Result<ChatSummary> {
    let text: Option<String> = row.get("text")?;
    Ok(ChatSummary {
        id: ConversationId::from_u128(id_at(row, "id")?),
        title: row.get("title")?,
        updated_ms: row.get::<_, i64>("updated_ms")?.cast_unsigned(),
        is_running: row.get("is_running")?,
        found: text.and_then(|text| snippet(&text, needle)),
    })
}

fn folded(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

/// Where the needle first stands in a text, in bytes of the text.
fn place(text: &str, needle: &str) -> Option<Range<usize>> {
    if needle.is_empty() {
        return None;
    }
    if !needle.chars().any(char::is_lowercase) {
        // Without letters that have a case there is nothing to fold.
        return text.find(needle).map(|start| start..start + needle.len());
    }
    let mut starts = text.char_indices().map(|(start, _)| start);
    starts.find_map(|start| ends(text.get(start..)?, needle).map(|len| start..start + len))
}

/// How many bytes of the text, folded, are the needle.
fn ends(text: &str, needle: &str) -> Option<usize> {
    let mut wanted = needle.chars().peekable();
    for (at, c) in text.char_indices() {
        if wanted.peek().is_none() {
            return Some(at);
        }
        for folded in c.to_lowercase() {
            if wanted.next() != Some(folded) {
                return None;
            }
        }
    }
    wanted.peek().is_none().then_some(text.len())
}

fn snippet(text: &str, needle: &str) -> Option<Found> {
    let Range { start, end } = place(text, needle)?;
    let (before, hit, after) = (text.get(..start)?, text.get(start..end)?, text.get(end..)?);
    let kept = before.char_indices().rev().nth(AROUND_CHARS - 1).map_or(0, |(at, _)| at);
    let ellipsis = if kept > 0 { "…" } else { "" };
    let before = format!("{ellipsis}{}", on_one_line(before.get(kept..)?));
    let after_end = after.char_indices().nth(AROUND_CHARS).map_or(after.len(), |(at, _)| at);
    let ellipsis = if after_end < after.len() { "…" } else { "" };
    let after = format!("{}{ellipsis}", on_one_line(after.get(..after_end)?));
    Some(Found { before, hit: on_one_line(hit), after })
}

fn on_one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_found_in_any_case_and_shown_as_it_stands() {
        let found = snippet("Über GROSSE Wörter", &folded("grosse")).unwrap();
        assert_eq!((found.before.as_str(), found.hit.as_str(), found.after.as_str()), ("Über ", "GROSSE", " Wörter"));
        assert_eq!(snippet("über", &folded("ÜB")).unwrap().hit, "üb");
        assert_eq!(snippet("über", "x"), None);
    }

    #[test]
    fn one_and_two_characters_of_chinese_are_found() {
        let text = "今天的天气很好，我们去公园散步。";
        assert_eq!(snippet(text, "天").unwrap().before, "今");
        assert_eq!(snippet(text, "天气").unwrap().before, "今天的");
        assert_eq!(place(text, "气天"), None);
    }

    #[test]
    fn a_long_text_is_cut_around_what_was_found() {
        let text = format!("{}针\n{}", "前".repeat(100), "后".repeat(100));
        let found = snippet(&text, "针").unwrap();
        assert_eq!(found.before, format!("…{}", "前".repeat(AROUND_CHARS)));
        assert_eq!(found.after, format!(" {}…", "后".repeat(AROUND_CHARS - 1)));
    }

    #[test]
    fn letters_that_fold_to_several_are_compared_whole() {
        // U+0130 folds to two characters.
        assert_eq!(place("aİb", &folded("İ")), Some(1..3));
        assert_eq!(place("aİb", "i"), None);
    }
}
