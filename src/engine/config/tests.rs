//! What `config.json` may say and what is said back.

use serde_json::{Value, json};

use super::*;

/// Of the shape of XVERSE-13B-2-Chat.
fn xverse() -> Value {
    json!({
        "architectures": ["XverseForCausalLM"],
        "auto_map": {"AutoConfig": "configuration_xverse.XverseConfig"},
        "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3,
        "hidden_act": "silu", "hidden_size": 5120, "initializer_range": 0.02, "intermediate_size": 13824,
        "max_position_embeddings": 8192, "max_tokenizer_truncation": 6144, "model_type": "xverse",
        "num_attention_heads": 40, "num_hidden_layers": 40, "rms_norm_eps": 1e-6,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_cache": true, "vocab_size": 100_534
    })
}

fn with(changes: &Value) -> Result<ModelConfig, ConfigError> {
    let mut config = xverse();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    ModelConfig::from_json(config.to_string().as_bytes())
}

fn without(field: &str) -> Result<ModelConfig, ConfigError> {
    let mut config = xverse();
    config.as_object_mut().unwrap().remove(field);
    ModelConfig::from_json(config.to_string().as_bytes())
}

#[test]
fn xverse_13b_is_read_with_the_defaults_of_its_architecture() {
    let config = with(&json!({})).unwrap();
    assert_eq!((config.hidden_size, config.head_dim, config.num_key_value_heads), (5120, 128, 40));
    assert_eq!((config.rope_theta, config.rms_norm_eps), (10_000.0, 1e-6));
    assert_eq!((config.pad_token_id, config.bos_token_id, config.eos_token_id), (1, 2, 3));
    assert_eq!(config.max_tokenizer_truncation, Some(6144));
    assert!(!config.tie_word_embeddings);
}

#[test]
fn an_absent_or_null_field_takes_its_default() {
    assert_eq!(without("max_tokenizer_truncation").unwrap().max_tokenizer_truncation, None);
    assert_eq!(without("rms_norm_eps").unwrap().rms_norm_eps, 1e-6);
    assert_eq!(without("eos_token_id").unwrap().eos_token_id, 3);
    assert_eq!(with(&json!({"pad_token_id": null, "rope_scaling": null})).unwrap().pad_token_id, 1);
    assert!(without("model_type").is_ok() && without("architectures").is_ok());
}

#[test]
fn what_the_file_says_is_taken() {
    let config = with(&json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_key_value_heads": 8, "rope_theta": 500_000,
        "eos_token_id": 7, "tie_word_embeddings": true, "head_dim": 128
    }))
    .unwrap();
    assert_eq!((config.num_key_value_heads, config.rope_theta, config.eos_token_id), (8, 500_000.0, 7));
    assert!(config.tie_word_embeddings);
    let nested = with(&json!({"rope_parameters": {"rope_type": "default", "rope_theta": 20_000.0}})).unwrap();
    assert_eq!(nested.rope_theta, 20_000.0);
}

#[test]
fn a_missing_field_is_named() {
    for field in [
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "vocab_size",
        "max_position_embeddings",
    ] {
        let error = without(field).unwrap_err();
        assert!(matches!(&error, ConfigError::MissingField { field: found } if *found == field), "{error}");
    }
}

#[test]
fn a_size_out_of_bounds_is_named_with_value_and_bounds() {
    for (field, value) in [
        ("hidden_size", json!(0)),
        ("hidden_size", json!(1_000_000)),
        ("num_hidden_layers", json!(0)),
        ("num_hidden_layers", json!(1_000_000_000)),
        ("num_hidden_layers", json!(u64::MAX)),
        ("num_attention_heads", json!(0)),
        ("num_attention_heads", json!(-1)),
        ("num_key_value_heads", json!(0)),
        ("intermediate_size", json!(0)),
        ("vocab_size", json!(0)),
        ("vocab_size", json!(2_000_001)),
        ("max_position_embeddings", json!(1)),
        ("max_position_embeddings", json!(2_000_000)),
        ("max_tokenizer_truncation", json!(0)),
        ("rms_norm_eps", json!(0.0)),
        ("rms_norm_eps", json!(-1e-6)),
        ("rope_theta", json!(0)),
        ("eos_token_id", json!(100_534)),
        ("eos_token_id", json!([3, 100_534])),
        ("pad_token_id", json!(-2)),
    ] {
        let error = with(&json!({field: value})).unwrap_err();
        assert!(matches!(&error, ConfigError::OutOfRange { field: found, .. } if *found == field), "{error}");
        assert!(error.to_string().contains(&value.to_string()), "{error}");
    }
}

