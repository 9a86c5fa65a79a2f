//! Conversations and their messages, written and read.

use rusqlite::{Connection, OptionalExtension, Row, named_params};

use super::{
    code::{id_at, id_bytes, json, json_at, optional_id_at, optional_json_at, token_bytes, tokens_at, tokens_hash},
    database::Storage,
    error::StorageError,
    record::{Answer, Command, Conversation, Head, Made, Message, Owner, Progress},
};
use crate::chat::{
    ids::{ConversationId, GenerationId, MessageId, RequestId},
    message::Role,
};

/// What is written together when something was said.
#[derive(Debug, Clone)]
pub struct Said {
    /// Whose it is.
    pub owner: Owner,
    /// The conversation as it is now.
    pub head: Head,
    /// Messages that are new or have changed, parents before children.
    pub messages: Vec<Message>,
    /// The command that said it.
    pub command: Option<Command>,
}

impl Storage {
    /// Writes what was said. A conversation that is not there is begun.
    ///
    /// # Errors
    /// [`StorageError::NotFound`] where the conversation is another's.
    pub fn save(&self, said: Said) -> impl Future<Output = Result<(), StorageError>> + Send + use<> {
        self.write(move |connection| {
            write_head(connection, said.owner, &said.head)?;
            for message in &said.messages {
                write_message(connection, said.head.id, message)?;
            }
            match &said.command {
                Some(command) => write_command(connection, said.owner, command, said.head.updated_ms),
                None => Ok(()),
            }
        })
    }

