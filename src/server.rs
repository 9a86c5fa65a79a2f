//! The server: what is between the network and the engine.

pub mod service;
