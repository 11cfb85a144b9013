//! `host[:port]`, as it stands in a `Host` header (RFC 9110, section 7.2) and in a URL (RFC 3986,
//! section 3.2).

use std::net::{Ipv4Addr, Ipv6Addr};

/// The longest name that DNS knows, in bytes (RFC 1035, section 2.3.4), without a final dot.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// Whether `authority` is a `host[:port]` that may be put into a URL.
///
/// The host is a name of letters, digits, `.`, `_` and `-`, an IPv4 address, or an IPv6 address in
/// brackets; the port, if there is a colon, is 1 to 65535. User information is refused, so are
/// the abbreviated and the octal forms of IPv4 addresses, which programs read differently.
pub fn is_valid(authority: &[u8]) -> bool {
    Authority::parse(authority).is_ok()
}

/// The parts of a valid authority.
pub(crate) struct Authority<'a> {
    /// As received; an IPv6 literal keeps its brackets.
    pub(crate) host: &'a str,
    pub(crate) port: Option<u16>,
}

/// What is wrong with an authority.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum AuthorityError {
    UserInfo,
    Host,
    Port,
}

impl<'a> Authority<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, AuthorityError> {
        let text = str::from_utf8(bytes).map_err(|_| AuthorityError::Host)?;
        if memchr::memchr(b'@', bytes).is_some() {
            return Err(AuthorityError::UserInfo);
        }

        let end = match memchr::memchr(b']', bytes) {
            Some(bracket) => bracket + 1,
            None => memchr::memchr(b':', bytes).unwrap_or(bytes.len()),
        };
        let (host, rest) = text.split_at_checked(end).unwrap_or_default();
        if !is_host(host) {
            return Err(AuthorityError::Host);
        }

        let port = match rest.strip_prefix(':') {
            Some(digits) => Some(port(digits).ok_or(AuthorityError::Port)?),
            None if rest.is_empty() => None,
            None => return Err(AuthorityError::Host),
        };
        Ok(Self { host, port })
    }
}

/// One to five digits with a value of 1 to 65535.
pub(crate) fn port(digits: &str) -> Option<u16> {
    if digits.len() > 5 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|port| *port != 0)
}

fn is_host(host: &str) -> bool {
    if let Some(literal) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return literal.parse::<Ipv6Addr>().is_ok();
    }
    // What ends in a number is an IPv4 address or nothing: inet_aton() would read "127.1",
    // "0x7f000001" and "0177.0.0.1" as addresses where other programs see names.
    if ends_in_number(host) {
        return host.parse::<Ipv4Addr>().is_ok();
    }
    is_name(host)
}

fn is_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= MAX_NAME
        && name.split('.').all(|label| {
            (1..=MAX_LABEL).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        })
}

fn ends_in_number(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let last = host.rsplit('.').next().unwrap_or(host);
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    match hexadecimal {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_as_they_stand_in_a_host_header() {
        let long = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "a".repeat(61));
        let rows = [
            ("name", "mirror.example.com", true),
            ("name with port", "mirror.example.com:5000", true),
            ("name of one label", "localhost", true),
            ("upper case", "Mirror.Example", true),
            ("underscore and hyphen", "my_mirror-1.example", true),
            ("final dot", "mirror.example.", true),
            ("digits in a label", "0x7.1a", true),
            ("longest name", &long, true),
            ("name too long", &format!("{long}a"), false),
            ("label too long", &"a".repeat(64), false),
            ("IPv4", "127.0.0.1", true),
            ("IPv4 with port", "127.0.0.1:80", true),
            ("IPv4 out of range", "127.0.0.256", false),
            ("IPv4 in octal", "0177.0.0.1", false),
            ("IPv4 in hexadecimal", "0x7f000001", false),
            ("IPv4 in mixed notation", "127.0.0.0x1", false),
            ("IPv4 as one number", "2130706433", false),
            ("IPv4 abbreviated", "127.1", false),
            ("IPv4 with a final dot", "127.0.0.1.", false),
            ("bare 0x", "a.0x", false),
            ("IPv6", "[::1]", true),
            ("IPv6 with port", "[2001:db8::1]:5000", true),
            ("IPv6 with IPv4 inside", "[::ffff:127.0.0.1]", true),
            ("IPv6 without brackets", "::1", false),
            ("IPv6 with zone", "[fe80::1%25eth0]", false),
            ("IPv6 not closed", "[::1", false),
            ("IPv6 closed twice", "[::1]]", false),
            ("brackets around a name", "[mirror]", false),
            ("brackets around IPv4", "[127.0.0.1]", false),
            ("text behind brackets", "[::1]a", false),
            ("bracket inside", "a]b", false),
            ("port 1", "a:1", true),
            ("port 65535", "a:65535", true),
            ("port 65536", "a:65536", false),
            ("port 0", "a:0", false),
            ("port with a zero before it", "a:00080", true),
            ("port too long", "a:000080", false),
            ("port empty", "a:", false),
            ("port with sign", "a:+80", false),
            ("port no number", "a:http", false),
            ("two ports", "a:80:80", false),
            ("empty", "", false),
            ("port alone", ":80", false),
            ("dot alone", ".", false),
            ("empty label", "a..b", false),
            ("dot before", ".a", false),
            ("user", "user@a", false),
            ("user and password", "user:password@a:80", false),
            ("space", "a b", false),
            ("quote", "a\"b", false),
            ("line feed", "a\nb", false),
            ("NUL", "a\0", false),
            ("comma", "a,b", false),
            ("path", "a/b", false),
            ("backslash", "a\\b", false),
            ("percent", "a%62", false),
            ("not ASCII", "bücher.example", false),
            ("wildcard", "*.example", false),
        ];

        for (name, authority, want) in rows {
            assert_eq!(is_valid(authority.as_bytes()), want, "{name}");
        }
        assert!(!is_valid(b"a\xff"), "not UTF-8");
    }

    #[test]
    fn the_cause_of_a_refusal_is_told() {
        let rows = [
            ("user", "user@a:b", AuthorityError::UserInfo),
            ("host before port", "a b:0", AuthorityError::Host),
            ("port", "a:0", AuthorityError::Port),
            ("port of an IPv6 literal", "[::1]:0", AuthorityError::Port),
        ];

        for (name, authority, want) in rows {
            assert_eq!(Authority::parse(authority.as_bytes()).err(), Some(want), "{name}");
        }
    }
}
