//! The report about a model, as it stands on the terminal: one line a fact.

use std::{fmt::Write, fs, path::Path};

use serde::Serialize;

use super::failure::Failure;
use crate::{
    chat::info::{ModelInfo, PromptFormat},
    engine::{backend::cuda::card, load::DeviceChoice, remote::address::Address},
};

const GIB: f64 = (1_u64 << 30) as f64;
const MIB: f64 = (1_u64 << 20) as f64;
const KIB: f64 = 1024.0;

/// What is said when a model has been loaded onto the device that was asked for.
#[must_use]
pub fn loaded(model: &ModelInfo, asked: DeviceChoice) -> String {
    let device = match asked {
        DeviceChoice::Auto if model.device == "cpu" => {
            let why = if card::IS_BUILT { "no card could be used" } else { "this build has no gpu backend" };
            format!("cpu, since {why} and the model fits")
        }
        DeviceChoice::Auto | DeviceChoice::Cpu | DeviceChoice::Reference | DeviceChoice::Cuda(_) => {
            model.device.clone()
        }
    };
    lines(&[
        ("model", format!("{}, {} parameters", model.name, known(model.n_parameters.map(count)))),
        ("weights", weights(model)),
        ("device", device),
        ("kv", format!("{} tokens", known(model.kv_capacity_tokens.map(|n| n.to_string())))),
        ("context", format!("{} tokens", model.context_length)),
        ("prompt", prompt_format(model.prompt_format).to_owned()),
        ("loaded", format!("in {:.1} s", model.load_seconds.unwrap_or_default())),
    ])
}

fn weights(model: &ModelInfo) -> String {
    let (dtype, quantize) = (known(model.dtype.clone()), known(model.quantize.clone()));
    format!("{dtype}, quantize {quantize}, {}", known(model.weight_bytes.map(bytes)))
}

fn known(value: Option<String>) -> String {
    value.unwrap_or_else(|| "?".to_owned())
}

/// Writes a report to the file that `--json` names.
///
/// # Errors
/// [`Failure::Refused`] where it cannot be written.
pub fn write_json(path: &Path, report: &impl Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(report).expect("invariant: a report has only names and numbers");
    fs::write(path, json + "\n").map_err(|error| {
        Failure::Refused(format!("{} cannot be written: {error}\nhint: --json names a file", path.display()))
    })
}

/// What is said when an upstream server answers, of all that generate.
#[must_use]
pub fn connected(model: &ModelInfo, upstreams: &[Address]) -> String {
    let upstreams: Vec<String> = upstreams.iter().map(ToString::to_string).collect();
    lines(&[
        ("model", model.name.clone()),
        ("upstream", upstreams.join(", ")),
        ("context", format!("{} tokens", model.context_length)),
        ("prompt", prompt_format(model.prompt_format).to_owned()),
    ])
}

/// Name and value a line, values below each other.
#[must_use]
pub fn lines(facts: &[(&str, String)]) -> String {
    facts.iter().fold(String::new(), |mut text, (name, value)| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<9} {}", printable(value));
        text
    })
}

/// The text without what a terminal would obey: names in files come from elsewhere.
#[must_use]
pub fn printable(text: &str) -> String {
    let escaped = |character: char| character.is_control() && character != '\n';
    text.chars().fold(String::with_capacity(text.len()), |mut shown, character| {
        if escaped(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
        shown
    })
}

/// The format as `--prompt_format` spells it.
#[must_use]
pub fn prompt_format(format: PromptFormat) -> &'static str {
    match format {
        PromptFormat::V1 => "v1",
        PromptFormat::V2 => "v2",
    }
}

/// `13.9 B`, `1.8 M`, `512`.
#[must_use]
pub fn count(n: u64) -> String {
    match n {
        1_000_000_000.. => format!("{:.1} B", n as f64 / 1e9),
        1_000_000.. => format!("{:.1} M", n as f64 / 1e6),
        _ => n.to_string(),
    }
}

/// `25.5 GiB`, `3.4 MiB`, `12 KiB`.
#[must_use]
pub fn bytes(n: u64) -> String {
    let n = n as f64;
    match n {
        GIB.. => format!("{:.1} GiB", n / GIB),
        MIB.. => format!("{:.1} MiB", n / MIB),
        _ => format!("{:.1} KiB", n / KIB),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{chat::settings::Sampling, server::failure::Failure};

    #[test]
    fn a_terminal_is_told_nothing_but_lines() {
        assert_eq!(printable("模型 a\n\u{1b}]0;x\u{7}\r\u{9b}"), "模型 a\n\\u{1b}]0;x\\u{7}\\r\\u{9b}");
        assert!(!Failure::Refused("\u{1b}[2J".to_owned()).to_string().contains('\u{1b}'));
    }

    #[test]
    fn the_report_says_what_is_loaded_and_how() {
        let model = ModelInfo {
            name: "XVERSE-13B-Chat".to_owned(),
            is_mini: false,
            n_parameters: Some(13_900_000_000),
            dtype: Some("f32".to_owned()),
            quantize: Some("none".to_owned()),
            device: "cpu".to_owned(),
            weight_bytes: Some(3 << 30),
            kv_capacity_tokens: Some(4096),
            context_length: 8192,
            longest_answer: 2048,
            prompt_format: PromptFormat::V1,
            defaults: Sampling::default(),
            load_seconds: Some(12.34),
        };
        assert!(loaded(&model, DeviceChoice::Cpu).contains("device    cpu\n"));
        insta::assert_snapshot!(loaded(&model, DeviceChoice::Auto), @r"
        model     XVERSE-13B-Chat, 13.9 B parameters
        weights   f32, quantize none, 3.0 GiB
        device    cpu, since this build has no gpu backend and the model fits
        kv        4096 tokens
        context   8192 tokens
        prompt    v1
        loaded    in 12.3 s
        ");
    }
}
