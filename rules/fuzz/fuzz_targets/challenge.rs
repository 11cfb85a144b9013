//! A rewritten header is valid, stays as it is when it is rewritten again, and holds nothing that
//! was in neither the header nor the base. A challenge that is written alone is read as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::challenge::{ChallengeError, first_bearer, rewrite_realm, valid_base};

const BASES: [&[u8]; 3] = [b"https://mirror.example:5000", b"http://[::1]/", b"https://m"];

fuzz_target!(|data: &[u8]| {
    let Some((first, header)) = data.split_first() else {
        return;
    };
    let base = BASES[usize::from(*first) % BASES.len()];

    match rewrite_realm(header, base) {
        Ok(Some(out)) => {
            let position = out.windows(4).position(|bytes| bytes == b"http").expect("a base");
            assert_eq!(out[..position], header[..position]);
            assert_eq!(rewrite_realm(&out, base), Ok(Some(out.clone())));
            assert!(out.iter().all(|byte| header.contains(byte) || base.contains(byte)));
            assert_eq!(rewrite_realm(header, b"\""), Err(ChallengeError::Base));
        }
        Ok(None) => assert_eq!(rewrite_realm(header, b"\""), Ok(None)),
        Err(ChallengeError::Syntax(offset)) => assert!(offset <= header.len()),
        Err(ChallengeError::Base) => panic!("a base that is valid"),
    }

    if let Ok(Some(bearer)) = first_bearer(header) {
        assert_eq!(first_bearer(bearer.to_header().as_bytes()), Ok(Some(bearer)));
    }

    // Whatever may be a base keeps the header valid.
    if valid_base(header) {
        let out = rewrite_realm(br#"Bearer realm="https://a/b",c=d"#, header);
        let out = out.expect("a base that is valid").expect("a realm");
        assert!(matches!(rewrite_realm(&out, base), Ok(Some(_))));
    }
});
