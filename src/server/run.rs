//! What the program does, from the command line to its end.
//!
//! To serve: listen first, so that the page is there while the model loads; load on a thread of its own; say once what has
//! been loaded; go down when told to.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    access::{Access, AccessToken},
    bench::bench,
    check::check,
    cli::{Cli, Command, ServeArgs},
    clock,
    config::{Config, ModelSource, environment, model, upstream::UpstreamChoice},
    convert::convert,
    failure::Failure,
    generator::{Generator, Local},
    listener, log,
    logits::logits,
    perplexity::perplexity,
    report,
    router::router,
    shutdown::{Signals, until_told},
    state::{Ready, Server},
    terminal, upstream, watchdog,
};
use crate::{
    engine::{
        load::{DeviceChoice, LoadError, LoadOptions, Loaded, load},
        remote::RemoteEngine,
        worker::{EngineHandle, EngineOptions},
    },
    storage::database::{Found, Storage},
};

/// Pause between two attempts to save what could not be saved.
const SAVING_INTERVAL: Duration = Duration::from_secs(10);

/// Pause between two removals of what was deleted.
const PURGE_INTERVAL: Duration = Duration::from_mins(10);

/// How long a deleted conversation can be restored.
const DELETED_AGE: Duration = Duration::from_hours(1);

/// How long a command is known as carried out.
const COMMAND_AGE: Duration = Duration::from_hours(24);

/// Does what was asked for; comes back when it is done.
///
/// # Errors
/// [`Failure`], whose text belongs on the terminal and whose status is the program's.
pub fn run(cli: Cli) -> Result<(), Failure> {
    log::start();
    match cli.command {
        None => serve(cli.serve),
        Some(Command::Serve(args)) => serve(*args),
        Some(Command::Chat(args)) => terminal::chat(*args),
        Some(Command::Check(args)) => check(&args).map(|report| print!("{report}")),
        Some(Command::Convert(args)) => convert(&args).map(|report| print!("{report}")),
        Some(Command::Logits(args)) => logits(&args),
        Some(Command::Perplexity(args)) => perplexity(&args).map(|report| print!("{report}")),
        Some(Command::Bench(args)) => bench(&args).map(|report| print!("{}", report.table())),
    }
}

fn serve(args: ServeArgs) -> Result<(), Failure> {
    let config = Config::resolve(args, environment::read(|name| std::env::var_os(name))?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Device(format!("the server's threads cannot be started: {error}")))?;
    let served = runtime.block_on(serve_until_told(config));
    // Whatever still blocks a thread is not worth waiting for.
    runtime.shutdown_background();
    served
}

async fn serve_until_told(config: Config) -> Result<(), Failure> {
    let signals =
        Signals::listen().map_err(|error| Failure::Device(format!("signals cannot be listened to: {error}")))?;
    let listener = listen(SocketAddr::new(config.host, config.port))?;
    let storage = open_storage(&config.data_dir)?;
    let address = listener.local_addr().map_err(|error| Failure::Address(format!("the port is unknown: {error}")))?;
    println!("listening on {}", url(address, config.access_token.as_ref()));
    if let Some(warning) = config.access_token.as_ref().and_then(AccessToken::warning) {
        log::warn(&warning);
    }
    if config.is_stand_in {
        println!("{}", model::STAND_IN);
    }
    let server = Server::new(config.title, config.limits, storage);
    let housekeeping = tokio::spawn(keep_house(server.clone()));
    let access = Access::new(config.access_token.as_ref());
    let app = router(server.clone(), config.leptos, &config.allowed_hosts, access);
    let closed = CancellationToken::new();
    let serving = tokio::spawn({
        let (limits, closed) = (server.limits.clone(), closed.clone());
        async move { listener::serve(listener, app, &limits, &closed).await }
    });
    let ended = load_and_serve(&server, signals, config.source, config.engine, &closed).await;
    housekeeping.abort();
    server.library.storage().settled().await;
    if closed.is_cancelled() {
        // Connections that only stay open are closed at once; those that do not close are not waited for.
        let _ = tokio::time::timeout(std::time::Duration::from_millis(500), serving).await;
    }
    ended
}

/// Where the page is. A token that the program made is in it: that is how anybody gets to know it.
fn url(address: SocketAddr, token: Option<&AccessToken>) -> String {
    match token.and_then(AccessToken::to_show) {
        Some(token) => format!("http://{address}/?access_token={token}"),
        None => format!("http://{address}"),
    }
}

