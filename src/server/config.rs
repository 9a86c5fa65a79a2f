//! What was typed, set and written, made into what it means: once, at the start.
//!
//! A flag wins over the environment, and that over the file; `LEPTOS_SITE_ADDR`, which `cargo leptos serve` always sets,
//! wins over nothing. Owns every server-only limit. **Architecture Invariant:** a [`Config`] is valid; nothing after it
//! checks a setting again.

pub mod engine;
pub mod environment;
pub mod file;
pub mod model;
pub mod upstream;

use std::{
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use leptos::config::LeptosOptions;

use self::{
    engine::EngineConfig,
    file::{FileConfig, LimitsSection},
    upstream::UpstreamChoice,
};
use super::{access::AccessToken, cli::ServeArgs, failure::Failure, rates::Rate};
use crate::engine::{load::LoadOptions, worker::EngineOptions};

/// The settings where no file is named.
const SETTINGS: &str = "Leptos.toml";

/// Most of anything that is counted: beyond it something would overflow or take all memory, and nobody means it.
const MOST: u64 = 1_000_000;

/// The same for bytes of the body of a request to the API.
const MOST_API_BYTES: u64 = 64 << 20;

/// The longest time, a day: clocks don't reach arbitrarily far.
const MOST_SECONDS: u64 = 24 * 60 * 60;

/// Everything that a server is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address to listen on.
    pub host: IpAddr,
    /// Needed by whoever asks; always there where others than this machine reach the address.
    pub access_token: Option<AccessToken>,
    /// Port to listen on; 0 picks a free one.
    pub port: u16,
    /// Of the page.
    pub title: String,
    /// Lowercase names that the Host header may carry besides IP addresses and localhost.
    pub allowed_hosts: Vec<String>,
    /// Where the page's files are.
    pub leptos: LeptosOptions,
    /// Bounds of what is kept and taken.
    pub limits: Limits,
    /// Pace and bounds of the engine.
    pub engine: EngineOptions,
    /// What generates.
    pub source: ModelSource,
    /// Where conversations are kept.
    pub data_dir: PathBuf,
    /// Whether the mini model stands in for an absent model.
    pub is_stand_in: bool,
}

/// What generates.
#[derive(Debug, Clone)]
pub enum ModelSource {
    /// A checkpoint that is loaded.
    Local(Box<LoadOptions>),
    /// Upstream servers.
    Upstream(Box<UpstreamChoice>),
}

/// Bounds of what the server keeps and takes.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most tokens that one answer may ask for.
    pub max_new_tokens: u32,
    /// Conversations that an owner may have.
    pub conversations_per_owner: usize,
    /// Answers that an owner may have written at once, waiting ones counted.
    pub answers_per_owner: usize,
    /// How often an owner may ask for an answer.
    pub answers: Rate,
    /// How often an owner may ask for anything.
    pub requests: Rate,
    /// How often owners who have no conversation yet may begin one, from one address of another machine.
    pub newcomers: Rate,
    /// Most bytes of a request's body.
    pub body_bytes: usize,
    /// The same of a request to the API, whose prompts may come by the dozen.
    pub api_body_bytes: usize,
    /// How long a body's arrival may take.
    pub body_time: Duration,
    /// How long a request's head may take to arrive, and a connection may lie idle.
    pub header_time: Duration,
    /// Most headers of a request.
    pub header_count: usize,
    /// Most bytes of a request's head: its first line and its headers.
    pub header_bytes: usize,
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address other than this machine's own.
    pub connections_per_address: usize,
    /// How long a connection goes on that takes nothing of what is written, or shows no sign of life.
    pub stalled_write: Duration,
    /// How long running answers may go on when the server is told to stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_new_tokens: 2048,
            conversations_per_owner: 1000,
            answers_per_owner: 2,
            answers: Rate { per_minute: 30, burst: 10 },
            requests: Rate { per_minute: 600, burst: 200 },
            newcomers: Rate { per_minute: 30, burst: 30 },
            body_bytes: 256 * 1024,
            api_body_bytes: 2 * 1024 * 1024,
            body_time: Duration::from_secs(15),
            header_time: Duration::from_secs(10),
            header_count: 64,
            header_bytes: 64 * 1024,
            connections: 512,
            connections_per_address: 64,
            stalled_write: Duration::from_secs(30),
            drain: Duration::from_secs(8),
        }
    }
}

