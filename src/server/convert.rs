//! The `convert` subcommand: a checkpoint written anew, and a report of what came of it.

use std::{path::Path, time::Instant};

use super::{
    cli::ConvertArgs,
    config::model,
    failure::Failure,
    report::{bytes, lines},
};
use crate::engine::convert::{self, ConvertOptions};

/// Converts the checkpoint and gives the report.
///
/// # Errors
/// [`Failure::Refused`] where the checkpoint is refused or the folder cannot be written.
pub fn convert(args: &ConvertArgs) -> Result<String, Failure> {
    let began = Instant::now();
    let choice = model::resolve(&args.model, Path::new("."))?;
    if choice.is_stand_in {
        return Err(Failure::Refused(
            "no model to convert was named\nhint: name the folder with the checkpoint: --model_path".to_owned(),
        ));
    }
    let options = ConvertOptions {
        model_path: choice.model_path,
        tokenizer_path: choice.tokenizer_path,
        adapter_path: choice.adapter_path,
        precision: choice.precision,
        output_path: args.output_path.clone(),
    };
    let converted = convert::convert(&options).map_err(|error| Failure::Refused(error.to_string()))?;
    Ok(lines(&[
        ("written", format!("{} in {:.0} s", args.output_path.display(), began.elapsed().as_secs_f32())),
        ("weights", format!("{}, mostly {}", bytes(converted.n_bytes), converted.format.name())),
        ("use it", format!("--model_path {}", args.output_path.display())),
    ]))
}
