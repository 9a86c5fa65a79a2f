//! What is kept comes back, and what is no such file is refused.

use super::*;

const VOCAB_SIZE: u32 = 3;

fn header() -> RunHeader {
    RunHeader {
        vocab_size: VOCAB_SIZE,
        context: 2,
        n_tokens: 5,
        ids_sha256: digest(&[0, 1, 2, 1, 0]),
        model: "mini 模型".to_owned(),
    }
}

fn record(first: u32) -> Record {
    let logprobs = [0.5_f32, 0.375, 0.125].map(f32::ln).to_vec();
    let ids = (first..).map(|id| id % VOCAB_SIZE).take(3).collect();
    Record { logprob: 0.375_f64.ln(), log_rest: f32::NEG_INFINITY, ids, logprobs }
}

/// A file with two records, as bytes.
fn bytes() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let mut writer = RunWriter::create(&path, VOCAB_SIZE, 2).unwrap();
    writer.begin(&header()).unwrap();
    (0..2).for_each(|first| writer.write(&record(first)).unwrap());
    assert!(!path.exists(), "half a file has its name");
    writer.finish().unwrap();
    fs::read(path).unwrap()
}

/// Opens bytes as a file and reads all of its records.
fn read(bytes: &[u8]) -> Result<Vec<Record>, StoredRunError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    fs::write(&path, bytes).unwrap();
    let mut reader = RunReader::open(&path)?;
    let n = n_scored(reader.header.n_tokens, reader.header.context);
    (0..n).map(|_| reader.read()).collect()
}

/// The bytes of the file with others from `at` on, as if it had been written so.
fn with(at: usize, other: &[u8]) -> Vec<u8> {
    let mut bytes = bytes();
    bytes[at..at + other.len()].copy_from_slice(other);
    let (content, end) = bytes.split_last_chunk_mut::<DIGEST_BYTES>().unwrap();
    *end = Sha256::digest(content).into();
    bytes
}

fn text(error: &StoredRunError) -> String {
    let text = error.to_string();
    assert!(text.contains("\nhint: "), "{text}");
    text
}

#[test]
fn what_was_kept_comes_back() {
    let bytes = bytes();
    assert_eq!(read(&bytes).unwrap(), [record(0), record(1)]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    fs::write(&path, &bytes).unwrap();
    let reader = RunReader::open(&path).unwrap();
    assert_eq!(*reader.header(), header());
    reader.check(&header()).unwrap();
}

#[test]
fn all_but_each_windows_first_token_are_scored() {
    let n = |n_tokens, context| n_scored(n_tokens, context);
    assert_eq!([n(0, 4), n(1, 4), n(2, 4), n(4, 4), n(5, 4), n(6, 4), n(8, 4)], [0, 0, 1, 3, 3, 4, 6]);
}

#[test]
fn a_file_that_is_cut_anywhere_is_refused() {
    let whole = bytes();
    for length in 0..whole.len() {
        let error = read(&whole[..length]).unwrap_err();
        let is_expected = match error {
            StoredRunError::Foreign { .. } => length < MAGIC.len(),
            StoredRunError::Size { found, .. } => found == length as u64,
            _ => false,
        };
        assert!(is_expected, "{length}: {}", text(&error));
    }
    let longer = [whole.as_slice(), &[0]].concat();
    assert!(matches!(read(&longer), Err(StoredRunError::Size { .. })));
}

#[test]
fn what_is_no_run_is_said() {
    let foreign = |error: StoredRunError| matches!(error, StoredRunError::Foreign { .. });
    assert!(foreign(read(b"").unwrap_err()));
    assert!(foreign(read(&[b'x'; 500]).unwrap_err()));
    assert!(foreign(read(&with(7, b"\r")).unwrap_err()));
    assert!(foreign(RunReader::open(Path::new("/dev/zero")).unwrap_err()));
    assert!(foreign(RunReader::open(&std::env::temp_dir()).unwrap_err()));
    assert!(matches!(read(&with(8, &[1])), Err(StoredRunError::Version { found: 1, .. })));
    let absent = RunReader::open(Path::new("/no/such/run")).unwrap_err();
    assert!(text(&absent).contains("/no/such/run cannot be read"));
}

#[test]
fn sizes_that_a_header_claims_are_held_against_the_files() {
    let [vocab, context, tokens, model] = [12, 16, 20, 60];
    for size in [0, 1, 6, 1 << 32, 1 << 60, u64::MAX / 2, u64::MAX] {
        let error = read(&with(tokens, &u64::to_le_bytes(size))).unwrap_err();
        let is_expected = matches!(error, StoredRunError::Size { .. } | StoredRunError::Damaged { .. });
        assert!(is_expected, "{size}: {}", text(&error));
    }
    for (at, size) in [vocab, context, model].into_iter().flat_map(|at| [0, 1, 1 << 20, u32::MAX].map(|n| (at, n))) {
        let Err(error) = read(&with(at, &u32::to_le_bytes(size))) else { panic!("{at} {size} was let in") };
        let is_expected = matches!(error, StoredRunError::Size { .. } | StoredRunError::Damaged { .. });
        assert!(is_expected, "{at} {size}: {}", text(&error));
    }
}

#[test]
fn a_file_that_was_altered_anywhere_is_refused() {
    let whole = bytes();
    let first = FIXED_BYTES + header().model.len();
    // A log-probability that a distribution may have, and that was not written.
    let mut altered = whole.clone();
    altered[first..first + 8].copy_from_slice(&(-1e300_f64).to_le_bytes());
    let error = read(&altered).unwrap_err();
    assert!(matches!(error, StoredRunError::Damaged { .. }) && text(&error).contains("SHA-256"), "{error}");
    for at in 24..whole.len() {
        let mut altered = whole.clone();
        altered[at] ^= 1;
        assert!(read(&altered).is_err(), "byte {at}");
    }
}

#[test]
fn records_that_no_distribution_has_are_refused() {
    let first = FIXED_BYTES + header().model.len();
    let [rest, ids, logprobs] = [first + 8, first + 12, first + 24];
    let number = f32::to_le_bytes;
    let twice = [0_u32, 0, 1].map(u32::to_le_bytes).concat();
    let swapped = [0.125_f32, 0.375, 0.5].map(|p| number(p.ln())).concat();
    for (at, wrong, what) in [
        (first, f64::NAN.to_le_bytes().to_vec(), "no probability has"),
        (first, 1.0_f64.to_le_bytes().to_vec(), "no probability has"),
        (rest, number(f32::NAN).to_vec(), "sum to NaN"),
        (rest, number(0.0).to_vec(), "sum to 2"),
        (ids, u32::MAX.to_le_bytes().to_vec(), "has token 4294967295"),
        (ids, twice, "token 0 twice"),
        (logprobs, number(f32::INFINITY).to_vec(), "sum to inf"),
        (logprobs, swapped, "in the order"),
    ] {
        let error = read(&with(at, &wrong)).unwrap_err();
        assert!(matches!(error, StoredRunError::Damaged { .. }) && text(&error).contains(what), "{error}");
    }
}

#[test]
fn runs_of_other_tokens_or_windows_are_not_compared() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    fs::write(&path, bytes()).unwrap();
    let refused = |present: RunHeader| RunReader::open(&path).unwrap().check(&present).unwrap_err();
    let error = refused(RunHeader { vocab_size: 4, ..header() });
    assert!(text(&error).contains("a vocabulary of 3 tokens, this one of 4"), "{error}");
    let error = refused(RunHeader { context: 4, ..header() });
    assert!(text(&error).ends_with("this one of 4\nhint: --context 2"), "{error}");
    for other in [RunHeader { n_tokens: 6, ..header() }, RunHeader { ids_sha256: digest(&[0]), ..header() }] {
        let error = refused(other);
        assert!(text(&error).contains("of other token ids"), "{error}");
    }
}

