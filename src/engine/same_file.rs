//! Whether two paths name one file.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Whether both name one file, be it through a link; of files that are not there yet, whether they would.
#[must_use]
pub fn is_same(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        (Err(_), Err(_)) => resolved(one) == resolved(other),
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
    }
}

fn resolved(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned()).join(path.file_name().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_same_by_whichever_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("a"), "1").unwrap();
        fs::write(at("b"), "1").unwrap();
        std::os::unix::fs::symlink(at("a"), at("link")).unwrap();
        fs::hard_link(at("a"), at("hard")).unwrap();
        assert!(is_same(&at("a"), &at("link")) && is_same(&at("hard"), &at("a")) && is_same(&at("a"), &at("./a")));
        assert!(!is_same(&at("a"), &at("b")) && !is_same(&at("a"), &at("absent")));
        assert!(is_same(&at("absent"), &at("./absent")) && !is_same(&at("absent"), &at("neither")));
    }
}
