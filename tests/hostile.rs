//! A hub that answers anything: no worker dies, no client waits for ever, and nobody gets a byte of
//! an answer that was meant for somebody else.
//!
//! ```text
//! make hostile MINUTES=20 [SEED=number]
//! ```
//!
//! Every request names an *item*, and every byte of content that the hub sends for it, honest or
//! not, is the item's mark, again and again. What the hub does to a request follows from the seed,
//! the host, the item, and how often it was asked there. Among the tests it runs for some seconds.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so and stops"
)]

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rules::digest::Digest;
use support::{
    Answer, Certificate, Connection, Dns, End, Framing, Hub, Kind, Nginx, OWN_REGISTRY, REGISTRY,
    Random, Recorded, Reply, Request, Step, everything, request,
};

const CDNS: [&str; 2] = ["cdn-a.example", "cdn-b.example"];
const FALLBACKS: [&str; 2] = ["fallback-a.example", "fallback-b.example"];

const TIMEOUTS: &str = "proxy_connect_timeout 500ms; proxy_read_timeout 500ms;
                        proxy_send_timeout 500ms; resolver_timeout 500ms;";
/// Longer than all time-outs of a request together: five redirects, two fallbacks, slow bodies.
const PATIENCE: Duration = Duration::from_secs(40);

const CLIENTS: usize = 24;
/// Items that many clients ask for; all others are asked for once.
const POPULAR: usize = 24;

#[test]
fn a_hostile_hub_harms_nobody() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let (time, seed) = match number("MINUTES") {
        Some(minutes) => {
            let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
            (Duration::from_secs(60 * minutes), number("SEED").unwrap_or(now))
        }
        None => (Duration::from_secs(15), 1),
    };
    println!("hostile: SEED={seed}, {} s", time.as_secs());

    let hub = Hub::start();
    hub.record(false);
    for host in CDNS.iter().chain(&FALLBACKS) {
        hub.add_host_as(host, Kind::Blank);
    }
    let fallbacks = FALLBACKS.map(|host| format!("https://{host}")).join(" ");
    let nginx = everything(&hub, &fallbacks).http(TIMEOUTS).workers(2).log_level("crit");
    for host in all_hosts() {
        let visits: Vec<AtomicU32> = (0..65_536).map(|_| AtomicU32::new(0)).collect();
        hub.route(host, move |request| answer(seed, host, request, &visits));
    }
    let nginx = nginx.start();

    let end = Instant::now() + time;
    let tally = Tally::default();
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (nginx, tally) = (&nginx, &tally);
            scope.spawn(move || run(client, seed, nginx, tally, end));
        }
        trouble(&hub, seed, end, &tally);
    });

    println!("hostile: {tally}");

    let problems = tally.problems.into_inner().unwrap();
    let log = nginx.accesses();
    let concerned = log.lines().filter(|line| {
        item_of(line).is_some_and(|item| problems.iter().any(|problem| problem.contains(item)))
    });
    assert!(
        problems.is_empty(),
        "SEED={seed}\n{}\n{}",
        problems.join("\n"),
        concerned.collect::<Vec<_>>().join("\n")
    );
    let counts = tally.counts.into_inner().unwrap();
    let count = |name: &str| counts.get(name).copied().unwrap_or_default();
    assert!(count("honest: whole") * 10 > count("honest: asked") * 8, "{counts:?}");
    assert!(count("200") > 0 && count("502") > 0, "{counts:?}");
    let from_memory = log.lines().filter(|line| line.contains(" HIT ")).count();
    assert!(count("verified") > 0 && from_memory > 0, "{counts:?}, {from_memory} from memory");
}

fn all_hosts() -> impl Iterator<Item = &'static str> {
    [REGISTRY, OWN_REGISTRY].into_iter().chain(CDNS).chain(FALLBACKS)
}

// Items.

/// `i` and 13 digits; with angle brackets, its mark has 16 bytes.
fn item(number: usize) -> String {
    format!("i{number:013}")
}

/// The items whose marks are in these bytes.
fn marks(bytes: &[u8]) -> impl Iterator<Item = &str> {
    bytes.windows(16).filter_map(|window| {
        let mark = window.strip_prefix(b"<")?.strip_suffix(b">")?;
        let is_item = mark[0] == b'i' && mark[1..].iter().all(u8::is_ascii_digit);
        is_item.then(|| std::str::from_utf8(mark).expect("ASCII"))
    })
}

