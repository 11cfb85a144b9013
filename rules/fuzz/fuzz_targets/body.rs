//! What is encoded is decoded again; a body is whole at one byte only; no other bytes are read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::body::{Body, Framing, read};

fuzz_target!(|data: &[u8]| {
    if let Body::Whole(body) = read(Framing::Chunked, data) {
        assert!(body.len() + 5 <= data.len());
        // All of them, but of long input only the last ones: this is the slowest part.
        for end in data.len().saturating_sub(100)..data.len() {
            assert_eq!(read(Framing::Chunked, &data[..end]), Body::Partial, "{end} bytes");
        }
        assert_eq!(read(Framing::Chunked, &[data, b"0"].concat()), Body::Surplus);
    }

    let Some((size, content)) = data.split_first() else {
        return;
    };
    let mut encoded = Vec::new();
    for chunk in content.chunks(usize::from(*size).max(1)) {
        encoded.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        encoded.extend_from_slice(chunk);
        encoded.extend_from_slice(b"\r\n");
    }
    encoded.extend_from_slice(b"0\r\n\r\n");
    let whole = Body::Whole(content.into());
    assert_eq!(read(Framing::Chunked, &encoded), whole);
    assert_eq!(read(Framing::Length(content.len() as u64), content), whole);
});
