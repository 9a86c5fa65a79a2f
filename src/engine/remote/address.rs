//! Where an upstream server is, and the key that it may ask for.
//!
//! **Architecture Invariant:** neither an address that is shown nor a key's debug form holds anything secret.

use std::fmt;

use reqwest::{Url, header::HeaderValue};

/// The root of an OpenAI-compatible API: `http://host:port`, with or without `/v1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(String);

/// Why a text is no [`Address`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}; expected http://HOST:PORT or https://HOST, with a path where the API is below one")]
pub struct AddressError(&'static str);

/// What is sent to upstream servers as `Authorization: Bearer`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(HeaderValue);

/// A key that no header can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key for upstream servers is empty or has characters that no header can carry")]
pub struct KeyError;

impl Address {
    /// Reads an address; a `/v1` at its end and slashes there are left out.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let url = Url::parse(text).map_err(|_| AddressError("an upstream server's address is no URL"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(AddressError("an upstream server's address begins with neither http:// nor https://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(AddressError(
                "an upstream server's address has a name or a password in it, which would be shown; \
                 XVERSE_UPSTREAM_KEY holds a key",
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(AddressError("an upstream server's address has something behind a ? or #"));
        }
        let root = url.as_str().trim_end_matches('/');
        Ok(Self(root.strip_suffix("/v1").unwrap_or(root).trim_end_matches('/').to_owned()))
    }

    /// The address of one of its routes, such as `models`.
    pub(super) fn route(&self, name: &str) -> String {
        format!("{}/v1/{name}", self.0)
    }

    /// Whether it is reached through TLS.
    pub(super) fn is_encrypted(&self) -> bool {
        self.0.starts_with("https:")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Key {
    /// Takes a key in.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if text.trim().is_empty() {
            return Err(KeyError);
        }
        let mut header = HeaderValue::from_str(&format!("Bearer {}", text.trim())).map_err(|_| KeyError)?;
        header.set_sensitive(true);
        Ok(Self(header))
    }

    /// As a header.
    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_written_with_or_without_v1() {
        for text in ["http://gpu:8000", "http://gpu:8000/", "http://gpu:8000/v1", "http://gpu:8000/v1/"] {
            assert_eq!(Address::parse(text).unwrap().route("models"), "http://gpu:8000/v1/models", "{text}");
        }
        let below = Address::parse("https://example.org/llm/v1").unwrap();
        assert_eq!((below.to_string().as_str(), below.is_encrypted()), ("https://example.org/llm", true));
    }

    #[test]
    fn what_is_no_address_is_refused_and_no_password_is_repeated() {
        for text in ["", "gpu", "gpu:8000", "ftp://gpu", "http://", "http://gpu/?a=b", "http://gpu/#a", "/v1"] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
        let error = Address::parse("http://me:geheim@gpu").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("geheim"), "{error}");
    }

    #[test]
    fn a_key_shows_itself_to_nobody() {
        let key = Key::parse(" sk-geheim\n").unwrap();
        assert_eq!(key.header(), "Bearer sk-geheim");
        assert!(!format!("{key:?}").contains("geheim"), "{key:?}");
        assert!(Key::parse(" ").is_err() && Key::parse("a\nb").is_err());
    }
}
