//! Flags given as environment variables: `--max_running` is `XVERSE_MAX_RUNNING`.
//!
//! Knows which variables there are from the flags themselves, so that the two cannot drift apart.

use std::ffi::OsString;

use clap::{CommandFactory, Parser};

use crate::{
    engine::remote::address::{Key, KeyError},
    server::{
        cli::{ComputeArgs, ModelArgs, ServeArgs},
        failure::Failure,
    },
};

/// Holds what upstream servers ask for. No flag does: other programs can read those.
const UPSTREAM_KEY: &str = "XVERSE_UPSTREAM_KEY";

#[derive(Debug, Parser)]
#[command(name = "xverse-chat", disable_help_flag = true)]
struct Environment {
    #[command(flatten)]
    serve: ServeArgs,
}

/// The flags that `variable` has values for.
///
/// # Errors
/// [`Failure::Refused`] where a value is not of its flag's kind.
pub fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<ServeArgs, Failure> {
    let mut args = vec![OsString::from("environment")];
    for name in Environment::command().get_arguments().filter_map(|arg| arg.get_long()) {
        if let Some(value) = variable(&format!("XVERSE_{}", name.to_uppercase())) {
            let mut arg = OsString::from(format!("--{name}="));
            arg.push(value);
            args.push(arg);
        }
    }
    let parsed = Environment::try_parse_from(args).map_err(|error| {
        let message = error.to_string();
        let first = message.lines().next().unwrap_or_default().trim_start_matches("error: ");
        Failure::Refused(format!("environment: {first}\nhint: --name is set by the variable XVERSE_NAME"))
    })?;
    let key = variable(UPSTREAM_KEY).map(|key| key.to_str().ok_or(KeyError).and_then(Key::parse)).transpose();
    let upstream_key = key.map_err(|error| {
        Failure::Refused(format!("environment: {error}\nhint: {UPSTREAM_KEY} holds it, in visible ASCII characters"))
    })?;
    Ok(ServeArgs { upstream_key, ..parsed.serve })
}

/// Field by field what the first says, else what the second says.
pub fn first_of(first: ServeArgs, second: ServeArgs) -> ServeArgs {
    ServeArgs {
        port: first.port.or(second.port),
        host: first.host.or(second.host),
        title: first.title.or(second.title),
        model: ModelArgs {
            model_path: first.model.model_path.or(second.model.model_path),
            tokenizer_path: first.model.tokenizer_path.or(second.model.tokenizer_path),
            adapter_path: first.model.adapter_path.or(second.model.adapter_path),
            compute: ComputeArgs {
                device: first.model.compute.device.or(second.model.compute.device),
                dtype: first.model.compute.dtype.or(second.model.compute.dtype),
                quantize: first.model.compute.quantize.or(second.model.compute.quantize),
            },
            kv_dtype: first.model.kv_dtype.or(second.model.kv_dtype),
            prompt_format: first.model.prompt_format.or(second.model.prompt_format),
        },
        upstream: first.upstream.or(second.upstream),
        upstream_key: first.upstream_key.or(second.upstream_key),
        kv_memory: first.kv_memory.or(second.kv_memory),
        max_running: first.max_running.or(second.max_running),
        max_waiting: first.max_waiting.or(second.max_waiting),
        access_token: first.access_token.or(second.access_token),
        allowed_hosts: first.allowed_hosts.or(second.allowed_hosts),
        data_dir: first.data_dir.or(second.data_dir),
        config: first.config.or(second.config),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_wins_over_the_environment() {
        let environment = read(|name| match name {
            "XVERSE_PORT" => Some("1".into()),
            "XVERSE_MODEL_PATH" => Some("/from-the-environment".into()),
            _ => None,
        })
        .unwrap();
        let args = first_of(ServeArgs { port: Some(2), ..ServeArgs::default() }, environment);
        assert_eq!(args.port, Some(2));
        assert_eq!(args.model.model_path, Some("/from-the-environment".into()));
    }

    #[test]
    fn upstreams_and_their_key_are_read_and_the_key_is_repeated_nowhere() {
        let set = |key: &'static str| {
            move |name: &str| match name {
                "XVERSE_UPSTREAM" => Some("http://a:1,http://b:2".into()),
                "XVERSE_UPSTREAM_KEY" => Some(key.into()),
                _ => None,
            }
        };
        let args = read(set("geheim")).unwrap();
        assert_eq!(args.upstream.as_ref().map(Vec::len), Some(2));
        assert!(args.upstream_key.is_some() && !format!("{args:?}").contains("geheim"), "{args:?}");
        let failure = read(set("geheim\n2")).unwrap_err();
        assert!(failure.status() == 78 && !failure.to_string().contains("geheim"), "{failure}");
    }

    #[test]
    fn a_value_of_another_kind_is_refused_by_name() {
        let failure = read(|name| (name == "XVERSE_PORT").then(|| "many".into())).unwrap_err();
        assert_eq!(failure.status(), 78);
        assert!(failure.to_string().contains("many") && failure.to_string().contains("--port"), "{failure}");
    }
}