/// Makes the model ready, then serves until told to end. Cancels `closed` where connections are to be closed in order.
async fn load_and_serve(
    server: &Arc<Server>,
    mut signals: Signals,
    source: ModelSource,
    engine: EngineOptions,
    closed: &CancellationToken,
) -> Result<(), Failure> {
    let ready = async {
        match source {
            ModelSource::Local(options) => {
                let asked = options.device;
                take_in(server, load_on_a_thread(*options).await, asked, engine)
            }
            ModelSource::Upstream(choice) => connect(server, *choice).await,
        }
    };
    let engine = tokio::select! {
        engine = ready => engine?,
        () = signals.next() => {
            server.draining.cancel();
            closed.cancel();
            return Ok(());
        }
    };
    until_told(server, &engine, &mut signals, closed).await
}

/// Loads on a thread that nobody waits for, so that a signal can end the program in the middle of it.
async fn load_on_a_thread(options: LoadOptions) -> Option<Result<Loaded, LoadError>> {
    let (sender, receiver) = oneshot::channel();
    thread::Builder::new()
        .name("load".into())
        .spawn(move || {
            // Nobody listens where the program is ending already.
            let _ = sender.send(load(&options));
        })
        .ok()?;
    receiver.await.ok()
}

fn take_in(
    server: &Arc<Server>,
    loaded: Option<Result<Loaded, LoadError>>,
    asked: DeviceChoice,
    options: EngineOptions,
) -> Result<Generator, Failure> {
    let refused = |message: String| {
        server.set_unavailable("the model could not be loaded");
        Failure::Refused(message)
    };
    let loaded = loaded
        .ok_or_else(|| refused("loading the model broke off; the lines above say where".to_owned()))?
        .map_err(|error| refused(error.to_string()))?;
    let engine = EngineHandle::spawn(loaded.backend, loaded.tokenizer, loaded.eos_token_id, options);
    let engine = Generator::Local(Local { engine, prompts: loaded.prompts });
    let report = report::loaded(&loaded.info, asked);
    server.set_ready(Ready { engine: engine.clone(), model: loaded.info, fingerprint: loaded.fingerprint });
    tokio::spawn(watchdog::watch(server.clone(), engine.clone()));
    // Who reads it may ask at once.
    print!("{report}");
    Ok(engine)
}

/// Waits for an upstream server, for as long as it takes.
async fn connect(server: &Arc<Server>, choice: UpstreamChoice) -> Result<Generator, Failure> {
    let upstream = RemoteEngine::open(choice.remote).map_err(|error| Failure::Refused(error.to_string()))?;
    let tell = |waiting: &str| log::warn(waiting);
    let model = upstream.connect(choice.prompt_format, choice.defaults, tell).await;
    let report = report::connected(&model, upstream.addresses());
    let engine = upstream::take_in(server, &upstream, model);
    // Who reads it may ask at once.
    print!("{report}");
    Ok(engine)
}

fn open_storage(folder: &Path) -> Result<Storage, Failure> {
    let (storage, found) = Storage::open(folder).map_err(|error| Failure::Refused(error.to_string()))?;
    match found {
        Found::Kept(path) => tracing::info!(path = %path.display(), "conversations are kept"),
        Found::MovedAside(path) => {
            let moved = path.display();
            log::warn(&format!(
                "the database of conversations is corrupt; it was moved to {moved}, and a new one begun"
            ));
        }
        Found::Nothing(why) => log::warn(&format!(
            "conversations are not saved: {why}; expected a folder that can be written to\n\
             hint: choose another folder with --data_dir"
        )),
    }
    Ok(storage)
}

/// What is done now and then: saves what could not be saved, and removes for good what was deleted.
async fn keep_house(server: Arc<Server>) {
    let mut saving = tokio::time::interval(SAVING_INTERVAL);
    let mut purging = tokio::time::interval(PURGE_INTERVAL);
    loop {
        tokio::select! {
            _ = saving.tick() => server.library.save_the_unsaved().await,
            _ = purging.tick() => {
                let now = clock::now_ms();
                let before = |age: Duration| now.saturating_sub(age.as_millis() as u64);
                let purged = server.library.storage().purge(now, before(DELETED_AGE), before(COMMAND_AGE)).await;
                if let Err(error) = purged {
                    tracing::warn!(%error, "deleted conversations could not be removed");
                }
            }
        }
    }
}

fn listen(address: SocketAddr) -> Result<tokio::net::TcpListener, Failure> {
    let listener = TcpListener::bind(address).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => "another program has the port; end it, or choose another port with --port",
            std::io::ErrorKind::PermissionDenied => "choose a port from 1024 up with --port",
            _ => "choose another address with --host or another port with --port",
        };
        Failure::Address(format!("{address} cannot be listened on: {error}; expected a free port\nhint: {hint}"))
    })?;
    listener
        .set_nonblocking(true)
        .and_then(|()| tokio::net::TcpListener::from_std(listener))
        .map_err(|error| Failure::Address(format!("{address} cannot be listened on: {error}")))
}
