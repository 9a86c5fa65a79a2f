//! A checkpoint that is broken in any way is refused at once, by name, and before anything large is allocated.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::{
    program::Program,
    support::tiny_checkpoint::{TinySpec, TinyTokenizer, tiny_checkpoint, tokenizer_json},
};

/// What the program may allocate before it refuses.
const MOST_KIB: u32 = 200 * 1024;
const MOST_TIME: Duration = Duration::from_secs(2);
/// Bytes of messages that somebody can still read.
const MOST_WORDS: usize = 16 << 10;

const WEIGHTS: &str = "model.safetensors";
const FIRST: &str = "model-00001-of-00002.safetensors";
const SECOND: &str = "model-00002-of-00002.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// One way to be broken, and what the refusal must name.
type Broken = (&'static str, fn(&Path), &'static [&'static str]);

/// Writes the checkpoint, spoils it, and asserts that it is refused by the server and by `check`.
fn are_refused(n_shards: usize, all: &[Broken]) {
    for (what, spoil, words) in all {
        let program = Program::new();
        let model = program.path("model");
        fs::create_dir(&model).unwrap();
        tiny_checkpoint(&model, &TinySpec { n_shards, ..TinySpec::default() });
        spoil(&model);
        for args in [["--port=0", "--model_path=model"].as_slice(), &["check", "--model_path=model"]] {
            let began = Instant::now();
            println!("{what}, {}:", args[0]);
            let ended = Program::ended(program.command_within(MOST_KIB, args), began + MOST_TIME);
            ended.assert(78, words);
            assert!(ended.stderr.len() < MOST_WORDS, "{} bytes of messages", ended.stderr.len());
        }
    }
}

fn change_json(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

fn change_config(model: &Path, key: &str, value: Value) {
    change_json(&model.join("config.json"), |config| config[key] = value);
}

fn cut(path: &Path, length: impl FnOnce(u64) -> u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let whole = file.metadata().unwrap().len();
    file.set_len(length(whole)).unwrap();
}

/// Writes another header before the same tensors.
fn change_header(path: &Path, change: impl FnOnce(String) -> String) {
    let bytes = fs::read(path).unwrap();
    let (length, rest) = bytes.split_at(8);
    let (header, data) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
    let header = change(String::from_utf8(header.to_vec()).unwrap());
    let length = (header.len() as u64).to_le_bytes();
    fs::write(path, [&length[..], header.as_bytes(), data].concat()).unwrap();
}

/// Changes what the header says of the output projection.
fn change_tensor(path: &Path, change: impl FnOnce(&mut Value)) {
    change_header(path, |header| {
        let mut header: Value = serde_json::from_str(&header).unwrap();
        change(&mut header["lm_head.weight"]);
        header.to_string()
    });
}

fn set_header_length(path: &Path, length: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[..8].copy_from_slice(&length.to_le_bytes());
    fs::write(path, bytes).unwrap();
}

fn claim(model: &Path, tensor: &str, file: &str) {
    change_json(&model.join(INDEX), |index| index["weight_map"][tensor] = json!(file));
}

#[test]
fn a_shard_that_is_cut_off_is_refused_at_once_and_named() {
    are_refused(
        2,
        &[
            ("a byte", |model| cut(&model.join(SECOND), |whole| whole - 1), &[SECOND, "bytes", "expected"]),
            ("a page", |model| cut(&model.join(SECOND), |whole| whole - 4096), &[SECOND, "bytes", "expected"]),
            ("in its header", |model| cut(&model.join(FIRST), |_| 100), &[FIRST, "100 bytes", "expected"]),
            ("to its header's length", |model| cut(&model.join(FIRST), |_| 8), &[FIRST, "8 bytes", "expected"]),
            ("to nothing", |model| cut(&model.join(FIRST), |_| 0), &[FIRST, "0 bytes", "expected"]),
            ("not there", |model| fs::remove_file(model.join(SECOND)).unwrap(), &[SECOND]),
        ],
    );
}

#[test]
fn a_header_that_lies_is_refused_at_once_and_named() {
    are_refused(
        1,
        &[
            ("length 0", |model| set_header_length(&model.join(WEIGHTS), 0), &[WEIGHTS, "0 bytes"]),
            (
                "length 2^63",
                |model| set_header_length(&model.join(WEIGHTS), 1 << 63),
                &[WEIGHTS, "9223372036854775808"],
            ),
            ("length 101 MB", |model| set_header_length(&model.join(WEIGHTS), 101_000_000), &[WEIGHTS, "101000000"]),
            (
                "overlapping",
                |model| {
                    change_header(&model.join(WEIGHTS), |header| {
                        let mut header: Value = serde_json::from_str(&header).unwrap();
                        let begin = &mut header["model.embed_tokens.weight"]["data_offsets"][0];
                        *begin = json!(begin.as_u64().unwrap() - 8);
                        header.to_string()
                    });
                },
                &[WEIGHTS, "lies at bytes"],
            ),
            (
                "a gap",
                |model| {
                    change_tensor(&model.join(WEIGHTS), |tensor| {
                        let end = tensor["data_offsets"][1].as_u64().unwrap();
                        tensor["data_offsets"][1] = json!(end + 8);
                    });
                },
                &[WEIGHTS, "lies at bytes"],
            ),
            (
                "negative",
                |model| change_tensor(&model.join(WEIGHTS), |tensor| tensor["data_offsets"][0] = json!(-1)),
                &[WEIGHTS, "header"],
            ),
            (
                "more than any file has",
                |model| change_tensor(&model.join(WEIGHTS), |tensor| tensor["data_offsets"][1] = json!(u64::MAX)),
                &[WEIGHTS, "lies at bytes"],
            ),
            (
                "a shape beyond all numbers",
                |model| {
                    change_tensor(&model.join(WEIGHTS), |tensor| tensor["shape"] = json!([1_u64 << 40, 1_u64 << 40]));
                },
                &[WEIGHTS, "lm_head.weight", "larger than any memory"],
            ),
            (
                "broken JSON",
                |model| change_header(&model.join(WEIGHTS), |header| header.replacen('{', "[", 1)),
                &[WEIGHTS, "header"],
            ),
            (
                "a name twice",
                |model| change_header(&model.join(WEIGHTS), |header| header.replacen("k_proj", "q_proj", 1)),
                &["q_proj", "again", "expected once"],
            ),
        ],
    );
}

#[test]
fn an_index_that_lies_is_refused_at_once_and_named() {
    are_refused(
        2,
        &[
            ("broken JSON", |model| fs::write(model.join(INDEX), "{\n\"weight_map\": [").unwrap(), &[INDEX, "line 2"]),
            ("no names", |model| fs::write(model.join(INDEX), "{\"weight_map\": {}}").unwrap(), &[INDEX, "no tensor"]),
            ("a name too many", |model| claim(model, "model.stranger", FIRST), &["model.stranger", FIRST]),
            ("another file's name", |model| claim(model, "lm_head.weight", FIRST), &["lm_head.weight", FIRST]),
            ("out of the folder", |model| claim(model, "lm_head.weight", "../x.safetensors"), &["../x.safetensors"]),
            ("from the root", |model| claim(model, "lm_head.weight", "/x.safetensors"), &["/x.safetensors"]),
            (
                "a link that leads out",
                |model| {
                    fs::rename(model.join(SECOND), model.with_file_name("elsewhere")).unwrap();
                    symlink("../elsewhere", model.join(SECOND)).unwrap();
                },
                &[SECOND, "elsewhere"],
            ),
        ],
    );
}

/// Writes an index of so many shards that are not there.
fn index_of_absent_shards(model: &Path, n: usize) {
    let claims: Vec<String> = (0..n).map(|at| format!("\"t{at}\":\"m{at}.safetensors\"")).collect();
    fs::write(model.join(INDEX), format!("{{\"weight_map\":{{{}}}}}", claims.join(","))).unwrap();
}

/// Writes a header with so many empty tensors before no data.
fn header_of_empty_tensors(model: &Path, name: impl Fn(usize) -> String) {
    let tensor = |at| format!("\"{}\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", name(at));
    let header = format!("{{{}}}", (0..1_200_000).map(tensor).collect::<Vec<_>>().join(","));
    fs::write(model.join(WEIGHTS), [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()).unwrap();
}

#[test]
fn names_without_end_are_refused_at_once_and_in_few_words() {
    are_refused(
        2,
        &[
            ("shards beyond count", |model| index_of_absent_shards(model, 450_000), &[INDEX, "more than 65536"]),
            ("absent shards", |model| index_of_absent_shards(model, 60_000), &["incomplete", "m0.safetensors"]),
        ],
    );
    are_refused(
        1,
        &[
            ("one name", |model| header_of_empty_tensors(model, |_| "a".to_owned()), &[WEIGHTS, "more than 65536"]),
            (
                "many names",
                |model| header_of_empty_tensors(model, |at| format!("a{at}")),
                &[WEIGHTS, "more than 65536"],
            ),
            (
                "a name twice, and again, and again",
                |model| {
                    let header = format!(
                        "{{{}}}",
                        vec!["\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}"; 60_000].join(",")
                    );
                    fs::write(model.join(WEIGHTS), [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat())
                        .unwrap();
                },
                &["a is in model.safetensors and again", "expected once"],
            ),
        ],
    );
}

#[test]
fn what_stands_in_for_a_file_is_refused_and_named_with_what_fetches_the_file() {
    fn point(path: &Path) {
        fs::write(path, "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n").unwrap();
    }
    const WORDS: [&str; 2] = ["Git LFS pointer", "`git lfs pull`"];
    are_refused(
        1,
        &[
            ("weights", |model| point(&model.join(WEIGHTS)), &[WEIGHTS, WORDS[0], WORDS[1]]),
            ("config", |model| point(&model.join("config.json")), &["config.json", WORDS[0], WORDS[1]]),
            ("tokenizer", |model| point(&model.join("tokenizer.json")), &["tokenizer.json", WORDS[0], WORDS[1]]),
            (
                "a page",
                |model| fs::write(model.join("tokenizer.json"), "<!DOCTYPE html>\n<html class=\"\">").unwrap(),
                &["tokenizer.json", "web page", "download the file itself"],
            ),
            (
                "a pipe",
                |model| {
                    fs::remove_file(model.join(WEIGHTS)).unwrap();
                    assert!(Command::new("mkfifo").arg(model.join(WEIGHTS)).status().unwrap().success());
                },
                &[WEIGHTS, "a pipe", "regular file"],
            ),
        ],
    );
}

#[test]
fn a_vocabulary_that_was_rounded_up_is_taken_and_warned_of() {
    let program = Program::new();
    let model = program.path("model");
    fs::create_dir(&model).unwrap();
    tiny_checkpoint(&model, &TinySpec { vocab_size: 704, ..TinySpec::default() });
    let tokenizer = tokenizer_json(TinyTokenizer::V2, 700);
    fs::write(model.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let ended = program.run(&["check", "--model_path=model"]);
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    assert!(ended.stdout.contains("4 of the vocabulary's 704 rows have no token"), "{}", ended.stdout);
}

#[test]
fn a_scale_that_is_no_number_is_the_checkpoints_fault_and_not_the_devices() {
    let program = Program::new();
    let model = program.path("model");
    fs::create_dir(&model).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data/formats/gptq");
    for name in ["config.json", "quantize_config.json", WEIGHTS] {
        fs::copy(golden.join(name), model.join(name)).unwrap();
    }
    let mut bytes = fs::read(model.join(WEIGHTS)).unwrap();
    let (n_header, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let begins = header.tensors().into_iter().filter(|(name, _)| name.ends_with(".scales"));
    let begins: Vec<usize> = begins.map(|(_, info)| 8 + n_header + info.data_offsets.0).collect();
    for begin in begins {
        bytes[begin..begin + 2].copy_from_slice(&0x7e00_u16.to_le_bytes());
    }
    fs::write(model.join(WEIGHTS), bytes).unwrap();
    fs::write(program.path("ids.json"), "[[4, 5]]").unwrap();
    let ended = program.run(&["logits", "--model_path=model", "--ids=ids.json", "--output=logits", "--device=cpu"]);
    ended.assert(78, &["scale of group 0", "NaN", "expected a finite number"]);
}

#[test]
fn weights_that_are_not_the_configs_are_refused_at_once_and_named() {
    are_refused(
        1,
        &[
            (
                "another width",
                |model| change_config(model, "intermediate_size", json!(96)),
                &["gate_proj", "[172, 64]"],
            ),
            (
                "another kind of number",
                |model| {
                    change_tensor(&model.join(WEIGHTS), |tensor| tensor["dtype"] = json!("I32"));
                },
                &[WEIGHTS, "lm_head.weight", "I32"],
            ),
            ("a layer missing", |model| change_config(model, "num_hidden_layers", json!(3)), &["missing", "layers.2"]),
            ("heads that do not divide", |model| change_config(model, "num_attention_heads", json!(7)), &["64", "7"]),
            (
                "more layers than there are",
                |model| change_config(model, "num_hidden_layers", json!(1_000_000_000)),
                &["num_hidden_layers", "1000000000"],
            ),
            (
                "a .bin file that is none",
                |model| fs::rename(model.join(WEIGHTS), model.join("pytorch_model.bin")).unwrap(),
                &["pytorch_model.bin", "zip"],
            ),
        ],
    );
}

#[test]
fn a_tokenizer_that_cannot_be_used_is_refused_at_once_and_named() {
    are_refused(
        1,
        &[
            (
                "absent",
                |model| fs::remove_file(model.join("tokenizer.json")).unwrap(),
                &["tokenizer.json", "--tokenizer_path"],
            ),
            ("empty", |model| fs::write(model.join("tokenizer.json"), "").unwrap(), &["tokenizer", "empty"]),
            ("of another size", |model| change_config(model, "vocab_size", json!(701)), &["700", "701"]),
            (
                "too large",
                |model| {
                    let path = model.join("tokenizer.json");
                    cut(&path, |_| (64 << 20) + 1);
                },
                &["tokenizer.json", "67108865", "67108864"],
            ),
            (
                "a folder",
                |model| {
                    fs::remove_file(model.join("tokenizer.json")).unwrap();
                    fs::create_dir(model.join("tokenizer.json")).unwrap();
                },
                &["tokenizer.json", "cannot be read"],
            ),
        ],
    );
}

#[test]
fn a_file_that_may_not_be_read_is_refused_at_once_and_named() {
    let probe = tempfile::NamedTempFile::new().unwrap();
    let forbid = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o0)).unwrap();
    forbid(probe.path());
    if fs::read(probe.path()).is_ok() {
        println!("skipped: whoever runs this may read everything");
        return;
    }
    are_refused(
        1,
        &[
            (
                "weights",
                |model| fs::set_permissions(model.join(WEIGHTS), fs::Permissions::from_mode(0o0)).unwrap(),
                &[WEIGHTS, "cannot be read"],
            ),
            (
                "config",
                |model| fs::set_permissions(model.join("config.json"), fs::Permissions::from_mode(0o0)).unwrap(),
                &["config.json", "cannot be read"],
            ),
        ],
    );
}
