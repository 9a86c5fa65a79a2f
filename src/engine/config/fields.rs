//! One JSON object's fields, taken out by name with their kind and bounds checked.
//!
//! A field that is `null` counts as absent, as it does for the tools that write these files.

use std::fmt;

use serde_json::{Map, Value};

use super::ConfigError;

/// A JSON object.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    pub(super) fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        serde_json::from_slice(json).map(Self).map_err(|source| ConfigError::BrokenJson { source })
    }

    pub(super) fn required(&self, field: &'static str, min: usize, max: usize) -> Result<usize, ConfigError> {
        self.optional(field, min, max)?.ok_or(ConfigError::MissingField { field })
    }

    pub(super) fn optional(&self, field: &'static str, min: usize, max: usize) -> Result<Option<usize>, ConfigError> {
        let Some(value) = self.value(field) else { return Ok(None) };
        if !(value.is_i64() || value.is_u64()) {
            return Err(wrong_type(field, value, "an integer"));
        }
        match value.as_u64().and_then(|number| usize::try_from(number).ok()) {
            Some(number) if (min..=max).contains(&number) => Ok(Some(number)),
            _ => Err(out_of_range(field, value, min, max)),
        }
    }

    /// Ids of a vocabulary of `vocab_size`: one, or a list; -1 stands for none.
    pub(super) fn token_ids(&self, field: &'static str, vocab_size: usize) -> Result<Vec<u32>, ConfigError> {
        let Some(value) = self.value(field) else { return Ok(Vec::new()) };
        let ids = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        let mut found = Vec::new();
        for id in ids.iter().filter(|id| id.as_i64() != Some(-1)) {
            if !(id.is_i64() || id.is_u64()) {
                return Err(wrong_type(field, value, "an integer, or a list of integers"));
            }
            match id.as_u64() {
                Some(id) if id < vocab_size as u64 => found.push(id as u32),
                _ => return Err(out_of_range(field, value, 0, vocab_size - 1)),
            }
        }
        Ok(found)
    }

    pub(super) fn real(&self, field: &'static str, min: f64, max: f64) -> Result<Option<f64>, ConfigError> {
        let Some(value) = self.value(field) else { return Ok(None) };
        let number = value.as_f64().ok_or_else(|| wrong_type(field, value, "a number"))?;
        if (min..=max).contains(&number) { Ok(Some(number)) } else { Err(out_of_range(field, value, min, max)) }
    }

    /// `false` where it is absent.
    pub(super) fn flag(&self, field: &'static str) -> Result<bool, ConfigError> {
        let Some(value) = self.value(field) else { return Ok(false) };
        value.as_bool().ok_or_else(|| wrong_type(field, value, "true or false"))
    }

    pub(super) fn string(&self, field: &'static str) -> Result<Option<String>, ConfigError> {
        let Some(value) = self.value(field) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| wrong_type(field, value, "a string"))?;
        Ok(Some(text.to_owned()))
    }

    pub(super) fn strings(&self, field: &'static str) -> Result<Option<Vec<String>>, ConfigError> {
        let Some(value) = self.value(field) else { return Ok(None) };
        let texts =
            value.as_array().and_then(|items| items.iter().map(|item| item.as_str().map(str::to_owned)).collect());
        texts.map(Some).ok_or_else(|| wrong_type(field, value, "a list of strings"))
    }

    pub(super) fn object(&self, field: &'static str) -> Result<Option<Fields>, ConfigError> {
        let Some(value) = self.value(field) else { return Ok(None) };
        let object = value.as_object().ok_or_else(|| wrong_type(field, value, "an object"))?;
        Ok(Some(Fields(object.clone())))
    }

    /// The value's JSON where it is there and neither null, false, zero nor empty.
    pub(super) fn set(&self, field: &str) -> Option<String> {
        let value = self.value(field)?;
        let is_off = value == &Value::Bool(false) || value.as_f64() == Some(0.0);
        (!is_off).then(|| value.to_string())
    }

    /// Whether there is a field beside `known`.
    pub(super) fn has_other_than(&self, known: &[&str]) -> bool {
        self.0.keys().any(|key| !known.contains(&key.as_str()))
    }

    fn value(&self, field: &str) -> Option<&Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Value::Object(self.0.clone()).fmt(f)
    }
}

fn wrong_type(field: &'static str, value: &Value, expected: &'static str) -> ConfigError {
    ConfigError::WrongType { field, found: value.to_string(), expected }
}

fn out_of_range(field: &'static str, value: &Value, min: impl ToString, max: impl ToString) -> ConfigError {
    ConfigError::OutOfRange { field, found: value.to_string(), min: min.to_string(), max: max.to_string() }
}