    /// Writes how far an answer has come. Whether there was one to write it to.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn progress(
        &self,
        progress: Progress,
        now_ms: u64,
    ) -> impl Future<Output = Result<bool, StorageError>> + Send + use<> {
        self.write(move |connection| {
            let mut statement = connection.prepare(
                "UPDATE message SET text = :text, token_ids = :token_ids, seq = :seq, stats = :stats, end = :end
                 WHERE id = :id AND generation = :generation",
            )?;
            let n = statement.execute(named_params! {
                ":id": id_bytes(progress.answer.as_u128()),
                ":generation": id_bytes(progress.generation.as_u128()),
                ":text": progress.text,
                ":token_ids": token_bytes(&progress.token_ids),
                ":seq": progress.seq.cast_signed(),
                ":stats": json(&progress.stats),
                ":end": progress.end.as_ref().map(json),
            })?;
            if progress.end.is_some() {
                connection.execute(
                    "UPDATE conversation SET updated_ms = ?2
                     WHERE id = (SELECT conversation FROM message WHERE id = ?1)",
                    (id_bytes(progress.answer.as_u128()), now_ms.cast_signed()),
                )?;
            }
            Ok(n > 0)
        })
    }

    /// One conversation of this owner, `None` where there is none.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub async fn load(&self, owner: Owner, id: ConversationId) -> Result<Option<Conversation>, StorageError> {
        self.read(move |connection| {
            // The same moment for both.
            let transaction = connection.unchecked_transaction()?;
            let head = transaction
                .prepare(
                    "SELECT id, title, system, leaf, updated_ms FROM conversation
                     WHERE id = ?1 AND owner = ?2 AND deleted_ms IS NULL",
                )?
                .query_row((id_bytes(id.as_u128()), id_bytes(owner.0)), read_head)
                .optional()?;
            let Some(head) = head else { return Ok(None) };
            // A prompt is long, and only answers that can be gone on with need theirs again.
            let mut statement = transaction.prepare(
                "SELECT id, parent, role, text, created_ms, generation, token_ids, sampling, seed, weights_hash, stats, end,
                   CASE WHEN end IN ('\"end_of_text\"', '\"stop_string\"') THEN x'' ELSE prompt_ids END AS prompt_ids
                 FROM message WHERE conversation = ?1 ORDER BY number",
            )?;
            let messages = statement.query_map([id_bytes(id.as_u128())], read_message)?.collect::<Result<_, _>>()?;
            Ok(Some(Conversation { head, messages }))
        })
        .await
    }

    /// Whether there is a conversation of this name, whoever's it is, deleted ones counted.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub async fn is_taken(&self, id: ConversationId) -> Result<bool, StorageError> {
        self.read(move |connection| {
            let mut statement = connection.prepare("SELECT 1 FROM conversation WHERE id = ?1")?;
            Ok(statement.exists([id_bytes(id.as_u128())])?)
        })
        .await
    }

    /// How many conversations this owner has.
    ///
    /// # Errors
    /// Where they cannot be counted.
    pub async fn count(&self, owner: Owner) -> Result<usize, StorageError> {
        self.read(move |connection| {
            let mut statement =
                connection.prepare("SELECT count(*) FROM conversation WHERE owner = ?1 AND deleted_ms IS NULL")?;
            Ok(statement.query_row([id_bytes(owner.0)], |row| row.get::<_, i64>(0))?.cast_unsigned() as usize)
        })
        .await
    }

    /// What this owner's command of that name made, where it was carried out.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub async fn carried_out(&self, owner: Owner, request: RequestId) -> Result<Option<Made>, StorageError> {
        self.read(move |connection| {
            let mut statement = connection
                .prepare("SELECT conversation, message, answer FROM command WHERE request = ?1 AND owner = ?2")?;
            let made = statement.query_row((id_bytes(request.as_u128()), id_bytes(owner.0)), |row| {
                Ok(Made {
                    conversation: ConversationId::from_u128(id_at(row, "conversation")?),
                    message: optional_id_at(row, "message")?.map(MessageId::from_u128),
                    answer: MessageId::from_u128(id_at(row, "answer")?),
                })
            });
            Ok(made.optional()?)
        })
        .await
    }

    /// Gives a conversation another title.
    ///
    /// # Errors
    /// [`StorageError::NotFound`] where this owner has no such conversation.
    pub async fn rename(&self, owner: Owner, id: ConversationId, title: String) -> Result<(), StorageError> {
        self.write(move |connection| {
            let n = connection.execute(
                "UPDATE conversation SET title = ?3 WHERE id = ?1 AND owner = ?2 AND deleted_ms IS NULL",
                (id_bytes(id.as_u128()), id_bytes(owner.0), title),
            )?;
            found(n)
        })
        .await
    }

    /// Marks a conversation as deleted, or takes that back.
    ///
    /// # Errors
    /// [`StorageError::NotFound`] where this owner has no such conversation.
    pub async fn set_deleted(
        &self,
        owner: Owner,
        id: ConversationId,
        deleted_ms: Option<u64>,
    ) -> Result<(), StorageError> {
        self.write(move |connection| {
            let n = connection.execute(
                "UPDATE conversation SET deleted_ms = ?3 WHERE id = ?1 AND owner = ?2",
                (id_bytes(id.as_u128()), id_bytes(owner.0), deleted_ms.map(u64::cast_signed)),
            )?;
            found(n)
        })
        .await
    }

    /// Remembers which branch is looked at.
    ///
    /// # Errors
    /// [`StorageError::NotFound`] where this owner has no such conversation.
    pub async fn look(&self, owner: Owner, id: ConversationId, leaf: MessageId) -> Result<(), StorageError> {
        self.write(move |connection| {
            let n = connection.execute(
                "UPDATE conversation SET leaf = ?3 WHERE id = ?1 AND owner = ?2 AND deleted_ms IS NULL",
                (id_bytes(id.as_u128()), id_bytes(owner.0), id_bytes(leaf.as_u128())),
            )?;
            found(n)
        })
        .await
    }

    /// Removes what was deleted before `deleted_ms` for good, commands from before `commands_ms`, and links that are over.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub async fn purge(&self, now_ms: u64, deleted_ms: u64, commands_ms: u64) -> Result<(), StorageError> {
        self.write(move |connection| {
            connection.execute("DELETE FROM conversation WHERE deleted_ms < ?1", [deleted_ms.cast_signed()])?;
            connection.execute("DELETE FROM command WHERE created_ms < ?1", [commands_ms.cast_signed()])?;
            connection.execute("DELETE FROM link WHERE expires_ms < ?1", [now_ms.cast_signed()])?;
            Ok(())
        })
        .await
    }
}

fn found(n: usize) -> Result<(), StorageError> {
    if n == 0 { Err(StorageError::NotFound) } else { Ok(()) }
}

fn write_head(connection: &Connection, owner: Owner, head: &Head) -> Result<(), StorageError> {
    let mut statement = connection.prepare(
        "INSERT INTO conversation (id, owner, title, system, leaf, updated_ms)
         VALUES (:id, :owner, :title, :system, :leaf, :updated_ms)
         ON CONFLICT (id) DO UPDATE SET system = excluded.system, leaf = excluded.leaf, updated_ms = excluded.updated_ms
         WHERE owner = excluded.owner",
    )?;
    found(statement.execute(named_params! {
        ":id": id_bytes(head.id.as_u128()),
        ":owner": id_bytes(owner.0),
        ":title": head.title,
        ":system": head.system,
        ":leaf": head.leaf.map(|leaf| id_bytes(leaf.as_u128())),
        ":updated_ms": head.updated_ms.cast_signed(),
    })?)
}

