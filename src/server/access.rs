//! The access token: where one is set, nobody gets past this who does not have it.
//!
//! Only hashes are kept, and they are compared in constant time; the cookie holds a hash too, so that what a browser stores
//! is not the token. Knows nothing of what lies behind. **Architecture Invariant:** the token is never written anywhere but
//! into the address that is shown where it was made by the program itself.

use std::{fmt, sync::Arc};

use axum::{
    Form,
    body::Body,
    extract::{Query, Request, State},
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts},
    middleware::Next,
    response::IntoResponse,
};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{openai::is_api, page::LoginPage, refusal::refusal};
use crate::{
    app::{address::Address, shell::login::Asked},
    chat::error::{ChatError, ErrorCode},
};

/// Fewer characters than these can be guessed.
const LEAST_CHARS: usize = 16;

/// Name of the cookie that says that its browser has given the token.
const COOKIE: &str = "access";

/// What the cookie's hash begins with, so that it is another one than the token's own.
const COOKIE_DOMAIN: &[u8] = b"access cookie\0";

/// Seconds that a browser keeps the cookie: as long as browsers keep any.
const COOKIE_AGE_S: u32 = 400 * 24 * 3600;

/// An access token as it was given or made.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken {
    text: String,
    is_made: bool,
}

/// Why a text is no access token; it does not say which text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AccessTokenError {
    /// Nothing, or nothing but white space around it.
    #[error("the access token is empty or has white space around it; expected a long random text")]
    Blank,
    /// What no header can hold.
    #[error("the access token holds control characters; expected a long random text")]
    Control,
    /// The system gives no random numbers.
    #[error("an access token cannot be made: the system gives no random numbers")]
    NoRandomness,
}

impl AccessToken {
    /// Takes a token that somebody chose.
    ///
    /// # Errors
    /// Where it could not be sent as it is.
    pub fn given(text: &str) -> Result<Self, AccessTokenError> {
        if text.is_empty() || text.trim() != text {
            return Err(AccessTokenError::Blank);
        }
        if text.chars().any(char::is_control) {
            return Err(AccessTokenError::Control);
        }
        Ok(Self { text: text.to_owned(), is_made: false })
    }

    /// Makes one of 256 random bits.
    ///
    /// # Errors
    /// [`AccessTokenError::NoRandomness`].
    pub fn made() -> Result<Self, AccessTokenError> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|_| AccessTokenError::NoRandomness)?;
        Ok(Self { text: hex(&bytes), is_made: true })
    }

    /// The token, where the program made it: then it is known nowhere else.
    #[must_use]
    pub fn to_show(&self) -> Option<&str> {
        self.is_made.then_some(self.text.as_str())
    }

    /// What is said of a token that can be guessed.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let n_chars = self.text.chars().count();
        (n_chars < LEAST_CHARS).then(|| {
            format!(
                "the access token has {n_chars} characters and can be guessed; expected at least {LEAST_CHARS}\n\
                 hint: `openssl rand -hex 32` makes a good one"
            )
        })
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(…)")
    }
}

/// Who may ask: everybody, or whoever has the token.
#[derive(Clone)]
pub struct Access(Option<Arc<Hashes>>);

struct Hashes {
    token: [u8; 32],
    cookie: String,
}

impl Access {
    /// For whoever has this token; for everybody where there is none.
    #[must_use]
    pub fn new(token: Option<&AccessToken>) -> Self {
        let hashes = |token: &AccessToken| Hashes {
            token: Sha256::digest(&token.text).into(),
            cookie: hex(&Sha256::new().chain_update(COOKIE_DOMAIN).chain_update(&token.text).finalize()),
        };
        Self(token.map(|token| Arc::new(hashes(token))))
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Access(token)" } else { "Access(everybody)" })
    }
}

impl Hashes {
    fn is_token(&self, given: &[u8]) -> bool {
        self.token.ct_eq(&Sha256::digest(given)).into()
    }

    fn is_granted(&self, headers: &HeaderMap) -> bool {
        let by_cookie = cookies(headers).any(|cookie| self.cookie.as_bytes().ct_eq(cookie).into());
        by_cookie || bearer(headers).is_some_and(|token| self.is_token(token))
    }

