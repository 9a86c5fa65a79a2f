//! What was typed: flags and subcommands, before anything is made of them.
//!
//! Long flags are spelled with underscores, as in the original demonstration; hyphens are read as underscores. What the
//! flags mean together with environment and file is for `config` to say.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::{
    chat::info::PromptFormat,
    engine::{
        kv_type::KvType,
        load::DeviceChoice,
        precision::Quantize,
        remote::address::{Address, Key},
        weights::NumberType,
    },
};

/// Talk to XVERSE-13B-Chat in a browser.
#[derive(Debug, Parser)]
#[command(name = "xverse-chat", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; `serve` where nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The flags of `serve`.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the chat page (this is what happens without a subcommand)
    Serve(Box<ServeArgs>),
    /// Talk to the model here in the terminal, or answer the lines of a pipe
    Chat(Box<ChatArgs>),
    /// Validate a checkpoint and print what it is
    Check(CheckArgs),
    /// Write a checkpoint anew as safetensors, merged with an adapter or quantised where that is asked for
    Convert(ConvertArgs),
    /// Measure load time, time to first token and tokens a second
    Bench(BenchArgs),
    /// Write the logits of token ids, for comparing with other programs
    Logits(LogitsArgs),
    /// Say how well a model foretells a text, and how far it is from another run
    Perplexity(PerplexityArgs),
}

