//! Files that describe a model, read whole: configurations, indices, tokenizers.
//!
//! They come from elsewhere. **Architecture Invariant:** nothing but a regular file is opened, and never more than the limit is
//! read, whatever its size is said to be.

use std::{
    fs,
    io::{self, Read},
    path::Path,
};

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
    let metadata = fs::metadata(path).map_err(failed)?;
    if metadata.is_dir() {
        return Err(SmallFileError::Unreadable(io::ErrorKind::IsADirectory.into()));
    }
    if !metadata.is_file() {
        return Err(SmallFileError::Unreadable(io::Error::other("it is not a regular file")));
    }
    if metadata.len() > limit {
        return Err(SmallFileError::TooLarge { found: metadata.len() });
    }
    let mut content = Vec::new();
    fs::File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut content)).map_err(failed)?;
    let found = content.len() as u64;
    if found > limit { Err(SmallFileError::TooLarge { found }) } else { Ok(content) }
}

#[cfg(test)]
mod tests {
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
}
