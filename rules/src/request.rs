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
            && is_word(uri)
            && matches!(version, b"HTTP/1.0" | b"HTTP/1.1");
        if !valid {
            return None;
        }

        // As many as most requests have.
        let mut lines = Vec::with_capacity(16);
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

/// Field lines that are kept: two pieces of memory, however many there are.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Lines {
    bytes: Vec<u8>,
    /// Where each name ends, and each value.
    ends: Vec<(usize, usize)>,
}

impl Lines {
    /// Names and values, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut start = 0;
        self.ends.iter().map(move |&(name, value)| {
            let part = |range| self.bytes.get(range).unwrap_or_default();
            let line = (part(start..name), part(name..value));
            start = value;
            line
        })
    }
}

impl<'a> FromIterator<(&'a [u8], &'a [u8])> for Lines {
    fn from_iter<I: IntoIterator<Item = (&'a [u8], &'a [u8])>>(lines: I) -> Self {
        let mut kept = Self { bytes: Vec::with_capacity(512), ends: Vec::with_capacity(16) };
        for (name, value) in lines {
            kept.bytes.extend_from_slice(name);
            let end_of_name = kept.bytes.len();
            kept.bytes.extend_from_slice(value);
            kept.ends.push((end_of_name, kept.bytes.len()));
        }
        // They may be kept as long as a download lasts.
        kept.bytes.shrink_to_fit();
        kept.ends.shrink_to_fit();
        kept
    }
}

/// The bytes before the first CRLF, and behind it. Nothing holds a CR or LF by itself.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'\n', bytes)?;
    let (line, rest) = bytes.split_at_checked(end)?;
    Some((line.strip_suffix(b"\r")?, rest.get(1..)?))
}

/// `name: value`, if it could not be read as anything else. Other control bytes than CR, LF and NUL
/// are left to [`head`], which drops their line: nginx lets clients send them.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line)?;
    let (name, value) = line.split_at_checked(colon)?;
    let value = syntax::trim_ows(value.get(1..)?);
    let valid =
        !name.is_empty() && is_word(name) && memchr::memchr3(b'\r', b'\n', 0, value).is_none();
    valid.then_some((name, value))
}

fn is_field(name: &[u8], value: &[u8]) -> bool {
    syntax::is_token(name) && is_value(value)
}

