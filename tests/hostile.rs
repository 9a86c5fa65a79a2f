//! Bad input is refused by name, at once, and without memory for what it claims.
//!
//! A binary of its own, because it counts what is allocated.

#![cfg(feature = "ssr")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(unsafe_code, reason = "an allocator that counts")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use xverse_chat::engine::{
    backend::cpu::{CpuBackend, CpuOptions},
    checkpoint::{Checkpoint, gguf, pickle},
    kv_type::KvType,
    load,
    precision::Precision,
};

struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const LONGEST: Duration = Duration::from_secs(2);

/// The most bytes that `read` holds at once beyond what was held before.
fn most_held(read: impl FnOnce()) -> usize {
    let before = HELD.get();
    MOST.set(before);
    read();
    (MOST.get() - before).cast_unsigned()
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data/formats").join(name)
}

/// A folder with these files, copied.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (from, to) in files {
        fs::copy(data(from), dir.path().join(to)).unwrap();
    }
    dir
}

/// What is said of the checkpoint at `path`, which must be at once and cost next to nothing.
fn refused(path: &Path, adapter: Option<&Path>) -> String {
    let began = Instant::now();
    let mut said = None;
    let held = most_held(|| {
        let opened = load::read_config(path).and_then(|(_, config)| {
            let checkpoint = Checkpoint::open(path, &config)?;
            Ok(match adapter {
                Some(adapter) => checkpoint.with_adapter(adapter, &config)?,
                None => checkpoint,
            })
        });
        said = opened.err().map(|error| error.to_string());
    });
    let took = began.elapsed();
    let said = said.unwrap_or_else(|| panic!("{} was taken", path.display()));
    assert!(said.contains("\nhint: "), "{said}");
    assert!(took < LONGEST && held < 4 << 20, "{took:?}, {held} bytes: {said}");
    said
}

/// Reads the file with each byte of `changed` replaced by some others, and cut at many lengths.
fn torment(name: &str, read: fn(&Path) -> bool, changed: usize) {
    let good = fs::read(data(name)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, &good).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let bound = 32 * good.len() + (1 << 20);
    let (mut worst, mut longest) = (0, Duration::ZERO);
    let mut check = || {
        let began = Instant::now();
        worst = worst.max(most_held(|| _ = read(&path)));
        longest = longest.max(began.elapsed());
    };
    for (at, &byte) in good.iter().enumerate().take(changed) {
        for other in [byte ^ 0x80, byte.wrapping_add(1)] {
            file.write_all_at(&[other], at as u64).unwrap();
            check();
        }
        file.write_all_at(&[byte], at as u64).unwrap();
        // Whole fields at once: sizes, counts, offsets.
        if let Some(field) = good.get(at..at + 8) {
            for other in [[0xff; 8], (1_u64 << 40).to_le_bytes()] {
                file.write_all_at(&other, at as u64).unwrap();
                check();
            }
            file.write_all_at(field, at as u64).unwrap();
        }
    }
    for n_bytes in (0..good.len()).rev().step_by(1 + good.len() / 1000) {
        file.set_len(n_bytes as u64).unwrap();
        check();
    }
    assert!(worst < bound, "{name}: {worst} bytes of {bound}");
    assert!(longest < LONGEST, "{name}: {longest:?}");
}

#[test]
fn no_bin_file_costs_more_than_its_size_is_worth() {
    torment("bin/shared.bin", |path| pickle::read_header(path).is_ok(), usize::MAX);
}

#[test]
fn no_gguf_file_costs_more_than_its_size_is_worth() {
    let begin = gguf::read_header(&data("gguf/model.gguf")).unwrap().header.tensors[0].begin;
    torment("gguf/model.gguf", |path| gguf::read_header(path).is_ok(), begin as usize);
}

