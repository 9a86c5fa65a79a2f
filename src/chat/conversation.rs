//! A conversation: a tree of messages and the branch that is looked at.
//!
//! Regenerating and editing make siblings; nothing is ever taken out. Generic over the message, so that the server's
//! records and the page's views share one tree. Knows nothing of storage or of the wire.

use super::ids::MessageId;

/// What the tree needs to know of a message.
pub trait Node {
    /// Its name.
    fn id(&self) -> MessageId;
    /// The message before it.
    fn parent(&self) -> Option<MessageId>;
}

impl Node for super::message::MessageView {
    fn id(&self) -> MessageId {
        self.id
    }

    fn parent(&self) -> Option<MessageId> {
        self.parent
    }
}

/// Messages in the order in which they were added, and the newest message of the branch that is looked at.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Tree<M> {
    messages: Vec<M>,
    leaf: Option<MessageId>,
}

impl<M> Default for Tree<M> {
    fn default() -> Self {
        Self { messages: Vec::new(), leaf: None }
    }
}

/// A message names a parent that is not in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such parent message")]
pub struct UnknownParent;

impl<M: Node> Tree<M> {
    /// All messages, oldest first.
    #[must_use]
    pub fn messages(&self) -> &[M] {
        &self.messages
    }

    /// The newest message of the branch that is looked at.
    #[must_use]
    pub fn leaf(&self) -> Option<MessageId> {
        self.leaf
    }

    /// One message.
    #[must_use]
    pub fn get(&self, id: MessageId) -> Option<&M> {
        self.messages.iter().find(|message| message.id() == id)
    }

    /// One message, to be changed; its id and parent stay as they are.
    pub fn get_mut(&mut self, id: MessageId) -> Option<&mut M> {
        self.messages.iter_mut().find(|message| message.id() == id)
    }

    /// Adds a message and looks at it.
    ///
    /// # Errors
    /// [`UnknownParent`] where its parent is not in the tree.
    pub fn push(&mut self, message: M) -> Result<(), UnknownParent> {
        if let Some(parent) = message.parent()
            && self.get(parent).is_none()
        {
            return Err(UnknownParent);
        }
        self.leaf = Some(message.id());
        self.messages.push(message);
        Ok(())
    }

    /// The branch from the first message to `leaf`, both included; empty where there is no such message.
    #[must_use]
    pub fn path_to(&self, leaf: MessageId) -> Vec<&M> {
        let mut path = Vec::new();
        let mut next = Some(leaf);
        while let Some(message) = next.and_then(|id| self.get(id)) {
            path.push(message);
            next = message.parent();
        }
        path.reverse();
        path
    }

    /// The branch that is looked at.
    #[must_use]
    pub fn path(&self) -> Vec<&M> {
        self.leaf.map_or_else(Vec::new, |leaf| self.path_to(leaf))
    }

    /// Messages with the same parent as this one, itself included, oldest first.
    #[must_use]
    pub fn siblings(&self, id: MessageId) -> Vec<MessageId> {
        let Some(message) = self.get(id) else {
            return Vec::new();
        };
        let parent = message.parent();
        self.messages.iter().filter(|other| other.parent() == parent).map(Node::id).collect()
    }

    /// Looks at the branch through `id`: its newest descendant becomes the leaf. Nothing happens where there is no such
    /// message.
    pub fn look_at(&mut self, id: MessageId) {
        if self.get(id).is_none() {
            return;
        }
        let mut leaf = id;
        // A child always comes after its parent, so one pass finds the newest descendant.
        for message in &self.messages {
            if message.parent() == Some(leaf) {
                leaf = self.newest_child(leaf).unwrap_or(leaf);
            }
        }
        self.leaf = Some(leaf);
    }

    fn newest_child(&self, id: MessageId) -> Option<MessageId> {
        self.messages.iter().rev().find(|message| message.parent() == Some(id)).map(Node::id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    struct Plain(MessageId, Option<MessageId>);

    impl Node for Plain {
        fn id(&self) -> MessageId {
            self.0
        }

        fn parent(&self) -> Option<MessageId> {
            self.1
        }
    }

    fn add(tree: &mut Tree<Plain>, parent: Option<MessageId>) -> MessageId {
        let id = MessageId::random();
        tree.push(Plain(id, parent)).unwrap();
        id
    }

    #[test]
    fn a_regenerated_answer_is_a_sibling_and_nothing_is_lost() {
        let mut tree = Tree::default();
        let question = add(&mut tree, None);
        let first = add(&mut tree, Some(question));
        let follow_up = add(&mut tree, Some(first));
        let second = add(&mut tree, Some(question));
        assert_eq!(tree.leaf(), Some(second));
        assert_eq!(tree.siblings(first), [first, second]);
        assert_eq!(tree.messages().len(), 4);
        tree.look_at(first);
        assert_eq!(tree.leaf(), Some(follow_up));
        assert_eq!(tree.path().iter().map(|message| message.0).collect::<Vec<_>>(), [question, first, follow_up]);
    }

    #[test]
    fn a_message_with_an_unknown_parent_is_refused() {
        let mut tree = Tree::default();
        assert_eq!(tree.push(Plain(MessageId::random(), Some(MessageId::random()))), Err(UnknownParent));
    }
}