impl Limits {
    fn resolve(file: &LimitsSection, drain_s: Option<u64>) -> Result<Self, Failure> {
        let limits = Self::default();
        Ok(Self {
            max_new_tokens: at_least_one("max_new_tokens", file.max_new_tokens, limits.max_new_tokens)?,
            conversations_per_owner: at_least_one(
                "conversations_per_owner",
                file.conversations_per_owner,
                limits.conversations_per_owner,
            )?,
            answers_per_owner: at_least_one("answers_per_owner", file.answers_per_owner, limits.answers_per_owner)?,
            answers: Rate {
                per_minute: at_least_one("answers_per_minute", file.answers_per_minute, limits.answers.per_minute)?,
                burst: at_least_one("answers_burst", file.answers_burst, limits.answers.burst)?,
            },
            requests: Rate {
                per_minute: at_least_one("requests_per_minute", file.requests_per_minute, limits.requests.per_minute)?,
                burst: at_least_one("requests_burst", file.requests_burst, limits.requests.burst)?,
            },
            newcomers: Rate {
                per_minute: at_least_one(
                    "newcomers_per_minute",
                    file.newcomers_per_minute,
                    limits.newcomers.per_minute,
                )?,
                burst: at_least_one("newcomers_burst", file.newcomers_burst, limits.newcomers.burst)?,
            },
            body_bytes: at_least_one("body_bytes", file.body_bytes, limits.body_bytes)?,
            api_body_bytes: bounded("api_body_bytes", file.api_body_bytes, limits.api_body_bytes, 1..=MOST_API_BYTES)?,
            body_time: seconds("body_s", file.body_s, limits.body_time, 0)?,
            header_time: seconds("header_s", file.header_s, limits.header_time, 1)?,
            header_count: at_least_one("header_count", file.header_count, limits.header_count)?,
            header_bytes: at_least_one("header_bytes", file.header_bytes, limits.header_bytes)?,
            connections: at_least_one("connections", file.connections, limits.connections)?,
            connections_per_address: at_least_one(
                "connections_per_address",
                file.connections_per_address,
                limits.connections_per_address,
            )?,
            stalled_write: seconds("stalled_write_s", file.stalled_write_s, limits.stalled_write, 1)?,
            drain: seconds("drain_s", drain_s, limits.drain, 0)?,
        })
    }
}

impl Config {
    /// Resolves flags, environment and file.
    ///
    /// # Errors
    /// [`Failure::Refused`] where something is missing or does not fit.
    pub fn resolve(flags: ServeArgs, environment: ServeArgs) -> Result<Self, Failure> {
        let args = environment::first_of(flags, environment);
        let path = args.config.clone().unwrap_or_else(|| SETTINGS.into());
        let file = FileConfig::read(&path)?;
        let folder = folder_of(&path);
        let leptos = file::leptos_options(&path, folder)?;
        let data_dir = data_dir(args.data_dir.clone(), file.storage.data_dir.clone(), folder)?;
        let upstreams = match (&args.upstream, &file.server.upstream) {
            (Some(addresses), _) => addresses.clone(),
            (None, texts) => upstream::addresses(texts.as_deref().unwrap_or_default())?,
        };
        let (source, engine, is_stand_in) = if upstreams.is_empty() {
            let EngineConfig { load, engine, is_stand_in } = EngineConfig::of(&args, &file, folder, Some(&data_dir))?;
            (ModelSource::Local(Box::new(load)), engine, is_stand_in)
        } else {
            let engine = engine::options(&args, &file)?;
            (ModelSource::Upstream(Box::new(upstream::resolve(upstreams, &args, &engine)?)), engine, false)
        };
        let host_name = args.host.or(file.server.host).unwrap_or_else(|| Ipv4Addr::LOCALHOST.to_string());
        let allowed_hosts = args.allowed_hosts.or(file.server.allowed_hosts).unwrap_or_default();
        let host = address(&host_name)?;
        Ok(Self {
            host,
            access_token: access_token(args.access_token.or(file.server.access_token).as_deref(), host)?,
            port: args.port.or(file.server.port).unwrap_or(36000),
            title: args.title.or(file.server.title).unwrap_or_else(|| "XVERSE-13B-Chat".to_owned()),
            allowed_hosts: allowed_hosts.into_iter().chain([host_name]).map(|name| name.to_lowercase()).collect(),
            leptos,
            limits: Limits::resolve(&file.limits, file.server.drain_s)?,
            engine,
            source,
            data_dir,
            is_stand_in,
        })
    }
}

