//! Who owns a token depends on its subject alone; what is no token belongs to somebody.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::owner::Owner;

fuzz_target!(|input: (&[u8], &str)| {
    let (value, subject) = input;
    let owner = Owner::of(Some(value));
    assert_eq!(Owner::of(Some(value)), owner);
    let is_bearer = value.trim_ascii_start().to_ascii_lowercase().starts_with(b"bearer ");
    assert!(is_bearer || owner != Owner::Anonymous);

    let jwt = |claims: serde_json::Value| {
        let claims = base64url(claims.to_string().as_bytes());
        Owner::of(Some(format!("Bearer e30.{claims}.").as_bytes()))
    };
    if subject.len() < 512 {
        let owner = jwt(serde_json::json!({"sub": subject}));
        assert_eq!(owner == Owner::Anonymous, subject.is_empty());
        let more = serde_json::json!({"access": [{"sub": "x"}], "sub": subject, "z": value});
        if value.len() < 512 {
            assert_eq!(jwt(more), owner);
        }
    }
});

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..=chunk.len() {
            let at = (bits >> (18 - 6 * digit)) & 63;
            out.push(char::from(DIGITS[at as usize]));
        }
    }
    out
}
