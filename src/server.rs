//! The server: what is between the network and the engine.
//!
//! Below it lie two halves: what happens once (`cli`, `config`, `run`, `check`, `terminal`) and what happens for each request
//! (`router` and everything it names). It knows no tensors and no DOM.
//! **Architecture Invariant:** HTTP types exist only below this module, and there are no globals: what requests share is
//! one `state::Server`, which the router is given.

pub mod access;
pub mod bench;
pub mod check;
pub mod cli;
pub mod clock;
pub mod config;
pub mod convert;
pub mod events;
pub mod failure;
pub mod generations;
pub mod generator;
pub mod health;
pub mod library;
pub mod listener;
pub mod log;
pub mod logits;
pub mod memory;
pub mod metrics;
pub mod openai;
pub mod page;
pub mod perplexity;
pub mod rates;
pub mod refusal;
pub mod report;
pub mod router;
pub mod routes;
pub mod run;
pub mod security;
pub mod service;
pub mod session;
pub mod shutdown;
pub mod state;
pub mod terminal;
pub mod upstream;
pub mod watchdog;
