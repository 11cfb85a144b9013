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

        // An IPv4-mapped network holds the IPv4 network behind its first 96 bits; an IPv4 prefix
        // is never that long.
        Ok(match (address.to_canonical(), prefix.checked_sub(u128::BITS - u32::BITS)) {
            (network @ IpAddr::V4(_), Some(prefix)) => Self { network, prefix },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_purpose_addresses_are_told_from_public_ones() {
        let rows = [
            ("Cloudflare", "104.16.99.215", false),
            ("resolver of Google", "8.8.8.8", false),
            ("this host", "0.0.0.0", true),
            ("this network, last", "0.255.255.255", true),
            ("behind this network", "1.0.0.0", false),
            ("before 10/8", "9.255.255.255", false),
            ("10/8, first", "10.0.0.0", true),
            ("10/8, last", "10.255.255.255", true),
            ("behind 10/8", "11.0.0.0", false),
            ("before shared space", "100.63.255.255", false),
            ("shared space, first", "100.64.0.0", true),
            ("metadata of Alibaba, in shared space", "100.100.100.200", true),
            ("shared space, last", "100.127.255.255", true),
            ("behind shared space", "100.128.0.0", false),
            ("loopback", "127.0.0.1", true),
            ("loopback, last", "127.255.255.255", true),
            ("behind loopback", "128.0.0.0", false),
            ("metadata of most clouds", "169.254.169.254", true),
            ("link-local, first", "169.254.0.0", true),
            ("behind link-local", "169.255.0.0", false),
            ("metadata of Azure", "168.63.129.16", true),
            ("beside metadata of Azure", "168.63.129.17", false),
            ("before 172.16/12", "172.15.255.255", false),
            ("172.16/12, first", "172.16.0.0", true),
            ("172.16/12, last", "172.31.255.255", true),
            ("behind 172.16/12", "172.32.0.0", false),
            ("IETF assignments", "192.0.0.8", true),
            ("metadata of Oracle, in IETF assignments", "192.0.0.192", true),
            ("documentation 1", "192.0.2.1", true),
            ("between IETF assignments and documentation", "192.0.1.1", false),
            ("AS112", "192.31.196.1", true),
            ("AMT", "192.52.193.1", true),
            ("6to4 relay", "192.88.99.1", true),
            ("192.168/16", "192.168.1.1", true),
            ("behind 192.168/16", "192.169.0.0", false),
            ("AS112, delegated", "192.175.48.6", true),
            ("benchmarking, first", "198.18.0.0", true),
            ("benchmarking, last", "198.19.255.255", true),
            ("behind benchmarking", "198.20.0.0", false),
            ("documentation 2", "198.51.100.7", true),
            ("documentation 3", "203.0.113.7", true),
            ("before multicast", "223.255.255.255", false),
            ("multicast", "224.0.0.1", true),
            ("reserved", "240.0.0.1", true),
            ("broadcast", "255.255.255.255", true),
            ("Cloudflare, IPv6", "2606:4700::6810:63d7", false),
            ("RIPE, IPv6", "2a00:1450:4001::1", false),
            ("unspecified, IPv6", "::", true),
            ("loopback, IPv6", "::1", true),
            ("mapped loopback", "::ffff:127.0.0.1", true),
            ("mapped metadata", "::ffff:169.254.169.254", true),
            ("mapped public", "::ffff:8.8.8.8", false),
            ("translated, RFC 2765", "::ffff:0:8.8.8.8", true),
            ("compatible loopback", "::127.0.0.1", true),
            ("compatible public", "::8.8.8.8", true),
            ("NAT64 of loopback", "64:ff9b::127.0.0.1", true),
            ("NAT64 of metadata", "64:ff9b::a9fe:a9fe", true),
            ("NAT64 of public", "64:ff9b::8.8.8.8", false),
            ("behind NAT64", "64:ff9b::1:808:808", true),
            ("NAT64 of a local network", "64:ff9b:1::8.8.8.8", true),
            ("discard-only", "100::1", true),
            ("Teredo", "2001::5ef5:79fb:0:59d:a247:fafe", true),
            ("benchmarking, IPv6", "2001:2::1", true),
            ("ORCHID", "2001:10::1", true),
            ("ORCHIDv2", "2001:20::1", true),
            ("IETF assignments, last", "2001:1ff:ffff::1", true),
            ("behind IETF assignments", "2001:200::1", false),
            ("documentation, IPv6", "2001:db8::1", true),
            ("6to4 of private", "2002:a00:1::1", true),
            ("6to4 of public", "2002:808:808::1", true),
            ("AS112, IPv6", "2620:4f:8000::1", true),
            ("beside AS112, IPv6", "2620:4f:8001::1", false),
            ("documentation, new", "3fff:fff::1", true),
            ("behind documentation", "3fff:1000::1", false),
            ("last of global unicast", "3fff:ffff::1", false),
            ("not assigned", "4000::1", true),
            ("segment routing", "5f00::1", true),
            ("unique local", "fc00::1", true),
            ("metadata of AWS, IPv6", "fd00:ec2::254", true),
            ("link-local, IPv6", "fe80::1", true),
            ("site-local", "fec0::1", true),
            ("multicast, IPv6", "ff02::1", true),
        ];

        for (name, address, want) in rows {
            assert_eq!(is_special(address.parse().unwrap()), want, "{name}");
        }
    }

    #[test]
    fn a_network_contains_its_addresses_only() {
        let rows = [
            ("inside", "10.0.0.0/8", "10.255.255.255", true),
            ("outside", "10.0.0.0/8", "11.0.0.0", false),
            ("mapped address inside", "10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("mapped address outside", "10.0.0.0/8", "::ffff:11.1.2.3", false),
            ("mapped network", "::ffff:10.0.0.0/104", "10.1.2.3", true),
            ("NAT64 is not unwrapped", "10.0.0.0/8", "64:ff9b::10.1.2.3", false),
            ("one address", "127.0.0.1", "127.0.0.1", true),
            ("beside one address", "127.0.0.1", "127.0.0.2", false),
            ("all of IPv4", "0.0.0.0/0", "255.1.2.3", true),
            ("all of IPv4, not IPv6", "0.0.0.0/0", "::1", false),
            ("all of IPv6", "::/0", "ffff::1", true),
            ("all of IPv6, not IPv4", "::/0", "127.0.0.1", false),
            ("odd prefix", "172.16.0.0/12", "172.31.0.1", true),
            ("IPv6 inside", "fd00::/8", "fdff::1", true),
            ("IPv6 outside", "fd00::/8", "fe00::1", false),
            ("one IPv6 address", "::1/128", "::1", true),
        ];

        for (name, network, address, want) in rows {
            let network: Cidr = network.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), want, "{name}");
        }
    }

    #[test]
    fn a_text_that_names_no_network_is_refused() {
        let rows = [
            ("empty", "", CidrError::Address),
            ("prefix alone", "/8", CidrError::Address),
            ("name", "localhost", CidrError::Address),
            ("abbreviated", "10/8", CidrError::Address),
            ("brackets", "[::1]", CidrError::Address),
            ("space", "10.0.0.0 /8", CidrError::Address),
            ("no prefix behind the slash", "10.0.0.0/", CidrError::Prefix),
            ("prefix too long", "10.0.0.0/33", CidrError::Prefix),
            ("IPv6 prefix too long", "::/129", CidrError::Prefix),
            ("prefix far too long", "::/99999999999", CidrError::Prefix),
            ("prefix with sign", "10.0.0.0/+8", CidrError::Prefix),
            ("prefix of many digits", "10.0.0.0/0008", CidrError::Prefix),
            ("netmask", "10.0.0.0/255.0.0.0", CidrError::Prefix),
            ("two prefixes", "10.0.0.0/8/8", CidrError::Prefix),
            ("bits behind the prefix", "10.0.0.1/8", CidrError::HostBits),
            ("bits behind /0", "0.0.0.1/0", CidrError::HostBits),
            ("bits behind an IPv6 prefix", "fd00::1/8", CidrError::HostBits),
        ];

        for (name, network, want) in rows {
            assert_eq!(network.parse::<Cidr>(), Err(want), "{name}");
        }
    }
}
