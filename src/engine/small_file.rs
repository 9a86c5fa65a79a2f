//! Files that describe a model, read whole: configurations, indices, tokenizers.
//!
//! They come from elsewhere. **Architecture Invariant:** nothing but a regular file is opened, and never more than the limit is
//! read, whatever its size is said to be.

use std::{
    io::{self, Read},
    path::Path,
};

use super::regular_file;

/// Before UTF-8 it says nothing.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Why a file was not read.
#[derive(Debug)]
pub enum SmallFileError {
    /// There is none.
    Missing,
    /// It is larger than anything of its kind.
    TooLarge {
        /// Its size, as far as it is known.
        found: u64,
    },
    /// What the system says.
    Unreadable(io::Error),
}

/// The file's content, of at most `limit` bytes.
///
/// # Errors
/// [`SmallFileError`].
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, SmallFileError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => SmallFileError::Missing,
        _ => SmallFileError::Unreadable(error),
    };
    let (file, n_bytes) = regular_file::open(path).map_err(failed)?;
    if n_bytes > limit {
        return Err(SmallFileError::TooLarge { found: n_bytes });
    }
    let mut content = Vec::new();
    file.take(limit + 1).read_to_end(&mut content).map_err(failed)?;
    let found = content.len() as u64;
    if found > limit { Err(SmallFileError::TooLarge { found }) } else { Ok(content) }
}

/// The same of a file that should hold JSON: without the mark that some editors put before a text, and refused where
/// something else stands in for it.
///
/// # Errors
/// [`SmallFileError`].
pub fn read_json(path: &Path, limit: u64) -> Result<Vec<u8>, SmallFileError> {
    let mut content = read(path, limit)?;
    regular_file::refuse_stand_ins(&content).map_err(SmallFileError::Unreadable)?;
    if content.starts_with(BYTE_ORDER_MARK) {
        content.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_regular_files_of_the_expected_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        assert!(matches!(read(&path, 4), Err(SmallFileError::Missing)));
        assert!(matches!(read(&path.join("below"), 4), Err(SmallFileError::Missing)));
        fs::write(&path, "1234").unwrap();
        assert_eq!(read(&path, 4).unwrap(), b"1234");
        assert!(matches!(read(&path, 3), Err(SmallFileError::TooLarge { found: 4 })));
        assert!(matches!(read(&path.join("below"), 4), Err(SmallFileError::Missing)));
        assert!(matches!(read(dir.path(), 4), Err(SmallFileError::Unreadable(_))));
    }

    #[cfg(unix)]
    #[test]
    fn what_never_ends_is_not_begun() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(matches!(read(&path, 4), Err(SmallFileError::Unreadable(_))));
    }

    #[test]
    fn json_comes_without_a_byte_order_mark_and_a_pointer_is_no_json() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs::write(&path, "\u{feff}{}").unwrap();
        assert_eq!(read_json(&path, 5).unwrap(), b"{}");
        assert_eq!(read(&path, 5).unwrap().len(), 5);
        fs::write(&path, "version https://git-lfs.github.com/spec/v1\n").unwrap();
        let error = read_json(&path, 100).unwrap_err();
        assert!(matches!(&error, SmallFileError::Unreadable(why) if why.to_string().contains("Git LFS")), "{error:?}");
        assert!(read(&path, 100).is_ok());
    }
}
