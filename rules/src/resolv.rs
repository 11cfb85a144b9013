//! The name servers of this machine (resolv.conf(5)).

use std::net::IpAddr;

/// `MAXNS` of the system's own resolver.
const MAX_SERVERS: usize = 3;

/// The first three name servers, as nginx's `resolver` directive takes them: an IPv6 address in
/// brackets. An address with a zone (`fe80::1%eth0`), which nginx cannot use, is skipped.
pub fn name_servers(text: &str) -> Vec<String> {
    // The keyword begins its line, so a comment cannot be taken for one.
    text.lines()
        .filter_map(|line| line.strip_prefix("nameserver"))
        .filter(|rest| rest.starts_with([' ', '\t']))
        .filter_map(|rest| rest.split_whitespace().next())
        .filter_map(|word| word.parse::<IpAddr>().ok())
        .map(|address| match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        })
        .take(MAX_SERVERS)
        .collect()
}
