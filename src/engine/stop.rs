//! Stop strings: texts that end an answer and are not part of it.
//!
//! A stop string may come in several pieces, so text that could be the beginning of one is held back until it is clear.
//! Knows only text.

/// Looks for stop strings in a text that comes in pieces.
#[derive(Debug)]
pub struct StopStrings {
    stop: Vec<String>,
    held: String,
}

/// What a piece of text made certain.
#[derive(Debug, PartialEq, Eq)]
pub enum Checked {
    /// This text is no part of a stop string.
    Text(String),
    /// This text came before a stop string; the answer is over.
    Stopped(String),
}

impl StopStrings {
    /// Looks for these; empty ones are never found.
    #[must_use]
    pub fn new(mut stop: Vec<String>) -> Self {
        stop.retain(|text| !text.is_empty());
        Self { stop, held: String::new() }
    }

    /// Adds a piece.
    pub fn push(&mut self, text: &str) -> Checked {
        if self.stop.is_empty() {
            return Checked::Text(text.to_owned());
        }
        self.held.push_str(text);
        if let Some(at) = self.stop.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(at);
            return Checked::Stopped(std::mem::take(&mut self.held));
        }
        let certain = self.certain();
        let rest = self.held.split_off(certain);
        Checked::Text(std::mem::replace(&mut self.held, rest))
    }

    /// What was held back, at the end.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// How many bytes of the held text can't begin a stop string any more.
    fn certain(&self) -> usize {
        self.held
            .char_indices()
            .map(|(at, _)| at)
            .find(|at| {
                let tail = self.held.get(*at..).unwrap_or_default();
                self.stop.iter().any(|stop| stop.starts_with(tail))
            })
            .unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stop_string_in_pieces_is_found_and_left_out() {
        let mut stop = StopStrings::new(vec!["\nHuman:".into()]);
        assert_eq!(stop.push("好。\nHu"), Checked::Text("好。".into()));
        assert_eq!(stop.push("man: x"), Checked::Stopped("\nHuman:".replace("\nHuman:", "")));
    }

    #[test]
    fn what_only_looked_like_one_comes_out_whole() {
        let mut stop = StopStrings::new(vec!["abc".into()]);
        assert_eq!(stop.push("xab"), Checked::Text("x".into()));
        assert_eq!(stop.push("ab"), Checked::Text("ab".into()));
        assert_eq!(stop.finish(), "ab");
    }

    proptest! {
        #[test]
        fn any_division_gives_the_text_before_the_first_stop_string(text in "[abc]{0,12}", cut in 0usize..12) {
            let mut stop = StopStrings::new(vec!["bca".into(), "cc".into()]);
            let cut = cut.min(text.len());
            let mut out = String::new();
            let mut stopped = false;
            for piece in [&text[..cut], &text[cut..]] {
                if stopped { break; }
                match stop.push(piece) {
                    Checked::Text(text) => out.push_str(&text),
                    Checked::Stopped(text) => { out.push_str(&text); stopped = true; }
                }
            }
            if !stopped { out.push_str(&stop.finish()); }
            let first = ["bca", "cc"].iter().filter_map(|stop| text.find(stop)).min();
            // Which of two overlapping stop strings is met first depends on what has come; either is right.
            match first {
                None => prop_assert_eq!(out, text),
                Some(_) => prop_assert!(stopped && text.starts_with(&out) && !out.contains("bca") && !out.contains("cc")),
            }
        }
    }
}
