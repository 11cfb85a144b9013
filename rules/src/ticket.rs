//! What the mirror writes into a client's URL to find again when the client comes back with it: the
//! place to go on to, signed, so that a client can bring nothing but what it was given. No state is
//! kept.
//!
//! ```
//! use rules::ticket::{Key, Ticket};
//!
//! let key = Key::new([1; 32]);
//! let ticket = Ticket::Realm {
//!     registry: "ghcr.io".to_owned(),
//!     realm: "https://ghcr.io/token".to_owned(),
//!     service: Some("ghcr.io".to_owned()),
//!     for_all: false,
//! };
//! let text = ticket.seal(&key);
//! assert_eq!(Ticket::open(&text, &key), Some(ticket));
//! assert_eq!(Ticket::open(&text, &Key::new([2; 32])), None);
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};

use crate::syntax;

/// A key of HMAC-SHA256 (RFC 2104).
#[derive(Clone)]
pub struct Key([u8; Key::LENGTH]);

impl Key {
    /// The length of a key, in bytes.
    pub const LENGTH: usize = 32;

    /// The key of these bytes; they must be random.
    pub fn new(bytes: [u8; Self::LENGTH]) -> Self {
        Self(bytes)
    }

    /// The key in a file: 64 hexadecimal digits, as `openssl rand -hex 32` writes them. White space
    /// around them is ignored.
    pub fn parse(text: &[u8]) -> Option<Self> {
        syntax::hex(text.trim_ascii()).map(Self)
    }

    fn mac(&self, payload: &[u8]) -> Option<Hmac<sha2::Sha256>> {
        // HMAC takes keys of any length: there is always one.
        let mut mac = Hmac::new_from_slice(&self.0).ok()?;
        mac.update(payload);
        Some(mac)
    }
}

/// A place to go on to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ticket {
    /// A token server that a registry named.
    Realm {
        /// The registry's name.
        registry: String,
        /// The realm of its challenge.
        realm: String,
        /// The challenge's service, if it had one.
        service: Option<String>,
        /// The client may ask there for the images of all registries, by their prefixes.
        for_all: bool,
    },
    /// An upload that a registry has begun.
    Upload {
        /// The registry's name.
        registry: String,
        /// Where it goes on there: path and query.
        uri: String,
    },
}

/// The longest ticket that is read, in bytes: a URL of 4 kB with what belongs to it.
pub const MAX_LENGTH: usize = 8 * 1024;

const REALM: &str = "realm";
const REALM_FOR_ALL: &str = "realms";
const UPLOAD: &str = "upload";

impl Ticket {
    /// `payload.mac`, of letters, digits, `-`, `_` and one dot. The same ticket makes the same
    /// text.
    pub fn seal(&self, key: &Key) -> String {
        let payload = URL_SAFE_NO_PAD.encode(self.lines());
        let mac = key.mac(payload.as_bytes()).map(|mac| mac.finalize().into_bytes());
        format!("{payload}.{}", URL_SAFE_NO_PAD.encode(mac.unwrap_or_default()))
    }

    /// The ticket that [`seal`](Self::seal) made `text` of, with this key. `None` for any other
    /// text; the comparison takes the same time wherever the difference is.
    pub fn open(text: &str, key: &Key) -> Option<Self> {
        if text.len() > MAX_LENGTH {
            return None;
        }
        let (payload, mac) = text.split_once('.')?;
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        key.mac(payload.as_bytes())?.verify_slice(&mac).ok()?;
        let lines = URL_SAFE_NO_PAD.decode(payload).ok()?;
        Self::of_lines(str::from_utf8(&lines).ok()?)
    }

    /// None of the fields can hold a line feed: a name, a URL, a value of a header.
    fn lines(&self) -> String {
        match self {
            Self::Realm { registry, realm, service, for_all } => {
                let kind = if *for_all { REALM_FOR_ALL } else { REALM };
                let service = service.iter().map(String::as_str);
                [kind, registry, realm].into_iter().chain(service).collect::<Vec<_>>().join("\n")
            }
            Self::Upload { registry, uri } => format!("{UPLOAD}\n{registry}\n{uri}"),
        }
    }