#[test]
fn pickles_that_call_something_are_refused_by_its_name() {
    for (file, name) in [
        ("system", "system"),
        ("system4", "system"),
        ("eval", "eval"),
        ("nested", "getattr"),
        ("object", ""),
        ("hooks", ""),
        ("overlapping", "share"),
        ("strides", "stride"),
    ] {
        let file = format!("bin-refused/{file}.bin");
        let dir = folder(&[("bin/config.json", "config.json"), (&file, "pytorch_model.bin")]);
        let said = refused(dir.path(), None);
        assert!(said.contains(name), "{file}: {said}");
    }
}

#[test]
fn an_index_that_leads_elsewhere_is_refused() {
    let dir = folder(&[("bin-sharded/config.json", "config.json")]);
    for name in ["../x.bin", "/etc/x.bin", "a/b.bin", "..", "x\u{0}.bin"] {
        let index = serde_json::json!({"weight_map": {"model.norm.weight": name}}).to_string();
        fs::write(dir.path().join("pytorch_model.bin.index.json"), index).unwrap();
        let said = refused(dir.path(), None);
        assert!(said.contains("expected the plain name"), "{said}");
    }
}

/// What `ask` says, which must not wait for anybody.
fn at_once(ask: impl FnOnce() -> String + Send + 'static) -> String {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(ask()));
    receiver.recv_timeout(5 * LONGEST).expect("it says something, and waits for nobody")
}

#[test]
fn a_pipe_in_place_of_a_file_is_refused_and_not_waited_for() {
    for (from, to, name) in [
        ("lora-base", "model", "model.safetensors"),
        ("bin", "model", "pytorch_model.bin"),
        ("gguf", "model", "model.gguf"),
        ("lora", "adapter", "adapter_model.safetensors"),
        ("lora-bin", "adapter", "adapter_model.bin"),
        ("lora", "adapter", "adapter_config.json"),
    ] {
        let config = if to == "model" { "config.json" } else { "adapter_config.json" };
        let dir = folder(&[(&format!("{from}/{config}"), config)]);
        let path = dir.path().join(name);
        // One that is there already makes room.
        _ = fs::remove_file(&path);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let place = dir.path().to_owned();
        let said = at_once(move || match to {
            "model" => refused(&place, None),
            _ => refused(&data("lora-base"), Some(&place)),
        });
        assert!(said.contains(name) && said.contains("a pipe, expected a regular file"), "{said}");
    }
}

#[test]
fn a_git_lfs_pointer_in_place_of_a_file_is_named() {
    let pointer =
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n";
    for (from, name) in [
        ("lora-base", "model.safetensors"),
        ("bin", "pytorch_model.bin"),
        ("gguf", "model.gguf"),
        ("bin-sharded", "pytorch_model.bin.index.json"),
        ("gptq", "quantize_config.json"),
        ("lora", "adapter_model.safetensors"),
        ("lora", "adapter_config.json"),
    ] {
        let is_adapter = from == "lora";
        let config = if is_adapter { "adapter_config.json" } else { "config.json" };
        let dir = folder(&[(&format!("{from}/{config}"), config)]);
        if from == "gptq" {
            fs::copy(data("gptq/model.safetensors"), dir.path().join("model.safetensors")).unwrap();
        }
        fs::write(dir.path().join(name), pointer).unwrap();
        let said = if is_adapter { refused(&data("lora-base"), Some(dir.path())) } else { refused(dir.path(), None) };
        assert!(said.contains(name) && said.contains("Git LFS pointer") && said.contains("`git lfs pull`"), "{said}");
    }
}

#[test]
fn headers_and_shapes_larger_than_any_memory_are_refused() {
    let dir = folder(&[("lora-base/config.json", "config.json")]);
    for length in [1_u64 << 63, u64::MAX, 99_999_999, 0] {
        fs::write(dir.path().join("model.safetensors"), length.to_le_bytes()).unwrap();
        refused(dir.path(), None);
    }
    let config = fs::read_to_string(data("lora-base/config.json")).unwrap();
    let mut fields: serde_json::Value = serde_json::from_str(&config).unwrap();
    for (field, value) in [("num_hidden_layers", 1_000_000_000_u64), ("hidden_size", 1 << 62), ("vocab_size", u64::MAX)]
    {
        let before = fields[field].take();
        fields[field] = value.into();
        fs::write(dir.path().join("config.json"), fields.to_string()).unwrap();
        let said = refused(dir.path(), None);
        assert!(said.contains(field) && said.contains(&value.to_string()), "{said}");
        fields[field] = before;
    }
}