/// Flags of `perplexity`.
#[derive(Debug, Args)]
pub struct PerplexityArgs {
    /// A text in UTF-8
    pub file: PathBuf,
    /// The model
    #[command(flatten)]
    pub model: ModelArgs,
    /// Tokens of a window, each of which is read alone [default: 2048, or the model's context where that is shorter]
    #[arg(long)]
    pub context: Option<u32>,
    /// Tokens that are computed at once
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    pub chunk: u32,
    /// Threads that compute [default: one less than there are cores]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub threads: Option<u32>,
    /// Keep here what later runs are compared with, 8 KB a token
    #[arg(long)]
    pub save: Option<PathBuf>,
    /// A run that was kept, to compare with
    #[arg(long)]
    pub compare: Option<PathBuf>,
    /// Write the result here as JSON, too
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// Flags of `logits`.
#[derive(Debug, Args)]
pub struct LogitsArgs {
    /// Folder with config.json and weights, or a GGUF file
    #[arg(long = "model_path")]
    pub model_path: PathBuf,
    /// JSON with lists of token ids
    #[arg(long)]
    pub ids: PathBuf,
    /// Where to write: f32, little endian, shape (position, vocabulary), one list after the other
    #[arg(long)]
    pub output: PathBuf,
    /// What computes it, and in which formats
    #[command(flatten)]
    pub compute: ComputeArgs,
    /// Tokens that are computed at once
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    pub chunk: u32,
    /// All lists in the same steps
    #[arg(long)]
    pub together: bool,
    /// Nothing recorded on a card
    #[arg(long = "no_graphs")]
    pub no_graphs: bool,
    /// Threads that compute [default: one less than there are cores]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub threads: Option<u32>,
}

/// Flags of `serve`; each may also be an environment variable, `XVERSE_` and the flag's name in capitals.
#[derive(Debug, Clone, Default, Args)]
pub struct ServeArgs {
    /// Port to listen on; 0 picks a free one [default: 36000]
    #[arg(long)]
    pub port: Option<u16>,
    /// Address to listen on; one that other machines reach needs an access token, and makes one where none is given
    /// [default: 127.0.0.1]
    #[arg(long)]
    pub host: Option<String>,
    /// Title and heading of the page [default: XVERSE-13B-Chat]
    #[arg(long)]
    pub title: Option<String>,
    /// The model
    #[command(flatten)]
    pub model: ModelArgs,
    /// An OpenAI-compatible server that generates instead of this program, such as `http://gpu:8000`; several of them share the
    /// work. What they ask for as `Authorization: Bearer` is set as `XVERSE_UPSTREAM_KEY` [default: none]
    #[arg(long, value_delimiter = ',', value_parser = upstream)]
    pub upstream: Option<Vec<Address>>,
    /// Given by the environment alone.
    #[arg(skip)]
    pub upstream_key: Option<Key>,
    /// GiB for keys and values [default: what suits the model]
    #[arg(long = "kv_memory", value_parser = positive_gib)]
    pub kv_memory: Option<f64>,
    /// Sequences decoding at once [default: 32]
    #[arg(long = "max_running")]
    pub max_running: Option<u32>,
    /// Requests taken beyond those [default: 64]
    #[arg(long = "max_waiting")]
    pub max_waiting: Option<u32>,
    /// Names that the Host header may carry besides IP addresses, localhost and --host; separated by commas
    #[arg(long = "allowed_hosts", value_delimiter = ',')]
    pub allowed_hosts: Option<Vec<String>>,
    /// Folder where conversations are kept [default: the platform's data folder]
    #[arg(long = "data_dir")]
    pub data_dir: Option<PathBuf>,
    /// Needed by whoever asks, as `Authorization: Bearer` or once as `/?access_token=…`; better set as
    /// `XVERSE_ACCESS_TOKEN`, which other programs cannot read [default: none]
    #[arg(long = "access_token")]
    pub access_token: Option<String>,
    /// Settings and limits [default: Leptos.toml]
    #[arg(long)]
    pub config: Option<PathBuf>,
}

/// Flags that say which model, for every subcommand that takes one.
#[derive(Debug, Clone, Default, Args)]
pub struct ModelArgs {
    /// Folder with config.json and weights, or a GGUF file [default: ./XVERSE-13B-Chat; where that is absent, the mini model]
    #[arg(long = "model_path")]
    pub model_path: Option<PathBuf>,
    /// Folder with tokenizer.json [default: the model path]
    #[arg(long = "tokenizer_path")]
    pub tokenizer_path: Option<PathBuf>,
    /// Folder with a PEFT adapter, merged while loading [default: none]
    #[arg(long = "adapter_path")]
    pub adapter_path: Option<PathBuf>,
    /// What computes it, and in which formats
    #[command(flatten)]
    pub compute: ComputeArgs,
    /// Number type of keys and values: auto, bf16, f16, f32 or int8 [default: auto]
    #[arg(long = "kv_dtype", value_parser = kv_dtype)]
    pub kv_dtype: Option<KvChoice>,
    /// auto, v1 or v2 [default: auto, by the vocabulary]
    #[arg(long = "prompt_format", value_parser = prompt_format)]
    pub prompt_format: Option<FormatChoice>,
}

/// Flags that say what computes a model and what its weights are held in, for every subcommand that computes.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct ComputeArgs {
    /// auto, cpu, reference, cuda or cuda:N [default: auto]
    #[arg(long, value_parser = device)]
    pub device: Option<DeviceChoice>,
    /// auto, bf16, f16 or f32 [default: auto]
    #[arg(long, value_parser = dtype)]
    pub dtype: Option<Dtype>,
    /// none, 8 or 4 [default: none]
    #[arg(long, value_parser = quantize)]
    pub quantize: Option<Quantize>,
}

