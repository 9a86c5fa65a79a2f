//! The `xverse-chat` program: parse, run, exit status; nothing else.

use std::process::ExitCode;

use xverse_chat::server::{cli::Cli, log, run};

fn main() -> ExitCode {
    let cli = Cli::from_args(std::env::args_os());
    match run::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            log::error(&failure.to_string());
            failure.exit_code()
        }
    }
}
