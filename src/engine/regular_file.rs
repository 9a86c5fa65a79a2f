//! Files that come from elsewhere, opened only where they are what they seem to be.
//!
//! It knows no format. **Architecture Invariant:** nothing but a regular file is opened to be read, since a pipe would keep the
//! program waiting and a device need never end.

use std::{
    fs::{self, File, FileType, Metadata},
    io,
    os::unix::fs::{FileExt, FileTypeExt},
    path::Path,
};

/// What lies where a file should be, under its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StandIn {
    /// What Git keeps in place of a large file.
    #[error("it is a Git LFS pointer, expected the file that it stands for")]
    LfsPointer,
    /// A page that was saved in place of the file it shows.
    #[error("it is a web page, expected the file that the page shows")]
    WebPage,
}

const LFS_POINTER: &[u8] = b"version https://git-lfs";
const PAGES: [&[u8]; 2] = [b"<!doctype html", b"<html"];
/// Enough to tell what stands in for a file.
const FIRST_BYTES: usize = 64;

impl StandIn {
    /// What content with this beginning is instead of the file.
    #[must_use]
    pub fn of(content: &[u8]) -> Option<Self> {
        let starts_with = |start: &[u8], content: &[u8]| {
            content.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start))
        };
        if starts_with(LFS_POINTER, content) {
            return Some(Self::LfsPointer);
        }
        let content = content.strip_prefix("\u{feff}".as_bytes()).unwrap_or(content).trim_ascii_start();
        PAGES.into_iter().any(|page| starts_with(page, content)).then_some(Self::WebPage)
    }
}

/// What to do about a file that cannot be read, after the words `hint: `.
#[must_use]
pub fn hint(error: &io::Error) -> &'static str {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(StandIn::LfsPointer) => "`git lfs install` and then `git lfs pull` in its folder fetch the file",
        Some(StandIn::WebPage) => "download the file itself, not the page about it",
        None => "it must be a file that this program may read",
    }
}

/// Opens a file, and tells its size.
///
/// # Errors
/// The system's, and those for what is no regular file.
pub fn open(path: &Path) -> io::Result<(File, u64)> {
    // Opening a pipe would wait for somebody who writes to it.
    refuse_others(&fs::metadata(path)?)?;
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    refuse_others(&metadata)?;
    Ok((file, metadata.len()))
}

/// The same for a file with weights, of which nothing has been read; one that something else stands in for is refused.
///
/// # Errors
/// As [`open`], and [`StandIn`] as an [`io::Error`].
pub fn open_weights(path: &Path) -> io::Result<(File, u64)> {
    let (file, n_bytes) = open(path)?;
    let mut first = [0; FIRST_BYTES];
    let n_first = file.read_at(&mut first, 0)?;
    refuse_stand_ins(first.get(..n_first).unwrap_or_default())?;
    Ok((file, n_bytes))
}

/// Refuses what stands in for a file with other content.
///
/// # Errors
/// [`StandIn`] as an [`io::Error`].
pub fn refuse_stand_ins(content: &[u8]) -> io::Result<()> {
    StandIn::of(content).map_or(Ok(()), |found| Err(io::Error::other(found)))
}

fn refuse_others(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if metadata.is_file() {
        return Ok(());
    }
    Err(io::Error::other(format!("it is {}, expected a regular file", kind(metadata.file_type()))))
}

fn kind(found: FileType) -> &'static str {
    if found.is_fifo() {
        "a pipe"
    } else if found.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, process::Command};

    use super::*;

    #[test]
    fn what_is_no_regular_file_is_refused_by_its_kind_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        assert!(Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
        let _socket = UnixListener::bind(path("socket")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path("device")).unwrap();
        for kind in ["pipe", "socket", "device"] {
            let error = open_weights(&path(kind)).unwrap_err();
            assert_eq!(error.to_string(), format!("it is a {kind}, expected a regular file"));
            assert!(hint(&error).contains("may read"));
        }
        assert_eq!(open(dir.path()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert_eq!(open(&path("nothing")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_pointer_and_a_page_in_place_of_a_file_are_named_with_what_fetches_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let refused = |content: &str| {
            fs::write(&path, content).unwrap();
            let error = open_weights(&path).unwrap_err();
            (error.to_string(), hint(&error))
        };
        let (said, hint) = refused("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n");
        assert!(said.contains("Git LFS pointer") && hint.contains("git lfs pull"), "{said} {hint}");
        for page in ["<!DOCTYPE html><html>", "\n  <html lang=\"en\">", "\u{feff}<!doctype HTML>"] {
            let (said, hint) = refused(page);
            assert!(said.contains("web page") && hint.contains("download"), "{said} {hint}");
        }
        for other in ["", "v", "<", "{\"version\": \"https://git-lfs\"}", "PK\u{3}\u{4}"] {
            fs::write(&path, other).unwrap();
            let (_, n_bytes) = open_weights(&path).unwrap();
            assert_eq!(n_bytes, other.len() as u64);
        }
    }
}
