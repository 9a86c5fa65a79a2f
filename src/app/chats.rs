//! The list of conversations as the page holds it: the newest ones, what was searched for, and what is not to be seen.
//!
//! A pure reducer over lists that the server gave: knows no network and no DOM. **Architecture Invariant:** a conversation
//! is in the list once, however its pages came and were asked for again.

use crate::chat::{
    ids::ConversationId,
    list::{ChatList, ChatSummary, ListPlace, ListQuery},
};

/// The list of conversations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chats {
    recent: ChatList,
    found: Option<ChatList>,
    hidden: Vec<ConversationId>,
}

impl Chats {
    /// The list as it came with the page.
    #[must_use]
    pub fn new(recent: ChatList) -> Self {
        Self { recent, found: None, hidden: Vec::new() }
    }

    /// Takes a reply in.
    pub fn take(&mut self, query: &ListQuery, reply: ChatList) {
        match query.after {
            Some(after) if self.last() == Some(after) => {
                let shown = self.found.as_mut().unwrap_or(&mut self.recent);
                shown.has_more = reply.has_more;
                append(shown, reply.chats);
            }
            // It belongs behind something that is not the end any more.
            Some(_) => {}
            None if query.search.is_empty() => self.refresh(reply),
            None => self.found = Some(reply),
        }
    }

    /// Shows the newest ones, whatever was searched for.
    pub fn find_nothing(&mut self) {
        self.found = None;
    }

    /// Takes a conversation out of sight.
    pub fn hide(&mut self, id: ConversationId) {
        self.hidden.push(id);
    }

    /// Shows it again.
    pub fn unhide(&mut self, id: ConversationId) {
        self.hidden.retain(|hidden| *hidden != id);
    }

    /// Calls a conversation something else.
    pub fn rename(&mut self, id: ConversationId, title: &str) {
        for list in self.found.iter_mut().chain([&mut self.recent]) {
            for chat in list.chats.iter_mut().filter(|chat| chat.id == id) {
                title.clone_into(&mut chat.title);
            }
        }
    }

    /// What is shown, newest first.
    pub fn shown(&self) -> impl Iterator<Item = &ChatSummary> {
        self.list().chats.iter().filter(|chat| !self.hidden.contains(&chat.id))
    }

    /// One that is shown.
    #[must_use]
    pub fn get(&self, id: ConversationId) -> Option<&ChatSummary> {
        self.shown().find(|chat| chat.id == id)
    }

    /// All there are, where that is known; that there are none is not, for it may be that they could not be read.
    #[must_use]
    pub fn all(&self) -> Option<Vec<ConversationId>> {
        let is_known = !self.recent.has_more && !self.recent.chats.is_empty();
        is_known.then(|| self.recent.chats.iter().map(|chat| chat.id).collect())
    }

    /// Whether what is shown was searched for.
    #[must_use]
    pub fn is_found(&self) -> bool {
        self.found.is_some()
    }

    /// Where more are to be had.
    #[must_use]
    pub fn more(&self) -> Option<ListPlace> {
        self.last().filter(|_| self.list().has_more)
    }

    fn list(&self) -> &ChatList {
        self.found.as_ref().unwrap_or(&self.recent)
    }

    fn last(&self) -> Option<ListPlace> {
        self.list().chats.last().map(|chat| ListPlace { updated_ms: chat.updated_ms, id: chat.id })
    }

    /// The newest ones came again: older ones that were there stay behind them.
    fn refresh(&mut self, fresh: ChatList) {
        let before = std::mem::replace(&mut self.recent, fresh);
        let end = self.recent.chats.last().filter(|_| self.recent.has_more).map(|chat| chat.updated_ms);
        let n_fresh = self.recent.chats.len();
        append(&mut self.recent, before.chats.into_iter().filter(|chat| Some(chat.updated_ms) <= end));
        if self.recent.chats.len() > n_fresh {
            self.recent.has_more = before.has_more;
        }
    }
}

