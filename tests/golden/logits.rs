//! Both backends, loaded from checkpoint folders, against transformers.

use xverse_chat::engine::{
    backend::cuda::CudaSettings,
    kv_type::KvType,
    load::{DeviceChoice, LoadOptions, Loaded, load},
    precision::Precision,
    room::KvSize,
};

use super::{
    driver::Driver,
    files::{self, GoldenModel},
    judge::judge,
};
use crate::support::tiny_checkpoint::tiny_checkpoint;

/// Writes the model's checkpoint and loads it as the server does.
pub fn loaded(model: &GoldenModel, device: DeviceChoice) -> Loaded {
    let dir = tempfile::tempdir().unwrap();
    tiny_checkpoint(dir.path(), &model.spec());
    let options = LoadOptions {
        model_path: dir.path().to_owned(),
        tokenizer_path: dir.path().to_owned(),
        adapter_path: None,
        device,
        prompt_format: None,
        precision: Precision::default(),
        // What is rounded when it is kept differs from what is not.
        kv_type: Some(KvType::F32),
        kv_size: KvSize::Auto,
        cuda: CudaSettings::default(),
        threads: Some(2),
        copies: None,
        is_mini: false,
    };
    // Weights outlive their folder: an unlinked file stays until it is closed.
    load(&options).unwrap_or_else(|error| panic!("{}: {error}", model.name))
}

fn agrees_with_transformers(device: DeviceChoice) {
    for model in files::models() {
        let mut driver = Driver::new(loaded(&model, device).backend);
        let verdict = judge(&mut driver, &model);
        println!("{device:?} {}: {verdict:?}", model.name);
        assert!(verdict.agrees(), "{device:?}, {}: {verdict:?}", model.name);
    }
}

#[test]
fn the_cpu_backend_agrees_with_transformers() {
    agrees_with_transformers(DeviceChoice::Cpu);
}

#[test]
fn the_reference_backend_agrees_with_transformers() {
    agrees_with_transformers(DeviceChoice::Reference);
}
