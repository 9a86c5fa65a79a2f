//! The outer wall: takes connections in, bounds them, and hands their requests to the router.
//!
//! Owns what axum's own loop has no limits for: how large a request's head may be and how long it may take, how many
//! connections there are at once, and how long one goes on whose reader takes nothing. Knows nothing of what is asked.
//! **Architecture Invariant:** nothing that a peer does, or leaves undone, keeps the next one from being accepted.

mod places;
mod stall;

use std::{convert::Infallible, io, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use axum::{Router, body::Body, http::Request};
use hyper::{
    body::Incoming,
    server::conn::http1::{Builder, Connection},
    service::{HttpService, Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    places::{Place, Places},
    stall::Stalling,
};
use super::config::Limits;

/// How long nothing is accepted after the system had no room for a connection.
const PAUSE: Duration = Duration::from_millis(200);

/// Bytes that the system may keep of an answer before they go out. Beyond it, writing waits, and a reader that takes
/// nothing is noticed.
const UNSENT_BYTES: u32 = 64 * 1024;

/// The smallest buffer that the HTTP library works with.
const LEAST_BUFFER_BYTES: usize = 8 * 1024;

/// What is said to whoever did not finish a request's head in time.
const TOO_LATE: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Who asks: the other end of the connection, which behind a proxy is the proxy. An extension of each request that came
/// through a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// Serves connections until `closed` is cancelled, then lets those that are busy end their answer. Comes back when the
/// last one is over.
pub async fn serve(listener: TcpListener, app: Router, limits: &Limits, closed: &CancellationToken) {
    let wall = Arc::new(Wall {
        http: http(limits),
        app: TowerToHyperService::new(app),
        stalled_write: limits.stalled_write,
        closed: closed.clone(),
    });
    let places = Places::new(limits.connections, limits.connections_per_address);
    let connections = TaskTracker::new();
    let mut is_short_of_room = false;
    while let Some(accepted) = closed.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                is_short_of_room = false;
                let peer = peer.ip().to_canonical();
                // Without a place it is dropped, which closes it.
                if let Some(place) = places.take(peer) {
                    connections.spawn(wall.clone().serve(stream, peer, place));
                }
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut is_short_of_room, true) {
                    tracing::warn!(%error, "connections cannot be accepted for now");
                }
                closed.run_until_cancelled(sleep(PAUSE)).await;
            }
        }
    }
    // Whoever comes now is refused by the system.
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Whether it was the connection that failed, and not accepting.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
    )
}

fn http(limits: &Limits) -> Builder {
    let mut http = Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_time)
        .max_headers(limits.header_count)
        .max_header_size(limits.header_bytes)
        .max_buf_size(limits.header_bytes.max(LEAST_BUFFER_BYTES));
    http
}

/// What all connections share.
struct Wall {
    http: Builder,
    app: TowerToHyperService<Router>,
    stalled_write: Duration,
    closed: CancellationToken,
}

impl Wall {
    async fn serve(self: Arc<Self>, stream: TcpStream, peer: IpAddr, _place: Place) {
        if let Err(error) = prepare(&stream, self.stalled_write) {
            // It has gone already, as a rule; then that shows below, too.
            tracing::debug!(%error, "a connection could not be set up");
        }
        let answer = service_fn(|request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer));
            self.app.call(request)
        });
        let io = TokioIo::new(Stalling::new(stream, self.stalled_write));
        self.run(self.http.serve_connection(io, answer)).await;
    }

    async fn run<S>(&self, mut connection: Connection<TokioIo<Stalling>, S>)
    where
        S: HttpService<Incoming, ResBody = Body, Error = Infallible>,
    {
        let served = if let Some(served) = self.closed.run_until_cancelled(&mut connection).await {
            served
        } else {
            Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        };
        let Err(error) = served else { return };
        tracing::debug!(%error, "a connection broke off");
        let parts = connection.into_parts();
        // One that lay idle between two requests is closed without a word: its client has asked for nothing.
        if error.is_timeout() && !parts.read_buf.is_empty() {
            parts.io.inner().say_at_once(TOO_LATE);
        }
    }
}

/// Sets up a connection so that its events go out at once, and a peer that has vanished is noticed after `silence`.
fn prepare(stream: &TcpStream, silence: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time((silence / 2).max(Duration::from_secs(1)))
        .with_interval((silence / 6).max(Duration::from_secs(1)));
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_user_timeout(Some(silence))?;
        socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_set_up_to_notice_a_peer_that_vanished() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (stream, _) = accepted.unwrap();
        prepare(&stream, Duration::from_secs(30)).unwrap();
        let socket = SockRef::from(&stream);
        assert!(stream.nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(15));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(5));
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(30)));
        // Less than a second is what tests are served with.
        prepare(&stream, Duration::from_millis(10)).unwrap();
        drop(client);
    }

    #[test]
    fn only_a_failure_of_the_connection_itself_is_passed_over_at_once() {
        for (code, is_of_one) in [(103, true), (104, true), (24, false), (23, false), (105, false), (12, false)] {
            // ECONNABORTED, ECONNRESET; EMFILE, ENFILE, ENOBUFS, ENOMEM.
            assert_eq!(is_of_one_connection(&io::Error::from_raw_os_error(code)), is_of_one, "{code}");
        }
    }
}
