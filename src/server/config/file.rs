//! `Leptos.toml`: Leptos' own section, then ours.
//!
//! Every key is known or an error, in Leptos' section too; `site-root` must be a folder of its own, since everything
//! below it is served.

use std::path::{Path, PathBuf};

use leptos::config::{LeptosOptions, get_configuration};
use serde::Deserialize;

use crate::server::failure::Failure;

/// The file as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// Leptos' section; read here for its keys' names only.
    #[serde(rename = "package")]
    _package: Package,
    /// Where and as what to serve.
    #[serde(default)]
    pub server: ServerSection,
    /// Bounds.
    #[serde(default)]
    pub limits: LimitsSection,
    /// Pace of the engine.
    #[serde(default)]
    pub engine: EngineSection,
    /// Where conversations are kept.
    #[serde(default)]
    pub storage: StorageSection,
}

/// `[server]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSection {
    /// Address to listen on.
    pub host: Option<String>,
    /// Port to listen on.
    pub port: Option<u16>,
    /// Of the page.
    pub title: Option<String>,
    /// Names that the Host header may carry.
    pub allowed_hosts: Option<Vec<String>>,
    /// Servers that generate instead of this program.
    pub upstream: Option<Vec<String>>,
    /// Needed by whoever asks.
    pub access_token: Option<String>,
    /// Seconds that running answers have to end.
    pub drain_s: Option<u64>,
}

/// `[limits]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsSection {
    /// Sequences decoding at once.
    pub max_running: Option<u32>,
    /// Requests that may wait.
    pub max_waiting: Option<u32>,
    /// Most tokens that one answer may ask for.
    pub max_new_tokens: Option<u32>,
    /// Conversations that an owner may have.
    pub conversations_per_owner: Option<usize>,
    /// Answers that an owner may have written at once.
    pub answers_per_owner: Option<usize>,
    /// How often an owner may ask for an answer.
    pub answers_per_minute: Option<u32>,
    /// How many at once after a pause.
    pub answers_burst: Option<u32>,
    /// How often an owner may ask for anything.
    pub requests_per_minute: Option<u32>,
    /// How many at once after a pause.
    pub requests_burst: Option<u32>,
    /// How often newcomers may begin a conversation from one address.
    pub newcomers_per_minute: Option<u32>,
    /// How many at once after a pause.
    pub newcomers_burst: Option<u32>,
    /// Most bytes of a request's body.
    pub body_bytes: Option<usize>,
    /// Most bytes of the body of a request to the API.
    pub api_body_bytes: Option<usize>,
    /// Seconds that a body's arrival may take.
    pub body_s: Option<u64>,
    /// Seconds that a request's head may take to arrive.
    pub header_s: Option<u64>,
    /// Most headers of a request.
    pub header_count: Option<usize>,
    /// Most bytes of a request's head.
    pub header_bytes: Option<usize>,
    /// Connections at once.
    pub connections: Option<usize>,
    /// Connections at once from one address.
    pub connections_per_address: Option<usize>,
    /// Seconds that a connection goes on that takes nothing.
    pub stalled_write_s: Option<u64>,
}

/// `[engine]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineSection {
    /// Most prompt tokens that a step reads.
    pub prefill_chunk: Option<usize>,
    /// Slowest pace of steps.
    pub min_step_ms: Option<u64>,
    /// Threads that compute.
    pub threads: Option<usize>,
    /// Whether a card runs launches that were recorded.
    pub cuda_graphs: Option<bool>,
    /// Whether a card draws tokens itself.
    pub cuda_sampler: Option<bool>,
    /// Whether a card begins a step before the tokens of the one before it are known to the program.
    pub cuda_ahead: Option<bool>,
    /// Whether a card multiplies many rows by cuBLAS.
    pub cuda_cublas: Option<bool>,
    /// Whether a card multiplies few rows by kernels made for that.
    pub cuda_products: Option<bool>,
    /// Whether a card attends in parts.
    pub cuda_attention: Option<bool>,
    /// Whether a card tells log-probabilities itself.
    pub cuda_probabilities: Option<bool>,
}

/// `[storage]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageSection {
    /// The folder, from where this file lies.
    pub data_dir: Option<PathBuf>,
    /// Whether quantised weights are kept there for the next start.
    pub quantized_copies: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Package {
    #[serde(rename = "metadata")]
    _metadata: Metadata,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    #[serde(rename = "leptos")]
    _leptos: LeptosSection,
}

/// The keys of Leptos' section that a running server reads.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[expect(dead_code, reason = "the values are read by Leptos itself, here only the names are checked")]
struct LeptosSection {
    output_name: String,
    site_root: String,
    site_pkg_dir: Option<String>,
    site_addr: Option<String>,
    reload_port: Option<u16>,
    env: Option<String>,
    hash_files: Option<bool>,
    hash_file: Option<String>,
}

impl FileConfig {
    /// Reads the file.
    ///
    /// # Errors
    /// [`Failure::Refused`] where it is missing, is not TOML, or has a key that nobody knows.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::Refused(format!(
                "{} cannot be read: {error}; expected the settings that come with the program\n\
                 hint: start in the repository's root, or name the file with --config",
                path.display()
            ))
        })?;
        Self::parse(&text).map_err(|problem| Failure::Refused(format!("{}, {problem}", path.display())))
    }

    fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| {
            let line =
                error.span().map_or(0, |span| text.get(..span.start).map_or(0, |before| before.matches('\n').count()));
            let message = error.message();
            let hint =
                if message.contains("unknown field") { "\nhint: remove the key or correct its spelling" } else { "" };
            format!("line {}: {}{hint}", line + 1, message.replace('\n', " "))
        })
    }
}