fn item_of(uri: &str) -> Option<&str> {
    let at = uri
        .as_bytes()
        .windows(14)
        .position(|window| window[0] == b'i' && window[1..].iter().all(u8::is_ascii_digit))?;
    uri.get(at..at + 14)
}

fn content(seed: u64, item: &str) -> Vec<u8> {
    let mut chance = Random::new(seed, &format!("size {item}"));
    let most = if chance.percent(10) { 20_000 } else { 200 };
    format!("<{item}>").into_bytes().repeat(chance.below(most))
}

/// What the hub does with this item is honest, everywhere.
fn is_honest(seed: u64, item: &str) -> bool {
    Random::new(seed, &format!("honest {item}")).percent(30)
}

// The hub.

/// A response in the making; lines without their ends.
struct Draft {
    start: Vec<u8>,
    lines: Vec<Vec<u8>>,
    end_of_line: &'static [u8],
    /// As framed.
    body: Vec<u8>,
    /// A response that nobody asked for is in it.
    is_smuggling: bool,
}

fn answer(seed: u64, host: &str, request: &Recorded, visits: &[AtomicU32]) -> Reply {
    let Some(item) = item_of(&request.uri) else { return Reply::Raw(vec![Step::End(End::Close)]) };
    let mut chance = Random::new(seed, item);
    let visit = visits[chance.below(visits.len())].fetch_add(1, Ordering::Relaxed);
    let mut chance = Random::new(seed, &format!("{host} {item} {visit}"));
    let honest = is_honest(seed, item);
    let mut draft = draft(seed, host, request, item, honest, &mut chance);
    if honest {
        return Reply::Raw(vec![Step::send(draft.bytes())]);
    }
    for _ in 0..chance.below(4) {
        draft.spoil(item, &mut chance);
    }
    Reply::Raw(delivery(&draft, &mut chance))
}

/// What an honest host answers.
fn draft(
    seed: u64,
    host: &str,
    request: &Recorded,
    item: &str,
    honest: bool,
    chance: &mut Random,
) -> Draft {
    let is_cdn = CDNS.contains(&host);
    let redirects = if is_cdn { !honest && chance.percent(15) } else { chance.percent(60) };
    let mut lines = vec![format!("X-Mark: <{item}>")];
    let mut body = content(seed, item);
    let mut status = "200 OK";
    if redirects {
        status = chance.pick(&["307 Temporary Redirect", "302 Found", "301 Moved", "308 Moved"]);
        let cdn = chance.pick(&CDNS);
        lines.push(format!("Location: https://{cdn}/data/{item}?signature=%2F{item}"));
        body = format!("<{item}>").into_bytes();
    } else if !honest && chance.percent(25) {
        status = chance.pick(&[
            "401 Unauthorized",
            "403 Forbidden",
            "404 Not Found",
            "429 Too Many Requests",
            "500 Internal Server Error",
            "502 Bad Gateway",
            "503 Service Unavailable",
        ]);
        body = format!("{{\"errors\":[{{\"code\":\"X\",\"message\":\"<{item}>\"}}]}}").into_bytes();
        lines.push("Content-Type: application/json".to_owned());
    } else {
        lines.push("Content-Type: application/octet-stream".to_owned());
        let digest = match chance.below(10) {
            0 if !honest => "0".repeat(64),
            _ => Digest::of(&body).to_string(),
        };
        lines.push(format!("Docker-Content-Digest: {digest}"));
        lines.push(format!("ETag: \"<{item}>\""));
        let first = request.header("range").and_then(|range| {
            range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()
        });
        if let Some(first) = first.filter(|first| *first < body.len()) {
            status = "206 Partial Content";
            lines.push(format!("Content-Range: bytes {first}-{}/{}", body.len() - 1, body.len()));
            body.drain(..first);
        }
    }
    let chunked = chance.percent(20);
    if chunked {
        lines.push("Transfer-Encoding: chunked".to_owned());
    } else {
        lines.push(format!("Content-Length: {}", body.len()));
    }
    body = match (request.method.as_str(), chunked) {
        ("HEAD", _) => Vec::new(),
        (_, true) => chunks(&body, 1 + chance.below(5000)),
        (_, false) => body,
    };
    Draft {
        start: format!("HTTP/1.1 {status}").into_bytes(),
        lines: lines.into_iter().map(String::into_bytes).collect(),
        end_of_line: b"\r\n",
        body,
        is_smuggling: false,
    }
}

