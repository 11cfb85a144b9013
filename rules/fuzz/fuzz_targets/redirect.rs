//! What is followed is allowed, and what is refused tells no query.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use rules::location::{Scheme, Url};
use rules::redirect::{Allow, Decision, Policy, Redirect, decide};

const STATUSES: [u16; 7] = [200, 301, 302, 303, 304, 307, 308];

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    status: usize,
    followed: u8,
    looped: bool,
    secure: bool,
    pattern: &'a str,
    location: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let Input { status, followed, looped, secure, pattern, location } = input;
    let status = STATUSES[status % STATUSES.len()];
    let base = if secure { "https://registry.example/v2/" } else { "http://registry.example/v2/" };
    let base = Url::parse(base.as_bytes()).expect("a base");
    let mut policy = Policy::default();
    // Compiling a large regex takes longer than all the rest.
    if pattern.len() < 24 {
        policy.allow.extend(Allow::parse(pattern));
    }
    let redirect = Redirect { status, location: Some(location), base: &base, followed, looped };

    match decide(&redirect, &policy) {
        Decision::Pass => assert!(!matches!(status, 301 | 302 | 303 | 307 | 308)),
        Decision::Follow(url) => {
            assert!(followed < policy.hops && !looped);
            assert!(!secure || url.scheme == Scheme::Https);
            if !url.same_origin(&base) {
                assert!(policy.allow.iter().all(|allow| allow.matches(&url)));
                assert!(url.ip().is_none_or(|address| policy.permits(address)));
            }
        }
        Decision::Refuse(refusal) => {
            assert!(!refusal.to_string().contains(['?', '\n']));
            assert!(refusal.host().is_none_or(|host| !host.contains(['?', '/', '@'])));
        }
    }
});
