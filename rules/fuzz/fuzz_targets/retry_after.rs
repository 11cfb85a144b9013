//! Whatever a server says, a delay is within its bounds, and a later now makes none longer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::retry_after::{MIN, delay};

fuzz_target!(|input: (&[u8], u64, u64, u64)| {
    let (text, now, default, max) = input;
    let lines = || text.split(|byte| *byte == b'\n');
    let max = max.max(MIN);

    let found = delay(lines(), now, default, max);
    assert!((MIN..=max).contains(&found));
    if default >= max {
        // Rubbish beside a delay does not lengthen it, and a later now can only shorten it.
        let alone = lines().map(|line| delay([line].into_iter(), now, 0, max)).max();
        assert!(alone.is_some_and(|alone| alone <= found));
    } else {
        let later = delay(lines(), now.saturating_add(1), default, max);
        assert!(later <= found);
    }
});