#[test]
fn a_value_of_another_kind_is_named() {
    for (field, value) in [
        ("hidden_size", json!("5120")),
        ("hidden_size", json!(5120.5)),
        ("rms_norm_eps", json!("small")),
        ("tie_word_embeddings", json!(1)),
        ("architectures", json!("XverseForCausalLM")),
        ("model_type", json!(["xverse"])),
        ("eos_token_id", json!([3, "4"])),
        ("pad_token_id", json!("1")),
        ("rope_parameters", json!(1)),
    ] {
        let error = with(&json!({field: value})).unwrap_err();
        assert!(matches!(&error, ConfigError::WrongType { field: found, .. } if *found == field), "{error}");
    }
}

#[test]
fn heads_must_fit_the_width() {
    let error = with(&json!({"num_attention_heads": 41})).unwrap_err();
    assert!(matches!(error, ConfigError::NotAMultiple { field: "hidden_size", found: 5120, divisor: 41, .. }));
    let error = with(&json!({"num_key_value_heads": 7})).unwrap_err();
    assert!(matches!(error, ConfigError::NotAMultiple { field: "num_attention_heads", found: 40, divisor: 7, .. }));
    let error = with(&json!({"hidden_size": 120, "num_attention_heads": 40})).unwrap_err();
    assert!(matches!(error, ConfigError::OddHeadDim { found: 3 }));
    let error = with(&json!({"head_dim": 64})).unwrap_err();
    assert!(matches!(error, ConfigError::HeadDim { found: 64, expected: 128 }));
}

