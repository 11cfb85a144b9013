//! A head that is written is one that is read, with one `Host`; to another origin goes nothing
//! that could tell who the client is, whatever its lines are.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use rules::cdn_loop;
use rules::location::{Scheme, Url};
use rules::request::{Carry, Head, head};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    method: &'a str,
    host: &'a str,
    uri: &'a str,
    authorization: Option<&'a [u8]>,
    lines: Vec<(&'a [u8], &'a [u8])>,
    received: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let Input { method, host, uri, authorization, lines, received } = input;
    if !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase()) {
        let url =
            Url { scheme: Scheme::Https, host: host.to_owned(), port: 443, uri: format!("/{uri}") };
        check(method, &url, authorization, &lines);
    }

    if let Some(head) = Head::parse(received) {
        let url = Url::parse(b"https://cdn.example/").expect("a URL");
        check("GET", &url, authorization, &head.lines().collect::<Vec<_>>());
    }
});

fn check(method: &str, url: &Url, authorization: Option<&[u8]>, lines: &[(&[u8], &[u8])]) {
    const VIA: &str = "docker-mirror-0123456789abcdef";
    const PRIVATE: [(&[u8], &[u8]); 4] = [
        (b"Cookie", b"a=b"),
        (b"Authorization", b"Basic YTpi"),
        (b"X-Forwarded-For", b"192.0.2.1"),
        (b"Connection", b"close"),
    ];
    let lines = &[lines, &PRIVATE].concat();

    let written = head(method, url, &Carry::All, lines.iter().copied());
    let read = Head::parse(&written).expect("a head");
    assert_eq!(read.method(), method.as_bytes());
    assert_eq!(read.lines().filter(|(name, _)| name.eq_ignore_ascii_case(b"host")).count(), 1);
    assert!(read.lines().count() <= lines.len() + 1);

    let carry = Carry::Public { authorization, via: VIA };
    let written = head(method, url, &carry, lines.iter().copied());
    let read = Head::parse(&written).expect("a head");
    assert!(written.ends_with(b"\r\n\r\n") && read.host().is_some());
    for (name, value) in read.lines() {
        let name = str::from_utf8(name).expect("ASCII").to_ascii_lowercase();
        match name.as_str() {
            "host" | "accept" | "accept-encoding" | "range" | "user-agent" => {}
            "authorization" => assert_eq!(Some(value), authorization.map(<[u8]>::trim_ascii)),
            "cdn-loop" => assert!(cdn_loop::count([value].into_iter(), VIA) > 0),
            _ => assert!(name.starts_with("if-"), "{name}"),
        }
    }
}