    /// Leads on, with the cookie.
    fn granted(&self, path: &str) -> Response<Body> {
        let cookie = format!("{COOKIE}={}; Path=/; Max-Age={COOKIE_AGE_S}; HttpOnly; SameSite=Lax", self.cookie);
        ([(header::SET_COOKIE, cookie)], see_other(path)).into_response()
    }
}

/// What stands before the routes that the token guards.
#[derive(Clone)]
pub struct Door {
    access: Access,
    page: Arc<LoginPage>,
}

impl Door {
    /// A door that opens by `access` and otherwise shows this page.
    #[must_use]
    pub fn new(access: Access, page: LoginPage) -> Self {
        Self { access, page: Arc::new(page) }
    }
}

/// Lets through who may ask. A page's address with the token in it gets a cookie and the address without it; other requests
/// for pages get the page that asks for the token, and everything else a refusal, both with 401.
pub async fn check(State(door): State<Door>, request: Request, next: Next) -> Response<Body> {
    let Some(hashes) = &door.access.0 else {
        return next.run(request).await;
    };
    let is_granted = hashes.is_granted(request.headers());
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let page = own_address(request.uri().path()).filter(|_| reads);
    if let Some(path) = &page
        && let Some(token) = token_in_address(&request)
    {
        return match (hashes.is_token(token.as_bytes()), is_granted) {
            (true, _) => hashes.granted(path),
            // The page has no other parameters, so all of them go.
            (false, true) => see_other(path),
            (false, false) => door.page.answer(request.into_parts().0, path.clone(), Asked::Again),
        };
    }
    if is_granted {
        return next.run(request).await;
    }
    if page.is_some() || (reads && accepts_page(request.headers()) && !is_api(request.uri().path())) {
        return door.page.answer(request.into_parts().0, page.unwrap_or_else(|| "/".to_owned()), Asked::First);
    }
    let is_wrong = request.headers().contains_key(header::AUTHORIZATION);
    denied(if is_wrong {
        "the access token is wrong; expected the one that the server was started with"
    } else {
        "an access token is missing; expected `Authorization: Bearer` or the cookie that logging in at / gives"
    })
}

/// What the form holds.
#[derive(Deserialize)]
pub struct Login {
    access_token: String,
    #[serde(default)]
    to: String,
}

/// Answers `POST /login`.
pub async fn login(
    State(door): State<Door>,
    parts: Parts,
    form: Result<Form<Login>, axum::extract::rejection::FormRejection>,
) -> Response<Body> {
    let Ok(Form(form)) = form else {
        return refusal(&ChatError::new(ErrorCode::Malformed, "the form has no access_token; expected one"));
    };
    let path = own_address(&form.to).unwrap_or_else(|| "/".to_owned());
    match &door.access.0 {
        None => see_other(&path),
        Some(hashes) if hashes.is_token(form.access_token.as_bytes()) => hashes.granted(&path),
        Some(_) => door.page.answer(parts, path, Asked::Again),
    }
}

/// Answers `GET /login`, which a browser sends that goes back to the form's address: the start page asks, where there is
/// anything to ask for.
pub async fn login_page() -> Response<Body> {
    see_other("/")
}

