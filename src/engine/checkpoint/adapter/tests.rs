//! Adapters of PEFT's give what PEFT merges, and others are refused by name.

use std::collections::BTreeSet;

use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};

use super::*;
use crate::engine::checkpoint::pickle;

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data/formats").join(name)
}

/// A file's tensors and where they are, without the checks that the program's reader makes.
fn safetensors_header(path: &Path) -> Header {
    let bytes = fs::read(path).unwrap();
    let (header_bytes, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let data_begin = (8 + header_bytes) as u64;
    let tensors = metadata.tensors().into_iter().map(|(name, info)| {
        let (begin, end) = (data_begin + info.data_offsets.0 as u64, data_begin + info.data_offsets.1 as u64);
        let dtype = match info.dtype {
            Dtype::F32 => StoredType::F32,
            Dtype::BF16 => StoredType::BF16,
            other => StoredType::Other(format!("{other:?}")),
        };
        StoredTensor { name, dtype, shape: info.shape.clone(), begin, end }
    });
    let tensors = tensors.collect();
    Header {
        path: path.to_owned(),
        file: "adapter".to_owned(),
        n_bytes: bytes.len() as u64,
        digest: [0; 32],
        metadata: BTreeMap::new(),
        tensors,
    }
}

/// Weights of a file by their names.
fn weights(path: &Path) -> BTreeMap<String, Vec<f32>> {
    let bytes = fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    tensors.iter().map(|(name, view)| (name.to_owned(), values(&StoredType::F32, view.data()))).collect()
}

/// The projections of the base model.
fn projections() -> Vec<(String, (usize, usize))> {
    let base = safetensors_header(&data("lora-base/model.safetensors"));
    let matrices = base.tensors.into_iter().filter(|tensor| tensor.shape.len() == 2 && !tensor.name.contains("embed"));
    matrices.map(|tensor| (tensor.name, (tensor.shape[0], tensor.shape[1]))).collect()
}

fn header(folder: &str) -> Header {
    match find(&data(folder)).unwrap() {
        AdapterFile::Safetensors(path) => safetensors_header(&path),
        AdapterFile::Pickle(path) => pickle::read_header(&path).unwrap(),
    }
}

fn adapter(folder: &str) -> Adapter {
    let config = AdapterConfig::read(&data(folder)).unwrap();
    Adapter::check(&config, header(folder), &projections()).unwrap()
}

fn config_with(change: &Value) -> Result<AdapterConfig, AdapterError> {
    let mut fields: Map<String, Value> =
        serde_json::from_slice(&fs::read(data("lora/adapter_config.json")).unwrap()).unwrap();
    fields.extend(change.as_object().unwrap().clone());
    AdapterConfig::from_json(&serde_json::to_vec(&fields).unwrap())
}

/// The error for the golden adapter with other settings, or with a changed list of tensors.
fn refused(change: &Value, mend: impl FnOnce(&mut Vec<StoredTensor>)) -> AdapterError {
    let mut header = header("lora");
    mend(&mut header.tensors);
    let checked = config_with(change).and_then(|config| Adapter::check(&config, header, &projections()));
    let error = checked.unwrap_err();
    assert!(error.to_string().contains("\nhint: "), "{error}");
    error
}

#[test]
fn merged_weights_are_those_that_peft_merges() {
    let base = weights(&data("lora-base/model.safetensors"));
    for (folder, merged) in [("lora", "lora"), ("lora-bin", "lora"), ("lora-patterns", "lora-patterns")] {
        let adapter = adapter(folder);
        let expected = weights(&data(merged).join("merged.safetensors"));
        let changed: BTreeSet<&str> = adapter.weights().collect();
        assert_eq!(changed, expected.keys().map(String::as_str).collect(), "{folder}");
        for (name, expected) in &expected {
            let delta = adapter.delta(name).unwrap().unwrap();
            let mut merged = base[name].clone();
            let n_rows = merged.len() / delta.n_in;
            let (upper, lower) = merged.split_at_mut(3 * delta.n_in);
            delta.add_to_rows(0..3, upper);
            delta.add_to_rows(3..n_rows, lower);
            let apart = merged.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart < 2e-6, "{folder} {name}: {apart}");
            let moved = merged.iter().zip(&base[name]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(moved > 0.05, "{folder} {name}: {moved}");
        }
        assert_eq!(adapter.delta("model.norm.weight").unwrap(), None);
    }
}

#[test]
fn the_rank_is_that_of_the_pattern_and_the_scale_follows_from_it() {
    let adapter = adapter("lora-patterns");
    let scale_and_rank = |name: &str| {
        let delta = adapter.delta(name).unwrap().unwrap();
        (delta.a.len() / delta.n_in, delta.scale)
    };
    assert_eq!(scale_and_rank("model.layers.1.self_attn.q_proj.weight"), (2, (6.0 / 2_f64.sqrt()) as f32));
    assert_eq!(scale_and_rank("model.layers.1.mlp.up_proj.weight"), (3, (6.0 / 3_f64.sqrt()) as f32));
    assert_eq!(scale_and_rank("model.layers.0.mlp.up_proj.weight"), (4, 3.0));
    assert_eq!(scale_and_rank("model.layers.0.self_attn.k_proj.weight"), (4, 16.0));
}

#[test]
fn settings_that_would_change_the_sum_are_refused_by_name() {
    for (field, value) in [
        ("peft_type", json!("LOHA")),
        ("bias", json!("all")),
        ("use_dora", json!(true)),
        ("fan_in_fan_out", json!(true)),
        ("lora_bias", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("trainable_token_indices", json!([1])),
        ("layer_replication", json!([[0, 2]])),
        ("init_lora_weights", json!("pissa_niter_4")),
        ("rank_pattern", json!({".*q_proj": 4})),
        ("rank_pattern", json!({"q_proj": 0})),
        ("alpha_pattern", json!({"q_proj": "a"})),
        ("r", json!(0)),
        ("r", json!(1_u64 << 63)),
        ("target_modules", json!(null)),
    ] {
        let error = refused(&json!({field: value}), |_| {});
        assert!(matches!(&error, AdapterError::Unsupported { field: named, .. } if named == field), "{field}: {error}");
    }
    let two = refused(&json!({"rank_pattern": {"q_proj": 4, "self_attn.q_proj": 8}}), |_| {});
    assert!(matches!(two, AdapterError::Ambiguous { field: "rank_pattern", .. }));
    for accepted in [
        json!({"init_lora_weights": "gaussian"}),
        json!({"modules_to_save": []}),
        json!({"target_modules": ".*\\.(q|v)_proj"}),
        json!({"rank_pattern": {"q_proj": 4, "self_attn.q_proj": 4, "proj": 9}}),
    ] {
        let checked = config_with(&accepted).and_then(|config| Adapter::check(&config, header("lora"), &projections()));
        assert!(checked.is_ok(), "{accepted}: {checked:?}");
    }
}

#[test]
fn an_adapter_for_another_shape_is_refused_by_the_tensor() {
    let wide: Vec<_> = projections().into_iter().map(|(name, (n_out, n_in))| (name, (n_out, 2 * n_in))).collect();
    let config = AdapterConfig::read(&data("lora")).unwrap();
    let error = Adapter::check(&config, header("lora"), &wide).unwrap_err();
    assert!(matches!(error, AdapterError::Shape { tensor, .. } if tensor.ends_with("q_proj.lora_A.weight")));
    let rank = refused(&json!({"r": 8}), |_| {});
    assert!(matches!(rank, AdapterError::Shape { found, expected, .. } if found[0] == 4 && expected[0] == 8));
    let mut deeper = projections();
    deeper.push(("model.layers.2.self_attn.q_proj.weight".to_owned(), (16, 16)));
    let error = Adapter::check(&config, header("lora"), &deeper).unwrap_err();
    assert!(matches!(error, AdapterError::Missing { tensor } if tensor.contains("layers.2.self_attn.q_proj.lora_A")));
    let shallower: Vec<_> = projections().into_iter().filter(|(name, _)| !name.contains("layers.1.")).collect();
    let error = Adapter::check(&config, header("lora"), &shallower).unwrap_err();
    assert!(matches!(error, AdapterError::NotATarget { module } if module.starts_with("model.layers.1.self_attn.")));
}

#[test]
fn tensors_that_are_missing_or_left_over_are_named() {
    let missing =
        refused(&json!({}), |tensors| tensors.retain(|tensor| !tensor.name.contains("1.self_attn.v_proj.lora_B")));
    assert!(
        matches!(missing, AdapterError::Missing { tensor } if tensor.ends_with("1.self_attn.v_proj.lora_B.weight"))
    );
    let whole = refused(&json!({}), |tensors| tensors.retain(|tensor| !tensor.name.contains("1.self_attn.v_proj")));
    assert!(matches!(whole, AdapterError::Missing { tensor } if tensor.ends_with("1.self_attn.v_proj.lora_A.weight")));
    let narrower = refused(&json!({"target_modules": ["q_proj"]}), |_| {});
    assert!(matches!(narrower, AdapterError::NotATarget { module } if module == "model.layers.0.self_attn.v_proj"));
    for name in [
        "base_model.model.model.embed_tokens.lora_embedding_A",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector",
        "base_model.model.lm_head.weight",
        "model.layers.0.self_attn.q_proj.lora_A.weight",
    ] {
        let error = refused(&json!({}), |tensors| tensors[0].name = name.to_owned());
        assert!(matches!(error, AdapterError::UnknownTensor { tensor } if tensor == name));
    }
    let twice = refused(&json!({}), |tensors| tensors.push(tensors[0].clone()));
    assert!(matches!(twice, AdapterError::Duplicate { .. }));
    let integers = refused(&json!({}), |tensors| tensors[0].dtype = StoredType::I32);
    assert!(matches!(integers, AdapterError::NumberType { found: StoredType::I32, .. }));
    let none = refused(&json!({"target_modules": ["none"]}), Vec::clear);
    assert!(matches!(none, AdapterError::Empty { .. }));
}

#[test]
fn the_models_own_matrix_may_be_saved_beside_what_is_added_to_it() {
    let (shape, config) = (projections()[0].1, AdapterConfig::read(&data("lora")).unwrap());
    let with_base = |module: &str, sizes: [usize; 2]| {
        let mut header = header("lora");
        let mut base = header.tensors[0].clone();
        base.name = format!("{PREFIX}{module}{BASE}");
        base.shape = sizes.to_vec();
        header.tensors.push(base);
        Adapter::check(&config, header, &projections())
    };
    let (name, (n_out, n_in)) =
        projections().into_iter().find(|(name, _)| name.contains("0.self_attn.q_proj")).unwrap();
    let module = name.strip_suffix(".weight").unwrap();
    assert_eq!(with_base(module, [n_out, n_in]).unwrap().bases.keys().collect::<Vec<_>>(), [&name]);
    let error = with_base(module, [n_out + 1, n_in]).unwrap_err();
    assert!(matches!(error, AdapterError::Shape { tensor, .. } if tensor.ends_with("q_proj.base_layer.weight")));
    let error = with_base("model.layers.0.self_attn.none", [shape.0, shape.1]).unwrap_err();
    assert!(matches!(error, AdapterError::UnknownTensor { .. }), "{error}");
}

#[test]
fn numbers_that_are_not_finite_are_refused_when_they_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("adapter_model.safetensors");
    fs::copy(data("lora/adapter_model.safetensors"), &path).unwrap();
    let header = safetensors_header(&path);
    let tensor = header.tensors.iter().find(|tensor| tensor.name.contains("0.self_attn.q_proj.lora_B")).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&f32::NAN.to_le_bytes(), tensor.begin).unwrap();
    let config = AdapterConfig::read(&data("lora")).unwrap();
    let adapter = Adapter::check(&config, safetensors_header(&path), &projections()).unwrap();
    let error = adapter.delta("model.layers.0.self_attn.q_proj.weight").unwrap_err();
    assert!(matches!(error, AdapterError::NotFinite { tensor } if tensor.contains("q_proj.lora_B")));
    assert!(adapter.delta("model.layers.1.self_attn.q_proj.weight").is_ok());
}

#[test]
fn folders_without_an_adapter_are_told() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(AdapterConfig::read(dir.path()), Err(AdapterError::NoConfig { .. })));
    assert!(matches!(find(dir.path()), Err(AdapterError::NoWeights { .. })));
    fs::write(dir.path().join("adapter_config.json"), "[]").unwrap();
    assert!(matches!(AdapterConfig::read(dir.path()), Err(AdapterError::Broken { .. })));
    fs::write(dir.path().join("adapter_config.json"), vec![b' '; (1 << 20) + 1]).unwrap();
    assert!(matches!(AdapterConfig::read(dir.path()), Err(AdapterError::TooLarge { .. })));
}
