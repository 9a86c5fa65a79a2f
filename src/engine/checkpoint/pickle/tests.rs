//! What PyTorch writes is found where it is, and what a hostile file asks for is refused by name.

use std::{
    fs,
    io::{Cursor, Write},
    os::unix::fs::FileExt,
    path::PathBuf,
    time::Instant,
};

use serde_json::Value;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::*;
use crate::engine::checkpoint::pickle::error::PickleProblem;

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data/formats").join(name)
}

/// Compares type, shape and bytes of every tensor with what Python wrote.
fn holds_what_was_saved(folder: &str, file: &str) {
    let expected: Value = serde_json::from_slice(&fs::read(data("bin/expected.json")).unwrap()).unwrap();
    let expected = expected[file].as_object().unwrap();
    let header = read_header(&data(folder).join(file)).unwrap();
    assert_eq!(header.tensors.len(), expected.len(), "{file}");
    let opened = fs::File::open(&header.path).unwrap();
    for tensor in &header.tensors {
        let expected = &expected[&tensor.name];
        let mut bytes = vec![0; (tensor.end - tensor.begin) as usize];
        opened.read_exact_at(&mut bytes, tensor.begin).unwrap();
        let sha = Sha256::digest(&bytes).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        assert_eq!(tensor.dtype.to_string(), expected["dtype"].as_str().unwrap(), "{file} {}", tensor.name);
        assert_eq!(serde_json::json!(tensor.shape), expected["shape"], "{file} {}", tensor.name);
        assert_eq!(sha, expected["sha256"].as_str().unwrap(), "{file} {}", tensor.name);
    }
}

#[test]
fn what_pytorch_saves_is_found_byte_for_byte() {
    for file in ["pytorch_model.bin", "shared.bin", "types.bin", "protocol4.bin"] {
        holds_what_was_saved("bin", file);
    }
    for number in 1..=2 {
        holds_what_was_saved("bin-sharded", &format!("pytorch_model-0000{number}-of-00002.bin"));
    }
}

#[test]
fn tensors_at_the_same_place_are_tied_and_others_in_one_storage_are_apart() {
    let header = read_header(&data("bin/shared.bin")).unwrap();
    let place =
        |name: &str| header.tensors.iter().find(|tensor| tensor.name == name).map(|t| (t.begin, t.end)).unwrap();
    assert_eq!(place("embed"), place("head"));
    assert_eq!(place("left").1, place("right").0);
}

#[test]
fn the_digest_is_of_the_pickle_and_of_places() {
    let header = read_header(&data("bin/shared.bin")).unwrap();
    assert_eq!(header.digest, read_header(&data("bin/shared.bin")).unwrap().digest);
    let renamed = Made { records: vec![("data/0", vec![0; 4]), ("other", vec![0; 4])], ..Made::default() };
    assert_ne!(Made::default().read().unwrap().digest, renamed.read().unwrap().digest);
    let again = Made { records: vec![("data/0", vec![0; 4]), ("third", vec![0; 4])], ..Made::default() };
    assert_ne!(again.read().unwrap().digest, renamed.read().unwrap().digest);
    // Weights are not part of it: a digest is made without reading them.
    let ones = Made { records: vec![("data/0", vec![1; 4])], ..Made::default() };
    assert_eq!(Made::default().read().unwrap().digest, ones.read().unwrap().digest);
}

/// The message for a file of Python's that must be refused, within two seconds.
fn refused(file: &str) -> String {
    let started = Instant::now();
    let message = read_header(&data("bin-refused").join(file)).unwrap_err().to_string();
    assert!(started.elapsed().as_secs_f32() < 2.0, "{file}");
    assert!(message.starts_with(file) && message.contains("\nhint: "), "{message}");
    message
}

#[test]
fn a_pickle_that_asks_for_more_than_tensors_is_refused_by_name() {
    for (file, name) in [
        ("system.bin", "posix.system"),
        ("system4.bin", "posix.system"),
        ("eval.bin", "__builtin__.eval"),
        ("nested.bin", "__builtin__.getattr"),
        ("hooks.bin", "posix.system"),
        ("object.bin", "__main__.State"),
    ] {
        let message = refused(file);
        assert!(message.contains(&format!("data.pkl asks for {name}, ")), "{message}");
        assert!(message.contains("nothing of it was executed"), "{message}");
    }
    assert!(refused("module.bin").contains("data.pkl asks for "), "{}", refused("module.bin"));
    assert!(!data("bin-refused/executed").exists() && !PathBuf::from("executed").exists());
}

