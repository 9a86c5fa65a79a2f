//! The parts of the page, each in its own file with a style sheet of the same name.
//!
//! A component reads the store and calls it; none keeps state that another one needs. Each gives its view as `AnyView`,
//! since the type of a whole page of nested views is more than the compiler takes.

pub mod actions;
pub mod answer;
pub mod composer;
pub mod engine;
pub mod header;
pub mod icon;
pub mod markup;
pub mod notice;
pub mod said;
pub mod setting;
pub mod settings;
pub mod start;
pub mod status;
pub mod transcript;