/// Leptos' own options, with `site-root` made a path that exists from here.
///
/// # Errors
/// [`Failure::Refused`] where Leptos' section is wrong or `site-root` would serve more than the page.
pub fn leptos_options(path: &Path, folder: &Path) -> Result<LeptosOptions, Failure> {
    let path_text = path
        .to_str()
        .ok_or_else(|| Failure::Refused(format!("{} is not a name in UTF-8; expected one that is", path.display())))?;
    let mut options = get_configuration(Some(path_text))
        .map_err(|error| Failure::Refused(format!("{path_text}, section [package.metadata.leptos]: {error}")))?
        .leptos_options;
    let from_environment = std::env::var_os("LEPTOS_SITE_ROOT").is_some();
    let root = Path::new(&*options.site_root);
    let root = if from_environment { root.to_owned() } else { folder.join(root) };
    let refused = |found: &str, hint: &str| {
        Failure::Refused(format!(
            "site-root is {:?}, {found}; expected a folder that holds the built page and nothing else\nhint: {hint}",
            &*options.site_root
        ))
    };
    let set = format!("set site-root = \"target/site\" in {path_text}");
    let site = root.canonicalize().map_err(|_| refused("where nothing is", &format!("build the page, or {set}")))?;
    let holds = |path: &Path| path.canonicalize().is_ok_and(|path| path.starts_with(&site));
    if holds(folder) || holds(Path::new(".")) {
        return Err(refused("which would serve every file around it", &set));
    }
    options.site_root = root.to_string_lossy().into();
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEPTOS: &str = "[package.metadata.leptos]\noutput-name = \"x\"\nsite-root = \"site\"\n";

    fn written(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Leptos.toml");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_known_ones() {
        for (text, unknown, known, line) in [
            ("[server]\nprot = 1\n", "prot", "port", 5),
            ("[limits]\nmax_runing = 1\n", "max_runing", "max_running", 5),
            ("[engine]\n\nfoo = 1\n", "foo", "min_step_ms", 6),
            ("[storage]\ndata = 1\n", "data", "data_dir", 5),
            ("[elsewhere]\n", "elsewhere", "limits", 4),
        ] {
            let problem = FileConfig::parse(&format!("{LEPTOS}{text}")).unwrap_err();
            assert!(problem.contains(unknown) && problem.contains(known), "{problem}");
            assert!(problem.starts_with(&format!("line {line}:")), "{problem}");
        }
        let problem = FileConfig::parse("[package.metadata.leptos]\noutput-nam = \"x\"\n").unwrap_err();
        assert!(problem.contains("output-nam") && problem.contains("output-name"), "{problem}");
    }

    #[test]
    fn the_shipped_file_says_what_the_program_would_do_without_it() {
        let file = FileConfig::parse(include_str!("../../../Leptos.toml")).unwrap();
        let limits = crate::server::config::Limits::default();
        assert_eq!(file.server.port, Some(36000));
        assert_eq!(file.limits.max_new_tokens, Some(limits.max_new_tokens));
        assert_eq!(file.limits.conversations_per_owner, Some(limits.conversations_per_owner));
        assert_eq!(file.limits.answers_per_owner, Some(limits.answers_per_owner));
        assert_eq!(file.limits.answers_per_minute, Some(limits.answers.per_minute));
        assert_eq!(file.limits.answers_burst, Some(limits.answers.burst));
        assert_eq!(file.limits.requests_per_minute, Some(limits.requests.per_minute));
        assert_eq!(file.limits.requests_burst, Some(limits.requests.burst));
        assert_eq!(file.limits.newcomers_per_minute, Some(limits.newcomers.per_minute));
        assert_eq!(file.limits.newcomers_burst, Some(limits.newcomers.burst));
        assert_eq!(file.limits.body_bytes, Some(limits.body_bytes));
        assert_eq!(file.limits.api_body_bytes, Some(limits.api_body_bytes));
        assert_eq!(file.limits.body_s, Some(limits.body_time.as_secs()));
        assert_eq!(file.limits.header_s, Some(limits.header_time.as_secs()));
        assert_eq!(file.limits.header_count, Some(limits.header_count));
        assert_eq!(file.limits.header_bytes, Some(limits.header_bytes));
        assert_eq!(file.limits.connections, Some(limits.connections));
        assert_eq!(file.limits.connections_per_address, Some(limits.connections_per_address));
        assert_eq!(file.limits.stalled_write_s, Some(limits.stalled_write.as_secs()));
        assert_eq!(file.server.drain_s, Some(limits.drain.as_secs()));
    }

    #[test]
    fn a_site_root_that_is_missing_or_holds_more_than_the_page_is_refused() {
        for root in ["", ".", "..", "/", "not-built"] {
            let (folder, path) = written(&LEPTOS.replace("\"site\"", &format!("{root:?}")));
            let failure = leptos_options(&path, folder.path()).unwrap_err();
            assert!(failure.to_string().contains("site-root"), "{root}: {failure}");
        }
        let (folder, path) = written("[package.metadata.leptos]\noutput-name = \"x\"\n");
        let problem = FileConfig::read(&path).unwrap_err().to_string();
        assert!(problem.contains("site-root"), "{problem}");
        drop(folder);
    }

    #[test]
    fn a_site_root_is_looked_for_beside_the_file() {
        let (folder, path) = written(LEPTOS);
        std::fs::create_dir(folder.path().join("site")).unwrap();
        let options = leptos_options(&path, folder.path()).unwrap();
        assert_eq!(Path::new(&*options.site_root), folder.path().join("site"));
    }

    #[test]
    fn a_missing_file_is_a_refusal_with_a_hint() {
        let failure = FileConfig::read(Path::new("/nowhere/Leptos.toml")).unwrap_err();
        assert_eq!(failure.status(), 78);
        assert!(failure.to_string().contains("hint: "), "{failure}");
    }
}
