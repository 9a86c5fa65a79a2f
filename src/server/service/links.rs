//! Links by which another device gets at the same conversations.
//!
//! A link's code is shown once and kept as a hash; it can be used once, for ten minutes.

use std::time::{Duration, Instant};

use super::{here, too_often};
use crate::{
    chat::{
        error::{ChatError, ErrorCode},
        list::OwnerLink,
    },
    server::{clock, session::Secret},
    storage::error::StorageError,
};

/// How long a link can be used.
const LINK_TIME: Duration = Duration::from_mins(10);

/// See [`crate::api::owner_link`].
///
/// # Errors
/// As there.
pub async fn owner_link() -> Result<OwnerLink, ChatError> {
    let (server, visitor) = here()?;
    server.asked.take(&visitor.owner, Instant::now()).map_err(too_often)?;
    let code = Secret::random();
    let expires_ms = clock::now_ms() + LINK_TIME.as_millis() as u64;
    let kept = server.library.storage().add_link(visitor.owner, code.hash(), expires_ms).await;
    kept.map_err(|error| unkept(&error))?;
    Ok(OwnerLink { code: code.to_hex(), expires_s: LINK_TIME.as_secs() as u32 })
}

/// See [`crate::api::take_link`].
///
/// # Errors
/// As there.
pub async fn take_link(code: String) -> Result<(), ChatError> {
    let (server, visitor) = here()?;
    server.asked.take(&visitor.owner, Instant::now()).map_err(too_often)?;
    let code = Secret::from_hex(&code).ok_or_else(|| ChatError::not_found("link"))?;
    let storage = server.library.storage();
    let taken = storage.take_link(code.hash(), visitor.token, visitor.owner, clock::now_ms()).await;
    let theirs = match taken {
        Ok(theirs) => theirs,
        Err(StorageError::NotFound) => return Err(ChatError::not_found("link")),
        Err(error) => return Err(unkept(&error)),
    };
    server.owners.forget();
    server.library.give(visitor.owner, theirs);
    server.generations.give(visitor.owner, theirs);
    Ok(())
}

fn unkept(error: &StorageError) -> ChatError {
    tracing::error!(%error, "links cannot be kept");
    ChatError::new(ErrorCode::Internal, "links cannot be kept, since conversations are not saved")
}
