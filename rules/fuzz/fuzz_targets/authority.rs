//! A valid authority is exactly what may stand in a URL, and it stays what it is there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::authority::is_valid;
use rules::challenge::valid_base;
use rules::location::Url;

fuzz_target!(|data: &[u8]| {
    if data.iter().any(|byte| b"/?#".contains(byte)) {
        assert!(!is_valid(data));
        return;
    }
    let url = [b"http://", data].concat();
    let parsed = Url::parse(&url);
    assert_eq!(is_valid(data), parsed.is_ok());
    assert_eq!(is_valid(data), valid_base(&url));

    if let Ok(url) = parsed {
        assert!(is_valid(url.authority().as_bytes()));
        assert_eq!(Url::parse(format!("http://{}", url.authority()).as_bytes()), Ok(url));
    }
});
