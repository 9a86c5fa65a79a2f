//! Packed integers come out as the numbers that were packed in Python, exactly where blocks are promised.

use std::{collections::HashMap, fs, path::PathBuf};

use safetensors::SafeTensors;
use serde_json::{Value, json};

use super::*;

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data/formats/gptq").join(name)
}

/// What no block can say.
const SINGLE: Format = Format::Dense(NumberType::F32);
const N_OUT: usize = 16;
const N_IN: usize = 64;

/// A projection of the golden file, which can be changed.
struct Case {
    name: String,
    config: GptqConfig,
    /// Tensors and bytes by the ends of their names.
    parts: HashMap<&'static str, (StoredTensor, Vec<u8>)>,
    expected: Vec<f32>,
}

fn config(change: &Value) -> Result<GptqConfig, GptqError> {
    let mut fields = json!({"bits": 4, "group_size": 32, "desc_act": false, "sym": true, "quant_method": "gptq"});
    fields.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    GptqConfig::from_value(&fields, "quantize_config.json")
}

impl Case {
    fn new(name: &str, change: &Value) -> Self {
        let file = fs::read(data("cases.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&file).unwrap();
        let tensor = |part: &str| tensors.tensor(&format!("{name}.{part}")).unwrap();
        let parts = ["qweight", "qzeros", "scales", "g_idx"].map(|part| {
            let view = tensor(part);
            let dtype = if part == "scales" { StoredType::F16 } else { StoredType::I32 };
            let end = view.data().len() as u64;
            let stored = StoredTensor { name: part.to_owned(), dtype, shape: view.shape().to_vec(), begin: 0, end };
            (part, (stored, view.data().to_vec()))
        });
        let expected = tensor("expected").data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Self { name: name.to_owned(), config: config(change).unwrap(), parts: parts.into(), expected }
    }

    fn sizes(&self) -> Result<Sizes, GptqError> {
        let part = |part: &str| &self.parts[part].0;
        let parts = Parts {
            qweight: part("qweight"),
            qzeros: part("qzeros"),
            scales: part("scales"),
            g_idx: self.parts.get("g_idx").map(|(tensor, _)| tensor),
        };
        check(&self.config, &self.name, &parts, (N_OUT, N_IN))
    }

    fn quantized(&self) -> Result<Quantized, GptqError> {
        let part = |part: &str| self.parts[part].1.clone();
        let bytes = PartBytes {
            qweight: part("qweight"),
            qzeros: part("qzeros"),
            scales: part("scales"),
            g_idx: self.parts.get("g_idx").map(|(_, bytes)| bytes.clone()),
        };
        Quantized::new(&self.name, self.sizes()?, bytes)
    }

    fn bytes_mut(&mut self, part: &str) -> &mut Vec<u8> {
        &mut self.parts.get_mut(part).unwrap().1
    }
}

/// What ggml reads in blocks.
fn dequantized(block: BlockFormat, bytes: &[u8]) -> Vec<f32> {
    let mut numbers = Vec::new();
    for block_bytes in bytes.chunks(block.block_bytes()) {
        let scale = f16::from_le_bytes([block_bytes[0], block_bytes[1]]).to_f32();
        let body = &block_bytes[2..];
        if block == BlockFormat::Q8_0 {
            numbers.extend(body.iter().map(|&byte| f32::from(byte.cast_signed()) * scale));
        } else {
            let integers = body.iter().map(|byte| byte & 15).chain(body.iter().map(|byte| byte >> 4));
            numbers.extend(integers.map(|integer| (f32::from(integer) - 8.0) * scale));
        }
    }
    numbers
}

fn comes_out_as(name: &str, change: &Value, format: Format) {
    let case = Case::new(name, change);
    let quantized = case.quantized().unwrap();
    assert_eq!(quantized.format(), format, "{name}");
    let row_bytes = format.n_bytes(N_IN as u64) as usize;
    let meant = |rows: Range<usize>| {
        let mut bytes = vec![0; rows.len() * row_bytes];
        quantized.read(rows, &mut bytes);
        match format {
            Format::Blocks(block) => dequantized(block, &bytes),
            Format::Dense(_) => bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        }
    };
    assert_eq!(meant(0..N_OUT), case.expected, "{name}");
    assert_eq!(meant(5..8), case.expected[5 * N_IN..8 * N_IN], "{name}");
}

#[test]
fn symmetric_groups_in_order_become_blocks_of_the_same_values() {
    comes_out_as("four_symmetric", &json!({}), Format::Blocks(BlockFormat::Q4_0));
    comes_out_as("eight_symmetric", &json!({"bits": 8}), Format::Blocks(BlockFormat::Q8_0));
    comes_out_as("eight_one_group", &json!({"bits": 8, "group_size": -1}), Format::Blocks(BlockFormat::Q8_0));
    let plain = json!({"group_size": 64, "checkpoint_format": "gptq_v2"});
    comes_out_as("four_plain_zeros", &plain, Format::Blocks(BlockFormat::Q4_0));
}

#[test]
fn what_blocks_cannot_say_comes_out_in_f32() {
    comes_out_as("four_shifted", &json!({"sym": false}), SINGLE);
    comes_out_as("eight_shifted", &json!({"sym": false, "bits": 8}), SINGLE);
    comes_out_as("four_shuffled", &json!({"desc_act": true}), SINGLE);
    comes_out_as("four_small_groups", &json!({"group_size": 16}), SINGLE);
}

#[test]
fn scales_that_f16_cannot_hold_come_out_in_f32() {
    let mut case = Case::new("four_symmetric", &json!({}));
    let scales = case.parts.get_mut("scales").unwrap();
    scales.0.dtype = StoredType::BF16;
    // As bf16 these bits are 2^-60, and in f16 nothing.
    scales.1 = [0x80, 0x21].repeat(scales.1.len() / 2);
    let quantized = case.quantized().unwrap();
    assert_eq!(quantized.format(), SINGLE);
    let mut row = vec![0; 4 * N_IN];
    quantized.read(0..1, &mut row);
    assert!(row.as_chunks().0.iter().any(|value| f32::from_le_bytes(*value) != 0.0));
}

#[test]
fn groups_without_an_index_are_in_order() {
    let mut case = Case::new("four_symmetric", &json!({}));
    case.parts.remove("g_idx");
    assert_eq!(case.quantized().unwrap().format(), Format::Blocks(BlockFormat::Q4_0));
}

#[test]
fn scales_that_are_no_numbers_and_groups_that_do_not_exist_are_refused() {
    for bad in [f16::NAN, f16::INFINITY, f16::NEG_INFINITY] {
        let mut case = Case::new("four_symmetric", &json!({}));
        case.bytes_mut("scales")[2 * (N_OUT + 3)..][..2].copy_from_slice(&bad.to_le_bytes());
        let error = case.quantized().unwrap_err();
        assert!(matches!(error, GptqError::Scale { group: 1, output: 3, .. }), "{error}");
    }
    for bad in [-1_i32, 2, i32::MAX] {
        let mut case = Case::new("four_symmetric", &json!({}));
        case.bytes_mut("g_idx")[4..8].copy_from_slice(&bad.to_le_bytes());
        let error = case.quantized().unwrap_err();
        assert!(matches!(error, GptqError::Group { input: 1, n_groups: 2, .. }), "{error}");
    }
    let mut case = Case::new("four_symmetric", &json!({}));
    case.bytes_mut("qweight").pop();
    assert!(matches!(case.quantized(), Err(GptqError::Bytes { part: "qweight", .. })));
}

#[test]
fn shapes_and_types_must_follow_from_the_configuration() {
    for part in ["qweight", "qzeros", "scales", "g_idx"] {
        let mut case = Case::new("four_symmetric", &json!({}));
        case.parts.get_mut(part).unwrap().0.shape[0] += 1;
        assert!(matches!(case.sizes(), Err(GptqError::Shape { tensor, .. }) if tensor == part));
        let mut case = Case::new("four_symmetric", &json!({}));
        case.parts.get_mut(part).unwrap().0.dtype = StoredType::Other("I64".to_owned());
        assert!(matches!(case.sizes(), Err(GptqError::NumberType { tensor, .. }) if tensor == part));
    }
    assert!(matches!(Case::new("four_symmetric", &json!({"bits": 8})).sizes(), Err(GptqError::Shape { .. })));
    assert!(matches!(Case::new("four_symmetric", &json!({"group_size": 64})).sizes(), Err(GptqError::Shape { .. })));
    let case = Case::new("four_symmetric", &json!({}));
    let tensor = &case.parts["qweight"].0;
    let parts = Parts { qweight: tensor, qzeros: tensor, scales: tensor, g_idx: None };
    assert!(matches!(check(&case.config, "a", &parts, (N_OUT, 60)), Err(GptqError::Width { found: 60, .. })));
    assert!(matches!(check(&case.config, "a", &parts, (0, N_IN)), Err(GptqError::Width { found: 0, .. })));
}

#[test]
fn the_configuration_is_found_in_either_file() {
    let both = GptqConfig::read(&data("")).unwrap().unwrap();
    assert_eq!((both.bits(), both.group_size(), both.zero_point()), (4, Some(32), ZeroPoint::LessOne));
    assert!(both.is_symmetric() && !both.is_act_ordered());
    let other = config(&json!({"checkpoint_format": "gptq_v2"})).unwrap();
    assert_ne!(other.as_file(), config(&json!({})).unwrap().as_file(), "copies are told apart by it");
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(GptqConfig::read(dir.path()).unwrap(), None);
    fs::copy(data("config.json"), dir.path().join("config.json")).unwrap();
    assert_eq!(GptqConfig::read(dir.path()).unwrap(), Some(both));
    fs::write(dir.path().join("config.json"), "{}").unwrap();
    assert_eq!(GptqConfig::read(dir.path()).unwrap(), None);
    fs::write(dir.path().join("config.json"), "{").unwrap();
    assert!(matches!(GptqConfig::read(dir.path()), Err(GptqError::Broken { .. })));
    fs::write(dir.path().join("quantize_config.json"), vec![b' '; (1 << 20) + 1]).unwrap();
    assert!(matches!(GptqConfig::read(dir.path()), Err(GptqError::TooLarge { .. })));
}

#[test]
fn settings_that_are_not_read_are_refused() {
    for (field, value) in [
        ("bits", json!(3)),
        ("bits", json!(null)),
        ("group_size", json!(0)),
        ("group_size", json!(-2)),
        ("group_size", json!(i64::MAX)),
        ("quant_method", json!("awq")),
        ("checkpoint_format", json!("marlin")),
        ("is_marlin_format", json!(true)),
        ("pack_dtype", json!("int16")),
        ("dynamic", json!({"+:down_proj": {"bits": 8}})),
    ] {
        let error = config(&json!({field: value})).unwrap_err();
        assert!(matches!(&error, GptqError::Unsupported { field: named, .. } if *named == field), "{error}");
    }
    let other = GptqConfig::from_value(&json!({"quant_method": "bitsandbytes", "load_in_8bit": true}), "config.json");
    assert!(matches!(other, Err(GptqError::Unsupported { field: "quant_method", .. })));
}
