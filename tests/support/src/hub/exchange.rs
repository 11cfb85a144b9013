//! What a host receives, and what it answers.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

/// A request as a host of the hub received it.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Name of the host that received it, whatever its Host header said.
    pub host: String,
    /// The method, e.g. `GET`.
    pub method: String,
    /// The request target as it stood on the wire; bytes above 0x7f as Latin-1.
    pub uri: String,
    /// The protocol, e.g. `HTTP/1.1`.
    pub version: String,
    /// Header fields in order, names in the case in which they came.
    pub headers: Vec<(String, String)>,
    /// The body, without chunked framing.
    pub body: Vec<u8>,
    /// Request line and header fields, byte for byte, with the empty line.
    pub head: Vec<u8>,
    /// Whether it came over TLS.
    pub tls: bool,
    /// The server name of the TLS handshake.
    pub sni: Option<String>,
    /// Whether the client presented a certificate; see `Hub::ask_client_certificate`.
    pub client_certificate: bool,
    /// The address on which it arrived.
    pub local: SocketAddr,
    /// The address from which it came.
    pub peer: SocketAddr,
    /// Number of the connection, unique in this hub.
    pub connection: u64,
}

impl Recorded {
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

    /// The request target up to the query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.uri.split('?').next().unwrap_or_default()
    }

    /// The query without its question mark, byte for byte; empty if there is none.
    #[must_use]
    pub fn query(&self) -> &str {
        self.uri.split_once('?').map_or("", |(_, query)| query)
    }

    /// `GET /path?query`.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.uri)
    }

    pub(crate) fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    pub(crate) fn wants_close(&self) -> bool {
        let connection = self.header("connection").unwrap_or_default().to_ascii_lowercase();
        match self.version.as_str() {
            "HTTP/1.0" => !connection.contains("keep-alive"),
            _ => connection.contains("close"),
        }
    }
}

pub(crate) fn fields<'a>(headers: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    let named = headers.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.as_str()).collect()
}

/// What a host answers to one request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// What the host would answer anyway.
    Normal,
    /// What the host would answer anyway, in another shape.
    Shaped(Shape),
    /// This response.
    Response(Response),
    /// Bytes, pauses and an end, exactly as given. Without a [`Step::End`] the connection is kept.
    Raw(Vec<Step>),
}

impl From<Response> for Reply {
    fn from(response: Response) -> Self {
        Self::Response(response)
    }
}

impl Reply {
    /// These bytes, then a closed connection.
    #[must_use]
    pub fn raw(bytes: impl AsRef<[u8]>) -> Self {
        Self::Raw(vec![Step::send(bytes), Step::End(End::Close)])
    }

    /// A redirect with this `Location`, which may be any bytes.
    #[must_use]
    pub fn redirect(status: u16, location: impl AsRef<[u8]>) -> Self {
        Self::Response(Response::redirect(status, location))
    }
}

/// One step of a raw answer.
#[derive(Clone, Debug)]
pub enum Step {
    /// Sends these bytes.
    Send(Bytes),
    /// Pauses, or ends when the peer is gone.
    Wait(Duration),
    /// Sends nothing more until the peer is gone.
    Stall,
    /// Sends a record that is TLS's own: `key_update` (RFC 8446, section 4.6.3). Nothing without
    /// TLS 1.3.
    KeyUpdate,
    /// Ends the connection.
    End(End),
}

impl Step {
    /// Sends these bytes.
    #[must_use]
    pub fn send(bytes: impl AsRef<[u8]>) -> Self {
        Self::Send(Bytes::copy_from_slice(bytes.as_ref()))
    }
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// In order: TLS says goodbye, then FIN.
    Close,
    /// FIN without TLS's `close_notify`.
    Truncate,
    /// RST.
    Reset,
}

/// A response; Content-Length is added unless it or Transfer-Encoding is given.
#[derive(Clone, Debug)]
pub struct Response {
    pub(crate) status: u16,
    pub(crate) reason: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Bytes,
    pub(crate) chunk: Option<usize>,
    pub(crate) shape: Shape,
}

/// How the bytes of a response reach the peer. Offsets count bytes of the body as framed; an answer
/// to HEAD has none.
#[derive(Clone, Debug, Default)]
pub enum Shape {
    /// At once.
    #[default]
    Whole,
    /// Ends within status line and headers, after so many bytes of them.
    CutHead(usize, End),
    /// Ends within the body, after so many bytes of it.
    CutBody(usize, End),
    /// Pauses before the response.
    Delay(Duration),
    /// Headers and so many bytes of the body; the rest after a pause.
    PauseBody(usize, Duration),
    /// Headers and so many bytes of the body, then nothing more.
    StallBody(usize),
    /// So many bytes of the body at a time, with a pause behind each.
    Slow(usize, Duration),
    /// The body in chunks of so many bytes instead of Content-Length.
    Chunked(usize),
    /// These bytes behind the response, in the same write.
    Surplus(Vec<u8>),
}

