//! From a `Location` value, and the URL that was requested, to the URL that it means (RFC 9110,
//! section 10.2.2, and RFC 3986, section 5).

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use crate::authority::{Authority, AuthorityError};
use crate::syntax;

/// The longest URL or reference that is read, in bytes. Signed URLs of storage services take up to
/// 2 kB; servers accept 8 kB of request line by custom.
pub const MAX_LENGTH: usize = 16 * 1024;

/// A scheme that the module speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

impl Scheme {
    /// As it stands in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port of a URL that names none.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// An absolute URL, reduced to what a request needs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Url {
    /// How to speak to the host.
    pub scheme: Scheme,
    /// In lower case; an IPv6 literal in its brackets.
    pub host: String,
    /// Named, or the scheme's default.
    pub port: u16,
    /// Path and query as received, byte for byte; it begins with `/`. The fragment is cut.
    pub uri: String,
}

impl Url {
    /// Reads an absolute `http` or `https` URL.
    ///
    /// # Errors
    ///
    /// Every [`LocationError`]; a relative reference is [`LocationError::Scheme`].
    pub fn parse(url: &[u8]) -> Result<Self, LocationError> {
        let url = checked(url)?;
        let (scheme, rest) = split_scheme(url).ok_or(LocationError::Scheme)?;
        Self::absolute(scheme, rest)
    }

    /// Resolves `reference` against this URL, by RFC 3986, section 5.2. The query stays as it is,
    /// byte for byte; the path does too, unless it has dot segments.
    ///
    /// # Errors
    ///
    /// Every [`LocationError`]. An empty reference, which would mean this URL again, is
    /// [`LocationError::Empty`].
    pub fn join(&self, reference: &[u8]) -> Result<Self, LocationError> {
        let reference = checked(reference)?;
        let mut url = match split_scheme(reference) {
            Some((scheme, rest)) => Self::absolute(scheme, rest)?,
            None if reference.starts_with("//") => {
                Self::from_authority(self.scheme, reference.strip_prefix("//").unwrap_or_default())?
            }
            None => Self { uri: self.merge(without_fragment(reference)), ..self.clone() },
        };

        let (path, query) = split_query(&url.uri);
        if path.contains("/.") {
            url.uri = without_dot_segments(path) + query;
        }
        // Relative references would add up otherwise, redirect by redirect.
        if url.uri.len() > MAX_LENGTH { Err(LocationError::TooLong) } else { Ok(url) }
    }

    /// The `Host` of a request to this URL: the host, and the port unless it is the default.
    pub fn authority(&self) -> Cow<'_, str> {
        if self.port == self.scheme.default_port() {
            Cow::Borrowed(&self.host)
        } else {
            Cow::Owned(format!("{}:{}", self.host, self.port))
        }
    }

    /// The address if the host is a literal one.
    pub fn ip(&self) -> Option<IpAddr> {
        literal(&self.host)
    }

    /// Whether scheme, host and port are the same (RFC 9110, section 4.3.1).
    pub fn same_origin(&self, other: &Self) -> bool {
        self.scheme == other.scheme && self.port == other.port && self.host == other.host
    }

    /// The URL for a log: a query may hold a signature that is as good as a password.
    pub fn without_query(&self) -> String {
        let (path, _) = split_query(&self.uri);
        format!("{}://{}{path}", self.scheme.as_str(), self.authority())
    }

    /// `rest` is what stands behind `scheme:`.
    fn absolute(scheme: &str, rest: &str) -> Result<Self, LocationError> {
        let scheme = if scheme.eq_ignore_ascii_case("http") {
            Scheme::Http
        } else if scheme.eq_ignore_ascii_case("https") {
            Scheme::Https
        } else {
            return Err(LocationError::Scheme);
        };
        Self::from_authority(scheme, rest.strip_prefix("//").ok_or(LocationError::Host)?)
    }

    /// `rest` is what stands behind `scheme://`.
    fn from_authority(scheme: Scheme, rest: &str) -> Result<Self, LocationError> {
        let end = memchr::memchr3(b'/', b'?', b'#', rest.as_bytes()).unwrap_or(rest.len());
        let (authority, uri) = rest.split_at_checked(end).unwrap_or_default();
        let Authority { host, port } = Authority::parse(authority.as_bytes())?;

        let uri = without_fragment(uri);
        let uri = if uri.starts_with('/') { uri.to_owned() } else { format!("/{uri}") };
        let port = port.unwrap_or(scheme.default_port());
        Ok(Self { scheme, host: host.to_ascii_lowercase(), port, uri })
    }

    /// The path and query that a reference without scheme and authority means here (RFC 3986,
    /// section 5.2.2), dot segments included.
    fn merge(&self, reference: &str) -> String {
        let (path, _) = split_query(&self.uri);
        match reference.as_bytes().first() {
            None => self.uri.clone(),
            Some(b'/') => reference.to_owned(),
            Some(b'?') => format!("{path}{reference}"),
            Some(_) => {
                let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
                format!("{directory}/{reference}")
            }
        }
    }
}

