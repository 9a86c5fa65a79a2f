//! The zip archive around a pickle: which records it has and where, checked against the file's size.
//!
//! It does not know what is in the records. **Architecture Invariant:** records are plain bytes that lie inside the file, each
//! apart from the others, and nothing is allocated for what a directory merely claims.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use zip::{
    CompressionMethod, ZipArchive,
    read::{ArchiveOffset, Config},
};

use super::error::PickleError;
use crate::engine::regular_file;

const MAX_PICKLE_BYTES: u64 = 64 << 20;
const MAX_RECORDS: u64 = 1 << 16;
const MAX_DIRECTORY_BYTES: u64 = 64 << 20;
/// What may be read to find the records: the directory, and the beginning of each record.
const MAX_READ_BYTES: u64 = 2 * MAX_DIRECTORY_BYTES;
const MAX_SMALL_RECORD_BYTES: u64 = 64;

const FIRST: [u8; 4] = *b"PK\x03\x04";
const END: [u8; 4] = *b"PK\x05\x06";
const END_BYTES: usize = 22;
const LOCATOR: [u8; 4] = *b"PK\x06\x07";
const LOCATOR_BYTES: usize = 20;
const LONG_END: [u8; 4] = *b"PK\x06\x06";
const LONG_END_BYTES: usize = 56;
/// How far from the end of a file the library looks for the archive's end: the longest comment, and the end itself.
const TAIL_BYTES: u64 = (1 << 16) + 32;

/// A file's records and its pickle.
pub(super) struct Archive {
    /// The file's name.
    pub(super) file: String,
    /// The file's size.
    pub(super) n_bytes: u64,
    /// All records by their names, without the folder that they are in.
    pub(super) records: HashMap<String, Record>,
    /// The content of `data.pkl`.
    pub(super) pickle: Vec<u8>,
}

/// A record's bytes, counted from the beginning of the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub(super) begin: u64,
    pub(super) end: u64,
}

/// Opens the archive at `path` and reads its pickle.
pub(super) fn open(path: &Path) -> Result<Archive, PickleError> {
    let file = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let unreadable = |source| PickleError::Unreadable { path: path.to_owned(), source };
    let (mut reader, n_bytes) = regular_file::open_weights(path).map_err(unreadable)?;
    let mut first = Vec::with_capacity(FIRST.len());
    reader.by_ref().take(FIRST.len() as u64).read_to_end(&mut first).map_err(unreadable)?;
    match first.as_slice() {
        start if start == FIRST => {}
        [0x80, 2..=5, ..] => return Err(PickleError::Legacy { file }),
        _ => return Err(PickleError::NotAnArchive { file, found: first }),
    }
    let tail_bytes = n_bytes.min(TAIL_BYTES);
    let tail = read_at(&mut reader, n_bytes - tail_bytes, tail_bytes).map_err(unreadable)?;
    check_end(&file, &tail, n_bytes)?;
    let directory = read_directory(&file, &mut reader)?;
    check_places(&file, &directory)?;

    let prefix = prefix(&file, &directory)?;
    let inside = |name: &str| name.strip_prefix(prefix.as_str()).map(str::to_owned);
    let records: HashMap<String, Record> =
        directory.entries.iter().filter_map(|entry| Some((inside(&entry.name)?, entry.data))).collect();
    if let Some(order) = records.get("byteorder") {
        let order =
            read_record(&file, &mut reader, *order, ("byteorder", MAX_SMALL_RECORD_BYTES))?.map_err(unreadable)?;
        if order != b"little" {
            return Err(PickleError::ByteOrder { file, found: String::from_utf8_lossy(&order).into_owned() });
        }
    }
    let Some(record) = records.get("data.pkl") else { return Err(PickleError::NoPickle { file, found: 0 }) };
    let pickle = read_record(&file, &mut reader, *record, ("data.pkl", MAX_PICKLE_BYTES))?.map_err(unreadable)?;
    Ok(Archive { file, n_bytes, records, pickle })
}

