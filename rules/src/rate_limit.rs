//! The figures that Docker Hub gives with every manifest: `ratelimit-limit`,
//! `ratelimit-remaining` and `docker-ratelimit-source`.

use std::net::IpAddr;

use crate::syntax;

/// A number of requests, and the time that it is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RateLimit {
    /// The requests.
    pub requests: u32,
    /// The window, in seconds; 0 if it is not said.
    pub window: u32,
}

impl RateLimit {
    /// Reads `100;w=21600`. Of a list (as in the drafts of the IETF) the first element counts, and
    /// what does not fit is as much as fits. Parameters but `w` are skipped, as is a `w` that is no
    /// number.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let first = value.split(|byte| *byte == b',').next().unwrap_or_default();
        let mut parts = first.split(|byte| *byte == b';').map(syntax::trim_ows);
        let requests = number(parts.next()?)?;
        let window = parts
            .find_map(|part| syntax::strip_prefix_any_case(part, b"w="))
            .and_then(number)
            .unwrap_or(0);
        Some(Self { requests, window })
    }
}

fn number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u32, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u32::from(digit - b'0'))?;
        Some(number.saturating_mul(10).saturating_add(digit))
    })
}

/// Whose requests are counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// Those of an address: all that the mirror asks without a login.
    Address,
    /// Those of an account.
    Account,
}

impl Source {
    /// Reads `docker-ratelimit-source`: an address, the network of one, or the name of an account.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let value = syntax::trim_ows(value);
        if value.is_empty() || !value.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        let address = value.split(|byte| *byte == b'/').next().unwrap_or_default();
        let address = str::from_utf8(address).ok()?;
        Some(match address.parse::<IpAddr>() {
            Ok(_) => Self::Address,
            Err(_) => Self::Account,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_of_requests_in_a_window() {
        let rows = [
            ("Docker Hub's", "100;w=21600", Some((100, 21_600))),
            ("none left", "0;w=21600", Some((0, 21_600))),
            ("white space", " 76 ; w=21600 ", Some((76, 21_600))),
            ("upper case", "76;W=60", Some((76, 60))),
            ("no window", "100", Some((100, 0))),
            ("window of no number", "100;w=x", Some((100, 0))),
            ("empty window", "100;w=", Some((100, 0))),
            ("other parameters", "100;burst=10;w=60;policy=a", Some((100, 60))),
            ("list", "100, 100;w=60, 500;w=3600", Some((100, 0))),
            ("greater than 32 bits", "99999999999;w=99999999999", Some((u32::MAX, u32::MAX))),
            ("many digits", &"9".repeat(10_000), Some((u32::MAX, 0))),
            ("empty", "", None),
            ("window alone", ";w=60", None),
            ("negative", "-1;w=60", None),
            ("sign", "+1;w=60", None),
            ("fraction", "1.5;w=60", None),
            ("word", "unlimited", None),
            ("structured field", "\"default\";r=50", None),
        ];

        for (name, value, want) in rows {
            let want = want.map(|(requests, window)| RateLimit { requests, window });
            assert_eq!(RateLimit::parse(value.as_bytes()), want, "{name}");
        }
        assert_eq!(RateLimit::parse(b"\xff"), None);
    }

    #[test]
    fn a_source_is_an_address_or_an_account() {
        let rows = [
            ("IPv4", "192.0.2.1", Some(Source::Address)),
            ("IPv6", "2001:db8::1", Some(Source::Address)),
            ("network", "2001:db8::/64", Some(Source::Address)),
            ("account", "77b17e00-0000-4000-8000-000000000000", Some(Source::Account)),
            ("name", "alice", Some(Source::Account)),
            ("empty", "", None),
            ("spaces within", "a b", None),
            ("control characters", "a\u{7}", None),
        ];

        for (name, value, want) in rows {
            assert_eq!(Source::parse(value.as_bytes()), want, "{name}");
        }
    }
}
