//! Clients that see every byte: HTTP/1.1 over TCP or TLS, and HTTP/2.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use socket2::SockRef;

use crate::hub::fields;
use crate::tls;

/// How long a client waits for bytes. Generous: nginx may run under valgrind.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request that a client can send any number of times.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    scheme: String,
    authority: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    ca_file: Option<PathBuf>,
    address: Option<SocketAddr>,
    http2: bool,
    patience: Duration,
}

/// What a client received.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The reason phrase; empty over HTTP/2.
    pub reason: String,
    /// Header fields in order, names in the case in which they came.
    pub headers: Vec<(String, String)>,
    /// The body, without chunked framing.
    pub body: Vec<u8>,
    /// Whether the body ended as its framing said: a cut body is not complete.
    pub complete: bool,
    /// How the body was framed.
    pub framing: Framing,
    /// What went wrong when the body is not complete.
    pub problem: Option<String>,
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    /// There is no body: HEAD, 204, 304.
    None,
    /// Content-Length.
    Length(usize),
    /// Chunks, or HTTP/2 frames.
    Chunked,
    /// The connection's end: a cut cannot be told from it.
    Close,
}

/// A GET of this URL.
#[must_use]
pub fn get(url: &str) -> Request {
    request("GET", url)
}

/// A HEAD of this URL.
#[must_use]
pub fn head(url: &str) -> Request {
    request("HEAD", url)
}

/// A request of this URL, whose path and query are sent byte for byte.
///
/// # Panics
///
/// When it is no http or https URL.
#[must_use]
pub fn request(method: &str, url: &str) -> Request {
    let (scheme, rest) = url.split_once("://").unwrap_or_else(|| panic!("no URL: {url}"));
    assert!(matches!(scheme, "http" | "https"), "no http URL: {url}");
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(at);
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    Request {
        method: method.to_owned(),
        scheme: scheme.to_owned(),
        authority: authority.to_owned(),
        target,
        headers: Vec::new(),
        body: None,
        ca_file: None,
        address: None,
        http2: false,
        patience: PATIENCE,
    }
}