#[test]
fn scaled_positions_are_refused_with_a_hint() {
    for changes in [
        json!({"rope_scaling": {"type": "linear", "factor": 2.0}}),
        json!({"rope_scaling": {"type": "never heard of"}}),
        json!({"rope_parameters": {"rope_type": "yarn", "rope_theta": 10_000.0}}),
        json!({"rope_parameters": {"rope_theta": 10_000.0, "partial_rotary_factor": 0.5}}),
        json!({"rope_parameters": {"rope_type": "dynamic", "type": "linear", "factor": 2.0}}),
        json!({"rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24]}}),
        json!({"rope_scaling": {"factor": 2.0}}),
        json!({"rope_scaling": {"type": "dynamic", "factor": 2.0, "alpha": 1000.0}}),
        json!({"rope_scaling": {"type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 4096}}),
    ] {
        let error = with(&changes).unwrap_err();
        assert!(matches!(error, ConfigError::RopeScaling { .. }), "{error}");
        assert!(error.to_string().contains("\nhint: "), "{error}");
    }
}

#[test]
fn plain_positions_are_taken_as_older_and_newer_tools_write_them() {
    for changes in [
        json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
        json!({"rope_scaling": {"type": "default"}}),
        json!({"rope_scaling": {"type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 8192}}),
        json!({"rope_parameters": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic", "rope_theta": 10_000.0}}),
        json!({"rope_parameters": {"type": "default", "rope_type": "default", "rope_theta": 10_000.0}}),
        json!({"rope_parameters": {"rope_theta": 10_000.0, "partial_rotary_factor": 1.0}}),
        json!({"rope_parameters": {"rope_theta": 10_000.0}}),
    ] {
        let config = with(&changes).unwrap_or_else(|error| panic!("{changes}: {error}"));
        assert_eq!(config.rope_theta, 10_000.0, "{changes}");
    }
}

#[test]
fn several_end_ids_are_taken_and_minus_one_is_none() {
    let ends = |value: Value| {
        let config = with(&json!({"eos_token_id": value})).unwrap();
        (config.eos_token_id, config.other_end_ids)
    };
    assert_eq!(ends(json!(7)), (7, Vec::new()));
    assert_eq!(ends(json!([3, 1])), (3, vec![1]));
    assert_eq!(ends(json!([])), (3, Vec::new()));
    let padless = with(&json!({"pad_token_id": -1})).unwrap();
    assert_eq!(padless.pad_token_id, 1);
}

#[test]
fn a_mark_before_the_text_is_no_part_of_it() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), format!("\u{feff}{}", xverse())).unwrap();
    assert_eq!(ModelConfig::read(dir.path()).unwrap().num_hidden_layers, 40);
}

#[test]
fn a_git_lfs_pointer_and_a_web_page_are_named_with_what_fetches_the_file() {
    let dir = tempfile::tempdir().unwrap();
    for (content, words) in [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", ["Git LFS pointer", "`git lfs pull`"]),
        ("<!DOCTYPE html>\n<html>", ["web page", "download the file itself"]),
    ] {
        fs::write(dir.path().join("config.json"), content).unwrap();
        let said = ModelConfig::read(dir.path()).unwrap_err().to_string();
        assert!(words.iter().all(|word| said.contains(word)) && said.matches("hint: ").count() == 1, "{said}");
    }
}

#[test]
fn a_mixture_of_experts_is_refused_whatever_its_architecture_says() {
    for field in EXPERT_FIELDS {
        let error = with(&json!({field: 64})).unwrap_err();
        assert!(matches!(&error, ConfigError::MixtureOfExperts { field: found, .. } if *found == field), "{error}");
    }
    assert!(with(&json!({"num_experts": 0, "moe_top_k": null})).is_ok());
}

#[test]
fn quantised_weights_are_refused() {
    for changes in [
        json!({"quantization_config": {"bits": 4, "quant_method": "awq"}}),
        json!({"quantization_config": {"bits": 4}}),
        json!({"quantization_bit": 8}),
    ] {
        assert!(matches!(with(&changes).unwrap_err(), ConfigError::Quantized { .. }));
    }
    assert!(with(&json!({"quantization_config": {"bits": 4, "quant_method": "gptq"}})).is_ok());
}

#[test]
fn a_long_context_says_how_its_positions_turn_or_is_refused() {
    let error = with(&json!({"max_position_embeddings": 262_144})).unwrap_err();
    assert!(matches!(error, ConfigError::RopeUnstated { found: 262_144 }), "{error}");
    assert!(error.to_string().contains("256K") && error.to_string().contains("\nhint: "), "{error}");
    let stated = json!({"max_position_embeddings": 262_144, "rope_theta": 500_000, "rope_scaling": {"type": "dynamic", "factor": 2.0}});
    assert_eq!(with(&stated).unwrap().rope_theta, 500_000.0);
    assert!(with(&json!({"max_position_embeddings": 16_384})).is_ok());
}

#[test]
fn other_architectures_are_refused() {
    for (changes, name) in [
        (json!({"architectures": ["Qwen2ForCausalLM"]}), "architectures"),
        (json!({"architectures": []}), "architectures"),
        (json!({"architectures": null, "model_type": null}), "architectures"),
        (json!({"model_type": "qwen2"}), "model_type"),
    ] {
        let error = with(&changes).unwrap_err();
        assert!(matches!(&error, ConfigError::Architecture { field, .. } if *field == name), "{error}");
    }
}

#[test]
fn another_activation_and_biases_are_refused() {
    assert!(matches!(with(&json!({"hidden_act": "gelu"})).unwrap_err(), ConfigError::Activation { .. }));
    for name in ["attention_bias", "mlp_bias"] {
        assert!(with(&json!({name: false})).is_ok());
        let error = with(&json!({name: true})).unwrap_err();
        assert!(matches!(error, ConfigError::Bias { field } if field == name));
    }
}

#[test]
fn folders_and_files_that_are_not_there_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let error = ModelConfig::read(&dir.path().join("nowhere")).unwrap_err();
    assert!(matches!(error, ConfigError::MissingFolder { .. }), "{error}");
    let error = ModelConfig::read(dir.path()).unwrap_err();
    assert!(matches!(error, ConfigError::MissingFile { .. }), "{error}");
    let file = dir.path().join("config.json");
    fs::write(&file, "{}").unwrap();
    let error = ModelConfig::read(&file).unwrap_err();
    assert!(matches!(error, ConfigError::NotAFolder { .. }), "{error}");
    fs::write(&file, xverse().to_string()).unwrap();
    assert_eq!(ModelConfig::read(dir.path()).unwrap().num_hidden_layers, 40);
}

#[test]
fn a_config_that_is_a_folder_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("config.json")).unwrap();
    assert!(matches!(ModelConfig::read(dir.path()).unwrap_err(), ConfigError::Unreadable { .. }));
}

#[test]
fn broken_json_is_reported_with_its_line() {
    for (text, line) in [("{\n  \"hidden_size\": 5120,\n  oops\n}", "line 3"), ("", "line 1"), ("[1]", "line 1")] {
        let error = ModelConfig::from_json(text.as_bytes()).unwrap_err();
        assert!(matches!(error, ConfigError::BrokenJson { .. }));
        assert!(error.to_string().contains(line), "{error}");
    }
}

#[test]
fn a_file_of_absurd_size_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    fs::File::create(dir.path().join("config.json")).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
    assert!(matches!(ModelConfig::read(dir.path()).unwrap_err(), ConfigError::TooLarge { .. }));
}
