//! Messages from a stream of bytes: one a line, or one in all.
//!
//! **Architecture Invariant:** however long a line is, no more of it is kept than a message may have.

use std::io::{self, BufRead, Read};

use crate::chat::limits::MAX_MESSAGE_BYTES;

/// One more than a message may have, and one for the carriage return before a line's end.
const MOST_KEPT: usize = MAX_MESSAGE_BYTES + 2;

/// What some editors write before a text, and is no part of it.
const MARK: [u8; 3] = *b"\xef\xbb\xbf";

/// Why there is no message.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    /// It is no text.
    #[error("not UTF-8 at byte {at}, expected text in UTF-8")]
    NotText {
        /// The first byte that is wrong, counted from 1.
        at: usize,
    },
    /// It is longer than a message may be.
    #[error("the message has {bytes} bytes, at most {MAX_MESSAGE_BYTES} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Nothing more can be read.
    #[error("the input cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}

/// The input without a mark of byte order before it. No more is waited for than tells whether there is one.
pub(super) fn without_mark(mut input: impl BufRead) -> impl BufRead {
    let mut n = 0;
    while let Some(expected) = MARK.get(n) {
        match input.fill_buf() {
            Ok(part) if part.first() == Some(expected) => {
                input.consume(1);
                n += 1;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // What cannot be read is told to whoever reads on.
            Ok(_) | Err(_) => break,
        }
    }
    let before = if n < MARK.len() { MARK.get(..n).unwrap_or_default() } else { &[] };
    before.chain(input)
}

/// The next line without its end; `None` at the input's end.
pub(super) fn line(input: &mut impl BufRead) -> Option<Result<String, LineError>> {
    match read(input, Some(b'\n')) {
        Ok((_, 0, false)) => None,
        Ok((kept, bytes, _)) => Some(text(kept, bytes)),
        Err(error) => Some(Err(error.into())),
    }
}

/// All of the input, without the line ends behind it.
pub(super) fn whole(input: &mut impl BufRead) -> Result<String, LineError> {
    let (kept, bytes, _) = read(input, None)?;
    text(kept, bytes).map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
}

fn text(mut kept: Vec<u8>, bytes: usize) -> Result<String, LineError> {
    if bytes > kept.len() {
        return Err(LineError::TooLong { bytes });
    }
    if kept.last() == Some(&b'\r') {
        kept.pop();
    }
    String::from_utf8(kept).map_err(|error| LineError::NotText { at: error.utf8_error().valid_up_to() + 1 })
}

/// The beginning of what stands before `end`, how many bytes all of it has, and whether `end` came.
fn read(input: &mut impl BufRead, end: Option<u8>) -> io::Result<(Vec<u8>, usize, bool)> {
    let (mut kept, mut bytes) = (Vec::new(), 0);
    loop {
        let part = match input.fill_buf() {
            Ok(part) => part,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if part.is_empty() {
            return Ok((kept, bytes, false));
        }
        let found = end.and_then(|end| part.iter().position(|byte| *byte == end));
        let length = found.unwrap_or(part.len());
        let room = MOST_KEPT - kept.len();
        kept.extend(part.iter().take(length.min(room)));
        bytes += length;
        input.consume(length + usize::from(found.is_some()));
        if found.is_some() {
            return Ok((kept, bytes, true));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn lines(mut input: &[u8]) -> Vec<Result<String, String>> {
        std::iter::from_fn(|| line(&mut input)).map(|line| line.map_err(|error| error.to_string())).collect()
    }

    #[test]
    fn each_line_is_one_and_the_last_needs_no_end() {
        let of = |text: &str| Ok(text.to_owned());
        assert_eq!(lines("你好\r\n\na".as_bytes()), [of("你好"), of(""), of("a")]);
        assert_eq!(lines(b"a\n"), [of("a")]);
        assert_eq!(lines(b""), []);
        let mut slow = BufReader::with_capacity(1, "你\n好".as_bytes());
        assert_eq!(line(&mut slow).unwrap().unwrap(), "你");
    }

    #[test]
    fn a_line_that_is_no_message_leaves_the_next_one_alone() {
        let long = [vec![b'a'; 3 * MAX_MESSAGE_BYTES], b"\n\xffb\nc".to_vec()].concat();
        let found = lines(&long);
        assert!(found[0].as_ref().unwrap_err().contains("196608 bytes, at most 65536"), "{found:?}");
        assert!(found[1].as_ref().unwrap_err().contains("not UTF-8 at byte 1"), "{found:?}");
        assert_eq!(found[2], Ok("c".to_owned()));
    }

    #[test]
    fn one_mark_of_byte_order_before_the_input_is_no_part_of_it() {
        for (input, expected) in [
            ("\u{feff}你好".as_bytes(), "你好".as_bytes()),
            ("\u{feff}\u{feff}a".as_bytes(), "\u{feff}a".as_bytes()),
            ("a\u{feff}".as_bytes(), "a\u{feff}".as_bytes()),
            (b"\xef\xbb", b"\xef\xbb"),
            (b"\xefa", b"\xefa"),
            (b"\n", b"\n"),
            (b"", b""),
        ] {
            for capacity in [1, 64] {
                let mut read = Vec::new();
                without_mark(BufReader::with_capacity(capacity, input)).read_to_end(&mut read).unwrap();
                assert_eq!(read, expected, "{input:?}");
            }
        }
    }

    #[test]
    fn the_whole_input_keeps_its_line_ends_but_the_last() {
        assert_eq!(whole(&mut "一\n\n二\r\n\n".as_bytes()).unwrap(), "一\n\n二");
        assert_eq!(whole(&mut b"".as_slice()).unwrap(), "");
        assert!(matches!(whole(&mut vec![b'a'; MOST_KEPT + 1].as_slice()), Err(LineError::TooLong { .. })));
    }
}