fn append(list: &mut ChatList, chats: impl IntoIterator<Item = ChatSummary>) {
    for chat in chats {
        if list.chats.iter().all(|known| known.id != chat.id) {
            list.chats.push(chat);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(updated_ms: u64) -> ChatSummary {
        let title = updated_ms.to_string();
        ChatSummary { id: ConversationId::random(), title, updated_ms, is_running: false, found: None }
    }

    fn list(chats: &[&ChatSummary], has_more: bool) -> ChatList {
        ChatList { chats: chats.iter().map(|chat| (*chat).clone()).collect(), has_more }
    }

    fn titles(chats: &Chats) -> Vec<&str> {
        chats.shown().map(|chat| chat.title.as_str()).collect()
    }

    fn after(chats: &Chats) -> ListQuery {
        ListQuery { search: String::new(), after: chats.more() }
    }

    #[test]
    fn more_come_behind_the_last_one_and_once() {
        let (a, b, c) = (chat(3), chat(2), chat(1));
        let mut chats = Chats::new(list(&[&a, &b], true));
        let query = after(&chats);
        chats.take(&query, list(&[&b, &c], false));
        assert_eq!(titles(&chats), ["3", "2", "1"]);
        assert_eq!(chats.more(), None);
        chats.take(&query, list(&[&chat(0)], false));
        assert_eq!(titles(&chats), ["3", "2", "1"]);
    }

    #[test]
    fn what_was_there_stays_behind_the_newest_ones_that_came_again() {
        let (a, b, c) = (chat(3), chat(2), chat(1));
        let mut chats = Chats::new(list(&[&a, &b], true));
        chats.take(&after(&chats), list(&[&c], false));
        let again = ChatSummary { updated_ms: 5, ..c };
        chats.take(&ListQuery::default(), list(&[&chat(6), &again], true));
        assert_eq!(titles(&chats), ["6", "1", "3", "2"]);
        assert_eq!(chats.more(), None);
        chats.take(&ListQuery::default(), list(&[&b], false));
        assert_eq!(titles(&chats), ["2"], "all there are have come");
        assert_eq!(chats.all(), Some(vec![b.id]));
    }

    #[test]
    fn a_gap_is_asked_for_again() {
        let (a, b) = (chat(3), chat(2));
        let mut chats = Chats::new(list(&[&a], true));
        chats.take(&ListQuery::default(), list(&[&b], true));
        assert_eq!(titles(&chats), ["2"]);
        assert!(chats.more().is_some());
        assert_eq!(chats.all(), None);
    }

    #[test]
    fn what_was_found_is_shown_until_nothing_is_searched_for() {
        let (a, b) = (chat(3), chat(2));
        let mut chats = Chats::new(list(&[&a], false));
        chats.take(&ListQuery { search: "2".to_owned(), after: None }, list(&[&b], false));
        assert_eq!(titles(&chats), ["2"]);
        chats.take(&ListQuery::default(), list(&[&a, &b], false));
        assert_eq!(titles(&chats), ["2"]);
        chats.find_nothing();
        assert_eq!(titles(&chats), ["3", "2"]);
    }

    #[test]
    fn a_deleted_one_is_out_of_sight_even_where_an_older_reply_has_it() {
        let (a, b) = (chat(3), chat(2));
        let mut chats = Chats::new(list(&[&a, &b], false));
        chats.hide(a.id);
        chats.take(&ListQuery::default(), list(&[&a, &b], false));
        assert_eq!(titles(&chats), ["2"]);
        chats.unhide(a.id);
        assert_eq!(titles(&chats), ["3", "2"]);
    }

    #[test]
    fn a_new_title_is_seen_in_both_lists() {
        let a = chat(3);
        let mut chats = Chats::new(list(&[&a], false));
        chats.take(&ListQuery { search: "3".to_owned(), after: None }, list(&[&a], false));
        chats.rename(a.id, "three");
        assert_eq!(titles(&chats), ["three"]);
        chats.find_nothing();
        assert_eq!(titles(&chats), ["three"]);
    }
}