#[test]
fn what_is_no_dictionary_of_contiguous_tensors_is_refused_with_a_way_out() {
    assert!(refused("legacy.bin").contains("bare pickle"));
    assert!(refused("legacy.bin").contains("save it again"));
    assert!(refused("strides.bin").contains("a of shape [2, 3] has strides [1, 2]"));
    assert!(refused("overlapping.bin").contains("a and b share a part"));
    assert!(refused("training.bin").contains("state_dict is a dictionary, expected a tensor"));
    assert!(refused("list.bin").contains("the step EMPTY_LIST at byte 2"));
    assert!(refused("state.bin").contains("attributes that torch.save does not write"));
}

/// A pickle with one tensor, whose numbers can be wrong.
#[derive(Clone)]
struct Claim {
    n_values: i64,
    offset: i64,
    shape: Vec<i64>,
    stride: Vec<i64>,
}

impl Default for Claim {
    fn default() -> Self {
        Self { n_values: 1, offset: 0, shape: vec![1], stride: vec![1] }
    }
}

impl Claim {
    fn pickle(&self) -> Vec<u8> {
        let integer = |value: &i64| [&[0x8a, 8][..], &value.to_le_bytes()].concat();
        let tuple = |values: &[i64]| [b"(".to_vec(), values.iter().flat_map(integer).collect(), b"t".to_vec()].concat();
        let storage = b"((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu";
        [
            &b"\x80\x02}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n"[..],
            storage,
            &integer(&self.n_values),
            b"tQ",
            &integer(&self.offset),
            &tuple(&self.shape),
            &tuple(&self.stride),
            b"\x89ccollections\nOrderedDict\n)RtRs.",
        ]
        .concat()
    }
}

