//! Who asks: a cookie with 256 random bits names an owner, and only its hash is ever kept.
//!
//! A visitor without one gets one. The owner is made of the hash until the cookie is joined to another owner by a link.
//! **Architecture Invariant:** every command, page and stream learns its owner here and nowhere else.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Response, header, request::Parts},
    middleware::Next,
};
use leptos::prelude::use_context;
use sha2::{Digest, Sha256};

use super::{listener::Peer, refusal::refusal, state::Server};
use crate::{
    chat::error::{ChatError, ErrorCode},
    storage::{
        database::Storage,
        error::StorageError,
        record::{Owner, SecretHash},
    },
};

/// The cookie's name.
const COOKIE: &str = "owner";

/// How long a browser keeps the cookie after the last visit: as long as browsers allow.
const COOKIE_AGE_S: u32 = 400 * 24 * 60 * 60;

/// Cookies whose owner is remembered.
const REMEMBERED: usize = 4096;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visitor {
    /// Whose conversations these are.
    pub owner: Owner,
    /// The cookie's hash.
    pub token: SecretHash,
    /// Where they are, where that is known and another machine.
    pub address: Option<IpAddr>,
}

/// 256 random bits as they are written in a cookie or link.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl Secret {
    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).expect("invariant: the system gives random bytes once it is up");
        Self(bytes)
    }

    /// As 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        use std::fmt::Write;

        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a string never fails.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// From 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; 32];
        for (place, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// What is kept of it.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        SecretHash(Sha256::digest(self.0).into())
    }
}

/// Owners of the cookies that were seen lately.
#[derive(Debug, Default)]
pub struct Owners {
    by_token: Mutex<HashMap<SecretHash, Owner>>,
}

impl Owners {
    /// Whose conversations a cookie opens.
    ///
    /// # Errors
    /// Where that cannot be read: it may be another's than it was first.
    pub async fn of(&self, storage: &Storage, token: SecretHash) -> Result<Owner, StorageError> {
        let known = self.lock().get(&token).copied();
        if let Some(owner) = known {
            return Ok(owner);
        }
        let joined = match storage.owner(token).await {
            Err(StorageError::Absent) => None,
            joined => joined?,
        };
        let owner = joined.unwrap_or_else(|| own(token));
        self.remember(token, owner);
        Ok(owner)
    }

    /// Forgets all, since some have been joined to others.
    pub fn forget(&self) {
        self.lock().clear();
    }

    fn remember(&self, token: SecretHash, owner: Owner) {
        let mut by_token = self.lock();
        if by_token.len() >= REMEMBERED {
            by_token.clear();
        }
        by_token.insert(token, owner);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SecretHash, Owner>> {
        self.by_token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The owner that a cookie has by itself.
fn own(token: SecretHash) -> Owner {
    let digest = Sha256::new().chain_update(b"owner").chain_update(token.0).finalize();
    let bytes = digest.first_chunk::<16>().expect("invariant: a SHA-256 has 32 bytes");
    Owner(u128::from_be_bytes(*bytes))
}

/// Finds out who asks; whoever has no cookie gets one with the answer.
pub async fn identify(State(server): State<Arc<Server>>, mut request: Request, next: Next) -> Response<Body> {
    let known = secret(request.headers());
    let is_known = known.is_some();
    let secret = known.unwrap_or_else(Secret::random);
    let token = secret.hash();
    let owner = match server.owners.of(server.library.storage(), token).await {
        Ok(owner) => owner,
        Err(error) => {
            tracing::error!(%error, "whose conversations these are cannot be read");
            return refusal(&ChatError::new(ErrorCode::Internal, "the conversations cannot be read"));
        }
    };
    let address = request.extensions().get::<Peer>().map(|peer| peer.0).filter(|address| !address.is_loopback());
    request.extensions_mut().insert(Visitor { owner, token, address });
    let mut response = next.run(request).await;
    // A page renews it, so that it lasts for as long as its owner comes back.
    let is_page =
        response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if (is_page || !is_known)
        && let Ok(cookie) = HeaderValue::from_str(&cookie(&secret))
    {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// Who sent the command that is being carried out.
///
/// # Errors
/// Where nobody asked who that is, which is a defect.
pub fn visitor() -> Result<Visitor, ChatError> {
    use_context::<Parts>()
        .and_then(|parts| parts.extensions.get::<Visitor>().copied())
        .ok_or_else(|| ChatError::new(ErrorCode::Internal, "nobody knows who asks"))
}

fn cookie(secret: &Secret) -> String {
    format!("{COOKIE}={}; Path=/; Max-Age={COOKIE_AGE_S}; HttpOnly; SameSite=Lax", secret.to_hex())
}

fn secret(headers: &HeaderMap) -> Option<Secret> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut named = cookies.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    named.find_map(|(name, value)| if name == COOKIE { Secret::from_hex(value) } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookies(text: &'static str) -> HeaderMap {
        [(header::COOKIE, HeaderValue::from_static(text))].into_iter().collect()
    }

    #[test]
    fn a_secret_is_read_as_it_was_written() {
        let secret = Secret::random();
        assert!(Secret::from_hex(&secret.to_hex()) == Some(secret));
        assert!(Secret::random() != Secret::random());
    }

    #[test]
    fn only_64_hexadecimal_digits_are_a_cookie() {
        for text in ["", "theme=dark", "owner=", "owner=12", "owner=zz", "xowner=00"] {
            assert!(secret(&cookies(text)).is_none(), "{text}");
        }
        let hex = "0f".repeat(32);
        let headers: HeaderMap =
            [(header::COOKIE, HeaderValue::from_str(&format!("theme=dark; owner={hex}; x=y")).unwrap())]
                .into_iter()
                .collect();
        assert!(secret(&headers).is_some_and(|secret| secret.to_hex() == hex));
    }

    #[test]
    fn nothing_of_the_cookie_can_be_seen_in_what_is_kept() {
        let secret = Secret::random();
        assert_ne!(secret.hash().0, secret.0);
        assert_ne!(own(secret.hash()).0.to_be_bytes(), secret.hash().0[..16]);
    }
}