/// Flags of `chat`; where `serve` has the same, its environment variable counts here too.
#[derive(Debug, Default, Args)]
pub struct ChatArgs {
    /// The model
    #[command(flatten)]
    pub model: ModelArgs,
    /// GiB for keys and values [default: what suits the model]
    #[arg(long = "kv_memory", value_parser = positive_gib)]
    pub kv_memory: Option<f64>,
    /// Sets the scene before the conversation [default: none]
    #[arg(long)]
    pub system: Option<String>,
    /// 0 takes the likeliest token always, up to 2 [default, as for the next four: what the checkpoint says]
    #[arg(long)]
    pub temperature: Option<f32>,
    /// How many of the likeliest tokens are drawn from, up to 100; 0 for all
    #[arg(long = "top_k")]
    pub top_k: Option<u32>,
    /// Share of the probability that is drawn from, above 0 up to 1
    #[arg(long = "top_p")]
    pub top_p: Option<f32>,
    /// Makes tokens that were there already less likely; 0.5 to 2, 1 for not at all
    #[arg(long = "repetition_penalty")]
    pub repetition_penalty: Option<f32>,
    /// Most tokens of an answer
    #[arg(long = "max_new_tokens")]
    pub max_new_tokens: Option<u32>,
    /// The same seed draws the same answers [default: random for each answer]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Piped input is one message, not one a line, and nothing in it is a command
    #[arg(long = "whole_input")]
    pub whole_input: bool,
    /// Threads that compute [default: one less than there are cores]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub threads: Option<u32>,
    /// Folder where copies of quantised weights are kept [default: the platform's data folder]
    #[arg(long = "data_dir")]
    pub data_dir: Option<PathBuf>,
    /// Settings, of which those of the engine and for copies count here [default: Leptos.toml, where there is one]
    #[arg(long)]
    pub config: Option<PathBuf>,
}

/// Flags of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The model
    #[command(flatten)]
    pub model: ModelArgs,
    /// Read all files and numbers too, and compare them with the hashes there are
    #[arg(long)]
    pub verify: bool,
}

/// Flags of `convert`.
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// The model
    #[command(flatten)]
    pub model: ModelArgs,
    /// Folder to make and to write to
    #[arg(long = "output_path")]
    pub output_path: PathBuf,
}

/// Flags of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Folder with config.json and weights, or a GGUF file
    #[arg(long = "model_path", required_unless_present = "random_weights", conflicts_with = "random_weights")]
    pub model_path: Option<PathBuf>,
    /// Random weights of this shape: 13b, 7b, 1b or mini
    #[arg(long = "random_weights", value_parser = ["13b", "7b", "1b", "mini"])]
    pub random_weights: Option<String>,
    /// What computes it, and in which formats
    #[command(flatten)]
    pub compute: ComputeArgs,
    /// auto, bf16, f16, f32 or int8
    #[arg(long = "kv_dtype", value_parser = kv_dtype)]
    pub kv_dtype: Option<KvChoice>,
    /// Tokens of each prompt, one measurement for each of several separated by commas
    #[arg(long, default_value = "512", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    pub prompt: Vec<u32>,
    /// Tokens to generate for each
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub generate: u32,
    /// How many sequences at once, one measurement for each of several separated by commas
    #[arg(long, default_value = "1,4,8", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    pub concurrency: Vec<u32>,
    /// Also the time to first token of a second turn whose history of so many tokens is known
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub history: Option<u32>,
    /// Also the longest gap between two tokens of an answer while a prompt of so many tokens is read
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub beside: Option<u32>,
    /// No step on a card before the tokens of the one before it are known
    #[arg(long = "no_ahead")]
    pub no_ahead: bool,
    /// Threads that compute [default: one less than there are cores]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub threads: Option<u32>,
    /// Write the result here as JSON, too
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// Number format of the weights in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// As they are stored.
    Auto,
    /// This one.
    Is(NumberType),
}

/// Number format of keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvChoice {
    /// What suits the device.
    Auto,
    /// This one.
    Is(KvType),
}

/// Which prompt format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormatChoice {
    /// What the vocabulary says.
    Auto,
    /// This one.
    Is(PromptFormat),
}

impl Cli {
    /// Parses a command line; where it is wrong or asks for help, prints that and ends the process (status 2 or 0).
    pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Self {
        Self::parse_from(args.into_iter().map(underscored))
    }
}

