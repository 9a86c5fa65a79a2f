//! One value of the metadata.
//!
//! **Architecture Invariant:** what is kept of a value has a bounded size, whatever the file has.

use std::fmt;

use crate::engine::checkpoint::gguf::{error::GgufError, reader::Reader};

/// Texts that are longer, as templates are, are of no use here.
const MAX_KEPT_TEXT_BYTES: u64 = 1 << 10;

/// A value, as far as it is kept.
#[derive(Debug)]
pub(super) enum Value {
    Whole(u64),
    Negative(i64),
    Real(f64),
    Flag(bool),
    Text(String),
    LongText(u64),
    /// Its length.
    List(u64),
}

impl Value {
    pub(super) fn real(&self) -> Option<f64> {
        match self {
            Self::Whole(number) => Some(*number as f64),
            Self::Negative(number) => Some(*number as f64),
            Self::Real(number) => Some(*number),
            Self::Flag(_) | Self::Text(_) | Self::LongText(_) | Self::List(_) => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(number) => write!(f, "{number}"),
            Self::Negative(number) => write!(f, "{number}"),
            Self::Real(number) => write!(f, "{number}"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Text(text) => write!(f, "{:?}", text.chars().take(100).collect::<String>()),
            Self::LongText(n_bytes) => write!(f, "a text of {n_bytes} bytes"),
            Self::List(length) => write!(f, "a list of {length}"),
        }
    }
}

const TEXT: u32 = 8;
const LIST: u32 = 9;

/// Reads the value of `key`.
pub(super) fn read(reader: &mut Reader<'_>, key: &str) -> Result<Value, GgufError> {
    let kind = reader.u32()?;
    Ok(match kind {
        0 => Value::Whole(u64::from(u8::from_le_bytes(reader.array()?))),
        1 => signed(i64::from(i8::from_le_bytes(reader.array()?))),
        2 => Value::Whole(u64::from(u16::from_le_bytes(reader.array()?))),
        3 => signed(i64::from(i16::from_le_bytes(reader.array()?))),
        4 => Value::Whole(u64::from(reader.u32()?)),
        5 => signed(i64::from(i32::from_le_bytes(reader.array()?))),
        6 => Value::Real(shortest(f32::from_le_bytes(reader.array()?))),
        7 => Value::Flag(reader.array::<1>()? != [0]),
        TEXT => text(reader)?,
        LIST => list(reader, key)?,
        10 => Value::Whole(reader.u64()?),
        11 => signed(i64::from_le_bytes(reader.array()?)),
        12 => Value::Real(f64::from_le_bytes(reader.array()?)),
        found => return Err(GgufError::ValueKind { file: reader.file(), key: key.to_owned(), found }),
    })
}

fn signed(number: i64) -> Value {
    u64::try_from(number).map_or(Value::Negative(number), Value::Whole)
}

/// The decimal number that was meant: 1e-6 was written as the f32 next to it.
fn shortest(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}

fn text(reader: &mut Reader<'_>) -> Result<Value, GgufError> {
    let n_bytes = reader.u64()?;
    if n_bytes > MAX_KEPT_TEXT_BYTES {
        reader.skip(n_bytes)?;
        return Ok(Value::LongText(n_bytes));
    }
    reader.text_of("a metadata text", n_bytes).map(Value::Text)
}

fn list(reader: &mut Reader<'_>, key: &str) -> Result<Value, GgufError> {
    let kind = reader.u32()?;
    let length = reader.u64()?;
    let item_bytes = match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        10..=12 => 8,
        TEXT => {
            // Each has a length in front of it.
            reader.reserve(length.saturating_mul(8))?;
            for _ in 0..length {
                reader.skip_text()?;
            }
            return Ok(Value::List(length));
        }
        found => return Err(GgufError::ValueKind { file: reader.file(), key: key.to_owned(), found }),
    };
    reader.skip(length.saturating_mul(item_bytes))?;
    Ok(Value::List(length))
}
