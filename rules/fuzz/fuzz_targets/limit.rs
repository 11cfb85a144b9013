//! A 429 is of one form whatever stands behind the bytes that are looked at, and no login limit is
//! taken for a pull limit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::fallback::is_page;
use rules::kind::Class;
use rules::limit::Limit;

fuzz_target!(|input: (usize, u16, &[u8], &[u8])| {
    let (class, status, content_type, body) = input;
    let class = Class::ALL[class % Class::ALL.len()];
    let limit = Limit::of(class, content_type, body);
    assert!(class != Class::Token || limit != Limit::Pull);

    let padded = [body, &[b' '; 4096]].concat();
    assert_eq!(Limit::of(class, content_type, &padded), limit);
    let longer = [&padded[..], b"HAP429"].concat();
    assert_eq!(Limit::of(class, content_type, &longer), limit);
    assert_eq!(Limit::of(class, content_type, &[b"(hap429)", body].concat()), Limit::Abuse);

    let page = is_page(|| class, status, content_type);
    assert!(!page || (200..300).contains(&status));
    assert_eq!(page, is_page(|| class, status, &content_type.to_ascii_uppercase()));
});
