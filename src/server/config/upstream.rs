//! Which upstream servers generate instead of this program, and what that leaves of the other flags.

use crate::{
    chat::{info::PromptFormat, settings::Sampling},
    engine::{
        checkpoint, generation_config,
        load::read_config,
        prompt::PromptBuilder,
        remote::{Patience, RemoteOptions, address::Address},
        worker::EngineOptions,
    },
    server::{
        cli::{FormatChoice, ServeArgs},
        failure::Failure,
    },
};

/// Upstream servers, and what has to be known of their model.
#[derive(Debug, Clone)]
pub struct UpstreamChoice {
    /// Which, and how they are asked.
    pub remote: RemoteOptions,
    /// How their model's conversations look.
    pub prompt_format: PromptFormat,
    /// Sampling where a person set nothing.
    pub defaults: Sampling,
}

/// Resolves the flags for these upstreams. Where `--model_path` names a folder, sampling and prompt format are read there; no
/// weights are.
///
/// # Errors
/// [`Failure::Usage`] where a flag makes no sense with an upstream; [`Failure::Refused`] where the folder is no checkpoint's.
pub fn resolve(addresses: Vec<Address>, args: &ServeArgs, engine: &EngineOptions) -> Result<UpstreamChoice, Failure> {
    refuse_flags_of_a_local_model(args)?;
    let refused = |error: &dyn std::fmt::Display| Failure::Refused(error.to_string());
    let (format, defaults) = match &args.model.model_path {
        None => (PromptFormat::V2, Sampling::default()),
        Some(path) => {
            let (_, config) = read_config(path).map_err(|error| refused(&error))?;
            let defaults =
                generation_config::read(checkpoint::folder(path), &config).map_err(|error| refused(&error))?;
            (PromptBuilder::auto_format(&config), defaults)
        }
    };
    Ok(UpstreamChoice {
        remote: RemoteOptions {
            addresses,
            key: args.upstream_key.clone(),
            max_running: engine.max_running,
            max_waiting: engine.max_waiting,
            patience: Patience::default(),
        },
        prompt_format: match args.model.prompt_format {
            None | Some(FormatChoice::Auto) => format,
            Some(FormatChoice::Is(format)) => format,
        },
        defaults,
    })
}

/// Reads the addresses that stand in the settings.
///
/// # Errors
/// [`Failure::Refused`] where one is none.
pub fn addresses(texts: &[String]) -> Result<Vec<Address>, Failure> {
    let parsed = texts.iter().map(|text| Address::parse(text)).collect::<Result<_, _>>();
    parsed.map_err(|error| Failure::Refused(format!("[server] upstream: {error}")))
}

fn refuse_flags_of_a_local_model(args: &ServeArgs) -> Result<(), Failure> {
    let model = &args.model;
    let given = [
        ("tokenizer_path", model.tokenizer_path.is_some()),
        ("adapter_path", model.adapter_path.is_some()),
        ("device", model.compute.device.is_some()),
        ("dtype", model.compute.dtype.is_some()),
        ("quantize", model.compute.quantize.is_some()),
        ("kv_dtype", model.kv_dtype.is_some()),
        ("kv_memory", args.kv_memory.is_some()),
    ];
    match given.into_iter().find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((flag, _)) => Err(Failure::Usage(format!(
            "--{flag} was given together with --upstream; expected it where this program computes the model itself\n\
             hint: give --{flag} to the upstream server, or leave --upstream out"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        engine::load::DeviceChoice,
        server::cli::{ComputeArgs, ModelArgs},
    };

    fn resolved(args: &ServeArgs) -> Result<UpstreamChoice, Failure> {
        resolve(addresses(&["http://gpu:8000".to_owned()]).unwrap(), args, &EngineOptions::default())
    }

    #[test]
    fn flags_of_a_local_model_are_a_usage_error_that_names_them() {
        let model = ModelArgs {
            compute: ComputeArgs { device: Some(DeviceChoice::Cpu), ..ComputeArgs::default() },
            ..ModelArgs::default()
        };
        for (args, flag) in [
            (ServeArgs { model, ..ServeArgs::default() }, "--device"),
            (ServeArgs { kv_memory: Some(1.0), ..ServeArgs::default() }, "--kv_memory"),
        ] {
            let failure = resolved(&args).unwrap_err();
            assert_eq!(failure.status(), 2);
            assert!(failure.to_string().contains(flag) && failure.to_string().contains("hint: "), "{failure}");
        }
    }

    #[test]
    fn a_checkpoints_folder_says_the_defaults_and_one_that_is_none_is_refused() {
        assert_eq!(resolved(&ServeArgs::default()).unwrap().defaults, Sampling::default());
        let args = |path: &Path| {
            let model = ModelArgs { model_path: Some(path.to_owned()), ..ModelArgs::default() };
            ServeArgs { model, ..ServeArgs::default() }
        };
        let mini = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/xverse-mini");
        let (_, config) = read_config(&mini).unwrap();
        assert_eq!(resolved(&args(&mini)).unwrap().defaults, generation_config::read(&mini, &config).unwrap());
        assert_eq!(resolved(&args(Path::new("/no/such/folder"))).unwrap_err().status(), 78);
    }

    #[test]
    fn an_address_in_the_settings_that_is_none_is_refused() {
        let failure = addresses(&["gpu:8000".to_owned()]).unwrap_err();
        assert_eq!(failure.status(), 78);
        assert!(failure.to_string().contains("http://HOST:PORT"), "{failure}");
    }
}
