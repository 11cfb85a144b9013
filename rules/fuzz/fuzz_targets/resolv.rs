//! At most three name servers, each an address that nginx takes.
#![no_main]

use std::net::{IpAddr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use rules::resolv::name_servers;

fuzz_target!(|text: &str| {
    let servers = name_servers(text);
    assert!(servers.len() <= 3);
    for server in &servers {
        match server.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(literal) => assert!(literal.parse::<Ipv6Addr>().is_ok()),
            None => assert!(server.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4())),
        }
    }

    let again: String = servers
        .iter()
        .map(|server| format!("nameserver {}\n", server.trim_matches(['[', ']'])))
        .collect();
    assert_eq!(name_servers(&again), servers);
});
