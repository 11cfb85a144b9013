//! What is written is read, and what is read is at most what was written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::rate_limit::{RateLimit, Source};

fuzz_target!(|input: (&[u8], u32, u32)| {
    let (value, requests, window) = input;
    let written = format!("{requests};w={window}");
    let limit = RateLimit { requests, window };
    assert_eq!(RateLimit::parse(written.as_bytes()), Some(limit));
    let longer = [written.as_bytes(), b",", value].concat();
    assert_eq!(RateLimit::parse(&longer), Some(limit));

    if let Some(limit) = RateLimit::parse(value) {
        let first = value.trim_ascii_start();
        assert!(first.first().is_some_and(u8::is_ascii_digit));
        let again = format!("{};w={}", limit.requests, limit.window);
        assert_eq!(RateLimit::parse(again.as_bytes()), Some(limit));
    }
    if Source::parse(value).is_some() {
        assert!(value.trim_ascii().iter().all(u8::is_ascii_graphic));
    }
});
