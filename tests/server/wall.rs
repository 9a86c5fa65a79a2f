//! The outer wall, by real sockets: what dribbles, floods, says nonsense or takes nothing in is closed, and nobody else
//! notices.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_util::sync::CancellationToken;
use xverse_chat::{
    chat::{event::EndReason, ids::GenerationId},
    server::{config::Limits, listener::serve},
};

use crate::{
    client::{SOMEBODY, cookie, generation, say},
    house::{ANSWER, House, Plan},
    process::Running,
    program::Program,
};

/// Longer than anything here may take.
const TIME: Duration = Duration::from_secs(20);

/// A house behind its wall.
struct Wall {
    house: House,
    address: SocketAddr,
    closed: CancellationToken,
    runtime: Runtime,
}

impl Drop for Wall {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

impl Wall {
    fn build(limits: Limits) -> Self {
        Self::around(Plan { limits, ..Plan::default() }, "127.0.0.1")
    }

    fn around(plan: Plan, host: &str) -> Self {
        let runtime = Runtime::new().unwrap();
        let (closed, limits) = (CancellationToken::new(), plan.limits.clone());
        let (house, address) = runtime.block_on(async {
            let house = House::build(plan);
            let listener = TcpListener::bind((host, 0)).await.unwrap();
            let address = listener.local_addr().unwrap();
            let (router, closed) = (house.router.clone(), closed.clone());
            tokio::spawn(async move { serve(listener, router, &limits, &closed).await });
            (house, address)
        });
        Self { house, address, closed, runtime }
    }

    /// Opens an answer's events and reads nothing of them yet.
    fn follow(&self, mut stream: TcpStream, id: GenerationId) -> TcpStream {
        let cookie = format!("cookie: {}\r\n\r\n", cookie(SOMEBODY));
        let request = get(&format!("/generations/{id}/events")).replace("\r\n\r\n", &format!("\r\n{cookie}"));
        stream.write_all(request.as_bytes()).unwrap();
        until("the stream is open", || self.house.server.metrics.event_streams.get() == 1);
        stream
    }

    /// Sends this on a connection of its own; all that comes back until the server closes it.
    fn ask(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = connect(self.address);
        // Who is refused half-way may be closed before all of it is out.
        let _ = stream.write_all(request.as_ref());
        rest(&mut stream)
    }

    fn is_well(&self) -> bool {
        status(&self.ask(get("/healthz"))) == Some(200)
    }
}

/// The limits, but for how often one may ask.
fn plenty() -> Limits {
    Plan::default().limits
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TIME)).unwrap();
    stream
}

/// What comes until the connection is closed, in order or not.
fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    loop {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(&part[..n]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&bytes)),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
}

fn post(path: &str, headers: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n{headers}\r\n{body}"
    )
}