/// The address that the host of a URL is, if it is a literal one.
pub fn literal(host: &str) -> Option<IpAddr> {
    let in_brackets = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    in_brackets.unwrap_or(host).parse().ok()
}

/// The bytes of a URL, if there is none that a request line cannot carry.
fn checked(bytes: &[u8]) -> Result<&str, LocationError> {
    if bytes.is_empty() {
        return Err(LocationError::Empty);
    }
    if bytes.len() > MAX_LENGTH {
        return Err(LocationError::TooLong);
    }
    if syntax::all(bytes, |byte| byte.is_ascii_graphic()) {
        return str::from_utf8(bytes).map_err(|_| LocationError::Host);
    }
    let first = bytes.iter().find(|byte| !byte.is_ascii_graphic());
    Err(LocationError::Byte(first.copied().unwrap_or_default()))
}

/// `scheme ":" rest`, for any scheme (RFC 3986, section 3.1).
fn split_scheme(reference: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = reference.split_once(':')?;
    let mut bytes = scheme.bytes();
    let valid = bytes.next()?.is_ascii_alphabetic()
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    valid.then_some((scheme, rest))
}

fn without_fragment(reference: &str) -> &str {
    split_before(reference, b'#').0
}

/// The path, and the query with its question mark.
fn split_query(uri: &str) -> (&str, &str) {
    split_before(uri, b'?')
}

/// What stands before the first `byte`, which is ASCII, and the rest.
fn split_before(text: &str, byte: u8) -> (&str, &str) {
    let at = memchr::memchr(byte, text.as_bytes()).unwrap_or(text.len());
    text.split_at_checked(at).unwrap_or((text, ""))
}

/// RFC 3986, section 5.2.4, for a path that begins with `/`.
fn without_dot_segments(path: &str) -> String {
    let mut kept = Vec::new();
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            _ => {
                kept.push(segment);
                continue;
            }
        }
        // "/a/." and "/a/.." name directories: the slash stays.
        if last {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}

/// Why a `Location` leads nowhere.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LocationError {
    /// There is nothing in it.
    Empty,
    /// A space, a control byte, or a byte that is not ASCII.
    Byte(u8),
    /// There is a user name, or a password, before the host.
    UserInfo,
    /// Neither `http` nor `https`.
    Scheme,
    /// No host, or none that is a name or an address.
    Host,
    /// A port that is empty, zero, too large, or no number.
    Port,
    /// More than [`MAX_LENGTH`] bytes, or a longer URL once it is resolved.
    TooLong,
}

impl From<AuthorityError> for LocationError {
    fn from(error: AuthorityError) -> Self {
        match error {
            AuthorityError::UserInfo => Self::UserInfo,
            AuthorityError::Host => Self::Host,
            AuthorityError::Port => Self::Port,
        }
    }
}

impl fmt::Display for LocationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty URL"),
            Self::Byte(byte) => write!(f, "byte 0x{byte:02x} in the URL"),
            Self::UserInfo => f.write_str("user information in the URL"),
            Self::Scheme => f.write_str("the URL is neither http nor https"),
            Self::Host => f.write_str("no valid host in the URL"),
            Self::Port => f.write_str("no valid port in the URL"),
            Self::TooLong => write!(f, "the URL is longer than {MAX_LENGTH} bytes"),
        }
    }
}