/// `--model-path` and `--model-path=x` as `--model_path` and `--model_path=x`; everything else as it is.
fn underscored(arg: OsString) -> OsString {
    let Some(text) = arg.to_str() else {
        return arg;
    };
    let Some(flag) = text.strip_prefix("--") else {
        return arg;
    };
    let (name, value) = flag.find('=').map_or((flag, ""), |at| flag.split_at(at));
    format!("--{}{value}", name.replace('-', "_")).into()
}

/// Reads `auto`, `cpu`, `reference`, `cuda`, `cuda:N`.
pub(super) fn device(text: &str) -> Result<DeviceChoice, String> {
    match text {
        "auto" => Ok(DeviceChoice::Auto),
        "cpu" => Ok(DeviceChoice::Cpu),
        "reference" => Ok(DeviceChoice::Reference),
        "cuda" => Ok(DeviceChoice::Cuda(0)),
        _ => text
            .strip_prefix("cuda:")
            .and_then(|index| index.parse().ok())
            .map(DeviceChoice::Cuda)
            .ok_or_else(|| "expected auto, cpu, reference, cuda or cuda:N".to_owned()),
    }
}

/// Reads `auto`, `bf16`, `f16`, `f32`.
pub(super) fn dtype(text: &str) -> Result<Dtype, String> {
    match text {
        "auto" => Ok(Dtype::Auto),
        "bf16" => Ok(Dtype::Is(NumberType::Bf16)),
        "f16" => Ok(Dtype::Is(NumberType::F16)),
        "f32" => Ok(Dtype::Is(NumberType::F32)),
        _ => Err("expected auto, bf16, f16 or f32".to_owned()),
    }
}

/// Reads `auto`, `bf16`, `f16`, `f32`, `int8`.
pub(super) fn kv_dtype(text: &str) -> Result<KvChoice, String> {
    match text {
        "auto" => Ok(KvChoice::Auto),
        "bf16" => Ok(KvChoice::Is(KvType::Bf16)),
        "f16" => Ok(KvChoice::Is(KvType::F16)),
        "f32" => Ok(KvChoice::Is(KvType::F32)),
        "int8" => Ok(KvChoice::Is(KvType::Int8)),
        _ => Err("expected auto, bf16, f16, f32 or int8".to_owned()),
    }
}

/// Reads `none`, `8`, `int8`, `4`, `int4`.
pub(super) fn quantize(text: &str) -> Result<Quantize, String> {
    match text {
        "none" => Ok(Quantize::None),
        "8" | "int8" => Ok(Quantize::Eight),
        "4" | "int4" => Ok(Quantize::Four),
        _ => Err("expected none, 8 or 4".to_owned()),
    }
}

/// Reads `auto`, `v1`, `v2`.
pub(super) fn prompt_format(text: &str) -> Result<FormatChoice, String> {
    match text {
        "auto" => Ok(FormatChoice::Auto),
        "v1" => Ok(FormatChoice::Is(PromptFormat::V1)),
        "v2" => Ok(FormatChoice::Is(PromptFormat::V2)),
        _ => Err("expected auto, v1 or v2".to_owned()),
    }
}

/// Reads the address of an upstream server.
pub(super) fn upstream(text: &str) -> Result<Address, String> {
    Address::parse(text).map_err(|error| error.to_string())
}