fn status(reply: &str) -> Option<u16> {
    reply.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

/// Looks every few milliseconds until it is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIME;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether the other end has this connection open still; what it says is kept.
fn is_open(stream: &mut TcpStream, said: &mut String) -> bool {
    let mut part = [0; 1024];
    match stream.read(&mut part) {
        Ok(0) => false,
        Ok(n) => {
            said.push_str(&String::from_utf8_lossy(&part[..n]));
            true
        }
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

#[test]
fn five_hundred_dribbling_heads_delay_no_page_and_are_closed_in_time() {
    let program = Program::new();
    program.settings("[limits]\nheader_s = 3\n");
    program.model(json!({}));
    let mut running = Running::run(program.command(&["--port=0", "--model_path=model"]), program);
    running.line("loaded");
    let begun = Instant::now();
    let mut dribbling: Vec<TcpStream> =
        (0..500).map(|_| TcpStream::connect(running.address.as_str()).unwrap()).collect();
    for stream in &mut dribbling {
        stream.set_nonblocking(true).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nx: ").unwrap();
    }
    let mut said = String::new();
    let mut pages = Vec::new();
    let mut last_closed = begun;
    until("all are closed", || {
        if pages.len() < 9 {
            let asked = Instant::now();
            assert_eq!(running.client(0).told("GET", "/", "").0, 200);
            pages.push(asked.elapsed());
        }
        dribbling.retain_mut(|stream| stream.write_all(b"a").is_ok() && is_open(stream, &mut said));
        last_closed = Instant::now();
        dribbling.is_empty()
    });
    pages.sort();
    let median = pages[pages.len() / 2];
    assert!(median < Duration::from_millis(500), "{pages:?}");
    assert!(said.contains("HTTP/1.1 408 "), "{said:?}");
    // Those that wrote their last byte after the end are reset, which loses what was said to them.
    assert!(last_closed - begun < Duration::from_secs(10), "after {:?}", last_closed - begun);
}

#[test]
fn a_connection_that_says_nothing_is_closed_without_a_word() {
    let wall = Wall::build(Limits { header_time: Duration::from_millis(200), ..plenty() });
    assert_eq!(wall.ask(""), "");
    let mut between = connect(wall.address);
    between.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let reply = rest(&mut between);
    assert!(reply.ends_with("ok\n"), "{reply}");
}

#[test]
fn there_are_no_more_connections_than_the_limits_allow() {
    let wall = Wall::build(Limits { connections: 8, ..plenty() });
    let mut held: Vec<TcpStream> = (0..8).map(|_| connect(wall.address)).collect();
    for stream in &mut held {
        // Answered, so it has its place.
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        assert_eq!(stream.read(&mut [0; 12]).unwrap(), 12);
    }
    assert_eq!(wall.ask(get("/healthz")), "", "the ninth is closed");
    held.pop();
    until("the place is free again", || wall.is_well());
}

#[test]
fn one_address_has_no_more_connections_than_the_limits_allow() {
    let Some(own) = own_address() else {
        println!("skipped: this machine has no address but its loopback");
        return;
    };
    let wall = Wall::around(Plan::default(), "0.0.0.0");
    let address = SocketAddr::new(own, wall.address.port());
    let mut held: Vec<TcpStream> = (0..64).map(|_| connect(address)).collect();
    for stream in &mut held {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        assert_eq!(stream.read(&mut [0; 12]).unwrap(), 12);
    }
    assert_eq!(rest(&mut connect(address)), "", "the 65th is closed");
    let mut loopback = connect(SocketAddr::new([127, 0, 0, 1].into(), address.port()));
    loopback.write_all(get("/healthz").as_bytes()).unwrap();
    assert_eq!(status(&rest(&mut loopback)), Some(200), "this machine itself is not counted");
}

/// An address of this machine that is not its loopback; nothing is sent to find it.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

#[test]
fn a_head_has_64_headers_at_most() {
    let wall = Wall::build(plenty());
    for (n, expected) in [(64, 200), (65, 431)] {
        let more = "x: y\r\n".repeat(n - 2);
        let reply = wall.ask(get("/healthz").replace("\r\n\r\n", &format!("\r\n{more}\r\n")));
        assert_eq!(status(&reply), Some(expected), "{n}: {reply}");
    }
    assert!(wall.is_well());
}

#[test]
fn a_head_has_64_kib_at_most() {
    let wall = Wall::build(plenty());
    let frame = get("/healthz").replace("\r\n\r\n", "\r\nx: VALUE\r\n\r\n");
    let room = 64 * 1024 - (frame.len() - "VALUE".len());
    for (length, expected) in [(room, 200), (room + 1, 431), (4 * room, 431)] {
        let reply = wall.ask(frame.replace("VALUE", &"v".repeat(length)));
        assert_eq!(status(&reply), Some(expected), "{length}: {reply}");
    }
    assert!(wall.is_well());
}

#[test]
fn a_body_has_its_bytes_and_its_time_and_no_more() {
    let limits = Limits { body_bytes: 1000, body_time: Duration::from_millis(300), ..plenty() };
    let wall = Wall::build(limits);
    let body = |n: usize| format!("{:<n$}", json!({ "conversation": null }).to_string());
    for (n, expected) in [(1000, 200), (1001, 413)] {
        let declared = post("/api/page", &format!("content-length: {n}\r\n"), &body(n));
        let chunked =
            post("/api/page", "transfer-encoding: chunked\r\n", &format!("{n:x}\r\n{}\r\n0\r\n\r\n", body(n)));
        for request in [declared, chunked] {
            let reply = wall.ask(request);
            assert_eq!(status(&reply), Some(expected), "{reply}");
        }
    }
    let begun = Instant::now();
    let reply = wall.ask(post("/api/page", "content-length: 1000\r\n", "{"));
    assert_eq!(status(&reply), Some(408), "{reply}");
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

#[test]
fn odd_requests_get_an_answer_below_500_or_none() {
    let wall = Wall::build(plenty());
    let body = json!({ "conversation": null }).to_string();
    let length = body.len();
    let line = |line: &str| get("/").replace("GET / HTTP/1.1", line);
    let with = |header: &str| get("/healthz").replace("\r\n\r\n", &format!("\r\n{header}\r\n\r\n"));
    for (request, expected) in [
        (
            post("/api/page", &format!("content-length: {length}\r\ncontent-length: {}\r\n", length + 1), &body),
            Some(400),
        ),
        (post("/api/page", "content-length: -1\r\n", &body), Some(400)),
        (post("/api/page", "content-length: 18446744073709551616\r\n", &body), Some(400)),
        (post("/api/page", "content-length: 18446744073709551615\r\n", &body), None),
        (post("/api/page", "transfer-encoding: gzip\r\n", &body), Some(400)),
        (post("/api/page", "transfer-encoding: chunked, gzip\r\n", &body), Some(400)),
        (post("/api/page", "transfer-encoding: chunked\r\n", "FFFFFFFFFFFFFFFFF\r\n"), Some(400)),
        (post("/api/page", "transfer-encoding: chunked\r\n", "-1\r\n"), Some(400)),
        (line("GET http://localhost/healthz HTTP/1.1"), Some(200)),
        (line("GET http://evil.test/healthz HTTP/1.1"), Some(421)),
        (line("CONNECT localhost:22 HTTP/1.1"), Some(400)),
        (line("OPTIONS * HTTP/1.1"), None),
        (line("TRACE / HTTP/1.1"), Some(405)),
        (line("GET /healthz HTTP/9.9"), Some(400)),
        (line("GET /healthz"), None),
        (line("get / HTTP/1.1"), Some(405)),
        (line("\0 / HTTP/1.1"), Some(400)),
        (line(&format!("GET /{} HTTP/1.1", "a".repeat(65_535))), None),
        (
            with("upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: a"),
            Some(200),
        ),
        (with("host: localhost"), Some(421)),
        (with("x: a\0b"), Some(400)),
        (with("x : a"), Some(400)),
        (with("x: a\r\n b"), Some(400)),
        (with("expect: 100-continue"), Some(200)),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), None),
        ("\r\n\r\n\r\n".to_owned() + &get("/healthz"), None),
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0".to_owned() + &"\r\n".repeat(9), None),
    ] {
        let reply = wall.ask(&request);
        let shown: String = request.chars().take(120).collect();
        match (status(&reply), expected) {
            (found, Some(_)) => assert_eq!(found, expected, "{shown:?}: {reply}"),
            (found, None) => assert!(found.is_none_or(|found| (200..500).contains(&found)), "{shown:?}: {reply}"),
        }
    }
    assert!(wall.is_well());
}

#[test]
fn a_length_beside_chunks_is_not_believed() {
    let wall = Wall::build(plenty());
    let body = json!({ "conversation": null }).to_string();
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for headers in
        ["content-length: 5\r\ntransfer-encoding: chunked\r\n", "transfer-encoding: chunked\r\ncontent-length: 5\r\n"]
    {
        let reply = wall.ask(post("/api/page", headers, &chunked));
        assert_eq!(status(&reply), Some(200), "{reply}");
        assert_eq!(reply.matches("HTTP/1.1").count(), 1, "one request was one request: {reply}");
    }
}

#[test]
fn ten_thousand_chunks_of_one_byte_are_one_body() {
    let wall = Wall::build(plenty());
    let body = format!("{:<10000}", json!({ "conversation": null }).to_string());
    let chunks: String = body.chars().flat_map(|byte| ['1', '\r', '\n', byte, '\r', '\n']).collect();
    let reply = wall.ask(post("/api/page", "transfer-encoding: chunked\r\n", &format!("{chunks}0\r\n\r\n")));
    assert_eq!(status(&reply), Some(200), "{reply}");
}

#[test]
fn a_hundred_requests_at_once_get_a_hundred_answers_in_order() {
    let wall = Wall::build(plenty());
    let one = get("/healthz").replace("connection: close\r\n", "");
    let other = one.replace("healthz", "no/such/page");
    let reply = wall.ask(
        [one, other].concat().repeat(49) + &get("/healthz").replace("connection: close\r\n", "") + &get("/healthz"),
    );
    let statuses: Vec<&str> =
        reply.match_indices("HTTP/1.1 ").map(|(at, found)| &reply[at + found.len()..][..3]).collect();
    let expected: Vec<&str> = ["200", "404"].repeat(49).into_iter().chain(["200", "200"]).collect();
    assert_eq!(statuses, expected);
}

#[test]
fn no_spelling_of_a_path_leads_out_of_the_pages_folder() {
    let wall = Wall::build(plenty());
    let mut paths: Vec<String> = [
        "/Leptos.toml",
        "/xverse.db",
        "/Cargo.toml",
        "/.git/HEAD",
        "/models/xverse-mini/model.safetensors",
        "//etc/passwd",
        "/pkg//etc/passwd",
        "/%2fetc%2fpasswd",
        "/pkg/%2fetc%2fpasswd",
        "/file:///etc/passwd",
        "/%00",
        "/pkg/xverse-chat.css%00",
        "/pkg/xverse-chat.css/../../../Leptos.toml",
        "/proc/self/environ",
    ]
    .map(str::to_owned)
    .into();
    for start in ["/", "/pkg/"] {
        for up in ["..", "%2e%2e", ".%2E", "%252e%252e", "....", "..;", "..%00", "%c0%ae%c0%ae"] {
            for separator in ["/", "%2f", "\\", "%5C", "//", "%252f"] {
                let climb = format!("{up}{separator}").repeat(if start == "/" { 1 } else { 2 });
                paths.push(format!("{start}{climb}Leptos.toml"));
            }
        }
    }
    assert!(paths.len() >= 60, "{}", paths.len());
    for path in paths {
        let reply = wall.ask(get(&path));
        assert!(matches!(status(&reply), Some(400 | 404)), "{path}: {reply}");
        for secret in [crate::house::SECRET, "root:", "[package]"] {
            assert!(!reply.contains(secret), "{path}: {reply}");
        }
    }
    assert!(wall.is_well());
}

#[test]
fn a_reader_that_reads_nothing_is_closed_and_its_answer_goes_on() {
    let answer: &'static str = ("**a** ".repeat(40) + "\n\n").repeat(70).leak();
    let stalled_write = Duration::from_millis(500);
    let limits = Limits { max_new_tokens: 20_000, stalled_write, ..plenty() };
    let plan = Plan { answer: Some(answer), is_held: true, context: 40_000, limits, ..Plan::default() };
    let wall = Wall::around(plan, "127.0.0.1");
    let mut command = say("hello");
    command.settings.max_new_tokens = Some(20_000);
    let started = wall.runtime.block_on(wall.house.started(&command));
    let id = generation(&started);

    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    socket.connect(&wall.address.into()).unwrap();
    let mut reader = wall.follow(TcpStream::from(socket), id);
    reader.set_read_timeout(Some(TIME)).unwrap();
    let begun = Instant::now();
    wall.house.gate.open();
    until("the stream is closed", || wall.house.server.metrics.event_streams.get() == 0);
    assert!(begun.elapsed() >= stalled_write);
    let taken = rest(&mut reader);
    assert!(taken.contains("id: ") && !taken.contains("\"end\":"), "it was closed before its end: {}", taken.len());

    let screen = wall.runtime.block_on(wall.house.whole(id));
    assert_eq!((screen.reason(), screen.text()), (EndReason::EndOfText, answer));
}

#[test]
fn a_reader_that_drops_ends_its_stream_and_nothing_else() {
    let wall = Wall::around(Plan { is_held: true, ..Plan::default() }, "127.0.0.1");
    let id = generation(&wall.runtime.block_on(wall.house.started(&say("hello"))));
    let end = |reader: TcpStream| {
        drop(reader);
        until("the stream is closed", || wall.house.server.metrics.event_streams.get() == 0);
    };
    // Before there is any text, with the connection ended and with it reset; then with unread text.
    end(wall.follow(connect(wall.address), id));
    let reset = wall.follow(connect(wall.address), id);
    socket2::SockRef::from(&reset).set_linger(Some(Duration::ZERO)).unwrap();
    end(reset);
    let in_the_middle = wall.follow(connect(wall.address), id);
    wall.house.gate.pass(5);
    until("there is something to read", || in_the_middle.peek(&mut [0; 200]).unwrap() == 200);
    end(in_the_middle);
    wall.house.gate.open();
    let screen = wall.runtime.block_on(wall.house.whole(id));
    assert_eq!((screen.reason(), screen.text()), (EndReason::EndOfText, ANSWER));
}

/// From here on whatever is sent to this socket is lost on the way: nothing of it is acknowledged, nothing refused.
#[cfg(target_os = "linux")]
fn lose_all_packets(stream: &TcpStream) {
    const RETURN: u16 = 0x06;
    const NO_BYTES: u32 = 0;
    socket2::SockRef::from(stream).attach_filter(&[socket2::SockFilter::new(RETURN, 0, 0, NO_BYTES)]).unwrap();
}

#[test]
#[cfg(target_os = "linux")]
fn a_reader_that_falls_silent_is_given_up_and_its_answer_goes_on() {
    let limits = Limits { stalled_write: Duration::from_secs(1), ..plenty() };
    let wall = Wall::around(Plan { is_held: true, limits, ..Plan::default() }, "127.0.0.1");
    let id = generation(&wall.runtime.block_on(wall.house.started(&say("hello"))));
    // While there is nothing to say to it, and while there is.
    for n_said in [0, 5] {
        let silent = wall.follow(connect(wall.address), id);
        lose_all_packets(&silent);
        wall.house.gate.pass(n_said);
        until("it is given up", || wall.house.server.metrics.event_streams.get() == 0);
        drop(silent);
    }
    wall.house.gate.open();
    let screen = wall.runtime.block_on(wall.house.whole(id));
    assert_eq!((screen.reason(), screen.text()), (EndReason::EndOfText, ANSWER));
}

#[test]
fn told_to_close_idle_connections_end_at_once_and_a_stream_ends_with_its_answer() {
    let wall = Wall::around(Plan { is_held: true, ..Plan::default() }, "127.0.0.1");
    let mut idle = connect(wall.address);
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    assert_eq!(idle.read(&mut [0; 12]).unwrap(), 12);
    let id = generation(&wall.runtime.block_on(wall.house.started(&say("hello"))));
    let mut stream = wall.follow(connect(wall.address), id);
    wall.closed.cancel();
    rest(&mut idle);
    until("nobody else is let in", || TcpStream::connect(wall.address).is_err());
    wall.house.gate.open();
    assert!(rest(&mut stream).contains("\"end\":"));
}

#[test]
fn without_descriptors_the_program_waits_quietly_and_recovers() {
    let program = Program::new();
    program.settings("[limits]\nheader_s = 60\n");
    program.model(json!({}));
    let command = program.command_with_descriptors(64, &["--port=0", "--model_path=model"]);
    let mut running = Running::run(command, program);
    running.line("loaded");
    let process = format!("/proc/{}", running.child.id());
    // Those that it was started with may have higher numbers than it may give itself.
    let is_own = |entry: &fs::DirEntry| entry.file_name().to_str().unwrap().parse::<u32>().unwrap() < 64;
    let entries = || fs::read_dir(format!("{process}/fd")).unwrap();
    let descriptors = || entries().filter(|entry| is_own(entry.as_ref().unwrap())).count();
    let before = descriptors();
    let held: Vec<TcpStream> = (0..80)
        .map(|_| {
            let mut stream = TcpStream::connect(running.address.as_str()).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
            stream
        })
        .collect();
    until("no descriptor is left", || descriptors() == 64);
    let (begun, used) = (Instant::now(), cpu_time(&process));
    until("two seconds have gone by", || begun.elapsed() > Duration::from_secs(2));
    let share = cpu_time(&process).saturating_sub(used).as_secs_f64() / begun.elapsed().as_secs_f64();
    assert!(share < 0.2, "{share} of a core");
    drop(held);
    assert_eq!(running.client(0).told("GET", "/healthz", "").0, 200);
    until("the descriptors are back", || descriptors() <= before + 2);
}

/// Processor time of a process so far, of all its threads.
fn cpu_time(process: &str) -> Duration {
    let stat = fs::read_to_string(format!("{process}/stat")).unwrap();
    // The name, in parentheses, may hold blanks; user and system time are the 12th and 13th behind it, in hundredths.
    let behind = stat.rsplit_once(')').unwrap().1;
    let ticks: u64 = behind.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}
