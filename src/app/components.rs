//! The parts of the page, each in its own file with a style sheet of the same name.
//!
//! A component reads the store and calls it; none keeps state that another one needs. They are plain functions of the
//! store, written with `view`.

pub mod actions;
pub mod answer;
pub mod button;
pub mod chats;
pub mod composer;
pub mod device;
pub mod edit;
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
pub mod writing;
