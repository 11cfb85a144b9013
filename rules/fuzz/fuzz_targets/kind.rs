//! A request that is known can be put together again from its parts, and its parts are of its path
//! and hold nothing that needs quoting.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::kind::{Class, Kind, Request};

const METHODS: [&[u8]; 5] = [b"GET", b"HEAD", b"PUT", b"POST", b"DELETE"];

fuzz_target!(|data: &[u8]| {
    let Some((first, uri)) = data.split_first() else {
        return;
    };
    let method = METHODS[usize::from(*first) % METHODS.len()];
    let request = Request::of(method, uri);
    let Request { kind, repository, reference, digest, class } = request;

    for (part, most) in [(repository, 255), (reference, 255), (digest, 255)] {
        assert!(part.len() <= most);
        assert!(part.iter().all(|byte| byte.is_ascii_alphanumeric() || b"/:._-=+".contains(byte)));
    }
    assert_eq!(class == Class::Blob, kind == Kind::Blob);
    assert_eq!(class == Class::Token, kind == Kind::Token);
    assert_eq!(class == Class::Ping, kind == Kind::Ping);
    assert!(digest.is_empty() || digest.contains(&b':'));

    let path = uri.split(|byte| *byte == b'?').next().expect("one part at least");
    let text = |bytes| str::from_utf8(bytes).expect("ASCII");
    let (name, reference, digest) = (text(repository), text(reference), text(digest));
    let again = match kind {
        Kind::Manifest => format!("/v2/{name}/manifests/{reference}"),
        Kind::Blob => format!("/v2/{name}/blobs/{digest}"),
        Kind::Tags => format!("/v2/{name}/tags/list"),
        Kind::Referrers => format!("/v2/{name}/referrers/{digest}"),
        Kind::Catalog => "/v2/_catalog".to_owned(),
        Kind::Ping => {
            assert!(path == b"/v2" || path == b"/v2/");
            return;
        }
        Kind::Token | Kind::Upload | Kind::Other => return,
    };
    assert_eq!(path, again.as_bytes());
    assert_eq!(Request::of(method, path), request);
});