/// The folder that a file is in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The folder that a flag names, or the settings (from where they lie), or the platform's.
fn data_dir(flag: Option<PathBuf>, file: Option<PathBuf>, folder: &Path) -> Result<PathBuf, Failure> {
    use etcetera::BaseStrategy;

    if let Some(path) = flag.or_else(|| file.map(|path| folder.join(path))) {
        return Ok(path);
    }
    etcetera::choose_base_strategy().map(|platform| platform.data_dir().join("xverse-chat")).map_err(|error| {
        Failure::Refused(format!(
            "there is no folder for conversations: {error}; expected a home folder\n\
             hint: name one with --data_dir"
        ))
    })
}

fn address(host: &str) -> Result<IpAddr, Failure> {
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    host.trim_start_matches('[').trim_end_matches(']').parse().map_err(|_| {
        Failure::Refused(format!(
            "--host {host} is not an address; expected one of this machine's, such as 127.0.0.1, ::1 or 0.0.0.0 for all\n\
             hint: names that browsers may use for this server go to --allowed_hosts"
        ))
    })
}

/// The token that was given; where there is none and others than this machine reach the address, one made for this start.
fn access_token(given: Option<&str>, host: IpAddr) -> Result<Option<AccessToken>, Failure> {
    let token = match given {
        Some(text) => AccessToken::given(text).map(Some),
        None if host.is_loopback() => Ok(None),
        None => AccessToken::made().map(Some),
    };
    token.map_err(|error| {
        Failure::Refused(format!(
            "{error}\nhint: `openssl rand -hex 32` makes a good one; set it with --access_token or XVERSE_ACCESS_TOKEN"
        ))
    })
}

fn at_least_one<T: TryInto<u64> + Copy>(name: &str, value: Option<T>, default: T) -> Result<T, Failure> {
    bounded(name, value, default, 1..=MOST)
}

fn seconds(name: &str, value: Option<u64>, default: Duration, least: u64) -> Result<Duration, Failure> {
    bounded(name, value, default.as_secs(), least..=MOST_SECONDS).map(Duration::from_secs)
}

fn bounded<T: TryInto<u64> + Copy>(
    name: &str,
    value: Option<T>,
    default: T,
    bounds: RangeInclusive<u64>,
) -> Result<T, Failure> {
    let value = value.unwrap_or(default);
    let found = value.try_into().unwrap_or(u64::MAX);
    if bounds.contains(&found) {
        return Ok(value);
    }
    Err(Failure::Refused(format!("{name} is {found}, expected {} to {}", bounds.start(), bounds.end())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_an_address_or_localhost() {
        for host in ["127.0.0.1", "::1", "[::1]", "localhost", "127.1.2.3", "0.0.0.0", "::", "192.168.1.2"] {
            assert!(address(host).is_ok(), "{host}");
        }
        for host in ["example.org", "", "127.0.0.1:80"] {
            let failure = address(host).unwrap_err();
            assert_eq!(failure.status(), 78, "{host}");
            assert!(failure.to_string().contains("hint: "), "{failure}");
        }
    }

    #[test]
    fn an_address_that_others_reach_has_a_token() {
        let token = |given: Option<&str>, host: &str| access_token(given, host.parse().unwrap());
        assert_eq!(token(None, "127.0.0.1"), Ok(None));
        for host in ["0.0.0.0", "::", "192.168.1.2"] {
            assert!(token(None, host).unwrap().unwrap().to_show().is_some(), "{host}");
        }
        for host in ["127.0.0.1", "0.0.0.0"] {
            assert_eq!(token(Some("given"), host).unwrap().unwrap().to_show(), None, "{host}");
            let failure = token(Some(" "), host).unwrap_err();
            assert!(failure.status() == 78 && failure.to_string().contains("hint: "), "{failure}");
        }
    }

    #[test]
    fn a_number_is_within_its_bounds_or_refused_by_name() {
        assert_eq!(at_least_one("max_running", None, 32_u32), Ok(32));
        for value in [0, 1_000_001, usize::MAX] {
            let failure = at_least_one("connections", Some(value), 1).unwrap_err();
            assert!(failure.to_string().starts_with("connections is "), "{failure}");
        }
        assert!(seconds("body_s", Some(0), Duration::ZERO, 0).is_ok());
        assert!(seconds("header_s", Some(0), Duration::ZERO, 1).is_err());
        assert!(seconds("header_s", Some(MOST_SECONDS + 1), Duration::ZERO, 1).is_err());
    }
}
