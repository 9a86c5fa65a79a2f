//! Where a text can be cut so that the parts parse alone as they would together.
//!
//! Lines are looked at once, in order. A section begins at a heading, a fence, displayed mathematics, and at any line
//! after a blank one that can't continue what is before it; never inside a fence, and never where a list might go on.
//! This knows line beginnings only, nothing of what is inside a line.
//! **Architecture Invariant:** what is decided from the beginning of a line stays true however the line goes on.

/// Whether the last line of a text may still grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastLine {
    /// More may come.
    Grows,
    /// That was all.
    Complete,
}

/// What the end of the text is inside of, as far as whole lines tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Inside {
    /// Ordinary blocks.
    #[default]
    Flow,
    /// A fenced code block at top level.
    Fence(Fence),
    /// Displayed mathematics that began a line.
    Math(MathDelimiter),
}

/// What opened a fenced code block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// A backtick or a tilde.
    pub marker: char,
    /// At least 3.
    pub length: usize,
}

/// How displayed mathematics is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MathDelimiter {
    /// `$$ … $$`
    Dollars,
    /// `\[ … \]`
    Brackets,
}

impl MathDelimiter {
    /// What opens it.
    pub fn opener(self) -> &'static str {
        match self {
            Self::Dollars => "$$",
            Self::Brackets => r"\[",
        }
    }

    /// What closes it.
    pub fn closer(self) -> &'static str {
        match self {
            Self::Dollars => "$$",
            Self::Brackets => r"\]",
        }
    }
}

/// Cuts one growing text into sections.
#[derive(Debug, Default)]
pub struct Sections {
    /// Where the current section begins.
    start: usize,
    /// Where the first line begins that wasn't taken into the state.
    line: usize,
    inside: Inside,
    /// The column where the content of the section's latest top-level list item begins.
    item: Option<usize>,
    after_blank: bool,
    /// Whatever comes next is a block of its own.
    closed: bool,
}

impl Sections {
    /// The next section that nothing can change any more.
    pub fn next<'text>(&mut self, text: &'text str, last_line: LastLine) -> Option<&'text str> {
        loop {
            let rest = text.get(self.line..).filter(|rest| !rest.is_empty())?;
            let (line, whole) = match rest.split_once('\n') {
                Some((line, _)) => (Line::new(line, LastLine::Complete), line.len() + 1),
                None => (Line::new(rest, last_line), rest.len()),
            };
            if self.line > self.start && self.begins_at(line).ok()? {
                let section = text.get(self.start..self.line);
                *self = Self { start: self.line, line: self.line, ..Self::default() };
                return section;
            }
            if line.last == LastLine::Grows {
                return None;
            }
            self.take(line);
            self.line += whole;
        }
    }

    /// The text after the last cut.
    pub fn current<'text>(&self, text: &'text str) -> &'text str {
        text.get(self.start..).unwrap_or_default()
    }

    /// What the current section's end is inside of.
    pub fn inside(&self) -> Inside {
        self.inside
    }

    /// Declares everything cut.
    pub fn close(&mut self, text: &str) {
        *self = Self { start: text.len(), line: text.len(), ..Self::default() };
    }

    /// Whether a section begins with this line.
    fn begins_at(&self, line: Line<'_>) -> Result<bool, NeedsMore> {
        if self.inside != Inside::Flow {
            return Ok(false);
        }
        if line.is_blank() {
            return line.once_complete(false);
        }
        if self.closed {
            return Ok(true);
        }
        if line.indent >= 4 || self.item.is_some_and(|content| line.indent >= content) {
            return Ok(false);
        }
        if line.is_heading()? || line.fence()?.is_some() || line.math()?.is_some() {
            return Ok(true);
        }
        if !self.after_blank {
            return Ok(false);
        }
        match self.item {
            None => Ok(true),
            Some(_) if line.indent > 0 => Ok(false),
            Some(_) => line.item_content().map(|content| content.is_none()),
        }
    }

    /// Takes a whole line into the state.
    fn take(&mut self, line: Line<'_>) {
        match self.inside {
            Inside::Fence(fence) => {
                if line.closes(fence) {
                    self.inside = Inside::Flow;
                    self.closed = true;
                }
            }
            Inside::Math(delimiter) => {
                self.closed = line.rest.ends_with(delimiter.closer());
                if self.closed || line.is_blank() || line.rest.contains(delimiter.closer()) {
                    self.inside = Inside::Flow;
                }
            }
            Inside::Flow => self.take_flow(line),
        }
        self.after_blank = line.is_blank();
    }

    fn take_flow(&mut self, line: Line<'_>) {
        if line.is_blank() || line.indent >= 4 || self.item.is_some_and(|content| line.indent >= content) {
            return;
        }
        if line.is_heading() == Ok(true) {
            self.closed = true;
        } else if let Ok(Some(fence)) = line.fence() {
            self.inside = Inside::Fence(fence);
        } else if let Ok(Some(math)) = line.math() {
            match math {
                MathLine::Whole => self.closed = true,
                MathLine::Opens(delimiter) => self.inside = Inside::Math(delimiter),
            }
        } else if let Ok(Some(content)) = line.item_content() {
            self.item = Some(content);
        }
    }
}

