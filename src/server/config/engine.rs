//! How the model is loaded and run: what the server and the terminal have in common.
//!
//! Knows no network. A flag wins over the environment, and that over the file.

use std::path::Path;

use super::{MOST, SETTINGS, at_least_one, bounded, data_dir, environment, file::FileConfig, folder_of, model};
use crate::{
    engine::{backend::cuda::CudaSettings, copies, load::LoadOptions, room::KvSize, worker::EngineOptions},
    server::{cli::ServeArgs, failure::Failure},
};

/// What a model is loaded and run with.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// What to load.
    pub load: LoadOptions,
    /// Pace and bounds of the engine.
    pub engine: EngineOptions,
    /// Whether the mini model stands in for an absent model.
    pub is_stand_in: bool,
}

impl EngineConfig {
    /// Resolves those flags that are not of the server. The settings need not be there unless they are named.
    ///
    /// # Errors
    /// [`Failure::Refused`] where something is missing or does not fit.
    pub fn without_server(flags: ServeArgs, environment: ServeArgs) -> Result<Self, Failure> {
        let args = environment::first_of(flags, environment);
        let (path, is_named) = args.config.clone().map_or_else(|| (SETTINGS.into(), false), |path| (path, true));
        let file = if is_named || path.exists() { FileConfig::read(&path)? } else { FileConfig::default() };
        let folder = folder_of(&path);
        // Only copies of quantised weights are looked for there.
        let data_dir = data_dir(args.data_dir.clone(), file.storage.data_dir.clone(), folder).ok();
        Self::of(&args, &file, folder, data_dir.as_deref())
    }

    /// What flags and the settings in `folder` come to.
    pub(super) fn of(
        args: &ServeArgs,
        file: &FileConfig,
        folder: &Path,
        data_dir: Option<&Path>,
    ) -> Result<Self, Failure> {
        let model = model::resolve(&args.model, folder)?;
        let keeps_copies = file.storage.quantized_copies.unwrap_or(true);
        let load = LoadOptions {
            model_path: model.model_path,
            tokenizer_path: model.tokenizer_path,
            adapter_path: model.adapter_path,
            device: model.device,
            prompt_format: model.prompt_format,
            precision: model.precision,
            kv_type: model.kv_type,
            kv_size: args.kv_memory.map_or(KvSize::Auto, KvSize::Gib),
            threads: file.engine.threads.map(|threads| at_least_one("threads", Some(threads), 1)).transpose()?,
            cuda: cuda(file),
            is_mini: model.is_mini,
            copies: data_dir.filter(|_| keeps_copies).map(copies::folder),
        };
        Ok(Self { load, engine: options(args, file)?, is_stand_in: model.is_stand_in })
    }
}

/// Pace and bounds of the engine.
///
/// # Errors
/// [`Failure::Refused`] where something does not fit.
pub(super) fn options(args: &ServeArgs, file: &FileConfig) -> Result<EngineOptions, Failure> {
    let max_running = args.max_running.or(file.limits.max_running);
    let max_waiting = args.max_waiting.or(file.limits.max_waiting);
    let prefill_chunk = file.engine.prefill_chunk;
    Ok(EngineOptions {
        max_running: at_least_one("max_running", max_running, 32)? as usize,
        max_waiting: bounded("max_waiting", max_waiting, 64, 0..=MOST)? as usize,
        prefill_chunk: prefill_chunk.map(|chunk| at_least_one("prefill_chunk", Some(chunk), chunk)).transpose()?,
        min_step_ms: bounded("min_step_ms", file.engine.min_step_ms, 0, 0..=MOST)?,
        ..EngineOptions::default()
    })
}

fn cuda(file: &FileConfig) -> CudaSettings {
    let engine = &file.engine;
    CudaSettings {
        graphs: engine.cuda_graphs.unwrap_or(true),
        sampler: engine.cuda_sampler.unwrap_or(true),
        probabilities: engine.cuda_probabilities.unwrap_or(true),
        ahead: engine.cuda_ahead.unwrap_or(true),
        cublas: engine.cuda_cublas.unwrap_or(true),
        fast_products: engine.cuda_products.unwrap_or(true),
        fast_attention: engine.cuda_attention.unwrap_or(true),
        ..CudaSettings::default()
    }
}
