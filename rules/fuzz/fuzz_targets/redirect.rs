//! What is followed is allowed, and what is refused tells no query.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::location::{Scheme, Url};
use rules::redirect::{Allow, Decision, Policy, Redirect, decide};

fuzz_target!(|input: (u16, u8, bool, bool, &str, &[u8])| {
    let (status, followed, looped, secure, pattern, location) = input;
    let base = if secure { "https://registry.example/v2/" } else { "http://registry.example/v2/" };
    let base = Url::parse(base.as_bytes()).expect("a base");
    let mut policy = Policy::default();
    policy.allow.extend(Allow::parse(pattern));
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