impl std::error::Error for LocationError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text.as_bytes()).unwrap()
    }

    fn text(url: &Url) -> String {
        format!("{}://{}{}", url.scheme.as_str(), url.authority(), url.uri)
    }

    #[test]
    fn an_absolute_url_is_read() {
        let rows = [
            ("plain", "https://a.example/b?c", "https://a.example/b?c"),
            ("upper case in scheme and host", "HTTPS://A.Example/B?C", "https://a.example/B?C"),
            ("no path", "http://a", "http://a/"),
            ("no path but a query", "http://a?b/../c", "http://a/?b/../c"),
            ("fragment", "http://a/b?c#d?e/f", "http://a/b?c"),
            ("no path but a fragment", "http://a#b", "http://a/"),
            ("default port", "https://a:443/", "https://a/"),
            ("default port of the other scheme", "https://a:80/", "https://a:80/"),
            ("port", "http://a:5000/", "http://a:5000/"),
            ("IPv4", "http://127.0.0.1/", "http://127.0.0.1/"),
            ("IPv6", "http://[2001:DB8::1]:443/", "http://[2001:db8::1]:443/"),
            (
                "query byte for byte",
                "http://a/%7e?%2F=+&&;'\"\\[]{}|^`",
                "http://a/%7e?%2F=+&&;'\"\\[]{}|^`",
            ),
            ("dot segments stay", "http://a/../b", "http://a/../b"),
            ("empty segments stay", "http://a//b//", "http://a//b//"),
            ("colon and at sign in the path", "http://a/u:p@b", "http://a/u:p@b"),
        ];

        for (name, given, want) in rows {
            assert_eq!(text(&url(given)), want, "{name}");
        }
    }

    #[test]
    fn a_url_that_leads_nowhere_is_refused() {
        let long = format!("https://a/{}", "b".repeat(MAX_LENGTH));
        let rows = [
            ("empty", "", LocationError::Empty),
            ("too long", &long, LocationError::TooLong),
            ("space", "https://a/b c", LocationError::Byte(b' ')),
            ("leading space", " https://a/", LocationError::Byte(b' ')),
            ("carriage return", "https://a/\r\nX: y", LocationError::Byte(b'\r')),
            ("NUL", "https://a\0", LocationError::Byte(0)),
            ("DEL", "https://a/\x7f", LocationError::Byte(0x7f)),
            ("not ASCII", "https://a/\u{fc}", LocationError::Byte(0xc3)),
            ("user", "https://user@a/", LocationError::UserInfo),
            ("empty user", "https://@a/", LocationError::UserInfo),
            ("host as a user", "https://a:443@b/", LocationError::UserInfo),
            ("relative", "/a", LocationError::Scheme),
            ("no scheme", "//a/b", LocationError::Scheme),
            ("file", "file:///etc/passwd", LocationError::Scheme),
            ("javascript", "javascript:x", LocationError::Scheme),
            ("scheme with more letters", "httpsx://a/", LocationError::Scheme),
            ("no host", "https:///a", LocationError::Host),
            ("no slashes", "https:a", LocationError::Host),
            ("one slash", "https:/a", LocationError::Host),
            ("backslashes", "https:\\\\a", LocationError::Host),
            ("backslash in the host", "https://a\\b/", LocationError::Host),
            ("port without host", "https://:443/", LocationError::Host),
            ("percent in the host", "https://%61/", LocationError::Host),
            ("IPv4 as a number", "http://2130706433/", LocationError::Host),
            ("IPv6 with zone", "http://[fe80::1%25lo]/", LocationError::Host),
            ("empty port", "https://a:/", LocationError::Port),
            ("port 0", "https://a:0/", LocationError::Port),
            ("port too large", "https://a:65536/", LocationError::Port),
            ("port no number", "https://a:b/", LocationError::Port),
        ];

        for (name, given, want) in rows {
            assert_eq!(Url::parse(given.as_bytes()), Err(want), "{name}");
        }
    }

    /// The table of RFC 3986, section 5.4, but for its schemes other than http and https.
    #[test]
    fn references_resolve_as_in_the_rfc() {
        let rows = [
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g/"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("#s", "http://a/b/c/d;p?q"),
            ("g#s", "http://a/b/c/g"),
            ("g?y#s", "http://a/b/c/g?y"),
            (";x", "http://a/b/c/;x"),
            ("g;x", "http://a/b/c/g;x"),
            ("g;x?y#s", "http://a/b/c/g;x?y"),
            (".", "http://a/b/c/"),
            ("./", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../..", "http://a/"),
            ("../../", "http://a/"),
            ("../../g", "http://a/g"),
            ("../../../g", "http://a/g"),
            ("../../../../g", "http://a/g"),
            ("/./g", "http://a/g"),
            ("/../g", "http://a/g"),
            ("g.", "http://a/b/c/g."),
            (".g", "http://a/b/c/.g"),
            ("g..", "http://a/b/c/g.."),
            ("..g", "http://a/b/c/..g"),
            ("./../g", "http://a/b/g"),
            ("./g/.", "http://a/b/c/g/"),
            ("g/./h", "http://a/b/c/g/h"),
            ("g/../h", "http://a/b/c/h"),
            ("g;x=1/./y", "http://a/b/c/g;x=1/y"),
            ("g;x=1/../y", "http://a/b/c/y"),
            ("g?y/./x", "http://a/b/c/g?y/./x"),
            ("g?y/../x", "http://a/b/c/g?y/../x"),
        ];

        let base = url("http://a/b/c/d;p?q");
        for (reference, want) in rows {
            assert_eq!(text(&base.join(reference.as_bytes()).unwrap()), want, "{reference}");
        }
    }

    #[test]
    fn references_keep_or_replace_the_origin() {
        let base = "https://a:8443/v2/x/blobs/y?z";
        let rows = [
            ("absolute", "http://b/c", "http://b/c"),
            ("absolute with dot segments", "http://b/c/../d/./?e", "http://b/d/?e"),
            ("absolute with percent-encoded dots", "http://b/c/%2e%2e/d", "http://b/c/%2e%2e/d"),
            ("another host", "//b/c", "https://b/c"),
            ("another host and port", "//b:1", "https://b:1/"),
            ("path", "/c?d", "https://a:8443/c?d"),
            ("relative path", "c", "https://a:8443/v2/x/blobs/c"),
            ("query", "?c", "https://a:8443/v2/x/blobs/y?c"),
            ("fragment only", "#c", "https://a:8443/v2/x/blobs/y?z"),
            ("colon behind the first segment", "c/d:e", "https://a:8443/v2/x/blobs/c/d:e"),
            ("colon behind a dot segment", "./c:d", "https://a:8443/v2/x/blobs/c:d"),
            ("colon behind a digit", "1:2", "https://a:8443/v2/x/blobs/1:2"),
            ("empty segments", "/c//d//", "https://a:8443/c//d//"),
            ("two slashes by dot segments", "/..//b/c", "https://a:8443//b/c"),
            ("backslash", "/\\b", "https://a:8443/\\b"),
        ];

        for (name, reference, want) in rows {
            assert_eq!(text(&url(base).join(reference.as_bytes()).unwrap()), want, "{name}");
        }
    }

    #[test]
    fn a_reference_that_leads_nowhere_is_refused() {
        let rows = [
            ("empty", "", LocationError::Empty),
            ("scheme without slashes", "https:c", LocationError::Host),
            ("scheme without host", "http://", LocationError::Host),
            ("three slashes", "///b", LocationError::Host),
            ("user", "//u@b/", LocationError::UserInfo),
            ("another scheme", "gopher://b/", LocationError::Scheme),
            ("colon in the first segment", "c:d", LocationError::Scheme),
            ("line feed", "/\n", LocationError::Byte(b'\n')),
        ];

        let base = url("https://a/b");
        for (name, reference, want) in rows {
            assert_eq!(base.join(reference.as_bytes()), Err(want), "{name}");
        }
    }

    #[test]
    fn relative_references_do_not_add_up() {
        let base = url(&format!("https://a/{}/", "b".repeat(MAX_LENGTH - 20)));
        assert_eq!(base.join(&[b'c'; 18]).map(|url| url.uri.len()), Ok(MAX_LENGTH));
        assert_eq!(base.join(&[b'c'; 19]), Err(LocationError::TooLong));
    }

    #[test]
    fn the_longest_url_is_read() {
        let longest = format!("https://a/{}", "b".repeat(MAX_LENGTH - 10));
        assert_eq!(longest.len(), MAX_LENGTH);
        assert!(Url::parse(longest.as_bytes()).is_ok());
        let longer = format!("{longest}b");
        assert_eq!(Url::parse(longer.as_bytes()), Err(LocationError::TooLong));
    }

    #[test]
    fn what_is_asked_of_a_url_is_told() {
        let https = url("https://a.example/b?X-Amz-Signature=secret");
        assert_eq!(https.without_query(), "https://a.example/b");
        assert_eq!(url("http://[::1]:443/?a").without_query(), "http://[::1]:443/");

        let rows = [
            ("name", "http://a/", None),
            ("IPv4", "http://127.0.0.1/", Some("127.0.0.1")),
            ("IPv6", "http://[::1]/", Some("::1")),
            ("mapped", "http://[::ffff:127.0.0.1]/", Some("::ffff:127.0.0.1")),
        ];
        for (name, given, want) in rows {
            assert_eq!(url(given).ip(), want.map(|ip| ip.parse().unwrap()), "{name}");
        }

        let rows = [
            ("path and query", "https://A.example:443/other?x", true),
            ("scheme", "http://a.example:443/", false),
            ("host", "https://b.example/", false),
            ("port", "https://a.example:8443/", false),
        ];
        for (name, other, want) in rows {
            assert_eq!(https.same_origin(&url(other)), want, "{name}");
        }
    }

    #[test]
    fn an_error_is_a_clause() {
        let rows = [
            (LocationError::Empty, "empty URL"),
            (LocationError::Byte(0xc3), "byte 0xc3 in the URL"),
            (LocationError::UserInfo, "user information in the URL"),
            (LocationError::Scheme, "the URL is neither http nor https"),
            (LocationError::Host, "no valid host in the URL"),
            (LocationError::Port, "no valid port in the URL"),
            (LocationError::TooLong, "the URL is longer than 16384 bytes"),
        ];

        for (error, want) in rows {
            assert_eq!(error.to_string(), want);
        }
    }
}