impl Request {
    /// Adds a field. Host replaces the one of the URL.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Adds `Authorization: Bearer token`.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", format!("Bearer {token}"))
    }

    /// Sends a body, with its Content-Length.
    #[must_use]
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = Some(body.as_ref().to_vec());
        self
    }

    /// Trusts the certificates in this file, PEM; https needs it.
    #[must_use]
    pub fn ca(mut self, file: impl AsRef<Path>) -> Self {
        self.ca_file = Some(file.as_ref().to_owned());
        self
    }

    /// Connects to this address whatever the URL's host.
    #[must_use]
    pub fn connect(mut self, address: SocketAddr) -> Self {
        self.address = Some(address);
        self
    }

    /// Speaks HTTP/2: by ALPN over https, by prior knowledge over http.
    #[must_use]
    pub fn http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    /// Whether it speaks HTTP/2.
    #[must_use]
    pub fn is_http2(&self) -> bool {
        self.http2
    }

    /// Whether it has a field of this name, in any case.
    #[must_use]
    pub fn has_header(&self, name: &str) -> bool {
        !fields(&self.headers, name).is_empty()
    }

    /// Waits at most so long for bytes; the default is 30 seconds.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sends it on a connection of its own.
    ///
    /// # Panics
    ///
    /// When there is no answer. A cut body is an answer that is not complete.
    #[must_use]
    #[track_caller]
    pub fn send(&self) -> Answer {
        match self.try_send() {
            Ok(answer) => answer,
            Err(error) => {
                panic!(
                    "{} {}://{}{}: {error}",
                    self.method, self.scheme, self.authority, self.target
                )
            }
        }
    }

    /// Sends it on a connection of its own.
    ///
    /// # Errors
    ///
    /// When connecting, TLS, or the head of the answer fails.
    pub fn try_send(&self) -> io::Result<Answer> {
        if self.http2 {
            return self.send_http2();
        }
        let mut connection = Connection::open(self)?;
        connection.write(&self.bytes(true))?;
        connection.answer(&self.method)
    }

    fn bytes(&self, close: bool) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            bytes.push_str(&format!("Host: {}\r\n", self.authority));
        }
        for (name, value) in &self.headers {
            bytes.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body {
            bytes.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        if close {
            bytes.push_str("Connection: close\r\n");
        }
        let mut bytes = (bytes + "\r\n").into_bytes();
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }

    fn host(&self) -> &str {
        match self.authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => &self.authority,
        }
    }

    fn tcp(&self) -> io::Result<TcpStream> {
        let address = match self.address {
            Some(address) => address,
            None => {
                let port = if self.scheme == "https" { 443 } else { 80 };
                let port = match self.authority[self.host().len()..].strip_prefix(':') {
                    Some(port) => port.parse().map_err(io::Error::other)?,
                    None => port,
                };
                let host = self.host().trim_matches(['[', ']']);
                let mut addresses = (host, port).to_socket_addrs()?;
                addresses.next().ok_or(ErrorKind::NotFound)?
            }
        };
        let stream = TcpStream::connect_timeout(&address, self.patience)?;
        stream.set_read_timeout(Some(self.patience))?;
        stream.set_write_timeout(Some(self.patience))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn server_name(&self) -> io::Result<ServerName<'static>> {
        let host = self.host().trim_matches(['[', ']']).to_owned();
        ServerName::try_from(host).map_err(io::Error::other)
    }

    fn ca_file(&self) -> io::Result<&Path> {
        self.ca_file.as_deref().ok_or_else(|| io::Error::other("https needs .ca(file)"))
    }

    /// Sends this and `others` at once, over one HTTP/2 connection to where this one goes.
    ///
    /// # Errors
    ///
    /// When connecting or TLS fails; for each request, when the head of its answer does not come.
    pub fn send_together(&self, others: &[Self]) -> io::Result<Vec<io::Result<Answer>>> {
        self.over_http2(async |client| {
            let requests = std::iter::once(self).chain(others);
            // All are on their way before the first answer is read.
            let started: Vec<_> =
                requests.map(|request| request.start_http2(&mut client.clone())).collect();
            let mut answers = Vec::new();
            for response in started {
                answers.push(match response {
                    Ok(response) => read_http2(response).await,
                    Err(error) => Err(error),
                });
            }
            Ok(answers)
        })
    }

    /// Sends it over HTTP/2 and gives up after so many bytes of the body at least, or after a
    /// time: resets the stream, then closes the connection.
    ///
    /// # Errors
    ///
    /// When connecting, TLS, or the head of the answer fails.
    pub fn abort_http2(&self, bytes: usize, limit: Duration) -> io::Result<()> {
        self.over_http2(async |client| {
            let response = self.start_http2(client)?;
            let reading = async {
                let mut frames = response.await.map_err(io::Error::other)?.into_body();
                let mut seen = 0;
                while seen < bytes
                    && let Some(frame) = frames.data().await
                {
                    seen += frame.map_err(io::Error::other)?.len();
                }
                // Dropping the frames resets the stream.
                io::Result::Ok(())
            };
            tokio::time::timeout(limit, reading).await.unwrap_or(Ok(()))?;
            // The connection's task needs a moment to send the reset.
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok(())
        })
    }

    /// Sends it over HTTP/2 and passes the body to `take`, piece by piece; nginx is not told that
    /// there is room for more before that returns.
    ///
    /// # Errors
    ///
    /// When connecting or TLS fails, the status is not 200, or the body breaks off.
    pub fn receive_http2(&self, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        self.over_http2(async |client| {
            let response = self.start_http2(client)?.await.map_err(io::Error::other)?;
            if response.status() != 200 {
                return Err(io::Error::other(format!("status {}", response.status())));
            }
            let mut frames = response.into_body();
            while let Some(frame) = frames.data().await {
                let frame = frame.map_err(io::Error::other)?;
                take(&frame);
                frames.flow_control().release_capacity(frame.len()).map_err(io::Error::other)?;
            }
            Ok(())
        })
    }

    fn send_http2(&self) -> io::Result<Answer> {
        self.over_http2(async |client| read_http2(self.start_http2(client)?).await)
    }

    /// Lets `exchange` use a new HTTP/2 connection.
    fn over_http2<T>(
        &self,
        exchange: impl AsyncFnOnce(&mut SendRequest<Bytes>) -> io::Result<T>,
    ) -> io::Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let all = async {
            let tcp = self.tcp()?;
            tcp.set_nonblocking(true)?;
            let tcp = tokio::net::TcpStream::from_std(tcp)?;
            let mut client = if self.scheme == "http" {
                connected(tcp).await?
            } else {
                let config = tls::client(self.ca_file()?, &["h2"]);
                let connector = tokio_rustls::TlsConnector::from(config);
                let stream = connector.connect(self.server_name()?, tcp).await?;
                if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                    return Err(io::Error::other("the server does not speak HTTP/2"));
                }
                connected(stream).await?
            };
            exchange(&mut client).await
        };
        runtime.block_on(async {
            let late = |_| io::Error::from(ErrorKind::TimedOut);
            tokio::time::timeout(self.patience, all).await.map_err(late)?
        })
    }

    fn start_http2(&self, client: &mut SendRequest<Bytes>) -> io::Result<ResponseFuture> {
        let host = self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
        let authority = host.map_or(&self.authority, |(_, host)| host);
        let mut request = http::Request::builder()
            .method(self.method.as_str())
            .uri(format!("{}://{authority}{}", self.scheme, self.target));
        for (name, value) in &self.headers {
            if !name.eq_ignore_ascii_case("host") {
                request = request.header(name.to_ascii_lowercase(), value);
            }
        }
        let request = request.body(()).map_err(io::Error::other)?;
        let (response, mut body) =
            client.send_request(request, self.body.is_none()).map_err(io::Error::other)?;
        if let Some(bytes) = &self.body {
            body.send_data(bytes.clone().into(), true).map_err(io::Error::other)?;
        }
        Ok(response)
    }
}