impl Response {
    /// An empty response.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self {
            status,
            reason: reason(status).to_owned(),
            headers: Vec::new(),
            body: Bytes::new(),
            chunk: None,
            shape: Shape::Whole,
        }
    }

    /// A response with this text.
    #[must_use]
    pub fn text(status: u16, text: impl AsRef<[u8]>) -> Self {
        Self::new(status).header("Content-Type", "text/plain; charset=utf-8").body(text)
    }

    /// A response with this JSON.
    #[must_use]
    pub fn json(status: u16, value: &serde_json::Value) -> Self {
        Self::new(status).header("Content-Type", "application/json").body(value.to_string())
    }

    /// A registry's JSON error.
    #[must_use]
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let error = serde_json::json!({ "code": code, "message": message });
        Self::json(status, &serde_json::json!({ "errors": [error] }))
    }

    /// A redirect with this `Location`, which may be any bytes, and the small body that Hub sends.
    #[must_use]
    pub fn redirect(status: u16, location: impl AsRef<[u8]>) -> Self {
        let response = Self::new(status).header("Location", location);
        let body = format!("<a href=\"...\">{}</a>.\n\n", response.reason);
        response.header("Content-Type", "text/html; charset=utf-8").body(body)
    }

    /// Adds a field.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Removes the fields of this name.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(field, _)| !field.eq_ignore_ascii_case(name));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = Bytes::copy_from_slice(body.as_ref());
        self
    }

    /// Sends the body in chunks of so many bytes.
    #[must_use]
    pub fn chunked(mut self, size: usize) -> Self {
        self.chunk = Some(size);
        self
    }

    /// Sets the shape; [`Shape::Chunked`] leaves another shape as it is.
    #[must_use]
    pub fn shape(mut self, shape: Shape) -> Self {
        match shape {
            Shape::Chunked(size) => self.chunk = Some(size),
            shape => self.shape = shape,
        }
        self
    }

    pub(crate) fn shared_body(mut self, body: Bytes) -> Self {
        self.body = body;
        self
    }

    /// The steps that send this response in answer to `request`.
    pub(crate) fn steps(self, request: &Recorded) -> Vec<Step> {
        let head = self.head(request);
        let body = match (request.is_head() || bodiless(self.status), self.chunk) {
            (true, _) => Bytes::new(),
            (false, None) => self.body,
            (false, Some(size)) => chunks(&self.body, size),
        };
        let mut steps = match self.shape {
            Shape::CutHead(after, end) => {
                vec![Step::Send(head.slice(..after.min(head.len()))), Step::End(end)]
            }
            Shape::CutBody(after, end) => {
                let mut steps = beginning(head, &body, after);
                steps.push(Step::End(end));
                steps
            }
            Shape::Delay(pause) => {
                vec![Step::Wait(pause), Step::Send(head), Step::Send(body)]
            }
            Shape::PauseBody(after, pause) => vec![
                Step::Send(joined(&head, &body, after)),
                Step::Wait(pause),
                Step::Send(body.slice(after.min(body.len())..)),
            ],
            Shape::StallBody(after) => {
                let mut steps = beginning(head, &body, after);
                steps.push(Step::Stall);
                steps
            }
            Shape::Slow(size, pause) => {
                let pieces = (0..body.len()).step_by(size.max(1)).flat_map(|at| {
                    let end = (at + size.max(1)).min(body.len());
                    [Step::Send(body.slice(at..end)), Step::Wait(pause)]
                });
                std::iter::once(Step::Send(head)).chain(pieces).collect()
            }
            Shape::Surplus(surplus) => {
                let mut bytes = joined(&head, &body, body.len()).to_vec();
                bytes.extend_from_slice(&surplus);
                vec![Step::Send(bytes.into())]
            }
            Shape::Whole | Shape::Chunked(_) => beginning(head, &body, body.len()),
        };
        if request.wants_close() {
            steps.push(Step::End(End::Close));
        }
        steps
    }

    fn head(&self, request: &Recorded) -> Bytes {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, self.reason).into_bytes();
        let mut field = |name: &str, value: &[u8]| {
            head.extend_from_slice(name.as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value);
            head.extend_from_slice(b"\r\n");
        };
        let mut framed = bodiless(self.status);
        for (name, value) in &self.headers {
            framed |= name.eq_ignore_ascii_case("content-length")
                || name.eq_ignore_ascii_case("transfer-encoding");
            field(name, value);
        }
        match (framed, self.chunk) {
            (true, _) => {}
            (false, Some(_)) => field("Transfer-Encoding", b"chunked"),
            (false, None) => field("Content-Length", self.body.len().to_string().as_bytes()),
        }
        if request.wants_close() {
            field("Connection", b"close");
        }
        head.extend_from_slice(b"\r\n");
        head.into()
    }
}

/// Head and so many bytes of the body: in one write what is small, as Hub does; without a copy what
/// is large.
fn beginning(head: Bytes, body: &Bytes, after: usize) -> Vec<Step> {
    let after = after.min(body.len());
    if after <= 16 * 1024 {
        vec![Step::Send(joined(&head, body, after))]
    } else {
        vec![Step::Send(head), Step::Send(body.slice(..after))]
    }
}

fn joined(head: &Bytes, body: &Bytes, after: usize) -> Bytes {
    let mut bytes = head.to_vec();
    bytes.extend_from_slice(&body[..after.min(body.len())]);
    bytes.into()
}

fn chunks(body: &[u8], size: usize) -> Bytes {
    let mut framed = Vec::with_capacity(body.len() + 64);
    for chunk in body.chunks(size.max(1)) {
        framed.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        framed.extend_from_slice(chunk);
        framed.extend_from_slice(b"\r\n");
    }
    framed.extend_from_slice(b"0\r\n\r\n");
    framed.into()
}

/// Statuses that never have a body (RFC 9110, section 6.4.1).
fn bodiless(status: u16) -> bool {
    matches!(status, 100..=199 | 204 | 304)
}

fn reason(status: u16) -> &'static str {
    match http::StatusCode::from_u16(status) {
        Ok(status) => status.canonical_reason().unwrap_or("Unknown"),
        Err(_) => "Unknown",
    }
}
