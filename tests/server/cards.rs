//! The program with its backend for cards, on stand-ins for the driver and cuBLAS that run the kernels on this machine.

use std::{
    io::Read,
    path::Path,
    process::{Command, Stdio},
    sync::OnceLock,
    time::Instant,
};

use serde_json::json;

use crate::{
    client::say,
    process::{LONG, Running, TIME},
    program::Program,
};

/// A folder with both libraries, compiled by the first who needs them.
fn stand_ins() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    FOLDER
        .get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            for (source, library) in [("driver.cpp", "libcuda.so"), ("cublas.cpp", "libcublas.so")] {
                let outcome = Command::new(std::env::var_os("CXX").unwrap_or_else(|| "c++".into()))
                    .args(["-std=c++20", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"])
                    .arg(folder.path().join(library))
                    .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server/cards").join(source))
                    .output()
                    .unwrap();
                assert!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stderr));
            }
            folder
        })
        .path()
}

/// The command on a card with which this is wrong.
fn command(program: &Program, wrong: &str, args: &[&str]) -> Command {
    let mut command = program.command(args);
    command.env("LD_LIBRARY_PATH", stand_ins()).env("XVERSE_FAKE_CUDA", wrong);
    command
}

fn ready(wrong: &str, args: &[&str]) -> Running {
    let program = Program::new();
    program.model(json!({}));
    let mut command = command(&program, wrong, &["--port=0", "--model_path=model", "--device=cuda"]);
    command.args(args).stderr(Stdio::inherit());
    let mut running = Running::run(command, program);
    running.line("device    Fake Card (cuda:0)");
    running.line("loaded");
    running
}

#[test]
fn an_answer_comes_from_the_card_in_every_precision() {
    for (wrong, args) in
        [("", vec![]), ("", vec!["--quantize=8", "--kv_dtype=int8"]), ("uncapturable", vec!["--quantize=4"])]
    {
        let running = ready(wrong, &args);
        let client = running.client(1);
        let mut question = say("你好");
        question.settings.max_new_tokens = Some(16);
        let mut events = String::new();
        client.events(client.started(&question)).read_to_string(&mut events).unwrap();
        assert!(events.contains("你好！我是 XVERSE Chat"), "{args:?}: {events}");
        assert!(events.contains("\"length\""), "{events}");
    }
}

#[test]
fn check_says_how_right_a_card_computes() {
    let program = Program::new();
    program.model(json!({}));
    let command = command(&program, "", &["check", "--model_path=model", "--device=cuda"]);
    let ended = Program::ended(command, Instant::now() + TIME);
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    for words in [
        "card      Fake Card (cuda:0), 8.",
        "card      multiplying few rows is right, its error ",
        "card      drawing tokens is right",
    ] {
        assert!(ended.stdout.contains(words), "{}", ended.stdout);
    }
}

#[test]
fn a_card_that_is_lost_ends_answers_with_their_text_and_the_program_with_status_70() {
    let mut running = ready("lost=900", &[]);
    let client = running.client(1);
    let mut events = String::new();
    client.events(client.started(&say(LONG))).read_to_string(&mut events).unwrap();
    assert!(events.contains("\"tail\"") && events.contains("\"interrupted\""), "{events}");
    assert_eq!(running.status(), Some(70));
}

#[test]
fn bad_circumstances_are_said_at_start() {
    let program = Program::new();
    program.model(json!({}));
    let with = |wrong: &str, args: &[&str], words: &[&str]| {
        let mut all = vec!["--port=0", "--model_path=model"];
        all.extend_from_slice(args);
        if !args.iter().any(|arg| arg.starts_with("--device")) {
            all.push("--device=cuda");
        }
        Program::ended(command(&program, wrong, &all), Instant::now() + TIME).assert(78, words);
    };
    with("version=12040", &[], &["CUDA 12.4", "13.0 or newer", "update the driver"]);
    with("cards=0", &[], &["cuda:0 was asked for, 0 cards"]);
    with("", &["--device=cuda:3"], &["cuda:3 was asked for, 1 cards"]);
    with("unsupported", &[], &["compute capability 9.0", "built for", "XVERSE_CUDA_ARCHS=90"]);
    with("memory=50000000", &[], &["Fake Card (cuda:0) has 16 MB free", "7 MB for weights", "--device cpu"]);
    with("", &["--dtype=f32"], &["--dtype f32 was asked for", "bf16"]);
    with("", &["--kv_dtype=f16"], &["--kv_dtype f16 was asked for", "bf16 or int8"]);
    program.model(json!({"num_attention_heads": 16}));
    with("", &[], &["head_dim is 16", "32, 64 or 128"]);
}

#[test]
fn without_a_driver_the_best_device_is_the_cpu() {
    if Path::new("/dev/nvidiactl").exists() {
        // This machine has a driver, and it cannot be hidden.
        return;
    }
    let program = Program::new();
    program.model(json!({}));
    program.run(&["--port=0", "--model_path=model", "--device=cuda"]).assert(78, &["no NVIDIA driver", "--device cpu"]);
    let command = program.command(&["--port=0", "--model_path=model"]);
    Running::run(command, program).line("device    cpu, since no card could be used");
}