/// What a line that begins with displayed mathematics does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MathLine {
    /// It is all of it.
    Whole,
    /// The rest is on the lines below.
    Opens(MathDelimiter),
}

/// The answer depends on how the line goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NeedsMore;

/// One line, or the beginning of one.
#[derive(Debug, Clone, Copy)]
struct Line<'text> {
    /// Columns of white space before the text; 4 stands for anything deeper.
    indent: usize,
    /// The text without white space around it.
    rest: &'text str,
    last: LastLine,
}

impl<'text> Line<'text> {
    fn new(line: &'text str, last: LastLine) -> Self {
        let text = line.trim_start_matches(' ');
        let spaces = line.len() - text.len();
        let indent = if text.starts_with(['\t', '\r']) { 4 } else { spaces.min(4) };
        Self { indent, rest: text.trim_matches([' ', '\t', '\r']), last }
    }

    fn is_blank(self) -> bool {
        self.rest.is_empty()
    }

    /// An answer that holds for a whole line only.
    fn once_complete<T>(self, answer: T) -> Result<T, NeedsMore> {
        if self.last == LastLine::Complete { Ok(answer) } else { Err(NeedsMore) }
    }

    fn is_heading(self) -> Result<bool, NeedsMore> {
        let after = self.rest.trim_start_matches('#');
        match self.rest.len() - after.len() {
            1..=6 if after.is_empty() => self.once_complete(true),
            1..=6 => Ok(after.starts_with([' ', '\t'])),
            _ => Ok(false),
        }
    }

    /// The fence that this line opens.
    fn fence(self) -> Result<Option<Fence>, NeedsMore> {
        let Some(marker) = self.rest.chars().next().filter(|first| matches!(first, '`' | '~')) else {
            return Ok(None);
        };
        let info = self.rest.trim_start_matches(marker);
        let length = self.rest.len() - info.len();
        if length < 3 && !info.is_empty() {
            return Ok(None);
        }
        let opens = length >= 3 && !(marker == '`' && info.contains('`'));
        self.once_complete(opens.then_some(Fence { marker, length }))
    }

    fn closes(self, fence: Fence) -> bool {
        self.indent < 4 && self.rest.len() >= fence.length && self.rest.chars().all(|char| char == fence.marker)
    }

    fn math(self) -> Result<Option<MathLine>, NeedsMore> {
        if matches!(self.rest, "$" | "\\") {
            return self.once_complete(None);
        }
        let delimiters = [MathDelimiter::Dollars, MathDelimiter::Brackets];
        let Some((delimiter, body)) =
            delimiters.into_iter().find_map(|found| Some((found, self.rest.strip_prefix(found.opener())?)))
        else {
            return Ok(None);
        };
        let line = match body.find(delimiter.closer()) {
            None => Some(MathLine::Opens(delimiter)),
            Some(at) => (at + delimiter.closer().len() == body.len()).then_some(MathLine::Whole),
        };
        self.once_complete(line)
    }

    /// Where the content of the list item begins that this line opens.
    fn item_content(self) -> Result<Option<usize>, NeedsMore> {
        let Some((marker, after)) = list_marker(self.rest) else {
            let digits = self.rest.trim_start_matches(|char: char| char.is_ascii_digit());
            let may_become_one = digits.is_empty() && self.rest.len() <= 9;
            return if may_become_one { self.once_complete(None) } else { Ok(None) };
        };
        if after.is_empty() {
            return self.once_complete(Some(self.indent + marker + 1));
        }
        if !after.starts_with([' ', '\t']) {
            return Ok(None);
        }
        let spaces = after.len() - after.trim_start_matches(' ').len();
        Ok(Some(self.indent + marker + if (1..=4).contains(&spaces) { spaces } else { 1 }))
    }
}

/// The length of a bullet or number at the beginning of a text, and what follows it.
pub fn list_marker(text: &str) -> Option<(usize, &str)> {
    if let Some(after) = text.strip_prefix(['-', '*', '+']) {
        return Some((1, after));
    }
    let after = text.trim_start_matches(|char: char| char.is_ascii_digit());
    let digits = text.len() - after.len();
    let after = after.strip_prefix(['.', ')'])?;
    (1..=9).contains(&digits).then_some((digits + 1, after))
}