/// Reads a finite number of GiB above zero.
pub(super) fn positive_gib(text: &str) -> Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|gib| gib.is_finite() && *gib > 0.0)
        .ok_or_else(|| "expected a number of GiB above 0".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(
            std::iter::once("xverse-chat").chain(args.iter().copied()).map(|arg| underscored(arg.into())),
        )
    }

    #[test]
    fn the_original_launch_line_serves() {
        let cli = parse(&["--port=36000", "--model_path=/m/", "--tokenizer_path=/t/"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.serve.port, Some(36000));
        assert_eq!(cli.serve.model.model_path, Some("/m/".into()));
        assert_eq!(cli.serve.model.tokenizer_path, Some("/t/".into()));
    }

    #[test]
    fn flags_may_be_spelled_with_hyphens_and_values_keep_theirs() {
        for args in [["--model-path", "/a-b"].as_slice(), &["--model-path=/a-b"], &["--model_path=/a-b"]] {
            assert_eq!(parse(args).unwrap().serve.model.model_path, Some("/a-b".into()));
        }
        assert_eq!(parse(&["--title=--so-it-is"]).unwrap().serve.title.unwrap(), "--so-it-is");
    }

    #[test]
    fn serve_may_be_said_or_left_out() {
        let cli = parse(&["serve", "--port", "0"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Serve(args)) if args.port == Some(0)));
    }

    #[test]
    fn a_value_outside_its_kind_is_a_usage_error() {
        for args in [
            ["--port", "70000"],
            ["--device", "gpu"],
            ["--dtype", "int3"],
            ["--quantize", "5"],
            ["--kv_dtype", "int4"],
            ["--prompt_format", "v3"],
            ["--kv_memory", "-1"],
            ["--kv_memory", "NaN"],
            ["--nonsense", "1"],
            ["--upstream", "gpu:8000"],
            ["--upstream", "http://me:word@gpu"],
            ["bench", "--prompt=5"],
            ["bench", "--random_weights=2b"],
        ] {
            assert_eq!(parse(&args).unwrap_err().exit_code(), 2, "{args:?}");
        }
    }

    #[test]
    fn devices_are_named_as_in_the_readme() {
        assert_eq!(device("cuda"), Ok(DeviceChoice::Cuda(0)));
        assert_eq!(device("cuda:3"), Ok(DeviceChoice::Cuda(3)));
        assert!(device("cuda:").is_err());
    }

    #[test]
    fn chat_takes_settings_and_no_port() {
        let cli = parse(&["chat", "--temperature=0", "--max-new-tokens", "5", "--system=-x", "--whole_input"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Chat(args))
            if args.temperature == Some(0.0) && args.max_new_tokens == Some(5) && args.whole_input));
        for flag in ["--port=1", "--temperature=warm", "--threads=0", "--seed=-1"] {
            assert_eq!(parse(&["chat", flag]).unwrap_err().exit_code(), 2, "{flag}");
        }
    }

    #[test]
    fn upstreams_come_one_by_one_or_separated_by_commas() {
        for args in [["--upstream=http://a,http://b"].as_slice(), &["--upstream", "http://a", "--upstream=http://b/v1"]]
        {
            let upstreams = parse(args).unwrap().serve.upstream.unwrap();
            assert_eq!(upstreams.iter().map(ToString::to_string).collect::<Vec<_>>(), ["http://a", "http://b"]);
        }
    }

    #[test]
    fn perplexity_takes_a_file_and_a_model() {
        let line = ["perplexity", "text.txt", "--model-path=/m", "--quantize=8", "--context", "64", "--save=run"];
        let Some(Command::Perplexity(args)) = parse(&line).unwrap().command else { panic!("another subcommand") };
        assert_eq!((args.file, args.context, args.chunk), ("text.txt".into(), Some(64), 512));
        assert_eq!((args.model.compute.quantize, args.save), (Some(Quantize::Eight), Some("run".into())));
        assert_eq!(parse(&["perplexity"]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn bench_takes_lists() {
        let cli = parse(&["bench", "--random-weights", "1b", "--concurrency", "1,2", "--prompt", "9,8"]).unwrap();
        assert!(
            matches!(cli.command, Some(Command::Bench(args)) if args.concurrency == [1, 2] && args.prompt == [9, 8])
        );
        for flag in ["--threads=0", "--model_path=x", "--quantize=3", "--concurrency=0"] {
            assert_eq!(parse(&["bench", "--random_weights=1b", flag]).unwrap_err().exit_code(), 2, "{flag}");
        }
    }
}
