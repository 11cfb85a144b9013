//! What becomes of a redirect that upstream answered (RFC 9110, section 15.4).

use std::fmt;
use std::net::IpAddr;

use regex::Regex;

use crate::address::{self, Cidr};
use crate::authority;
use crate::location::{LocationError, Scheme, Url};

/// How `docker_follow_redirect` is configured.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How many redirects of one request are followed at most.
    pub hops: u8,
    /// The hosts that a redirect may lead to; if empty, every host at a public address.
    pub allow: Vec<Allow>,
    /// Networks that may be led to although they are not public.
    pub private: Vec<Cidr>,
    /// Whether the certificate of an https target must be valid.
    pub verify: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { hops: 5, allow: Vec::new(), private: Vec::new(), verify: true }
    }
}

impl Policy {
    /// Whether a redirect may lead to this address, which a host resolved to. To be asked of every
    /// target but those that are configured: the primary, and the fallbacks.
    pub fn permits(&self, address: IpAddr) -> bool {
        !address::is_special(address) || self.private.iter().any(|net| net.contains(address))
    }

    fn allows(&self, url: &Url) -> bool {
        self.allow.is_empty() || self.allow.iter().any(|allow| allow.matches(url))
    }
}

/// A pattern of hosts, with the port that they may be asked at: without one, 80 and 443.
#[derive(Clone, Debug)]
pub enum Allow {
    /// This host only, in lower case; an IPv6 literal in brackets.
    Host(String, Option<u16>),
    /// `.example.com`: this domain and everything below it, as in nginx's `server_name`.
    Suffix(String, Option<u16>),
    /// The whole host, in any case.
    Regex(Regex, Option<u16>),
}

impl Allow {
    /// Reads `host`, `.suffix` or `~regex`, each with or without `:port`.
    ///
    /// # Errors
    ///
    /// A clause that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (pattern, port) = match text.rsplit_once(':') {
            // The groups of a colon inside an IPv6 literal are followed by a bracket.
            Some((pattern, digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                let port = authority::port(digits);
                (pattern, Some(port.ok_or("the port is not between 1 and 65535")?))
            }
            _ => (text, None),
        };

        if let Some(regex) = pattern.strip_prefix('~') {
            return Ok(Self::Regex(whole(regex)?, port));
        }
        let host = pattern.strip_prefix('.').unwrap_or(pattern);
        let has_port = host.contains(':') && !host.starts_with('[');
        if has_port || !authority::is_valid(host.as_bytes()) {
            return Err("no valid host".to_owned());
        }
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        if !pattern.starts_with('.') {
            return Ok(Self::Host(host, port));
        }
        if host.starts_with('[') || host.parse::<IpAddr>().is_ok() {
            return Err("no domain".to_owned());
        }
        Ok(Self::Suffix(format!(".{host}"), port))
    }

    /// Whether a redirect to `url` is meant.
    pub fn matches(&self, url: &Url) -> bool {
        let host = url.host.strip_suffix('.').unwrap_or(&url.host);
        let (matches, port) = match self {
            Self::Host(name, port) => (host == name, port),
            Self::Suffix(suffix, port) => (in_domain(host, suffix), port),
            Self::Regex(regex, port) => (regex.is_match(host), port),
        };
        matches && port.map_or(matches!(url.port, 80 | 443), |port| url.port == port)
    }
}

/// `suffix` begins with a dot.
fn in_domain(host: &str, suffix: &str) -> bool {
    host.ends_with(suffix) || suffix.strip_prefix('.') == Some(host)
}

/// A regex that must match from the first to the last byte, in any case.
fn whole(pattern: &str) -> Result<Regex, String> {
    if pattern.is_empty() {
        return Err("empty regex".to_owned());
    }
    // First by itself: "a)|(b" would be valid inside of the group, and escape the anchors.
    Regex::new(pattern)
        .and_then(|_| Regex::new(&format!(r"\A(?i:{pattern})\z")))
        // The library draws the place on several lines; the cause is in the last.
        .map_err(|error| {
            let text = error.to_string();
            let cause = text.lines().last().unwrap_or_default();
            cause.strip_prefix("error: ").unwrap_or(cause).to_owned()
        })
}

/// An answer of upstream to a `GET` or `HEAD`.
#[derive(Clone, Copy, Debug)]
pub struct Redirect<'a> {
    /// The status code.
    pub status: u16,
    /// The `Location` value as received.
    pub location: Option<&'a [u8]>,
    /// The URL that was requested.
    pub base: &'a Url,
    /// How many redirects of this request have been followed.
    pub followed: u8,
    /// Whether the `CDN-Loop` of the request says that it came by here too often.
    pub looped: bool,
}

/// What to do with the answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Decision {
    /// It is no redirect that could be followed: the client gets it.
    Pass,
    /// Ask there.
    Follow(Url),
    /// The client gets an error: it could not reach the target, or should not.
    Refuse(Refusal),
}

/// Decides what becomes of `redirect`.
///
/// A redirect within the same origin needs no `allow`: what is configured is asked anyway. A host
/// that is a literal address is checked here; the addresses of a name are checked with
/// [`Policy::permits`] once they are known.
pub fn decide(redirect: &Redirect<'_>, policy: &Policy) -> Decision {
    let (301 | 302 | 303 | 307 | 308, Some(location)) = (redirect.status, redirect.location) else {
        return Decision::Pass;
    };
    match target(redirect, location, policy) {
        Ok(url) => Decision::Follow(url),
        Err(refusal) => Decision::Refuse(refusal),
    }
}

fn target(redirect: &Redirect<'_>, location: &[u8], policy: &Policy) -> Result<Url, Refusal> {
    if redirect.looped {
        return Err(Refusal::Loop);
    }
    if redirect.followed >= policy.hops {
        return Err(Refusal::Hops(policy.hops));
    }

    let url = redirect.base.join(location).map_err(Refusal::Location)?;
    if url.same_origin(redirect.base) {
        return Ok(url);
    }
    if redirect.base.scheme == Scheme::Https && url.scheme == Scheme::Http {
        return Err(Refusal::Downgrade(url.host));
    }
    if !policy.allows(&url) {
        return Err(Refusal::NotAllowed(url.host));
    }
    match url.ip() {
        Some(address) if !policy.permits(address) => Err(Refusal::Address(url.host)),
        _ => Ok(url),
    }
}

/// Why a redirect is not followed. The text never holds an address that a name resolved to, nor a
/// query.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// The `Location` is no URL that can be followed.
    Location(LocationError),
    /// From https to http, at this host.
    Downgrade(String),
    /// No `allow` parameter names this host with this port.
    NotAllowed(String),
    /// This host is at an address that is not public.
    Address(String),
    /// So many redirects were followed already.
    Hops(u8),
    /// The request came by here before.
    Loop,
}

impl Refusal {
    /// The host that the redirect led to, if it was read at all.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Downgrade(host) | Self::NotAllowed(host) | Self::Address(host) => Some(host),
            Self::Location(_) | Self::Hops(_) | Self::Loop => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Location(error) => write!(f, "invalid redirect, {error}"),
            Self::Downgrade(_) => f.write_str("a redirect from https to http is not followed"),
            Self::NotAllowed(_) => f.write_str("redirects to this host are not allowed"),
            Self::Address(_) => f.write_str("redirects to this address are not allowed"),
            Self::Hops(hops) => write!(f, "more than {hops} redirects"),
            Self::Loop => f.write_str("the request runs in a loop"),
        }
    }
}

impl std::error::Error for Refusal {}
