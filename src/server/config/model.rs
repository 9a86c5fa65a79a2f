//! Which model is meant: the folder that was named, the one that lies here, or the mini model that ships along.
//!
//! A folder that was named is never replaced by another. Whether a folder holds a model is for the engine to say.

use std::path::{Path, PathBuf};

use crate::{
    chat::info::PromptFormat,
    engine::{
        checkpoint,
        kv_type::KvType,
        load::{self, DeviceChoice},
        precision::Precision,
    },
    server::{
        cli::{ComputeArgs, Dtype, FormatChoice, KvChoice, ModelArgs},
        failure::Failure,
    },
};

/// The folder where the model lies if nobody says otherwise.
const DEFAULT_MODEL: &str = "XVERSE-13B-Chat";

/// The mini model's folder, from the project's root.
const MINI_MODEL: &str = "models/xverse-mini";

/// What is said where the mini model stands in for a model that is not there.
pub const STAND_IN: &str = "no --model_path was given and there is no ./XVERSE-13B-Chat: this is the mini model, which knows its training \
     dialogues and nothing else";

/// Where the model is and how it is to run.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelChoice {
    /// Folder with `config.json` and weights, or a GGUF file.
    pub model_path: PathBuf,
    /// Folder with `tokenizer.json`.
    pub tokenizer_path: PathBuf,
    /// Folder with a PEFT adapter.
    pub adapter_path: Option<PathBuf>,
    /// Which device.
    pub device: DeviceChoice,
    /// In which formats weights are held.
    pub precision: Precision,
    /// In which format keys and values are held; `None` for what suits the device.
    pub kv_type: Option<KvType>,
    /// `None` for what the vocabulary says.
    pub prompt_format: Option<PromptFormat>,
    /// Whether it is the mini model.
    pub is_mini: bool,
    /// Whether it is the mini model because no other was there.
    pub is_stand_in: bool,
}

/// Resolves the flags; `folder` is where the settings lie.
///
/// # Errors
/// [`Failure::Refused`] where there is no model.
pub fn resolve(args: &ModelArgs, folder: &Path) -> Result<ModelChoice, Failure> {
    let (model_path, is_stand_in) = match &args.model_path {
        Some(path) => (path.clone(), false),
        None if Path::new(DEFAULT_MODEL).is_dir() => (DEFAULT_MODEL.into(), false),
        None => (mini_model(folder)?, true),
    };
    Ok(ModelChoice {
        tokenizer_path: args.tokenizer_path.clone().unwrap_or_else(|| checkpoint::folder(&model_path).to_owned()),
        adapter_path: args.adapter_path.clone(),
        is_mini: load::is_mini(&model_path),
        model_path,
        device: device(args.compute),
        precision: precision(args.compute),
        kv_type: kv_type(args.kv_dtype),
        prompt_format: match args.prompt_format {
            None | Some(FormatChoice::Auto) => None,
            Some(FormatChoice::Is(format)) => Some(format),
        },
        is_stand_in,
    })
}

/// What is to compute.
#[must_use]
pub fn device(args: ComputeArgs) -> DeviceChoice {
    args.device.unwrap_or(DeviceChoice::Auto)
}

/// What weights are to be held in.
#[must_use]
pub fn precision(args: ComputeArgs) -> Precision {
    Precision {
        number_type: match args.dtype {
            None | Some(Dtype::Auto) => None,
            Some(Dtype::Is(number_type)) => Some(number_type),
        },
        quantize: args.quantize.unwrap_or_default(),
    }
}

/// What keys and values are to be held in; `None` for what suits the device.
#[must_use]
pub fn kv_type(choice: Option<KvChoice>) -> Option<KvType> {
    match choice {
        None | Some(KvChoice::Auto) => None,
        Some(KvChoice::Is(kv_type)) => Some(kv_type),
    }
}

fn mini_model(folder: &Path) -> Result<PathBuf, Failure> {
    let program = std::env::current_exe().ok();
    // target/release/xverse-chat lies two folders below the project's root.
    let around_program = program.iter().flat_map(|program| program.ancestors().skip(1).take(4));
    [Path::new("."), folder]
        .into_iter()
        .chain(around_program)
        .map(|root| root.join(MINI_MODEL))
        .find(|path| path.is_dir())
        .ok_or_else(|| {
            Failure::Refused(format!(
                "there is no folder ./{DEFAULT_MODEL} and no {MINI_MODEL}; expected a model\n\
                 hint: name the folder with the checkpoint: --model_path /path/to/XVERSE-13B-Chat"
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_folder_is_never_replaced() {
        let args = ModelArgs { model_path: Some("/no/such/folder".into()), ..ModelArgs::default() };
        let model = resolve(&args, Path::new(".")).unwrap();
        assert_eq!(model.model_path, Path::new("/no/such/folder"));
        assert_eq!(model.tokenizer_path, model.model_path);
        assert!(!model.is_mini && !model.is_stand_in);
    }

    #[test]
    fn the_mini_model_is_known_by_its_folder_however_it_was_named() {
        let args = ModelArgs { model_path: Some("/x/models/xverse-mini/".into()), ..ModelArgs::default() };
        let model = resolve(&args, Path::new(".")).unwrap();
        assert!(model.is_mini && !model.is_stand_in);
    }

    #[test]
    fn the_mini_model_stands_in_for_an_absent_one() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join(MINI_MODEL)).unwrap();
        let model = resolve(&ModelArgs::default(), folder.path()).unwrap();
        assert!(model.is_mini && model.is_stand_in);
    }
}
