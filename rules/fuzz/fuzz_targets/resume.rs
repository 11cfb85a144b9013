//! A range that is read is written the same; an answer is the rest of another only where the bytes
//! of both make up the whole, of the same entity.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::resume::{Answer, ContentRange, Promise};

fuzz_target!(|data: (u16, Option<u64>, u64, bool, &[u8])| {
    let (status, length, received, is_fixed, text) = data;
    let mut parts = text.splitn(2, |byte| *byte == 0);
    let (range, etag) = (parts.next().unwrap_or_default(), parts.next());

    let parsed = ContentRange::parse(range);
    if let Some(ContentRange { first, last, total }) = parsed {
        assert!(first <= last && last < total);
        let written = format!("bytes {first}-{last}/{total}");
        assert_eq!(ContentRange::parse(written.as_bytes()), parsed);
    }

    let lines = std::iter::once((b"Content-Range".as_slice(), range))
        .chain(etag.map(|etag| (b"ETag".as_slice(), etag)));
    let answer = Answer::new(status, length, lines);
    let Ok(promise) = Promise::of(&answer, is_fixed) else {
        return;
    };
    assert!(status == 200 || status == 206);
    assert!(is_fixed || promise.if_range().is_some());
    assert_eq!(Some(promise.length()), length);
    assert_eq!(promise.range(received).is_some(), received < promise.length());
    if let Some(etag) = promise.if_range() {
        assert!(etag.starts_with(b"\"") && etag.ends_with(b"\"") && etag.len() > 1);
    }
    // A part is the rest of itself when nothing has come, and of nothing else.
    assert_eq!(promise.accept(0, &answer).is_ok(), status == 206);
    assert!(received == 0 || promise.accept(received, &answer).is_err());
});
