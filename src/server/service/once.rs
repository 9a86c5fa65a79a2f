//! Commands that have been carried out, so that one that is sent twice is carried out once.
//!
//! Remembers the newest [`REMEMBERED`]; a command that failed is not remembered and may be tried again.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OnceCell;

use crate::{
    chat::ids::RequestId,
    storage::record::{Made, Owner},
};

/// How many commands are remembered.
pub const REMEMBERED: usize = 4096;

/// A command's name, which whoever sends it makes up.
type Name = (Owner, RequestId);

/// The commands that were carried out, newest last.
#[derive(Debug, Default)]
pub struct Commands {
    remembered: Mutex<Remembered>,
}

#[derive(Debug, Default)]
struct Remembered {
    by_id: HashMap<Name, Arc<OnceCell<Made>>>,
    order: VecDeque<Name>,
}

impl Commands {
    /// Carries out `work` unless a command of this name has been; one that is being carried out right now is waited for.
    ///
    /// # Errors
    /// What `work` says.
    pub async fn once<E>(&self, id: Name, work: impl Future<Output = Result<Made, E>>) -> Result<Made, E> {
        let cell = self.cell(id);
        cell.get_or_try_init(|| work).await.copied()
    }

    fn cell(&self, id: Name) -> Arc<OnceCell<Made>> {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = remembered.by_id.get(&id) {
            return cell.clone();
        }
        if remembered.order.len() >= REMEMBERED
            && let Some(oldest) = remembered.order.pop_front()
        {
            remembered.by_id.remove(&oldest);
        }
        let cell = Arc::<OnceCell<Made>>::default();
        remembered.order.push_back(id);
        remembered.by_id.insert(id, cell.clone());
        cell
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::ids::{ConversationId, MessageId};

    fn made() -> Made {
        Made { conversation: ConversationId::random(), message: None, answer: MessageId::random() }
    }

    fn name() -> Name {
        (Owner(1), RequestId::random())
    }

    #[tokio::test]
    async fn a_command_that_is_sent_twice_is_carried_out_once() {
        let commands = Commands::default();
        let id = name();
        let first = commands.once(id, async { Ok::<_, ()>(made()) }).await.unwrap();
        let second = commands.once(id, async { Ok::<_, ()>(made()) }).await.unwrap();
        assert_eq!(first, second);
    }

    #[tokio::test]
    async fn the_same_name_from_another_owner_is_another_command() {
        let commands = Commands::default();
        let request = RequestId::random();
        let first = commands.once((Owner(1), request), async { Ok::<_, ()>(made()) }).await.unwrap();
        let second = commands.once((Owner(2), request), async { Ok::<_, ()>(made()) }).await.unwrap();
        assert_ne!(first, second);
    }

    #[tokio::test]
    async fn a_command_that_failed_may_be_tried_again() {
        let commands = Commands::default();
        let id = name();
        assert!(commands.once(id, async { Err::<Made, _>(()) }).await.is_err());
        assert!(commands.once(id, async { Ok::<_, ()>(made()) }).await.is_ok());
    }

    #[tokio::test]
    async fn no_more_commands_are_remembered_than_may_be() {
        let commands = Commands::default();
        for _ in 0..REMEMBERED + 10 {
            commands.once(name(), async { Ok::<_, ()>(made()) }).await.unwrap();
        }
        assert_eq!(commands.remembered.lock().unwrap().by_id.len(), REMEMBERED);
    }
}
