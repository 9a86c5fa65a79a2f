//! The `xverse-chat` program: parse, run, exit status; nothing else.

use std::process::ExitCode;

use xverse_chat::server::{cli::Cli, run};

fn main() -> ExitCode {
    let cli = Cli::from_args(std::env::args_os());
    match run::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit_code()
        }
    }
}
