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

    // One element is one name at most, whatever its parameters say.
    let parameters: Vec<u8> = data.iter().copied().filter(|byte| *byte != b',').collect();
    let element = [name.as_bytes(), &parameters].join(b";".as_slice());
    assert_eq!(count([element.as_slice()].into_iter(), &name), 1);
    let other = [b"x".as_slice(), &parameters].join(b";".as_slice());
    assert_eq!(count([other.as_slice()].into_iter(), &name), 0);

    let after = [joined.as_slice(), name.as_bytes()].join(b", ".as_slice());
    assert_eq!(count([after.as_slice()].into_iter(), &name), before + 1);
});