async fn connected<T>(stream: T) -> io::Result<SendRequest<Bytes>>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (client, connection) = h2::client::handshake(stream).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    client.ready().await.map_err(io::Error::other)
}

async fn read_http2(response: ResponseFuture) -> io::Result<Answer> {
    let (head, mut frames) = response.await.map_err(io::Error::other)?.into_parts();
    let fields = head.headers.iter();
    let mut answer = Answer {
        status: head.status.as_u16(),
        reason: String::new(),
        headers: fields.map(|(name, value)| (name.to_string(), latin1(value.as_bytes()))).collect(),
        body: Vec::new(),
        complete: true,
        framing: Framing::Chunked,
        problem: None,
    };
    while let Some(frame) = frames.data().await {
        match frame {
            Ok(bytes) => {
                // A closed window is what the connection's task reports; nothing to do here.
                let _ = frames.flow_control().release_capacity(bytes.len());
                answer.body.extend_from_slice(&bytes);
            }
            Err(error) => {
                answer.complete = false;
                answer.problem = Some(error.to_string());
                break;
            }
        }
    }
    Ok(answer)
}

impl Answer {
    /// The first field of this name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// All fields of this name, in any case.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&str> {
        fields(&self.headers, name)
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    ///
    /// When it is none.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text()))
    }
}