/// Looks at the archive's end before the library does, which trusts the numbers in it for its allocations, and which would
/// go on to look for another end where this one is broken.
fn check_end(file: &str, tail: &[u8], n_bytes: u64) -> Result<(), PickleError> {
    let ends = tail.windows(END.len()).filter(|bytes| *bytes == END).count();
    let begins_there = |from_end: usize, magic: [u8; 4]| {
        let start = tail.len().checked_sub(from_end)?;
        tail.get(start..).filter(|bytes| bytes.starts_with(&magic))
    };
    let Some(end) = begins_there(END_BYTES, END) else {
        return Err(PickleError::CutShort { file: file.to_owned(), found: n_bytes });
    };
    if ends != 1 || !end.ends_with(&[0, 0]) {
        let what = "the archive has a comment, or more than one end".to_owned();
        return Err(PickleError::Ambiguous { file: file.to_owned(), what });
    }
    let Some(locator) = begins_there(END_BYTES + LOCATOR_BYTES, LOCATOR) else { return Ok(()) };
    let long_end_at = n_bytes.checked_sub((END_BYTES + LOCATOR_BYTES + LONG_END_BYTES) as u64);
    let long_end = begins_there(END_BYTES + LOCATOR_BYTES + LONG_END_BYTES, LONG_END);
    let (Some(long_end), true) = (long_end, number(locator, 8) == long_end_at) else {
        let what = "the two ends of the archive do not lie one behind the other".to_owned();
        return Err(PickleError::Ambiguous { file: file.to_owned(), what });
    };
    for (what, at, limit) in
        [("the number of records", 32, MAX_RECORDS), ("the size of the archive's directory", 40, MAX_DIRECTORY_BYTES)]
    {
        let found = number(long_end, at).unwrap_or(u64::MAX);
        if found > limit {
            return Err(PickleError::TooLarge { file: file.to_owned(), what, found, limit });
        }
    }
    Ok(())
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// What the archive's directory says.
struct Directory {
    /// Where it begins, and records end.
    begin: u64,
    entries: Vec<Entry>,
}

struct Entry {
    name: String,
    header_begin: u64,
    data: Record,
}

fn read_directory(file: &str, reader: &mut File) -> Result<Directory, PickleError> {
    let broken = |source| PickleError::Archive { file: file.to_owned(), source };
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let mut archive =
        ZipArchive::with_config(config, Metered { inner: reader, left: MAX_READ_BYTES }).map_err(broken)?;
    if archive.has_duplicate_names() {
        let what = "two records of the archive have the same name".to_owned();
        return Err(PickleError::Ambiguous { file: file.to_owned(), what });
    }
    let mut entries = Vec::with_capacity(archive.len());
    for idx in 0..archive.len() {
        let entry = archive.by_index_raw(idx).map_err(broken)?;
        let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
        let size = entry.size();
        if entry.compression() != CompressionMethod::Stored || entry.encrypted() || entry.compressed_size() != size {
            return Err(PickleError::Compressed { file: file.to_owned(), record: name });
        }
        let begin = entry.data_start().unwrap_or(u64::MAX);
        let data = Record { begin, end: begin.saturating_add(size) };
        entries.push(Entry { name, header_begin: entry.header_start(), data });
    }
    Ok(Directory { begin: archive.central_directory_start(), entries })
}

/// Checks that records lie before the directory and apart from each other, with what stands before each.
fn check_places(file: &str, directory: &Directory) -> Result<(), PickleError> {
    let mut entries: Vec<&Entry> = directory.entries.iter().collect();
    entries.sort_unstable_by_key(|entry| (entry.header_begin, entry.data.end));
    let limit = directory.begin;
    if let Some(entry) = entries.iter().find(|entry| entry.data.end > limit) {
        let found = entry.data.end;
        return Err(PickleError::RecordOutside { file: file.to_owned(), record: entry.name.clone(), found, limit });
    }
    for (first, second) in entries.iter().zip(entries.iter().skip(1)) {
        if second.header_begin < first.data.end {
            let (first, second) = (first.name.clone(), second.name.clone());
            return Err(PickleError::RecordsOverlap { file: file.to_owned(), first, second });
        }
    }
    Ok(())
}

/// The folder that all records are in, with its slash: the file's name when it was saved, or `archive/`.
fn prefix(file: &str, directory: &Directory) -> Result<String, PickleError> {
    let prefixes: Vec<&str> = directory
        .entries
        .iter()
        .filter_map(|entry| entry.name.strip_suffix("data.pkl"))
        .filter(|prefix| prefix.ends_with('/') && prefix.matches('/').count() == 1)
        .collect();
    match prefixes.as_slice() {
        [prefix] => Ok((*prefix).to_owned()),
        found => Err(PickleError::NoPickle { file: file.to_owned(), found: found.len() }),
    }
}

/// The content of a record that has a name and may have a number of bytes.
fn read_record(
    file: &str,
    reader: &mut File,
    record: Record,
    (what, limit): (&'static str, u64),
) -> Result<io::Result<Vec<u8>>, PickleError> {
    let found = record.end - record.begin;
    if found > limit {
        return Err(PickleError::TooLarge { file: file.to_owned(), what, found, limit });
    }
    Ok(read_at(reader, record.begin, found))
}

/// `n_bytes` that are known to be there, so that they may be allocated.
fn read_at(reader: &mut File, begin: u64, n_bytes: u64) -> io::Result<Vec<u8>> {
    reader.seek(SeekFrom::Start(begin))?;
    let mut bytes = vec![0; n_bytes as usize];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A reader that gives only so many bytes.
struct Metered<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !buffer.is_empty() {
            return Err(io::Error::other("the directory goes on for too long"));
        }
        let n_bytes = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n_read = self.inner.read(buffer.get_mut(..n_bytes).unwrap_or_default())?;
        self.left -= n_read as u64;
        Ok(n_read)
    }
}

impl<R: Seek> Seek for Metered<R> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.inner.seek(position)
    }
}