#[test]
fn a_file_that_is_not_finished_leaves_nothing_and_replaces_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let before = bytes();
    fs::write(&path, &before).unwrap();
    let mut writer = RunWriter::create(&path, VOCAB_SIZE, 2).unwrap();
    writer.begin(&header()).unwrap();
    drop(writer);
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let absent = RunWriter::create(&dir.path().join("no/run"), VOCAB_SIZE, 2).unwrap_err();
    assert!(text(&absent).contains("cannot be written"));
    let huge = RunWriter::create(&path, VOCAB_SIZE, u64::MAX).unwrap_err();
    assert!(matches!(huge, StoredRunError::Room { .. }), "{}", text(&huge));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn what_is_broken_off_is_removed_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (path, half) = (dir.path().join("run"), dir.path().join("run.partial"));
    discard(&path);
    fs::write(&path, bytes()).unwrap();
    for begun in [&b""[..], &bytes()[..70]] {
        fs::write(&half, begun).unwrap();
        discard(&path);
        assert!(path.exists() && !half.exists());
    }
    fs::write(&half, "somebody's").unwrap();
    discard(&path);
    assert_eq!(fs::read(&half).unwrap(), b"somebody's");
}

#[test]
fn only_a_run_that_was_kept_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let create = |name: &str| RunWriter::create(&at(name), VOCAB_SIZE, 2);
    fs::write(at("kept"), bytes()).unwrap();
    fs::write(at("empty"), "").unwrap();
    for name in ["kept", "empty", "new"] {
        drop(create(name).unwrap());
    }
    fs::write(at("text"), "what somebody wrote").unwrap();
    fs::write(at("other.partial"), "what somebody wrote").unwrap();
    fs::create_dir(at("folder")).unwrap();
    std::os::unix::fs::symlink(at("kept"), at("link")).unwrap();
    std::os::unix::fs::symlink("/dev/null", at("device")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    let before = fs::read_dir(dir.path()).unwrap().count();
    for (name, what) in [
        ("text", "another file"),
        ("other", "other.partial is there already and is another file"),
        ("folder", "a folder"),
        ("link", "a link"),
        ("device", "a link"),
        ("socket", "no regular file"),
    ] {
        let error = create(name).unwrap_err();
        assert!(matches!(error, StoredRunError::Occupied { .. }) && text(&error).contains(what), "{error}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), before);
    assert_eq!(fs::read(at("text")).unwrap(), b"what somebody wrote");
}

#[test]
fn a_description_that_is_too_long_is_cut_between_characters() {
    let header = RunHeader { model: "模".repeat(5000), ..header() };
    let n = header.to_bytes().len() - FIXED_BYTES;
    assert_eq!(n, MOST_MODEL_BYTES - 1);
}
