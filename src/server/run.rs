//! What the program does, from the command line to its end.
//!
//! To serve: listen first, so that the page is there while the model loads; load on a thread of its own; say once what has
//! been loaded; go down when told to.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    bench::bench,
    check::check,
    cli::{Cli, Command, ServeArgs},
    config::{Config, environment},
    failure::Failure,
    log, report,
    router::router,
    shutdown::{Signals, until_told},
    state::{Ready, Server},
};
use crate::engine::{
    load::{DeviceChoice, LoadError, LoadOptions, Loaded, load},
    worker::{EngineHandle, EngineOptions},
};

/// Does what was asked for; comes back when it is done.
///
/// # Errors
/// [`Failure`], whose text belongs on the terminal and whose status is the program's.
pub fn run(cli: Cli) -> Result<(), Failure> {
    log::start();
    match cli.command {
        None => serve(cli.serve),
        Some(Command::Serve(args)) => serve(*args),
        Some(Command::Check(args)) => check(&args).map(|report| print!("{report}")),
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
    let address = listener.local_addr().map_err(|error| Failure::Address(format!("the port is unknown: {error}")))?;
    println!("listening on http://{address}");
    if config.is_stand_in {
        println!(
            "no --model_path was given and there is no ./XVERSE-13B-Chat: this is the mini model, which knows its training \
             dialogues and nothing else"
        );
    }
    let server = Server::new(config.title, config.limits);
    let app = router(server.clone(), config.leptos, &config.allowed_hosts);
    let closed = CancellationToken::new();
    let serving = axum::serve(listener, app).with_graceful_shutdown(closed.clone().cancelled_owned());
    let serving = tokio::spawn(serving.into_future());
    let ended = load_and_serve(&server, signals, config.load, config.engine, &closed).await;
    if closed.is_cancelled() {
        // Connections that only stay open are closed at once; those that do not close are not waited for.
        let _ = tokio::time::timeout(std::time::Duration::from_millis(500), serving).await;
    }
    ended
}

/// Loads the model, then serves until told to end. Cancels `closed` where connections are to be closed in order.
async fn load_and_serve(
    server: &Arc<Server>,
    mut signals: Signals,
    options: LoadOptions,
    engine: EngineOptions,
    closed: &CancellationToken,
) -> Result<(), Failure> {
    let asked = options.device;
    let engine = tokio::select! {
        loaded = load_on_a_thread(options) => take_in(server, loaded, asked, engine)?,
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
) -> Result<EngineHandle, Failure> {
    let refused = |message: String| {
        server.set_unavailable("the model could not be loaded");
        Failure::Refused(message)
    };
    let loaded = loaded
        .ok_or_else(|| refused("loading the model broke off; the lines above say where".to_owned()))?
        .map_err(|error| refused(error.to_string()))?;
    let engine = EngineHandle::spawn(loaded.backend, loaded.tokenizer, loaded.eos_token_id, options);
    let report = report::loaded(&loaded.info, asked);
    server.set_ready(Ready { engine: engine.clone(), prompts: loaded.prompts, model: loaded.info });
    // Who reads it may ask at once.
    print!("{report}");
    Ok(engine)
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
