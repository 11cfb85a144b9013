//! An IPv4 address is judged alike in every form that is in use, and a network holds its addresses.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use rules::address::{Cidr, is_special};

fuzz_target!(|data: &[u8]| {
    if let Ok(bits) = <[u8; 16]>::try_from(data) {
        let v6 = Ipv6Addr::from(bits);
        assert!(is_special(v6.into()) || !v6.is_loopback() && !v6.is_multicast());

        let [.., a, b, c, d] = bits;
        let v4 = Ipv4Addr::new(a, b, c, d);
        let special = is_special(v4.into());
        assert!(special || !v4.is_private() && !v4.is_loopback() && !v4.is_link_local());
        assert_eq!(is_special(v4.to_ipv6_mapped().into()), special);
        let nat64 = format!("64:ff9b::{v4}").parse().expect("an address");
        assert_eq!(is_special(IpAddr::V6(nat64)), special);
    }

    let Some((text, network)) = str::from_utf8(data).ok().and_then(parsed) else {
        return;
    };
    let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
    let address: IpAddr = address.parse().expect("an address before the slash");
    assert!(network.contains(address), "{text}");
    if prefix.is_empty() {
        assert_eq!(
            format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 }).parse(),
            Ok(network)
        );
    }
});

fn parsed(text: &str) -> Option<(&str, Cidr)> {
    Some((text, text.parse().ok()?))
}