fn chunks(body: &[u8], size: usize) -> Vec<u8> {
    let mut framed = Vec::new();
    for chunk in body.chunks(size) {
        framed.extend(format!("{:x}\r\n", chunk.len()).bytes());
        framed.extend(chunk);
        framed.extend(b"\r\n");
    }
    framed.extend(b"0\r\n\r\n");
    framed
}

/// A whole response that nobody asked for.
fn smuggled(item: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: 32\r\nX-Mark: <{item}>\r\n\r\n<{item}><{item}>")
        .into_bytes()
}

impl Draft {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.start.clone();
        bytes.extend(self.end_of_line);
        for line in &self.lines {
            bytes.extend(line);
            bytes.extend(self.end_of_line);
        }
        bytes.extend(self.end_of_line);
        bytes.extend(&self.body);
        bytes
    }

    fn spoil(&mut self, item: &str, chance: &mut Random) {
        let mark = format!("<{item}>");
        match chance.below(17) {
            0 => {
                let starts = [
                    "HTTP/1.0 200 OK",
                    "HTTP/2 200",
                    "HTTP/1.1 200",
                    "HTTP/1.1 099 X",
                    "HTTP/1.1 999 X",
                    "HTTP/1.1 20x OK",
                    "http/1.1 200 ok",
                    "HTTP/1.1  200 OK",
                    "ICY 200 OK",
                    "",
                    "\0\0\0\0",
                    "SSH-2.0-x",
                    "HTTP/1.1 100 Continue",
                    "HTTP/1.1 101 Switching Protocols",
                    "HTTP/1.1 204 No Content",
                    "HTTP/1.1 206 Partial Content",
                    "HTTP/1.1 304 Not Modified",
                    "HTTP/1.1 401 Unauthorized",
                    "HTTP/1.1 416 Range",
                    "HTTP/1.1 429 Slow Down",
                    "HTTP/9.9 200 OK",
                    "HTTP/1.1 307 x",
                    "PRI * HTTP/2.0",
                ];
                self.start = chance.pick(&starts).as_bytes().to_vec();
            }
            1 => {
                let interim = chance.pick(&[
                    "HTTP/1.1 100 Continue\r\n\r\n",
                    "HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n",
                    "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
                ]);
                self.start = [interim.as_bytes(), &self.start].concat();
            }
            2..=4 => {
                let at = chance.below(self.lines.len() + 1);
                let line = hostile_line(item, chance);
                self.lines.insert(at, line);
            }
            5 => {
                let line = self.lines[chance.below(self.lines.len())].clone();
                self.lines.push(line);
            }
            6 => {
                let at = chance.below(self.lines.len());
                self.lines.swap_remove(at);
                // Not empty, for those that come behind.
                self.lines.push(b"X-Removed: 1".to_vec());
            }
            7 => {
                let at = chance.below(self.lines.len());
                let line = &mut self.lines[at];
                if !line.is_empty() {
                    let at = chance.below(line.len());
                    line[at] = chance.pick(b"\0\n\r: \t\x7f\xff\xc3\"");
                }
            }
            8 => self.body.truncate(chance.below(self.body.len() + 1)),
            9 => self.body.extend(mark.as_bytes().repeat(1 + chance.below(100))),
            10..=12 => {
                self.body.extend(smuggled(item).repeat(1 + chance.below(3)));
                self.is_smuggling = true;
            }
            13 => {
                self.lines.retain(|line| !line.starts_with(b"Content-Length"));
                self.lines.push(b"Transfer-Encoding: chunked".to_vec());
                let size = chance.pick(&[
                    "fffffffffffffffff",
                    "ffffffffffffffff",
                    "7fffffffffffffff",
                    "-1",
                    "",
                    "x",
                    "0x10",
                    "10;extension=\"\r\n\"",
                    "10 ",
                    "00000000000000000010",
                    "11",
                    "0f",
                    "+10",
                ]);
                self.body =
                    format!("{size}\r\n{mark}\r\n0\r\nX-Trailer: {mark}\r\n\r\n").into_bytes();
            }
            14 => self.end_of_line = chance.pick::<&[u8]>(&[b"\n", b"\r", b"\r\r\n", b"\n\r"]),
            15 => {
                let size = chance.pick(&[3_000, 60_000, 65_500, 70_000, 200_000]);
                self.lines.push(format!("X-Large: {}", "x".repeat(size)).into_bytes());
            }
            _ => {
                let count = chance.pick(&[100, 1000, 5000]);
                self.lines.extend((0..count).map(|n| format!("X-{n}: {mark}").into_bytes()));
            }
        }
    }
}

