//! The fields of a request's body, taken one by one: a wrong type is refused by the field's name, what is left over is passed
//! over.
//!
//! Knows JSON and no meaning. A field that is `null` counts as absent, as OpenAI has it.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::error::ApiError;
use crate::chat::error::{ChatError, ErrorCode};

/// Most characters of a wrong value that are told.
const TOLD_CHARS: usize = 60;

/// What stands in a body.
#[derive(Debug)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a body.
    ///
    /// # Errors
    /// Where it is no JSON object.
    pub(super) fn read(body: &[u8]) -> Result<Self, ApiError> {
        let value = serde_json::from_slice(body)
            .map_err(|error| ApiError::field("body", format!("the body is no JSON: {error}; expected an object")))?;
        match value {
            Value::Object(fields) => Ok(Self(fields)),
            other => Err(ApiError::field("body", format!("the body is {}, expected a JSON object", told(&other)))),
        }
    }

    /// A field, where it is there.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    /// A text.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(name, &other, "a text")),
        }
    }

    /// True or false; false where it is not there.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, ApiError> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(wrong(name, &other, "true or false")),
        }
    }

    /// A number. Where it is beyond what a single can hold it is infinite, and somebody's bound refuses it.
    pub(super) fn number(&mut self, name: &str) -> Result<Option<f32>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => {
                value.as_f64().map(|number| Some(number as f32)).ok_or_else(|| wrong(name, &value, "a number"))
            }
        }
    }

    /// A whole number within these bounds.
    pub(super) fn whole(&mut self, name: &str, bounds: RangeInclusive<u32>) -> Result<Option<u32>, ApiError> {
        self.take(name).map(|value| whole(name, &value, bounds)).transpose()
    }

    /// A whole number of 64 bits, with a sign or without one, as bits.
    pub(super) fn bits(&mut self, name: &str) -> Result<Option<u64>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let bits = value.as_u64().or_else(|| as_i64(&value).map(i64::cast_unsigned));
        bits.map(Some).ok_or_else(|| wrong(name, &value, "a whole number of 64 bits"))
    }
}

/// A whole number within these bounds.
pub(super) fn whole(name: &str, value: &Value, bounds: RangeInclusive<u32>) -> Result<u32, ApiError> {
    let number = as_i64(value).and_then(|number| u32::try_from(number).ok());
    number.filter(|number| bounds.contains(number)).ok_or_else(|| {
        let (least, most) = bounds.into_inner();
        if as_i64(value).is_some() {
            let message = format!("{name} is {value}, expected {least} to {most}");
            return ApiError::from(ChatError::new(ErrorCode::SettingOutOfRange, message)).about(name);
        }
        wrong(name, value, &format!("a whole number from {least} to {most}"))
    })
}

/// Written as 1.0 or 1e3 it is a whole number too.
fn as_i64(value: &Value) -> Option<i64> {
    const BOUND: f64 = 9_223_372_036_854_775_808.0;
    value.as_i64().or_else(|| {
        // OpenAI's own bounds for a seed, as a float can hold them, are a little beyond 64 bits.
        let float = value.as_f64().filter(|float| float.fract() == 0.0 && float.abs() <= BOUND);
        float.map(|float| float as i64)
    })
}

/// A value of the wrong type.
pub(super) fn wrong(name: &str, found: &Value, expected: &str) -> ApiError {
    ApiError::field(name, format!("{name} is {}, expected {expected}", told(found)))
}

/// A value as it is told, which may be long.
fn told(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(TOLD_CHARS) {
        None => text,
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}
