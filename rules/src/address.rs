//! Which addresses a redirect from outside must not lead to (RFC 6890, and the special-purpose
//! registries of IANA that it founded).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The IPv4 special-purpose registry, multicast, and what one cloud keeps among public addresses.
const SPECIAL_V4: [Cidr; 19] = [
    v4([0, 0, 0, 0], 8),        // this network, RFC 791
    v4([10, 0, 0, 0], 8),       // private use, RFC 1918
    v4([100, 64, 0, 0], 10),    // shared address space of carriers, RFC 6598
    v4([127, 0, 0, 0], 8),      // loopback, RFC 1122
    v4([168, 63, 129, 16], 32), // metadata and DNS of Azure
    v4([169, 254, 0, 0], 16),   // link-local, RFC 3927; metadata of most clouds
    v4([172, 16, 0, 0], 12),    // private use, RFC 1918
    v4([192, 0, 0, 0], 24),     // IETF protocol assignments, RFC 6890
    v4([192, 0, 2, 0], 24),     // documentation, RFC 5737
    v4([192, 31, 196, 0], 24),  // AS112, RFC 7535
    v4([192, 52, 193, 0], 24),  // AMT, RFC 7450
    v4([192, 88, 99, 0], 24),   // 6to4 relays, RFC 7526
    v4([192, 168, 0, 0], 16),   // private use, RFC 1918
    v4([192, 175, 48, 0], 24),  // AS112, RFC 7534
    v4([198, 18, 0, 0], 15),    // benchmarking, RFC 2544
    v4([198, 51, 100, 0], 24),  // documentation, RFC 5737
    v4([203, 0, 113, 0], 24),   // documentation, RFC 5737
    v4([224, 0, 0, 0], 4),      // multicast, RFC 1112
    v4([240, 0, 0, 0], 4),      // reserved, RFC 1112; limited broadcast, RFC 919
];

/// The only part of IPv6 that is assigned for global unicast (RFC 4291, section 2.4). Loopback,
/// unique local (with the metadata service at fd00:ec2::254), link-local, the former site-local,
/// multicast, discard-only and segment-routing addresses all lie outside.
const GLOBAL_UNICAST: Cidr = v6([0x2000, 0, 0, 0], 3);

/// What the IPv6 special-purpose registry holds inside of global unicast.
const SPECIAL_V6: [Cidr; 5] = [
    v6([0x2001, 0, 0, 0], 23), // IETF protocol assignments: Teredo, ORCHID and others, RFC 2928
    v6([0x2001, 0xdb8, 0, 0], 32), // documentation, RFC 3849
    v6([0x2002, 0, 0, 0], 16), // 6to4, RFC 3056
    v6([0x2620, 0x4f, 0x8000, 0], 48), // AS112, RFC 7534
    v6([0x3fff, 0, 0, 0], 20), // documentation, RFC 9637
];

/// The NAT64 prefix that stands for public IPv4 addresses (RFC 6052, section 2.1).
const NAT64: Cidr = v6([0x64, 0xff9b, 0, 0], 96);

/// Whether `address` is not a public one.
///
/// An IPv4 address inside of an IPv6 one counts as what it is where that form is in use: mapped
/// (`::ffff:a.b.c.d`) and NAT64 (`64:ff9b::a.b.c.d`, which DNS64 makes of public names). Forms
/// that lead to no public server are special whatever is inside: IPv4-compatible (`::a.b.c.d`),
/// the local NAT64 prefix (`64:ff9b:1::/48`), 6to4 and Teredo.
pub fn is_special(address: IpAddr) -> bool {
    let address = address.to_canonical();
    match address {
        IpAddr::V4(_) => SPECIAL_V4.iter().any(|net| net.contains(address)),
        IpAddr::V6(v6) if NAT64.contains(address) => {
            let [.., a, b, c, d] = v6.octets();
            is_special(Ipv4Addr::new(a, b, c, d).into())
        }
        IpAddr::V6(_) => {
            !GLOBAL_UNICAST.contains(address) || SPECIAL_V6.iter().any(|net| net.contains(address))
        }
    }
}

/// A network: `10.0.0.0/8`, `2001:db8::/32`, or a single address.
///
/// An IPv4-mapped IPv6 network is the IPv4 network that it stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cidr {
    network: IpAddr,
    /// Leading bits that an address shares with `network`; the other bits of `network` are 0.
    prefix: u32,
}

impl Cidr {
    /// Whether `address` is inside. An IPv4-mapped IPv6 address is taken for the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                high_bits_v4(address, self.prefix) == network.to_bits()
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                high_bits_v6(address, self.prefix) == network.to_bits()
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

const fn v4(octets: [u8; 4], prefix: u32) -> Cidr {
    let [a, b, c, d] = octets;
    Cidr { network: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix }
}

const fn v6(segments: [u16; 4], prefix: u32) -> Cidr {
    let [a, b, c, d] = segments;
    Cidr { network: IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)), prefix }
}

/// The address as a number, with all but its first `prefix` bits cleared.
fn high_bits_v4(address: Ipv4Addr, prefix: u32) -> u32 {
    address.to_bits() & u32::MAX.checked_shl(u32::BITS - prefix).unwrap_or(0)
}

/// The address as a number, with all but its first `prefix` bits cleared.
fn high_bits_v6(address: Ipv6Addr, prefix: u32) -> u128 {
    address.to_bits() & u128::MAX.checked_shl(u128::BITS - prefix).unwrap_or(0)
}

/// Why a text is no network.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CidrError {
    /// Before the slash stands no IPv4 or IPv6 address.
    Address,
    /// Behind the slash stands no number of bits that such an address has.
    Prefix,
    /// The address has bits behind the prefix, so it is not clear which network is meant.
    HostBits,
}

impl fmt::Display for CidrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "no IP address",
            Self::Prefix => "no valid prefix length",
            Self::HostBits => "address bits behind the prefix",
        })
    }
}

impl std::error::Error for CidrError {}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| CidrError::Address)?;
        let width = if address.is_ipv4() { u32::BITS } else { u128::BITS };
        let prefix = prefix.map_or(Some(width), |digits| bits(digits, width));
        let prefix = prefix.ok_or(CidrError::Prefix)?;

        let masked = match address {
            IpAddr::V4(v4) => high_bits_v4(v4, prefix) == v4.to_bits(),
            IpAddr::V6(v6) => high_bits_v6(v6, prefix) == v6.to_bits(),
        };
        if !masked {
            return Err(CidrError::HostBits);
        }

        let mapped_in = u128::BITS - u32::BITS;
        Ok(match address.to_canonical() {
            network @ IpAddr::V4(_) if address.is_ipv6() && prefix >= mapped_in => {
                Self { network, prefix: prefix - mapped_in }
            }
            _ => Self { network: address, prefix },
        })
    }
}

/// A number of at most `width`, in decimal digits only.
fn bits(digits: &str, width: u32) -> Option<u32> {
    if digits.len() > 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|bits| *bits <= width)
}