fn hostile_line(item: &str, chance: &mut Random) -> Vec<u8> {
    let lines: [&str; 62] = [
        "Content-Length: 0",
        "Content-Length: 16",
        "Content-Length: -1",
        "Content-Length: +16",
        "Content-Length: 0x10",
        "Content-Length: 16, 16",
        "Content-Length:",
        "Content-Length: 1e3",
        "Content-Length: 99999999999999999999",
        "Content-Length: 9223372036854775807",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding:\x0bchunked",
        "Transfer-Encoding: x",
        " folded: line",
        "\tfolded",
        "No-Colon",
        ": no name",
        "Na me: x",
        "",
        "\0",
        "X: \0",
        ":",
        "Connection: close",
        "Connection: keep-alive",
        "Connection: upgrade",
        "Upgrade: h2c",
        "Keep-Alive: timeout=0",
        "Connection: content-length",
        "Proxy-Connection: x",
        "Content-Encoding: gzip",
        "Content-Encoding: br, gzip",
        "Content-Range: bytes 0-15/16",
        "Content-Range: bytes 5-1/3",
        "Content-Range: bytes */*",
        "Accept-Ranges: none",
        "Location: /v2/library/x/blobs/ITEM",
        "Location: //cdn-a.example/ITEM",
        "Location:",
        "Location: https://cdn-a.example:0/ITEM",
        "Location: https://[::1]/ITEM",
        "Location: https://10.0.0.1/ITEM",
        "Location: http://cdn-a.example/ITEM",
        "Location: ../../../../ITEM",
        "Location: ?ITEM",
        "Location: https://nowhere.example/ITEM",
        "X-Accel-Redirect: /v2/library/x/blobs/ITEM",
        "X-Accel-Buffering: yes",
        "X-Accel-Redirect: @docker:0",
        "X-Accel-Limit-Rate: 1",
        "X-Accel-Expires: 1000",
        "WWW-Authenticate: Bearer realm=\"https://auth.docker.io/ITEM",
        "Set-Cookie: ITEM",
        "WWW-Authenticate: Bearer realm=https://auth.docker.io/token,,,=\"\\",
        "Date: yesterday",
        "Retry-After: -1",
        "Retry-After: 99999999999999999999",
        "ETag: W/\"<ITEM>\"",
        "ratelimit-remaining: 0;w=99999999999999999999",
        "Warning: 299 - \"<ITEM>\"",
    ];
    chance.pick(&lines).replace("ITEM", item).into_bytes()
}

/// How the bytes go out, and how the connection goes on.
fn delivery(draft: &Draft, chance: &mut Random) -> Vec<Step> {
    let bytes = draft.bytes();
    let at = chance.below(bytes.len() + 1);
    let pause = |chance: &mut Random| Step::Wait(Duration::from_millis(chance.number() % 40));
    let mut steps = match chance.below(20) {
        // A response that comes later, when the connection is in use again, is the answer to the
        // next request for all that HTTP/1.1 can tell.
        _ if draft.is_smuggling => vec![Step::send(&bytes)],
        0..=12 => vec![Step::send(&bytes)],
        13 | 14 => vec![Step::send(&bytes[..at]), pause(chance), Step::send(&bytes[at..])],
        15 => {
            let mut steps = Vec::new();
            for piece in bytes.chunks(bytes.len() / 20 + 1) {
                steps.extend([Step::send(piece), pause(chance)]);
            }
            steps
        }
        16 | 17 => {
            let end = chance.pick(&[End::Close, End::Truncate, End::Reset]);
            return vec![Step::send(&bytes[..at]), Step::End(end)];
        }
        18 => return vec![Step::send(&bytes[..at]), Step::Stall],
        _ => vec![pause(chance), Step::send(&bytes), Step::KeyUpdate],
    };
    match chance.below(10) {
        0 => steps.push(Step::End(End::Close)),
        1 => steps.extend([pause(chance), Step::End(End::Close)]),
        2 => steps.push(Step::End(End::Truncate)),
        3 => steps.extend([pause(chance), Step::End(End::Reset)]),
        // The connection is kept, whatever is left on it.
        _ => {}
    }
    steps
}

