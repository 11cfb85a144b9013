//! A JSON parser reads back what was written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::error::{body, code_for};

fuzz_target!(|input: (u16, &str)| {
    let (status, message) = input;
    let code = code_for(status);
    let parsed: serde_json::Value =
        serde_json::from_str(&body(code, message)).expect("a body that is JSON");
    let want = serde_json::json!({"errors": [{"code": code.as_str(), "message": message}]});
    assert_eq!(parsed, want);
});
