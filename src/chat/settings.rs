//! Sampling settings: their bounds, their names, and what they are when nobody set them.
//!
//! [`Settings`] is what a person changed (each field may be absent); [`Sampling`] is what a generation runs with, always
//! within bounds. The server resolves one into the other with the checkpoint's `generation_config.json`.

use serde::{Deserialize, Serialize};

use super::error::{ChatError, ErrorCode};

/// What a generation samples with; every value within its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token. 0 to 2.
    pub temperature: f32,
    /// How many of the likeliest tokens stay; 0 keeps all. 0 to 100.
    pub top_k: u32,
    /// Least probability mass that stays. Above 0, up to 1.
    pub top_p: f32,
    /// Divides positive and multiplies negative logits of tokens already seen. 0.5 to 2.
    pub repetition_penalty: f32,
    /// Most tokens to generate. At least 1.
    pub max_new_tokens: u32,
}

impl Default for Sampling {
    /// What XVERSE-13B-Chat's `generation_config.json` says.
    fn default() -> Self {
        Self { temperature: 0.5, top_k: 30, top_p: 0.85, repetition_penalty: 1.1, max_new_tokens: 2048 }
    }
}

/// What a person set; an absent field takes the checkpoint's default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// See [`Sampling::temperature`].
    pub temperature: Option<f32>,
    /// See [`Sampling::top_k`].
    pub top_k: Option<u32>,
    /// See [`Sampling::top_p`].
    pub top_p: Option<f32>,
    /// See [`Sampling::repetition_penalty`].
    pub repetition_penalty: Option<f32>,
    /// See [`Sampling::max_new_tokens`].
    pub max_new_tokens: Option<u32>,
    /// Seeds the draws; absent means a fresh one for each answer. Up to 2^53 - 1, which JavaScript holds exactly.
    pub seed: Option<u64>,
}

/// A value outside its bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} is {value}, expected {min} to {max}")]
pub struct OutOfRange {
    /// The setting's name.
    pub name: &'static str,
    /// What was found.
    pub value: String,
    /// The least that may be.
    pub min: String,
    /// The most that may be.
    pub max: String,
}

impl From<OutOfRange> for ChatError {
    fn from(error: OutOfRange) -> Self {
        Self::new(ErrorCode::SettingOutOfRange, error.to_string())
    }
}

/// Largest seed: the largest integer that JavaScript holds exactly.
pub const MAX_SEED: u64 = (1 << 53) - 1;

impl Settings {
    /// Fills what is absent from `defaults` and checks every bound; `max_new_tokens` has the given upper bound.
    ///
    /// # Errors
    /// [`OutOfRange`], naming the setting, the bound and the value.
    pub fn resolve(&self, defaults: &Sampling, max_new_tokens: u32) -> Result<Sampling, OutOfRange> {
        let sampling = Sampling {
            temperature: self.temperature.unwrap_or(defaults.temperature),
            top_k: self.top_k.unwrap_or(defaults.top_k),
            top_p: self.top_p.unwrap_or(defaults.top_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(defaults.repetition_penalty),
            max_new_tokens: self.max_new_tokens.unwrap_or(defaults.max_new_tokens.min(max_new_tokens)),
        };
        within("temperature", sampling.temperature, 0.0, 2.0)?;
        within("top_k", sampling.top_k, 0, 100)?;
        within("top_p", sampling.top_p, f32::MIN_POSITIVE, 1.0)
            .map_err(|error| OutOfRange { min: "more than 0".to_owned(), ..error })?;
        within("repetition_penalty", sampling.repetition_penalty, 0.5, 2.0)?;
        within("max_new_tokens", sampling.max_new_tokens, 1, max_new_tokens)?;
        if let Some(seed) = self.seed {
            within("seed", seed, 0, MAX_SEED)?;
        }
        Ok(sampling)
    }

    /// The seed that was set, else a random one.
    #[must_use]
    pub fn seed_or_random(&self) -> u64 {
        self.seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u128() as u64 & MAX_SEED)
    }
}

fn within<T: PartialOrd + std::fmt::Display>(name: &'static str, value: T, min: T, max: T) -> Result<(), OutOfRange> {
    // Written so that NaN, which compares false with everything, is refused.
    if value >= min && value <= max {
        Ok(())
    } else {
        Err(OutOfRange { name, value: value.to_string(), min: min.to_string(), max: max.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_setting_takes_the_default() {
        let sampling = Settings::default().resolve(&Sampling::default(), 100).unwrap();
        assert_eq!(sampling.temperature, 0.5);
        assert_eq!(sampling.max_new_tokens, 100);
    }

    #[test]
    fn a_value_out_of_range_is_refused_by_name() {
        for (settings, name) in [
            (Settings { temperature: Some(2.1), ..Settings::default() }, "temperature"),
            (Settings { temperature: Some(f32::NAN), ..Settings::default() }, "temperature"),
            (Settings { top_p: Some(0.0), ..Settings::default() }, "top_p"),
            (Settings { top_k: Some(101), ..Settings::default() }, "top_k"),
            (Settings { repetition_penalty: Some(0.4), ..Settings::default() }, "repetition_penalty"),
            (Settings { max_new_tokens: Some(0), ..Settings::default() }, "max_new_tokens"),
            (Settings { max_new_tokens: Some(101), ..Settings::default() }, "max_new_tokens"),
            (Settings { seed: Some(MAX_SEED + 1), ..Settings::default() }, "seed"),
        ] {
            let error = settings.resolve(&Sampling::default(), 100).unwrap_err();
            assert_eq!(error.name, name);
            let told = ChatError::from(error);
            assert_eq!(told.code, ErrorCode::SettingOutOfRange);
            assert!(told.message.starts_with(name), "{}", told.message);
        }
    }
}
