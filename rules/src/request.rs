//! The request head that goes to a redirect target or to a fallback.

use crate::location::Url;
use crate::syntax;

/// Lines that belong to a connection (RFC 9110, section 7.6.1, and RFC 9113, section 3.1) or that
/// announce a body, and `Host`, which is the target's. Beside them `Content-*`.
const NEVER: [&str; 10] = [
    "host",
    "connection",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Lines that say what is asked for, and nothing about who asks; beside them `If-*`.
const PUBLIC: [&str; 4] = ["accept", "accept-encoding", "range", "user-agent"];

/// A request head as nginx sent it upstream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Head<'a> {
    method: &'a [u8],
    uri: &'a [u8],
    lines: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Head<'a> {
    /// Reads a request line of HTTP/1.x, field lines, and the empty line (RFC 9112, section 2.1).
    /// What stands behind is the body, and ignored. `None` if `bytes` is anything else.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (request_line, mut rest) = split_line(bytes)?;
        let mut words = request_line.split(|byte| *byte == b' ');
        let (method, uri, version) = (words.next()?, words.next()?, words.next()?);
        let valid = words.next().is_none()
            && syntax::is_token(method)
            && !uri.is_empty()
            && uri.iter().all(|byte| *byte > 0x20 && *byte != 0x7f)
            && matches!(version, b"HTTP/1.0" | b"HTTP/1.1");
        if !valid {
            return None;
        }

        let mut lines = Vec::new();
        loop {
            let (line, behind) = split_line(rest)?;
            if line.is_empty() {
                return Some(Self { method, uri, lines });
            }
            lines.push(field(line)?);
            rest = behind;
        }
    }

    /// The method.
    pub fn method(&self) -> &'a [u8] {
        self.method
    }

    /// The request target: path and query.
    pub fn uri(&self) -> &'a [u8] {
        self.uri
    }

    /// The `Host`, `None` if there is not exactly one.
    pub fn host(&self) -> Option<&'a [u8]> {
        let mut hosts = self.lines().filter(|(name, _)| name.eq_ignore_ascii_case(b"host"));
        let (_, host) = hosts.next()?;
        hosts.next().is_none().then_some(host)
    }

    /// Names and values of the field lines, in their order; values without white space around.
    pub fn lines(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.lines.iter().copied()
    }
}

/// The bytes before the first CRLF, and behind it. A CR or LF by itself ends no line.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let (line, rest) = bytes.split_at_checked(end)?;
    Some((line, rest.get(2..)?))
}

/// `name: value`, if it could not be read as anything else.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = line.split_at_checked(colon)?;
    let value = syntax::trim_ows(value.get(1..)?);
    is_field(name, value).then_some((name, value))
}

fn is_field(name: &[u8], value: &[u8]) -> bool {
    syntax::is_token(name) && is_value(value)
}

fn is_value(value: &[u8]) -> bool {
    value.iter().copied().all(syntax::is_value_byte)
}

/// Which lines of the client's request go along.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Carry<'a> {
    /// To the same origin: every line but those of the connection and the body.
    All,
    /// To another origin: `Accept`, `Accept-Encoding`, `Range`, `If-*` and `User-Agent`.
    Public {
        /// The `Authorization` to pass.
        authorization: Option<&'a [u8]>,
        /// Our name in `CDN-Loop`.
        via: &'a str,
    },
}

/// Writes a request head for `url`, with the empty line at its end.
///
/// Every line of a repeated header is carried. To another origin goes a `CDN-Loop` that names
/// those who are in it already, and `via` (RFC 8586). A line that is no valid field is dropped, and
/// a byte that would end a word of the request line or of `Host` is percent-encoded: no argument
/// can add a line.
pub fn head<'a>(
    method: &str,
    url: &Url,
    carry: &Carry<'_>,
    lines: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(512 + url.uri.len());
    push_word(&mut out, method);
    out.push(b' ');
    push_word(&mut out, &url.uri);
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    push_word(&mut out, &url.authority());
    out.extend_from_slice(b"\r\n");

    let mut passed = Vec::new();
    for (name, value) in lines {
        match carry {
            Carry::All if !is_hop_by_hop(name) => push_field(&mut out, name, value),
            Carry::Public { .. } if name.eq_ignore_ascii_case(b"cdn-loop") => {
                if !value.is_empty() && is_value(value) {
                    passed.push(value);
                }
            }
            Carry::Public { .. } if is_public(name) => push_field(&mut out, name, value),
            Carry::All | Carry::Public { .. } => {}
        }
    }
    if let Carry::Public { authorization, via } = carry {
        if let Some(value) = authorization {
            push_field(&mut out, b"Authorization", value);
        }
        passed.push(via.as_bytes());
        push_field(&mut out, b"CDN-Loop", &passed.join(b", ".as_slice()));
    }
    out.extend_from_slice(b"\r\n");
    out
}

fn is_hop_by_hop(name: &[u8]) -> bool {
    is_one_of(name, &NEVER) || syntax::strip_prefix_any_case(name, b"content-").is_some()
}

fn is_public(name: &[u8]) -> bool {
    is_one_of(name, &PUBLIC) || syntax::strip_prefix_any_case(name, b"if-").is_some()
}

fn is_one_of(name: &[u8], names: &[&str]) -> bool {
    names.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

fn push_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    if is_field(name, value) {
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
}

fn push_word(out: &mut Vec<u8>, word: &str) {
    for byte in word.bytes() {
        if byte <= 0x20 || byte == 0x7f {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            out.push(byte);
        }
    }
}

/// Whether a header of an answer speaks for the origin that a client asked, so that it must not
/// come from another one: cookies, promises about https and other ports, and `X-Accel-*`, which
/// are orders to nginx.
pub fn speaks_for_origin(name: &[u8]) -> bool {
    const NAMES: [&str; 5] =
        ["set-cookie", "set-cookie2", "strict-transport-security", "alt-svc", "clear-site-data"];
    is_one_of(name, &NAMES) || syntax::strip_prefix_any_case(name, b"x-accel-").is_some()
}
