//! Server-sent events, read as they come in.
//!
//! Pure: bytes in, whole events out. Knows nothing of what they mean. **Architecture Invariant:** never holds more than its
//! limit, whatever comes.

/// The longest event that is taken; one of an answer has a few hundred bytes, with log-probabilities a few thousand.
pub(super) const MAX_EVENT_BYTES: usize = 1 << 20;

/// An event is longer than [`MAX_EVENT_BYTES`], or than another limit that was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EventTooLong;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// Its data.
    Data(Vec<u8>),
    /// What stands in a field `error`, which is llama.cpp's own.
    Error(Vec<u8>),
}

/// Takes a stream apart.
#[derive(Debug)]
pub(super) struct EventReader {
    line: Vec<u8>,
    event: Option<Event>,
    /// Whether the last byte was a carriage return, which a line feed may follow.
    after_return: bool,
    is_first_line: bool,
    limit: usize,
}

impl EventReader {
    /// At the beginning of a stream whose events have at most `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { line: Vec::new(), event: None, after_return: false, is_first_line: true, limit }
    }

    /// Takes bytes in; the events that they complete. Comments and fields other than `data` and `error` are passed over.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, EventTooLong> {
        let mut events = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' if self.after_return => self.after_return = false,
                b'\n' | b'\r' => {
                    self.after_return = *byte == b'\r';
                    events.extend(self.end_line());
                }
                byte => {
                    self.after_return = false;
                    if self.line.len() + self.event.as_ref().map_or(0, Event::len) >= self.limit {
                        return Err(EventTooLong);
                    }
                    self.line.push(*byte);
                }
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        let mut line = line.as_slice();
        if std::mem::take(&mut self.is_first_line) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            return self.event.take();
        }
        if let Some(value) = value(line, b"data") {
            match &mut self.event {
                Some(Event::Data(data)) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                // An error counts for more than what stands beside it.
                Some(Event::Error(_)) => {}
                None => self.event = Some(Event::Data(value.to_vec())),
            }
        } else if let Some(value) = value(line, b"error") {
            self.event = Some(Event::Error(value.to_vec()));
        }
        None
    }
}

/// What a line says of a field, where it says anything of it.
fn value<'l>(line: &'l [u8], field: &[u8]) -> Option<&'l [u8]> {
    let rest = line.strip_prefix(field)?;
    if rest.is_empty() {
        return Some(rest);
    }
    let value = rest.strip_prefix(b":")?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

impl Event {
    fn len(&self) -> usize {
        match self {
            Self::Data(bytes) | Self::Error(bytes) => bytes.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(parts: &[&[u8]]) -> Vec<String> {
        let mut reader = EventReader::new(MAX_EVENT_BYTES);
        let events = parts.iter().flat_map(|part| reader.push(part).unwrap());
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        events
            .map(|event| match event {
                Event::Data(data) => text(data),
                Event::Error(error) => format!("error {}", text(error)),
            })
            .collect()
    }

    #[test]
    fn events_are_told_apart_by_empty_lines_however_lines_end() {
        for end in ["\n", "\r\n", "\r"] {
            let text = "data: a\n\ndata:b\ndata: c\n\n: a comment\n\nid: 7\nevent: x\ndata\n\n".replace('\n', end);
            assert_eq!(read(&[text.as_bytes()]), ["a", "b\nc", ""], "{end:?}");
        }
    }

    #[test]
    fn a_field_named_error_is_an_event_of_its_own_kind() {
        let text =
            b"data: a\n\nerror: {\"code\":500}\n\ndata: b\nerror: c\ndata: d\n\nerror\n\nerrors: e\n\ndata: [DONE]\n\n";
        assert_eq!(read(&[text]), ["a", "error {\"code\":500}", "error c", "error ", "[DONE]"]);
    }

    #[test]
    fn a_mark_of_byte_order_is_passed_over_and_what_is_not_whole_is_not_told() {
        assert_eq!(read(&["\u{feff}data: a\n\ndata: b\n".as_bytes()]), ["a"]);
        assert_eq!(read(&[b"{\"error\": 1}\n\n<html>\n\n"]), [""; 0]);
    }

    #[test]
    fn an_event_that_never_ends_is_given_up_and_not_held() {
        let mut reader = EventReader::new(64);
        let mut pushed = 0;
        while reader.push(b"data: 01234567\n").is_ok() {
            pushed += 1;
            assert!(pushed < 10, "it is held for ever");
        }
        assert_eq!(EventReader::new(64).push(&[b'x'; 65]), Err(EventTooLong));
        assert!(EventReader::new(64).push(&[b'\n'; 1000]).is_ok());
    }

    proptest! {
        #[test]
        fn where_bytes_are_divided_makes_no_difference(
            text in "(data: [ab]{0,3}|error: [ab]{0,3}|: c|id: 1||\r)(\n|\r\n|\r){0,2}(data:x\n\n)?(data: y\r\n\r\n)?",
            cut in 0usize..40,
        ) {
            let (before, after) = text.as_bytes().split_at(cut.min(text.len()));
            prop_assert_eq!(read(&[before, after]), read(&[text.as_bytes()]));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut reader = EventReader::new(100);
            if let Ok(events) = reader.push(&bytes) {
                prop_assert!(events.iter().all(|event| event.len() <= 100));
            }
        }
    }
}