fn is_value(value: &[u8]) -> bool {
    syntax::all(value, syntax::is_value_byte)
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

/// A line that says what is asked for, and nothing about who asks.
pub(crate) fn is_public(name: &[u8]) -> bool {
    is_one_of(name, &PUBLIC) || syntax::strip_prefix_any_case(name, b"if-").is_some()
}

pub(crate) fn is_one_of(name: &[u8], names: &[&str]) -> bool {
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
    if is_word(word.as_bytes()) {
        out.extend_from_slice(word.as_bytes());
        return;
    }
    for run in word.as_bytes().split_inclusive(|byte| ends_word(*byte)) {
        match run {
            [clean @ .., byte] if ends_word(*byte) => {
                out.extend_from_slice(clean);
                out.extend_from_slice(format!("%{byte:02X}").as_bytes());
            }
            clean => out.extend_from_slice(clean),
        }
    }
}

fn is_word(bytes: &[u8]) -> bool {
    syntax::all(bytes, |byte| !ends_word(byte))
}

fn ends_word(byte: u8) -> bool {
    byte <= 0x20 || byte == 0x7f
}

/// Whether a header of an answer speaks for the origin that a client asked, so that it must not
/// come from another one: cookies, promises about https and other ports, what concerns credentials,
/// and `X-Accel-*`, which are orders to nginx.
pub fn speaks_for_origin(name: &[u8]) -> bool {
    const NAMES: [&str; 8] = [
        "set-cookie",
        "set-cookie2",
        "strict-transport-security",
        "alt-svc",
        "clear-site-data",
        "proxy-authenticate",
        "authentication-info",
        "proxy-authentication-info",
    ];
    is_one_of(name, &NAMES) || syntax::strip_prefix_any_case(name, b"x-accel-").is_some()
}

/// Whether a line of another origin's answer would lead the client on to that one, around this server:
/// a next page is one of this server's API, or none. The path of a fallback may be a secret.
pub fn leads_away(name: &[u8], value: &[u8]) -> bool {
    let is_one = memchr::memchr_iter(b'<', value).count() == 1;
    name.eq_ignore_ascii_case(b"Link") && !(is_one && value.starts_with(b"</v2/"))
}

/// Whether a line of this name asks for a part of something, or depends on what the client has of it
/// (RFC 9110, sections 13 and 14).
pub fn asks_for_part(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"Range") || syntax::strip_prefix_any_case(name, b"If-").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text.as_bytes()).unwrap()
    }

    fn written(method: &str, url: &Url, carry: &Carry<'_>, lines: &[(&str, &str)]) -> String {
        let lines = lines.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        String::from_utf8(head(method, url, carry, lines)).unwrap()
    }

    #[test]
    fn ranges_and_conditions_ask_for_a_part() {
        for name in ["Range", "range", "If-Range", "if-none-match", "If-Modified-Since"] {
            assert!(asks_for_part(name.as_bytes()), "{name}");
        }
        for name in ["Accept-Ranges", "Authorization", "If", "Ranges"] {
            assert!(!asks_for_part(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn a_head_as_nginx_sends_it_is_read() {
        let bytes = b"GET /v2/?a=b HTTP/1.1\r\nHost: a:5000\r\nRange:bytes=0-1 \t\r\nX-Empty:\r\n\
                      Range: \xff\r\nX(1): \x01\r\n\r\nbody: 1\r\n\r\n";
        let head = Head::parse(bytes).unwrap();
        assert_eq!(head.method(), b"GET");
        assert_eq!(head.uri(), b"/v2/?a=b");
        assert_eq!(head.host(), Some(b"a:5000".as_slice()));
        let lines: [(&[u8], &[u8]); 5] = [
            (b"Host", b"a:5000"),
            (b"Range", b"bytes=0-1"),
            (b"X-Empty", b""),
            (b"Range", b"\xff"),
            (b"X(1)", b"\x01"),
        ];
        assert!(head.lines().eq(lines));
    }

    #[test]
    fn what_is_no_head_is_refused() {
        let rows = [
            ("empty", ""),
            ("no empty line", "GET / HTTP/1.1\r\nHost: a\r\n"),
            ("end within a line", "GET / HTTP/1.1\r\nHost: a"),
            ("bare line feeds", "GET / HTTP/1.1\nHost: a\n\n"),
            ("bare line feed within", "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"),
            ("bare carriage return", "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n"),
            ("NUL", "GET / HTTP/1.1\r\nHost: a\0\r\n\r\n"),
            ("folded line", "GET / HTTP/1.1\r\nHost: a\r\n b: c\r\n\r\n"),
            ("no colon", "GET / HTTP/1.1\r\nHost\r\n\r\n"),
            ("no name", "GET / HTTP/1.1\r\n: a\r\n\r\n"),
            ("space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
            ("no version", "GET /\r\n\r\n"),
            ("HTTP/2", "GET / HTTP/2.0\r\n\r\n"),
            ("four words", "GET / / HTTP/1.1\r\n\r\n"),
            ("two spaces", "GET  / HTTP/1.1\r\n\r\n"),
            ("no method", " / HTTP/1.1\r\n\r\n"),
            ("method that is no token", "G:T / HTTP/1.1\r\n\r\n"),
            ("control byte in the URI", "GET /\t HTTP/1.1\r\n\r\n"),
            ("an answer", "HTTP/1.1 200 OK\r\n\r\n"),
        ];

        for (name, bytes) in rows {
            assert_eq!(Head::parse(bytes.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn a_host_is_told_if_there_is_one() {
        let rows = [
            ("one", "host: a\r\n", Some("a")),
            ("none", "", None),
            ("two", "Host: a\r\nHost: b\r\n", None),
            ("empty", "Host:\r\n", Some("")),
        ];

        for (name, lines, want) in rows {
            let bytes = format!("GET / HTTP/1.0\r\n{lines}\r\n");
            let head = Head::parse(bytes.as_bytes()).unwrap();
            assert_eq!(head.host(), want.map(str::as_bytes), "{name}");
        }
    }

    const CLIENT: [(&str, &str); 23] = [
        ("Host", "mirror.example"),
        ("Connection", "close"),
        ("User-Agent", "docker/29"),
        ("Accept", "application/vnd.oci.image.index.v1+json"),
        ("accept", "application/json"),
        ("Accept-Encoding", "identity"),
        ("Accept-Language", "en"),
        ("Authorization", "Bearer abc"),
        ("Cookie", "a=b"),
        ("Range", "bytes=0-9"),
        ("If-Range", "\"e\""),
        ("If-None-Match", "\"f\""),
        ("X-Forwarded-For", "192.0.2.1"),
        ("X-Real-IP", "192.0.2.1"),
        ("Forwarded", "for=192.0.2.1"),
        ("Via", "1.1 a"),
        ("Content-Length", "5"),
        ("Content-Type", "text/plain"),
        ("Transfer-Encoding", "chunked"),
        ("TE", "trailers"),
        ("Expect", "100-continue"),
        ("CDN-Loop", "first; a=b"),
        ("cdn-loop", "second"),
    ];

    #[test]
    fn another_origin_gets_nothing_about_the_client() {
        let carry = Carry::Public { authorization: None, via: "docker-mirror-1" };
        let want = "GET /b?c=%2F HTTP/1.1\r\n\
                    Host: cdn.example\r\n\
                    User-Agent: docker/29\r\n\
                    Accept: application/vnd.oci.image.index.v1+json\r\n\
                    accept: application/json\r\n\
                    Accept-Encoding: identity\r\n\
                    Range: bytes=0-9\r\n\
                    If-Range: \"e\"\r\n\
                    If-None-Match: \"f\"\r\n\
                    CDN-Loop: first; a=b, second, docker-mirror-1\r\n\
                    \r\n";
        assert_eq!(written("GET", &url("https://cdn.example/b?c=%2F"), &carry, &CLIENT), want);
    }

    #[test]
    fn a_token_is_carried_if_it_is_given() {
        let carry = Carry::Public { authorization: Some(b"Bearer abc"), via: "m" };
        let want = "HEAD / HTTP/1.1\r\nHost: a:5000\r\nAuthorization: Bearer abc\r\n\
                    CDN-Loop: m\r\n\r\n";
        assert_eq!(written("HEAD", &url("https://a:5000/"), &carry, &[("Host", "b")]), want);
    }

    #[test]
    fn the_same_origin_gets_all_but_connection_and_body() {
        let want = "GET / HTTP/1.1\r\n\
                    Host: [::1]:5000\r\n\
                    User-Agent: docker/29\r\n\
                    Accept: application/vnd.oci.image.index.v1+json\r\n\
                    accept: application/json\r\n\
                    Accept-Encoding: identity\r\n\
                    Accept-Language: en\r\n\
                    Authorization: Bearer abc\r\n\
                    Cookie: a=b\r\n\
                    Range: bytes=0-9\r\n\
                    If-Range: \"e\"\r\n\
                    If-None-Match: \"f\"\r\n\
                    X-Forwarded-For: 192.0.2.1\r\n\
                    X-Real-IP: 192.0.2.1\r\n\
                    Forwarded: for=192.0.2.1\r\n\
                    Via: 1.1 a\r\n\
                    CDN-Loop: first; a=b\r\n\
                    cdn-loop: second\r\n\
                    \r\n";
        assert_eq!(written("GET", &url("http://[::1]:5000"), &Carry::All, &CLIENT), want);
    }

    #[test]
    fn no_argument_adds_a_line() {
        let split = "x\r\nEvil: 1";
        let lines = [
            ("Accept", split),
            ("Accept", "\x01"),
            ("Accept\r\nEvil", "1"),
            ("If-(", "1"),
            ("Accept: x", "1"),
            ("", "1"),
        ];
        let url = Url { host: split.to_owned(), uri: format!("/ {split}"), ..url("http://a") };
        let carry = Carry::Public { authorization: Some(split.as_bytes()), via: "m" };
        let want = "GET%0D%0Ax%0D%0AEvil:%201 /%20x%0D%0AEvil:%201 HTTP/1.1\r\n\
                    Host: x%0D%0AEvil:%201\r\nCDN-Loop: m\r\n\r\n";
        assert_eq!(written(&format!("GET\r\n{split}"), &url, &carry, &lines), want);
    }

    #[test]
    fn a_broken_cdn_loop_does_not_hide_ours() {
        let carry = Carry::Public { authorization: None, via: "m" };
        let lines = [("CDN-Loop", "a\nb"), ("CDN-Loop", ""), ("CDN-Loop", "c;d=\"")];
        let want = "GET / HTTP/1.1\r\nHost: a\r\nCDN-Loop: c;d=\", m\r\n\r\n";
        assert_eq!(written("GET", &url("http://a/"), &carry, &lines), want);
    }

    #[test]
    fn headers_that_speak_for_the_origin_are_known() {
        let rows = [
            ("Set-Cookie", true),
            ("set-cookie2", true),
            ("STRICT-TRANSPORT-SECURITY", true),
            ("Alt-Svc", true),
            ("Clear-Site-Data", true),
            ("X-Accel-Redirect", true),
            ("x-accel-anything", true),
            ("X-Accel", false),
            ("Content-Type", false),
            ("ETag", false),
            ("Docker-Content-Digest", false),
            ("", false),
        ];

        for (name, want) in rows {
            assert_eq!(speaks_for_origin(name.as_bytes()), want, "{name}");
        }
    }

    #[test]
    fn what_leads_to_another_origin_is_known() {
        let rows = [
            ("Link", "</v2/a/tags/list?last=b>; rel=\"next\"", false),
            ("link", "<https://other.example/v2/a/tags/list>; rel=\"next\"", true),
            ("Link", "<//other.example/v2/a/tags/list>; rel=\"next\"", true),
            ("Link", "</secret/v2/a/tags/list>; rel=\"next\"", true),
            ("Link", "</v2/a>; rel=\"x\", <https://other.example/>; rel=\"next\"", true),
            ("Link", "?last=b", true),
            ("Content-Type", "https://other.example/", false),
        ];

        for (name, value, want) in rows {
            assert_eq!(leads_away(name.as_bytes(), value.as_bytes()), want, "{name}: {value}");
        }
    }
}