/// Lets hosts be in trouble, one after the other, until the end.
fn trouble(hub: &Hub, seed: u64, end: Instant, tally: &Tally) {
    let mut chance = Random::new(seed, "trouble");
    let hosts: Vec<&str> = all_hosts().collect();
    while Instant::now() < end && !tally.has_problems() {
        let host = chance.pick(&hosts);
        let pause = Duration::from_millis(50 + chance.number() % 300);
        match chance.below(12) {
            0 => hub.refuse(host),
            1 => hub.mute(host),
            2 => hub.certificate(host, Certificate::WrongName),
            3 => hub.resolve_for(host, Dns::NxDomain, 1),
            4 => hub.resolve_for(host, Dns::Silence, 1),
            5 => hub.resolve_for(host, Dns::ServFail, 1),
            6 | 7 => hub.hang_up(host),
            _ => {
                for _ in 0..chance.below(6) {
                    let spoiled: [&[u8]; 6] = [
                        b"",
                        b"HTTP/1.1 400 Bad Request\r\n\r\n",
                        // A fatal alert, half a ServerHello, a record that is too long.
                        b"\x15\x03\x03\x00\x02\x02\x28",
                        b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03",
                        b"\x17\x03\x03\xff\xff\x00\x00\x00",
                        b"\x16\x03\x03\x00\x00\x16\x03\x03\x00\x00",
                    ];
                    hub.spoil_handshake(host, chance.pick(&spoiled));
                }
            }
        }
        thread::sleep(pause);
        hub.certificate(host, Certificate::Good);
        hub.resolve_for(host, Dns::Addresses(vec![hub.address(host).into()]), 1);
        hub.accept(host);
        thread::sleep(pause * 2);
    }
}

// The clients.

#[derive(Default)]
struct Tally {
    counts: Mutex<BTreeMap<String, u64>>,
    problems: Mutex<Vec<String>>,
}

impl Tally {
    fn count(&self, what: impl Into<String>) {
        *self.counts.lock().unwrap().entry(what.into()).or_default() += 1;
    }

    fn problem(&self, what: String) {
        self.problems.lock().unwrap().push(what);
    }

    fn has_problems(&self) -> bool {
        !self.problems.lock().unwrap().is_empty()
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts = self.counts.lock().unwrap();
        let counts: Vec<String> = counts.iter().map(|(what, n)| format!("{what} {n}")).collect();
        f.write_str(&counts.join(", "))
    }
}