/// An archive that can be wrong.
struct Made {
    pickle: Vec<u8>,
    records: Vec<(&'static str, Vec<u8>)>,
}

impl Default for Made {
    fn default() -> Self {
        Self { pickle: Claim::default().pickle(), records: vec![("data/0", vec![0; 4])] }
    }
}

impl Made {
    fn bytes(&self) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        writer.start_file("archive/data.pkl", options).unwrap();
        writer.write_all(&self.pickle).unwrap();
        for (name, content) in &self.records {
            writer.start_file(format!("archive/{name}"), options).unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn read(&self) -> Result<Header, PickleError> {
        read_bytes(&self.bytes())
    }

    fn message(&self) -> String {
        self.read().unwrap_err().to_string()
    }
}

fn read_bytes(bytes: &[u8]) -> Result<Header, PickleError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.bin");
    fs::write(&path, bytes).unwrap();
    read_header(&path)
}

fn claimed(change: impl FnOnce(&mut Claim)) -> String {
    let mut claim = Claim::default();
    change(&mut claim);
    Made { pickle: claim.pickle(), ..Made::default() }.message()
}

/// The message for a pickle.
fn of_pickle(pickle: &[u8]) -> PickleProblem {
    match (Made { pickle: pickle.to_vec(), ..Made::default() }).read().unwrap_err() {
        PickleError::Content { problem, .. } => problem,
        other => panic!("{other}"),
    }
}

#[test]
fn claims_that_no_storage_bears_out_are_refused_without_allocating_them() {
    assert!(Made::default().read().is_ok());
    assert!(claimed(|claim| claim.n_values = 2).contains("which has 4 bytes, expected 8"));
    assert!(claimed(|claim| claim.n_values = i64::MAX).contains("larger than any memory"));
    assert!(claimed(|claim| claim.n_values = -1).contains("a reference that is not to a storage"));
    assert!(claimed(|claim| claim.offset = 1).contains("begins at number 1 of a storage of 1"));
    assert!(claimed(|claim| claim.offset = i64::MAX).contains("expected it to end inside"));
    assert!(claimed(|claim| claim.offset = -1).contains("before its storage"));
    let huge = |claim: &mut Claim| (claim.shape, claim.stride) = (vec![i64::MAX, i64::MAX], vec![i64::MAX, 1]);
    assert!(claimed(huge).contains("larger than any memory"));
    let wide = |claim: &mut Claim| (claim.shape, claim.stride) = (vec![i64::MAX], vec![1]);
    assert!(claimed(wide).contains("expected it to end inside"));
    assert!(claimed(|claim| claim.shape = vec![-1]).contains("a shape that is none"));
    assert!(claimed(|claim| claim.shape = vec![1; 9]).contains("a shape that is none"));
    assert!(claimed(|claim| claim.stride = vec![1, 1]).contains("strides"));
    let any_step = |claim: &mut Claim| (claim.shape, claim.stride) = (vec![1, 1], vec![9, 7]);
    let mut claim = Claim::default();
    any_step(&mut claim);
    assert!((Made { pickle: claim.pickle(), ..Made::default() }).read().is_ok());
}

/// As [`of_pickle`], in less than the two seconds that a refusal may take.
fn soon(pickle: &[u8]) -> PickleProblem {
    let bytes = Made { pickle: pickle.to_vec(), ..Made::default() }.bytes();
    let started = Instant::now();
    let error = read_bytes(&bytes).unwrap_err();
    assert!(started.elapsed().as_secs_f32() < 2.0, "{:?}", started.elapsed());
    match error {
        PickleError::Content { problem, .. } => problem,
        other => panic!("{other}"),
    }
}

#[test]
fn bombs_of_nested_and_repeated_things_are_bounded() {
    let many = |code: &[u8], n: usize| [b"\x80\x02", code.repeat(n).as_slice(), b"."].concat();
    assert!(matches!(soon(&many(b"(", 100_000)), PickleProblem::TooMany { limit: 65_536, .. }));
    assert!(matches!(soon(&many(b"N", 100_000)), PickleProblem::TooMany { limit: 65_536, .. }));
    let nested = [b"\x80\x02)", b"\x85".repeat(500_000).as_slice(), b"."].concat();
    assert!(matches!(soon(&nested), PickleProblem::NotADictionary { found: "a tuple" }));
    // Each tuple holds the one before twice: 2^40 things, if they were counted out.
    let doubled = [b"\x80\x02)", b"q\0h\0\x86".repeat(40).as_slice(), b"."].concat();
    assert!(matches!(soon(&doubled), PickleProblem::NotADictionary { .. }));
    // Attributes with many names, each of which would be looked at again whenever they are given.
    let many_attributes = b"\x80\x02}}q\x01X\x09\0\0\0_metadataq\x02Ns".to_vec();
    let repeated = [b"h\x02Ns".repeat(166_000), b"b".to_vec(), b"h\x01b".repeat(166_000)].concat();
    soon(&[many_attributes, repeated, b".".to_vec()].concat());
    let remembered: Vec<u8> = (0..=1_u32 << 20).flat_map(|idx| [&b"r"[..], &idx.to_le_bytes()].concat()).collect();
    let remembered = [b"\x80\x02N", remembered.as_slice(), b"."].concat();
    assert!(matches!(soon(&remembered), PickleProblem::TooMany { limit: 1_048_576, .. }));
}

#[test]
fn a_broken_pickle_is_refused_where_it_breaks() {
    for pickle in [
        &b""[..],
        b"\x80\x02}",
        b"\x80\x02.",
        b"\x80\x09}.",
        b"\x80\x02t.",
        b"\x80\x02h\x07.",
        b"\x80\x02Nq\x07.",
        b"\x80\x02X\xff\xff\xff\xffabc.",
        b"\x80\x02X\x01\0\0\0\xff.",
        b"\x80\x02}N.",
        b"\x80\x02(}.",
        b"\x80\x02}NNNus.",
        b"\x80\x02}(Ks\x01u.",
        b"\x80\x02NNR.",
        b"\x80\x02NQ.",
        b"\x80\x02}Nb.",
        b"\x80\x02ccollections\nOrderedDict\nNR.",
        b"\x80\x02ccollections\nOrderedDict",
        b"\x80\x02\x8a\x09123456789.",
        b"\x80\x02\x8c\x01a\x8c\x01b\x93.",
    ] {
        let problem = of_pickle(pickle);
        assert!(problem.to_string().contains("\nhint: "), "{problem}");
    }
    assert!(matches!(of_pickle(b"\x80\x02}K\x01Ns."), PickleProblem::NotADictionary { found: "one without names" }));
    assert!(
        matches!(of_pickle(b"\x80\x02U\x01a."), PickleProblem::Opcode { name, at: 2 } if name == "SHORT_BINSTRING")
    );
    assert!(matches!(of_pickle(b"\x80\x02\x81."), PickleProblem::Opcode { name, at: 2 } if name == "NEWOBJ"));
    assert!(matches!(of_pickle(b"\x80\x02\xf7."), PickleProblem::Opcode { name, .. } if name == "0xf7"));
    assert!(
        matches!(of_pickle(b"\x80\x02c\x1b[2Jos\nx\n."), PickleProblem::Global { name } if name == "\\u{1b}[2Jos.x")
    );
}

#[test]
fn a_step_takes_nothing_from_below_a_mark() {
    let below = of_pickle(b"\x80\x02}X\x01\0\0\0a(Ns.");
    assert!(matches!(below, PickleProblem::Broken { what: "a step needs more than there is", .. }), "{below}");
}

#[test]
fn a_parameter_is_its_tensor_and_has_no_hooks() {
    let one = Claim::default().pickle();
    let (key, tensor) = one[3..one.len() - 2].split_at(6);
    let parameter = |hooks: &[u8]| {
        let rebuild = b"ctorch._utils\n_rebuild_parameter\n(";
        [b"\x80\x02}", key, rebuild, tensor, b"\x88", hooks, b"tRs."].concat()
    };
    assert!((Made { pickle: parameter(b"}"), ..Made::default() }).read().is_ok());
    let hooked = of_pickle(&parameter(b"}K\x01Ns"));
    assert!(matches!(hooked, PickleProblem::Broken { what: "a tensor with hooks", .. }), "{hooked}");
}

#[test]
fn one_name_twice_and_one_storage_with_two_sizes_are_refused() {
    let one = Claim::default().pickle();
    let items = &one[3..one.len() - 1];
    let twice = [b"\x80\x02}", items, items, b"."].concat();
    assert!(matches!(of_pickle(&twice), PickleProblem::Duplicate { name } if name == "a"));
    let other = Claim { n_values: 2, ..Claim::default() }.pickle();
    let clash = [b"\x80\x02}", items, &other[3..]].concat();
    assert!(matches!(of_pickle(&clash), PickleProblem::StorageClash { key } if key == "0"));
}

/// The archive with the field `at` of the directory's entry for `name` set.
fn with_field(bytes: &[u8], name: &str, at: usize, value: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let entry = |window: &[u8]| window.starts_with(b"PK\x01\x02") && window[46..].starts_with(name.as_bytes());
    let begin = bytes.windows(46 + name.len()).position(entry).unwrap();
    bytes[begin + at..begin + at + value.len()].copy_from_slice(value);
    bytes
}

#[test]
fn records_that_overlap_or_lie_outside_the_file_are_refused() {
    let good = Made { records: vec![("data/0", vec![0; 4]), ("data/1", vec![0; 4])], ..Made::default() }.bytes();
    assert!(read_bytes(&good).is_ok());
    let first = good.windows(6).position(|name| name == b"data/0").unwrap() as u32 - 8 - 30;
    let overlapping = with_field(&good, "archive/data/1", 42, &first.to_le_bytes());
    assert!(matches!(read_bytes(&overlapping), Err(PickleError::RecordsOverlap { .. })));
    let long = |size: u32| {
        let bytes = with_field(&good, "archive/data/0", 20, &size.to_le_bytes());
        read_bytes(&with_field(&bytes, "archive/data/0", 24, &size.to_le_bytes()))
    };
    assert!(matches!(long(20), Err(PickleError::RecordsOverlap { .. })));
    assert!(matches!(long(u32::MAX - 1), Err(PickleError::RecordOutside { .. })));
    let packed = with_field(&good, "archive/data/0", 10, &8_u16.to_le_bytes());
    assert!(matches!(read_bytes(&packed), Err(PickleError::Compressed { record, .. }) if record == "archive/data/0"));
    let pickle = with_field(&good, "archive/data.pkl", 20, &(65_u32 << 20).to_le_bytes());
    let pickle = with_field(&pickle, "archive/data.pkl", 24, &(65_u32 << 20).to_le_bytes());
    assert!(matches!(read_bytes(&pickle), Err(PickleError::RecordOutside { .. })));
    let again = good.clone().into_iter().chain(good.clone()).collect::<Vec<_>>();
    assert!(read_bytes(&again).is_err());
}

#[test]
fn a_directory_that_claims_too_much_is_refused_before_the_library_sees_it() {
    let good = fs::read(data("bin/shared.bin")).unwrap();
    let long_end = good.len() - 22 - 20 - 56;
    for (at, what) in [(24, "records"), (32, "records"), (40, "directory")] {
        for value in [1_u64 << 63, u64::MAX, 1 << 40] {
            let mut bytes = good.clone();
            bytes[long_end + at..long_end + at + 8].copy_from_slice(&value.to_le_bytes());
            // The short end says that the long one counts.
            let short = bytes.len() - 22;
            bytes[short + 8..short + 20].fill(0xff);
            let error = read_bytes(&bytes).unwrap_err();
            assert!(at == 24 || matches!(error, PickleError::TooLarge { .. }), "{what}: {error}");
        }
    }
}

#[test]
fn other_files_and_other_archives_are_told_apart() {
    assert!(matches!(read_bytes(b""), Err(PickleError::NotAnArchive { .. })));
    let pointer = b"version https://git-lfs.github.com/spec/v1\n";
    assert!(read_bytes(pointer).unwrap_err().to_string().contains("Git LFS pointer"));
    let big = Made { records: vec![("data/0", vec![0; 4]), ("byteorder", b"big".to_vec())], ..Made::default() };
    assert!(big.message().contains("byte order is \"big\""));
    let long = Made { records: vec![("data/0", vec![0; 4]), ("byteorder", vec![b' '; 65])], ..Made::default() };
    assert!(matches!(long.read(), Err(PickleError::TooLarge { what: "byteorder", found: 65, limit: 64, .. })));
    let none = Made { records: Vec::new(), ..Made::default() };
    assert!(none.message().contains("data/0, which is not there"));
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.start_file("a.txt", SimpleFileOptions::default().compression_method(CompressionMethod::Stored)).unwrap();
    let other = writer.finish().unwrap().into_inner();
    assert!(matches!(read_bytes(&other), Err(PickleError::NoPickle { found: 0, .. })));
}

#[test]
fn a_file_that_is_cut_short_anywhere_is_refused_as_such() {
    let good = fs::read(data("bin/shared.bin")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.bin");
    fs::write(&path, &good).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for n_bytes in (0..good.len() as u64).rev() {
        file.set_len(n_bytes).unwrap();
        match read_header(&path).unwrap_err() {
            PickleError::CutShort { found, .. } => assert_eq!(found, n_bytes),
            PickleError::NotAnArchive { .. } if n_bytes < 4 => {}
            other => panic!("{n_bytes}: {other}"),
        }
    }
}

#[test]
fn no_changed_byte_makes_the_reader_panic() {
    let good = fs::read(data("bin/shared.bin")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.bin");
    fs::write(&path, &good).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let mut n_refused = 0;
    for (at, &byte) in good.iter().enumerate() {
        for change in [0x01, 0x80, 0xff] {
            file.write_all_at(&[byte ^ change], at as u64).unwrap();
            match read_header(&path) {
                Ok(header) => assert!(header.tensors.iter().all(|tensor| tensor.end <= good.len() as u64)),
                Err(_) => n_refused += 1,
            }
        }
        file.write_all_at(&[byte], at as u64).unwrap();
    }
    assert!(n_refused > good.len() / 2, "{n_refused}");
    assert!(read_header(&path).is_ok());
}
