//! What the program says, and with which status it ends, when it cannot start.

use std::{
    net::TcpListener,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;

/// Longer than anything takes that refuses to start.
const LONGEST: Duration = Duration::from_secs(20);

/// The program in a folder of its own.
pub struct Program {
    folder: tempfile::TempDir,
}

impl Program {
    /// A folder with settings and an empty site, and nothing else.
    pub fn new() -> Self {
        let program = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(program.folder.path().join("site")).unwrap();
        program.settings("");
        program
    }

    pub fn settings(&self, more: &str) {
        let text = format!("[package.metadata.leptos]\noutput-name = \"xverse-chat\"\nsite-root = \"site\"\n{more}");
        std::fs::write(self.path("Leptos.toml"), text).unwrap();
    }

    /// The mini model's folder again, with `change` made to its config.
    pub fn model(&self, change: serde_json::Value) -> std::path::PathBuf {
        let model = self.path("model");
        std::fs::create_dir_all(&model).unwrap();
        for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/xverse-mini")).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), model.join(entry.file_name())).unwrap();
        }
        let path = model.join("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        std::fs::write(path, config.to_string()).unwrap();
        model
    }

    /// Asserts that this model is refused, by the server and by `check`.
    fn refuses(&self, words: &[&str]) {
        for args in [["--port=0", "--model_path=model"].as_slice(), &["check", "--model_path=model"]] {
            self.run(args).assert(78, words);
        }
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// The command that starts it.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xverse-chat"));
        command.args(args);
        self.at_home(command)
    }

    /// A command in this folder, with nothing of its surroundings.
    fn at_home(&self, mut command: Command) -> Command {
        command.current_dir(self.folder.path()).env("LEPTOS_SITE_ADDR", "127.0.0.1:1");
        command.env("XDG_DATA_HOME", self.path("data"));
        command
    }

    /// The same with so many descriptors at most.
    pub fn command_with_descriptors(&self, n: u32, args: &[&str]) -> Command {
        self.command_limited(&format!("-n {n}"), args)
    }

    /// The same, where it may allocate no more than so many KiB.
    pub fn command_within(&self, kib: u32, args: &[&str]) -> Command {
        self.command_limited(&format!("-d {kib}"), args)
    }

    fn command_limited(&self, limit: &str, args: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("ulimit {limit} && exec \"$0\" \"$@\""));
        command.arg(env!("CARGO_BIN_EXE_xverse-chat")).args(args);
        self.at_home(command)
    }

    pub fn run(&self, args: &[&str]) -> Ended {
        Self::ended(self.command(args), Instant::now() + LONGEST)
    }

    /// Waits until the command has ended, which it must do in time.
    pub fn ended(mut command: Command, deadline: Instant) -> Ended {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                child.kill().unwrap();
                let ended = child.wait_with_output().unwrap();
                panic!("it goes on and on: {}", String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ended::new(&child.wait_with_output().unwrap())
    }
}

/// How it ended, and what it said.
pub struct Ended {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn new(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Self { status: output.status.code().unwrap(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// Asserts the status, and that the message names each of `words`, in lowercase and with a hint.
    pub fn assert(&self, status: i32, words: &[&str]) {
        assert_eq!(self.status, status, "{}{}", self.stdout, self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in: {}", self.stderr);
        }
        assert!(self.stderr.contains("hint: "), "{}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
    }
}

#[test]
fn a_port_that_is_taken_is_status_69() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    Program::new().run(&["--port", &port, "--model_path", "/no/such/model"]).assert(69, &[&port, "--port"]);
}

#[test]
fn an_unknown_key_in_the_settings_is_status_78_and_named() {
    let program = Program::new();
    program.settings("[server]\nprot = 1\n");
    program.run(&["--port=0"]).assert(78, &["Leptos.toml", "line 5", "prot", "port", "allowed_hosts"]);
}

#[test]
fn a_site_root_that_would_give_everything_away_is_status_78() {
    let program = Program::new();
    for root in [".", "..", "nothing-here"] {
        let text = format!("[package.metadata.leptos]\noutput-name = \"x\"\nsite-root = \"{root}\"\n");
        std::fs::write(program.path("Leptos.toml"), text).unwrap();
        program.run(&["--port=0"]).assert(78, &["site-root"]);
    }
}

#[test]
fn missing_settings_are_status_78() {
    let program = Program::new();
    std::fs::remove_file(program.path("Leptos.toml")).unwrap();
    program.run(&["--port=0"]).assert(78, &["Leptos.toml", "--config"]);
}

#[test]
fn a_named_model_that_is_not_there_is_status_78_and_never_replaced() {
    let ended = Program::new().run(&["--port=0", "--model_path=/no/such/model"]);
    ended.assert(78, &["/no/such/model"]);
    let address = ended.stdout.lines().next().unwrap().strip_prefix("listening on http://127.0.0.1:").unwrap();
    assert_ne!(address.parse::<u16>().unwrap(), 1, "LEPTOS_SITE_ADDR does not override --port");
    assert!(!ended.stdout.contains("mini model"), "{}", ended.stdout);
}

#[test]
fn a_folder_without_a_config_is_status_78() {
    let program = Program::new();
    std::fs::create_dir(program.path("empty")).unwrap();
    for args in [["--port=0", "--model_path=empty"].as_slice(), &["check", "--model-path", "empty"]] {
        program.run(args).assert(78, &["config.json"]);
    }
}

#[test]
fn a_checkpoint_of_another_kind_is_status_78_and_says_what_was_expected() {
    for (change, words) in [
        (json!({ "rope_scaling": { "type": "yarn", "factor": 4.0 } }), ["rope_scaling", "yarn", "expected none"]),
        (json!({ "num_experts": 8 }), ["num_experts is 8", "mixture of experts", "expected a dense model"]),
        (json!({ "intermediate_size": 768 }), ["gate_proj.weight", "[512, 256]", "expected [768, 256]"]),
        (json!({ "vocab_size": 4096 }), ["2048", "4096", "--tokenizer_path"]),
    ] {
        let program = Program::new();
        program.model(change);
        program.refuses(&words);
    }
}

#[test]
fn a_file_that_is_cut_off_or_missing_is_status_78_and_named() {
    let program = Program::new();
    let model = program.model(json!({}));
    let weights = std::fs::OpenOptions::new().write(true).open(model.join("model.safetensors")).unwrap();
    let whole = weights.metadata().unwrap().len();
    weights.set_len(whole / 2).unwrap();
    program.refuses(&["model.safetensors", &(whole / 2).to_string(), &whole.to_string()]);
    std::fs::remove_file(model.join("tokenizer.json")).unwrap();
    program.refuses(&["tokenizer.json", "--tokenizer_path"]);
}

#[test]
fn what_this_build_cannot_do_is_status_78() {
    let program = Program::new();
    program.model(json!({}));
    program.run(&["--port=0", "--device=cuda", "--model_path=model"]).assert(78, &["cuda", "--device cpu"]);
}

#[test]
fn a_host_that_others_reach_has_a_token_that_is_made_and_shown() {
    let tokens: Vec<String> = ["0.0.0.0", "::"]
        .into_iter()
        .map(|host| {
            let ended = Program::new().run(&["--port=0", "--host", host, "--model_path=/no/such/model"]);
            ended.assert(78, &["/no/such/model"]);
            let (address, token) = ended.stdout.lines().next().unwrap().split_once("/?access_token=").unwrap();
            assert!(address.starts_with("listening on http://") && address.contains(host), "{address}");
            assert!(token.len() == 64 && token.bytes().all(|byte| byte.is_ascii_hexdigit()), "{token}");
            token.to_owned()
        })
        .collect();
    assert_ne!(tokens[0], tokens[1]);
}

#[test]
fn a_token_that_was_given_is_not_written_anywhere() {
    for host in ["0.0.0.0", "127.0.0.1"] {
        let program = Program::new();
        let mut command = program.command(&["--port=0", "--host", host, "--model_path=/no/such/model"]);
        let ended = Ended::new(&command.env("XVERSE_ACCESS_TOKEN", "0123456789abcdef").output().unwrap());
        ended.assert(78, &["/no/such/model"]);
        let first = ended.stdout.lines().next().unwrap();
        assert!(first.starts_with(&format!("listening on http://{host}:")) && !first.contains('?'), "{first}");
        assert!(!ended.stderr.contains("0123456789abcdef") && !ended.stderr.contains("guessed"), "{}", ended.stderr);
    }
}

#[test]
fn a_short_token_is_warned_of_and_a_blank_one_is_status_78() {
    let program = Program::new();
    program.settings("[server]\naccess_token = \"0123456789\"\n");
    let ended = program.run(&["--port=0", "--model_path=/no/such/model"]);
    ended.assert(78, &["/no/such/model", "10 characters", "at least 16"]);
    assert!(!ended.stderr.contains("0123456789"), "{}", ended.stderr);
    program.run(&["--port=0", "--access_token="]).assert(78, &["access token", "empty", "XVERSE_ACCESS_TOKEN"]);
}

#[test]
fn a_host_that_is_no_address_is_status_78() {
    Program::new().run(&["--port=0", "--host=example.org"]).assert(78, &["example.org", "--allowed_hosts"]);
}

#[test]
fn a_wrong_command_line_is_status_2() {
    for args in [["--port", "70000"].as_slice(), &["--nonsense"], &["--device=gpu"], &["sing"]] {
        let ended = Program::new().run(args);
        assert_eq!(ended.status, 2, "{args:?}: {}", ended.stderr);
    }
}

#[test]
fn help_names_the_flags_and_is_status_0() {
    let ended = Program::new().run(&["--help"]);
    assert_eq!(ended.status, 0);
    for flag in ["--model_path", "--max_running", "--allowed_hosts", "--access_token", "--config"] {
        assert!(ended.stdout.contains(flag), "{flag}");
    }
}

#[test]
fn the_settings_that_come_with_the_program_are_accepted() {
    let program = Program::new();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("Leptos.toml");
    let text = std::fs::read_to_string(shipped).unwrap().replace("target/site", "site");
    std::fs::write(program.path("Leptos.toml"), text).unwrap();
    let ended = program.run(&["--port=0", "--model_path=/no/such/model"]);
    ended.assert(78, &["/no/such/model"]);
    assert!(ended.stdout.starts_with("listening on "), "{}", ended.stdout);
}