fn run(client: usize, seed: u64, nginx: &Nginx, tally: &Tally, end: Instant) {
    let mut kept = None;
    for number in 0.. {
        if Instant::now() > end || tally.has_problems() {
            return;
        }
        let mut chance = Random::new(seed, &format!("client {client} {number}"));
        let item = match chance.below(5) {
            0 => item(1_000_000_000_000 + chance.below(POPULAR)),
            _ => item(client * 10_000_000_000 + number),
        };
        let request = asking(seed, nginx, &item, &mut chance);
        let start = Instant::now();
        let answers = exchange(&request, &mut kept, &mut chance);
        if start.elapsed() > PATIENCE {
            tally.problem(format!("{item}: took {:?}: {request:?}: {answers:?}", start.elapsed()));
        }
        tally.count("all");
        match answers {
            Ok(answers) => {
                for answer in answers {
                    check(seed, &item, &request, &answer, tally);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tally.problem(format!("{item}: no answer within {PATIENCE:?}"));
            }
            Err(_) => tally.count("no answer"),
        }
    }
}

/// The request, and its method.
#[derive(Debug)]
struct Asked {
    request: Request,
    is_get: bool,
    /// It asks for a blob by its digest.
    is_verified: bool,
}

fn asking(seed: u64, nginx: &Nginx, item: &str, chance: &mut Random) -> Asked {
    let digest = || Digest::of(&content(seed, item));
    // `item_of` finds it, wherever it is.
    let mut target = match chance.below(6) {
        0 | 1 => format!("blobs/{item}"),
        2 | 3 => format!("blobs/{}?{item}", digest()),
        4 => format!("manifests/{}?{item}", digest()),
        _ => format!("manifests/{item}?{item}"),
    };
    let http2 = chance.percent(15);
    let several = !http2 && chance.percent(30);
    if several && chance.percent(50) {
        target.push_str(if target.contains('?') { "&" } else { "?" });
        target.push_str(&format!("ns={OWN_REGISTRY}"));
    }
    let server = if several { 2 } else { usize::from(http2) };
    let url = nginx.url_of(server, &format!("/v2/library/x/{target}"));
    let is_get = chance.percent(80);
    let method = if is_get { "GET" } else { "HEAD" };
    let mut asked = request(method, &url).patience(PATIENCE).header("Accept", "*/*");
    if http2 {
        asked = asked.http2();
    }
    if chance.percent(70) {
        asked = asked.bearer("a.b.c");
    }
    if chance.percent(10) {
        asked = asked.header("Range", format!("bytes={}-", chance.below(3000)));
    }
    if chance.percent(5) {
        asked = asked.header("If-None-Match", format!("\"<{item}>\""));
    }
    if chance.percent(20) {
        asked = asked.header("Accept-Encoding", "gzip");
    }
    let is_verified = url.contains("/blobs/sha256:");
    Asked { request: asked, is_get, is_verified }
}

/// Sends the request in one of the ways that clients have; the answers, if it waited for them.
fn exchange(
    asked: &Asked,
    kept: &mut Option<Connection>,
    chance: &mut Random,
) -> io::Result<Vec<Answer>> {
    let Asked { request, is_get, .. } = asked;
    let method = if *is_get { "GET" } else { "HEAD" };
    if request.is_http2() {
        if chance.percent(20) {
            let limit = Duration::from_millis(chance.number() % 300);
            request.abort_http2(chance.below(5000), limit)?;
            return Ok(Vec::new());
        }
        return Ok(vec![request.try_send()?]);
    }
    match chance.below(10) {
        // It leaves before the end.
        0 => {
            let mut connection = Connection::open(request)?;
            connection.start(request)?;
            thread::sleep(Duration::from_millis(chance.number() % 100));
            if chance.percent(50) {
                let _ = connection.head(method)?;
            }
            if chance.percent(50) {
                connection.reset();
            }
            Ok(Vec::new())
        }
        // Two requests at once on one connection (RFC 9112, section 9.3.2).
        1 => {
            let mut connection = Connection::open(request)?;
            connection.start(request)?;
            connection.start(request)?;
            let first = connection.answer(method)?;
            // nginx closes a connection after an answer without an end of its own.
            Ok([Ok(first), connection.answer(method)].into_iter().filter_map(Result::ok).collect())
        }
        2 | 3 => Ok(vec![request.try_send()?]),
        _ => {
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => Connection::open(request)?,
            };
            let answer = connection.send(request)?;
            if answer.complete && answer.header("connection") != Some("close") {
                *kept = Some(connection);
            }
            Ok(vec![answer])
        }
    }
}

fn check(seed: u64, item: &str, asked: &Asked, answer: &Answer, tally: &Tally) {
    tally.count(answer.status.to_string());
    let lines: String =
        answer.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    let strange = marks(lines.as_bytes()).chain(marks(&answer.body)).find(|mark| *mark != item);
    if let Some(strange) = strange {
        tally.problem(format!(
            "{item} got {strange}'s: {}\n{lines}{}",
            answer.status,
            answer.text()
        ));
    }
    let is_whole = answer.status == 200
        && answer.complete
        && answer.framing != Framing::Close
        && answer.header("content-encoding").is_none();
    if asked.is_verified && asked.is_get && is_whole {
        tally.count("verified");
        if answer.body != content(seed, item) {
            tally.problem(format!("{item}: not what its digest says\n{lines}{}", answer.text()));
        }
    }
    if is_honest(seed, item) && asked.is_get && !asked.request.has_header("range") {
        tally.count("honest: asked");
        if answer.status == 200 && answer.complete {
            let whole = answer.body == content(seed, item);
            tally.count(if whole { "honest: whole" } else { "honest: broken" });
            if !whole {
                let size = answer.body.len();
                tally.problem(format!("{item}: {size} bytes of another content\n{lines}"));
            }
        }
    }
}
