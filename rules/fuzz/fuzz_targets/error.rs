//! A JSON parser reads back what was written, and a status line is one line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::error::{Code, body, is_markup, status_line};

fuzz_target!(|input: (u16, &[u8], &str)| {
    let (status, path, message) = input;
    let code = Code::of(status, path);
    let parsed: serde_json::Value =
        serde_json::from_str(&body(code, message)).expect("a body that is JSON");
    let want = serde_json::json!({"errors": [{"code": code.as_str(), "message": message}]});
    assert_eq!(parsed, want);

    let _ = is_markup(path);
    let line = status_line(status, message);
    assert_eq!(line.is_some(), (500..=599).contains(&status));
    if let Some(line) = line {
        assert!(line.starts_with(&format!("{status} ")) && line.len() < 500);
        assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    }
});