    fn of_lines(lines: &str) -> Option<Self> {
        let mut lines = lines.split('\n');
        let (kind, registry, url) = (lines.next()?, lines.next()?, lines.next()?);
        let (registry, url) = (registry.to_owned(), url.to_owned());
        let last = lines.next();
        if lines.next().is_some() {
            return None;
        }
        match (kind, last) {
            (REALM | REALM_FOR_ALL, service) => Some(Self::Realm {
                registry,
                realm: url,
                service: service.map(str::to_owned),
                for_all: kind == REALM_FOR_ALL,
            }),
            (UPLOAD, None) => Some(Self::Upload { registry, uri: url }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn tickets() -> [Ticket; 5] {
        let realm = |service: Option<&str>, for_all| Ticket::Realm {
            registry: "ghcr.io".to_owned(),
            realm: "https://ghcr.io/token?a=b".to_owned(),
            service: service.map(str::to_owned),
            for_all,
        };
        [
            realm(None, false),
            realm(None, true),
            realm(Some(""), false),
            realm(Some("a service, with a comma"), true),
            Ticket::Upload { registry: "a:5000".to_owned(), uri: "/v2/a?b".to_owned() },
        ]
    }

    #[test]
    fn a_ticket_is_opened_as_it_was_sealed() {
        let key = Key::new(KEY);
        for ticket in tickets() {
            let text = ticket.seal(&key);
            assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)));
            assert_eq!(Ticket::open(&text, &key), Some(ticket));
        }
    }

    #[test]
    fn nothing_else_is_opened() {
        let key = Key::new(KEY);
        for ticket in tickets() {
            let text = ticket.seal(&key);
            let (payload, mac) = text.split_once('.').unwrap();
            let other = tickets().map(|ticket| ticket.seal(&key));
            let other = other.iter().find(|other| **other != text).unwrap();
            let rows = [
                ("empty", String::new()),
                ("a dot", ".".to_owned()),
                ("no MAC", payload.to_owned()),
                ("empty MAC", format!("{payload}.")),
                ("half a MAC", text.get(..text.len() - 20).unwrap().to_owned()),
                ("a longer MAC", format!("{text}A")),
                ("padding", format!("{text}=")),
                ("a further part", format!("{text}.{mac}")),
                ("an empty payload", format!(".{mac}")),
                ("another payload", format!("{}.{mac}", other.split_once('.').unwrap().0)),
                ("another key", ticket.seal(&Key::new([8; 32]))),
                ("too long", format!("{}{text}", "A".repeat(MAX_LENGTH))),
            ];

            for (name, text) in rows {
                assert_eq!(Ticket::open(&text, &key), None, "{name}");
            }
        }
    }

    #[test]
    fn no_changed_byte_is_accepted() {
        let key = Key::new(KEY);
        let text = tickets()[2].seal(&key);
        for at in 0..text.len() {
            for byte in 0..=0x7f_u8 {
                let mut changed = text.clone().into_bytes();
                if changed[at] == byte {
                    continue;
                }
                changed[at] = byte;
                let changed = String::from_utf8(changed).unwrap();
                assert_eq!(Ticket::open(&changed, &key), None, "{changed}");
            }
        }
    }

    #[test]
    fn payloads_of_other_shapes_are_none() {
        for lines in
            ["", "realm", "realm\na", "other\na\nb", "upload\na\nb\nc", "realm\na\nb\nc\nd"]
        {
            assert_eq!(Ticket::of_lines(lines), None, "{lines:?}");
        }
    }

    /// RFC 4231, test case 2, with its key filled up by zeros, which HMAC does itself.
    #[test]
    fn the_mac_is_hmac_sha256() {
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        let mac = Key::new(key).mac(b"what do ya want for nothing?").unwrap().finalize();
        let hex: String = mac.into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn a_key_is_read_from_its_digits() {
        let digits = "07".repeat(32);
        for text in [digits.clone(), format!(" {digits}\r\n"), digits.to_uppercase()] {
            assert_eq!(Key::parse(text.as_bytes()).unwrap().0, KEY);
        }
        for text in ["", "07", &"0g".repeat(32), &"07".repeat(33), &format!("{digits} 07")] {
            assert!(Key::parse(text.as_bytes()).is_none(), "{text}");
        }
    }
}