/// A refusal for who does not have the token.
fn denied(message: &str) -> Response<Body> {
    let mut response = refusal(&ChatError::new(ErrorCode::AccessDenied, message));
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

fn see_other(path: &str) -> Response<Body> {
    (StatusCode::SEE_OTHER, [(header::LOCATION, path)]).into_response()
}

/// One of the page's addresses, as it is written. Never another site's: it is made anew of what was understood.
fn own_address(path: &str) -> Option<String> {
    match Address::parse(path) {
        Address::Start => Some("/".to_owned()),
        Address::Conversation(id) => Some(format!("/c/{id}")),
        Address::Unknown => None,
    }
}

fn token_in_address(request: &Request) -> Option<String> {
    #[derive(Deserialize)]
    struct Parameters {
        access_token: Option<String>,
    }

    Query::<Parameters>::try_from_uri(request.uri()).ok()?.0.access_token
}

fn accepts_page(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    accept.contains("text/html")
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// What cookies of our name hold; a browser may send several.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let pairs = headers.get_all(header::COOKIE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    pairs.filter_map(|pair| pair.trim_ascii().strip_prefix(COOKIE.as_bytes())?.strip_prefix(b"="))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(token: &str) -> Arc<Hashes> {
        Access::new(Some(&AccessToken::given(token).unwrap())).0.unwrap()
    }

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        [(name, HeaderValue::from_bytes(value.as_bytes()).unwrap())].into_iter().collect()
    }

    #[test]
    fn a_token_is_any_text_that_a_header_can_hold() {
        for text in ["a", "correct horse battery staple", "令牌"] {
            assert!(AccessToken::given(text).is_ok(), "{text}");
        }
        for (text, error) in [
            ("", AccessTokenError::Blank),
            (" a", AccessTokenError::Blank),
            ("a\n", AccessTokenError::Blank),
            ("a\u{7}b", AccessTokenError::Control),
        ] {
            assert_eq!(AccessToken::given(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_token_that_was_made_has_256_bits_is_shown_and_is_never_the_same() {
        let (one, other) = (AccessToken::made().unwrap(), AccessToken::made().unwrap());
        assert_eq!(one.to_show().unwrap().len(), 64);
        assert!(one != other && one.warning().is_none());
        assert_eq!(AccessToken::given("0123456789abcdef").unwrap().to_show(), None);
    }

    #[test]
    fn a_short_token_gets_a_warning_that_does_not_hold_it() {
        let warning = AccessToken::given("0123456789abcde").unwrap().warning().unwrap();
        assert!(warning.contains("15 characters") && warning.contains("at least 16") && !warning.contains("0123"));
        assert_eq!(AccessToken::given("0123456789abcdef").unwrap().warning(), None);
        assert_eq!(AccessToken::given("一二三四五六七八九十一二三四五六").unwrap().warning(), None);
    }

    #[test]
    fn the_token_is_not_in_what_is_printed_of_it_nor_in_the_cookie() {
        let token = AccessToken::given("a token that is long").unwrap();
        let (access, hashes) = (Access::new(Some(&token)), hashes("a token that is long"));
        let cookie = hashes.granted("/").headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
        for text in [format!("{token:?}{access:?}"), cookie] {
            assert!(!text.contains("long") && !text.contains(&hex(&hashes.token)), "{text}");
        }
    }

    #[test]
    fn the_token_is_taken_from_the_header_or_the_cookie() {
        let hashes = hashes("令牌 of many words");
        let cookie = hashes.cookie.clone();
        for (name, value) in [
            (header::AUTHORIZATION, "Bearer 令牌 of many words"),
            (header::AUTHORIZATION, "bearer  令牌 of many words"),
            (header::COOKIE, &format!("access={cookie}")),
            (header::COOKIE, &format!("theme=dark; access=old;access={cookie}; language=en")),
        ] {
            assert!(hashes.is_granted(&headers(name, value)), "{value}");
        }
        for (name, value) in [
            (header::AUTHORIZATION, "令牌 of many words"),
            (header::AUTHORIZATION, "Basic 令牌 of many words"),
            (header::AUTHORIZATION, "Bearer 令牌 of many word"),
            (header::AUTHORIZATION, "Bearer "),
            (header::AUTHORIZATION, "Bearer"),
            (header::AUTHORIZATION, &format!("Bearer {cookie}")),
            (header::COOKIE, "access=令牌 of many words"),
            (header::COOKIE, "access="),
            (header::COOKIE, &format!("xaccess={cookie}")),
            (header::COOKIE, &format!("access={}", cookie.to_uppercase())),
        ] {
            assert!(!hashes.is_granted(&headers(name, value)), "{value}");
        }
    }

    #[test]
    fn nobody_is_led_to_another_site() {
        let id = crate::chat::ids::ConversationId::random();
        assert_eq!(own_address("/"), Some("/".to_owned()));
        assert_eq!(own_address(&format!("//c/{id}/")), Some(format!("/c/{id}")));
        for path in ["//evil.test/", "https://evil.test/", "/\\evil.test", "javascript:alert(1)", "/c/evil.test"] {
            assert_eq!(own_address(path), None, "{path}");
        }
    }
}
