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
    /// The reason of [`Self::Address`], which is found when a name was resolved, too.
    pub const ADDRESS: &str = "address";
    /// The reason of [`Self::Hops`], for which nginx has a limit of its own, too.
    pub const HOPS: &str = "hops";

    /// The host that the redirect led to, if it was read at all.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Downgrade(host) | Self::NotAllowed(host) | Self::Address(host) => Some(host),
            Self::Location(_) | Self::Hops(_) | Self::Loop => None,
        }
    }

    /// As the status page has it.
    pub fn as_reason(&self) -> &'static str {
        match self {
            Self::Location(_) => "location",
            Self::Downgrade(_) => "downgrade",
            Self::NotAllowed(_) => "host",
            Self::Address(_) => Self::ADDRESS,
            Self::Hops(_) => Self::HOPS,
            Self::Loop => "loop",
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

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text.as_bytes()).unwrap()
    }

    fn decision(base: &str, location: &str, policy: &Policy) -> Decision {
        let redirect = Redirect {
            status: 307,
            location: Some(location.as_bytes()),
            base: &url(base),
            followed: 0,
            looped: false,
        };
        decide(&redirect, policy)
    }

    #[test]
    fn five_statuses_with_a_location_are_followed() {
        let base = url("https://a/v2/");
        let rows = [
            (200, false),
            (201, false),
            (300, false),
            (301, true),
            (302, true),
            (303, true),
            (304, false),
            (305, false),
            (306, false),
            (307, true),
            (308, true),
            (309, false),
            (401, false),
            (500, false),
        ];

        for (status, follows) in rows {
            let redirect =
                Redirect { status, location: Some(b"/b"), base: &base, followed: 0, looped: false };
            let want = if follows { Decision::Follow(url("https://a/b")) } else { Decision::Pass };
            assert_eq!(decide(&redirect, &Policy::default()), want, "{status}");

            let redirect = Redirect { location: None, ..redirect };
            assert_eq!(decide(&redirect, &Policy::default()), Decision::Pass, "bare {status}");
        }
    }

    #[test]
    fn a_redirect_is_followed_or_refused_with_its_cause() {
        let host = |host: &str| host.to_owned();
        let rows = [
            ("CDN", "https://cdn.example/x?y", Ok("https://cdn.example/x?y")),
            ("relative", "x", Ok("https://a/v2/x")),
            ("another port", "https://a:8443/x", Ok("https://a:8443/x")),
            ("public address", "https://104.16.99.215/x", Ok("https://104.16.99.215/x")),
            ("downgrade", "http://b/x", Err(Refusal::Downgrade(host("b")))),
            ("downgrade of the same host", "http://a/x", Err(Refusal::Downgrade(host("a")))),
            ("downgrade on port 443", "http://a:443/", Err(Refusal::Downgrade(host("a")))),
            ("empty", "", Err(Refusal::Location(LocationError::Empty))),
            ("user", "https://u@b/", Err(Refusal::Location(LocationError::UserInfo))),
            ("file", "file:///x", Err(Refusal::Location(LocationError::Scheme))),
            ("loopback", "https://127.0.0.1/", Err(Refusal::Address(host("127.0.0.1")))),
            ("loopback, IPv6", "https://[::1]/", Err(Refusal::Address(host("[::1]")))),
            (
                "mapped loopback",
                "https://[::ffff:127.0.0.1]:1/",
                Err(Refusal::Address(host("[::ffff:127.0.0.1]"))),
            ),
            (
                "metadata",
                "//169.254.169.254/latest/meta-data/",
                Err(Refusal::Address(host("169.254.169.254"))),
            ),
        ];

        for (name, location, want) in rows {
            let want = match want {
                Ok(target) => Decision::Follow(url(target)),
                Err(refusal) => Decision::Refuse(refusal),
            };
            assert_eq!(decision("https://a/v2/", location, &Policy::default()), want, "{name}");
        }
    }

    #[test]
    fn http_goes_on_to_http_and_to_https() {
        for location in ["http://b/", "https://b/"] {
            let got = decision("http://a/", location, &Policy::default());
            assert_eq!(got, Decision::Follow(url(location)), "{location}");
        }
    }

    #[test]
    fn hops_are_counted_and_loops_are_ended() {
        let base = url("https://a/");
        let first = Redirect {
            status: 302,
            location: Some(b"https://b/"),
            base: &base,
            followed: 0,
            looped: false,
        };
        let policy = Policy { hops: 3, ..Policy::default() };
        let rows = [
            ("last hop", Redirect { followed: 2, ..first }, None),
            ("one too many", Redirect { followed: 3, ..first }, Some(Refusal::Hops(3))),
            ("many too many", Redirect { followed: 255, ..first }, Some(Refusal::Hops(3))),
            ("loop", Redirect { looped: true, ..first }, Some(Refusal::Loop)),
        ];

        for (name, redirect, refusal) in rows {
            let want = refusal.map_or(Decision::Follow(url("https://b/")), Decision::Refuse);
            assert_eq!(decide(&redirect, &policy), want, "{name}");
        }
        let passed = Redirect { status: 401, followed: 9, looped: true, ..first };
        assert_eq!(decide(&passed, &policy), Decision::Pass, "what is no redirect");
    }

    #[test]
    fn allow_names_hosts_and_ports() {
        let rows = [
            ("host", "cdn.example", "https://cdn.example/", true),
            ("host, http", "cdn.example", "http://cdn.example/", true),
            ("host in upper case", "CDN.example", "https://cdn.Example/", true),
            ("host with a final dot", "cdn.example", "https://cdn.example./", true),
            ("host below", "cdn.example", "https://a.cdn.example/", false),
            ("host that begins alike", "cdn.example", "https://cdn.example.evil/", false),
            ("host, another port", "cdn.example", "https://cdn.example:8443/", false),
            ("host, port of http over https", "cdn.example", "https://cdn.example:80/", true),
            ("port", "cdn.example:8443", "https://cdn.example:8443/", true),
            ("port, default asked", "cdn.example:8443", "https://cdn.example/", false),
            ("default port named", "cdn.example:443", "https://cdn.example/", true),
            ("default port named, http", "cdn.example:443", "http://cdn.example/", false),
            ("suffix", ".cdn.example", "https://a.b.cdn.example/", true),
            ("suffix itself", ".cdn.example", "https://cdn.example/", true),
            ("suffix with a final dot", ".cdn.example.", "https://a.cdn.example/", true),
            ("suffix within a label", ".cdn.example", "https://evilcdn.example/", false),
            ("suffix with port", ".cdn.example:1", "https://a.cdn.example:1/", true),
            ("regex", r"~cdn\d+\.example", "https://cdn42.example/", true),
            ("regex of a part", r"~cdn", "https://cdn42.example/", false),
            ("regex, leftmost alternative shorter", "~a|ab", "https://ab/", true),
            ("regex, alternative escapes no anchor", "~a|b", "https://a.evil/", false),
            ("regex in upper case", "~CDN", "https://cdn/", true),
            ("regex with anchors", "~^cdn$", "https://cdn/", true),
            ("regex with flags", "~(?m)^cdn$", "https://cdn/", true),
            ("regex with port", "~cdn:8443", "https://cdn:8443/", true),
            ("regex with port, default asked", "~cdn:8443", "https://cdn/", false),
            ("regex with a colon inside", "~(?:cdn)", "https://cdn/", true),
            ("IPv4", "104.16.99.215", "https://104.16.99.215/", true),
            ("IPv6", "[2606:4700::1]", "https://[2606:4700::1]/", true),
            ("IPv6 with port", "[2606:4700::1]:1", "https://[2606:4700::1]:1/", true),
        ];

        for (name, pattern, target, want) in rows {
            assert_eq!(Allow::parse(pattern).unwrap().matches(&url(target)), want, "{name}");
        }
    }

    #[test]
    fn a_pattern_that_no_host_matches_is_refused() {
        let rows = [
            ("empty", "", "no valid host"),
            ("dot", ".", "no valid host"),
            ("port alone", ":80", "no valid host"),
            ("wildcard", "*.example", "no valid host"),
            ("URL", "https://a/", "no valid host"),
            ("IPv6 without brackets", "::1", "no valid host"),
            ("two ports", "a:1:2", "no valid host"),
            ("empty port", "a:", "the port is not between 1 and 65535"),
            ("port 0", "a:0", "the port is not between 1 and 65535"),
            ("port too large", "a:65536", "the port is not between 1 and 65535"),
            ("suffix of an IPv4 address", ".10.0.0.1", "no domain"),
            ("suffix of an IPv6 address", ".[::1]", "no domain"),
            ("empty regex", "~", "empty regex"),
            ("regex not closed", "~[a", "unclosed character class"),
            ("regex out of its group", "~a)|(b", "unopened group"),
        ];

        for (name, pattern, want) in rows {
            assert_eq!(Allow::parse(pattern).err().as_deref(), Some(want), "{name}");
        }
    }

    #[test]
    fn allow_binds_other_origins_only() {
        let allow = vec![Allow::parse("cdn.example").unwrap(), Allow::parse(".b").unwrap()];
        let policy = Policy { allow, ..Policy::default() };
        let evil = || Decision::Refuse(Refusal::NotAllowed("evil.example".to_owned()));
        let rows = [
            ("first", "https://cdn.example/", Decision::Follow(url("https://cdn.example/"))),
            ("second", "https://a.b/", Decision::Follow(url("https://a.b/"))),
            ("same origin", "/x", Decision::Follow(url("https://a:8443/x"))),
            ("neither", "https://evil.example/", evil()),
        ];

        for (name, location, want) in rows {
            assert_eq!(decision("https://a:8443/", location, &policy), want, "{name}");
        }
    }

    #[test]
    fn private_networks_are_open_if_configured() {
        let private = vec!["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()];
        let policy = Policy { private, ..Policy::default() };
        let rows = [
            ("inside", "10.1.2.3", true),
            ("inside, mapped", "::ffff:10.1.2.3", true),
            ("inside, IPv6", "::1", true),
            ("outside", "127.0.0.1", false),
            ("outside, IPv6", "fe80::1", false),
            ("public", "8.8.8.8", true),
        ];
        for (name, address, want) in rows {
            assert_eq!(policy.permits(address.parse().unwrap()), want, "{name}");
        }

        let got = decision("https://a/", "https://10.1.2.3/", &policy);
        assert_eq!(got, Decision::Follow(url("https://10.1.2.3/")));
    }

    #[test]
    fn a_private_registry_may_redirect_within_itself() {
        let got = decision("http://127.0.0.1:5000/v2/", "/v2/x", &Policy::default());
        assert_eq!(got, Decision::Follow(url("http://127.0.0.1:5000/v2/x")));
    }

    #[test]
    fn a_refusal_tells_host_and_cause() {
        let location = LocationError::Byte(b'\n');
        let host = || "b".to_owned();
        let rows = [
            (Refusal::Location(location), None, "invalid redirect, byte 0x0a in the URL"),
            (
                Refusal::Downgrade(host()),
                Some("b"),
                "a redirect from https to http is not followed",
            ),
            (Refusal::NotAllowed(host()), Some("b"), "redirects to this host are not allowed"),
            (Refusal::Address(host()), Some("b"), "redirects to this address are not allowed"),
            (Refusal::Hops(5), None, "more than 5 redirects"),
            (Refusal::Loop, None, "the request runs in a loop"),
        ];

        for (refusal, host, text) in rows {
            assert_eq!((refusal.host(), refusal.to_string().as_str()), (host, text));
        }
    }
}
