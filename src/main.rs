//! The `xverse-chat` program: parse, run, exit status; nothing else.

fn main() {}