#[test]
fn files_that_were_cut_short_are_refused() {
    for (from, name, config) in [
        ("gguf/model.gguf", "model.gguf", "gguf/config.json"),
        ("lora-base/model.safetensors", "model.safetensors", "lora-base/config.json"),
        ("bin/pytorch_model.bin", "pytorch_model.bin", "bin/config.json"),
    ] {
        let dir = folder(&[(config, "config.json"), (from, name)]);
        let path = dir.path().join(name);
        let n_bytes = fs::metadata(&path).unwrap().len();
        for share in [1, 2, 3] {
            fs::File::options().write(true).open(&path).unwrap().set_len(n_bytes * share / 4).unwrap();
            let said = refused(dir.path(), None);
            assert!(said.contains(name), "{said}");
            fs::copy(data(from), &path).unwrap();
        }
    }
}

#[test]
fn a_gguf_file_of_another_architecture_is_refused_by_name() {
    let dir = folder(&[("gguf/model.gguf", "model.gguf")]);
    let path = dir.path().join("model.gguf");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(6).position(|word| word == b"xverse").unwrap();
    bytes[at..at + 6].copy_from_slice(b"gemma3");
    fs::write(&path, bytes).unwrap();
    let said = refused(dir.path(), None);
    assert!(said.contains("\"gemma3\""), "{said}");
}

#[test]
fn an_adapter_of_another_shape_is_refused_by_name() {
    let said = refused(&data("bin-sharded"), Some(&data("lora")));
    assert!(said.contains("lora_"), "{said}");
}

#[test]
fn scales_that_are_no_numbers_are_refused_with_their_tensor() {
    let dir = folder(&[("gguf/model.gguf", "model.gguf")]);
    let path = dir.path().join("model.gguf");
    let header = gguf::read_header(&path).unwrap().header;
    for part in ["gate_proj", "up_proj", "down_proj"] {
        let tensor = header.tensors.iter().find(|tensor| tensor.name.contains(part)).unwrap();
        let file = fs::File::options().read(true).write(true).open(&path).unwrap();
        let mut scale = [0; 2];
        file.read_exact_at(&mut scale, tensor.begin).unwrap();
        file.write_all_at(&0x7e00_u16.to_le_bytes(), tensor.begin).unwrap();
        let config = load::read_config(&path).unwrap().1;
        let weights = Checkpoint::open(&path, &config).unwrap().into_weights();
        let options = CpuOptions { precision: Precision::default(), kv_type: KvType::F32, n_blocks: 4, threads: 1 };
        let Err(error) = CpuBackend::new(&config, Arc::clone(&weights), options) else { panic!("{part} was taken") };
        let said = error.to_string();
        assert!(said.contains(&tensor.name) && said.contains("row 0") && said.contains("\nhint: "), "{said}");
        file.write_all_at(&scale, tensor.begin).unwrap();
    }
}

#[test]
fn a_disk_that_fills_up_leaves_no_converted_folder() {
    let dir = tempfile::tempdir().unwrap();
    let mini = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/xverse-mini");
    // Files may not grow beyond 64 KiB, and the program is told so instead of being ended.
    let limited =
        "ulimit -f 128; trap '' 25; exec \"$0\" convert --quantize 4 --model_path \"$1\" --output_path \"$2\"";
    let output = dir.path().join("four");
    let ran = Command::new("sh")
        .args(["-c", limited, env!("CARGO_BIN_EXE_xverse-chat")])
        .args([&mini, &output])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert_eq!(ran.status.code(), Some(78), "{said}");
    assert!(
        said.contains("model.safetensors") && said.contains("cannot be written") && said.contains("\nhint: "),
        "{said}"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
