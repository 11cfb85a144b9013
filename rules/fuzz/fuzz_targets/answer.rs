//! A value is one line's; lines behind its own and an interim answer before it do not change it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::answer::field;

fuzz_target!(|head: &[u8]| {
    let found = field(head, "Location");
    assert!(found.is_none_or(|value| !value.contains(&b'\n') && value.len() < head.len()));
    assert_eq!(field(head, "LOCATION"), found);

    if head.first().is_none_or(|byte| b"\r\n".contains(byte)) {
        return;
    }
    let interim = [b"HTTP/1.1 103 Early Hints\r\nLocation: /interim\r\n\r\n", head].concat();
    assert_eq!(field(&interim, "Location"), found);
    if head.ends_with(b"\n") && !head.ends_with(b"\n\n") && !head.ends_with(b"\n\r\n") {
        let longer = [head, b"Location: /last\r\n\r\n"].concat();
        assert_eq!(field(&longer, "Location"), Some(found.unwrap_or(b"/last")));
    }
});