/// A connection on which a test writes and reads what it likes. Dropping it closes the socket.
pub struct Connection {
    stream: Stream,
    /// Bytes received and not yet used.
    buffer: Vec<u8>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Connection {
    /// Connects to where `request` would be sent, TLS included; sends nothing else.
    ///
    /// # Errors
    ///
    /// When connecting or TLS fails.
    pub fn open(request: &Request) -> io::Result<Self> {
        let tcp = request.tcp()?;
        if request.scheme == "http" {
            return Ok(Self { stream: Stream::Plain(tcp), buffer: Vec::new() });
        }
        let config = tls::client(request.ca_file()?, &["http/1.1"]);
        let session =
            ClientConnection::new(config, request.server_name()?).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(session, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self { stream: Stream::Tls(Box::new(stream)), buffer: Vec::new() })
    }

    /// Writes these bytes.
    ///
    /// # Errors
    ///
    /// When the socket does.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => {
                stream.write_all(bytes)?;
                stream.flush()
            }
        }
    }

    /// Sends a request and reads its answer; the connection can be used again.
    ///
    /// # Errors
    ///
    /// When the head of the answer does not come.
    pub fn send(&mut self, request: &Request) -> io::Result<Answer> {
        self.write(&request.bytes(false))?;
        self.answer(&request.method)
    }

    /// Sends a request and reads nothing.
    ///
    /// # Errors
    ///
    /// When the socket does.
    pub fn start(&mut self, request: &Request) -> io::Result<()> {
        self.write(&request.bytes(false))
    }

    /// Reads the answer to a request of this method.
    ///
    /// # Errors
    ///
    /// When its head does not come.
    pub fn answer(&mut self, method: &str) -> io::Result<Answer> {
        let mut answer = self.head(method)?;
        let framing = answer.framing;
        if let Err(error) = self.body(framing, &mut answer.body) {
            answer.complete = false;
            answer.problem = Some(error.to_string());
        }
        Ok(answer)
    }

    /// Reads the head of the answer to a request of this method, and nothing of its body.
    ///
    /// # Errors
    ///
    /// When it does not come.
    pub fn head(&mut self, method: &str) -> io::Result<Answer> {
        loop {
            let head = self.until(b"\r\n\r\n")?;
            let answer = parse(&head, method)
                .ok_or_else(|| io::Error::other(format!("no HTTP answer: {}", latin1(&head))))?;
            if answer.status >= 200 {
                return Ok(answer);
            }
        }
    }

    /// Reads so many bytes, whatever they are.
    ///
    /// # Errors
    ///
    /// When they do not come.
    pub fn take(&mut self, size: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < size {
            self.more()?;
        }
        Ok(self.buffer.drain(..size).collect())
    }

    /// Whether the peer closes the connection within a time, without a further byte.
    pub fn closes(&mut self, limit: Duration) -> bool {
        let start = Instant::now();
        let old = self.tcp().read_timeout().ok().flatten();
        let _ = self.tcp().set_read_timeout(Some(limit.max(Duration::from_millis(1))));
        let more = self.more();
        let _ = self.tcp().set_read_timeout(old);
        let timed_out = start.elapsed() >= limit;
        more.is_err() && !timed_out && self.buffer.is_empty()
    }

    /// Ends the connection with RST.
    pub fn reset(self) {
        let _ = SockRef::from(self.tcp()).set_linger(Some(Duration::ZERO));
    }

    /// Sends FIN and goes on reading.
    ///
    /// # Errors
    ///
    /// When the socket does.
    pub fn half_close(&mut self) -> io::Result<()> {
        if let Stream::Tls(stream) = &mut self.stream {
            stream.conn.send_close_notify();
            stream.flush()?;
        }
        self.tcp().shutdown(std::net::Shutdown::Write)
    }

    fn tcp(&self) -> &TcpStream {
        match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => &stream.sock,
        }
    }

    fn body(&mut self, framing: Framing, body: &mut Vec<u8>) -> io::Result<()> {
        match framing {
            Framing::None => Ok(()),
            Framing::Length(size) => loop {
                let missing = size - body.len();
                let ready = missing.min(self.buffer.len());
                body.extend(self.buffer.drain(..ready));
                if body.len() == size {
                    return Ok(());
                }
                self.more()?;
            },
            Framing::Chunked => loop {
                let line = self.until(b"\r\n")?;
                let line = latin1(&line);
                let digits = line.split([';', '\r']).next().unwrap_or_default().trim();
                let size = usize::from_str_radix(digits, 16).map_err(io::Error::other)?;
                if size == 0 {
                    while self.until(b"\r\n")?.len() > 2 {}
                    return Ok(());
                }
                self.body(Framing::Length(body.len() + size), body)?;
                if self.take(2)? != b"\r\n" {
                    return Err(io::Error::other("a chunk is longer than it said"));
                }
            },
            Framing::Close => loop {
                body.append(&mut self.buffer);
                match self.more() {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::ConnectionAborted => return Ok(()),
                    Err(error) => return Err(error),
                }
            },
        }
    }

    fn until(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            let found = self.buffer.windows(end.len()).position(|window| window == end);
            if let Some(at) = found {
                return Ok(self.buffer.drain(..at + end.len()).collect());
            }
            self.more()?;
        }
    }

    /// Reads some bytes. The peer's orderly end is `ConnectionAborted`; TLS without `close_notify`
    /// is `UnexpectedEof`.
    fn more(&mut self) -> io::Result<()> {
        let mut bytes = [0; 64 * 1024];
        let size = match &mut self.stream {
            Stream::Plain(stream) => stream.read(&mut bytes)?,
            Stream::Tls(stream) => stream.read(&mut bytes)?,
        };
        if size == 0 {
            return Err(io::Error::new(ErrorKind::ConnectionAborted, "the peer closed"));
        }
        self.buffer.extend_from_slice(&bytes[..size]);
        Ok(())
    }
}

fn parse(head: &[u8], method: &str) -> Option<Answer> {
    let text = latin1(head);
    let mut lines = text.strip_suffix("\r\n\r\n")?.split("\r\n");
    let start = lines.next()?.strip_prefix("HTTP/1.")?;
    let mut start = start.splitn(3, ' ').skip(1);
    let status = start.next()?.parse().ok()?;
    let reason = start.next().unwrap_or_default().to_owned();
    let headers: Vec<(String, String)> = lines
        .map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.trim().to_owned()))
        })
        .collect::<Option<_>>()?;

    let length = fields(&headers, "content-length").first().and_then(|size| size.parse().ok());
    let coding = fields(&headers, "transfer-encoding").join(",").to_ascii_lowercase();
    let framing = match (method, status, length) {
        ("HEAD", _, _) | (_, 100..=199 | 204 | 304, _) => Framing::None,
        _ if coding.ends_with("chunked") => Framing::Chunked,
        (_, _, Some(size)) => Framing::Length(size),
        _ => Framing::Close,
    };
    Some(Answer {
        status,
        reason,
        headers,
        body: Vec::new(),
        complete: true,
        framing,
        problem: None,
    })
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}
