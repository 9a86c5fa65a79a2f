//! Typed markup: what an answer's Markdown becomes before it is seen.
//!
//! The server parses (`render`), the page shows (`app`). There is no HTML in it anywhere: every string is text.
//! **Architecture Invariant:** a link's target is a [`LinkTarget`], which holds only http, https or mailto.

use serde::{Deserialize, Serialize};

/// A block of an answer, top level or nested.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Block {
    /// A paragraph of text.
    Paragraph {
        /// Its content.
        inlines: Vec<Inline>,
    },
    /// A heading of level 1 to 6.
    Heading {
        /// 1 to 6.
        level: u8,
        /// Its content.
        inlines: Vec<Inline>,
    },
    /// A fenced or indented code block.
    Code {
        /// The fence's first word, empty where there is none.
        language: String,
        /// The code, without the fence, ending without a line feed.
        code: String,
    },
    /// A block quotation.
    Quote {
        /// What is quoted.
        blocks: Vec<Block>,
    },
    /// A list.
    List {
        /// First number of an ordered list, `None` for bullets.
        start: Option<u32>,
        /// The entries.
        items: Vec<ListItem>,
    },
    /// A table.
    Table {
        /// One a column.
        alignments: Vec<Alignment>,
        /// The head row's cells.
        header: Vec<Vec<Inline>>,
        /// Body rows, each as many cells as the header.
        rows: Vec<Vec<Vec<Inline>>>,
    },
    /// Displayed mathematics, as LaTeX source.
    Math {
        /// LaTeX without its delimiters.
        source: String,
    },
    /// A thematic break.
    Rule,
}

/// One entry of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListItem {
    /// Of a task list: whether it is ticked.
    pub checked: Option<bool>,
    /// The entry's content.
    pub blocks: Vec<Block>,
}

/// How a table column is aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alignment {
    /// As the language reads.
    None,
    /// To the left.
    Left,
    /// In the middle.
    Center,
    /// To the right.
    Right,
}

/// A run of text inside a block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inline {
    /// Plain text.
    Text {
        /// The text.
        text: String,
    },
    /// Code in a line.
    Code {
        /// The code.
        code: String,
    },
    /// Strong emphasis.
    Strong {
        /// What is stressed.
        inlines: Vec<Inline>,
    },
    /// Emphasis.
    Emphasis {
        /// What is stressed.
        inlines: Vec<Inline>,
    },
    /// Struck-out text.
    Strikethrough {
        /// What is struck out.
        inlines: Vec<Inline>,
    },
    /// A link; images become links too, so that nothing is fetched by itself.
    Link {
        /// Where to.
        target: LinkTarget,
        /// What is shown.
        inlines: Vec<Inline>,
    },
    /// Mathematics in a line, as LaTeX source.
    Math {
        /// LaTeX without its delimiters.
        source: String,
    },
    /// A line feed in the source that is no break.
    SoftBreak,
    /// A line break.
    LineBreak,
}

/// A link's target: http, https or mailto, nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LinkTarget(String);

/// What a host does not begin with.
const NO_HOST: [char; 4] = ['/', '\\', '?', '#'];

/// A link's scheme is none of http, https, mailto, or it has no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a link may lead to http, https or mailto only, with a host")]
pub struct UnsafeLink;

impl LinkTarget {
    /// Parses a URL; control characters and white space around it are refused, not repaired.
    ///
    /// # Errors
    /// [`UnsafeLink`] for any other scheme, and for relative targets, among which are those that name a scheme and no host.
    pub fn parse(url: &str) -> Result<Self, UnsafeLink> {
        let (scheme, rest) = url.split_once(':').ok_or(UnsafeLink)?;
        // Without a host it would lead into whatever site it is shown on.
        let has_host = || rest.strip_prefix("//").is_some_and(|rest| !rest.is_empty() && !rest.starts_with(NO_HOST));
        let leads_out = match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" => has_host(),
            "mailto" => !rest.is_empty(),
            _ => false,
        };
        if leads_out && !url.chars().any(char::is_control) { Ok(Self(url.to_owned())) } else { Err(UnsafeLink) }
    }

    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for LinkTarget {
    type Error = UnsafeLink;

    fn try_from(url: String) -> Result<Self, UnsafeLink> {
        Self::parse(&url)
    }
}

impl From<LinkTarget> for String {
    fn from(target: LinkTarget) -> Self {
        target.0
    }
}
