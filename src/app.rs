//! What is seen: the page's components and the store behind them.
//!
//! Owns the DOM; `view` is what components are written in. Knows the server only through `api`'s commands and the event stream of an answer.
//! **Architecture Invariant:** state changes in `answer` and `transcript` only, by `apply`; nothing here writes HTML.

pub mod address;
pub mod answer;
pub mod json;
pub mod page;
pub mod preferences;

#[cfg(feature = "ssr")]
pub mod shell;

mod chats;
mod components;
mod drafts;
#[cfg_attr(feature = "ssr", expect(dead_code, reason = "only a browser opens streams"))]
mod events;
mod format;
mod i18n;
mod keys;
mod scroll;
mod shortcuts;
mod starters;
mod state;
mod store;
mod timer;
mod transcript;
mod view;

#[cfg(feature = "ssr")]
#[path = "app/platform/server.rs"]
mod platform;

#[cfg(all(feature = "hydrate", not(feature = "ssr")))]
#[path = "app/platform/browser.rs"]
mod platform;
