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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_found() {
        let rows: [(&str, &str, &[&str]); 14] = [
            ("empty", "", &[]),
            ("one", "nameserver 192.0.2.1\n", &["192.0.2.1"]),
            ("no line feed at the end", "nameserver 192.0.2.1", &["192.0.2.1"]),
            ("carriage return", "nameserver 192.0.2.1\r\n", &["192.0.2.1"]),
            ("blanks", "nameserver \t 192.0.2.1  \n", &["192.0.2.1"]),
            ("IPv6", "nameserver 2001:DB8::1\n", &["[2001:db8::1]"]),
            ("text behind", "nameserver 192.0.2.1 # first\n", &["192.0.2.1"]),
            (
                "other lines",
                "# nameserver 192.0.2.9\n;nameserver 192.0.2.8\nsearch a\nnameserver 192.0.2.1\n\
                 options edns0\nnameserver 192.0.2.2\n",
                &["192.0.2.1", "192.0.2.2"],
            ),
            (
                "more than three",
                "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver ::1\n\
                 nameserver 192.0.2.4\n",
                &["192.0.2.1", "192.0.2.2", "[::1]"],
            ),
            ("zone", "nameserver fe80::1%eth0\nnameserver 192.0.2.1\n", &["192.0.2.1"]),
            ("name", "nameserver localhost\n", &[]),
            ("no address", "nameserver\nnameserver \n", &[]),
            ("longer keyword", "nameservers 192.0.2.1\nnameserver192.0.2.1\n", &[]),
            ("keyword not at the start", " nameserver 192.0.2.1\n", &[]),
        ];

        for (name, text, want) in rows {
            assert_eq!(name_servers(text), want, "{name}");
        }
    }
}
