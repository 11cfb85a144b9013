//! What a reference means can be written as an absolute URL, which means the same everywhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::location::{MAX_LENGTH, Url};

const BASES: [&[u8]; 4] =
    [b"https://a", b"http://a.example:8080/b/c/d;p?q", b"https://[::1]/..//", b"http://10.0.0.1/?"];

fuzz_target!(|data: &[u8]| {
    let Some((first, reference)) = data.split_first() else {
        return;
    };
    let base = Url::parse(BASES[usize::from(*first) % BASES.len()]).expect("a base");
    if let Ok(url) = Url::parse(reference) {
        assert!(base.join(reference).is_ok_and(|joined| joined.same_origin(&url)));
    }
    let Ok(url) = base.join(reference) else {
        return;
    };

    assert!(url.uri.starts_with('/') && url.uri.len() <= MAX_LENGTH);
    assert!(url.uri.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#'));
    let (path, query) = url.uri.split_once('?').unwrap_or((&url.uri, ""));
    assert!(!path.split('/').any(|segment| segment == "." || segment == ".."));
    let reference = str::from_utf8(reference).expect("ASCII");
    let received = reference.split('#').next().unwrap_or_default();
    assert!(received.ends_with(query) || base.uri.ends_with(query));

    let text = format!("{}://{}{}", url.scheme.as_str(), url.authority(), url.uri);
    if text.len() <= MAX_LENGTH {
        assert_eq!(Url::parse(text.as_bytes()).as_ref(), Ok(&url));
        assert_eq!(base.join(text.as_bytes()).as_ref(), Ok(&url));
    }
    assert!(!url.without_query().contains('?'));
    assert_eq!(url.join(b"#"), Ok(url));
});