fn write_message(connection: &Connection, conversation: ConversationId, message: &Message) -> Result<(), StorageError> {
    let mut statement = connection.prepare(
        "INSERT INTO message (id, conversation, parent, role, text, created_ms, generation, prompt_ids, prompt_hash,
           token_ids, sampling, seed, weights_hash, stats, seq, end)
         VALUES (:id, :conversation, :parent, :role, :text, :created_ms, :generation, :prompt_ids, :prompt_hash,
           :token_ids, :sampling, :seed, :weights_hash, :stats, 0, :end)
         ON CONFLICT (id) DO UPDATE SET text = excluded.text, generation = excluded.generation,
           token_ids = excluded.token_ids, sampling = excluded.sampling, stats = excluded.stats, end = excluded.end
         WHERE conversation = excluded.conversation",
    )?;
    let answer = message.answer.as_ref();
    found(statement.execute(named_params! {
        ":id": id_bytes(message.id.as_u128()),
        ":conversation": id_bytes(conversation.as_u128()),
        ":parent": message.parent.map(|parent| id_bytes(parent.as_u128())),
        ":role": role_name(message.role),
        ":text": message.text,
        ":created_ms": message.created_ms.cast_signed(),
        ":generation": answer.map(|answer| id_bytes(answer.generation.as_u128())),
        ":prompt_ids": answer.map(|answer| token_bytes(&answer.prompt_ids)),
        ":prompt_hash": answer.map(|answer| tokens_hash(&answer.prompt_ids)),
        ":token_ids": answer.map(|answer| token_bytes(&answer.token_ids)),
        ":sampling": answer.map(|answer| json(&answer.sampling)),
        ":seed": answer.map(|answer| answer.seed.cast_signed()),
        ":weights_hash": answer.map(|answer| answer.weights),
        ":stats": answer.map(|answer| json(&answer.stats)),
        ":end": answer.and_then(|answer| answer.end.as_ref()).map(json),
    })?)
}

fn write_command(connection: &Connection, owner: Owner, command: &Command, now_ms: u64) -> Result<(), StorageError> {
    connection.execute(
        "INSERT INTO command (request, owner, conversation, message, answer, created_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (request) DO NOTHING",
        (
            id_bytes(command.request.as_u128()),
            id_bytes(owner.0),
            id_bytes(command.made.conversation.as_u128()),
            command.made.message.map(|message| id_bytes(message.as_u128())),
            id_bytes(command.made.answer.as_u128()),
            now_ms.cast_signed(),
        ),
    )?;
    Ok(())
}

fn read_head(row: &Row<'_>) -> rusqlite::Result<Head> {
    Ok(Head {
        id: ConversationId::from_u128(id_at(row, "id")?),
        title: row.get("title")?,
        system: row.get("system")?,
        leaf: optional_id_at(row, "leaf")?.map(MessageId::from_u128),
        updated_ms: row.get::<_, i64>("updated_ms")?.cast_unsigned(),
    })
}

fn read_message(row: &Row<'_>) -> rusqlite::Result<Message> {
    let generation = optional_id_at(row, "generation")?;
    Ok(Message {
        id: MessageId::from_u128(id_at(row, "id")?),
        parent: optional_id_at(row, "parent")?.map(MessageId::from_u128),
        role: role_of(&row.get::<_, String>("role")?),
        text: row.get("text")?,
        created_ms: row.get::<_, i64>("created_ms")?.cast_unsigned(),
        answer: generation.map(|generation| read_answer(row, GenerationId::from_u128(generation))).transpose()?,
    })
}

fn read_answer(row: &Row<'_>, generation: GenerationId) -> rusqlite::Result<Answer> {
    Ok(Answer {
        generation,
        prompt_ids: tokens_at(row, "prompt_ids")?.into(),
        token_ids: tokens_at(row, "token_ids")?,
        sampling: json_at(row, "sampling")?,
        seed: row.get::<_, i64>("seed")?.cast_unsigned(),
        weights: row.get("weights_hash")?,
        stats: json_at(row, "stats")?,
        end: optional_json_at(row, "end")?,
    })
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::User => "user",
        Role::Exec => "exec",
        Role::Assistant => "assistant",
    }
}

/// The role of that name; the table allows no other.
fn role_of(name: &str) -> Role {
    match name {
        "system" => Role::System,
        "exec" => Role::Exec,
        "assistant" => Role::Assistant,
        _ => Role::User,
    }
}
