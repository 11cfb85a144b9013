//! Lines may be joined, and whatever a client sends before our name does not hide it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::cdn_loop::{count, id};

fuzz_target!(|data: &[u8]| {
    let name = id(b"host", data);
    let lines: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let before = count(lines.iter().copied(), &name);

    let joined = lines.join(b", ".as_slice());
    assert_eq!(count([joined.as_slice()].into_iter(), &name), before);

    let after = [joined.as_slice(), name.as_bytes()].join(b", ".as_slice());
    assert_eq!(count([after.as_slice()].into_iter(), &name), before + 1);
});
