//! From a `Location` value, and the URL that was requested, to the URL that it means (RFC 9110,
//! section 10.2.2, and RFC 3986, section 5).

use std::fmt;
use std::net::IpAddr;

use crate::authority::{Authority, AuthorityError};

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
        url.uri = without_dot_segments(path) + query;
        // Relative references would add up otherwise, redirect by redirect.
        if url.uri.len() > MAX_LENGTH { Err(LocationError::TooLong) } else { Ok(url) }
    }

    /// The `Host` of a request to this URL: the host, and the port unless it is the default.
    pub fn authority(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.clone()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The address if the host is a literal one.
    pub fn ip(&self) -> Option<IpAddr> {
        let literal = self.host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        literal.unwrap_or(&self.host).parse().ok()
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
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, uri) = rest.split_at_checked(end).unwrap_or_default();
        let Authority { host, port } = Authority::parse(authority.as_bytes())?;

        let uri = without_fragment(uri);
        let slash = if uri.starts_with('/') { "" } else { "/" };
        Ok(Self {
            scheme,
            host: host.to_ascii_lowercase(),
            port: port.unwrap_or(scheme.default_port()),
            uri: format!("{slash}{uri}"),
        })
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

/// The bytes of a URL, if there is none that a request line cannot carry.
fn checked(bytes: &[u8]) -> Result<&str, LocationError> {
    if bytes.is_empty() {
        return Err(LocationError::Empty);
    }
    if bytes.len() > MAX_LENGTH {
        return Err(LocationError::TooLong);
    }
    match bytes.iter().find(|byte| !byte.is_ascii_graphic()) {
        Some(byte) => Err(LocationError::Byte(*byte)),
        None => str::from_utf8(bytes).map_err(|_| LocationError::Host),
    }
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
    reference.split_once('#').map_or(reference, |(rest, _)| rest)
}

/// The path, and the query with its question mark.
fn split_query(uri: &str) -> (&str, &str) {
    uri.split_at_checked(uri.find('?').unwrap_or(uri.len())).unwrap_or((uri, ""))
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
