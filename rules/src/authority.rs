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
        if text.contains('@') {
            return Err(AuthorityError::UserInfo);
        }

        let (host, rest) = match text.find(']') {
            Some(end) if text.starts_with('[') => {
                text.split_at_checked(end + 1).ok_or(AuthorityError::Host)?
            }
            Some(_) => return Err(AuthorityError::Host),
            None => text.split_at_checked(text.find(':').unwrap_or(text.len())).unwrap_or_default(),
        };
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
