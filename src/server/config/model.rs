//! Which model is meant: the folder that was named, the one that lies here, or the mini model that ships along.
//!
//! A folder that was named is never replaced by another. Whether a folder holds a model is for the engine to say.

use std::path::{Path, PathBuf};

use crate::{
    chat::info::PromptFormat,
    engine::load::DeviceChoice,
    server::{
        cli::{Dtype, FormatChoice, ModelArgs, Quantize},
        failure::Failure,
    },
};

/// The folder where the model lies if nobody says otherwise.
const DEFAULT_MODEL: &str = "XVERSE-13B-Chat";

/// The mini model's folder, from the project's root.
const MINI_MODEL: &str = "models/xverse-mini";

/// Where the model is and how it is to run.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelChoice {
    /// Folder with `config.json` and weights.
    pub model_path: PathBuf,
    /// Folder with `tokenizer.json`.
    pub tokenizer_path: PathBuf,
    /// Which device.
    pub device: DeviceChoice,
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
/// [`Failure::Refused`] where a flag asks for what this build cannot do, or there is no model.
pub fn resolve(args: &ModelArgs, folder: &Path) -> Result<ModelChoice, Failure> {
    refuse_formats(args.dtype, args.quantize)?;
    let (model_path, is_stand_in) = match &args.model_path {
        Some(path) => (path.clone(), false),
        None if Path::new(DEFAULT_MODEL).is_dir() => (DEFAULT_MODEL.into(), false),
        None => (mini_model(folder)?, true),
    };
    Ok(ModelChoice {
        tokenizer_path: args.tokenizer_path.clone().unwrap_or_else(|| model_path.clone()),
        is_mini: Path::new(MINI_MODEL).file_name() == model_path.file_name(),
        model_path,
        device: args.device.unwrap_or(DeviceChoice::Auto),
        prompt_format: match args.prompt_format {
            None | Some(FormatChoice::Auto) => None,
            Some(FormatChoice::Is(format)) => Some(format),
        },
        is_stand_in,
    })
}

/// Refuses the formats of weights that this build does not have.
///
/// # Errors
/// [`Failure::Refused`].
pub fn refuse_formats(dtype: Option<Dtype>, quantize: Option<Quantize>) -> Result<(), Failure> {
    let refused = |found: &str, expected: &str| {
        Err(Failure::Refused(format!(
            "{found} is not something that this build can do; expected {expected}\n\
             hint: leave the flag out"
        )))
    };
    match dtype {
        None | Some(Dtype::Auto | Dtype::F32) => {}
        Some(Dtype::Bf16) => return refused("--dtype bf16", "auto or f32"),
        Some(Dtype::F16) => return refused("--dtype f16", "auto or f32"),
    }
    match quantize {
        None | Some(Quantize::None) => Ok(()),
        Some(Quantize::Eight) => refused("--quantize 8", "none"),
        Some(Quantize::Four) => refused("--quantize 4", "none"),
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

    #[test]
    fn what_this_build_cannot_do_is_refused_with_a_hint() {
        for args in [
            ModelArgs { dtype: Some(Dtype::Bf16), ..ModelArgs::default() },
            ModelArgs { dtype: Some(Dtype::F16), ..ModelArgs::default() },
            ModelArgs { quantize: Some(Quantize::Eight), ..ModelArgs::default() },
            ModelArgs { quantize: Some(Quantize::Four), ..ModelArgs::default() },
        ] {
            let failure = resolve(&args, Path::new(".")).unwrap_err();
            assert_eq!(failure.status(), 78);
            assert!(failure.to_string().contains("hint: "), "{failure}");
        }
    }
}
